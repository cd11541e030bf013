//! The output of a service's copies: followed or held, searched, bounded.

use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::app::App;
use crate::canvas::Canvas;
use crate::theme::Role;
use crate::words;

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let log = &app.logs;
    if log.slot.is_empty() {
        let inner = canvas.rule(area, "6 LOGS", "", true);
        canvas.text(inner, 0, "  no log is open: choose a service or a copy and press l", Role::Dim);
        return;
    }
    let state = match (&log.ended, log.following()) {
        (Some(why), _) => format!("ended: {why}"),
        (None, true) => "following".to_owned(),
        (None, false) => format!("held, {} below (f follows)", words::count(log.back, "line")),
    };
    let mut right = words::count(log.lines.len(), "line");
    if log.dropped > 0 {
        right = format!("{right}, {} older let go", log.dropped);
    }
    if !log.search.is_empty() {
        right = format!("{right}, search {:?}", log.search);
    }
    let inner = canvas.rule(area, &format!("6 LOGS {}: {state}", log.slot), &right, true);
    if log.lines.is_empty() {
        let text = if log.ended.is_some() { "  it wrote nothing" } else { "  nothing yet" };
        canvas.text(inner, 0, text, Role::Dim);
        return;
    }
    let several = !log.slot.contains('/');
    let bottom = log.lines.len() - log.back;
    let top = bottom.saturating_sub(usize::from(inner.height));
    for (row, at) in (top..bottom).enumerate() {
        canvas.rows_built += 1;
        let line = &log.lines[at];
        let role = if log.found(line) {
            Role::Accent
        } else if line.error {
            Role::Warning
        } else {
            Role::Base
        };
        let mark = if line.error { "! " } else { "  " };
        let mut spans = vec![canvas.span(mark, Role::Warning)];
        if several {
            spans.push(canvas.span(format!("{} ", line.slot), Role::Dim));
        }
        spans.push(canvas.span(line.text.clone(), role));
        canvas.line(inner, row as u16, &Line::from(spans));
    }
}

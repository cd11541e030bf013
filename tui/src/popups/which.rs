//! What may follow the keys pressed so far.

use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::app::App;
use crate::canvas::Canvas;
use crate::theme::Role;

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let following = app.keymap.following(&app.pending, app.context());
    let lines: Vec<Line<'static>> = following
        .iter()
        .map(|(chord, entry)| {
            Line::from(vec![
                canvas.span(format!("{:<6}", chord.to_string()), Role::Key),
                canvas.span(entry.help, Role::Base),
            ])
        })
        .collect();
    let height = (lines.len() as u16 + 2).min(area.height);
    let width = 60.min(area.width);
    let corner = Rect { x: area.x + area.width - width, y: area.y + area.height - height, width, height };
    let keys: Vec<String> = app.pending.iter().map(ToString::to_string).collect();
    let inner = canvas.boxed(corner, &format!("{} ...   esc", keys.join(" ")), Role::Accent);
    canvas.lines(inner, &lines, 0);
}

//! One service: its copies, its spec, its versions, what happened to it, and above all why it is so.

use quorate_core::ids::ServiceName;
use quorate_core::view::{ClusterView, ServiceView};
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::pane;
use crate::app::{App, Pane};
use crate::canvas::{Canvas, split_left, split_top};
use crate::popups::why::{next, section};
use crate::rows::{Ctx, level_role, mark, services};
use crate::table::TableId;
use crate::theme::Role;
use crate::words;

/// From here on the spec stands beside the copies.
const WIDE: u16 = 150;

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView, name: &ServiceName) {
    let Some(s) = view.services.get(name) else {
        canvas.text(area, 0, &format!("  service {name} is not there any more; esc goes back"), Role::Dim);
        return;
    };
    let ctx = app.ctx(view);
    let head = head(canvas, s, &ctx, usize::from(area.width));
    let (top, rest) = split_top(area, (head.len() as u16 + 1).min(area.height / 2));
    let inner =
        canvas.rule(top, &format!("3 SERVICE {name}"), "tab: instances, spec, versions, events", false);
    canvas.lines(inner, &head, 0);
    let wide = area.width >= WIDE && app.pane() != Pane::Spec;
    let (rest, side) = if wide { split_left(rest, area.width * 2 / 3, 2) } else { (rest, Rect::default()) };
    if wide {
        spec(canvas, side, s, 0, false);
    }
    match app.pane() {
        Pane::Spec => spec(canvas, rest, s, app.place.scroll, true),
        Pane::Versions => versions(canvas, rest, s, app.place.scroll),
        Pane::Table(TableId::ServiceEvents) => {
            pane(canvas, rest, app, &ctx, TableId::ServiceEvents, "EVENTS", "nothing recorded about it");
        }
        _ => {
            let empty = if s.stopped {
                "stopped by an operator: e, then ctrl-s starts it"
            } else {
                "it wants no copy (S scales it)"
            };
            pane(canvas, rest, app, &ctx, TableId::ServiceInstances, "INSTANCES", empty);
        }
    }
}

fn head(canvas: &Canvas<'_>, s: &ServiceView, ctx: &Ctx<'_>, width: usize) -> Vec<Line<'static>> {
    let level = services::level(s);
    let state = mark(&s.verdict.word, level, ctx.certain, ctx);
    let priority = services::priority_cell(s.priority);
    let once = if s.exclusive { "exclusive" } else { "not exclusive" };
    let mut out = vec![Line::from(vec![
        Span::raw("  "),
        canvas.span(state.text, state.role),
        canvas.span("   copies ", Role::Dim),
        canvas.span(
            format!(
                "{} of {} healthy, {} running",
                s.replicas.healthy, s.replicas.wanted, s.replicas.running
            ),
            Role::Base,
        ),
        canvas.span("   priority ", Role::Dim),
        canvas.span(priority.text, priority.role),
        canvas.span(format!("   version {}   {once}", s.version), Role::Dim),
    ])];
    let mut lines = Vec::new();
    let verdict = if s.why.verdict.is_empty() { &s.verdict.sentence } else { &s.why.verdict };
    section(&mut lines, canvas.theme, width, "", &[(format!("why: {verdict}"), level_role(level))]);
    let because: Vec<_> = s.why.because.iter().take(2).map(|b| (format!("- {b}"), Role::Base)).collect();
    section(&mut lines, canvas.theme, width, "", &because);
    section(&mut lines, canvas.theme, width, "", &next(&s.why, ctx.age_ms));
    out.extend(lines.into_iter().take(6));
    out
}

fn spec(canvas: &mut Canvas<'_>, area: Rect, s: &ServiceView, scroll: usize, focused: bool) {
    let inner = canvas.rule(area, "SPEC", "e edits", focused);
    let style = canvas.style(Role::Base);
    let text = s.spec.to_yaml();
    let lines: Vec<Line<'_>> = text.lines().map(|line| Line::styled(format!("  {line}"), style)).collect();
    canvas.lines(inner, &lines, scroll);
}

fn versions(canvas: &mut Canvas<'_>, area: Rect, s: &ServiceView, scroll: usize) {
    let inner = canvas.rule(area, "VERSIONS, newest first", "", true);
    let lines: Vec<Line<'static>> = s
        .versions
        .iter()
        .map(|v| {
            Line::from(vec![
                canvas.span(format!("  {:<5}", v.version.to_string()), Role::Title),
                canvas.span(format!("{}  ", words::date(v.at)), Role::Dim),
                canvas.span(format!("{:<8}", v.cause), Role::Base),
                canvas.span(format!("by {}", v.by), Role::Dim),
            ])
        })
        .collect();
    canvas.lines(inner, &lines, scroll);
}

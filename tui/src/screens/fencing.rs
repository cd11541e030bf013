//! Fencing: what can be done from here, every node with its ways and what is under way, and below all about
//! the node under the cursor: methods and who could use them, holders of its deadlines, history.

use quorate_core::view::{ClusterView, FenceMethodView, FenceTestView, NodeView, OperationView};
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::pane;
use crate::app::{App, Pane};
use crate::canvas::{Canvas, split_top};
use crate::popups::why::section;
use crate::rows::{Row, fencing, level_role};
use crate::table::TableId;
use crate::theme::{Role, Theme};
use crate::widgets::fences;
use crate::words;

/// Fencings whose steps are told one by one.
const MOST_TOLD: usize = 5;

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) {
    let (text, role) = fences::from_here(view);
    let (top, rest) = split_top(area, 1.min(area.height / 4));
    canvas.text(top, 0, &format!(" {text}"), role);
    let rows = app.tables.get(&TableId::Fencing).map_or(0, |table| table.rows.len().max(1));
    let wanted = u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(2);
    let (table, below) = split_top(rest, wanted.min((rest.height / 2).max(4)));
    pane(canvas, table, app, &app.ctx(view), TableId::Fencing, "8 FENCING", "no node is known");
    let Some(node) = chosen(app) else { return };
    let focused = app.pane() == Pane::Fences;
    let title = format!("{}: how it can be fenced, and what was done", node.name);
    let inner = canvas.rule(below, &title, if focused { "" } else { "tab: scroll here" }, focused);
    let lines = detail(canvas.theme, node, view, app.age_ms(), usize::from(area.width));
    let skip = app.place.scroll.min(lines.len().saturating_sub(usize::from(inner.height)));
    canvas.lines(inner, &lines, skip);
    let over = lines.len().saturating_sub(skip + usize::from(inner.height));
    if over > 0 && inner.height > 0 {
        let last = Rect { y: inner.y + inner.height - 1, height: 1, ..inner };
        canvas.fill(last, Role::Base);
        let text = format!("  {} {}", canvas.glyphs().cut, words::count(over + 1, "more line"));
        canvas.text(last, 0, &text, Role::Dim);
    }
}

/// The node under the cursor.
fn chosen(app: &App) -> Option<&NodeView> {
    match app.tables.get(&TableId::Fencing)?.current()? {
        Row::Fencing(node) => Some(node),
        _ => None,
    }
}

/// Lines that the lower part has, so that scrolling ends with them.
pub(crate) fn text_lines(app: &App, view: &ClusterView, width: usize) -> usize {
    chosen(app).map_or(0, |node| detail(&app.theme, node, view, app.age_ms(), width).len())
}

fn detail(theme: &Theme, n: &NodeView, view: &ClusterView, age_ms: u64, width: usize) -> Vec<Line<'static>> {
    let mut out = Vec::new();
    let (level, now) = fencing::line(n, view, age_ms);
    let now = if now == n.why.verdict { now } else { format!("{}; fencing: {now}", n.why.verdict) };
    let mut state = vec![(now, level_role(level))];
    if !n.fencing.exclusive.is_empty() {
        let held = n.fencing.exclusive.join(" ");
        state.push((format!("exclusive, and starts elsewhere by proof alone: {held}"), Role::Base));
    }
    section(&mut out, theme, width, "NOW", &cleaned(state));
    for (number, level) in (1..).zip(&n.fencing.levels) {
        let all = if level.len() > 1 { ": all of them have to succeed" } else { "" };
        let items = level.iter().flat_map(|method| method_lines(method, view, age_ms)).collect();
        section(&mut out, theme, width, &format!("LEVEL {number}{all}"), &cleaned(items));
    }
    if n.fencing.levels.is_empty() {
        let text = "no method: configure fencing.methods in the file of this node; until then only its return, \
                    guarded silence, or your word (A) frees what it holds";
        section(&mut out, theme, width, "LEVELS", &[(text.to_owned(), Role::Warning)]);
    }
    section(&mut out, theme, width, "HOLDERS of its deadlines", &cleaned(holders(n)));
    let mut history = Vec::new();
    for operation in n.fencing.history.iter().filter_map(|id| view.operations.get(id)).take(MOST_TOLD) {
        history.extend(told(operation, age_ms));
    }
    if history.is_empty() {
        history.push(("it was never fenced, as far as is remembered".to_owned(), Role::Dim));
    }
    section(&mut out, theme, width, "HISTORY, newest first", &cleaned(history));
    out
}

/// What agents and operators said comes from outside.
fn cleaned(items: Vec<(String, Role)>) -> Vec<(String, Role)> {
    items.into_iter().map(|(text, role)| (words::clean(&text), role)).collect()
}

fn method_lines(m: &FenceMethodView, view: &ClusterView, age_ms: u64) -> Vec<(String, Role)> {
    let device = if m.device == m.name { String::new() } else { format!(" {}", m.device) };
    let delay = match m.delay_ms {
        0 => String::new(),
        ms => format!(", after a delay of {}", seconds(ms)),
    };
    let action = if m.action == "reboot" { "off, and on again once proven" } else { "off" };
    let mut out = vec![(
        format!(
            "{} ({}{device}): {action}; {} of {} each{delay}",
            m.name,
            m.kind,
            words::count(m.attempts as usize, "attempt"),
            seconds(m.timeout_ms)
        ),
        Role::Title,
    )];
    let able: Vec<&str> = m.able.iter().map(|node| node.as_str()).collect();
    out.push(match able.as_slice() {
        [] => ("NOBODY could use it now".to_owned(), Role::Critical),
        able => (format!("could be used by {}", able.join(" ")), Role::Base),
    });
    for missing in &m.missing {
        out.push((format!("not by {}: {}; {}", missing.node, missing.why, missing.remedy), Role::Warning));
    }
    out.push(tested(m.last_test.as_ref(), view, age_ms));
    out
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{} s", ms / 1_000) } else { format!("{ms} ms") }
}

fn tested(test: Option<&FenceTestView>, view: &ClusterView, age_ms: u64) -> (String, Role) {
    let Some(test) = test else {
        return (
            "never tested: t asks its device for the power state, nothing is switched".into(),
            Role::Dim,
        );
    };
    let ago = words::span(view.at.0.saturating_sub(test.at.0) + age_ms);
    let when = format!("last test {ago} ago by {}, {} ms", test.by, test.took_ms);
    match (&test.error, &test.power) {
        (Some(error), _) => (format!("{when}: FAILED: {error}"), Role::Critical),
        (None, Some(power)) => (format!("{when}: power is {power}"), Role::Ok),
        (None, None) => (when, Role::Base),
    }
}

fn holders(n: &NodeView) -> Vec<(String, Role)> {
    let pid = |pid: Option<u32>| pid.map_or_else(|| "not known here".to_owned(), |pid| format!("pid {pid}"));
    let both = format!("guard {}, its twin {}", pid(n.guard_pid), pid(n.twin_pid));
    if n.witness {
        return vec![("a witness hosts nothing".to_owned(), Role::Dim)];
    }
    if n.armed {
        return vec![(format!("armed: {both}; its silence proves that what it ran has stopped"), Role::Ok)];
    }
    let mut out = vec![(format!("NOT ARMED, so its silence proves nothing: {both}"), Role::Warning)];
    out.extend(n.unarmed.as_ref().map(|it| (format!("{}; {}", it.why, it.remedy), Role::Warning)));
    out
}

/// One fencing: who, why, how it ended, and its steps with what was said and read back.
fn told(o: &OperationView, age_ms: u64) -> Vec<(String, Role)> {
    let why = if o.reason.is_empty() { String::new() } else { format!(": {}", o.reason) };
    let (state, role) = match &o.result {
        Some(result) if result.starts_with("failed") => (result.clone(), Role::Critical),
        Some(result) => (result.clone(), Role::Title),
        None => (fencing::progress(o, age_ms), Role::Notice),
    };
    let mut out =
        vec![(format!("{} operation {} for {}{why} => {state}", words::date(o.begun_at), o.id, o.by), role)];
    out.extend(o.history.iter().map(|note| (format!("{} {}", words::clock(note.at), note.text), Role::Base)));
    out
}

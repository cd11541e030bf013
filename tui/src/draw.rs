//! The whole screen as a pure function of the cockpit's memory: where you stand, the verdict, the
//! screen, the keys. Changes nothing.

use quorate_core::view::{ClusterKind, ClusterView, Level};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::app::{App, Pane, Screen};
use crate::canvas::{Canvas, split_top};
use crate::commands::{self, Cmd, Risk};
use crate::msg::Connection;
use crate::popups;
use crate::rows::{self, Row, level_glyph, level_role};
use crate::screens;
use crate::table::TableId;
use crate::theme::Role;
use crate::widgets::table;
use crate::words;

/// What a drawing leaves beside the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Where the terminal's cursor belongs, when something is typed.
    pub cursor: Option<Position>,
    /// Table rows that were built for it.
    pub rows_built: usize,
}

/// Draws everything into a buffer.
pub fn draw(app: &App, buf: &mut Buffer) -> Drawn {
    let mut canvas = Canvas::new(buf, &app.theme);
    let area = canvas.buf.area;
    canvas.fill(area, Role::Base);
    match &app.view {
        Some(view) => whole(&mut canvas, area, app, view),
        None => waiting(&mut canvas, area, app),
    }
    popups::draw(&mut canvas, area, app);
    if !app.popups.is_empty() {
        notice(&mut canvas, area, app);
    }
    Drawn { cursor: canvas.cursor, rows_built: canvas.rows_built }
}

fn waiting(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let text = match &app.connection {
        Connection::Connecting { to } => format!("waiting for the first view from {to}"),
        Connection::Attached { to } => format!("attached to {to}, waiting for the first view"),
        Connection::Lost { from, why } => format!("lost {from}: {why}"),
        Connection::Moving { from, to } => format!("lost {from}, asking {to}"),
    };
    canvas.text(area, 0, " Quorate", Role::Title);
    for (row, line) in words::wrap(&text, usize::from(area.width.saturating_sub(2))).iter().enumerate() {
        canvas.text(area, row as u16 + 1, &format!(" {line}"), Role::Dim);
    }
    footer(canvas, area, app);
}

fn whole(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) {
    let (top, rest) = split_top(area, 1);
    header(canvas, top, app, view);
    let rest = line(canvas, rest, app);
    let lines = verdict(canvas, app, view, usize::from(area.width));
    let room = if area.height < 10 { 1 } else { 4 };
    let (top, rest) = split_top(rest, (lines.len() as u16).min(room));
    canvas.lines(top, &lines, 0);
    let (body, _) = split_top(rest, rest.height.saturating_sub(1));
    let body = ways_out(canvas, body, app, view);
    let body = under_cursor(canvas, body, app, view);
    match &app.place.screen {
        Screen::Overview => screens::overview::draw(canvas, body, app, view),
        Screen::Nodes => screens::lists::nodes(canvas, body, app, view),
        Screen::Node(node) => screens::node::draw(canvas, body, app, view, node),
        Screen::Services => screens::lists::services(canvas, body, app, view),
        Screen::Service(service) => screens::service::draw(canvas, body, app, view, service),
        Screen::Operations => screens::lists::operations(canvas, body, app, view),
        Screen::Events => screens::lists::events(canvas, body, app, view),
        Screen::Logs => screens::logs::draw(canvas, body, app),
        Screen::Links => screens::links::draw(canvas, body, app, view),
        Screen::Fencing => screens::fencing::draw(canvas, body, app, view),
    }
    footer(canvas, area, app);
}

/// What is under the cursor, in full, at the bottom: a table has to cut it. Returns what is left above.
fn under_cursor(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) -> Rect {
    let Some(row) = app.focused().and_then(|table| table.current()).filter(|_| area.height >= 14) else {
        return area;
    };
    let ctx = app.ctx(view);
    let (text, next) = match row {
        Row::Node(n) => (format!("{}: {}", n.name, n.why.verdict), popups::why::next(&n.why, ctx.age_ms)),
        Row::Service(s) => {
            (format!("{}: {}", s.name, s.verdict.sentence), popups::why::next(&s.why, ctx.age_ms))
        }
        Row::Instance(i) => (format!("{}: {}", i.slot, i.why.verdict), popups::why::next(&i.why, ctx.age_ms)),
        Row::Operation(o) => (rows::operations::note_text(o), Vec::new()),
        Row::Countdown(c) if area.width >= table::TALL_BELOW => (
            format!("{} {}: {}; {}", c.subject, c.action, c.why, rows::countdowns::then_text(c, &ctx)),
            Vec::new(),
        ),
        // The details stand below already.
        Row::Fencing(_) | Row::Countdown(_) => return area,
        Row::Event(e) => (format!("{}: {}", e.subject, e.text), Vec::new()),
        Row::Link(l) => (rows::links::pair(l, &view.links, ctx.age_ms), Vec::new()),
    };
    let next = next.into_iter().next().map_or_else(String::new, |(next, _)| format!("; next: {next}"));
    let width = usize::from(area.width.saturating_sub(4));
    let lines = words::wrap(&words::clean(&format!("{text}{next}")), width);
    let lines = &lines[..lines.len().min(2)];
    let (above, below) = split_top(area, area.height - lines.len() as u16);
    let cursor = canvas.glyphs().cursor;
    for (row, line) in lines.iter().enumerate() {
        let lead = if row == 0 { cursor } else { " " };
        canvas.text(below, row as u16, &format!(" {lead} {line}"), Role::Accent);
    }
    above
}

/// While something is badly wrong, above the keys: what is safe to do next, and what is not. Returns what is left
/// above.
fn ways_out(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) -> Rect {
    let trouble = app.incident() || !view.standing.quorum || view.verdict.level == Level::Critical;
    if !trouble || area.height < 12 {
        return area;
    }
    let (above, bar) = split_top(area, area.height - 1);
    let context = app.context();
    let mut spans = vec![canvas.span(" Safe: ", Role::Ok)];
    let mut add = |cmds: &[(Cmd, &str)], role: Role| {
        for (cmd, word) in cmds.iter().filter(|(cmd, _)| commands::entry(*cmd).applies(context)) {
            let key = app.keymap.keys_of(*cmd).into_iter().next().unwrap_or_default();
            spans.push(canvas.span(key, role));
            spans.push(canvas.span(format!(" {word}  "), Role::Dim));
        }
    };
    let safe = [(Cmd::Links, "links"), (Cmd::Fencing, "fencing"), (Cmd::Why, "why"), (Cmd::Copy, "copy")];
    add(&safe, Role::Key);
    if view.standing.quorum {
        let fence = app.keymap.keys_of(Cmd::Fence).into_iter().next().unwrap_or_default();
        let attest = app.keymap.keys_of(Cmd::Attest).into_iter().next().unwrap_or_default();
        spans.push(canvas.span(" Dangerous, asks: ", Role::Warning));
        spans.push(canvas.span(format!("{fence} fence  {attest} attest"), Role::Base));
    } else {
        spans.push(canvas.span(" No quorum: changes are refused", Role::Warning));
    }
    canvas.line(bar, 0, &Line::from(spans));
    above
}

/// What whoever started the cockpit has to say; not where there is no room for it.
fn line(canvas: &mut Canvas<'_>, area: Rect, app: &App) -> Rect {
    if app.line.is_empty() || area.height < 12 {
        return area;
    }
    let width = usize::from(area.width.saturating_sub(2));
    let most = match area.height {
        0..30 if app.incident() => 1,
        0..30 => 2,
        _ => 3,
    };
    let lines: Vec<String> = words::wrap(&words::clean(&app.line), width).into_iter().take(most).collect();
    let (top, rest) = split_top(area, lines.len() as u16);
    for (row, text) in lines.iter().enumerate() {
        canvas.text(top, row as u16, &format!(" {text}"), Role::Accent);
    }
    rest
}

fn header(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) {
    let s = &view.standing;
    let role = if s.quorum { Role::Header } else { Role::Alert };
    canvas.fill(area, role);
    let kind = match view.cluster.kind {
        ClusterKind::Real => "",
        ClusterKind::Demo => "DEMO ",
        ClusterKind::Sim => "SIM ",
    };
    let leads = if s.leader.as_ref() == Some(&view.me) {
        match s.quorum_ack_age_ms.map(|ms| ms + app.age_ms()) {
            Some(ms) if s.quorum && ms < words::FRESH_MS => ", leader (quorum acked)".to_owned(),
            Some(ms) => format!(", leader? (quorum ack {} ago)", words::span(ms)),
            None => ", leader? (no quorum ack)".to_owned(),
        }
    } else {
        let doubt = if s.quorum { "" } else { "? (not heard)" };
        s.leader
            .as_ref()
            .map_or_else(|| ", no leader".to_owned(), |leader| format!(", leader {leader}{doubt}"))
    };
    let age = app.data_age_ms(view);
    let mut right = Vec::new();
    if app.frozen {
        right.push("FROZEN (z)".to_owned());
    }
    let alerts = alerts(view);
    if alerts > 0 {
        right.push(format!("ALERTS {alerts}"));
    }
    right.push(if age < words::FRESH_MS {
        "live".to_owned()
    } else {
        format!("data {} old", words::span(age))
    });
    let right = format!("{} ", right.join("  "));
    let sep = canvas.glyphs().separator;
    let side = if s.quorum || s.sentence.contains("NO QUORUM") { "" } else { "NO QUORUM: " };
    let long = format!(" {kind}{} {sep} on {}{leads} {sep} {side}{}", view.cluster.name, view.me, s.sentence);
    // Where it is cut, it is the role that goes: whether this side decides comes first.
    let short = format!(
        " {kind}{} {sep} on {} {sep} {} {}/{} voters{}",
        view.cluster.name,
        view.me,
        if s.quorum { "quorum" } else { "NO QUORUM" },
        s.voters_heard,
        s.voters,
        if s.quorum { &leads } else { "" }
    );
    let room = usize::from(area.width).saturating_sub(right.width() + 1);
    let mut lefts = vec![long, short];
    if view.nodes.len() == 1 && view.cluster.kind == ClusterKind::Real {
        let join = format!("{sep} others join by `quorate join-token`");
        let leaderless = format!(
            " {} {sep} on {} {sep} {}/{} voters {join}",
            view.cluster.name, view.me, s.voters_heard, s.voters
        );
        let with = |left: &String| format!("{left} {join}");
        lefts = vec![with(&lefts[0]), with(&lefts[1]), leaderless, lefts.swap_remove(1)];
    }
    let left = lefts.iter().find(|left| left.width() <= room).or(lefts.last()).map_or("", String::as_str);
    canvas.text(Rect { width: room as u16, ..area }, 0, left, role);
    let at = area.width.saturating_sub(right.width() as u16);
    canvas.text(Rect { x: area.x + at, width: area.width - at, ..area }, 0, &right, role);
}

/// Nodes and services that are not as they should be.
fn alerts(view: &ClusterView) -> usize {
    let nodes = view.nodes.values().filter(|n| rows::nodes::level(n) >= Level::Warning).count();
    nodes + view.services.values().filter(|s| s.verdict.level >= Level::Warning).count()
}

/// The sentence before any table, and above it whatever keeps it from being trusted.
fn verdict(canvas: &Canvas<'_>, app: &App, view: &ClusterView, width: usize) -> Vec<Line<'static>> {
    let mut out = Vec::new();
    let age = words::span(app.data_age_ms(view));
    let broken = match &app.connection {
        Connection::Attached { .. } | Connection::Connecting { .. } => None,
        Connection::Lost { from, why } => Some(format!("LOST {from}: {why}; what you see is {age} old")),
        Connection::Moving { from, to } => {
            Some(format!("LOST {from}, asking {to}; what you see is {age} old"))
        }
    };
    if let Some(text) = broken {
        let text = words::fit(&format!(" {} {text}", canvas.glyphs().critical), width, canvas.glyphs().cut);
        out.push(Line::styled(text, canvas.style(Role::Alert)));
    }
    let v = &view.verdict;
    let (level, word) = match (v.level, view.standing.quorum) {
        (Level::Ok | Level::Notice | Level::Warning, false) => {
            (Level::Critical, format!("no quorum, {}", v.word))
        }
        (level, _) => (level, v.word.clone()),
    };
    let role = if level == Level::Ok && !app.certain(view) { Role::Inferred } else { level_role(level) };
    let doubt = if app.certain(view) || level > Level::Ok { "" } else { "?" };
    let shown = if doubt.is_empty() { level } else { Level::Notice };
    let head = format!(" {} {}{doubt}: ", level_glyph(shown, canvas.glyphs()), word.to_uppercase());
    let inset = " ".repeat(3);
    let text = format!("{}{}", head.trim_start(), words::clean(&v.sentence));
    // In an incident the sides and the timeline tell of the links; the sentence has their line.
    let most = if app.incident() { 3 } else { 2 };
    let mut parts = words::wrap(&text, width.saturating_sub(4));
    if parts.len() > most {
        parts.truncate(most);
        parts[most - 1].push_str(canvas.glyphs().cut);
    }
    for (at, part) in parts.into_iter().enumerate() {
        let lead = if at == 0 { " ".to_owned() } else { inset.clone() };
        out.push(Line::styled(format!("{lead}{part}"), canvas.style(role)));
    }
    if let Some(link) = view.links.verdicts.first().filter(|_| !app.incident()) {
        let because = link.evidence.first().map_or_else(String::new, |e| format!(": {}", words::clean(e)));
        let text = format!("{}{because}", screens::links::headline(link, app.age_ms()));
        let text = words::fit(&text, width.saturating_sub(3), canvas.glyphs().cut);
        out.push(Line::styled(format!("   {text}"), canvas.style(Role::Warning)));
    }
    out
}

fn footer(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    if area.height < 2 {
        return;
    }
    if app.notice.is_some() {
        notice(canvas, area, app);
        return;
    }
    let bar = Rect { y: area.y + area.height - 1, height: 1, ..area };
    let context = app.context();
    let mut spans = vec![Span::raw(" ")];
    let mut used = 1;
    let fixed = [Cmd::Palette, Cmd::Help, Cmd::Leave];
    let reserved: usize = fixed.iter().map(|cmd| footer_width(app, *cmd)).sum();
    let usual = |entry: &&commands::Entry| {
        !entry.short.is_empty() && entry.applies(context) && !fixed.contains(&entry.cmd)
    };
    let room = usize::from(area.width).saturating_sub(reserved + 1);
    let mut shown: Vec<Cmd> = Vec::new();
    for entry in commands::ALL.iter().filter(usual) {
        let width = footer_width(app, entry.cmd);
        if used + width <= room {
            used += width;
            shown.push(entry.cmd);
        }
    }
    for cmd in shown.into_iter().chain(fixed) {
        let entry = commands::entry(cmd);
        let key = app.keymap.keys_of(cmd).into_iter().next().unwrap_or_default();
        let role = if entry.risk >= Risk::Name { Role::Warning } else { Role::Key };
        spans.push(canvas.span(key, role));
        spans.push(canvas.span(format!(" {}  ", entry.short), Role::Dim));
    }
    canvas.line(bar, 0, &Line::from(spans));
}

fn footer_width(app: &App, cmd: Cmd) -> usize {
    let key = app.keymap.keys_of(cmd).into_iter().next().unwrap_or_default();
    key.width() + commands::entry(cmd).short.width() + 3
}

/// The line for the operator, over the keys.
fn notice(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let Some(notice) = &app.notice else { return };
    let bar = Rect { y: area.y + area.height.saturating_sub(1), height: 1.min(area.height), ..area };
    canvas.fill(bar, Role::Base);
    let text = format!(" {} {}", level_glyph(notice.level, canvas.glyphs()), words::clean(&notice.text));
    canvas.text(bar, 0, &text, level_role(notice.level));
}

/// Can this pane get the focus, given what there is to show?
pub(crate) fn shows(app: &App, pane: Pane) -> bool {
    let filled = |id: TableId| app.tables.get(&id).is_some_and(|table| table.total > 0);
    match pane {
        Pane::Table(id @ (TableId::Countdowns | TableId::Running)) => filled(id),
        _ => true,
    }
}

/// Lines of the focused text pane, so that scrolling ends with them.
pub(crate) fn text_lines(app: &App) -> usize {
    let width = usize::from(app.size.0);
    match (&app.place.screen, app.pane(), &app.view) {
        (Screen::Node(node), Pane::Facts, Some(view)) => {
            view.nodes.get(node).map_or(0, |n| screens::node::facts(&app.theme, n, width).len())
        }
        (Screen::Fencing, _, Some(view)) => screens::fencing::text_lines(app, view, width),
        (Screen::Service(service), Pane::Spec, _) => {
            app.service(service).map_or(0, |s| s.spec.to_yaml().lines().count())
        }
        (Screen::Service(service), Pane::Versions, _) => app.service(service).map_or(0, |s| s.versions.len()),
        _ => 0,
    }
}

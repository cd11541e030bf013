//! The columns of operations: how far they are, what blocks them, when they end.

use quorate_core::view::{Level, OperationKindView, OperationView};

use super::{Cell, Column, Ctx, column, down, number, text, up};
use crate::theme::Role;
use crate::words;

pub(crate) const COLUMNS: &[Column<OperationView>] = &[
    number("ID", 5, 3, |o, _| Cell::new(o.id.to_string(), Role::Dim), |o| down(o.id.0)),
    column("KIND", 11, 0, kind, |o| up(o.kind as u64)),
    column("TARGET", 15, 0, target, |o| text(&o.target)),
    column("PHASE", 12, 0, phase, |o| text(&o.phase)),
    column("PROGRESS", 19, 1, progress, |o| up(share(o).unwrap_or(0))),
    number("RATE", 7, 4, rate, |o| down(o.rate)),
    number("LEFT", 6, 2, left, |o| up(o.eta_ms.unwrap_or(u64::MAX))),
    column("BY", 8, 5, |o, _| Cell::new(&*o.by, Role::Dim), |o| text(&o.by)),
    column("NOTE", 0, 0, note, |o| text(note_text(o))),
];

pub(crate) fn word(kind: OperationKindView) -> &'static str {
    match kind {
        OperationKindView::Drain => "drain",
        OperationKindView::Migration => "migration",
        OperationKindView::Rollout => "rollout",
        OperationKindView::Fence => "fence",
    }
}

pub(crate) fn running(o: &OperationView) -> bool {
    o.result.is_none()
}

pub(crate) fn level(o: &OperationView) -> Level {
    match &o.result {
        None if !o.blocked.is_empty() => Level::Warning,
        None => Level::Notice,
        Some(result) if result == "done" => Level::Ok,
        Some(result) if result.starts_with("failed") => Level::Critical,
        Some(_) => Level::Warning,
    }
}

/// Running before ended, newest first, each child right after its parent.
pub(crate) fn order(o: &OperationView, parent_runs: bool) -> (bool, std::cmp::Reverse<u64>, u64) {
    let family = o.parent.map_or(o.id.0, |parent| parent.0);
    let child = if o.parent.is_some() { o.id.0 } else { 0 };
    (!(running(o) || parent_runs), std::cmp::Reverse(family), child)
}

/// How much is done, in percent, where that is known.
pub(crate) fn share(o: &OperationView) -> Option<u64> {
    if o.bytes_total > 0 {
        Some(words::percent(o.bytes, o.bytes_total).min(100))
    } else if o.total > 0 {
        Some(words::percent(o.done, o.total).min(100))
    } else {
        None
    }
}

fn kind(o: &OperationView, ctx: &Ctx<'_>) -> Cell {
    let inset = if o.parent.is_some() { format!("{} ", ctx.glyphs.child) } else { String::new() };
    Cell::new(format!("{inset}{}", word(o.kind)), Role::Title)
}

fn target(o: &OperationView, _: &Ctx<'_>) -> Cell {
    Cell::plain(o.to.as_ref().map_or_else(|| o.target.clone(), |to| format!("{} > {to}", o.target)))
}

fn phase(o: &OperationView, ctx: &Ctx<'_>) -> Cell {
    let stuck =
        !o.blocked.is_empty() && running(o) && o.done >= o.total.saturating_sub(o.blocked.len() as u64);
    super::mark(if stuck { "BLOCKED" } else { &o.phase }, level(o), true, ctx)
}

fn progress(o: &OperationView, ctx: &Ctx<'_>) -> Cell {
    let Some(share) = share(o) else { return Cell::new("-", Role::Dim) };
    let bar = super::nodes::gauge(share, 8, ctx.glyphs);
    let counted = o.total > 1 && o.bytes_total == 0;
    let steps = if counted { format!(" {}/{}", o.done, o.total) } else { String::new() };
    Cell::new(format!("{bar}{steps}"), if running(o) { Role::Notice } else { Role::Dim })
}

fn rate(o: &OperationView, _: &Ctx<'_>) -> Cell {
    if o.rate == 0 || !running(o) {
        Cell::new("-", Role::Dim)
    } else {
        Cell::plain(format!("{}/s", words::bytes(o.rate)))
    }
}

fn left(o: &OperationView, ctx: &Ctx<'_>) -> Cell {
    match o.eta_ms.filter(|_| running(o)) {
        Some(ms) => Cell::plain(words::left(ms.saturating_sub(ctx.age_ms))),
        None => Cell::new("-", Role::Dim),
    }
}

pub(crate) fn note_text(o: &OperationView) -> String {
    if let Some(result) = &o.result {
        return o.ended_at.map_or_else(|| result.clone(), |at| format!("{result} at {}", words::clock(at)));
    }
    match o.blocked.first() {
        Some(b) if o.blocked.len() > 1 => format!("{}: {} (and {} more)", b.what, b.why, o.blocked.len() - 1),
        Some(b) => format!("{}: {}", b.what, b.why),
        None => o.worst_case_end.map_or_else(String::new, |at| format!("ends by {}", words::clock(at))),
    }
}

fn note(o: &OperationView, _: &Ctx<'_>) -> Cell {
    let role = if o.blocked.is_empty() || !running(o) { Role::Dim } else { Role::Warning };
    Cell::new(note_text(o), role)
}

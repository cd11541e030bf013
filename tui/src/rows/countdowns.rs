//! The columns of what will happen by itself, what just did, and what stays as it is.

use quorate_core::view::Countdown;

use super::{Cell, Column, Ctx, SortKey, column, down, text, up};
use crate::theme::Role;
use crate::words;

pub(crate) const COLUMNS: &[Column<Countdown>] = &[
    column("IN", 6, 0, within, |c| up(c.in_ms.unwrap_or(u64::MAX))),
    column("SUBJECT", 13, 0, subject, |c| text(&c.subject)),
    column("PRIORITY", 8, 3, priority, |c| down(rank(c))),
    column("WHERE", 9, 4, place, |c| text(&c.here)),
    column("ACTION", 17, 0, action, |c| text(&c.action)),
    column("WHY", 30, 2, |c, _| Cell::plain(&*c.why), |c| text(&c.why)),
    column("THEN", 0, 0, then, |c| text(&c.then)),
];

fn within(c: &Countdown, ctx: &Ctx<'_>) -> Cell {
    match c.in_ms {
        _ if c.done => Cell::new("DONE", Role::Dim),
        None => Cell::new("--", Role::Dim),
        Some(ms) => {
            let left = ms.saturating_sub(ctx.age_ms);
            Cell::new(words::left(left), if left < 10_000 { Role::Warning } else { Role::Notice })
        }
    }
}

fn subject(c: &Countdown, _: &Ctx<'_>) -> Cell {
    Cell::new(&*c.subject, if c.observed { Role::Title } else { Role::Inferred })
}

fn priority(c: &Countdown, _: &Ctx<'_>) -> Cell {
    c.priority.map_or_else(|| Cell::new("-", Role::Dim), super::services::priority_cell)
}

fn place(c: &Countdown, _: &Ctx<'_>) -> Cell {
    let text = if c.here.is_empty() { "-" } else { &c.here };
    Cell::new(text, if c.observed && !c.here.is_empty() { Role::Base } else { Role::Inferred })
}

fn action(c: &Countdown, _: &Ctx<'_>) -> Cell {
    let doubt = if c.observed { "" } else { "?" };
    Cell::new(format!("{}{doubt}", c.action), if c.observed { Role::Title } else { Role::Inferred })
}

fn then(c: &Countdown, ctx: &Ctx<'_>) -> Cell {
    Cell::new(then_text(c, ctx), Role::Dim)
}

/// What follows, and in how long.
pub(crate) fn then_text(c: &Countdown, ctx: &Ctx<'_>) -> String {
    match c.then_ms.map(|ms| ms.saturating_sub(ctx.age_ms)) {
        None => c.then.clone(),
        Some(0) => format!("{} by now", c.then),
        Some(ms) => format!("{} in {}", c.then, words::left(ms)),
    }
}

fn rank(c: &Countdown) -> u64 {
    c.priority.map_or(0, |p| 1 + p as u64)
}

/// Soonest first; what waits for an event comes after what waits for a time, and what is over last; then the
/// more important.
pub(crate) fn order(c: &Countdown) -> (bool, SortKey, SortKey) {
    (c.done, up(c.in_ms.unwrap_or(u64::MAX)), down(rank(c)))
}

//! The columns of links: one directed pair on one segment a row, as the node at its beginning last told.

use quorate_core::view::{Level, LinkFault, LinkRow, LinksView, Rtt};

use super::{Cell, Column, Ctx, SortKey, column, down, mark, number, text, up};
use crate::theme::Role;
use crate::words;

pub(crate) const COLUMNS: &[Column<LinkRow>] = &[
    column("STATE", 10, 0, state, |l| up(u64::from(l.ok))),
    column("FROM", 10, 0, |l, _| Cell::new(l.from.as_str(), Role::Title), |l| text(&l.from)),
    column("TO", 10, 0, |l, _| Cell::new(l.to.as_str(), Role::Title), |l| text(&l.to)),
    column("SEGMENT", 10, 1, |l, _| Cell::plain(&*l.segment), |l| text(&l.segment)),
    number("RTT MS", 7, 3, |l, _| Cell::plain(l.rtt_ms.map_or("-".to_owned(), rtt)), slowest),
    number("LOST %", 6, 4, loss, |l| down(u64::from(l.loss))),
    number("LAST GOOD", 9, 5, last_good, |l| down(l.last_good_ms.unwrap_or(u64::MAX))),
    number("TOLD", 6, 6, told, |l| down(l.age_ms)),
    column("WHAT", 0, 0, |l, ctx| Cell::new(what(l, ctx.age_ms), Role::Dim), |l| text(what(l, 0))),
];

fn slowest(l: &LinkRow) -> SortKey {
    down(l.rtt_ms.map_or(u64::MAX, |rtt| u64::from(rtt.0)))
}

/// What does not work first, then the viewer's own.
pub(crate) fn order(l: &LinkRow) -> (bool, bool, &str, &str, &str) {
    (l.ok, !l.observed, l.from.as_str(), l.to.as_str(), &l.segment)
}

/// A round trip in milliseconds.
pub(crate) fn rtt(rtt: Rtt) -> String {
    let ms = f64::from(rtt.0) / 1_000.0;
    if ms < 10.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

fn state(l: &LinkRow, ctx: &Ctx<'_>) -> Cell {
    let (word, level) = match (l.ok, l.changes_ms.len()) {
        (false, _) => ("down", Level::Critical),
        (true, 0..3) => ("ok", Level::Ok),
        (true, _) => ("unsteady", Level::Warning),
    };
    mark(word, level, l.observed && (ctx.certain || !l.ok), ctx)
}

fn loss(l: &LinkRow, _: &Ctx<'_>) -> Cell {
    let role = match l.loss {
        0 => Role::Dim,
        1..10 => Role::Warning,
        _ => Role::Critical,
    };
    Cell::new(l.loss.to_string(), role)
}

fn last_good(l: &LinkRow, ctx: &Ctx<'_>) -> Cell {
    match l.last_good_ms {
        None => Cell::new("never", Role::Warning),
        Some(_) if l.ok => Cell::new("now", Role::Dim),
        Some(ms) => Cell::new(words::span(ms + ctx.age_ms), Role::Warning),
    }
}

fn told(l: &LinkRow, ctx: &Ctx<'_>) -> Cell {
    match l.age_ms + ctx.age_ms {
        ms if ms < words::FRESH_MS => Cell::new("now", Role::Dim),
        ms => Cell::new(words::span(ms), Role::Inferred),
    }
}

/// One link in words.
pub(crate) fn what(l: &LinkRow, age_ms: u64) -> String {
    let mut said = Vec::new();
    if !l.ok {
        let fault = match l.fault {
            Some(LinkFault::Silent) | None => "no answer",
            Some(LinkFault::Refused) => "refused there",
            Some(LinkFault::NoRoute) => "no route",
            Some(LinkFault::Denied) => "denied there",
        };
        let since = l.down_ms.map_or_else(String::new, |ms| format!(" for {}", words::span(ms + age_ms)));
        said.push(format!("{fault}{since}"));
        if let Some(ms) = l.heard_ms.filter(|ms| *ms < words::FRESH_MS) {
            said.push(format!("yet heard from there {} ago: one way only", words::span(ms + age_ms)));
        }
    }
    if l.changes_ms.len() > 1 {
        let span = l.changes_ms.last().copied().unwrap_or_default();
        said.push(format!("broke or mended {} times in {}", l.changes_ms.len(), words::span(span + age_ms)));
    }
    said.join("; ")
}

/// Both directions of a pair on a segment, for the line under the table.
pub(crate) fn pair(l: &LinkRow, links: &LinksView, age_ms: u64) -> String {
    let one = |l: &LinkRow| {
        let ok = match (l.ok, l.rtt_ms) {
            (true, Some(ms)) => format!("ok, {} ms, {} % lost", rtt(ms), l.loss),
            (true, None) => "ok".to_owned(),
            (false, _) => format!("DOWN, {}", what(l, age_ms)),
        };
        let whose =
            if l.observed { String::new() } else { format!(" (told {})", words::ago(l.age_ms + age_ms)) };
        format!("{} to {}: {ok}{whose}", l.from, l.to)
    };
    let back = links.rows.iter().find(|r| r.from == l.to && r.to == l.from && r.segment == l.segment);
    let back = back.map_or_else(|| format!("{} told nothing of the way back", l.to), one);
    format!("{}; {back}; on {}", one(l), l.segment)
}

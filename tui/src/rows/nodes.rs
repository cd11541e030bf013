//! The columns of nodes.

use quorate_core::view::{Level, NodeState, NodeView};

use super::{Cell, Column, Ctx, SortKey, column, down, mark, number, text, up};
use crate::theme::{Glyphs, Role};
use crate::words;

pub(crate) const COLUMNS: &[Column<NodeView>] = &[
    column("STATE", 10, 0, state, |n| down(level(n) as u64)),
    column("NODE", 10, 0, name, |n| text(&n.name)),
    column("RAFT", 16, 1, raft, |n| down(u64::from(n.leader) * 2 + u64::from(n.voter))),
    number("HEARD", 6, 4, heard, |n| down(n.heard_ms.unwrap_or(u64::MAX))),
    number("LEASE", 6, 6, lease, |n| up(n.lease_left_ms)),
    number("INST", 4, 2, |n, _| Cell::plain(n.instances.to_string()), |n| down(u64::from(n.instances))),
    column("CPU", 12, 3, |n, ctx| share_cell(n, cpu_share(n), ctx), |n| down(cpu_share(n))),
    column("MEMORY", 12, 3, |n, ctx| share_cell(n, memory_share(n), ctx), |n| down(memory_share(n))),
    column("RESERVED", 18, 7, |n, _| Cell::plain(reserved(n)), |n| down(n.resources.reserved.memory.0)),
    number("DISK", 5, 8, disk, |n| down(disk_share(n))),
    number("LOAD", 5, 9, load, |n| down(u64::from(n.resources.usage.load_centi))),
    column("PLACES", 8, 5, places, |n| up(u64::from(n.schedulable))),
    column("WHY", 0, 0, why, |n| text(&n.why.verdict)),
];

pub(crate) fn word(n: &NodeView) -> &'static str {
    match n.state {
        NodeState::Alive if n.isolated => "isolated",
        NodeState::Alive if n.drained => "drained",
        NodeState::Alive if !n.schedulable => "cordoned",
        NodeState::Alive => "alive",
        NodeState::Suspect => "suspect",
        NodeState::Lost => "lost",
        NodeState::Fenced => "fenced",
    }
}

pub(crate) fn level(n: &NodeView) -> Level {
    match n.state {
        NodeState::Alive if n.isolated => Level::Critical,
        NodeState::Alive if n.schedulable => Level::Ok,
        NodeState::Alive => Level::Notice,
        NodeState::Suspect | NodeState::Fenced => Level::Warning,
        NodeState::Lost => Level::Critical,
    }
}

/// Worst first.
pub(crate) fn order(n: &NodeView) -> (SortKey, SortKey) {
    (down(level(n) as u64), text(&n.name))
}

pub(crate) fn state(n: &NodeView, ctx: &Ctx<'_>) -> Cell {
    // Lost and fenced are committed verdicts: nothing about them is a guess.
    let certain = n.observed || matches!(n.state, NodeState::Lost | NodeState::Fenced);
    mark(word(n), level(n), certain, ctx)
}

fn name(n: &NodeView, ctx: &Ctx<'_>) -> Cell {
    let me = if n.name == ctx.view.me { " me" } else { "" };
    Cell::new(format!("{}{me}", n.name), Role::Title)
}

/// Never a role alone: a leader shows how fresh its majority is.
pub(crate) fn raft(n: &NodeView, ctx: &Ctx<'_>) -> Cell {
    if n.leader {
        return match n.quorum_ack_age_ms.map(|ms| ms + ctx.age_ms) {
            Some(ms) if n.observed && ctx.view.standing.quorum && ms < words::FRESH_MS => {
                Cell::new("leader, acked", Role::Accent)
            }
            Some(ms) if ms < words::FRESH_MS => Cell::new("leader?", Role::Inferred),
            Some(ms) => Cell::new(format!("leader? ack {}", words::span(ms)), Role::Inferred),
            None => Cell::new("leader? no ack", Role::Inferred),
        };
    }
    let word = match (n.voter, n.witness) {
        (true, true) => "witness",
        (true, false) => "voter",
        (false, true) => "witness, new",
        (false, false) => "learner",
    };
    Cell::plain(word)
}

fn heard(n: &NodeView, ctx: &Ctx<'_>) -> Cell {
    match n.heard_ms.map(|ms| ms + ctx.age_ms) {
        None => Cell::new("never", Role::Warning),
        Some(ms) if ms < words::FRESH_MS => Cell::new("now", Role::Dim),
        Some(ms) => Cell::new(words::span(ms), Role::Warning),
    }
}

fn lease(n: &NodeView, ctx: &Ctx<'_>) -> Cell {
    match n.lease_left_ms.saturating_sub(ctx.age_ms) {
        0 => Cell::new("none", Role::Warning),
        _ if n.state == NodeState::Alive => Cell::new("held", Role::Dim),
        ms => Cell::new(words::left(ms), Role::Warning),
    }
}

pub(crate) fn cpu_share(n: &NodeView) -> u64 {
    let u = &n.resources.usage;
    words::percent(u64::from(u.cpu_used.0), u64::from(u.cpu_total.0))
}

pub(crate) fn memory_share(n: &NodeView) -> u64 {
    words::percent(n.resources.usage.memory_used.0, n.resources.usage.memory_total.0)
}

pub(crate) fn disk_share(n: &NodeView) -> u64 {
    words::percent(n.resources.usage.disk_used.0, n.resources.usage.disk_total.0)
}

/// A bar with its percentage.
pub(crate) fn gauge(share: u64, width: usize, glyphs: Glyphs) -> String {
    let filled = (share.min(100) as usize * width + 50) / 100;
    format!("{}{} {share:>3}%", glyphs.full.repeat(filled), glyphs.empty.repeat(width - filled))
}

pub(crate) fn share_role(share: u64) -> Role {
    match share {
        0..80 => Role::Base,
        80..95 => Role::Warning,
        _ => Role::Critical,
    }
}

fn share_cell(n: &NodeView, share: u64, ctx: &Ctx<'_>) -> Cell {
    match n.state {
        NodeState::Alive | NodeState::Suspect => Cell::new(gauge(share, 7, ctx.glyphs), share_role(share)),
        // What a lost node last used says nothing of now.
        NodeState::Lost | NodeState::Fenced => Cell::new("-", Role::Dim),
    }
}

pub(crate) fn reserved(n: &NodeView) -> String {
    let (r, c) = (n.resources.reserved, n.resources.capacity);
    let cpu = format!("{}/{}c", words::cores(r.cpu), words::cores(c.cpu));
    format!("{cpu} {}/{}", words::memory(r.memory), words::memory(c.memory))
}

fn disk(n: &NodeView, _: &Ctx<'_>) -> Cell {
    let share = disk_share(n);
    Cell::new(format!("{share}%"), share_role(share))
}

fn load(n: &NodeView, _: &Ctx<'_>) -> Cell {
    Cell::plain(format!("{:.1}", f64::from(n.resources.usage.load_centi) / 100.0))
}

pub(crate) fn places(n: &NodeView, _: &Ctx<'_>) -> Cell {
    match (n.schedulable, n.drained) {
        (true, _) => Cell::new("yes", Role::Dim),
        (false, true) => Cell::new("drained", Role::Notice),
        (false, false) if n.state == NodeState::Alive => Cell::new("cordoned", Role::Notice),
        (false, false) => Cell::new("no", Role::Dim),
    }
}

fn why(n: &NodeView, _: &Ctx<'_>) -> Cell {
    Cell::new(&*n.why.verdict, if level(n) > Level::Notice { Role::Base } else { Role::Dim })
}

//! The columns of instances and of slots that wait for one.

use quorate_core::view::{Health, InstanceState, InstanceView, Level};

use super::{Cell, Column, Ctx, SortKey, column, down, mark, number, text, up};
use crate::theme::Role;
use crate::words;

pub(crate) const COLUMNS: &[Column<InstanceView>] = &[
    column("STATE", 14, 0, state, |i| down(level(i) as u64)),
    column("SLOT", 16, 0, |i, _| Cell::new(&*i.slot, Role::Title), |i| text(&i.slot)),
    column("NODE", 8, 0, node, |i| text(i.node.as_ref().map_or("", |n| n.as_str()))),
    column("PRIORITY", 8, 4, |i, _| super::services::priority_cell(i.priority), |i| down(i.priority as u64)),
    column("HEALTH", 9, 1, health, |i| up(u64::from(i.health.good()))),
    number("CPU", 5, 5, cpu, |i| down(u64::from(i.usage.cpu.0))),
    number("MEM", 5, 5, memory, |i| down(i.usage.memory.0)),
    number("RESTARTS", 8, 3, restarts, |i| down(u64::from(i.restarts))),
    number("PID", 7, 6, pid, |i| up(u64::from(i.pid.unwrap_or(0)))),
    column("TOKEN", 9, 7, token, |i| text(i.token.clone().unwrap_or_default())),
    number("VER", 4, 8, |i, _| Cell::plain(i.version.to_string()), |i| down(i.version.0)),
    column("WHY", 0, 0, why, |i| text(&i.why.verdict)),
];

pub(crate) fn word(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Waiting => "waiting",
        InstanceState::Starting => "starting",
        InstanceState::Running => "running",
        InstanceState::RunningUnconfirmed => "unconfirmed",
        InstanceState::Stopping => "stopping",
        InstanceState::Stopped => "stopped",
        InstanceState::Failed => "failed",
        InstanceState::Unknown => "unknown",
    }
}

pub(crate) fn level(i: &InstanceView) -> Level {
    match i.state {
        InstanceState::Running if i.health == Health::Unhealthy => Level::Warning,
        InstanceState::Running => Level::Ok,
        InstanceState::Starting | InstanceState::Stopping | InstanceState::Stopped => Level::Notice,
        InstanceState::Waiting | InstanceState::RunningUnconfirmed | InstanceState::Unknown => Level::Warning,
        InstanceState::Failed => Level::Critical,
    }
}

/// Worst first, then the more important.
pub(crate) fn order(i: &InstanceView) -> (SortKey, SortKey) {
    (down(10 * level(i) as u64 + i.priority as u64), text(&i.slot))
}

fn state(i: &InstanceView, ctx: &Ctx<'_>) -> Cell {
    let observed = i.observed && i.state != InstanceState::RunningUnconfirmed;
    mark(word(i.state), level(i), observed, ctx)
}

fn node(i: &InstanceView, _: &Ctx<'_>) -> Cell {
    i.node.as_ref().map_or_else(|| Cell::new("-", Role::Dim), |n| Cell::plain(n.to_string()))
}

fn health(i: &InstanceView, _: &Ctx<'_>) -> Cell {
    let runs = matches!(i.state, InstanceState::Running | InstanceState::Starting);
    match i.health {
        _ if !runs => Cell::new("-", Role::Dim),
        Health::Healthy => Cell::new("healthy", Role::Ok),
        Health::Unhealthy => Cell::new("unhealthy", Role::Critical),
        Health::Unchecked => Cell::new("-", Role::Dim),
        Health::Starting => Cell::new("starting", Role::Dim),
    }
}

fn cpu(i: &InstanceView, _: &Ctx<'_>) -> Cell {
    if i.pid.is_none() { Cell::new("-", Role::Dim) } else { Cell::plain(words::cores(i.usage.cpu)) }
}

fn memory(i: &InstanceView, _: &Ctx<'_>) -> Cell {
    if i.pid.is_none() { Cell::new("-", Role::Dim) } else { Cell::plain(words::memory(i.usage.memory)) }
}

fn restarts(i: &InstanceView, _: &Ctx<'_>) -> Cell {
    Cell::new(i.restarts.to_string(), if i.restarts > 0 { Role::Warning } else { Role::Dim })
}

fn pid(i: &InstanceView, _: &Ctx<'_>) -> Cell {
    Cell::new(i.pid.map_or_else(|| "-".into(), |pid| pid.to_string()), Role::Dim)
}

fn token(i: &InstanceView, _: &Ctx<'_>) -> Cell {
    Cell::new(i.token.clone().unwrap_or_else(|| "-".into()), Role::Dim)
}

fn why(i: &InstanceView, ctx: &Ctx<'_>) -> Cell {
    let text = match i.waiting.first() {
        None => i.why.verdict.clone(),
        Some(w) => match w.until_ms {
            Some(ms) => format!("{} ({})", w.reason, words::left(ms.saturating_sub(ctx.age_ms))),
            None => w.reason.clone(),
        },
    };
    Cell::new(text, if level(i) > Level::Notice { Role::Base } else { Role::Dim })
}

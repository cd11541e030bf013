//! The columns of services.

use quorate_core::spec::Priority;
use quorate_core::view::{Level, ServiceView};

use super::{Cell, Column, Ctx, SortKey, column, down, mark, number, text, up};
use crate::theme::Role;

pub(crate) const COLUMNS: &[Column<ServiceView>] = &[
    column("STATE", 11, 0, state, |s| down(level(s) as u64)),
    column("SERVICE", 16, 0, |s, _| Cell::new(s.name.to_string(), Role::Title), |s| text(&s.name)),
    column("PRIORITY", 8, 1, |s, _| priority_cell(s.priority), |s| down(s.priority as u64)),
    number("COPIES", 6, 0, copies, |s| down(u64::from(s.replicas.wanted))),
    column("EXCL", 4, 5, exclusive, |s| up(u64::from(!s.exclusive))),
    column("EXECUTOR", 8, 6, |s, _| Cell::plain(s.executor.to_string()), |s| text(s.executor)),
    number("VER", 4, 4, |s, _| Cell::plain(s.version.to_string()), |s| down(s.version.0)),
    column("NODES", 12, 2, |s, _| Cell::plain(nodes_text(s)), |s| text(nodes_text(s))),
    column("WHY", 0, 0, why, |s| text(&s.verdict.sentence)),
];

pub(crate) fn level(s: &ServiceView) -> Level {
    s.verdict.level
}

/// Worst first, then the more important.
pub(crate) fn order(s: &ServiceView) -> (SortKey, SortKey) {
    let rank = 10 * level(s) as u64 + s.priority as u64;
    (down(rank), text(&s.name))
}

pub(crate) fn priority_cell(priority: Priority) -> Cell {
    let role = match priority {
        Priority::Critical => Role::Accent,
        Priority::High => Role::Title,
        Priority::Normal => Role::Base,
        Priority::Low => Role::Dim,
    };
    Cell::new(priority.to_string(), role)
}

fn state(s: &ServiceView, ctx: &Ctx<'_>) -> Cell {
    mark(&s.verdict.word, level(s), ctx.certain, ctx)
}

fn copies(s: &ServiceView, _: &Ctx<'_>) -> Cell {
    let r = s.replicas;
    let role = if r.healthy >= r.wanted { Role::Base } else { Role::Warning };
    Cell::new(format!("{}/{}", r.healthy, r.wanted), role)
}

fn exclusive(s: &ServiceView, _: &Ctx<'_>) -> Cell {
    if s.exclusive { Cell::plain("once") } else { Cell::new("-", Role::Dim) }
}

pub(crate) fn nodes_text(s: &ServiceView) -> String {
    let names: Vec<String> = s.nodes.iter().map(ToString::to_string).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(" ") }
}

fn why(s: &ServiceView, _: &Ctx<'_>) -> Cell {
    Cell::new(&*s.verdict.sentence, if level(s) > Level::Notice { Role::Base } else { Role::Dim })
}

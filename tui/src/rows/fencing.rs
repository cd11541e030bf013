//! The columns of nodes by how they can be fenced: ways, who could, whether they were tried, what is under way.

use quorate_core::view::{
    ClusterView, FenceMethodView, FencingView, Level, NodeState, NodeView, OperationView,
};

use super::{Cell, Column, Ctx, SortKey, column, down, mark, nodes, number, text, up};
use crate::theme::Role;
use crate::words;

pub(crate) const COLUMNS: &[Column<NodeView>] = &[
    column("STATE", 10, 0, nodes::state, |n| down(nodes::level(n) as u64)),
    column("NODE", 10, 0, name, |n| text(&n.name)),
    column("HOLDERS", 12, 2, holders, |n| up(u64::from(n.armed))),
    column("METHODS", 18, 0, methods, |n| text(levels(&n.fencing))),
    column("COULD", 9, 3, could, |n| up(able(&n.fencing) as u64)),
    column("TEST", 12, 1, test, |n| text(worst_test(&n.fencing).1)),
    number("HOLDS", 5, 4, exclusive, |n| down(n.fencing.exclusive.len() as u64)),
    column("FENCING", 0, 0, fencing, |n| text(n.fencing.waiting.as_deref().unwrap_or_default())),
];

fn name(n: &NodeView, ctx: &Ctx<'_>) -> Cell {
    let me = if n.name == ctx.view.me { " me" } else { "" };
    Cell::new(format!("{}{me}", n.name), Role::Title)
}

/// Are its deadlines held twice, so that its silence proves something?
fn holders(n: &NodeView, _: &Ctx<'_>) -> Cell {
    match (n.witness, n.armed) {
        (true, _) => Cell::new("witness", Role::Dim),
        (false, true) => Cell::new("armed", Role::Ok),
        (false, false) => Cell::new("NOT ARMED", Role::Warning),
    }
}

/// `ipmi > pdu1+pdu2`: one level after the other, all of a level together.
pub(crate) fn levels(fencing: &FencingView) -> String {
    let level = |level: &Vec<FenceMethodView>| {
        level.iter().map(|method| method.name.as_str()).collect::<Vec<_>>().join("+")
    };
    fencing.levels.iter().map(level).collect::<Vec<_>>().join(" > ")
}

fn methods(n: &NodeView, _: &Ctx<'_>) -> Cell {
    if n.fencing.levels.is_empty() {
        Cell::new("none", Role::Warning)
    } else {
        Cell::plain(levels(&n.fencing))
    }
}

/// Nodes that could carry out every method of some level now.
pub(crate) fn able(fencing: &FencingView) -> usize {
    let of_level = |level: &Vec<FenceMethodView>| level.iter().map(|method| method.able.len()).min();
    fencing.levels.iter().filter_map(of_level).max().unwrap_or_default()
}

fn could(n: &NodeView, _: &Ctx<'_>) -> Cell {
    match able(&n.fencing) {
        _ if n.fencing.levels.is_empty() => Cell::new("-", Role::Dim),
        0 => Cell::new("nobody", Role::Critical),
        able => Cell::plain(words::count(able, "node")),
    }
}

/// The worst that is known of its tests.
fn worst_test(fencing: &FencingView) -> (Role, &'static str) {
    let tests = || fencing.levels.iter().flatten().map(|method| &method.last_test);
    if tests().flatten().any(|test| test.error.is_some()) {
        (Role::Warning, "FAILED")
    } else if tests().any(Option::is_none) {
        (Role::Dim, "never")
    } else {
        (Role::Ok, "well")
    }
}

fn test(n: &NodeView, ctx: &Ctx<'_>) -> Cell {
    if n.fencing.levels.is_empty() {
        return Cell::new("-", Role::Dim);
    }
    let (role, word) = worst_test(&n.fencing);
    let oldest =
        n.fencing.levels.iter().flatten().filter_map(|method| method.last_test.as_ref()).map(|t| t.at);
    let age = oldest.min().map(|at| words::span(ctx.view.at.0.saturating_sub(at.0) + ctx.age_ms));
    Cell::new(age.map_or_else(|| word.to_owned(), |age| format!("{word} {age}")), role)
}

fn exclusive(n: &NodeView, _: &Ctx<'_>) -> Cell {
    match n.fencing.exclusive.len() {
        0 => Cell::new("-", Role::Dim),
        held => Cell::plain(held.to_string()),
    }
}

/// The fencing of a node that is under way.
pub(crate) fn running<'a>(n: &NodeView, view: &'a ClusterView) -> Option<&'a OperationView> {
    view.operations.get(&n.fencing.operation?).map(|operation| &**operation)
}

/// Where a fencing under way stands: method, attempt, who, and the longest it can still take.
pub(crate) fn progress(operation: &OperationView, age_ms: u64) -> String {
    let Some(run) = &operation.fence else { return operation.phase.clone() };
    if let Some(blocked) = operation.blocked.first() {
        return format!("{}: {}", operation.phase, blocked.why);
    }
    let by = run.by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
    let left = match run.left_ms.map(|ms| ms.saturating_sub(age_ms)) {
        None => String::new(),
        Some(0) => ", over its time".to_owned(),
        Some(ms) => format!(", {} more at most", words::left(ms)),
    };
    let level =
        if run.levels > 1 { format!(" (level {} of {})", run.level, run.levels) } else { String::new() };
    match run.attempt {
        0 => format!("{}: {}{level} is next", operation.phase, run.method),
        attempt => format!("{}: {}{level}, attempt {attempt}{by}{left}", operation.phase, run.method),
    }
}

/// What is under way, blocked, expected, or was last, in a line with its level.
pub(crate) fn line(n: &NodeView, view: &ClusterView, age_ms: u64) -> (Level, String) {
    let fencing = &n.fencing;
    if let Some(operation) = running(n, view) {
        return (Level::Notice, progress(operation, age_ms));
    }
    if let Some(waiting) = &fencing.waiting {
        return (Level::Critical, format!("BLOCKED: {waiting}"));
    }
    if n.state == NodeState::Fenced {
        return (Level::Warning, n.why.verdict.clone());
    }
    if let Some(ms) = fencing.expected_ms {
        let by = if view.standing.quorum { "" } else { " by the other side" };
        let doubt = if view.standing.quorum { "" } else { "?" };
        return (
            Level::Warning,
            format!("expected{doubt}{by} in {}, unless it answers", words::left(ms.saturating_sub(age_ms))),
        );
    }
    let lost = n.state == NodeState::Lost;
    if lost && fencing.levels.is_empty() && !fencing.exclusive.is_empty() {
        return (
            Level::Critical,
            "BLOCKED: no method; its return or your word (A) frees what it holds".into(),
        );
    }
    if lost && !fencing.automatic && !fencing.exclusive.is_empty() {
        return (Level::Warning, "waits for your word (F): fencing.auto is off".into());
    }
    if lost && fencing.automatic && fencing.exclusive.is_empty() {
        return (Level::Ok, "it holds nothing exclusive: on your word only (F)".into());
    }
    let last = fencing.history.first().and_then(|id| view.operations.get(id));
    match last.and_then(|operation| Some((operation, operation.result.as_ref()?))) {
        Some((operation, result)) => {
            let at = operation.ended_at.map_or_else(String::new, |at| format!(" at {}", words::clock(at)));
            (Level::Ok, format!("last: {result}{at}"))
        }
        None if fencing.automatic => {
            (Level::Ok, "by itself once it is lost, if it holds what is exclusive".into())
        }
        None if fencing.levels.is_empty() => (Level::Ok, "cannot be fenced".into()),
        None => (Level::Ok, "on your word only (fencing.auto is off)".into()),
    }
}

fn fencing(n: &NodeView, ctx: &Ctx<'_>) -> Cell {
    let (level, text) = line(n, ctx.view, ctx.age_ms);
    match level {
        Level::Ok => Cell::new(text, Role::Dim),
        level => mark(&text, level, ctx.view.standing.quorum || n.fencing.expected_ms.is_none(), ctx),
    }
}

/// What is under way or blocked first, then what may come, then the rest by name.
pub(crate) fn order(n: &NodeView, view: &ClusterView) -> (SortKey, SortKey) {
    let level = line(n, view, 0).0;
    let first = if running(n, view).is_some() { 9 } else { level as u64 };
    (down(first), text(&n.name))
}

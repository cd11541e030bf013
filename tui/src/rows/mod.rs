//! What tables are made of: rows that share the view's records, and for each kind its columns. Knows
//! what a cell says and how rows order, not where they are drawn.

pub(crate) mod countdowns;
pub(crate) mod events;
pub(crate) mod fencing;
pub(crate) mod instances;
pub(crate) mod links;
pub(crate) mod nodes;
pub(crate) mod operations;
pub(crate) mod services;

use std::sync::Arc;

use quorate_core::ids::{NodeId, OperationId, ServiceName};
use quorate_core::view::{
    ClusterView, Countdown, EventView, InstanceView, Level, LinkRow, NodeView, OperationView, ServiceView,
};

use crate::theme::{Glyphs, Role};

/// What cells need beside their record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ctx<'a> {
    pub view: &'a ClusterView,
    /// How old the view is.
    pub age_ms: u64,
    /// With quorum, fresh, over a line that stands: only then is what others do known.
    pub certain: bool,
    pub glyphs: Glyphs,
}

/// What a cell says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    pub text: String,
    pub role: Role,
}

impl Cell {
    pub fn new(text: impl Into<String>, role: Role) -> Cell {
        Cell { text: text.into(), role }
    }

    pub fn plain(text: impl Into<String>) -> Cell {
        Cell::new(text, Role::Base)
    }
}

/// By what a column sorts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SortKey {
    Number(u64),
    Text(String),
}

/// A column of a table over records of one type.
pub(crate) struct Column<T> {
    /// Upper case; its lower case is the name in queries.
    pub title: &'static str,
    /// Columns on screen; 0 for the one that takes what is left.
    pub width: u16,
    /// Columns with the highest rank are left out first where room is short; 0 always stays.
    pub rank: u8,
    pub right: bool,
    pub cell: fn(&T, &Ctx<'_>) -> Cell,
    pub key: fn(&T) -> SortKey,
}

/// A column whose texts start at its left.
pub(crate) const fn column<T>(
    title: &'static str,
    width: u16,
    rank: u8,
    cell: fn(&T, &Ctx<'_>) -> Cell,
    key: fn(&T) -> SortKey,
) -> Column<T> {
    Column { title, width, rank, right: false, cell, key }
}

/// A column whose texts, numbers mostly, end at its right.
pub(crate) const fn number<T>(
    title: &'static str,
    width: u16,
    rank: u8,
    cell: fn(&T, &Ctx<'_>) -> Cell,
    key: fn(&T) -> SortKey,
) -> Column<T> {
    Column { title, width, rank, right: true, cell, key }
}

/// A column without its type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub title: &'static str,
    pub width: u16,
    pub rank: u8,
    pub right: bool,
}

/// Which kind of rows a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Countdowns,
    Nodes,
    Services,
    Instances,
    Operations,
    Events,
    Links,
    Fencing,
}

/// One row; sharing, never copying, what the view holds.
#[derive(Debug, Clone)]
pub(crate) enum Row {
    Countdown(Arc<Countdown>),
    Node(Arc<NodeView>),
    Service(Arc<ServiceView>),
    Instance(Arc<InstanceView>),
    Operation(Arc<OperationView>),
    Event(Arc<EventView>),
    Link(Arc<LinkRow>),
    /// A node by how it can be fenced.
    Fencing(Arc<NodeView>),
}

/// What a row, or the object of a detail screen, is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    Node(NodeId),
    Service(ServiceName),
    /// A slot by its key in the view.
    Instance(String),
    Operation(OperationId),
    Nothing,
}

fn heads<T>(columns: &[Column<T>]) -> Vec<Head> {
    columns.iter().map(|c| Head { title: c.title, width: c.width, rank: c.rank, right: c.right }).collect()
}

impl Kind {
    pub fn heads(self) -> Vec<Head> {
        match self {
            Kind::Countdowns => heads(countdowns::COLUMNS),
            Kind::Nodes => heads(nodes::COLUMNS),
            Kind::Services => heads(services::COLUMNS),
            Kind::Instances => heads(instances::COLUMNS),
            Kind::Operations => heads(operations::COLUMNS),
            Kind::Events => heads(events::COLUMNS),
            Kind::Links => heads(links::COLUMNS),
            Kind::Fencing => heads(fencing::COLUMNS),
        }
    }
}

impl Row {
    /// What stays the same while the object does.
    pub fn id(&self) -> String {
        match self {
            Row::Countdown(c) => format!("{} {}", c.subject, c.action),
            Row::Node(n) | Row::Fencing(n) => n.name.to_string(),
            Row::Service(s) => s.name.to_string(),
            Row::Instance(i) => i.id.clone().unwrap_or_else(|| i.slot.clone()),
            Row::Operation(o) => o.id.to_string(),
            Row::Event(e) => format!("{} {} {}", e.revision, e.subject, e.text),
            Row::Link(l) => format!("{} {} {}", l.from, l.to, l.segment),
        }
    }

    /// Is it the object with this id? Costs nothing for the long lists.
    pub fn is(&self, id: &str) -> bool {
        match self {
            Row::Node(n) | Row::Fencing(n) => n.name.as_str() == id,
            Row::Service(s) => s.name.as_str() == id,
            Row::Instance(i) => i.id.as_deref().unwrap_or(&i.slot) == id,
            Row::Countdown(_) | Row::Operation(_) | Row::Event(_) | Row::Link(_) => self.id() == id,
        }
    }

    pub fn cell(&self, column: usize, ctx: &Ctx<'_>) -> Cell {
        match self {
            Row::Countdown(c) => (countdowns::COLUMNS[column].cell)(c, ctx),
            Row::Node(n) => (nodes::COLUMNS[column].cell)(n, ctx),
            Row::Service(s) => (services::COLUMNS[column].cell)(s, ctx),
            Row::Instance(i) => (instances::COLUMNS[column].cell)(i, ctx),
            Row::Operation(o) => (operations::COLUMNS[column].cell)(o, ctx),
            Row::Event(e) => (events::COLUMNS[column].cell)(e, ctx),
            Row::Link(l) => (links::COLUMNS[column].cell)(l, ctx),
            Row::Fencing(n) => (fencing::COLUMNS[column].cell)(n, ctx),
        }
    }

    pub fn key(&self, column: usize) -> SortKey {
        match self {
            Row::Countdown(c) => (countdowns::COLUMNS[column].key)(c),
            Row::Node(n) => (nodes::COLUMNS[column].key)(n),
            Row::Service(s) => (services::COLUMNS[column].key)(s),
            Row::Instance(i) => (instances::COLUMNS[column].key)(i),
            Row::Operation(o) => (operations::COLUMNS[column].key)(o),
            Row::Event(e) => (events::COLUMNS[column].key)(e),
            Row::Link(l) => (links::COLUMNS[column].key)(l),
            Row::Fencing(n) => (fencing::COLUMNS[column].key)(n),
        }
    }

    pub fn subject(&self, view: &ClusterView) -> Subject {
        match self {
            Row::Countdown(c) => named(&c.subject, view),
            Row::Node(n) | Row::Fencing(n) => Subject::Node(n.name.clone()),
            Row::Service(s) => Subject::Service(s.name.clone()),
            Row::Instance(_) => Subject::Instance(self.id()),
            Row::Operation(o) => Subject::Operation(o.id),
            Row::Event(e) => named(&e.subject, view),
            Row::Link(l) => Subject::Node(l.to.clone()),
        }
    }
}

/// Finds what a text such as `node n2`, `web/0`, `web` or `operation 7` is about.
pub(crate) fn named(text: &str, view: &ClusterView) -> Subject {
    let last = text.rsplit(' ').next().unwrap_or(text);
    if text.starts_with("operation")
        && let Ok(id) = last.parse::<OperationId>()
        && view.operations.contains_key(&id)
    {
        return Subject::Operation(id);
    }
    if let Ok(node) = last.parse::<NodeId>()
        && view.nodes.contains_key(&node)
    {
        return Subject::Node(node);
    }
    if let Some(key) = instance_key(last, view) {
        return Subject::Instance(key);
    }
    let service = last.split(['/', '@']).next().unwrap_or(last);
    match service.parse::<ServiceName>() {
        Ok(name) if view.services.contains_key(&name) => Subject::Service(name),
        _ => Subject::Nothing,
    }
}

/// The key of a slot's instance, given `SLOT` or `SLOT@TOKEN`.
pub(crate) fn instance_key(text: &str, view: &ClusterView) -> Option<String> {
    if view.instances.contains_key(text) {
        return Some(text.to_owned());
    }
    let prefix = format!("{text}@");
    let (key, _) = view.instances.range(prefix.clone()..).next()?;
    (text.contains('/') && key.starts_with(&prefix)).then(|| key.clone())
}

pub(crate) fn level_role(level: Level) -> Role {
    match level {
        Level::Ok => Role::Ok,
        Level::Notice => Role::Notice,
        Level::Warning => Role::Warning,
        Level::Critical => Role::Critical,
    }
}

pub(crate) fn level_glyph(level: Level, glyphs: Glyphs) -> &'static str {
    match level {
        Level::Ok => glyphs.ok,
        Level::Notice => glyphs.notice,
        Level::Warning => glyphs.warning,
        Level::Critical => glyphs.critical,
    }
}

/// A word with the glyph of its level; with a question mark where it was not seen from here.
pub(crate) fn mark(word: &str, level: Level, observed: bool, ctx: &Ctx<'_>) -> Cell {
    let doubt = if observed { "" } else { "?" };
    let role = if observed || level > Level::Notice { level_role(level) } else { Role::Inferred };
    // A tick is a promise; what was not seen from here gets none.
    let shown = if observed { level } else { level.max(Level::Notice) };
    Cell::new(format!("{} {word}{doubt}", level_glyph(shown, ctx.glyphs)), role)
}

/// Highest first where a number sorts rows.
pub(crate) fn down(n: u64) -> SortKey {
    SortKey::Number(u64::MAX - n)
}

pub(crate) fn up(n: u64) -> SortKey {
    SortKey::Number(n)
}

pub(crate) fn text(t: impl ToString) -> SortKey {
    SortKey::Text(t.to_string())
}

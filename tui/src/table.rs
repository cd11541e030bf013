//! A table's memory: filter, order, selection by object, marks, and the rows in order. Rebuilt when the
//! view or the filter changes, never while drawing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_core::ids::{NodeId, ServiceName};
use quorate_core::view::{ClusterView, EventView};

use crate::query::Query;
use crate::rows::{self, Ctx, Kind, Row};

/// Every table there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TableId {
    Countdowns,
    TopNodes,
    TopServices,
    Running,
    Timeline,
    Nodes,
    NodeInstances,
    NodeEvents,
    Services,
    ServiceInstances,
    ServiceEvents,
    Operations,
    Events,
    Links,
    Fencing,
}

impl TableId {
    pub fn kind(self) -> Kind {
        match self {
            TableId::Countdowns => Kind::Countdowns,
            TableId::TopNodes | TableId::Nodes => Kind::Nodes,
            TableId::TopServices | TableId::Services => Kind::Services,
            TableId::NodeInstances | TableId::ServiceInstances => Kind::Instances,
            TableId::Running | TableId::Operations => Kind::Operations,
            TableId::Timeline | TableId::Events | TableId::NodeEvents | TableId::ServiceEvents => {
                Kind::Events
            }
            TableId::Links => Kind::Links,
            TableId::Fencing => Kind::Fencing,
        }
    }
}

/// Which object a detail screen is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum About {
    All,
    Node(NodeId),
    Service(ServiceName),
}

/// One table's memory.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub id: TableId,
    pub filter: String,
    pub wrong: Option<String>,
    query: Query,
    /// Column and whether it is reversed; `None` is the table's own order.
    pub sort: Option<(usize, bool)>,
    pub selected: Option<String>,
    pub at: usize,
    pub marked: BTreeSet<String>,
    pub rows: Vec<Row>,
    /// Rows before the filter.
    pub total: usize,
}

impl Table {
    pub fn new(id: TableId) -> Table {
        Table {
            id,
            filter: String::new(),
            wrong: None,
            query: Query::default(),
            sort: None,
            selected: None,
            at: 0,
            marked: BTreeSet::new(),
            rows: Vec::new(),
            total: 0,
        }
    }

    pub fn set_filter(&mut self, text: &str) {
        self.filter = text.to_owned();
        (self.query, self.wrong) = Query::parse(text, self.id.kind());
    }

    /// Takes the rows of a view; the selection stays on its object while that exists.
    pub fn refresh(&mut self, about: &About, ctx: &Ctx<'_>) {
        let mut rows = collect(self.id, about, ctx.view);
        self.total = rows.len();
        if !self.query.is_empty() {
            let columns = self.id.kind().heads().len();
            rows.retain(|row| self.query.matches(row, columns, ctx));
        }
        if let Some((column, reversed)) = self.sort {
            rows.sort_by_cached_key(|row| row.key(column));
            if reversed {
                rows.reverse();
            }
        }
        self.rows = rows;
        // At the top of the events the newest one is looked at, whichever that is; of what is ahead, the soonest.
        let newest = self.at == 0 && matches!(self.id.kind(), Kind::Events | Kind::Countdowns);
        let id = self.selected.as_ref().filter(|_| !newest);
        let found = id.and_then(|id| self.rows.iter().position(|row| row.is(id)));
        self.select(found.unwrap_or(self.at));
        if !self.marked.is_empty() {
            let there: BTreeSet<String> = self.rows.iter().map(Row::id).collect();
            self.marked.retain(|id| there.contains(id));
        }
    }

    pub fn select(&mut self, at: usize) {
        self.at = at.min(self.rows.len().saturating_sub(1));
        self.selected = self.rows.get(self.at).map(Row::id);
    }

    pub fn step(&mut self, by: isize) {
        self.select(self.at.saturating_add_signed(by));
    }

    pub fn current(&self) -> Option<&Row> {
        self.rows.get(self.at)
    }

    pub fn toggle_mark(&mut self) {
        if let Some(id) = self.current().map(Row::id)
            && !self.marked.remove(&id)
        {
            self.marked.insert(id);
        }
        self.step(1);
    }

    /// Next column to sort by; after the last one the table's own order again.
    pub fn sort_next(&mut self) {
        let columns = self.id.kind().heads().len();
        self.sort = match self.sort {
            None => Some((0, false)),
            Some((at, _)) if at + 1 < columns => Some((at + 1, false)),
            Some(_) => None,
        };
    }

    pub fn sort_reverse(&mut self) {
        self.sort = match self.sort {
            None => Some((0, true)),
            Some((at, reversed)) => Some((at, !reversed)),
        };
    }

    /// The marked rows, or the one under the cursor.
    pub fn chosen(&self) -> Vec<&Row> {
        if self.marked.is_empty() {
            self.current().into_iter().collect()
        } else {
            self.rows.iter().filter(|row| self.marked.contains(&row.id())).collect()
        }
    }
}

fn collect(id: TableId, about: &About, view: &ClusterView) -> Vec<Row> {
    match id {
        TableId::Countdowns => {
            let mut list = view.countdowns.clone();
            list.sort_by_cached_key(rows::countdowns::order);
            list.into_iter().map(|c| Row::Countdown(Arc::new(c))).collect()
        }
        TableId::TopNodes | TableId::Nodes => {
            let mut list: Vec<_> = view.nodes.values().cloned().collect();
            list.sort_by_cached_key(|n| rows::nodes::order(n));
            list.into_iter().map(Row::Node).collect()
        }
        TableId::TopServices | TableId::Services => {
            let mut list: Vec<_> = view.services.values().cloned().collect();
            list.sort_by_cached_key(|s| rows::services::order(s));
            list.into_iter().map(Row::Service).collect()
        }
        TableId::NodeInstances | TableId::ServiceInstances => {
            let mut list = instances_of(about, view);
            list.sort_by_cached_key(|row| match row {
                Row::Instance(i) => Some(rows::instances::order(i)),
                _ => None,
            });
            list
        }
        TableId::Fencing => {
            let mut list: Vec<_> = view.nodes.values().cloned().collect();
            list.sort_by_cached_key(|n| rows::fencing::order(n, view));
            list.into_iter().map(Row::Fencing).collect()
        }
        TableId::Running | TableId::Operations => operations(id == TableId::Running, view),
        TableId::Timeline | TableId::Events => events(view, |_| true),
        TableId::Links => {
            let mut list: Vec<_> = view.links.rows.iter().collect();
            list.sort_by_key(|l| rows::links::order(l));
            list.into_iter().map(|l| Row::Link(Arc::new(l.clone()))).collect()
        }
        TableId::NodeEvents | TableId::ServiceEvents => events(view, |event| concerns(event, about)),
    }
}

fn instances_of(about: &About, view: &ClusterView) -> Vec<Row> {
    match about {
        About::All => view.instances.values().cloned().map(Row::Instance).collect(),
        About::Node(node) => view
            .instances
            .values()
            .filter(|i| i.node.as_ref() == Some(node))
            .cloned()
            .map(Row::Instance)
            .collect(),
        About::Service(service) => {
            // Keys begin with the slot, so a service's are one range.
            let prefix = format!("{service}/");
            view.instances
                .range(prefix.clone()..)
                .take_while(|(key, _)| key.starts_with(&prefix))
                .map(|(_, i)| Row::Instance(i.clone()))
                .collect()
        }
    }
}

fn operations(running_only: bool, view: &ClusterView) -> Vec<Row> {
    let parent_runs = |parent: Option<quorate_core::ids::OperationId>| {
        parent.and_then(|id| view.operations.get(&id)).is_some_and(|parent| rows::operations::running(parent))
    };
    let mut keyed: BTreeMap<_, Row> = BTreeMap::new();
    for o in view.operations.values() {
        if !running_only || rows::operations::running(o) {
            keyed.insert(rows::operations::order(o, parent_runs(o.parent)), Row::Operation(o.clone()));
        }
    }
    keyed.into_values().collect()
}

/// Newest first, with what is in no log at its place in time.
fn events(view: &ClusterView, keep: impl Fn(&EventView) -> bool) -> Vec<Row> {
    let mut seen = view.sightings.iter().rev().filter(|event| keep(event)).peekable();
    let mut rows = Vec::new();
    for event in view.events.iter().rev().filter(|event| keep(event)) {
        while let Some(newer) = seen.next_if(|one| one.at >= event.at) {
            rows.push(Row::Event(newer.clone()));
        }
        rows.push(Row::Event(event.clone()));
    }
    rows.extend(seen.cloned().map(Row::Event));
    rows
}

fn concerns(event: &EventView, about: &About) -> bool {
    let words = |text: &str, name: &str| {
        text.split(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | ',' | ':' | ';' | '(' | ')'))
            .any(|word| word == name)
    };
    match about {
        About::All => true,
        About::Node(node) => words(&event.subject, node.as_str()) || words(&event.text, node.as_str()),
        About::Service(service) => words(&event.subject, service.as_str()),
    }
}

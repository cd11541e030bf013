//! What people see of it all, as plain data, and how it is worked out: one look at everything a node
//! knows, turned into rows with a sentence each. Decides nothing and foretells nothing by itself: what
//! waits and what comes next is the planner's own report.

mod countdowns;
mod evidence;
mod fencing;
mod instances;
pub mod items;
mod links;
mod model;
mod nodes;
mod operations;
mod services;
mod sight;
mod sightings;
mod standing;
mod stops;
mod terms;
#[cfg(test)]
mod tests;
mod verdict;
mod why;
mod words;

use std::sync::Arc;

use imbl::OrdMap;

pub use crate::event::Level;
pub use crate::observation::{ExecutorFact, Health, InstanceUsage, NodeUsage, Unavailable};
pub use crate::reach::LinkFault;
pub use fencing::{FenceMethodView, FenceRunView, FenceTestView, FencingView, MissingView};
pub use links::{ArbiterRow, LinkRow, LinkVerdict, LinksView, Rtt, SideView};
pub use model::{
    BlockedView, ClusterKind, ClusterSummary, ClusterView, Countdown, EventView, EvidenceView, ExitView,
    InstanceState, InstanceView, NextView, NodeResources, NodeState, NodeView, NoteView, OperationKindView,
    OperationView, RecoveryView, Replicas, ServiceView, Standing, Verdict, VersionView, WaitingView, Why,
};
pub use sight::Look;
pub use terms::{FenceTerms, fence_terms};
pub use why::why;

use crate::event::EventRecord;
use crate::ids::ServiceName;
use sight::Sight;

/// Everything there is to see, from one node, at one moment.
pub fn view(look: &Look<'_>) -> ClusterView {
    let sight = Sight::new(look);
    let state = look.state;
    let old = look.previous;
    let standing = standing::standing(&sight);
    let (instances, by_service) = instances_of(&sight, old);
    let nodes = state.nodes.iter().map(|(id, record)| {
        let row = nodes::node(&sight, id, record, &standing);
        (id.clone(), shared(row, old.and_then(|old| old.nodes.get(id))))
    });
    let services = state.services.iter().map(|(name, record)| {
        let copies = by_service.get(name).map_or(&[][..], Vec::as_slice);
        let row = services::service(&sight, name, record, copies, &standing);
        (name.clone(), shared(row, old.and_then(|old| old.services.get(name))))
    });
    let operations = state.operations.iter().map(|(id, operation)| {
        let row = operations::operation(&sight, *id, operation);
        (*id, shared(row, old.and_then(|old| old.operations.get(id))))
    });
    let mut view = ClusterView {
        me: sight.me().clone(),
        revision: state.revision,
        at: look.at,
        cluster: ClusterSummary {
            id: state.cluster.id.clone(),
            name: state.cluster.name.clone(),
            epoch: state.cluster.epoch,
            recovery: state.cluster.recovery.as_ref().map(|recovery| RecoveryView {
                what: recovery.what(),
                epoch: recovery.epoch,
                last_revision: recovery.kept,
                at: recovery.at,
                by: recovery.by.clone(),
                reason: recovery.reason.clone(),
                open: recovery.open,
                unheard: state.unsettled().map(|(node, _)| node.clone()).collect(),
            }),
            kind: look.kind,
        },
        verdict: Verdict { level: Level::Warning, word: String::new(), sentence: String::new() },
        countdowns: countdowns::countdowns(&sight, &standing),
        sightings: sightings::sightings(&sight, &standing),
        nodes: nodes.collect(),
        services: services.collect(),
        operations: operations.collect(),
        links: links::links(&sight, &standing),
        instances,
        events: events(look),
        standing,
    };
    view.verdict = verdict::verdict(&sight, &view);
    view
}

type Rows = OrdMap<String, Arc<InstanceView>>;
type ByService = std::collections::BTreeMap<ServiceName, Vec<Arc<InstanceView>>>;

fn instances_of(sight: &Sight<'_>, old: Option<&ClusterView>) -> (Rows, ByService) {
    let (mut rows, mut by_service) = (Rows::new(), ByService::new());
    let claimed = sight.state.slots.iter().flat_map(|(slot, record)| instances::of_slot(sight, slot, record));
    for row in claimed.chain(instances::strays(sight)) {
        let key = row.id.clone().unwrap_or_else(|| row.slot.clone());
        let row = shared(row, old.and_then(|old| old.instances.get(&key)));
        by_service.entry(row.service.clone()).or_default().push(row.clone());
        rows.insert(key, row);
    }
    (rows, by_service)
}

/// The row as it was, if it is still the same: those who compare find that out at once.
fn shared<T: PartialEq>(row: T, old: Option<&Arc<T>>) -> Arc<T> {
    match old {
        Some(old) if **old == row => old.clone(),
        Some(_) | None => Arc::new(row),
    }
}

/// Events are only ever added: the old view's are kept.
fn events(look: &Look<'_>) -> Vec<Arc<EventView>> {
    let all = &look.state.events;
    let Some(old) = look.previous.filter(|old| old.cluster.id == look.state.cluster.id) else {
        return all.iter().map(|record| event(record)).collect();
    };
    let new: Vec<_> = all.iter().rev().take_while(|record| record.revision > old.revision).collect();
    let kept = (all.len() - new.len()).min(old.events.len());
    let mut events: Vec<Arc<EventView>> = old.events[old.events.len() - kept..].to_vec();
    events.extend(new.into_iter().rev().map(|record| event(record)));
    events
}

fn event(record: &EventRecord) -> Arc<EventView> {
    Arc::new(EventView {
        revision: record.revision,
        at: record.at,
        level: record.level(),
        subject: record.subject(),
        text: record.text(),
        by: record.by.clone(),
    })
}

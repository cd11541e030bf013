//! The answer to "why": looked up in the view, so that it never differs from what is on screen.

use std::sync::Arc;

use super::model::{ClusterView, NextView, OperationKindView, OperationView, Why};
use crate::ids::{NodeId, OperationId, ServiceName};

/// Steps of an operation that an answer repeats.
const MOST_TOLD: usize = 6;

/// Why a node, service, slot, instance or operation is as it is; `cluster` asks about the whole.
/// A word before the name (`node n2`, `operation 7`) settles what is meant.
pub fn why(view: &ClusterView, subject: &str) -> Option<Arc<Why>> {
    let subject = subject.trim();
    match subject.split_once(' ') {
        Some(("node", name)) => node(view, name),
        Some(("service", name)) => service(view, name),
        Some(("instance" | "slot", name)) => instance(view, name),
        Some(("operation", name)) => operation(view, name),
        Some(_) => None,
        None if subject == "cluster" || subject.is_empty() => Some(Arc::new(cluster(view))),
        None => instance(view, subject)
            .or_else(|| service(view, subject))
            .or_else(|| node(view, subject))
            .or_else(|| operation(view, subject)),
    }
}

fn node(view: &ClusterView, name: &str) -> Option<Arc<Why>> {
    view.nodes.get(&name.parse::<NodeId>().ok()?).map(|node| node.why.clone())
}

fn service(view: &ClusterView, name: &str) -> Option<Arc<Why>> {
    view.services.get(&name.parse::<ServiceName>().ok()?).map(|service| service.why.clone())
}

/// By its full name, or the row of a slot that says most: of its newest claim, or that it waits.
fn instance(view: &ClusterView, name: &str) -> Option<Arc<Why>> {
    let whole = view.instances.get(name);
    let of_slot = || view.instances.values().rev().find(|copy| copy.slot == name);
    whole.or_else(of_slot).map(|copy| copy.why.clone())
}

fn operation(view: &ClusterView, name: &str) -> Option<Arc<Why>> {
    let operation = view.operations.get(&name.parse::<OperationId>().ok()?)?;
    let title = title(operation);
    let verdict = match &operation.result {
        Some(result) => format!("{title} has ended: {result}"),
        None => format!("{title} is {}: {} of {}", operation.phase, operation.done, operation.total),
    };
    let blocked = operation.blocked.iter().map(|blocked| format!("{}: {}", blocked.what, blocked.why));
    // What its steps said, the newest first: the reason of a failure is often in the one before.
    let told = operation.history.iter().rev().take(MOST_TOLD).map(|note| note.text.clone());
    let cancel = operation.cancellable.then(|| NextView {
        what: "it is undone".to_owned(),
        when_ms: None,
        condition: Some(format!("you cancel it: quorate cancel {}", operation.id)),
    });
    let end = operation.eta_ms.map(|eta| NextView {
        what: "it ends".to_owned(),
        when_ms: Some(eta),
        condition: None,
    });
    Some(Arc::new(Why {
        subject: format!("operation {}", operation.id),
        verdict,
        because: std::iter::once(asked(operation)).chain(blocked).chain(told).collect(),
        evidence: Vec::new(),
        next: end.into_iter().chain(cancel).collect(),
    }))
}

fn asked(operation: &OperationView) -> String {
    match operation.reason.as_str() {
        "" => format!("asked for by {}", operation.by),
        reason => format!("asked for by {}: {reason}", operation.by),
    }
}

fn title(operation: &OperationView) -> String {
    let to = operation.to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
    match operation.kind {
        OperationKindView::Drain => format!("the drain of {}", operation.target),
        OperationKindView::Migration => format!("the move of {}{to}", operation.target),
        OperationKindView::Rollout => format!("the rollout of {}", operation.target),
        OperationKindView::Fence => format!("the fencing of {}", operation.target),
    }
}

fn cluster(view: &ClusterView) -> Why {
    let next = view.countdowns.iter().map(|countdown| NextView {
        what: format!("{} {}", countdown.subject, countdown.action),
        when_ms: countdown.in_ms,
        condition: (!countdown.why.is_empty()).then(|| countdown.why.clone()),
    });
    Why {
        subject: "cluster".to_owned(),
        verdict: view.verdict.sentence.clone(),
        because: vec![view.standing.sentence.clone()],
        evidence: Vec::new(),
        next: next.take(10).collect(),
    }
}

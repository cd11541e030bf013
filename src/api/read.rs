//! Reads: after a quorum round, or local with their age. Turns the view's rows into messages.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::state::{Loses, Preview};
use quorate_core::view::{
    ClusterView, EvidenceView, FenceTerms, InstanceView, NodeView, OperationView, ServiceView, Why,
};
use serde::Serialize;

use super::error::{ApiError, ErrorCode};
use super::proto;
use crate::ports::NodePort;

/// How long a read waits for its quorum round and for the view to catch up with it.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(5);

/// The view and where it comes from.
pub(super) async fn view(
    port: &dyn NodePort,
    local: bool,
) -> Result<(Arc<ClusterView>, proto::Origin), ApiError> {
    let mut views = port.views();
    let revision = if local { port.revision() } else { port.linearizable(READ_WITHIN).await?.revision };
    let caught_up = tokio::time::timeout(READ_WITHIN, views.wait_for(|view| view.revision >= revision));
    let view = match caught_up.await {
        Ok(Ok(view)) => view.clone(),
        Ok(Err(_)) => return Err(crate::ports::SubmitError::Stopping.into()),
        Err(_) => {
            return Err(ApiError::new(
                ErrorCode::Failed,
                format!("the view of {} did not reach revision {revision} in time", port.me()),
                "the node is overloaded; try again, or read locally",
            ));
        }
    };
    let origin = origin(port, local, view.revision.0);
    Ok((view, origin))
}

/// Says where an answer comes from.
pub(super) fn origin(port: &dyn NodePort, local: bool, revision: u64) -> proto::Origin {
    let (source, age_ms) =
        if local { (proto::Source::Local, port.staleness_ms()) } else { (proto::Source::Linearizable, 0) };
    proto::Origin { revision, source: source.into(), age_ms }
}

/// A row as `-o json` prints it.
pub(super) fn json<T: Serialize>(row: &T) -> String {
    serde_json::to_string(row).unwrap_or_default()
}

/// A node's row.
pub(super) fn node(node: &NodeView) -> proto::Node {
    proto::Node {
        name: node.name.to_string(),
        raft_id: node.raft_id.0,
        pid: node.pid.unwrap_or_default(),
        guard_pid: node.guard_pid.unwrap_or_default(),
        lease_epoch: node.lease_epoch.0,
        boot_id: node.boot_id.to_string(),
        state: word(&node.state),
        isolated: node.isolated,
        voter: node.voter,
        witness: node.witness,
        leader: node.leader,
        weight: node.weight,
        lease_left_ms: node.lease_left_ms,
        schedulable: node.schedulable,
        drained: node.drained,
        endpoints: node.endpoints.clone().into_iter().collect(),
        segments: node
            .segments
            .iter()
            .map(|endpoint| proto::Endpoint {
                segment: endpoint.segment.to_string(),
                host: endpoint.host.clone(),
                port: endpoint.port.into(),
            })
            .collect(),
        executors: node.executors.iter().map(executor).collect(),
        labels: node.labels.clone().into_iter().collect(),
        cpu_capacity_millis: node.resources.capacity.cpu.0,
        memory_capacity_mib: node.resources.capacity.memory.0,
        cpu_reserved_millis: node.resources.reserved.cpu.0,
        memory_reserved_mib: node.resources.reserved.memory.0,
        instances: node.instances,
        json: json(node),
    }
}

fn executor(fact: &quorate_core::observation::ExecutorFact) -> proto::Executor {
    let (unavailable, remedy) =
        fact.unavailable.as_ref().map(|it| (it.why.clone(), it.remedy.clone())).unwrap_or_default();
    proto::Executor {
        kind: fact.kind.to_string(),
        version: fact.version.clone(),
        capabilities: fact.capabilities.clone(),
        unavailable,
        remedy,
    }
}

/// A service's row.
pub(super) fn service(service: &ServiceView) -> proto::Service {
    proto::Service {
        name: service.name.to_string(),
        executor: service.executor.to_string(),
        priority: service.priority.to_string(),
        exclusive: service.exclusive,
        wanted: service.replicas.wanted,
        running: service.replicas.running,
        healthy: service.replicas.healthy,
        version: service.version.0,
        verdict: service.verdict.word.clone(),
        sentence: service.verdict.sentence.clone(),
        nodes: service.nodes.iter().map(ToString::to_string).collect(),
        spec: service.spec.to_yaml(),
        json: json(service),
    }
}

/// An instance's row.
pub(super) fn instance(instance: &InstanceView) -> proto::Instance {
    proto::Instance {
        slot: instance.slot.clone(),
        id: instance.id.clone().unwrap_or_default(),
        service: instance.service.to_string(),
        node: instance.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: word(&instance.state),
        health: word(&instance.health),
        armed: instance.armed,
        token: instance.token.clone().unwrap_or_default(),
        pid: instance.pid.unwrap_or_default(),
        started_at_ms: instance.started_at.map(|at| at.0).unwrap_or_default(),
        restarts: instance.restarts,
        waiting: instance.waiting.iter().map(|waiting| waiting.reason.clone()).collect(),
        json: json(instance),
    }
}

/// An operation's row.
pub(super) fn operation(operation: &OperationView) -> proto::Operation {
    proto::Operation {
        id: operation.id.0,
        kind: word(&operation.kind),
        target: operation.target.clone(),
        phase: operation.phase.clone(),
        done: operation.done,
        total: operation.total,
        bytes: operation.bytes,
        result: operation.result.clone().unwrap_or_default(),
        json: json(operation),
    }
}

/// An answer to "why".
pub(super) fn why(why: &Why) -> proto::WhyResponse {
    proto::WhyResponse {
        subject: why.subject.clone(),
        verdict: why.verdict.clone(),
        because: why.because.clone(),
        evidence: evidence(&why.evidence),
        next: why
            .next
            .iter()
            .map(|step| proto::NextStep {
                what: step.what.clone(),
                when_ms: step.when_ms,
                condition: step.condition.clone().unwrap_or_default(),
            })
            .collect(),
    }
}

fn evidence(items: &[EvidenceView]) -> Vec<proto::EvidenceItem> {
    let item = |item: &EvidenceView| proto::EvidenceItem {
        kind: item.kind.clone(),
        holds: item.holds,
        detail: item.detail.clone(),
        left_ms: item.left_ms,
    };
    items.iter().map(item).collect()
}

/// On which terms a node would be fenced.
pub(super) fn fence_terms(terms: FenceTerms) -> proto::FenceTerms {
    let FenceTerms { allowed, allowance, by, because, evidence: items, undo } = terms;
    proto::FenceTerms { allowed, allowance, by, because, evidence: evidence(&items), undo }
}

/// The word an enum has in JSON.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// What commands would lead to; what would change in a service is the caller's to add.
pub(super) fn plan(preview: Preview) -> proto::PlanResponse {
    let Preview { revision, actions, waiting, otherwise, loses, quorum, rejected: _ } = preview;
    let loss = |loses: Loses| proto::Loss {
        slot: loses.slot.to_string(),
        priority: loses.priority.to_string(),
        exclusive: loses.exclusive,
        state: loses.state,
        to: loses.to.map(|node| node.to_string()).unwrap_or_default(),
        because: loses.because,
    };
    let ahead = otherwise
        .iter()
        .map(|line| proto::Foreseen { after_ms: line.after.map(|after| after.0), what: line.what.clone() });
    proto::PlanResponse {
        revision: revision.0,
        changes: Vec::new(),
        actions,
        waiting,
        ahead: ahead.collect(),
        otherwise: otherwise.iter().map(ToString::to_string).collect(),
        loses: loses.into_iter().map(loss).collect(),
        quorum: quorum.unwrap_or_default(),
        fence: None,
    }
}

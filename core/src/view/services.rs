//! Services as rows: how many copies run, one word, one sentence, and why.

use std::sync::Arc;

use super::model::{InstanceState, InstanceView, Replicas, ServiceView, Standing, Verdict, VersionView, Why};
use super::sight::Sight;
use super::words::count;
use crate::event::Level;
use crate::ids::{NodeId, ServiceName};
use crate::spec::Priority;
use crate::state::{OperationKind, ServiceRecord};

pub(super) fn service(
    sight: &Sight<'_>,
    name: &ServiceName,
    record: &ServiceRecord,
    copies: &[Arc<InstanceView>],
    standing: &Standing,
) -> ServiceView {
    let replicas = replicas(record, copies);
    let verdict = verdict(sight, name, record, copies, replicas, standing);
    let mut nodes: Vec<NodeId> = copies.iter().filter_map(|copy| copy.node.clone()).collect();
    nodes.sort();
    nodes.dedup();
    ServiceView {
        name: name.clone(),
        executor: record.spec.workload.executor(),
        priority: record.spec.priority,
        exclusive: record.exclusive,
        replicas,
        version: record.version,
        why: Arc::new(why(sight, name, record, copies, &verdict)),
        verdict,
        deleting: record.deleting,
        stopped: record.stopped,
        nodes,
        spec: record.spec.clone(),
        versions: record
            .versions
            .iter()
            .map(|version| VersionView {
                version: version.version,
                at: version.at,
                by: version.by.clone(),
                cause: version.cause.clone(),
            })
            .collect(),
    }
}

fn runs(copy: &InstanceView) -> bool {
    match copy.state {
        InstanceState::Running | InstanceState::RunningUnconfirmed => true,
        InstanceState::Waiting
        | InstanceState::Starting
        | InstanceState::Stopping
        | InstanceState::Stopped
        | InstanceState::Failed
        | InstanceState::Unknown => false,
    }
}

pub(super) fn well(copy: &InstanceView) -> bool {
    copy.state == InstanceState::Running && copy.health.good()
}

/// By slot: what is unconfirmed counts as running, but not as healthy.
fn replicas(record: &ServiceRecord, copies: &[Arc<InstanceView>]) -> Replicas {
    let slots = |wanted: fn(&InstanceView) -> bool| {
        let mut slots: Vec<&str> =
            copies.iter().filter(|copy| wanted(copy)).map(|copy| copy.slot.as_str()).collect();
        slots.sort_unstable();
        slots.dedup();
        slots.len() as u32
    };
    Replicas { wanted: record.wanted(), running: slots(runs), healthy: slots(well) }
}

/// The copy whose trouble says most about the service: of a slot that nothing healthy stands in for.
fn worst(copies: &[Arc<InstanceView>]) -> Option<&Arc<InstanceView>> {
    let stood_in = |slot: &str| copies.iter().any(|copy| copy.slot == slot && well(copy));
    let rank = |copy: &InstanceView| match copy.state {
        InstanceState::RunningUnconfirmed => 0,
        InstanceState::Waiting => 1,
        InstanceState::Failed => 2,
        InstanceState::Unknown => 3,
        InstanceState::Running => 4,
        InstanceState::Stopping => 5,
        InstanceState::Stopped => 6,
        InstanceState::Starting => 7,
    };
    copies.iter().filter(|copy| !stood_in(&copy.slot)).min_by_key(|copy| rank(copy))
}

fn verdict(
    sight: &Sight<'_>,
    name: &ServiceName,
    record: &ServiceRecord,
    copies: &[Arc<InstanceView>],
    replicas: Replicas,
    standing: &Standing,
) -> Verdict {
    let mut verdict = settled(sight, name, record, copies, replicas);
    if !standing.quorum {
        verdict.level = verdict.level.max(Level::Warning);
        verdict.word = "unknown".to_owned();
        verdict.sentence = format!("without quorum, as last known here: {}", verdict.sentence);
    }
    verdict
}

fn settled(
    sight: &Sight<'_>,
    name: &ServiceName,
    record: &ServiceRecord,
    copies: &[Arc<InstanceView>],
    replicas: Replicas,
) -> Verdict {
    let say = |level, word: &str, sentence: String| Verdict { level, word: word.to_owned(), sentence };
    let Replicas { wanted, healthy, .. } = replicas;
    let left = copies.iter().filter(|copy| copy.node.is_some()).count();
    let ending = |word: &str, done: &str| match left {
        0 => say(Level::Ok, word, done.to_owned()),
        _ => say(Level::Notice, word, format!("{} still to end", count(left, "copy", "copies"))),
    };
    if record.deleting {
        return ending("deleting", "it is being forgotten");
    }
    if record.stopped {
        return ending("stopped", "stopped by an operator; nothing of it runs");
    }
    if wanted == 0 {
        return ending("stopped", "scaled to 0; nothing of it runs");
    }
    let ready = format!("{healthy} of {} healthy", count(wanted as usize, "copy is", "copies are"));
    if healthy >= wanted {
        return match rollout(sight, name) {
            Some(rollout) => say(Level::Notice, "rolling out", format!("{rollout}; {ready}")),
            None => say(Level::Ok, "healthy", ready),
        };
    }
    let trouble = worst(copies).map(|copy| copy.why.verdict.clone()).unwrap_or_default();
    let sentence = if trouble.is_empty() { ready } else { format!("{ready}; {trouble}") };
    let state = worst(copies).map(|copy| copy.state);
    let unconfirmed = copies.iter().any(|copy| copy.state == InstanceState::RunningUnconfirmed);
    match state {
        _ if healthy > 0 && rollout(sight, name).is_some() => say(Level::Notice, "rolling out", sentence),
        _ if healthy > 0 => say(Level::Warning, "degraded", sentence),
        Some(InstanceState::Starting) => say(Level::Warning, "starting", sentence),
        Some(InstanceState::RunningUnconfirmed) if unconfirmed => {
            say(Level::Critical, "unconfirmed", sentence)
        }
        Some(InstanceState::Waiting) => say(Level::Critical, "waiting", sentence),
        Some(InstanceState::Stopping | InstanceState::Stopped) => say(Level::Warning, "moving", sentence),
        Some(InstanceState::Running) => say(Level::Critical, "unhealthy", sentence),
        Some(InstanceState::RunningUnconfirmed | InstanceState::Failed | InstanceState::Unknown) | None => {
            say(Level::Critical, "down", sentence)
        }
    }
}

fn rollout(sight: &Sight<'_>, name: &ServiceName) -> Option<String> {
    sight.state.operations.iter().find_map(|(id, operation)| match &operation.kind {
        OperationKind::Rollout(rollout) if operation.ended.is_none() && &rollout.service == name => {
            Some(format!("operation {id} replaces its copies by version {}", rollout.version))
        }
        OperationKind::Rollout(_)
        | OperationKind::Drain(_)
        | OperationKind::Migration(_)
        | OperationKind::Fence(_) => None,
    })
}

fn why(
    sight: &Sight<'_>,
    name: &ServiceName,
    record: &ServiceRecord,
    copies: &[Arc<InstanceView>],
    verdict: &Verdict,
) -> Why {
    let mut because = Vec::new();
    let (mut evidence, mut next) = (Vec::new(), Vec::new());
    for copy in copies.iter().filter(|copy| !well(copy)).take(5) {
        because.push(copy.why.verdict.clone());
        because.extend(copy.waiting.iter().map(|waiting| format!("{}: {}", copy.slot, waiting.reason)));
        if evidence.is_empty() {
            evidence = copy.why.evidence.clone();
        }
        for step in &copy.why.next {
            let mut step = step.clone();
            step.what = format!("{}: {}", copy.slot, step.what);
            next.push(step);
        }
    }
    for copy in copies.iter().filter(|copy| well(copy)).take(5) {
        because.push(copy.why.verdict.clone());
    }
    because.extend(rollout(sight, name));
    because.push(format!(
        "it is {}, so {}",
        isolation(record),
        if record.exclusive {
            "each copy runs at most once: a new one starts only when the old one is proven stopped"
        } else {
            "a lost copy is replaced at once"
        }
    ));
    Why {
        subject: format!("service {name}"),
        verdict: format!("{name}: {}", verdict.sentence),
        because,
        evidence,
        next,
    }
}

fn isolation(record: &ServiceRecord) -> String {
    let exclusive = if record.exclusive { "exclusive" } else { "not exclusive" };
    let keeps = if record.spec.keep_on_isolation { " and kept on a cut-off node" } else { "" };
    let alone = match record.spec.priority {
        Priority::Critical => "kept running on a cut-off node",
        Priority::High | Priority::Normal => "stopped with its grace on a cut-off node",
        Priority::Low => "killed at once on a cut-off node",
    };
    if keeps.is_empty() {
        format!("{exclusive} and {} ({alone})", record.spec.priority)
    } else {
        format!("{exclusive}, {}{keeps}", record.spec.priority)
    }
}

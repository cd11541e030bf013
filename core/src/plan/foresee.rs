//! What would be observed if every node in good standing did at once what State asks of it. For previews
//! only: an instance that fails today is not pretended to get well, a silent node stays silent,
//! and one that was fenced falls silent.

use crate::ids::{InstanceId, NodeId, SlotId};
use crate::observation::{
    FenceOutcome, FenceReport, Health, Heard, InstancePhase, InstanceReport, InstanceUsage, NodeReport,
    NodeVerdict, Observed, SlotReport, TransferOutcome, TransferReport, Verdicts,
};
use crate::state::{Claim, FencePhase, OperationKind, State};
use crate::units::{Millis, WallMs};

/// The observations after all nodes obeyed.
pub(super) fn obeyed(state: &State, observed: &Observed) -> Observed {
    let mut next = observed.clone();
    next.raft.applied = state.revision;
    for (node, heard) in &observed.nodes {
        if state.nodes.get(node).is_some_and(|record| record.proof().is_some()) {
            next.nodes.remove(node);
            continue;
        }
        let willing = state.nodes.get(node).is_some_and(|record| {
            !record.lost() && record.boot == heard.report.boot && !heard.report.wants_rejoin
        });
        if willing {
            let mut report = heard.report.clone();
            obey(state, node, &mut report);
            next.nodes.insert(node.clone(), Heard { report, ..heard.clone() });
        }
    }
    next
}

/// As the leader sees it. Any node may be asked; what one that follows knows of the others is the leader's word, and
/// it has seen since when that one leads.
pub(super) fn as_leader(observed: &Observed) -> Observed {
    let mut seen = observed.clone();
    if let Some(leader) = observed.raft.leader.clone().filter(|_| !observed.raft.leading) {
        seen.me = leader;
        seen.raft.leading_since = Some(observed.raft.followed_since.unwrap_or_default());
    }
    seen
}

/// The observations after some time: who is well goes on speaking, who is silent stays so.
pub(super) fn passed(observed: &Observed, verdicts: &Verdicts, time: Millis) -> Observed {
    let mut next = observed.clone();
    next.now = observed.now + time;
    for (node, heard) in &observed.nodes {
        if !matches!(verdicts.nodes.get(node), Some(NodeVerdict::Alive)) {
            continue;
        }
        let later = Heard {
            received: heard.received + time,
            answered: heard.answered.map(|at| at + time),
            echo_rose: heard.echo_rose + time,
            report: heard.report.clone(),
        };
        next.nodes.insert(node.clone(), later);
    }
    next
}

/// The verdicts that go with a State that moved on: only what is committed may have changed, and who was in doubt
/// for too long is lost.
pub(super) fn judged(before: &State, after: &State, verdicts: &Verdicts, time: Millis) -> Verdicts {
    let mut next = verdicts.clone();
    for verdict in next.nodes.values_mut() {
        if let NodeVerdict::Suspect { because, lost_in } = verdict {
            *verdict = match *lost_in > time {
                true => NodeVerdict::Suspect { because: because.clone(), lost_in: *lost_in - time },
                false => NodeVerdict::Lost { because: because.clone() },
            };
        }
    }
    for (node, record) in after.nodes.iter() {
        let was_lost = before.nodes.get(node).is_some_and(|old| old.lost());
        if record.lost() {
            next.nodes.insert(node.clone(), NodeVerdict::Lost { because: Vec::new() });
        } else if was_lost || !before.nodes.contains_key(node) {
            next.nodes.insert(node.clone(), NodeVerdict::Alive);
        }
    }
    next
}

fn obey(state: &State, node: &NodeId, report: &mut NodeReport) {
    report.revision = state.revision;
    for (slot, claim) in state.claims_on(node).filter(|(_, claim)| claim.boot == report.boot) {
        let known = report.slots.get(slot);
        let next = match &claim.stop {
            Some(stop) => SlotReport { highest: stop.token, instance: None },
            None if known.is_some_and(|known| known.highest >= claim.token) => continue,
            None => SlotReport { highest: claim.token, instance: Some(running(slot, claim)) },
        };
        report.slots.insert(slot.clone(), next);
    }
    for (id, operation) in state.operations.iter().filter(|(_, operation)| operation.ended.is_none()) {
        match &operation.kind {
            OperationKind::Migration(migration) => {
                let Some((_, pass)) = migration.copying().filter(|(copier, _)| *copier == node) else {
                    continue;
                };
                report.transfers.retain(|transfer| transfer.operation != *id || transfer.pass != pass);
                report.transfers.push(TransferReport {
                    operation: *id,
                    pass,
                    bytes_done: 0,
                    bytes_total: 0,
                    outcome: Some(TransferOutcome::Complete { digest: String::new() }),
                });
            }
            OperationKind::Fence(fence) if fence.by_node.as_ref() == Some(node) => {
                let output = "as foreseen".to_owned();
                let outcome = Some(match fence.phase {
                    FencePhase::Proven => FenceOutcome::SwitchedOn { output },
                    FencePhase::Requested
                    | FencePhase::Running
                    | FencePhase::Failed
                    | FencePhase::Released => FenceOutcome::ProvenOff { output },
                });
                report.fencing.deeds.push(FenceReport { operation: *id, attempt: fence.attempt, outcome });
            }
            OperationKind::Fence(_) | OperationKind::Drain(_) | OperationKind::Rollout(_) => {}
        }
    }
}

fn running(slot: &SlotId, claim: &Claim) -> InstanceReport {
    InstanceReport {
        id: InstanceId { slot: slot.clone(), token: claim.token },
        spec: 0,
        phase: InstancePhase::Running,
        pid: None,
        started_at: WallMs(0),
        since: Millis(0),
        ran: Millis(0),
        restarts: 0,
        health: Health::Healthy,
        health_detail: String::new(),
        usage: InstanceUsage::default(),
        last_exit: None,
        unenforced: Vec::new(),
        armed: false,
    }
}

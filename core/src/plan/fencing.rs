//! Fencing: asked for by itself when a lost node holds what cannot move otherwise, then driven attempt by
//! attempt through the node's levels until one reads back as off. The deed itself is done elsewhere.

use super::desk::Desk;
use crate::command::{Command, OperationStep};
use crate::effect::FenceMethod;
use crate::ids::{NodeId, OperationId};
use crate::observation::FenceOutcome;
use crate::state::{FencePhase, FenceRecord, NodeRecord, Operation, OperationKind, Subject, WaitCause};

/// No fencing is tried more often than this, whatever its methods allow.
const MOST_ATTEMPTS: u32 = 50;

/// Begins and drives fencings.
pub(super) fn plan(desk: &mut Desk<'_>) {
    for (node, record) in desk.state.nodes.iter() {
        if record.lost() && record.proof().is_none() && !desk.fencing.contains_key(node) {
            by_itself(desk, node);
        }
    }
    for (id, operation) in desk.running() {
        if let OperationKind::Fence(fence) = &operation.kind {
            drive(desk, id, operation, fence);
        }
    }
}

impl Desk<'_> {
    /// Will this lost node be fenced without being asked, or is it being fenced?
    pub(super) fn fences_by_itself(&self, node: &NodeId) -> bool {
        let Some(record) = self.record(node) else { return false };
        let tried = self.state.operations.values().any(|operation| {
            matches!(&operation.kind, OperationKind::Fence(fence)
                if fence.node == *node && fence.lease_epoch == record.lease_epoch)
        });
        // After a recovery everybody is lost at first: who is to be fenced then an operator says.
        record.settled()
            && !tried
            && self.state.cluster.settings.fencing_auto
            && !record.facts.fencing.is_empty()
    }
}

fn by_itself(desk: &mut Desk<'_>, node: &NodeId) {
    if desk.fresh(node) || !desk.fences_by_itself(node) {
        return;
    }
    let exclusive = |slot: &crate::ids::SlotId| desk.service(&slot.service).is_some_and(|s| s.exclusive);
    let Some(slot) = desk.state.claims_on(node).map(|(slot, _)| slot).find(|slot| exclusive(slot)) else {
        return;
    };
    let lost_for = desk.silence(node) - desk.state.cluster.settings.terms.lease;
    let delay = desk.state.cluster.settings.fencing_delay;
    if lost_for < delay {
        let detail = format!("{node} is fenced after fencing.delay {delay}");
        let cause = WaitCause::Fencing { operation: None, detail };
        desk.wait(Subject::Node(node.clone()), cause, Some(delay - lost_for));
        return;
    }
    let reason = format!("{node} is lost and holds {slot}, which is exclusive");
    desk.command(Command::Fence { node: node.clone(), reason });
}

/// Where a fencing stands, in words.
pub(super) fn describe(fence: &FenceRecord) -> String {
    let node = &fence.node;
    match (fence.phase, &fence.by_node) {
        (FencePhase::Requested, _) => format!("fencing of {node} is requested"),
        (FencePhase::Running, Some(by)) => format!("{by} fences {node}, attempt {}", fence.attempt),
        (FencePhase::Running, None) => format!("fencing of {node} goes on after attempt {}", fence.attempt),
        (FencePhase::Proven, _) => format!("{node} was read back as off"),
        (FencePhase::Failed, _) => format!("fencing of {node} failed: {}", fence.output),
        (FencePhase::Released, _) => format!("fencing of {node} is not needed any more"),
    }
}

fn drive(desk: &mut Desk<'_>, id: OperationId, operation: &Operation, fence: &FenceRecord) {
    let node = &fence.node;
    let fail = |desk: &mut Desk<'_>, because: String| {
        desk.advance(id, operation, OperationStep::Fail { because });
    };
    // Its return releases this.
    if desk.returning.contains(node) {
        return;
    }
    let Some(record) = desk.record(node) else {
        return fail(desk, format!("{node} is not a node any more"));
    };
    if record.lease_epoch != fence.lease_epoch {
        return fail(desk, format!("{node} was let back in meanwhile"));
    }
    if record.proof().is_some() && !under_way(fence) {
        return fail(desk, format!("{node} is attested dead: nothing is left to do"));
    }
    if let Some(why) = hindrance(desk, fence, record) {
        return wait(desk, id, fence, why);
    }
    if under_way(fence) {
        outcome(desk, id, operation, fence, record);
    } else {
        attempt(desk, id, operation, fence, record);
    }
}

fn wait(desk: &mut Desk<'_>, id: OperationId, fence: &FenceRecord, detail: String) {
    let cause = WaitCause::Fencing { operation: Some(id), detail };
    desk.wait(Subject::Operation(id), cause.clone(), None);
    desk.wait(Subject::Node(fence.node.clone()), cause, None);
}

/// What stands before the next deed.
fn hindrance(desk: &Desk<'_>, fence: &FenceRecord, record: &NodeRecord) -> Option<String> {
    let node = &fence.node;
    if *node == desk.observed.me {
        return Some(format!("{node} leads: another node leads first, then it is fenced"));
    }
    if !record.lost() {
        return Some(format!("{node} is committed lost first"));
    }
    if !fence.forced && desk.fresh(node) && !under_way(fence) {
        return Some(format!("{node} is heard again: letting it back in ends this"));
    }
    None
}

/// Has an attempt been ordered whose end is not recorded?
fn under_way(fence: &FenceRecord) -> bool {
    fence.phase == FencePhase::Running && fence.by_node.is_some()
}

fn outcome(
    desk: &mut Desk<'_>,
    id: OperationId,
    operation: &Operation,
    fence: &FenceRecord,
    record: &NodeRecord,
) {
    let by = fence.by_node.as_ref();
    let heard = by.and_then(|by| desk.heard(by));
    let deed = heard.and_then(|heard| {
        heard.report.fencing.iter().find(|deed| deed.operation == id && deed.attempt == fence.attempt)
    });
    match deed.and_then(|deed| deed.outcome.as_ref()) {
        Some(FenceOutcome::ProvenOff { output }) => {
            desk.advance(id, operation, OperationStep::FenceProven { output: output.clone() });
        }
        Some(FenceOutcome::Failed { output }) => {
            desk.advance(id, operation, OperationStep::FenceFailed { output: output.clone() });
        }
        Some(FenceOutcome::Withheld { why }) if !fence.forced && desk.fresh(&fence.node) => {
            wait(desk, id, fence, format!("held back: {why}"));
        }
        Some(FenceOutcome::Withheld { .. }) => attempt(desk, id, operation, fence, record),
        None => match by.filter(|by| desk.sound(by)) {
            Some(_) => wait(desk, id, fence, describe(fence)),
            None => attempt(desk, id, operation, fence, record),
        },
    }
}

fn ordered(desk: &Desk<'_>, fence: &FenceRecord, level: u32, method: u32) -> OperationStep {
    OperationStep::FenceAttempt { by: desk.observed.me.clone(), attempt: fence.attempt + 1, level, method }
}

fn attempt(
    desk: &mut Desk<'_>,
    id: OperationId,
    operation: &Operation,
    fence: &FenceRecord,
    record: &NodeRecord,
) {
    if operation.cancelling {
        return desk.advance(id, operation, OperationStep::Fail { because: "cancelled".to_owned() });
    }
    let me = &desk.observed.me;
    if desk.lost(me) || *me == fence.node {
        let doing = format!("{me} leads and may not fence before it is let back in or hands over");
        return wait(desk, id, fence, doing);
    }
    let step = match due(operation, fence, record).filter(|_| fence.attempt < MOST_ATTEMPTS) {
        Some((level, method)) => ordered(desk, fence, level, method),
        None => {
            let said = if fence.output.is_empty() { String::new() } else { format!(" ({})", fence.output) };
            let because = if record.facts.fencing.is_empty() {
                format!("{} has no fence method", fence.node)
            } else {
                format!("no method read {} back as off{said}", fence.node)
            };
            OperationStep::Fail { because }
        }
    };
    desk.advance(id, operation, step);
}

/// Level and method of the next attempt: the same again while it has tries left, else the next level.
fn due(operation: &Operation, fence: &FenceRecord, record: &NodeRecord) -> Option<(u32, u32)> {
    let levels = &record.facts.fencing;
    let (level, method) = (fence.level, fence.method);
    let known = levels.get(level as usize)?.get(method as usize);
    if known.is_some_and(|known| failures(operation, level, method) < tries(known)) {
        return Some((level, method));
    }
    let next = level + 1;
    (!levels.get(next as usize)?.is_empty()).then_some((next, 0))
}

fn tries(method: &FenceMethod) -> u32 {
    match method {
        FenceMethod::Exec { attempts, .. } => (*attempts).max(1),
    }
}

/// How often a method failed; attempts cut short by a lost leader do not count.
fn failures(operation: &Operation, level: u32, method: u32) -> u32 {
    let mut at = None;
    let mut failed = 0;
    for note in &operation.history {
        match &note.step {
            OperationStep::FenceAttempt { level, method, .. } => at = Some((*level, *method)),
            OperationStep::FenceFailed { .. } if at == Some((level, method)) => failed += 1,
            _ => {}
        }
    }
    failed
}

//! Fencing: asked for by itself when a lost node holds what cannot move otherwise, then driven attempt by
//! attempt through the node's levels until one reads back as off, and switched on again where its file says
//! so. The deed itself is done elsewhere.

use super::desk::Desk;
use crate::command::{Command, OperationStep};
use crate::fence::{FenceAction, FenceMethod};
use crate::ids::{NodeId, OperationId, SlotId};
use crate::observation::{FenceOutcome, FenceReport};
use crate::state::{
    FencePhase, FenceRecord, NodeRecord, Operation, OperationKind, OperationResult, Subject, WaitCause,
};

/// No fencing is tried more often than this, whatever its methods allow.
const MOST_ATTEMPTS: u32 = 50;
/// Of what one method said, so much stands in the sentence that names them all.
const MOST_SAID: usize = 160;

/// Begins and drives fencings.
pub(super) fn plan(desk: &mut Desk<'_>) {
    for (node, record) in desk.state.nodes.iter() {
        if record.lost() && record.proof().is_none() && !desk.fencing.contains_key(node) {
            by_itself(desk, node);
            blocked(desk, node);
        }
    }
    for (id, operation) in desk.running() {
        if let OperationKind::Fence(fence) = &operation.kind {
            drive(desk, id, operation, fence);
        }
    }
}

impl<'a> Desk<'a> {
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

    /// Who does a deed against this node at this moment, as far as is known: then it is too late to let the
    /// node back in before the end of it.
    pub(super) fn striking(&self, node: &NodeId) -> Option<(OperationId, &'a NodeId)> {
        let (id, fence) = self.fence_of(node).filter(|(_, fence)| fence.phase == FencePhase::Running)?;
        let by = fence.by_node.as_ref().filter(|by| self.sound(by))?;
        let ended = self.deed(id, fence).is_some_and(|deed| deed.outcome.is_some());
        (!ended).then_some((id, by))
    }

    /// The newest fencing of this loss of the node that ended without proof, and why.
    pub(super) fn failed_fence(&self, node: &NodeId) -> Option<(OperationId, String)> {
        let epoch = self.record(node)?.lease_epoch;
        self.state.operations.iter().rev().find_map(|(id, operation)| {
            let OperationKind::Fence(fence) = &operation.kind else { return None };
            let same = fence.node == *node && fence.lease_epoch == epoch;
            match &operation.ended.as_ref().filter(|_| same)?.result {
                OperationResult::Failed(why) => {
                    let remedy = format!(
                        "quorate fence {node} tries again, or if you know that it is dead: quorate attest \
                         {node} --dead --reason WHY"
                    );
                    Some((*id, format!("fencing {node} failed: {why}; {remedy}")))
                }
                OperationResult::Done
                | OperationResult::RolledBack(_)
                | OperationResult::Cancelled
                | OperationResult::Released(_) => None,
            }
        })
    }

    /// What its doer reports of the current attempt.
    fn deed(&self, id: OperationId, fence: &FenceRecord) -> Option<&'a FenceReport> {
        let deeds = &self.heard(fence.by_node.as_ref()?)?.report.fencing.deeds;
        deeds.iter().find(|deed| deed.operation == id && deed.attempt == fence.attempt)
    }

    /// Who carries a method out: this leader if all that it needs is here, else another that has it. If
    /// nobody has, this leader, so that what is missing is said by the attempt.
    fn fencer(&self, target: &NodeId, method: &FenceMethod) -> Option<NodeId> {
        let me = &self.observed.me;
        let able = |node: &NodeId| {
            let missing = self.heard(node).map_or(&[][..], |heard| &heard.report.fencing.missing);
            let mut needs = method.needs().into_iter();
            node != target && self.sound(node) && !needs.any(|tool| missing.iter().any(|m| m.tool == tool))
        };
        let others = self.state.nodes.iter().map(|(node, _)| node);
        let first = std::iter::once(me).chain(others).find(|node| able(node));
        first.or_else(|| Some(me).filter(|me| !self.lost(me) && *me != target)).cloned()
    }
}

fn by_itself(desk: &mut Desk<'_>, node: &NodeId) {
    if desk.fresh(node) || !desk.fences_by_itself(node) {
        return;
    }
    let Some(slot) = exclusive_claim(desk, node) else { return };
    let lost_for = desk.silence(node) - desk.state.cluster.settings.terms.lease;
    let delay = desk.state.cluster.settings.fencing_delay;
    if lost_for < delay {
        let detail = format!("{node} is fenced after fencing.delay {delay}");
        let cause = WaitCause::Fencing { operation: None, under_way: false, detail };
        desk.wait(Subject::Node(node.clone()), cause, Some(delay - lost_for));
        return;
    }
    let reason = format!("{node} is lost and holds {slot}, which is exclusive");
    desk.command(Command::Fence { node: node.clone(), reason });
}

fn exclusive_claim<'a>(desk: &Desk<'a>, node: &'a NodeId) -> Option<&'a SlotId> {
    let exclusive = |slot: &&SlotId| desk.service(&slot.service).is_some_and(|s| s.exclusive);
    desk.state.claims_on(node).map(|(slot, _)| slot).find(exclusive)
}

/// A node whose fencing failed says so as long as something hangs on it.
fn blocked(desk: &mut Desk<'_>, node: &NodeId) {
    if desk.returning.contains(node) || exclusive_claim(desk, node).is_none() {
        return;
    }
    if let Some((operation, detail)) = desk.failed_fence(node) {
        let cause = WaitCause::Fencing { operation: Some(operation), under_way: false, detail };
        desk.wait(Subject::Node(node.clone()), cause, None);
    }
}

/// Where a fencing stands, in words.
pub(super) fn describe(desk: &Desk<'_>, fence: &FenceRecord) -> String {
    let node = &fence.node;
    let levels = desk.record(node).map_or(&[][..], |record| &record.facts.fencing);
    let level = levels.get(fence.level as usize);
    let by_what = match level.and_then(|level| level.get(fence.method as usize)) {
        Some(method) => format!(" by {} (level {} of {})", method.name, fence.level + 1, levels.len()),
        None => String::new(),
    };
    match (fence.phase, &fence.by_node) {
        (FencePhase::Requested, _) => format!("fencing of {node} is requested"),
        (FencePhase::Running, Some(by)) => {
            format!("{by} fences {node}{by_what}, attempt {}", fence.attempt)
        }
        (FencePhase::Running, None) => format!("fencing of {node} goes on after attempt {}", fence.attempt),
        (FencePhase::Proven, Some(by)) => format!("{node} was read back as off; {by} switches it on again"),
        (FencePhase::Proven, None) => format!("{node} was read back as off"),
        (FencePhase::Failed, _) => format!("fencing of {node} failed: {}", fence.output),
        (FencePhase::Released, _) => format!("fencing of {node} is not needed any more"),
    }
}

fn drive(desk: &mut Desk<'_>, id: OperationId, operation: &Operation, fence: &FenceRecord) {
    let node = &fence.node;
    // Its return releases this.
    if desk.returning.contains(node) {
        return;
    }
    let fail = |desk: &mut Desk<'_>, because: String| {
        desk.advance(id, operation, OperationStep::Fail { because });
    };
    let proven = fence.phase == FencePhase::Proven;
    let Some(record) = desk.record(node).filter(|record| record.lease_epoch == fence.lease_epoch) else {
        return match proven {
            true => desk.advance(id, operation, OperationStep::Finish),
            false => fail(desk, format!("{node} was let back in or removed meanwhile")),
        };
    };
    if proven {
        return switch_on(desk, id, operation, fence, record);
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
    say(desk, id, fence, false, detail);
}

/// Where the deed under way stands.
fn progress(desk: &mut Desk<'_>, id: OperationId, fence: &FenceRecord) {
    say(desk, id, fence, true, describe(desk, fence));
}

fn say(desk: &mut Desk<'_>, id: OperationId, fence: &FenceRecord, under_way: bool, detail: String) {
    let cause = WaitCause::Fencing { operation: Some(id), under_way, detail };
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
pub(super) fn under_way(fence: &FenceRecord) -> bool {
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
    match desk.deed(id, fence).and_then(|deed| deed.outcome.as_ref()) {
        Some(FenceOutcome::ProvenOff { output }) => {
            desk.advance(id, operation, OperationStep::FenceProven { output: output.clone() });
        }
        Some(FenceOutcome::Failed { output } | FenceOutcome::SwitchedOn { output }) => {
            desk.advance(id, operation, OperationStep::FenceFailed { output: output.clone() });
        }
        Some(FenceOutcome::Withheld { why }) if !fence.forced && desk.fresh(&fence.node) => {
            wait(desk, id, fence, format!("held back: {why}"));
        }
        Some(FenceOutcome::Withheld { .. }) => attempt(desk, id, operation, fence, record),
        None => match by.filter(|by| desk.sound(by)) {
            Some(_) => progress(desk, id, fence),
            None => attempt(desk, id, operation, fence, record),
        },
    }
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
    let Some((level, method)) = due(operation, fence, record).filter(|_| fence.attempt < MOST_ATTEMPTS)
    else {
        let because = failure(operation, fence, record);
        return desk.advance(id, operation, OperationStep::Fail { because });
    };
    let known = record.facts.fencing.get(level as usize).and_then(|level| level.get(method as usize));
    match known.and_then(|known| desk.fencer(&fence.node, known)) {
        Some(by) => {
            let attempt = fence.attempt + 1;
            desk.advance(id, operation, OperationStep::FenceAttempt { by, attempt, level, method });
        }
        None => {
            let me = &desk.observed.me;
            let doing = format!("{me} leads and may not fence before it is let back in or hands over");
            wait(desk, id, fence, doing);
        }
    }
}

/// Level and method of the next attempt: the same again while it has tries left, else the next level.
fn due(operation: &Operation, fence: &FenceRecord, record: &NodeRecord) -> Option<(u32, u32)> {
    let levels = &record.facts.fencing;
    let (level, method) = (fence.level, fence.method);
    let known = levels.get(level as usize)?.get(method as usize);
    if known.is_some_and(|known| failures(operation, Tried::Off(level, method)) < known.attempts.max(1)) {
        return Some((level, method));
    }
    let next = level + 1;
    (!levels.get(next as usize)?.is_empty()).then_some((next, 0))
}

/// Why nothing proved it: every method's last word.
fn failure(operation: &Operation, fence: &FenceRecord, record: &NodeRecord) -> String {
    if record.facts.fencing.is_empty() {
        return format!("{} has no fence method", fence.node);
    }
    let mut said: Vec<((u32, u32), &str)> = Vec::new();
    let mut at = None;
    for note in &operation.history {
        match &note.step {
            OperationStep::FenceAttempt { level, method, .. } => at = Some((*level, *method)),
            OperationStep::FenceFailed { output } => {
                if let Some(at) = at {
                    said.retain(|(known, _)| *known != at);
                    said.push((at, output));
                }
            }
            _ => {}
        }
    }
    let cut = |text: &str| text.chars().take(MOST_SAID).collect::<String>();
    let lines: Vec<String> = said.into_iter().map(|(_, text)| cut(text)).collect();
    let lines = if lines.is_empty() { String::new() } else { format!(" ({})", lines.join(" | ")) };
    format!("no level read {} back as off{lines}", fence.node)
}

/// Gives the power back by each method of the proven level that is to, then ends it.
fn switch_on(
    desk: &mut Desk<'_>,
    id: OperationId,
    operation: &Operation,
    fence: &FenceRecord,
    record: &NodeRecord,
) {
    let by = fence.by_node.as_ref();
    let step = match desk.deed(id, fence).and_then(|deed| deed.outcome.as_ref()).filter(|_| by.is_some()) {
        Some(FenceOutcome::SwitchedOn { output } | FenceOutcome::ProvenOff { output }) => {
            OperationStep::PoweredOn { output: output.clone() }
        }
        Some(FenceOutcome::Failed { output } | FenceOutcome::Withheld { why: output }) => {
            OperationStep::FenceFailed { output: output.clone() }
        }
        None if by.is_some_and(|by| desk.sound(by)) => {
            return progress(desk, id, fence);
        }
        None => match next_on(operation, fence, record).filter(|_| fence.attempt < MOST_ATTEMPTS) {
            None => OperationStep::Finish,
            Some((method, known)) => match desk.fencer(&fence.node, known) {
                Some(by) => OperationStep::PowerOn { by, attempt: fence.attempt + 1, method },
                None => OperationStep::Finish,
            },
        },
    };
    desk.advance(id, operation, step);
}

fn next_on<'a>(
    operation: &Operation,
    fence: &FenceRecord,
    record: &'a NodeRecord,
) -> Option<(u32, &'a FenceMethod)> {
    let methods = record.facts.fencing.get(fence.level as usize)?;
    (fence.method..).zip(methods.get(fence.method as usize..)?).find(|(at, method)| {
        method.action == FenceAction::Reboot && failures(operation, Tried::On(*at)) < method.attempts.max(1)
    })
}

/// What an attempt was made at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tried {
    Off(u32, u32),
    On(u32),
}

/// How often a method failed; attempts cut short by a lost leader do not count.
fn failures(operation: &Operation, wanted: Tried) -> u32 {
    let mut at = None;
    let mut failed = 0;
    for note in &operation.history {
        match &note.step {
            OperationStep::FenceAttempt { level, method, .. } => at = Some(Tried::Off(*level, *method)),
            OperationStep::PowerOn { method, .. } => at = Some(Tried::On(*method)),
            OperationStep::FenceFailed { .. } if at == Some(wanted) => failed += 1,
            _ => {}
        }
    }
    failed
}

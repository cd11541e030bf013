//! The waiting report: for every slot that should run and does not run well, what it waits for; for every
//! slot that should be gone and is not, what holds it. No such slot is ever without a line.

use super::desk::Desk;
use super::evidence;
use super::failover::wanted_slots;
use super::placement::{Wish, place};
use crate::ids::{NodeId, SlotId};
use crate::observation::{ExitKind, ExitReason, Health, InstancePhase, InstanceReport, NodeVerdict};
use crate::spec::ServiceSpec;
use crate::state::{Claim, ServiceRecord, Subject, WaitCause};
use crate::units::Millis;

/// Explains every slot that is not as it should be.
pub(super) fn plan(desk: &mut Desk<'_>) {
    for (name, service) in desk.state.services.iter() {
        for slot in wanted_slots(name, service) {
            if !desk.claims(&slot).iter().any(|claim| desk.well(&slot, claim)) {
                explain(desk, &slot, service);
            }
        }
        for (slot, record) in desk.slots_of(name).filter(|(slot, _)| slot.ordinal >= service.wanted()) {
            for claim in &record.claims {
                explain_claim(desk, slot, service, claim);
            }
        }
    }
}

fn wait(desk: &mut Desk<'_>, slot: &SlotId, cause: WaitCause, left: Option<Millis>) {
    desk.wait(Subject::Slot(slot.clone()), cause, left);
}

fn explain(desk: &mut Desk<'_>, slot: &SlotId, service: &ServiceRecord) {
    if let Some((operation, migration)) = desk.migration_of(slot)
        && desk.in_flight(slot).is_some()
    {
        let to = migration.target.as_ref().map(|target| format!(" to {target}")).unwrap_or_default();
        let detail = format!("migration from {}{to}: {}", migration.source, migration.phase.name());
        wait(desk, slot, WaitCause::Operation { operation, detail }, None);
    }
    if let Some(node) = desk.granting.get(slot).cloned() {
        wait(desk, slot, WaitCause::Starting { node }, None);
    }
    if let Some(refusals) = desk.refusals.get(slot).cloned() {
        wait(desk, slot, WaitCause::NoNodeFits { refusals }, None);
    }
    for claim in desk.claims(slot) {
        explain_claim(desk, slot, service, claim);
    }
    // A copy that could be replaced at once and is not yet: what its old claim waits for.
    if !desk.plan.waiting.contains_key(&Subject::Slot(slot.clone())) {
        desk.claims(slot).iter().for_each(|claim| blocked(desk, slot, service, claim));
    }
}

fn explain_claim(desk: &mut Desk<'_>, slot: &SlotId, service: &ServiceRecord, claim: &Claim) {
    let node = &claim.node;
    if desk.returning.contains(node) {
        let detail = format!("{node} is let back in");
        return wait(desk, slot, WaitCause::Other { detail }, None);
    }
    let gone = desk
        .record(node)
        .is_none_or(|record| record.lost() || record.boot != claim.boot || record.raft_id != claim.raft_id);
    if gone {
        // What is not exclusive is replaced without waiting for a claim on a lost node.
        if service.exclusive || !desk.wanted(slot) || !desk.lost(node) {
            blocked(desk, slot, service, claim);
        }
        return;
    }
    if let Some(stop) = &claim.stop {
        let cause = WaitCause::Stopping { node: node.clone(), because: stop.because.clone() };
        wait(desk, slot, cause, None);
    }
    match desk.verdicts.nodes.get(node) {
        Some(NodeVerdict::Suspect { because, lost_in }) => {
            let cause = WaitCause::Suspect { node: node.clone(), because: because.clone() };
            wait(desk, slot, cause, Some(*lost_in));
        }
        Some(NodeVerdict::Lost { because }) => {
            let cause = WaitCause::Suspect { node: node.clone(), because: because.clone() };
            wait(desk, slot, cause, Some(Millis(0)));
        }
        Some(NodeVerdict::Alive) | None if claim.stop.is_none() => running(desk, slot, service, claim),
        Some(NodeVerdict::Alive) | None => {}
    }
}

/// What keeps the copy of an unstopped claim on a node in good standing from running well.
fn running(desk: &mut Desk<'_>, slot: &SlotId, service: &ServiceRecord, claim: &Claim) {
    let node = claim.node.clone();
    let other = |detail: String| (WaitCause::Other { detail }, None);
    let (cause, left) = match (desk.heard(&node), desk.instance(slot, claim)) {
        (None, _) => other(format!("{node} has not reported to this leader yet")),
        (Some(heard), _) if heard.report.boot != claim.boot => {
            other(format!("{node} has rebooted and is not let back in yet"))
        }
        (Some(heard), _) if heard.report.wants_rejoin => {
            other(format!("the lease of {node} ran out, and it is not let back in yet"))
        }
        (Some(_), None) => (WaitCause::Starting { node }, None),
        (Some(heard), Some(instance)) => {
            let age = desk.observed.now.since(heard.received);
            phase(node, service.spec_of(claim.version), instance, age)
        }
    };
    wait(desk, slot, cause, left);
}

fn phase(
    node: NodeId,
    spec: &ServiceSpec,
    instance: &InstanceReport,
    age: Millis,
) -> (WaitCause, Option<Millis>) {
    match &instance.phase {
        InstancePhase::Starting => (WaitCause::Starting { node }, None),
        InstancePhase::Running if instance.health == Health::Unhealthy => {
            let end = ExitReason { kind: ExitKind::Unhealthy, code: None, signal: None };
            let left = end.restarts(spec.restart.when).then(|| backoff(&end, spec, instance, age));
            (WaitCause::Health { node, detail: instance.health_detail.clone() }, left)
        }
        InstancePhase::Running => (WaitCause::Health { node, detail: instance.health_detail.clone() }, None),
        InstancePhase::Stopping => {
            let because = format!("{node} is stopping it");
            (WaitCause::Stopping { node, because }, None)
        }
        InstancePhase::Exited(end) => ended(node, spec, instance, end, end.to_string(), age),
        InstancePhase::StartFailed(why) => {
            let end = ExitReason { kind: ExitKind::Failed, code: None, signal: None };
            ended(node, spec, instance, &end, format!("could not start: {why}"), age)
        }
        InstancePhase::Unknown(why) => {
            (WaitCause::Other { detail: format!("{node} cannot tell whether it runs: {why}") }, None)
        }
    }
}

fn ended(
    node: NodeId,
    spec: &ServiceSpec,
    instance: &InstanceReport,
    end: &ExitReason,
    detail: String,
    age: Millis,
) -> (WaitCause, Option<Millis>) {
    if end.restarts(spec.restart.when) {
        let left = backoff(end, spec, instance, age);
        (WaitCause::Backoff { node, detail }, Some(left))
    } else {
        (WaitCause::Ended { detail }, None)
    }
}

fn backoff(end: &ExitReason, spec: &ServiceSpec, instance: &InstanceReport, age: Millis) -> Millis {
    let ran = match instance.phase {
        InstancePhase::Running => instance.since,
        InstancePhase::StartFailed(_) => Millis(0),
        InstancePhase::Starting
        | InstancePhase::Stopping
        | InstancePhase::Exited(_)
        | InstancePhase::Unknown(_) => instance.ran,
    };
    end.backoff(&spec.restart, instance.restarts, ran) - instance.since - age
}

/// A claim that only evidence can end: the list, the fencing, and the operator's part if nothing else is left.
fn blocked(desk: &mut Desk<'_>, slot: &SlotId, service: &ServiceRecord, claim: &Claim) {
    let items = evidence::items(desk, slot, claim);
    let left = items.iter().filter_map(|item| item.left).min();
    let proven = items.iter().any(|item| item.holds);
    let then = desk.wanted(slot).then(|| destination(desk, slot, service)).flatten();
    let node = claim.node.clone();
    let cause = WaitCause::Evidence { node: node.clone(), token: claim.token, then, items };
    wait(desk, slot, cause, left);
    if proven || !desk.lost(&node) {
        return;
    }
    if let Some((operation, fence)) = desk.fence_of(&node) {
        let detail = super::fencing::describe(desk, fence);
        let under_way = super::fencing::under_way(fence);
        wait(desk, slot, WaitCause::Fencing { operation: Some(operation), under_way, detail }, None);
        return;
    }
    if let Some((operation, detail)) = desk.failed_fence(&node) {
        let cause = WaitCause::Fencing { operation: Some(operation), under_way: false, detail };
        wait(desk, slot, cause, None);
    } else if left.is_none() && !desk.fences_by_itself(&node) {
        let detail = format!(
            "nothing proves by itself that {slot} has stopped on {node}: bring {node} back, fence it, or if \
             you know that it is dead: quorate attest {node} --dead --reason WHY"
        );
        wait(desk, slot, WaitCause::Operator { detail }, None);
    }
}

/// Where the slot would start if its claim ended now.
fn destination(desk: &Desk<'_>, slot: &SlotId, service: &ServiceRecord) -> Option<NodeId> {
    place(desk, &Wish::anywhere(slot, &service.spec)).ok().map(|choice| choice.node)
}

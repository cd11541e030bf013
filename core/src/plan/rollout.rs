//! Rollouts: replaces the copies of older versions one at a time, those that do not run well first, and
//! never lets more than one copy of a service be missing for it. The new grant is `failover`'s.

use super::desk::Desk;
use crate::command::{Command, OperationStep};
use crate::ids::{OperationId, SlotId};
use crate::state::{Claim, Operation, OperationKind, RolloutRecord, Subject, WaitCause};

/// Drives every rollout.
pub(super) fn plan(desk: &mut Desk<'_>) {
    for (id, operation) in desk.running() {
        if let OperationKind::Rollout(rollout) = &operation.kind {
            drive(desk, id, operation, rollout);
        }
    }
}

fn drive(desk: &mut Desk<'_>, id: OperationId, operation: &Operation, rollout: &RolloutRecord) {
    let name = &rollout.service;
    let Some(service) = desk.service(name) else {
        return desk.advance(id, operation, OperationStep::Finish);
    };
    if service.version > rollout.version {
        let because = format!("version {} came after version {}", service.version, rollout.version);
        return desk.advance(id, operation, OperationStep::Fail { because });
    }
    let old = older(desk, rollout);
    if old.is_empty() {
        return desk.advance(id, operation, OperationStep::Finish);
    }
    for (slot, claim) in old {
        replace(desk, id, rollout, slot, claim);
    }
}

/// Claims of older versions, those that do not run well first.
fn older<'a>(desk: &Desk<'a>, rollout: &RolloutRecord) -> Vec<(&'a SlotId, &'a Claim)> {
    let mut old: Vec<(&SlotId, &Claim)> = desk
        .slots_of(&rollout.service)
        .flat_map(|(slot, record)| record.claims.iter().map(move |claim| (slot, claim)))
        .filter(|(_, claim)| claim.version < rollout.version)
        .collect();
    old.sort_by_key(|(slot, claim)| (desk.well(slot, claim), *slot, claim.token));
    old
}

fn replace(desk: &mut Desk<'_>, id: OperationId, rollout: &RolloutRecord, slot: &SlotId, claim: &Claim) {
    let node = claim.node.clone();
    let subject = Subject::Operation(id);
    if desk.moving.contains_key(slot) {
        let detail = format!("{slot} is being moved, and is replaced afterwards");
        return desk.wait(subject, WaitCause::Throttled { detail }, None);
    }
    if claim.stop.is_some() || desk.lost(&node) || !desk.wanted(slot) {
        let because = if desk.lost(&node) { format!("{node} is lost") } else { "its stop".to_owned() };
        return desk.wait(subject, WaitCause::Stopping { node, because }, None);
    }
    // Already on its way out in this pass.
    if desk.disturbed.contains(slot) {
        return;
    }
    match desk.may_disturb(slot) {
        Err(detail) => desk.wait(subject, WaitCause::Throttled { detail }, None),
        Ok(()) if desk.decide(slot) => {
            desk.disturbed.insert(slot.clone());
            desk.command(Command::StopClaim {
                slot: slot.clone(),
                token: claim.token,
                because: format!("version {} replaces version {}", rollout.version, claim.version),
                operation: Some(id),
            });
        }
        Ok(()) => {}
    }
}

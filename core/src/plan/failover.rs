//! Gives every wanted slot that nothing stands for to the best node: new slots, slots whose claim ended by
//! evidence, and slots that are not exclusive and whose node is lost. The important ones choose first.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::desk::Desk;
use super::placement::{Wish, place};
use super::{preemption, recovery};
use crate::command::Command;
use crate::ids::{NodeId, OperationId, ServiceName, SlotId};
use crate::state::{Claim, EndedClaim, OperationKind, ServiceRecord, Subject, WaitCause};

/// Grants what can be granted.
pub(super) fn plan(desk: &mut Desk<'_>) {
    let mut services: Vec<(&ServiceName, &ServiceRecord)> = desk.state.services.iter().collect();
    // Of equals those that a rollout has just stopped: whoever waited longer must not take their room meanwhile.
    let rolling: BTreeSet<&ServiceName> = desk
        .running()
        .filter_map(|(_, operation)| match &operation.kind {
            OperationKind::Rollout(rollout) => Some(&rollout.service),
            _ => None,
        })
        .collect();
    services.sort_by_key(|(name, service)| (Reverse(service.spec.priority), !rolling.contains(name), *name));
    for (name, service) in services {
        if let Some(why) = settling(desk, name, service) {
            for slot in
                wanted_slots(name, service).filter(|slot| empty(desk, slot, service)).collect::<Vec<_>>()
            {
                desk.wait(Subject::Slot(slot), WaitCause::Other { detail: why.clone() }, None);
            }
            continue;
        }
        for slot in wanted_slots(name, service) {
            if empty(desk, &slot, service)
                && desk.in_flight(&slot).is_none()
                && !held_back(desk, &slot, service)
            {
                fill(desk, &slot, service);
            }
        }
    }
}

/// All slots that a service should have.
pub(super) fn wanted_slots(
    name: &ServiceName,
    service: &ServiceRecord,
) -> impl Iterator<Item = SlotId> + use<> {
    let service_name = name.clone();
    (0..service.wanted()).map(move |ordinal| SlotId { service: service_name.clone(), ordinal })
}

/// May a new claim be made now? An exclusive slot must have none at all; of another, claims on lost nodes
/// are no hindrance.
pub(super) fn empty(desk: &Desk<'_>, slot: &SlotId, service: &ServiceRecord) -> bool {
    let claims = desk.claims(slot);
    if service.exclusive { claims.is_empty() } else { claims.iter().all(|claim| desk.absent(&claim.node)) }
}

/// The claim that stands in the way of a new one on this node, if one does.
pub(super) fn in_the_way<'a>(
    desk: &Desk<'a>,
    slot: &SlotId,
    service: &ServiceRecord,
    node: &NodeId,
) -> Option<&'a Claim> {
    let blocks = |claim: &&Claim| {
        service.exclusive || claim.node == *node || (claim.stop.is_none() && !desk.absent(&claim.node))
    };
    desk.claims(slot).iter().find(blocks)
}

/// A service that became exclusive waits until no slot has two claims.
pub(super) fn settling(desk: &Desk<'_>, name: &ServiceName, service: &ServiceRecord) -> Option<String> {
    let (slot, record) =
        desk.slots_of(name).find(|(_, record)| service.exclusive && record.claims.len() > 1)?;
    Some(format!(
        "{name} became exclusive while {slot} had {} copies: nothing of it starts until one is left",
        record.claims.len()
    ))
}

/// While a recovery is open nothing exclusive is granted; what that waits for is said.
fn held_back(desk: &mut Desk<'_>, slot: &SlotId, service: &ServiceRecord) -> bool {
    let Some(cause) = recovery::held_back(desk).filter(|_| service.exclusive) else { return false };
    desk.wait(Subject::Slot(slot.clone()), cause, None);
    true
}

fn fill(desk: &mut Desk<'_>, slot: &SlotId, service: &ServiceRecord) {
    let same_disk =
        |end: &&EndedClaim| desk.record(&end.node).is_some_and(|record| record.raft_id == end.raft_id);
    let before = desk
        .state
        .slots
        .get(slot)
        .and_then(|record| record.last_ended.as_ref())
        .filter(same_disk)
        .map(|end| &end.node);
    let wish = Wish { before, ..Wish::anywhere(slot, &service.spec) };
    match place(desk, &wish) {
        Ok(choice) => grant(desk, slot, service, &choice.node, None, choice.because),
        Err(refusals) => match preemption::make_room(desk, slot, service, &refusals) {
            Some(detail) => desk.wait(Subject::Slot(slot.clone()), WaitCause::Other { detail }, None),
            None => drop(desk.refusals.insert(slot.clone(), refusals)),
        },
    }
}

/// Gives a slot to a node, in the boot and lease epoch that State knows it by.
pub(super) fn grant(
    desk: &mut Desk<'_>,
    slot: &SlotId,
    service: &ServiceRecord,
    node: &NodeId,
    operation: Option<OperationId>,
    because: String,
) {
    if held_back(desk, slot, service) {
        return;
    }
    let Some(record) = desk.record(node).filter(|_| desk.decide(slot)) else { return };
    if operation.is_none() {
        desk.room.take(slot, node, &service.spec);
    }
    desk.granting.insert(slot.clone(), node.clone());
    desk.command(Command::Grant {
        slot: slot.clone(),
        node: node.clone(),
        boot: record.boot.clone(),
        lease_epoch: record.lease_epoch,
        version: service.version,
        operation,
        because,
    });
}

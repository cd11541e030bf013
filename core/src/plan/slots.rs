//! Claims that should not be: of slots no longer wanted, of disks that were replaced, and more than one of a
//! slot after a node came back. Each is told to stop; only its acknowledgement or other evidence ends it.

use super::desk::Desk;
use crate::command::Command;
use crate::ids::SlotId;
use crate::state::{Claim, ServiceRecord, SlotRecord};

/// Stops what should not run.
pub(super) fn plan(desk: &mut Desk<'_>) {
    for (slot, record) in desk.state.slots.iter() {
        let Some(service) = desk.service(&slot.service) else { continue };
        // A migration past its flip ends first; it is told that the slot is not wanted any more.
        if desk.in_flight(slot).is_some() {
            continue;
        }
        if desk.wanted(slot) {
            replaced(desk, slot, record);
            surplus(desk, slot, record);
        } else {
            unwanted(desk, slot, record, service);
        }
    }
}

fn stop(desk: &mut Desk<'_>, slot: &SlotId, claim: &Claim, because: String) {
    if desk.ends(slot, claim) || !desk.decide(slot) {
        return;
    }
    desk.disturbed.insert(slot.clone());
    let command = Command::StopClaim { slot: slot.clone(), token: claim.token, because, operation: None };
    desk.command(command);
}

fn unwanted(desk: &mut Desk<'_>, slot: &SlotId, record: &SlotRecord, service: &ServiceRecord) {
    let name = &slot.service;
    let because = if service.deleting {
        format!("{name} is deleted")
    } else if service.stopped {
        format!("{name} is stopped")
    } else {
        format!("{name} is scaled to {}", service.spec.replicas)
    };
    for claim in record.claims.iter().filter(|claim| claim.stop.is_none()) {
        stop(desk, slot, claim, because.clone());
    }
}

/// A wiped disk is a new node, even under its old name.
fn replaced(desk: &mut Desk<'_>, slot: &SlotId, record: &SlotRecord) {
    for claim in record.claims.iter().filter(|claim| claim.stop.is_none()) {
        let node = &claim.node;
        // After a recovery what runs there is told first, and passes to the new disk.
        if desk.record(node).is_some_and(|record| record.settled() && record.raft_id != claim.raft_id) {
            stop(desk, slot, claim, format!("{node} came with another disk"));
        }
    }
}

/// Is its node there, and is it known what runs on it?
fn told(desk: &Desk<'_>, claim: &Claim) -> bool {
    desk.record(&claim.node).is_some_and(|record| !record.lost() && record.settled())
}

/// A copy that was replaced while its node was lost is one too many when that node is back.
fn surplus(desk: &mut Desk<'_>, slot: &SlotId, record: &SlotRecord) {
    let mut standing: Vec<&Claim> =
        record.claims.iter().filter(|claim| claim.stop.is_none() && told(desk, claim)).collect();
    let stays = |node| desk.record(node).is_some_and(|record| !record.cordoned);
    standing.sort_by_key(|claim| (desk.well(slot, claim), stays(&claim.node), claim.version, claim.token));
    let Some(keep) = standing.pop() else { return };
    for claim in standing {
        stop(desk, slot, claim, format!("{slot} runs on {} too", keep.node));
    }
}

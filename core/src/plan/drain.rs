//! Drains: begins one move after the other, the important ones first, within the limits; names what blocks
//! it; done when no claim is left on the node.

use std::cmp::Reverse;

use super::desk::Desk;
use super::placement::{Wish, place};
use crate::command::{Command, OperationStep};
use crate::ids::{OperationId, SlotId};
use crate::state::{
    Claim, DrainRecord, MigrationRecord, Operation, OperationKind, OperationResult, Subject, WaitCause,
};

/// A slot whose moves failed this often is not tried again by the same drain.
const MOST_FAILURES: usize = 3;

/// Drives every drain.
pub(super) fn plan(desk: &mut Desk<'_>) {
    for (id, operation) in desk.running() {
        if let OperationKind::Drain(drain) = &operation.kind {
            if operation.cancelling {
                undo(desk, id);
            } else {
                drive(desk, id, operation, drain);
            }
        }
    }
}

/// The moves of a drain, newest first.
fn children<'a>(
    desk: &Desk<'a>,
    parent: OperationId,
) -> impl Iterator<Item = (OperationId, &'a Operation, &'a MigrationRecord)> + use<'a> {
    desk.state.operations.iter().rev().filter_map(move |(id, operation)| match &operation.kind {
        OperationKind::Migration(record) if record.parent == Some(parent) => Some((*id, operation, record)),
        _ => None,
    })
}

/// A cancelled drain ends with its last move; what was called off is called off already.
fn undo(desk: &mut Desk<'_>, id: OperationId) {
    let open: Vec<_> = children(desk, id).filter(|(_, child, _)| child.ended.is_none()).collect();
    for (child, _, migration) in open {
        let detail = format!("the move of {} ends or is undone first", migration.slot);
        desk.wait(Subject::Operation(id), WaitCause::Operation { operation: child, detail }, None);
    }
}

fn drive(desk: &mut Desk<'_>, id: OperationId, operation: &Operation, drain: &DrainRecord) {
    if desk.record(&drain.node).is_none() {
        return desk.advance(id, operation, OperationStep::Finish);
    }
    let mut claims: Vec<(&SlotId, &Claim)> = desk.state.claims_on(&drain.node).collect();
    // A move may still give its slot back to this node.
    if claims.is_empty() && !children(desk, id).any(|(_, child, _)| child.ended.is_none()) {
        return desk.advance(id, operation, OperationStep::Finish);
    }
    claims.sort_by_key(|(slot, _)| (Reverse(desk.service(&slot.service).map(|s| s.spec.priority)), *slot));
    let mut round = Round { in_flight: 0, exhausted: None, busy: false };
    for (_, _, record) in children(desk, id).filter(|(_, child, _)| child.ended.is_none()) {
        round.in_flight += 1;
        round.busy = true;
        let detail = format!("{}: {}", record.slot, record.phase.name());
        desk.wait(Subject::Operation(id), WaitCause::Other { detail }, None);
    }
    for (slot, claim) in claims {
        if desk.moving.contains_key(slot) || desk.ends(slot, claim) {
            round.busy = true;
            continue;
        }
        next(desk, id, drain, slot, claim, &mut round);
    }
    if let Some(because) = round.exhausted.filter(|_| !round.busy) {
        desk.advance(id, operation, OperationStep::Fail { because });
    }
}

/// What one pass over a drain's claims keeps count of.
struct Round {
    in_flight: u32,
    /// A slot that this drain gave up.
    exhausted: Option<String>,
    /// Does anything else still go on, or wait for what may come?
    busy: bool,
}

fn next(
    desk: &mut Desk<'_>,
    id: OperationId,
    drain: &DrainRecord,
    slot: &SlotId,
    claim: &Claim,
    round: &mut Round,
) {
    let node = &drain.node;
    if claim.stop.is_some() || desk.lost(node) || !desk.wanted(slot) {
        round.busy = true;
        let because = if desk.lost(node) { format!("{node} is lost") } else { "its stop".to_owned() };
        return desk.wait_both(id, slot, WaitCause::Stopping { node: node.clone(), because }, None);
    }
    let other =
        |other: &&Claim| other.token != claim.token && other.stop.is_none() && !desk.lost(&other.node);
    if let Some(other) = desk.claims(slot).iter().find(other) {
        round.busy = true;
        let detail = format!("{slot} runs on {} too: one of both stops first", other.node);
        return desk.wait_both(id, slot, WaitCause::Throttled { detail }, None);
    }
    if let Err(refusal) = desk.usable(node) {
        round.busy = true;
        let detail = format!("nothing is moved from {node} until it is heard or lost: {refusal}");
        return desk.wait_both(id, slot, WaitCause::Throttled { detail }, None);
    }
    let (failures, last) = failures(desk, id, slot);
    if failures >= MOST_FAILURES {
        round.exhausted.get_or_insert(format!("{slot} could not be moved: {last}"));
        let detail = format!("{slot} could not be moved: {last}; move it by hand: quorate migrate {slot}");
        return desk.wait_both(id, slot, WaitCause::Operator { detail }, None);
    }
    round.busy = true;
    if let Err(cause) = begin(desk, drain, slot, round) {
        return desk.wait_both(id, slot, cause, None);
    }
    round.in_flight += 1;
    desk.command(Command::Migrate { slot: slot.clone(), to: None, parent: Some(id) });
}

/// Takes the place of the move in this pass, or says what it waits for.
fn begin(desk: &mut Desk<'_>, drain: &DrainRecord, slot: &SlotId, round: &Round) -> Result<(), WaitCause> {
    let Some(service) = desk.service(&slot.service) else { return Ok(()) };
    if round.in_flight >= drain.max_in_flight.max(1) {
        let detail = format!("{} of {} moves are under way", round.in_flight, drain.max_in_flight.max(1));
        return Err(WaitCause::Throttled { detail });
    }
    let sibling = desk.moving.keys().find(|other| other.service == slot.service);
    if let Some(other) = sibling {
        let detail = format!("{other} moves first: one copy of a service at a time");
        return Err(WaitCause::Throttled { detail });
    }
    desk.may_disturb(slot).map_err(|detail| WaitCause::Throttled { detail })?;
    let wish = Wish { leave: Some(&drain.node), ..Wish::anywhere(slot, &service.spec) };
    let choice = place(desk, &wish).map_err(|refusals| WaitCause::NoNodeFits { refusals })?;
    // Counted until the migration itself chooses, in the next pass.
    desk.room.take(slot, &choice.node, &service.spec);
    desk.moving.insert(slot.clone(), OperationId(u64::MAX));
    Ok(())
}

/// How often the drain's moves of a slot failed, and why the last one did.
fn failures(desk: &Desk<'_>, id: OperationId, slot: &SlotId) -> (usize, String) {
    let failed =
        children(desk, id).filter(|(_, _, record)| record.slot == *slot).filter_map(|(_, child, _)| {
            match &child.ended.as_ref()?.result {
                OperationResult::Failed(why) | OperationResult::RolledBack(why) => Some(why.clone()),
                OperationResult::Done | OperationResult::Cancelled | OperationResult::Released(_) => None,
            }
        });
    let failed: Vec<String> = failed.collect();
    (failed.len(), failed.first().cloned().unwrap_or_default())
}

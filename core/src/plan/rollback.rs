//! The way back of a migration whose source has stopped: end the target's claim, copy back what it wrote,
//! and give the source a new grant; never the old token. What cannot be copied back is named.

use super::desk::Desk;
use super::migration::{Move, copy, failing, transfer};
use super::placement::{Wish, place};
use crate::command::{Command, OperationStep};
use crate::ids::NodeId;
use crate::observation::{InstancePhase, TransferOutcome};
use crate::state::{Claim, PASS_BACK, Refusal, WaitCause};

/// Takes a roll-back as far as it goes now.
pub(super) fn drive(desk: &mut Desk<'_>, it: &Move<'_>) {
    let source = &it.record.source;
    if let Some(claim) = it.own_claim(source) {
        return returned(desk, it, claim);
    }
    if desk.lost(source) {
        return it.fail(desk, format!("{source} is lost too: failover decides where it goes"));
    }
    if it.source_claim().is_some() {
        let because = "it stops before it starts again".to_owned();
        return it.wait(desk, WaitCause::Stopping { node: source.clone(), because });
    }
    let target = it.record.target.as_ref();
    if let Some((node, claim)) = target.and_then(|node| Some((node, it.own_claim(node)?)))
        && (it.service.exclusive || !desk.lost(node))
    {
        return end(desk, it, node, claim);
    }
    if let Some(other) = it.elsewhere(desk) {
        return it.fail(desk, format!("{} runs on {other} already", it.slot()));
    }
    if let Some(refusal) = barred(desk, it) {
        if !matches!(refusal, Refusal::NotAlive(_)) {
            return it.fail(desk, format!("{source} cannot take it back: {refusal}; failover decides"));
        }
        return it
            .wait(desk, WaitCause::Other { detail: format!("{source} cannot take it back yet: {refusal}") });
    }
    let loss = match target.filter(|_| ran_at_target(desk, it)) {
        Some(node) => match copied_back(desk, it, node) {
            Ok(loss) => loss,
            Err(()) => return copy(desk, it, source, PASS_BACK, |_, _| {}),
        },
        None => None,
    };
    let why = it.record.rollback.as_deref().unwrap_or("rolled back");
    let because = match loss {
        Some(loss) => format!("migration {} is undone ({why}); {loss}", it.id),
        None => format!("migration {} is undone ({why})", it.id),
    };
    it.grant(desk, source, because);
}

/// The target's claim has to end first, by its acknowledgement or other evidence.
fn end(desk: &mut Desk<'_>, it: &Move<'_>, node: &NodeId, claim: &Claim) {
    let because = format!("migration {} is undone", it.id);
    if claim.stop.is_none() && !desk.ends(it.slot(), claim) && desk.decide(it.slot()) {
        desk.command(Command::StopClaim {
            slot: it.slot().clone(),
            token: claim.token,
            because: because.clone(),
            operation: Some(it.id),
        });
    }
    it.wait(desk, WaitCause::Stopping { node: node.clone(), because });
}

/// Why the source cannot take its slot back at this moment.
fn barred(desk: &Desk<'_>, it: &Move<'_>) -> Option<Refusal> {
    let source = &it.record.source;
    let wish = Wish {
        only: Some(source),
        room_kept: true,
        returning: true,
        ..Wish::anywhere(it.slot(), &it.service.spec)
    };
    let refusals = place(desk, &wish).err()?;
    refusals.into_iter().find(|(node, _)| node == source).map(|(_, refusal)| refusal)
}

/// Only what ran at the target can have written there.
fn ran_at_target(desk: &Desk<'_>, it: &Move<'_>) -> bool {
    let ended = desk.state.slots.get(it.slot()).and_then(|slot| slot.last_ended.as_ref());
    it.has_state()
        && it.record.passes + 1 >= PASS_BACK
        && ended.is_some_and(|end| {
            Some(end.token) == it.record.granted && Some(&end.node) == it.record.target.as_ref()
        })
}

/// Is the target's state back at the source (`Ok`, with what is lost if it could not be), or still coming?
fn copied_back(desk: &Desk<'_>, it: &Move<'_>, target: &NodeId) -> Result<Option<String>, ()> {
    if it.record.passes >= PASS_BACK {
        return Ok(None);
    }
    let lost = format!("what it wrote on {target} stays there");
    if desk.lost(target) {
        return Ok(Some(lost));
    }
    match transfer(desk, it, &it.record.source, PASS_BACK).and_then(|transfer| transfer.outcome.as_ref()) {
        Some(TransferOutcome::Failed(why)) => Ok(Some(format!("{lost}: {why}"))),
        Some(TransferOutcome::Complete { .. }) | None => Err(()),
    }
}

/// Given back; done when it runs there, or visibly cannot.
fn returned(desk: &mut Desk<'_>, it: &Move<'_>, claim: &Claim) {
    let source = &it.record.source;
    let instance = desk.instance(it.slot(), claim);
    let settled = instance.is_some_and(|instance| {
        instance.phase == InstancePhase::Running
            || failing(instance, it.service.spec_of(claim.version)).is_some()
    });
    if settled || desk.lost(source) || claim.stop.is_some() {
        return it.step(desk, OperationStep::Finish);
    }
    it.wait(desk, WaitCause::Starting { node: source.clone() });
}

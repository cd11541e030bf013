//! What ends a claim: the five kinds of evidence, each looked for in what was observed, and the list that
//! shows where each stands. Where one holds, the claim is ended; silence alone never ends one.

use super::desk::Desk;
use crate::command::Command;
use crate::ids::SlotId;
use crate::observation::{Observed, SlotReport, Verdicts};
use crate::state::{Claim, Evidence, EvidenceItem, NodeRecord, State};
use crate::units::Millis;

/// Ends every claim that something proves over.
pub(super) fn plan(desk: &mut Desk<'_>) {
    for (slot, record) in desk.state.slots.iter() {
        for claim in &record.claims {
            if let Some(evidence) = proof(desk, slot, claim) {
                // The end of an old claim takes nothing from a slot that runs well under another.
                let elsewhere =
                    record.claims.iter().any(|other| other.token != claim.token && desk.well(slot, other));
                if !elsewhere {
                    desk.disturbed.insert(slot.clone());
                }
                desk.ending.insert((slot.clone(), claim.token));
                desk.command(Command::EndClaim { slot: slot.clone(), token: claim.token, evidence });
            }
        }
    }
}

fn proof(desk: &Desk<'_>, slot: &SlotId, claim: &Claim) -> Option<Evidence> {
    let record = desk.record(&claim.node)?;
    acknowledged(desk, slot, claim)
        .or_else(|| rebooted(desk, slot, claim, record))
        .or_else(|| attested_or_fenced(desk, claim, record))
        .or_else(|| silent(desk, claim, record).and_then(Result::ok))
}

/// What the claim's node says of the slot, in the boot of the claim.
fn reported<'a>(desk: &Desk<'a>, slot: &SlotId, claim: &Claim) -> Option<&'a SlotReport> {
    let heard = desk.heard(&claim.node).filter(|heard| heard.report.boot == claim.boot)?;
    heard.report.slots.get(slot)
}

fn acknowledged(desk: &Desk<'_>, slot: &SlotId, claim: &Claim) -> Option<Evidence> {
    let stop = claim.stop.as_ref()?;
    let report = reported(desk, slot, claim)?;
    let runs = report.instance.as_ref().is_some_and(|instance| instance.phase.may_run());
    (report.highest >= stop.token && !runs).then_some(Evidence::StopAcknowledged { stop: report.highest })
}

fn rebooted(desk: &Desk<'_>, slot: &SlotId, claim: &Claim, record: &NodeRecord) -> Option<Evidence> {
    if record.boot == claim.boot || record.machine != claim.machine {
        return None;
    }
    let heard = desk.heard(&claim.node).filter(|heard| heard.report.boot == record.boot)?;
    let instance = heard.report.slots.get(slot).and_then(|known| known.instance.as_ref());
    let runs = instance.is_some_and(|i| i.id.token == claim.token && i.phase.may_run());
    (!runs).then(|| Evidence::Rebooted { boot: record.boot.clone() })
}

fn attested_or_fenced(desk: &Desk<'_>, claim: &Claim, record: &NodeRecord) -> Option<Evidence> {
    let proof = record.proof().filter(|proof| proof.revision() > claim.since)?;
    (!belied(desk, claim)).then(|| proof.as_evidence())
}

/// A node that speaks in the boot of the claim is neither dead nor off, whatever was read or said.
fn belied(desk: &Desk<'_>, claim: &Claim) -> bool {
    desk.fresh(&claim.node) && desk.heard(&claim.node).is_some_and(|heard| heard.report.boot == claim.boot)
}

/// Silence, where it counts at all: the evidence, or how long until it is one.
fn silent(desk: &Desk<'_>, claim: &Claim, record: &NodeRecord) -> Option<Result<Evidence, Millis>> {
    if !record.lost() || silence_useless(desk.state, claim, record).is_some() {
        return None;
    }
    // Without a known beginning of its own leadership, nobody knows how long it has listened.
    desk.observed.raft.leading_since?;
    let waited = desk.silence(&claim.node);
    let wait = silence_wait(desk.state, claim, record);
    Some(if waited >= wait {
        Ok(Evidence::Silence { lease_epoch: record.lease_epoch, waited })
    } else {
        Err(wait - waited)
    })
}

/// By the stricter of the terms in force and those the node may still hold.
fn silence_wait(state: &State, claim: &Claim, record: &NodeRecord) -> Millis {
    let in_force = state.cluster.settings.terms.silence_wait(claim.grace);
    in_force.max(record.held.silence_wait(claim.grace))
}

/// Why silence proves nothing for this claim, if it does not.
fn silence_useless(state: &State, claim: &Claim, record: &NodeRecord) -> Option<String> {
    let because = if !record.settled() {
        "since the recovery only its own word, a fence or an attestation counts"
    } else if claim.critical {
        "critical: it keeps running without a lease"
    } else if !state.cluster.settings.autonomous_shutdown {
        "split_brain.autonomous_shutdown is off: nodes do not stop by themselves"
    } else if !record.facts.silence_counts {
        "evidence.silence is off for this node"
    } else if !record.facts.armed {
        let why = record.facts.unarmed.as_ref().map(|it| format!(": {}", it.why)).unwrap_or_default();
        return Some(format!("its deadlines are not held by two holders{why}"));
    } else {
        return None;
    };
    Some(because.to_owned())
}

/// The five kinds of evidence against a claim, in their order, ticked or not.
pub fn checklist(state: &State, observed: &Observed, slot: &SlotId, claim: &Claim) -> Vec<EvidenceItem> {
    let verdicts = Verdicts::default();
    items(&Desk::new(state, observed, &verdicts), slot, claim)
}

pub(super) fn items(desk: &Desk<'_>, slot: &SlotId, claim: &Claim) -> Vec<EvidenceItem> {
    let Some(record) = desk.record(&claim.node) else { return Vec::new() };
    vec![
        stop_item(desk, slot, claim),
        fenced_item(desk, claim, record),
        reboot_item(desk, slot, claim, record),
        silence_item(desk, claim, record),
        attest_item(desk, claim, record),
    ]
}

fn item(kind: &str, holds: bool, detail: String) -> EvidenceItem {
    EvidenceItem { kind: kind.to_owned(), holds, detail, left: None }
}

fn stop_item(desk: &Desk<'_>, slot: &SlotId, claim: &Claim) -> EvidenceItem {
    let node = &claim.node;
    let holds = acknowledged(desk, slot, claim).is_some();
    let detail = match (&claim.stop, holds) {
        (_, true) => format!("{node} acknowledged the stop"),
        (Some(stop), false) if desk.fresh(node) => format!("{node} was told to stop ({})", stop.because),
        (Some(_), false) => format!("{node} was told to stop, but is not heard"),
        (None, false) => format!("{node} was not told to stop"),
    };
    item("stop_acknowledged", holds, detail)
}

fn fenced_item(desk: &Desk<'_>, claim: &Claim, record: &NodeRecord) -> EvidenceItem {
    let node = &claim.node;
    let proof = attested_or_fenced(desk, claim, record);
    let holds = matches!(proof, Some(Evidence::Fenced { .. }));
    let belied = record.proof().is_some() && belied(desk, claim);
    let detail = match desk.fence_of(node) {
        _ if holds => format!("{node} was read back as off"),
        _ if belied => format!("{node} is heard, so it is not off"),
        Some((operation, fence)) => {
            format!("operation {operation}: {}", super::fencing::describe(desk, fence))
        }
        None if record.facts.fencing.is_empty() => format!("{node} has no fence method"),
        None if desk.failed_fence(node).is_some() => {
            format!("every fence method of {node} failed: quorate fence {node} tries again")
        }
        None if !desk.state.cluster.settings.fencing_auto => {
            format!("fencing.auto is off: quorate fence {node}")
        }
        None => format!("{node} can be fenced: quorate fence {node}"),
    };
    item("fenced", holds, detail)
}

fn reboot_item(desk: &Desk<'_>, slot: &SlotId, claim: &Claim, record: &NodeRecord) -> EvidenceItem {
    let node = &claim.node;
    let holds = rebooted(desk, slot, claim, record).is_some();
    let detail = if holds {
        format!("{node} is back in a new boot, and nothing of it runs there")
    } else {
        format!("{node} has not come back in a new boot")
    };
    item("rebooted", holds, detail)
}

fn silence_item(desk: &Desk<'_>, claim: &Claim, record: &NodeRecord) -> EvidenceItem {
    let node = &claim.node;
    let wait = silence_wait(desk.state, claim, record);
    let (holds, left, detail) =
        match (silent(desk, claim, record), silence_useless(desk.state, claim, record)) {
            (Some(Ok(_)), _) => {
                (true, None, format!("{node} was silent for {wait}: its guard has killed it"))
            }
            (Some(Err(left)), _) => (false, Some(left), format!("{node} must be silent for {wait}")),
            (None, Some(why)) => (false, None, format!("does not count: {why}")),
            (None, None) if !record.lost() => (false, None, format!("{node} is not lost")),
            (None, None) => {
                (false, None, "this node does not lead, so it has not listened long enough".to_owned())
            }
        };
    EvidenceItem { left, ..item("silence", holds, detail) }
}

fn attest_item(desk: &Desk<'_>, claim: &Claim, record: &NodeRecord) -> EvidenceItem {
    let node = &claim.node;
    let holds = matches!(attested_or_fenced(desk, claim, record), Some(Evidence::Attested { .. }));
    let detail = match record.proof().filter(|_| holds) {
        Some(proof) => proof.describe(node),
        None => format!("if you know that {node} is dead: quorate attest {node} --dead --reason WHY"),
    };
    item("attested", holds, detail)
}

//! After a recovery: takes in what each node tells that it runs, and says whom everything exclusive waits for.
//! Lets nobody back in itself.

use super::desk::Desk;
use crate::command::{Command, Found};
use crate::ids::{NodeId, Revision, SlotId, Token};
use crate::observation::NodeReport;
use crate::state::{
    Inventory, JOIN_ANEW, NodeRecord, RecoveryRecord, State, Subject, WaitCause, left_behind,
};

/// The claims of this node are made anew from what it tells, before it is let in. Is that still to come?
pub(super) fn take_inventory(
    desk: &mut Desk<'_>,
    node: &NodeId,
    record: &NodeRecord,
    report: &NodeReport,
) -> bool {
    let Some(recovery) = desk.state.recovering() else { return false };
    if record.inventory != Inventory::Unheard {
        return false;
    }
    if !report.guard.answering {
        let detail = format!("{node} is heard, but its guard does not tell what runs there");
        desk.wait(Subject::Node(node.clone()), WaitCause::Other { detail }, None);
        return true;
    }
    desk.command(inventory(desk.state, recovery.begun, node, report));
    true
}

fn inventory(state: &State, recovery: Revision, node: &NodeId, report: &NodeReport) -> Command {
    let claimed = |slot: &SlotId| {
        let claims = state.slots.get(slot).into_iter().flat_map(|record| &record.claims);
        claims.into_iter().any(|claim| claim.node == *node)
    };
    let found = report.slots.iter().filter_map(|(slot, known)| {
        let instance = known.instance.as_ref().filter(|instance| instance.phase.may_run());
        let runs = instance.map(|instance| (instance.id.token, instance.spec));
        (runs.is_some() || claimed(slot)).then(|| Found { slot: slot.clone(), highest: known.highest, runs })
    });
    Command::TakeInventory {
        node: node.clone(),
        boot: report.boot.clone(),
        recovery,
        highest: report.slots.values().map(|slot| slot.highest).max().unwrap_or_else(Token::default),
        found: found.collect(),
    }
}

/// What an exclusive slot waits for while some node was not heard since the recovery.
pub(super) fn held_back(desk: &Desk<'_>) -> Option<WaitCause> {
    let recovery = desk.state.recovering()?;
    let unheard: Vec<(NodeId, String)> =
        desk.state.unsettled().map(|(node, record)| (node.clone(), lacks(desk, node, record))).collect();
    (!unheard.is_empty()).then(|| WaitCause::Recovery { detail: describe(recovery), unheard })
}

/// Why a node is no member any more, and what to do, if the cluster went on without it. Whatever it may say.
pub(super) fn outside(desk: &Desk<'_>, node: &NodeId, record: &NodeRecord) -> Option<String> {
    let state = desk.state;
    let why = || format!("{}: {JOIN_ANEW}", left_behind(node, record.era, state.era()));
    state.left_behind(record).then(why)
}

/// A recovery in words.
pub(super) fn describe(recovery: &RecoveryRecord) -> String {
    format!(
        "the cluster was {} at revision {} and goes on in epoch {}",
        recovery.what(),
        recovery.kept,
        recovery.epoch
    )
}

fn lacks(desk: &Desk<'_>, node: &NodeId, record: &NodeRecord) -> String {
    match record.inventory {
        Inventory::Unheard if desk.state.left_behind(record) => {
            "has to join anew, be fenced or attested dead".to_owned()
        }
        Inventory::Unheard if desk.fresh(node) => "heard, its inventory is taken next".to_owned(),
        Inventory::Unheard => "not heard since".to_owned(),
        Inventory::Taken => "heard, and let back in once it stopped what is not its own".to_owned(),
        Inventory::Settled => "settled".to_owned(),
    }
}

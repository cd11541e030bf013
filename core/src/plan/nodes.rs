//! Nodes that come and go: lost by verdict, let back in with their inventory, drained and forgotten when
//! they leave. Whether anyone may say that a node is dead is answered here too.

use super::desk::Desk;
use super::recovery;
use crate::command::Command;
use crate::ids::{NodeId, SlotId, Token};
use crate::observation::{NodeReport, NodeVerdict, Observed};
use crate::state::{NodeRecord, OperationKind, Rejection, State, Subject, WaitCause};

/// Moves at a time when a node leaves.
const LEAVING_IN_FLIGHT: u32 = 2;

/// Losses, rejoins and departures.
pub(super) fn plan(desk: &mut Desk<'_>) {
    for (node, record) in desk.state.nodes.iter() {
        let going = !record.lost() && (condemned(desk, node, record) || lost(desk, node, record));
        if !going {
            rejoin(desk, node, record);
        }
        if record.leaving {
            leave(desk, node, record);
        }
    }
}

fn lost(desk: &mut Desk<'_>, node: &NodeId, record: &NodeRecord) -> bool {
    match desk.verdicts.nodes.get(node) {
        Some(NodeVerdict::Lost { because }) => {
            let command = Command::MarkLost {
                node: node.clone(),
                lease_epoch: record.lease_epoch,
                because: because.clone(),
            };
            desk.command(command);
            true
        }
        Some(NodeVerdict::Suspect { because, lost_in }) => {
            let cause = WaitCause::Suspect { node: node.clone(), because: because.clone() };
            desk.wait(Subject::Node(node.clone()), cause, Some(*lost_in));
            false
        }
        Some(NodeVerdict::Alive) | None => false,
    }
}

/// A node that is to be fenced on an operator's word is committed lost first, so that no lease is answered.
fn condemned(desk: &mut Desk<'_>, node: &NodeId, record: &NodeRecord) -> bool {
    let Some(operation) = desk.condemned(node).filter(|_| *node != desk.observed.me) else { return false };
    let because = vec![format!("it is to be fenced by operation {operation}")];
    desk.command(Command::MarkLost { node: node.clone(), lease_epoch: record.lease_epoch, because });
    true
}

/// Lets a node back in once it has caught up and runs nothing that it should not.
fn rejoin(desk: &mut Desk<'_>, node: &NodeId, record: &NodeRecord) {
    if let Some(detail) = recovery::outside(desk, node, record) {
        desk.wait(Subject::Node(node.clone()), WaitCause::Operator { detail }, None);
        return;
    }
    let Some(heard) = desk.heard(node).filter(|_| desk.fresh(node)) else { return };
    let report = &heard.report;
    if !(record.lost() || report.wants_rejoin || report.boot != record.boot || !record.settled()) {
        return;
    }
    if let Some(why) = unready(desk, node, record, report) {
        desk.wait(Subject::Node(node.clone()), WaitCause::Other { detail: why }, None);
        return;
    }
    if recovery::take_inventory(desk, node, record, report) {
        return;
    }
    if let Some(why) = unstopped(desk, node, report) {
        desk.wait(Subject::Node(node.clone()), WaitCause::Other { detail: why }, None);
        return;
    }
    desk.returning.insert(node.clone());
    desk.command(Command::Rejoin {
        node: node.clone(),
        boot: report.boot.clone(),
        lease_epoch: record.lease_epoch,
        holds: held(report).map(|(slot, token)| (slot.clone(), token)).collect(),
    });
}

fn unready(desk: &Desk<'_>, node: &NodeId, record: &NodeRecord, report: &NodeReport) -> Option<String> {
    if let Some(operation) = desk.condemned(node) {
        return Some(format!(
            "{node} is heard, but is not let back in while operation {operation} fences it"
        ));
    }
    if let Some((operation, by)) = desk.striking(node) {
        return Some(format!(
            "{node} is heard again, but {by} fences it at this moment: what comes of operation {operation} \
             is known first"
        ));
    }
    if report.revision < record.changed {
        return Some(format!(
            "{node} is heard again and catches up first: it has applied revision {} of {}",
            report.revision, record.changed
        ));
    }
    None
}

/// What the node runs without a claim that still stands, and so has to stop first.
fn unstopped(desk: &Desk<'_>, node: &NodeId, report: &NodeReport) -> Option<String> {
    let stale = held(report).find(|(slot, token)| {
        let current = |claim: &&crate::state::Claim| {
            claim.node == *node && claim.token == *token && claim.stop.is_none() && claim.boot == report.boot
        };
        desk.claims(slot).iter().find(current).is_none()
    });
    stale.map(|(slot, token)| {
        format!("{node} is heard again and first stops {slot}@{token}, which is not its any more")
    })
}

/// Slots of which something may run there.
fn held(report: &NodeReport) -> impl Iterator<Item = (&SlotId, Token)> {
    report.slots.iter().filter_map(|(slot, known)| {
        let instance = known.instance.as_ref().filter(|instance| instance.phase.may_run())?;
        Some((slot, instance.id.token))
    })
}

fn leave(desk: &mut Desk<'_>, node: &NodeId, record: &NodeRecord) {
    let claims = desk.state.claims_on(node).count();
    let subject = Subject::Node(node.clone());
    if claims == 0 && desk.awaits(node) {
        let detail = format!("{node} leaves once the moves that concern it have ended");
        return desk.wait(subject, WaitCause::Other { detail }, None);
    }
    if claims == 0 {
        let members = &desk.observed.raft;
        let member = members.voters.contains(&record.raft_id) || members.learners.contains(&record.raft_id);
        if member {
            let detail = format!("{node} holds nothing any more and is taken out of the quorum next");
            desk.wait(subject, WaitCause::Other { detail }, None);
        } else if !record.settled() {
            let detail = format!("{node} leaves once it is known what runs there: the cluster was recovered");
            desk.wait(subject, WaitCause::Other { detail }, None);
        } else {
            desk.command(Command::RemoveNode { node: node.clone() });
        }
        return;
    }
    let draining = desk
        .running()
        .any(|(_, operation)| matches!(&operation.kind, OperationKind::Drain(drain) if drain.node == *node));
    if !draining && !record.lost() {
        desk.command(Command::Drain { node: node.clone(), max_in_flight: LEAVING_IN_FLIGHT });
    }
    let detail = format!("{node} leaves once its {claims} claims have ended");
    desk.wait(subject, WaitCause::Other { detail }, None);
}

/// May an operator attest that this node is dead? Not while anyone hears it.
pub fn attest_check(observed: &Observed, state: &State, node: &NodeId) -> Result<(), Rejection> {
    let Some(record) = state.nodes.get(node) else {
        return Err(Rejection::NotFound { what: "node".to_owned(), name: node.to_string() });
    };
    let refused = |because: String, remedy: String| Err(Rejection::Refused { because, remedy });
    if !record.lost() {
        let remedy = "wait until it is lost, or fence it".to_owned();
        return refused(format!("node {node} is not lost"), remedy);
    }
    let since_heard = observed.nodes.get(node).map(|heard| observed.now.since(heard.received));
    let limit = state.cluster.settings.terms.lease;
    if let Some(age) = since_heard.filter(|age| *age < limit) {
        return refused(
            format!("node {node} was heard {age} ago"),
            "it is not dead: fence it instead".to_owned(),
        );
    }
    match heard_by(observed, state, node) {
        Some(from) => refused(
            format!("node {from} still hears node {node}"),
            "it is not dead: fence it, or cut it off first".to_owned(),
        ),
        None => Ok(()),
    }
}

/// A node that has heard of this one within a lease, over any way, if one has.
pub fn heard_by<'a>(observed: &'a Observed, state: &State, node: &NodeId) -> Option<&'a NodeId> {
    let limit = state.cluster.settings.terms.lease;
    observed.reach.rows.iter().find_map(|(from, known)| {
        let age = observed.now.since(known.at);
        if from == node {
            return (age < limit).then_some(&observed.me);
        }
        let recent = |at: Option<crate::units::Millis>| at.is_some_and(|at| age + at < limit);
        let mut links = known.row.links.iter().filter(|link| link.to == *node);
        links.any(|link| recent(link.last_good) || recent(link.heard)).then_some(from)
    })
}

//! Who should lead: of the voters that could, whoever reaches most nodes, and of those the heaviest; never a
//! witness while another can. Slow to change its mind, so that no link that comes and goes moves leadership to
//! and fro. Knows nothing of how it is handed over.

use std::cmp::Reverse;

use super::desk::Desk;
use crate::ids::NodeId;
use crate::reach::{KnownRow, LinkReport};
use crate::state::{MembershipStep, NodeRecord};
use crate::units::Millis;

/// Hands leadership on, if another should have it.
pub(super) fn transfer(desk: &Desk<'_>) -> Option<MembershipStep> {
    let me = &desk.observed.me;
    let own = desk.record(me)?;
    // A leader that does not even hear itself judges nobody.
    let deaf = desk.silence(me) >= desk.state.cluster.settings.terms.lease;
    let must_go = own.witness || own.leaving || deaf || desk.condemned(me).is_some();
    let heirs = desk.state.nodes.iter().filter(|(node, record)| *node != me && able(desk, node, record));
    if must_go {
        // Better a witness than nobody, or what this leader has to be done to would never be.
        let best =
            heirs.filter(|(_, record)| !(record.witness && own.witness)).max_by_key(|(node, record)| {
                (!record.witness, reached(desk, node), record.weight, Reverse((*node).clone()))
            });
        return best.map(|(_, heir)| MembershipStep::TransferTo(heir.raft_id));
    }
    if !settled(desk) {
        return None;
    }
    let mine = reached(desk, me);
    let better = heirs.filter(|(_, record)| !record.witness).filter(|(node, record)| {
        let theirs = reached(desk, node);
        // Who is not known to reach fewer leads by weight; who is known to reach more leads by that.
        let reaches_more = matches!((theirs, mine), (Some(theirs), Some(mine)) if theirs > mine);
        let reaches_fewer = matches!((theirs, mine), (Some(theirs), Some(mine)) if theirs < mine);
        steady(desk, node) && (reaches_more || record.weight > own.weight && !reaches_fewer)
    });
    let best =
        better.max_by_key(|(node, record)| (reached(desk, node), record.weight, Reverse((*node).clone())));
    best.map(|(_, heir)| MembershipStep::TransferTo(heir.raft_id))
}

/// Could it lead: a voter in good standing that has caught up and, as far as is known, reaches a majority?
fn able(desk: &Desk<'_>, node: &NodeId, record: &NodeRecord) -> bool {
    super::membership::votes(desk, record.raft_id)
        && !record.leaving
        && desk.usable(node).is_ok()
        && desk.fresh(node)
        && super::membership::caught_up(desk, record)
        && reaches_majority(desk, node)
}

/// The row of a node, if it is recent.
fn row<'a>(desk: &Desk<'a>, node: &NodeId) -> Option<&'a KnownRow> {
    let patience = desk.state.cluster.settings.terms.heartbeat.0 * 5 / 2;
    desk.observed.reach.rows.get(node).filter(|known| desk.observed.now.since(known.at).0 < patience)
}

fn reaches(known: &KnownRow, to: &NodeId) -> bool {
    known.row.links.iter().any(|link| link.ok && link.to == *to)
}

/// How many other nodes it reaches; nothing where its row is not known.
fn reached(desk: &Desk<'_>, node: &NodeId) -> Option<usize> {
    let known = row(desk, node)?;
    Some(desk.state.nodes.keys().filter(|to| reaches(known, to)).count())
}

/// What nobody knows speaks against nobody.
fn reaches_majority(desk: &Desk<'_>, node: &NodeId) -> bool {
    let Some(known) = row(desk, node) else { return true };
    let voters = &desk.observed.raft.voters;
    let of = |id| desk.state.node_of(id).map(|(voter, _)| voter);
    let within =
        voters.iter().filter_map(|id| of(*id)).filter(|voter| *voter == node || reaches(known, voter));
    within.count() * 2 > voters.len()
}

/// Has this leader led for a lease, and has nothing about whom it reaches changed within a heartbeat?
fn settled(desk: &Desk<'_>) -> bool {
    let terms = &desk.state.cluster.settings.terms;
    let since = desk.observed.raft.leading_since.map(|since| desk.observed.now.since(since));
    let turned = row(desk, &desk.observed.me).is_some_and(|known| lately(desk, known, terms.heartbeat));
    since.is_some_and(|led| led >= terms.lease) && !turned
}

/// Has this node been in good standing for a lease, and did no link of it change within that time?
fn steady(desk: &Desk<'_>, node: &NodeId) -> bool {
    let lease = desk.state.cluster.settings.terms.lease;
    let known = desk.observed.known_since.get(node).map(|since| desk.observed.now.since(*since));
    known.is_none_or(|known| known >= lease)
        && !row(desk, node).is_some_and(|known| mended_lately(desk, known, lease))
}

/// Did any link of the row break or mend within this time?
fn lately(desk: &Desk<'_>, known: &KnownRow, within: Millis) -> bool {
    changed(desk, known, within).next().is_some()
}

/// Did any link of the row mend within this time? One that broke is counted by what it does not reach.
fn mended_lately(desk: &Desk<'_>, known: &KnownRow, within: Millis) -> bool {
    changed(desk, known, within).any(|link| link.ok)
}

fn changed<'a>(
    desk: &Desk<'_>,
    known: &'a KnownRow,
    within: Millis,
) -> impl Iterator<Item = &'a LinkReport> + use<'a> {
    let age = desk.observed.now.since(known.at);
    known.row.links.iter().filter(move |link| link.changes.first().is_some_and(|at| *at + age < within))
}

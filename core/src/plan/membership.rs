//! Who should vote, and who should be forgotten by Raft: one step at a time, each safe by
//! itself. A voter that is merely lost keeps its vote until another node can take it over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::desk::Desk;
use super::leadership;
use crate::ids::{NodeId, RaftId};
use crate::state::{MembershipStep, NodeRecord};

/// More voters cost writes and save nothing.
const MOST_VOTERS: usize = 5;
/// A learner that lacks more entries than this does not vote yet, and nobody who does is to lead.
const CAUGHT_UP: u64 = 100;

/// The next step of membership, if one is due.
pub(super) fn plan(desk: &mut Desk<'_>) {
    let raft = &desk.observed.raft;
    if !raft.leading || raft.voters.is_empty() {
        return;
    }
    desk.plan.membership = leadership::transfer(desk)
        .or_else(|| learner(desk))
        .or_else(|| voters(desk))
        .or_else(|| forget(desk));
}

pub(super) fn votes(desk: &Desk<'_>, id: RaftId) -> bool {
    desk.observed.raft.voters.contains(&id)
}

fn member(desk: &Desk<'_>, id: RaftId) -> bool {
    votes(desk, id) || desk.observed.raft.learners.contains(&id)
}

/// Has it left: nothing runs there any more, and no move could still bring something? While it is not known what runs
/// there since a recovery it stays: only a member catches up, and so can ever tell.
fn departed(desk: &Desk<'_>, node: &NodeId, record: &NodeRecord) -> bool {
    record.leaving && record.settled() && desk.state.claims_on(node).next().is_none() && !desk.awaits(node)
}

/// Every admitted node gets the log. One that was lost before it did could never come back without it, nor one that
/// leaves tell what runs there. One that a recovery went on without gets none: its old data would be taken for a
/// member's.
fn learner(desk: &Desk<'_>) -> Option<MembershipStep> {
    let outside = |record: &&NodeRecord| {
        let stays = !(record.leaving && record.settled());
        let wanted = stays && record.proof().is_none() && !desk.state.left_behind(record);
        wanted && !member(desk, record.raft_id)
    };
    let record = desk.state.nodes.values().filter(outside).min_by_key(|record| record.lost())?;
    Some(MembershipStep::AddLearner(record.raft_id))
}

pub(super) fn caught_up(desk: &Desk<'_>, record: &NodeRecord) -> bool {
    desk.observed.raft.lag.get(&record.raft_id).is_some_and(|lag| *lag <= CAUGHT_UP)
}

/// Why one node votes rather than another: the first field that differs decides, greater wins.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Vote {
    /// A voter in good standing, before a learner in good standing, before a voter that is lost.
    standing: u8,
    /// Fewest voters in its zone.
    in_zone: Reverse<u32>,
    /// A witness is there to vote.
    witness: bool,
    /// The leader stays.
    leads: bool,
    weight: u32,
    id: Reverse<NodeId>,
}

fn standing(desk: &Desk<'_>, node: &NodeId, record: &NodeRecord) -> Option<u8> {
    if desk.state.left_behind(record) {
        return None;
    }
    match (votes(desk, record.raft_id), record.lost()) {
        (true, false) => Some(3),
        (true, true) => Some(1),
        (false, false) => {
            let ready = member(desk, record.raft_id) && desk.sound(node) && desk.fresh(node);
            (ready && caught_up(desk, record)).then_some(2)
        }
        (false, true) => None,
    }
}

fn voters(desk: &Desk<'_>) -> Option<MembershipStep> {
    let staying: Vec<(&NodeId, &NodeRecord)> =
        desk.state.nodes.iter().filter(|(node, record)| !departed(desk, node, record)).collect();
    let seats = odd(staying.len().min(MOST_VOTERS));
    let mut chosen = choose(desk, &staying, seats);
    chosen.truncate(odd(chosen.len()));
    let now: BTreeSet<RaftId> = desk.observed.raft.voters.iter().copied().collect();
    let then: BTreeSet<RaftId> = chosen.iter().map(|(_, record)| record.raft_id).collect();
    let grows_or_stays = then.len() >= now.len();
    let all_gone = now.difference(&then).all(|id| {
        desk.state.node_of(*id).is_none_or(|(node, record)| departed(desk, node, record) || record.lost())
    });
    if then.is_empty() || then == now || !(grows_or_stays || all_gone || now.len() > seats) {
        return None;
    }
    let safe = majority_heard(desk, &now) && majority_heard(desk, &then);
    safe.then(|| MembershipStep::SetVoters(then.into_iter().collect()))
}

fn choose<'a>(
    desk: &Desk<'_>,
    staying: &[(&'a NodeId, &'a NodeRecord)],
    seats: usize,
) -> Vec<(&'a NodeId, &'a NodeRecord)> {
    let mut left: Vec<(u8, &NodeId, &NodeRecord)> = staying
        .iter()
        .filter_map(|(node, record)| Some((standing(desk, node, record)?, *node, *record)))
        .collect();
    let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
    let mut chosen = Vec::new();
    while chosen.len() < seats {
        let best = left.iter().enumerate().max_by_key(|(_, (standing, node, record))| {
            let zone = record.facts.labels.get("zone").map(String::as_str);
            Vote {
                standing: *standing,
                in_zone: Reverse(zone.and_then(|zone| zones.get(zone)).copied().unwrap_or_default()),
                witness: record.witness,
                leads: **node == desk.observed.me,
                weight: record.weight,
                id: Reverse((*node).clone()),
            }
        });
        let Some((at, _)) = best else { break };
        let (_, node, record) = left.remove(at);
        if let Some(zone) = record.facts.labels.get("zone") {
            *zones.entry(zone).or_default() += 1;
        }
        chosen.push((node, record));
    }
    chosen
}

/// The largest odd number not above this one.
fn odd(count: usize) -> usize {
    if count == 0 { 0 } else { (count - 1) / 2 * 2 + 1 }
}

/// Could these decide right now? Who is merely not known to be lost does not count: a new leader has not waited for
/// anybody yet, and a change that begins without a majority to end it never ends. Who leads counts, lost or not: one
/// that is to be fenced is not let back in, and as the only voter it could hand on nothing.
fn majority_heard(desk: &Desk<'_>, voters: &BTreeSet<RaftId>) -> bool {
    let heard = |node: &NodeId| (desk.sound(node) || *node == desk.observed.me) && desk.fresh(node);
    let heard = |id: &&RaftId| desk.state.node_of(**id).is_some_and(|(node, _)| heard(node));
    voters.iter().filter(heard).count() * 2 > voters.len()
}

/// Members that are no node any more, nodes that left, and those that a recovery went on without.
fn forget(desk: &Desk<'_>) -> Option<MembershipStep> {
    let raft = &desk.observed.raft;
    let gone = |id: &&RaftId| {
        desk.state
            .node_of(**id)
            .is_none_or(|(node, record)| departed(desk, node, record) || desk.state.left_behind(record))
    };
    let id = raft.learners.iter().find(|id| !raft.voters.contains(id) && gone(id));
    id.map(|id| MembershipStep::Remove(*id))
}

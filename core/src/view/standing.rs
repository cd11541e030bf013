//! Where the viewer stands: which voters it hears, whether its side decides, who leads, how old the
//! leader's word is.

use super::model::Standing;
use super::sight::Sight;
use super::words::count;
use crate::ids::{NodeId, RaftId};
use crate::units::Millis;

pub(super) fn standing(sight: &Sight<'_>) -> Standing {
    let raft = &sight.look.observed.raft;
    let voters = raft.voters.len() as u32;
    let heard = raft.voters.iter().filter(|voter| hears(sight, **voter)).count() as u32;
    let needed = voters / 2 + 1;
    let quorum = decides(sight) && voters > 0;
    let leader = if raft.leading { Some(sight.me().clone()) } else { raft.leader.clone() };
    let ack = if raft.leading { raft.quorum_ack_age } else { None };
    let lease_left = sight.look.lease.map_or(Millis(0), |lease| lease.left(sight.look.observed.now));
    let data_age = if raft.leading { ack.unwrap_or_default() } else { sight.look.waiting_age };
    let mut standing = Standing {
        quorum,
        voters_heard: heard,
        voters,
        voters_needed: needed,
        voters_spare: if quorum { heard.saturating_sub(needed) } else { 0 },
        accepting_proposals: quorum && leader.is_some(),
        leader,
        quorum_ack_age_ms: ack.map(|age| age.0),
        term: raft.term,
        lease_left_ms: lease_left.0,
        data_age_ms: data_age.0,
        sentence: String::new(),
    };
    standing.sentence = sentence(sight.me(), &standing, raft.leading);
    standing
}

fn hears(sight: &Sight<'_>, voter: RaftId) -> bool {
    let known = sight.state.node_of(voter);
    known.is_some_and(|(node, record)| node == sight.me() || (!record.lost() && sight.reaches(node)))
}

/// A leader decides while a quorum acknowledges it. Whoever follows it knows that by its word, which must be
/// fresh: a leader cut off with some of its followers goes on talking to them.
pub(super) fn decides(sight: &Sight<'_>) -> bool {
    let (raft, settings) = (&sight.look.observed.raft, &sight.state.cluster.settings);
    // As long as Raft itself waits; its followers hear of it with every heartbeat.
    let patience = Millis(settings.raft.election_max.0 * 3);
    let patience =
        if raft.leading { patience } else { patience + settings.terms.heartbeat + settings.terms.heartbeat };
    let alone = raft.voters.len() == 1;
    let acknowledged = alone || raft.quorum_ack_age.is_some_and(|age| age <= patience);
    let heard = raft.leading || (raft.leader.is_some() && sight.look.waiting_age <= sight.lease_span());
    acknowledged && heard
}

fn sentence(me: &NodeId, standing: &Standing, leading: bool) -> String {
    let Standing { voters_heard: heard, voters, voters_needed: needed, voters_spare: spare, .. } = standing;
    if *voters == 0 {
        return format!("{me} belongs to no cluster yet");
    }
    let heard = format!("{heard} of {} heard", count(*voters as usize, "voter", "voters"));
    if !standing.quorum {
        let role = if leading {
            format!("; {me} leads, but nobody follows: it accepts nothing")
        } else {
            String::new()
        };
        return format!("{heard}, NO QUORUM ({needed} needed){role}");
    }
    let age = |ms: u64| Millis(ms).human();
    let leader = match (&standing.leader, standing.quorum_ack_age_ms) {
        (Some(leader), Some(ack)) => format!("; {leader} leads (quorum acknowledged {} ago)", age(ack)),
        (Some(leader), None) => format!("; {leader} leads (heard {} ago)", age(standing.data_age_ms)),
        (None, _) => "; no leader is known".to_owned(),
    };
    format!("{heard}, quorum, {spare} to spare{leader}")
}

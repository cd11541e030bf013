//! Two clocks against each node: how long it was not heard, and how long no answer reached it. Both count
//! on the observer's own clock only, from the moment it could have known better at the earliest.

use super::{accusers, words};
use crate::ids::NodeId;
use crate::observation::{NodeVerdict, Observed};
use crate::state::State;
use crate::units::{BootMs, Millis};

/// A node that missed this many heartbeats is suspect.
const MISSED_HEARTBEATS: u64 = 2;

/// The silence from which a node is suspect: the missed heartbeats, half of one for its way, and as much more as
/// the observer itself was late of late.
pub(super) fn patience(observed: &Observed, state: &State) -> Millis {
    let heartbeat = state.cluster.settings.terms.heartbeat.0;
    Millis(heartbeat * MISSED_HEARTBEATS + heartbeat / 2) + observed.reach.stall
}

/// The silence from which a node is lost: a lease, and what a slow observer owes it.
fn limit(observed: &Observed, state: &State) -> Millis {
    state.cluster.settings.terms.lease + observed.reach.stall
}

/// The verdict on a node that is not committed lost.
pub(super) fn judge(observed: &Observed, state: &State, node: &NodeId, doubt: Option<&str>) -> NodeVerdict {
    let terms = &state.cluster.settings.terms;
    let (patience, limit) = (patience(observed, state), limit(observed, state));
    let (unheard, unanswered) = ages(observed, node);
    let worst = unheard.max(unanswered);
    if worst < patience {
        return NodeVerdict::Alive;
    }
    let mut because = reasons(observed, node, (patience, limit), unheard, unanswered);
    because.extend(accusers::words(observed, node, patience));
    if observed.reach.stall > terms.heartbeat {
        let me = &observed.me;
        because.push(format!(
            "{me} itself ran {} late and waits so much longer",
            words::since(observed.reach.stall)
        ));
    }
    if let Some(doubt) = doubt {
        because.push(doubt.to_owned());
        // Judged again when the observer has come round; until then nobody is accused on its word.
        return NodeVerdict::Suspect { because, lost_in: (limit - worst).max(terms.heartbeat) };
    }
    if worst < limit {
        return NodeVerdict::Suspect { because, lost_in: limit - worst };
    }
    NodeVerdict::Lost { because }
}

/// How long the node was not heard, and how long none of its reports showed a newly received answer.
fn ages(observed: &Observed, node: &NodeId) -> (Millis, Millis) {
    let floor = floor(observed, node);
    let Some(heard) = observed.nodes.get(node) else {
        let age = observed.now.since(floor);
        return (age, age);
    };
    let unheard = observed.now.since(heard.received.max(floor));
    let unanswered = observed.now.since(heard.echo_rose.max(floor));
    // Only who answers can tell whether answers arrive.
    (unheard, if observed.raft.leading { unanswered } else { Millis(0) })
}

/// Nothing before this moment counts against the node.
fn floor(observed: &Observed, node: &NodeId) -> BootMs {
    let leading = observed.raft.leading_since.unwrap_or_default();
    leading.max(observed.known_since.get(node).copied().unwrap_or_default())
}

fn reasons(
    observed: &Observed,
    node: &NodeId,
    (patience, limit): (Millis, Millis),
    unheard: Millis,
    unanswered: Millis,
) -> Vec<String> {
    let me = &observed.me;
    let mut because = Vec::new();
    if unheard >= patience {
        let never = if observed.nodes.contains_key(node) { "has not heard" } else { "has never heard" };
        because.push(format!("{me} {never} {node} for {} (lost after {limit})", words::since(unheard)));
    }
    if unanswered >= patience && unheard < patience {
        because.push(format!(
            "{me} hears {node}, but no answer of {me} reached it for {} (lost after {limit})",
            words::since(unanswered)
        ));
    }
    because
}

/// Why the observer should rather suspect itself, if it should.
pub(super) fn self_doubt(observed: &Observed, state: &State) -> Option<String> {
    let me = &observed.me;
    let patience = patience(observed, state);
    if let Some(own) = observed.nodes.get(me) {
        let age = observed.now.since(own.received);
        if age >= patience {
            return Some(format!(
                "{me} has not heard itself for {} either, so it may be {me} that was not running",
                words::since(age)
            ));
        }
    }
    let stale = observed.raft.quorum_ack_age.filter(|age| observed.raft.leading && *age >= patience);
    stale.map(|age| {
        format!("no quorum answered {me} for {}, so it may be {me} that is cut off", words::since(age))
    })
}

//! Two clocks against each node: how long it was not heard, and how long no answer reached it. Both count
//! on the observer's own clock only, from the moment it could have known better at the earliest.

use super::accusers;
use crate::ids::NodeId;
use crate::lease::LeaseTerms;
use crate::observation::{NodeVerdict, Observed};
use crate::state::State;
use crate::units::{BootMs, Millis};

/// A node that missed this many heartbeats is suspect.
const MISSED_HEARTBEATS: u64 = 2;

/// The silence from which a node is suspect: the missed heartbeats and half of one for its way.
fn patience(terms: &LeaseTerms) -> Millis {
    Millis(terms.heartbeat.0 * MISSED_HEARTBEATS + terms.heartbeat.0 / 2)
}

/// The verdict on a node that is not committed lost.
pub(super) fn judge(observed: &Observed, state: &State, node: &NodeId, doubt: Option<&str>) -> NodeVerdict {
    let terms = &state.cluster.settings.terms;
    let (unheard, unanswered) = ages(observed, node);
    let worst = unheard.max(unanswered);
    if worst < patience(terms) {
        return NodeVerdict::Alive;
    }
    let mut because = reasons(observed, node, terms, unheard, unanswered);
    because.extend(accusers::words(observed, node, terms));
    if let Some(doubt) = doubt {
        because.push(doubt.to_owned());
        // Judged again when the observer has come round; until then nobody is accused on its word.
        let left = Millis(terms.lease.0.saturating_sub(worst.0)).max(terms.heartbeat);
        return NodeVerdict::Suspect { because, lost_in: left };
    }
    if worst < terms.lease {
        return NodeVerdict::Suspect { because, lost_in: terms.lease - worst };
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
    terms: &LeaseTerms,
    unheard: Millis,
    unanswered: Millis,
) -> Vec<String> {
    let me = &observed.me;
    let limit = terms.lease;
    let mut because = Vec::new();
    if unheard >= patience(terms) {
        let never = if observed.nodes.contains_key(node) { "has not heard" } else { "has never heard" };
        because.push(format!("{me} {never} {node} for {} (lost after {limit})", seconds(unheard)));
    }
    if unanswered >= patience(terms) && unheard < patience(terms) {
        because.push(format!(
            "{me} hears {node}, but no answer of {me} reached it for {} (lost after {limit})",
            seconds(unanswered)
        ));
    }
    because
}

/// Why the observer should rather suspect itself, if it should.
pub(super) fn self_doubt(observed: &Observed, state: &State) -> Option<String> {
    let me = &observed.me;
    let terms = &state.cluster.settings.terms;
    if let Some(own) = observed.nodes.get(me) {
        let age = observed.now.since(own.received);
        if age >= patience(terms) {
            return Some(format!(
                "{me} has not heard itself for {} either, so it may be {me} that was not running",
                seconds(age)
            ));
        }
    }
    let stale = observed.raft.quorum_ack_age.filter(|age| observed.raft.leading && *age >= patience(terms));
    stale
        .map(|age| format!("no quorum answered {me} for {}, so it may be {me} that is cut off", seconds(age)))
}

/// A length of time with one decimal, for sentences.
fn seconds(length: Millis) -> String {
    format!("{}.{} s", length.0 / 1_000, length.0 % 1_000 / 100)
}

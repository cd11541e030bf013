//! What waits and who, in words: one sentence for each cause, in English for somebody who was just woken up.

use std::fmt;

use super::{Foreseen, Refusal, Subject, WaitCause};
use crate::ids::{Epoch, NodeId};
use crate::units::Millis;

impl fmt::Display for Foreseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            Some(after) if after > Millis(0) => write!(f, "in {}: {}", after.human(), self.what),
            Some(_) | None => f.write_str(&self.what),
        }
    }
}

/// What to do with a node that the cluster went on without.
pub const JOIN_ANEW: &str = "stop it, remove `identity` and `raft` from its data_dir (`guard` and `instances` stay: \
                             what runs is adopted), and let it join again with a new token";

/// Why a node of before a recovery is refused, without the remedy.
pub fn left_behind(node: &NodeId, data: Epoch, cluster: Epoch) -> String {
    format!("the cluster goes on in epoch {cluster}, and the data of {node} are of epoch {data}")
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node(node) => fmt::Display::fmt(node, f),
            Subject::Slot(slot) => fmt::Display::fmt(slot, f),
            Subject::Operation(operation) => f.pad(&format!("operation {operation}")),
        }
    }
}

impl fmt::Display for WaitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&sentence(self))
    }
}

fn sentence(cause: &WaitCause) -> String {
    match cause {
        WaitCause::NoNodeFits { refusals } if refusals.is_empty() => "there is no node to run it".to_owned(),
        WaitCause::NoNodeFits { refusals } => format!("no node fits: {}", all_refusals(refusals)),
        WaitCause::Evidence { node, then, items, .. } => {
            evidence(node, then.as_ref(), items.iter().any(|item| item.holds))
        }
        WaitCause::Suspect { node, because } => format!("{node} is suspect: {}", because.join("; ")),
        WaitCause::Stopping { node, because } if because.is_empty() => format!("{node} is stopping it"),
        WaitCause::Stopping { node, because } => format!("{node} is stopping it: {because}"),
        WaitCause::Starting { node } => format!("{node} is starting it"),
        WaitCause::Backoff { node, detail } => format!("{detail}; {node} waits before it starts it again"),
        WaitCause::Ended { detail } => format!("{detail}, and its restart policy leaves it so"),
        WaitCause::Operation { operation, detail } => format!("operation {operation}: {detail}"),
        WaitCause::Health { node, detail } if detail.is_empty() => format!("not healthy yet on {node}"),
        WaitCause::Health { node, detail } => format!("not healthy yet on {node}: {detail}"),
        WaitCause::Copying { done, total } => format!("copied {} of {}", bytes(*done), bytes(*total)),
        WaitCause::Fencing { operation: Some(operation), detail, .. } => {
            format!("fencing, operation {operation}: {detail}")
        }
        WaitCause::Fencing { operation: None, detail, .. } => format!("fencing: {detail}"),
        WaitCause::Recovery { detail, unheard } => {
            let nodes: Vec<String> =
                unheard.iter().map(|(node, lacks)| format!("{node} ({lacks})")).collect();
            format!("{detail}: nothing exclusive starts before it is known what runs on {}", nodes.join(", "))
        }
        WaitCause::Throttled { detail } | WaitCause::Operator { detail } | WaitCause::Other { detail } => {
            detail.clone()
        }
    }
}

fn evidence(node: &NodeId, then: Option<&NodeId>, holds: bool) -> String {
    let proof = if holds {
        format!("its claim on {node} is proven ended and is being closed")
    } else {
        format!("nothing proves yet that it has stopped on {node}")
    };
    match then {
        Some(then) => format!("{proof}; then it starts on {then}"),
        None => proof,
    }
}

/// Every node's reason, those with the same one together.
fn all_refusals(refusals: &[(NodeId, Refusal)]) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (node, refusal) in refusals {
        let reason = refusal.to_string();
        match groups.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, nodes)) => nodes.push(node.as_str()),
            None => groups.push((reason, vec![node.as_str()])),
        }
    }
    let groups: Vec<String> =
        groups.iter().map(|(reason, nodes)| format!("{} ({reason})", nodes.join(", "))).collect();
    groups.join("; ")
}

/// A number of bytes for people.
fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count;
    let mut rest = 0;
    let mut unit = 0;
    while value >= 1024 && unit + 1 < units.len() {
        rest = value % 1024;
        value /= 1024;
        unit += 1;
    }
    match rest * 10 / 1024 {
        0 => format!("{value} {}", units[unit]),
        tenth => format!("{value}.{tenth} {}", units[unit]),
    }
}

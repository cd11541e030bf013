//! What waits, in words: one sentence for each cause, and what happens next. English for somebody who was
//! just woken up.

use super::model::{EvidenceView, NextView, WaitingView};
use crate::ids::NodeId;
use crate::state::{Refusal, WaitCause, Waiting};

/// One cause in a sentence.
pub(super) fn cause(cause: &WaitCause) -> String {
    match cause {
        WaitCause::NoNodeFits { refusals } if refusals.is_empty() => "there is no node to run it".to_owned(),
        WaitCause::NoNodeFits { refusals } => format!("no node fits: {}", all_refusals(refusals)),
        WaitCause::Evidence { node, then, items, .. } => {
            evidence(node, then.as_ref(), items.iter().any(|i| i.holds))
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
        WaitCause::Fencing { operation: Some(operation), detail } => {
            format!("fencing, operation {operation}: {detail}")
        }
        WaitCause::Fencing { operation: None, detail } => format!("fencing: {detail}"),
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

/// What follows from a cause, when and on which condition.
pub(super) fn next(waiting: &Waiting) -> Option<NextView> {
    let step = |what: String, condition: Option<&str>| {
        Some(NextView {
            what,
            when_ms: waiting.left.map(|left| left.0),
            condition: condition.map(str::to_owned),
        })
    };
    match &waiting.cause {
        WaitCause::Evidence { node, then, items, .. } => {
            let what = match then {
                Some(then) => format!("it starts on {then}"),
                None => "it may start elsewhere, as soon as a node fits".to_owned(),
            };
            if items.iter().any(|item| item.holds) {
                step(what, None)
            } else if waiting.left.is_some() {
                step(what, Some(&format!("{node} stays silent")))
            } else {
                step(what, Some(&format!("{node} comes back, is fenced, or is attested dead")))
            }
        }
        WaitCause::NoNodeFits { .. } => step("it starts".to_owned(), Some("a node fits")),
        WaitCause::Suspect { node, .. } => step(format!("{node} is committed lost"), Some("it stays silent")),
        WaitCause::Stopping { node, .. } => {
            step(format!("its claim on {node} ends"), Some("the node acknowledges that it has stopped"))
        }
        WaitCause::Starting { .. } => None,
        WaitCause::Backoff { node, .. } => step(format!("{node} starts it again"), None),
        WaitCause::Ended { .. } => Some(NextView {
            what: "it stays ended".to_owned(),
            when_ms: None,
            condition: Some("nobody restarts or deploys it".to_owned()),
        }),
        WaitCause::Operation { operation, .. } => step(format!("operation {operation} goes on"), None),
        WaitCause::Throttled { .. } => step("it is its turn".to_owned(), Some("another move ends")),
        WaitCause::Health { node, .. } if waiting.left.is_some() => {
            step(format!("{node} starts it anew"), Some("it stays unhealthy"))
        }
        WaitCause::Health { .. } | WaitCause::Copying { .. } | WaitCause::Other { .. } => None,
        WaitCause::Fencing { detail, .. } | WaitCause::Operator { detail } => step(detail.clone(), None),
    }
}

/// The ticked list of a cause that waits for evidence.
pub(super) fn checklist(waiting: &[Waiting]) -> Vec<EvidenceView> {
    let items = waiting.iter().find_map(|waiting| match &waiting.cause {
        WaitCause::Evidence { items, .. } => Some(items),
        WaitCause::NoNodeFits { .. }
        | WaitCause::Suspect { .. }
        | WaitCause::Stopping { .. }
        | WaitCause::Starting { .. }
        | WaitCause::Backoff { .. }
        | WaitCause::Ended { .. }
        | WaitCause::Operation { .. }
        | WaitCause::Throttled { .. }
        | WaitCause::Health { .. }
        | WaitCause::Copying { .. }
        | WaitCause::Fencing { .. }
        | WaitCause::Operator { .. }
        | WaitCause::Other { .. } => None,
    });
    items
        .into_iter()
        .flatten()
        .map(|item| EvidenceView {
            kind: item.kind.clone(),
            holds: item.holds,
            detail: match item.left {
                Some(left) if !item.holds => format!("{}, in {}", item.detail, left.human()),
                Some(_) | None => item.detail.clone(),
            },
        })
        .collect()
}

/// As rows have it.
pub(super) fn rows(waiting: &[Waiting]) -> Vec<WaitingView> {
    let row = |waiting: &Waiting| WaitingView {
        reason: cause(&waiting.cause),
        until_ms: waiting.left.map(|left| left.0),
    };
    waiting.iter().map(row).collect()
}

/// A number of bytes for people.
pub(super) fn bytes(count: u64) -> String {
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

/// `1 copy`, `2 copies`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// `a, b and c`.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let mut items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
    }
}

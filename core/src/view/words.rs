//! What waits, in words: one sentence for each cause, and what happens next. English for somebody who was
//! just woken up.

use super::model::{EvidenceView, NextView, WaitingView};
use crate::state::{WaitCause, Waiting};
use crate::units::Millis;

/// One cause in a sentence.
pub(super) fn cause(cause: &WaitCause) -> String {
    cause.to_string()
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
        WaitCause::Recovery { .. } => step(
            "it starts".to_owned(),
            Some("each of them is heard, or proven dead: quorate attest NODE --dead --reason WHY"),
        ),
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
        | WaitCause::Recovery { .. }
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
            detail: item.detail.clone(),
            left_ms: item.left.filter(|_| !item.holds).map(|left| left.0),
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

/// A length of time without its fractions, where they would only flicker.
pub(super) fn seconds(length: Millis) -> Millis {
    if length.0 < 1_000 { length } else { Millis(length.0 / 1_000 * 1_000) }
}

/// `1 copy`, `2 copies`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// `it is`, `all 3 are`.
pub(super) fn are(number: usize) -> String {
    if number == 1 { "it is".to_owned() } else { format!("all {number} are") }
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

//! What may be gone when a cluster goes on from less than it once had, named before anything is done. Knows no files
//! and asks nobody.

use quorate_core::state::State;
use serde_json::{Value, json};

use crate::raft::rescue::Position;

/// Nodes of a State that are to be heard before anything exclusive starts.
pub(super) fn to_be_heard(state: &State) -> String {
    let nodes: Vec<String> = state.nodes.keys().map(ToString::to_string).collect();
    nodes.join(", ")
}

/// Copies that the lost nodes had by the last word of them, and what of those is nowhere else.
pub(super) fn copies(lost: &[String], state: &State) -> Vec<Value> {
    let claims = state.slots.iter().flat_map(|(slot, record)| record.claims.iter().map(move |it| (slot, it)));
    let there = claims.filter(|(_, claim)| lost.iter().any(|node| node == claim.node.as_str()));
    let told = there.filter_map(|(slot, claim)| {
        let service = state.services.get(&slot.service)?;
        let keeps = service.spec_of(claim.version).state_dir.is_some();
        Some(json!({
            "slot": slot.to_string(), "node": claim.node, "exclusive": service.exclusive, "state": keeps,
        }))
    });
    told.collect()
}

fn copies_in_words(copies: &[Value]) -> Option<String> {
    let words = copies.iter().map(|copy| {
        let (slot, node) = (copy["slot"].as_str().unwrap_or("?"), copy["node"].as_str().unwrap_or("?"));
        let state = if copy["state"] == true { ", with the only copy of its state" } else { "" };
        format!("{slot} on {node}{state}")
    });
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| format!("copies that ran there by the last word: {}", words.join("; ")))
}

/// After a forced quorum: writes, and what ran where.
pub(super) fn losses(lost: &[String], own: Position, committed: u64, state: &State) -> Vec<String> {
    let ran = copies_in_words(&copies(lost, state));
    let lost = lost.join(", ");
    let mut losses = vec![format!(
        "every write after revision {committed} that {lost} acknowledged without the survivors"
    )];
    if committed < own.index {
        losses.push(format!(
            "entries {} to {} are known to no survivor to be committed: they are kept, in place of whatever {lost} \
             may have committed instead, and their writers may have been told `unknown`",
            committed + 1,
            own.index
        ));
    }
    losses.extend(ran);
    losses.push(format!(
        "copies granted in what is gone may run on {lost}: nothing exclusive starts before {} each said what they \
         run, were fenced or attested dead",
        to_be_heard(state)
    ));
    losses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_gone_is_named_from_the_last_entry_on() {
        let losses = losses(&["n3".to_owned()], Position { term: 4, index: 90 }, 88, &State::empty());
        assert!(losses[0].contains("after revision 88 that n3"));
        assert!(losses[1].contains("entries 89 to 90"));
    }

    #[test]
    fn a_copy_whose_state_is_nowhere_else_is_said_to_be() {
        let copy = |state: bool| json!({"slot": "db/0", "node": "n3", "exclusive": true, "state": state});
        let words = copies_in_words(&[copy(true)]).unwrap();
        assert!(words.contains("db/0 on n3, with the only copy of its state"), "{words}");
        assert!(!copies_in_words(&[copy(false)]).unwrap().contains("state"));
        assert_eq!(copies_in_words(&[]), None);
    }
}

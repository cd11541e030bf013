//! The ticked list of a whole node: what proves that nothing it held still runs there. It holds only where it
//! holds for all that waits for the node.

use super::model::EvidenceView;
use super::sight::Sight;
use crate::ids::{NodeId, SlotId};
use crate::state::EvidenceItem;

/// The five kinds over everything that waits for proof about a node; empty where nothing does.
pub(super) fn of_node(sight: &Sight<'_>, node: &NodeId) -> Vec<EvidenceView> {
    let lists = sight.blocked_by(node);
    let Some((_, first)) = lists.first() else { return Vec::new() };
    let kinds = first.iter().map(|item| item.kind.as_str());
    kinds.map(|kind| merged(sight, kind, lists)).collect()
}

fn merged(sight: &Sight<'_>, kind: &str, lists: &[(&SlotId, &[EvidenceItem])]) -> EvidenceView {
    let of_kind = |(slot, items): &(&SlotId, &'_ [EvidenceItem])| {
        items.iter().find(|item| item.kind == kind).map(|item| (slot.to_string(), item.clone()))
    };
    let items: Vec<(String, EvidenceItem)> = lists.iter().filter_map(of_kind).collect();
    let open = || items.iter().filter(|(_, item)| !item.holds);
    // What comes by itself is said with the last of it; then what never will is named beside.
    let timed = open().filter(|(_, item)| item.left.is_some()).max_by_key(|(_, item)| item.left);
    let never = open().find(|(_, item)| item.left.is_none());
    let several = items.len() > 1;
    let named = |(slot, item): &(String, EvidenceItem)| {
        if several { format!("{slot}: {}", item.detail) } else { item.detail.clone() }
    };
    let same = items.windows(2).all(|two| two[0].1.detail == two[1].1.detail);
    let detail = match (timed, never) {
        _ if same => items.first().map(|(_, item)| item.detail.clone()).unwrap_or_default(),
        (Some(timed), Some(never)) => format!("{}; {}", named(timed), named(never)),
        (Some(one), None) | (None, Some(one)) => named(one),
        (None, None) => items.first().map(named).unwrap_or_default(),
    };
    let left = timed.and_then(|(_, item)| item.left).map(|left| (left - sight.look.waiting_age).0);
    EvidenceView { kind: kind.to_owned(), holds: open().next().is_none(), detail, left_ms: left }
}

//! What the other nodes say of a silent one, from their rows of the reachability matrix: words that go with
//! a verdict, never a reason for it or against it.

use std::collections::BTreeMap;

use crate::ids::NodeId;
use crate::lease::LeaseTerms;
use crate::observation::{LinkReport, Observed};

/// Who else reaches the node, and who does not.
pub(super) fn words(observed: &Observed, node: &NodeId, terms: &LeaseTerms) -> Vec<String> {
    let rows = rows_about(observed, node, terms);
    let reached: Vec<String> = rows
        .iter()
        .flat_map(|(from, links)| {
            links
                .iter()
                .filter(|link| link.ok)
                .map(move |link| format!("{from} reaches it over {}", link.segment))
        })
        .collect();
    let silent: Vec<&str> = rows
        .iter()
        .filter(|(_, links)| links.iter().all(|link| !link.ok))
        .map(|(from, _)| from.as_str())
        .collect();
    let mut words = reached;
    match silent.as_slice() {
        [] => {}
        [one] => words.push(format!("{one} does not reach it either")),
        many => words.push(format!("{} do not reach it either", many.join(", "))),
    }
    words
}

/// The links to the node in the fresh reports of everybody else.
fn rows_about<'a>(
    observed: &'a Observed,
    node: &NodeId,
    terms: &LeaseTerms,
) -> BTreeMap<&'a NodeId, Vec<&'a LinkReport>> {
    let mut rows = BTreeMap::new();
    for (from, heard) in &observed.nodes {
        let fresh = observed.now.since(heard.received).0 <= terms.heartbeat.0 * 2;
        if from == node || !fresh {
            continue;
        }
        let links: Vec<&LinkReport> = heard.report.links.iter().filter(|link| link.to == *node).collect();
        if !links.is_empty() {
            rows.insert(from, links);
        }
    }
    rows
}

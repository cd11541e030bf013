//! What the other nodes say of a silent one, from their rows of the reachability matrix: words that go with
//! a verdict, never a reason for it or against it.

use super::words::group;
use crate::ids::NodeId;
use crate::observation::Observed;
use crate::reach::LinkReport;
use crate::units::Millis;

/// Who else reaches the node, and who does not, by rows that are not older than `patience`.
pub(super) fn words(observed: &Observed, node: &NodeId, patience: Millis) -> Vec<String> {
    let mut words = Vec::new();
    let mut silent: Vec<NodeId> = Vec::new();
    for (from, known) in &observed.reach.rows {
        if from == node || observed.now.since(known.at) > patience {
            continue;
        }
        let links: Vec<&LinkReport> = known.row.links.iter().filter(|link| link.to == *node).collect();
        let good = links.iter().filter(|link| link.ok);
        words.extend(good.map(|link| format!("{from} reaches it over {}", link.segment)));
        if !links.is_empty() && links.iter().all(|link| !link.ok) {
            silent.push(from.clone());
        }
    }
    match silent.as_slice() {
        [] => {}
        [one] => words.push(format!("{one} does not reach it")),
        many => words.push(format!("{} do not reach it", group(many))),
    }
    words
}

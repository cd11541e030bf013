//! Who is alive, suspect or lost, and who reaches whom, as one observer sees it at one moment. Only the leader's
//! verdicts on nodes become commands; all others are words for screens. Knows nothing of what a verdict leads to.

mod accusers;
mod links;
mod matrix;
mod sides;
mod silence;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

use crate::ids::NodeId;
use crate::observation::{NodeVerdict, Observed, Verdicts};
use crate::state::{NodeRecord, NodeStanding, State};
use matrix::Matrix;

/// A verdict on every admitted node, and on the links between them.
pub fn detect(observed: &Observed, state: &State) -> Verdicts {
    let doubt = silence::self_doubt(observed, state);
    let nodes: BTreeMap<NodeId, NodeVerdict> = state
        .nodes
        .iter()
        .map(|(node, record)| (node.clone(), verdict(observed, state, node, record, doubt.as_deref())))
        .collect();
    let matrix = Matrix::new(observed, state, silence::patience(observed, state));
    let split = sides::split(&matrix, observed, state);
    let mut links = Vec::new();
    if let Some(split) = &split {
        links.extend(sides::judge(&matrix, observed, split));
        links.extend(links::judge(&matrix, &split.mine));
    }
    let of = |node: &NodeId| nodes.get(node).cloned().unwrap_or(NodeVerdict::Alive);
    links.extend(sides::doubts(observed, state, &matrix, split.as_ref(), of));
    // The sort keeps the order within a kind.
    links.sort_by_key(|verdict| verdict.kind);
    let sides = sides::sides(observed, state, &matrix, split.as_ref());
    Verdicts { nodes, links, sides }
}

fn verdict(
    observed: &Observed,
    state: &State,
    node: &NodeId,
    record: &NodeRecord,
    doubt: Option<&str>,
) -> NodeVerdict {
    match &record.standing {
        NodeStanding::Lost { because, .. } => NodeVerdict::Lost { because: because.clone() },
        // Whoever can judge itself runs; what it may do is its lease's business.
        NodeStanding::Alive if *node == observed.me => NodeVerdict::Alive,
        NodeStanding::Alive => silence::judge(observed, state, node, doubt),
    }
}

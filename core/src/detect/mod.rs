//! Who is alive, suspect or lost, as one observer sees it at one moment. Only the leader's verdicts become
//! commands; everybody else's are for its own screen. Knows nothing of what a verdict leads to.

mod accusers;
mod silence;

use crate::ids::NodeId;
use crate::observation::{NodeVerdict, Observed, Verdicts};
use crate::state::{NodeRecord, NodeStanding, State};

/// A verdict on every admitted node.
pub fn detect(observed: &Observed, state: &State) -> Verdicts {
    let doubt = silence::self_doubt(observed, state);
    let nodes = state
        .nodes
        .iter()
        .map(|(node, record)| (node.clone(), verdict(observed, state, node, record, doubt.as_deref())))
        .collect();
    Verdicts { nodes }
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

//! What an operator has to know before a node is fenced: allowed or not and by which quorum, what it rests on,
//! whether there is a way back. The cockpit's question and the dry run of the command line are made from it.

use super::model::{ClusterView, EvidenceView, NodeState, NodeView};
use super::words::count;
use crate::ids::{NodeId, OperationId};
use crate::units::Millis;

/// The terms of a fencing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceTerms {
    /// May it be asked for from here?
    pub allowed: bool,
    /// By which quorum; or why not, and what to do instead.
    pub allowance: String,
    /// What would be done, level by level.
    pub by: Vec<String>,
    /// What led to it, and since when.
    pub because: Vec<String>,
    /// What would prove by other ways that nothing of it runs; empty where nothing waits for that.
    pub evidence: Vec<EvidenceView>,
    /// The way back.
    pub undo: String,
}

/// The terms of fencing this node, as this view has them.
pub fn fence_terms(view: &ClusterView, node: &NodeView) -> FenceTerms {
    let (allowed, allowance) = allowance(view, node);
    let name = &node.name;
    let mut because = vec![node.why.verdict.clone()];
    because.extend(node.why.because.iter().cloned());
    if node.state == NodeState::Alive && node.observed {
        because.insert(0, format!("{name} is ALIVE: draining or stopping it is gentler"));
    }
    let method = |level: &[super::FenceMethodView]| {
        let names = level.iter().map(|method| {
            let attempts = count(method.attempts as usize, "attempt", "attempts");
            format!(
                "{} ({}), {attempts} of {}",
                method.name,
                method.action,
                Millis(method.timeout_ms).human()
            )
        });
        names.collect::<Vec<_>>().join(" and ")
    };
    let reboots = node.fencing.levels.iter().flatten().any(|method| method.action == "reboot");
    FenceTerms {
        allowed,
        allowance,
        by: node.fencing.levels.iter().map(|level| method(level)).collect(),
        because,
        evidence: node.why.evidence.clone(),
        undo: match reboots {
            true => format!("none; {name} is switched on again once it is proven off, and rejoins by itself"),
            false => format!("none after power-off; {name} can rejoin by itself when it is powered on"),
        },
    }
}

fn allowance(view: &ClusterView, node: &NodeView) -> (bool, String) {
    let (standing, name) = (&view.standing, &node.name);
    let (heard, voters) = (standing.voters_heard, standing.voters);
    if !standing.quorum {
        let needed = standing.voters_needed;
        return (
            false,
            format!(
                "NO QUORUM from here: {heard} of {voters} voters heard, {needed} needed. The side with quorum may \
                 fence. If there is none any more and this is the survivor: quorate fence {name} \
                 --without-quorum"
            ),
        );
    }
    if node.fencing.levels.is_empty() {
        return (
            false,
            format!(
                "{name} has no fence method: configure fencing.methods there, or switch it off by hand and attest \
                 that it is dead: quorate attest {name} --dead --reason WHY"
            ),
        );
    }
    if let Some(OperationId(id)) = node.fencing.operation {
        return (false, format!("operation {id} fences {name} already: wait for it, or cancel it"));
    }
    if node.state == NodeState::Fenced {
        return (false, format!("{name} is proven unable to act already: nothing is left to do"));
    }
    let side = view.links.sides.iter().find(|side| side.mine).filter(|_| view.links.sides.len() > 1);
    let side = side.map_or_else(String::new, |side| {
        let nodes: Vec<&str> = side.nodes.iter().map(NodeId::as_str).collect();
        format!("Side {} {{{}}} has ", side.name, nodes.join(" "))
    });
    let leader = standing.leader.as_ref().map_or_else(String::new, |leader| format!(", leader {leader}"));
    (true, format!("{side}quorum ({heard}/{voters}, term {}{leader})", standing.term))
}

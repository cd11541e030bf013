//! Nodes as rows, each with why it is so and what follows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fencing;
use super::model::{NextView, NodeResources, NodeState, NodeView, Standing, Why};
use super::sight::Sight;
use super::words::{self, count};
use crate::fence::FenceMethod;
use crate::ids::NodeId;
use crate::observation::{NodeUsage, NodeVerdict};
use crate::state::{Inventory, NodeProof, NodeRecord, NodeStanding, Subject};
use crate::units::Millis;

pub(super) fn node(sight: &Sight<'_>, id: &NodeId, record: &NodeRecord, standing: &Standing) -> NodeView {
    let heard = sight.heard(id);
    let report = heard.map(|heard| &heard.report);
    let state = state_of(sight, id, record);
    let given = sight.given(id);
    let leader = standing.leader.as_ref() == Some(id);
    NodeView {
        name: id.clone(),
        raft_id: record.raft_id,
        pid: report.map(|report| report.pid),
        guard_pid: report.map(|report| report.guard.pid).filter(|pid| *pid > 0),
        twin_pid: report.map(|report| report.guard.twin_pid).filter(|pid| *pid > 0),
        armed: record.facts.armed,
        unarmed: record.facts.unarmed.clone(),
        lease_epoch: record.lease_epoch,
        boot_id: record.boot.clone(),
        state,
        isolated: isolated(sight, id),
        voter: sight.look.observed.raft.voters.contains(&record.raft_id),
        witness: record.witness,
        leader,
        weight: record.weight,
        // As leader its own, else by the leader's word.
        quorum_ack_age_ms: sight.look.observed.raft.quorum_ack_age.filter(|_| leader).map(|age| age.0),
        lease_left_ms: lease_left(sight, id, record).0,
        schedulable: schedulable(record) && state == NodeState::Alive,
        drained: record.cordoned && given.claims == 0,
        endpoints: BTreeMap::from([
            ("grpc".to_owned(), record.facts.api.clone()),
            ("http".to_owned(), record.facts.http.clone()),
        ]),
        segments: record.facts.endpoints.clone(),
        executors: report.map_or_else(|| record.facts.executors.clone(), |report| report.executors.clone()),
        resources: NodeResources {
            capacity: record.facts.capacity,
            reserved: given.reserved,
            usage: report.map_or_else(NodeUsage::default, |report| report.usage),
        },
        heard_ms: sight.age(id).map(|age| age.0),
        instances: given.claims,
        labels: record.facts.labels.clone(),
        fence_methods: record.facts.fencing.iter().map(|level| level_words(level)).collect(),
        fencing: fencing::fencing(sight, id, record),
        release: record.facts.release.clone(),
        observed: sight.seen(id),
        why: Arc::new(why(sight, id, record, state)),
    }
}

fn schedulable(record: &NodeRecord) -> bool {
    !record.cordoned && !record.witness && !record.leaving
}

/// A doubt counts only where it is not committed yet.
fn state_of(sight: &Sight<'_>, id: &NodeId, record: &NodeRecord) -> NodeState {
    match (&record.standing, sight.verdict(id)) {
        (NodeStanding::Lost { proof: Some(_), .. }, _) => NodeState::Fenced,
        (NodeStanding::Lost { proof: None, .. }, _) => NodeState::Lost,
        (NodeStanding::Alive, Some(NodeVerdict::Suspect { .. } | NodeVerdict::Lost { .. })) => {
            NodeState::Suspect
        }
        (NodeStanding::Alive, Some(NodeVerdict::Alive) | None) => NodeState::Alive,
    }
}

fn isolated(sight: &Sight<'_>, id: &NodeId) -> bool {
    if id == sight.me() {
        return sight.look.lease.is_none_or(|lease| !lease.live(sight.look.observed.now));
    }
    sight.heard(id).is_some_and(|heard| heard.report.wants_rejoin)
}

/// Its own lease is known exactly; that of others is counted from their last answered heartbeat.
fn lease_left(sight: &Sight<'_>, id: &NodeId, record: &NodeRecord) -> Millis {
    let now = sight.look.observed.now;
    if id == sight.me() {
        return sight.look.lease.map_or(Millis(0), |lease| lease.left(now));
    }
    let answered = sight.heard(id).filter(|_| !record.lost()).and_then(|heard| heard.answered);
    answered.map_or(Millis(0), |answered| now.until(answered + record.held.lease))
}

fn level_words(level: &[FenceMethod]) -> String {
    level.iter().map(FenceMethod::words).collect::<Vec<_>>().join(" and ")
}

fn why(sight: &Sight<'_>, id: &NodeId, record: &NodeRecord, state: NodeState) -> Why {
    let waiting = sight.waiting(&Subject::Node(id.clone()));
    let mut because = reasons(sight, id, record, state);
    because.extend(waiting.iter().map(|waiting| words::cause(&waiting.cause)));
    let mut next: Vec<NextView> = waiting.iter().filter_map(words::next).collect();
    next.extend(follows(sight, id, record, state));
    Why {
        subject: format!("node {id}"),
        verdict: verdict(sight, id, record, state),
        because,
        evidence: super::evidence::of_node(sight, id),
        next,
    }
}

pub(super) fn verdict(sight: &Sight<'_>, id: &NodeId, record: &NodeRecord, state: NodeState) -> String {
    let silent = sight.age(id).map(|age| format!(", silent for {}", age.human())).unwrap_or_default();
    match (state, &record.standing) {
        (NodeState::Fenced, NodeStanding::Lost { proof: Some(proof), .. }) => {
            format!("{id} is lost and cannot act: {}", proof.describe(id))
        }
        (_, _) if record.inventory == Inventory::Taken => {
            format!("{id} told what it runs and is let back in once it stopped what is not its own")
        }
        (_, _) if record.inventory == Inventory::Unheard => {
            format!("{id} was not heard since the cluster was recovered: what runs there is not known")
        }
        (_, NodeStanding::Lost { at, .. }) => {
            format!("{id} is lost for {}", sight.wall_age(*at).human())
        }
        (NodeState::Suspect, NodeStanding::Alive) => format!("{id} is suspect{silent}"),
        (_, NodeStanding::Alive) if !sight.seen(id) => {
            format!("{id} was alive as last heard of here{silent}")
        }
        (_, NodeStanding::Alive) if isolated(sight, id) && id == sight.me() => {
            format!("{id}, this node, holds no lease: it starts nothing until it is let back in")
        }
        (_, NodeStanding::Alive) if isolated(sight, id) => {
            format!("{id} is heard, but holds no lease: it starts nothing until it is let back in")
        }
        (_, NodeStanding::Alive) if record.leaving => format!("{id} is alive and leaving for good"),
        (_, NodeStanding::Alive) if record.cordoned => format!("{id} is alive and cordoned"),
        (_, NodeStanding::Alive) => format!("{id} is alive and holds its lease"),
    }
}

fn reasons(sight: &Sight<'_>, id: &NodeId, record: &NodeRecord, state: NodeState) -> Vec<String> {
    let mut because = match (&record.standing, sight.verdict(id)) {
        (NodeStanding::Lost { because, .. }, _) => because.clone(),
        (NodeStanding::Alive, Some(NodeVerdict::Suspect { because, .. } | NodeVerdict::Lost { because })) => {
            because.clone()
        }
        (NodeStanding::Alive, Some(NodeVerdict::Alive) | None) => Vec::new(),
    };
    if let Some(NodeProof::Attested { by, reason, .. }) = record.proof() {
        because.push(format!("{by} attested it: {reason}"));
    }
    if record.witness {
        because.push("it is a witness: it votes and hosts nothing".to_owned());
    } else if record.leaving {
        because.push("it leaves once it holds nothing".to_owned());
    } else if record.cordoned {
        because.push("it is cordoned: nothing new is placed there".to_owned());
    }
    if !record.witness && !record.facts.armed {
        because.push("its deadlines are not held by two holders: its silence proves nothing".to_owned());
        because.extend(record.facts.unarmed.as_ref().map(|it| format!("{}; {}", it.why, it.remedy)));
    }
    because.extend(fencing::unavailable(sight, id, record));
    if state == NodeState::Alive && sight.seen(id) {
        because.push(format!("it holds {}", count(sight.given(id).claims as usize, "claim", "claims")));
    }
    because
}

/// What its loss means for what it holds.
fn follows(sight: &Sight<'_>, id: &NodeId, record: &NodeRecord, state: NodeState) -> Option<NextView> {
    let held = sight.given(id).claims as usize;
    let step = |what: String, when_ms: Option<u64>, condition: Option<String>| {
        Some(NextView { what, when_ms, condition })
    };
    match state {
        NodeState::Suspect => {
            let left = match sight.verdict(id) {
                Some(NodeVerdict::Suspect { lost_in, .. }) => Some(lost_in.0),
                Some(NodeVerdict::Alive | NodeVerdict::Lost { .. }) | None => None,
            };
            step(
                format!("{id} is committed lost; copies that are not exclusive start elsewhere"),
                left,
                Some("it stays silent".to_owned()),
            )
        }
        NodeState::Lost if held > 0 => step(
            format!(
                "its {} on hold until one of the five proofs holds",
                count(held, "claim stays", "claims stay")
            ),
            None,
            Some(format!("{id} does not come back")),
        ),
        NodeState::Lost | NodeState::Fenced => {
            step(format!("{id} is let back in"), None, Some("it answers again".to_owned()))
        }
        NodeState::Alive if record.leaving => {
            step(format!("{id} is forgotten"), None, Some("it holds nothing any more".to_owned()))
        }
        NodeState::Alive => None,
    }
}

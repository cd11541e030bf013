//! How a node can be fenced, as people and scripts see it: levels, who could do it now, what is missing
//! where, the last test, what happened, and what blocks it.

use serde::{Deserialize, Serialize};

use super::sight::Sight;
use crate::fence::{FenceAction, FenceMethod};
use crate::ids::{NodeId, OperationId};
use crate::observation::{FenceTest, NodeVerdict};
use crate::reach::Side;
use crate::state::{FenceRecord, NodeRecord, Operation, OperationKind, Subject, WaitCause};
use crate::units::{Millis, WallMs};

/// Missing tools that are listed of one method, from one node each.
const MOST_MISSING: usize = 16;

/// How a node can be fenced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FencingView {
    /// Tried one after the other; all methods of a level have to succeed.
    pub levels: Vec<Vec<FenceMethodView>>,
    /// Is it fenced without being asked, once it is lost and holds what is exclusive?
    pub automatic: bool,
    /// The fencing under way.
    pub operation: Option<OperationId>,
    /// All fencings that are remembered, newest first.
    pub history: Vec<OperationId>,
    /// What it waits for or what blocks it, with what to do; nothing while a deed is under way.
    pub waiting: Option<String>,
    /// What it holds that is exclusive, so that only proof lets it start elsewhere. Bounded.
    pub exclusive: Vec<String>,
    /// In how many milliseconds it is fenced without being asked. From a side without quorum: by the other
    /// side, as far as can be inferred.
    pub expected_ms: Option<u64>,
}

/// How far a fencing is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FenceRunView {
    /// Who does the attempt under way.
    pub by: Option<NodeId>,
    /// The method it is at.
    pub method: String,
    /// Of which level, from 1.
    pub level: u32,
    /// Of how many levels.
    pub levels: u32,
    /// Attempts so far, over all levels.
    pub attempt: u32,
    /// The longest that the attempt under way can still take.
    pub left_ms: Option<u64>,
    /// What was last said.
    pub output: String,
    /// Did an operator ask for it, so that an answer of the node does not call it off?
    pub forced: bool,
}

/// One way to fence a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceMethodView {
    /// Its name.
    pub name: String,
    /// `agent`, `exec`, `docker`, `podman` or `virsh`.
    pub kind: String,
    /// Which agent, program or guest.
    pub device: String,
    /// `off` or `reboot`.
    pub action: String,
    /// For each call.
    pub timeout_ms: u64,
    /// Before the next level.
    pub attempts: u32,
    /// Before each deed.
    pub delay_ms: u64,
    /// The nodes that have what it needs and could do it now.
    pub able: Vec<NodeId>,
    /// What others lack for it.
    pub missing: Vec<MissingView>,
    /// The last time that its device was asked for the power state alone.
    pub last_test: Option<FenceTestView>,
}

/// What one node lacks for a fence method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingView {
    /// Which node.
    pub node: NodeId,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// What a fence device said when it was asked for the power state alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceTestView {
    /// Who asked it.
    pub by: NodeId,
    /// When.
    pub at: WallMs,
    /// How long it took.
    pub took_ms: u64,
    /// `on` or `off`.
    pub power: Option<String>,
    /// Why it cannot be relied on.
    pub error: Option<String>,
}

pub(super) fn fencing(sight: &Sight<'_>, node: &NodeId, record: &NodeRecord) -> FencingView {
    let of_node = |kind: &OperationKind| matches!(kind, OperationKind::Fence(fence) if fence.node == *node);
    let operations = sight.state.operations.iter().rev().filter(|(_, known)| of_node(&known.kind));
    let operations: Vec<_> = operations.map(|(id, known)| (*id, known.ended.is_none())).collect();
    let lines = sight.waiting(&Subject::Node(node.clone()));
    let blocked = lines.iter().find_map(|line| match &line.cause {
        WaitCause::Fencing { operation: Some(_), under_way: false, detail } => Some(detail.clone()),
        _ => None,
    });
    let delay = lines.iter().find_map(|line| match &line.cause {
        WaitCause::Fencing { operation: None, .. } => line.left,
        _ => None,
    });
    let levels = (0..).zip(&record.facts.fencing).map(|(level, methods)| {
        let methods = (0..).zip(methods);
        methods.map(|(at, method)| self::method(sight, node, (level, at), method)).collect()
    });
    let automatic = sight.state.cluster.settings.fencing_auto && !record.facts.fencing.is_empty();
    let exclusive = sight.exclusive(node);
    let idle = record.proof().is_none() && !operations.iter().any(|(_, running)| *running);
    let expected = Some(node).filter(|_| automatic && idle && !exclusive.is_empty());
    FencingView {
        levels: levels.collect(),
        automatic,
        expected_ms: expected.and_then(|node| expected_in(sight, node, record, delay)).map(|left| left.0),
        exclusive: exclusive.iter().map(ToString::to_string).collect(),
        operation: operations.iter().find(|(_, running)| *running).map(|(id, _)| *id),
        history: operations.into_iter().map(|(id, _)| id).collect(),
        waiting: blocked,
    }
}

/// When a node will be fenced without being asked. Whoever decides knows it by the planner's own wait; a node
/// on a side that decides nothing counts from when the other side last heard of it.
fn expected_in(
    sight: &Sight<'_>,
    node: &NodeId,
    record: &NodeRecord,
    waits: Option<Millis>,
) -> Option<Millis> {
    let settings = &sight.state.cluster.settings;
    if sight.decides() {
        return match sight.verdict(node) {
            Some(NodeVerdict::Suspect { lost_in, .. }) => Some(*lost_in + settings.fencing_delay),
            Some(NodeVerdict::Alive | NodeVerdict::Lost { .. }) | None => waits,
        };
    }
    let mine = |side: &Side| side.mine && side.nodes.contains(node);
    let sides = &sight.look.verdicts.sides;
    if record.lost() || !sides.iter().any(mine) || !sides.iter().any(|side| !side.mine && side.majority) {
        return None;
    }
    Some(sight.look.observed.now.until(sight.lease_end(node)? + settings.fencing_delay))
}

/// How far a fencing is, while it runs and afterwards.
pub(super) fn run(sight: &Sight<'_>, operation: &Operation, fence: &FenceRecord) -> FenceRunView {
    let levels = sight.state.nodes.get(&fence.node).map_or(&[][..], |record| &record.facts.fencing);
    let method = levels.get(fence.level as usize).and_then(|level| level.get(fence.method as usize));
    let deed = fence.by_node.as_ref().filter(|_| operation.ended.is_none());
    // Begun with the last step of the journal, on the wall clock of whoever leads: for people.
    let begun = operation.history.last().map_or(operation.begun_at, |note| note.at);
    let longest = method.map(FenceMethod::longest_attempt).filter(|_| deed.is_some());
    FenceRunView {
        by: fence.by_node.clone(),
        method: method.map(|method| method.name.clone()).unwrap_or_default(),
        level: fence.level + 1,
        levels: levels.len() as u32,
        attempt: fence.attempt,
        left_ms: longest.map(|longest| longest.0.saturating_sub(sight.wall_age(begun).0)),
        output: fence.output.clone(),
        forced: fence.forced,
    }
}

fn method(sight: &Sight<'_>, target: &NodeId, place: (u32, u32), method: &FenceMethod) -> FenceMethodView {
    let needs = method.needs();
    let (mut able, mut missing) = (Vec::new(), Vec::new());
    for (node, heard) in &sight.look.observed.nodes {
        if node == target || !sight.seen(node) || sight.state.nodes.get(node).is_none_or(NodeRecord::lost) {
            continue;
        }
        match heard.report.fencing.missing.iter().find(|missing| needs.contains(&missing.tool)) {
            None => able.push(node.clone()),
            Some(one) if missing.len() < MOST_MISSING => missing.push(MissingView {
                node: node.clone(),
                why: one.unavailable.why.clone(),
                remedy: one.unavailable.remedy.clone(),
            }),
            Some(_) => {}
        }
    }
    let action = match method.action {
        FenceAction::Off => "off",
        FenceAction::Reboot => "reboot",
    };
    FenceMethodView {
        name: method.name.clone(),
        kind: method.device.kind().to_owned(),
        device: method.device.words(),
        action: action.to_owned(),
        timeout_ms: method.timeout.0,
        attempts: method.attempts,
        delay_ms: method.delay.0,
        able,
        missing,
        last_test: last_test(sight, target, place),
    }
}

/// Methods that no node in sight could carry out, with what to do; and that there is none at all.
pub(super) fn unavailable(sight: &Sight<'_>, node: &NodeId, record: &NodeRecord) -> Vec<String> {
    if record.facts.fencing.is_empty() {
        return match sight.state.nodes.len() {
            0 | 1 => Vec::new(),
            _ => vec![
                "it has no fence method: only its return, guarded silence or your word frees what it holds"
                    .to_owned(),
            ],
        };
    }
    let methods = fencing(sight, node, record).levels.into_iter().flatten();
    let useless = methods.filter(|method| method.able.is_empty());
    useless
        .filter_map(|method| {
            let one = method.missing.first()?;
            Some(format!("no node can fence it by {}: {}; {}", method.name, one.why, one.remedy))
        })
        .collect()
}

/// The newest test of a method, whoever made it.
fn last_test(sight: &Sight<'_>, target: &NodeId, (level, method): (u32, u32)) -> Option<FenceTestView> {
    let of_it = |test: &&FenceTest| test.target == *target && (test.level, test.method) == (level, method);
    let reports = sight.look.observed.nodes.iter();
    let tests = reports
        .flat_map(|(by, heard)| heard.report.fencing.tests.iter().filter(of_it).map(move |test| (by, test)));
    tests.max_by_key(|(_, test)| test.at).map(|(by, test)| FenceTestView {
        by: by.clone(),
        at: test.at,
        took_ms: test.took.0,
        power: test.power.clone().ok(),
        error: test.power.clone().err(),
    })
}

//! A node's part in fencing others. A deed goes from its order to its report: the delay, a quorum round, a
//! last look at whether it is still wanted, then the device. What it would need is looked for before.
//! What becomes of an outcome is decided by the planner.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::effect::{FenceDeed, FenceNode};
use quorate_core::fence::FenceTool;
use quorate_core::ids::NodeId;
use quorate_core::observation::{FenceOutcome, FenceReport, FenceTest};
use quorate_core::state::{FencePhase, OperationKind, State};
use quorate_core::units::Millis;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::inner::{Inner, hold};
use super::propose;
use crate::fencing::Tools;
use crate::host;
use crate::ports::SubmitError;

/// Deeds that are remembered after they ended.
const REMEMBERED: usize = 32;
/// How long the quorum round before a deed may take.
const ROUND_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks for what methods need here.
const SURVEY_EVERY: Duration = Duration::from_secs(5);
/// Tests that are remembered.
const TESTS: usize = 64;

/// Does one deed, or says why not.
pub(super) async fn carry_out(inner: &Arc<Inner>, order: FenceNode) {
    let (operation, attempt, target) = (order.operation, order.attempt, order.target.clone());
    note(inner, FenceReport { operation, attempt, outcome: None });
    tracing::warn!(%target, operation = operation.0, attempt, method = order.method.name, "fencing");
    let outcome = deed(inner, &order).await;
    tracing::warn!(%target, operation = operation.0, attempt, ?outcome, "fencing ended");
    note(inner, FenceReport { operation, attempt, outcome: Some(outcome) });
    inner.hurry.notify_one();
}

async fn deed(inner: &Arc<Inner>, order: &FenceNode) -> FenceOutcome {
    let FenceNode { target, method, deed, .. } = order;
    sleep(Duration::from_millis(method.delay.0)).await;
    // Only the side with a quorum fences, as of a moment right before the deed; and only what that quorum
    // still wants fenced then.
    let state = match propose::linearizable(inner, ROUND_WITHIN).await {
        Ok(state) => state,
        Err(error) => return FenceOutcome::Withheld { why: error.to_string() },
    };
    if let Some(why) = called_off(inner, &state, order) {
        return FenceOutcome::Withheld { why };
    }
    match deed {
        FenceDeed::Off => crate::fencing::off(target, method).await,
        FenceDeed::On => crate::fencing::on(target, method).await,
    }
}

/// Why this deed is not to be done any more, if it is not.
fn called_off(inner: &Inner, state: &State, order: &FenceNode) -> Option<String> {
    let FenceNode { operation, attempt, target, deed, .. } = order;
    let running = state.operations.get(operation).filter(|known| known.ended.is_none());
    let Some((known, OperationKind::Fence(fence))) = running.map(|known| (known, &known.kind)) else {
        return Some(format!("operation {operation} is over"));
    };
    let phase = match deed {
        FenceDeed::Off => FencePhase::Running,
        FenceDeed::On => FencePhase::Proven,
    };
    if fence.attempt != *attempt || fence.phase != phase || fence.by_node.as_ref() != Some(inner.me()) {
        return Some(format!("operation {operation} has gone on without this attempt"));
    }
    if known.cancelling {
        return Some(format!("operation {operation} is cancelled"));
    }
    let lost =
        |record: &quorate_core::state::NodeRecord| record.lost() && record.lease_epoch == fence.lease_epoch;
    if !state.nodes.get(target).is_some_and(lost) {
        return Some(format!("{target} is not lost any more"));
    }
    if *deed == FenceDeed::Off && !fence.forced && answers(inner, state, order) {
        return Some(format!("{target} answers again"));
    }
    None
}

/// Was the target heard within its last two heartbeats?
fn answers(inner: &Inner, state: &State, order: &FenceNode) -> bool {
    let patience = state.cluster.settings.terms.heartbeat.0 * 5 / 2;
    let now = inner.now();
    hold(&inner.sightings).heard(&order.target).is_some_and(|heard| now.since(heard.received).0 < patience)
}

fn note(inner: &Inner, report: FenceReport) {
    let deeds = &mut hold(&inner.works.fencing).deeds;
    deeds.retain(|old| (old.operation, old.attempt) != (report.operation, report.attempt));
    deeds.push(report);
    let surplus = deeds.len().saturating_sub(REMEMBERED);
    deeds.drain(..surplus);
}

/// Looks for what the methods of other nodes need here, until the node ends.
pub(super) async fn survey(inner: Arc<Inner>) {
    let tools = Tools::default();
    let mut every = interval(SURVEY_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*inner.stopping.borrow() {
        every.tick().await;
        let missing = tools.missing(&needed(&inner)).await;
        {
            let fencing = &mut hold(&inner.works.fencing);
            if fencing.missing == missing {
                continue;
            }
            for one in missing.iter().filter(|one| !fencing.missing.contains(one)) {
                let (why, remedy) = (&one.unavailable.why, &one.unavailable.remedy);
                tracing::warn!(why, remedy, "this node cannot fence others by every method");
            }
            fencing.missing = missing;
        }
        inner.hurry.notify_one();
        inner.wake.notify_one();
    }
}

fn needed(inner: &Inner) -> BTreeSet<FenceTool> {
    let state = inner.state();
    let others = state.nodes.iter().filter(|(node, _)| *node != inner.me());
    others.flat_map(|(_, record)| record.facts.fencing.iter().flatten()).flat_map(|m| m.needs()).collect()
}

/// Asks every device of a node for the power state, from here. Nothing is switched.
pub(super) async fn test(inner: &Arc<Inner>, target: &NodeId) -> Result<Vec<FenceTest>, SubmitError> {
    let refused = |because: String, remedy: &str| SubmitError::Refused { because, remedy: remedy.to_owned() };
    let state = inner.state();
    let Some(record) = state.nodes.get(target) else {
        return Err(refused(format!("no node {target:?}"), "see quorate nodes"));
    };
    if record.facts.fencing.is_empty() {
        let because = format!("{target} has no fence method");
        return Err(refused(because, "configure fencing.methods in its file"));
    }
    let mut tests = Vec::new();
    for (level, methods) in (0..).zip(&record.facts.fencing) {
        for (at, method) in (0..).zip(methods) {
            let began = Instant::now();
            let power = crate::fencing::test(target, method).await;
            let took = Millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
            let target = target.clone();
            tests.push(FenceTest { target, level, method: at, at: host::wall_now(), took, power });
        }
    }
    let known = &mut hold(&inner.works.fencing).tests;
    known.retain(|old| old.target != *target);
    known.extend(tests.iter().cloned());
    let surplus = known.len().saturating_sub(TESTS);
    known.drain(..surplus);
    inner.hurry.notify_one();
    Ok(tests)
}

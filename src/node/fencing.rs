//! A fencing deed from its order to its report: the delay, a quorum round, a last look at whether it is
//! still wanted, then the device. What becomes of the outcome is decided by the planner.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::effect::{FenceDeed, FenceNode};
use quorate_core::observation::{FenceOutcome, FenceReport};
use quorate_core::state::{FencePhase, OperationKind, State};
use tokio::time::sleep;

use super::inner::{Inner, hold};
use super::propose;

/// Deeds that are remembered after they ended.
const REMEMBERED: usize = 32;
/// How long the quorum round before a deed may take.
const ROUND_WITHIN: Duration = Duration::from_secs(2);

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

//! This node's part in operations: fetching state for a migration, doing a fencing deed, and cleaning up
//! after both. Which phase is due is never decided here; State says it.

use crate::effect::{Effect, FenceDeed, FenceNode, FetchState};
use crate::ids::{NodeId, OperationId};
use crate::lease::Lease;
use crate::observation::NodeReport;
use crate::state::{
    FencePhase, MigrationPhase, MigrationRecord, Operation, OperationKind, PASS_BACK, PASS_RUNNING,
    PASS_STOPPED, State,
};
use crate::units::BootMs;

fn running(state: &State) -> impl Iterator<Item = (&OperationId, &Operation)> {
    state.operations.iter().filter(|(_, operation)| operation.ended.is_none())
}

/// State folders to be copied here now. Only by a State as new as a live lease's answer: a replica that is
/// behind would bring an old copy over a newer one.
pub(super) fn fetches(state: &State, own: &NodeReport, lease: Option<&Lease>, now: BootMs) -> Vec<Effect> {
    let current = lease.is_some_and(|lease| lease.live(now) && state.revision >= lease.revision);
    if !current {
        return Vec::new();
    }
    let due = |(id, operation): (&OperationId, &Operation)| {
        let OperationKind::Migration(migration) = &operation.kind else { return None };
        let (pass, from) = pass_due(state, migration, &own.node)?;
        // A pass under way is left alone; on a failed one the planner decides.
        if own.transfers.iter().any(|transfer| transfer.operation == *id && transfer.pass == pass) {
            return None;
        }
        let state_dir = state.services.get(&migration.slot.service)?.spec.state_dir.clone()?;
        let slot = migration.slot.clone();
        Some(Effect::Fetch(FetchState { operation: *id, pass, slot, from, state_dir }))
    };
    running(state).filter_map(due).collect()
}

/// The pass that this node has to make, and from whom.
fn pass_due(state: &State, migration: &MigrationRecord, me: &NodeId) -> Option<(u32, NodeId)> {
    let MigrationRecord { source, target, passes, .. } = migration;
    let target = target.as_ref()?;
    let slot = state.slots.get(&migration.slot)?;
    let held = |token| slot.claims.iter().any(|claim| claim.token == token);
    match migration.phase {
        MigrationPhase::Copying => {
            (me == target && *passes < PASS_RUNNING).then(|| (PASS_RUNNING, source.clone()))
        }
        MigrationPhase::Switchover => {
            // Without a first pass there was no state when the source stopped.
            let due = me == target && *passes + 1 == PASS_STOPPED && !held(migration.source_token);
            due.then(|| (PASS_STOPPED, source.clone()))
        }
        MigrationPhase::RollingBack => {
            // Only what ran at the target can have written there.
            let ended = slot.last_ended.as_ref();
            let target_ran = ended.is_some_and(|e| Some(e.token) == migration.granted && &e.node == target);
            let due = me == source && *passes + 1 == PASS_BACK && target_ran && slot.claims.is_empty();
            due.then(|| (PASS_BACK, target.clone()))
        }
        MigrationPhase::Planned
        | MigrationPhase::Preparing
        | MigrationPhase::Verifying
        | MigrationPhase::Done
        | MigrationPhase::RolledBack => None,
    }
}

/// Fencing attempts that this node was chosen for and has not begun.
pub(super) fn fences(state: &State, own: &NodeReport) -> Vec<Effect> {
    let due = |(id, operation): (&OperationId, &Operation)| {
        let OperationKind::Fence(fence) = &operation.kind else { return None };
        let deed = match fence.phase {
            FencePhase::Running => FenceDeed::Off,
            FencePhase::Proven => FenceDeed::On,
            FencePhase::Requested | FencePhase::Failed | FencePhase::Released => return None,
        };
        let mine = fence.by_node.as_ref() == Some(&own.node);
        let begun =
            own.fencing.deeds.iter().any(|deed| deed.operation == *id && deed.attempt == fence.attempt);
        if !mine || begun || fence.node == own.node {
            return None;
        }
        let levels = &state.nodes.get(&fence.node)?.facts.fencing;
        let method = levels.get(fence.level as usize)?.get(fence.method as usize)?.clone();
        let target = fence.node.clone();
        Some(Effect::Fence(FenceNode { operation: *id, attempt: fence.attempt, target, method, deed }))
    };
    running(state).filter_map(due).collect()
}

/// Staging folders of operations that are over, unless a claim is still to start from one.
pub(super) fn staging_to_drop(state: &State, own: &NodeReport) -> Vec<Effect> {
    let over = |id: &OperationId| match state.operations.get(id) {
        Some(operation) => operation.ended.is_some(),
        // An unknown one is forgotten, or it is beyond what this replica has applied.
        None => id.0 < state.cluster.next_operation,
    };
    let needed = |id: &OperationId| {
        state.claims_on(&own.node).any(|(slot, claim)| {
            let instance = own.slots.get(slot).and_then(|report| report.instance.as_ref());
            claim.operation == Some(*id) && instance.is_none_or(|i| i.id.token != claim.token)
        })
    };
    let mut ids: Vec<OperationId> = own.transfers.iter().map(|transfer| transfer.operation).collect();
    ids.dedup();
    ids.retain(|id| over(id) && !needed(id));
    ids.into_iter().map(|operation| Effect::DropStaging { operation }).collect()
}

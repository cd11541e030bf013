//! Operations: their beginning, their end and their cancelling. Their steps stand in `advance`.

use super::{Entry, Outcome, bounded, limits, not_found, refused};
use crate::event::Event;
use crate::fence::FenceAction;
use crate::ids::{NodeId, OperationId};
use crate::state::{
    DrainRecord, FencePhase, FenceRecord, MigrationPhase, NodeProof, Operation, OperationEnd, OperationKind,
    OperationResult, Rejection, Reply,
};

impl Entry<'_> {
    /// Begins an operation.
    pub(super) fn begin(&mut self, kind: OperationKind, reason: String) -> Result<OperationId, Rejection> {
        let running = self.state.operations.values().filter(|operation| operation.ended.is_none()).count();
        if running >= limits::OPERATIONS {
            return Err(Rejection::Limit {
                what: "operations under way".to_owned(),
                limit: limits::OPERATIONS as u64,
                remedy: "wait for some to end, or cancel them".to_owned(),
            });
        }
        let id = OperationId(self.state.cluster.next_operation.max(1));
        self.state.cluster.next_operation = id.0 + 1;
        let operation = Operation {
            kind,
            step: 0,
            by: self.asker(),
            reason: bounded(&reason, limits::TEXT_BYTES),
            begun_at: self.at,
            cancelling: false,
            ended: None,
            history: Vec::new(),
            changed: self.state.revision,
        };
        let what = operation.kind.words();
        self.state.operations.insert(id, operation);
        self.emit(Event::OperationBegan { operation: id, what });
        Ok(id)
    }

    /// Ends an operation. The end of a cancelled drain's last move ends the drain too.
    pub(super) fn end(&mut self, id: OperationId, result: OperationResult) {
        let at = self.at;
        let well = matches!(result, OperationResult::Done);
        let what = self.change_operation(id, |operation| {
            let what = format!("{}: {}", operation.kind.words(), result.words());
            operation.ended = Some(OperationEnd { at, result });
            (what, operation.kind.parent())
        });
        let Some((what, parent)) = what else { return };
        self.emit(Event::OperationEnded { operation: id, what, well });
        self.forget_old_operations();
        if let Some(parent) = parent {
            self.end_cancelled_drain(parent);
        }
    }

    fn end_cancelled_drain(&mut self, id: OperationId) {
        let cancelling = |operation: &Operation| operation.cancelling && operation.ended.is_none();
        if self.state.operations.get(&id).is_some_and(cancelling) && self.children(id).is_empty() {
            self.end(id, OperationResult::Cancelled);
        }
    }

    /// Of operations that ended, only the newest are remembered.
    fn forget_old_operations(&mut self) {
        let ended: Vec<OperationId> = self
            .state
            .operations
            .iter()
            .filter(|(_, operation)| operation.ended.is_some())
            .map(|(id, _)| *id)
            .collect();
        let surplus = ended.len().saturating_sub(limits::ENDED_OPERATIONS);
        for id in ended.into_iter().take(surplus) {
            self.state.operations.remove(&id);
        }
    }

    /// Operations under way of which this holds.
    pub(super) fn active(&self, wanted: impl Fn(&OperationKind) -> bool) -> Vec<OperationId> {
        let operations = self.state.operations.iter();
        operations
            .filter(|(_, operation)| operation.ended.is_none() && wanted(&operation.kind))
            .map(|(id, _)| *id)
            .collect()
    }

    /// A drain's moves under way.
    fn children(&self, drain: OperationId) -> Vec<OperationId> {
        self.active(|kind| kind.parent() == Some(drain))
    }

    pub(super) fn change_operation<R>(
        &mut self,
        id: OperationId,
        change: impl FnOnce(&mut Operation) -> R,
    ) -> Option<R> {
        let revision = self.state.revision;
        self.state.operations.update(&id, |operation| {
            operation.changed = revision;
            change(operation)
        })
    }

    /// An operation that is still under way.
    pub(super) fn under_way(&self, id: OperationId) -> Result<&Operation, Rejection> {
        let operation = self.state.operations.get(&id).ok_or_else(|| not_found("operation", id))?;
        match &operation.ended {
            None => Ok(operation),
            Some(end) => {
                Err(refused(format!("operation {id} has ended: {}", end.result.words()), "begin another"))
            }
        }
    }

    pub(super) fn active_drain(&self, node: &NodeId) -> Option<OperationId> {
        let of_node = |kind: &OperationKind| match kind {
            OperationKind::Drain(drain) => &drain.node == node,
            OperationKind::Migration(_) | OperationKind::Rollout(_) | OperationKind::Fence(_) => false,
        };
        self.active(of_node).first().copied()
    }

    pub(super) fn drain(&mut self, node: &NodeId, max_in_flight: u32) -> Outcome {
        let record = self.node(node)?;
        if let Some(running) = self.active_drain(node) {
            return Ok(Reply::Began(running));
        }
        if record.lost() {
            return Err(refused(
                format!("{node} is lost: nothing can be moved from it"),
                format!("fence {node}, or attest that it is dead, and its services start elsewhere"),
            ));
        }
        if max_in_flight == 0 || max_in_flight > limits::DRAIN_IN_FLIGHT {
            let because = format!("{max_in_flight} moves at a time are not possible");
            return Err(refused(because, format!("use 1 to {}", limits::DRAIN_IN_FLIGHT)));
        }
        let drain = DrainRecord {
            node: node.clone(),
            max_in_flight,
            total: self.state.claims_on(node).count() as u32,
            was_cordoned: record.cordoned,
        };
        let id = self.begin(OperationKind::Drain(drain), String::new())?;
        self.set_cordon(node, true);
        Ok(Reply::Began(id))
    }

    pub(super) fn uncordon(&mut self, node: &NodeId) -> Outcome {
        let record = self.node(node)?;
        if record.leaving {
            return Err(refused(format!("{node} is leaving"), "let it go, and admit it again"));
        }
        let drain = self.active_drain(node);
        if !record.cordoned && drain.is_none() {
            return Ok(Reply::Unchanged);
        }
        if let Some(drain) = drain {
            self.cancel_drain(drain);
        }
        self.set_cordon(node, false);
        Ok(Reply::Accepted)
    }

    /// Moves that have not flipped yet are undone; those that have go through to their end.
    pub(super) fn cancel_drain(&mut self, id: OperationId) {
        self.change_operation(id, |operation| operation.cancelling = true);
        for child in self.children(id) {
            let flipped = self.state.operations.get(&child).is_some_and(|operation| match &operation.kind {
                OperationKind::Migration(migration) => migration.granted.is_some(),
                OperationKind::Drain(_) | OperationKind::Rollout(_) | OperationKind::Fence(_) => false,
            });
            if !flipped {
                self.cancel_migration(child);
            }
        }
        self.end_cancelled_drain(id);
    }

    /// Before its source is told to stop a migration just ends; afterwards it is rolled back step by step.
    fn cancel_migration(&mut self, id: OperationId) {
        let Some(operation) = self.state.operations.get(&id) else { return };
        let OperationKind::Migration(migration) = &operation.kind else { return };
        if migration.phase < MigrationPhase::Switchover {
            self.end(id, OperationResult::Cancelled);
        } else {
            self.change_operation(id, |operation| operation.cancelling = true);
        }
    }

    pub(super) fn fence(&mut self, node: &NodeId, reason: &str) -> Outcome {
        let record = self.node(node)?;
        if record.facts.fencing.is_empty() {
            return Err(refused(
                format!("{node} has no fence method"),
                format!(
                    "configure fencing.methods on {node}, or switch it off by hand and attest that it is dead"
                ),
            ));
        }
        let of_node = |kind: &OperationKind| match kind {
            OperationKind::Fence(fence) => &fence.node == node,
            OperationKind::Drain(_) | OperationKind::Migration(_) | OperationKind::Rollout(_) => false,
        };
        if let Some(running) = self.active(of_node).first() {
            return Err(refused(
                format!("operation {running} fences {node} already"),
                format!("wait for it, or cancel operation {running}"),
            ));
        }
        if let Some(proof) = record.proof() {
            let because = proof.describe(node);
            return Err(refused(format!("{node} cannot act already: {because}"), "nothing is left to do"));
        }
        // Only an operator may fence a node that is not lost: the planner's reason is gone with its loss.
        if !record.lost() && self.operator.is_none() {
            return Err(refused(format!("{node} is not lost any more"), "look again"));
        }
        let alive = |(other, record): (&NodeId, &crate::state::NodeRecord)| other != node && !record.lost();
        if !record.lost() && !self.state.nodes.iter().any(alive) {
            return Err(refused(format!("{node} is the last node alive"), "let another node join first"));
        }
        let fence = FenceRecord {
            node: node.clone(),
            lease_epoch: record.lease_epoch,
            forced: self.operator.is_some(),
            phase: FencePhase::Requested,
            by_node: None,
            attempt: 0,
            level: 0,
            method: 0,
            output: String::new(),
        };
        self.begin(OperationKind::Fence(fence), reason.to_owned()).map(Reply::Began)
    }

    /// The fencing that an operator asked for, which no answer of its target calls off.
    pub(super) fn forced_fence(&self, node: &NodeId) -> Option<OperationId> {
        let of_node = |kind: &OperationKind| match kind {
            OperationKind::Fence(fence) => {
                fence.forced && &fence.node == node && fence.phase != FencePhase::Proven
            }
            OperationKind::Drain(_) | OperationKind::Migration(_) | OperationKind::Rollout(_) => false,
        };
        self.active(of_node).first().copied()
    }

    /// A node that answers again needs no fencing any more.
    pub(super) fn release_fences(&mut self, node: &NodeId, why: &str) {
        let of_node = |kind: &OperationKind| match kind {
            OperationKind::Fence(fence) => &fence.node == node,
            OperationKind::Drain(_) | OperationKind::Migration(_) | OperationKind::Rollout(_) => false,
        };
        let proven = |operation: &Operation| matches!(&operation.kind, OperationKind::Fence(fence) if fence.phase == FencePhase::Proven);
        for id in self.active(of_node) {
            // Its return is what the rest of a proven one was for.
            if self.state.operations.get(&id).is_some_and(proven) {
                self.end(id, OperationResult::Done);
            } else {
                self.set_fence_phase(id, FencePhase::Released);
                self.end(id, OperationResult::Released(why.to_owned()));
            }
        }
    }

    pub(super) fn set_fence_phase(&mut self, id: OperationId, phase: FencePhase) {
        self.change_operation(id, |operation| {
            if let OperationKind::Fence(fence) = &mut operation.kind {
                fence.phase = phase;
            }
        });
    }

    /// Commits that a fenced node is off. What its level switches on again is left to do.
    pub(super) fn prove_off(&mut self, id: OperationId, fence: &FenceRecord) {
        let proof = NodeProof::Fenced { operation: id, revision: self.state.revision };
        self.set_proof(&fence.node, proof);
        self.set_fence_phase(id, FencePhase::Proven);
        let levels = self.state.nodes.get(&fence.node).map(|record| &record.facts.fencing);
        let level = levels.and_then(|levels| levels.get(fence.level as usize));
        if level.is_some_and(|level| level.iter().any(|method| method.action == FenceAction::Reboot)) {
            self.change_operation(id, |operation| {
                if let OperationKind::Fence(fence) = &mut operation.kind {
                    fence.method = 0;
                }
            });
        } else {
            self.end(id, OperationResult::Done);
        }
    }

    /// A removed node is drained for good.
    pub(super) fn finish_drain_of_removed(&mut self, node: &NodeId) {
        if let Some(drain) = self.active_drain(node) {
            self.end(drain, OperationResult::Done);
        }
    }

    pub(super) fn cancel(&mut self, id: OperationId) -> Outcome {
        let operation = self.under_way(id)?.clone();
        if operation.cancelling {
            return Ok(Reply::Unchanged);
        }
        match &operation.kind {
            OperationKind::Drain(drain) => {
                self.cancel_drain(id);
                let leaving = self.state.nodes.get(&drain.node).is_some_and(|node| node.leaving);
                if !drain.was_cordoned && !leaving {
                    self.set_cordon(&drain.node, false);
                }
                Ok(Reply::Accepted)
            }
            OperationKind::Migration(migration) if migration.phase == MigrationPhase::RollingBack => {
                Err(refused(format!("operation {id} is rolling back already"), "wait for its end"))
            }
            OperationKind::Migration(_) => {
                self.cancel_migration(id);
                Ok(Reply::Accepted)
            }
            OperationKind::Rollout(rollout) => self.roll_back(&rollout.service, rollout.version),
            // Off it is: only the switching on is left away.
            OperationKind::Fence(fence) if fence.phase == FencePhase::Proven => {
                self.end(id, OperationResult::Done);
                Ok(Reply::Accepted)
            }
            OperationKind::Fence(fence) if fence.by_node.is_none() => {
                self.set_fence_phase(id, FencePhase::Released);
                self.end(id, OperationResult::Cancelled);
                Ok(Reply::Accepted)
            }
            // The attempt under way cannot be called back; its outcome ends the operation.
            OperationKind::Fence(_) => {
                self.change_operation(id, |operation| operation.cancelling = true);
                Ok(Reply::Accepted)
            }
        }
    }

    /// Deploys what the rollout was to replace; copies not replaced yet stay untouched.
    fn roll_back(&mut self, service: &crate::ids::ServiceName, version: crate::ids::Version) -> Outcome {
        let record = self.service(service)?;
        let Some(older) = record.versions.iter().find(|known| known.version < version).cloned() else {
            return Err(refused(
                format!("no older version of {service} is remembered"),
                "deploy the spec that is wanted",
            ));
        };
        if older.spec == record.spec {
            return Err(refused(
                format!("{service} is being restarted with the same spec; there is nothing to go back to"),
                "wait for its end",
            ));
        }
        self.deploy(&older.spec)
    }
}

impl OperationKind {
    /// The drain it belongs to.
    pub fn parent(&self) -> Option<OperationId> {
        match self {
            OperationKind::Migration(migration) => migration.parent,
            OperationKind::Drain(_) | OperationKind::Rollout(_) | OperationKind::Fence(_) => None,
        }
    }

    /// What it does, for people.
    pub fn words(&self) -> String {
        match self {
            OperationKind::Drain(drain) => format!("drain of {}", drain.node),
            OperationKind::Migration(migration) => {
                match migration.target.as_ref().or(migration.wanted_target.as_ref()) {
                    Some(target) => {
                        format!("move of {} from {} to {target}", migration.slot, migration.source)
                    }
                    None => format!("move of {} from {}", migration.slot, migration.source),
                }
            }
            OperationKind::Rollout(rollout) => {
                format!("rollout of {} to version {}", rollout.service, rollout.version)
            }
            OperationKind::Fence(fence) => format!("fencing of {}", fence.node),
        }
    }
}

impl OperationResult {
    /// How it ended, for people and JSON.
    pub fn words(&self) -> String {
        match self {
            OperationResult::Done => "done".to_owned(),
            OperationResult::RolledBack(why) => format!("rolled back: {why}"),
            OperationResult::Failed(why) => format!("failed: {why}"),
            OperationResult::Cancelled => "cancelled".to_owned(),
            OperationResult::Released(why) => format!("not needed any more: {why}"),
        }
    }
}

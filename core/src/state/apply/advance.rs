//! The steps of operations: each is taken once, at the step the planner saw, and only where it fits.

use super::{Entry, Outcome, bounded, limits, refused};
use crate::command::OperationStep;
use crate::event::Event;
use crate::ids::OperationId;
use crate::state::{
    FencePhase, FenceRecord, MigrationPhase, MigrationRecord, Operation, OperationKind, OperationNote,
    OperationResult, Rejection, Reply,
};

impl Entry<'_> {
    pub(super) fn advance(&mut self, id: OperationId, from: u32, step: &OperationStep) -> Outcome {
        let operation = self.under_way(id)?.clone();
        if operation.step != from {
            return Err(refused(
                format!("operation {id} is at step {}, not at {from} any more", operation.step),
                "look again",
            ));
        }
        match (&operation.kind, step) {
            (OperationKind::Migration(migration), _) => {
                self.advance_migration(id, &operation, migration, step)
            }
            (OperationKind::Fence(fence), _) => self.advance_fence(id, &operation, fence, step),
            (OperationKind::Drain(drain), OperationStep::Finish) => {
                if let Some((slot, _)) = self.state.claims_on(&drain.node).next() {
                    return Err(refused(
                        format!("{} still holds {slot}", drain.node),
                        "wait until it has moved",
                    ));
                }
                self.finish(id, step, OperationResult::Done)
            }
            (OperationKind::Rollout(rollout), OperationStep::Finish) => {
                let older =
                    super::services::slots_of(self.state, &rollout.service).into_iter().find(|slot| {
                        let claims = self.state.slots.get(slot).map_or(&[][..], |record| &record.claims);
                        claims.iter().any(|claim| claim.version < rollout.version)
                    });
                if let Some(slot) = older {
                    return Err(refused(
                        format!("{slot} still has an older copy"),
                        "wait until it is replaced",
                    ));
                }
                self.finish(id, step, OperationResult::Done)
            }
            (OperationKind::Drain(_) | OperationKind::Rollout(_), OperationStep::Fail { because }) => {
                self.finish(id, step, OperationResult::Failed(bounded(because, limits::TEXT_BYTES)))
            }
            (OperationKind::Drain(_) | OperationKind::Rollout(_), _) => Err(unfit(id, &operation.kind, step)),
        }
    }

    fn advance_migration(
        &mut self,
        id: OperationId,
        operation: &Operation,
        migration: &MigrationRecord,
        step: &OperationStep,
    ) -> Outcome {
        use MigrationPhase::{Copying, Planned, Preparing, RollingBack, Switchover, Verifying};
        match (step, migration.phase) {
            (OperationStep::Prepare { target }, Planned | Preparing | Copying) => {
                self.check_target(&migration.slot, &migration.source, target)?;
                let phase = if self.source_has_state(migration) { Copying } else { Preparing };
                self.step_migration(id, step, |migration| {
                    migration.target = Some(target.clone());
                    migration.phase = phase;
                    (migration.passes, migration.bytes) = (0, 0);
                })
            }
            (OperationStep::Copied { pass, bytes, .. }, Copying | Switchover | RollingBack) => {
                self.check_copied(id, migration, *pass)?;
                self.step_migration(id, step, |migration| {
                    migration.passes = *pass;
                    migration.bytes = migration.bytes.saturating_add(*bytes);
                })
            }
            (OperationStep::Switchover, Preparing | Copying) => self.switch_over(id, migration, step),
            (OperationStep::Verify, Switchover) if migration.granted.is_some() => {
                self.step_migration(id, step, |migration| migration.phase = Verifying)
            }
            (OperationStep::RollBack { because }, Switchover | Verifying) => {
                self.begin_rollback(id, migration, because, step)
            }
            (OperationStep::Finish, Verifying) => {
                self.change_migration(id, |migration| migration.phase = MigrationPhase::Done);
                self.finish(id, step, OperationResult::Done)
            }
            (OperationStep::Finish, RollingBack) => {
                if !self.returned(migration) {
                    return Err(refused(
                        format!("{} is not given back to {} yet", migration.slot, migration.source),
                        "grant it there first",
                    ));
                }
                let why = migration.rollback.clone().unwrap_or_default();
                self.change_migration(id, |migration| migration.phase = MigrationPhase::RolledBack);
                self.finish(id, step, OperationResult::RolledBack(why))
            }
            (OperationStep::Fail { because }, _) => {
                self.finish(id, step, OperationResult::Failed(bounded(because, limits::TEXT_BYTES)))
            }
            _ => Err(unfit(id, &operation.kind, step)),
        }
    }

    /// Passes count up; one that replaces what ran may only begin after that has ended.
    fn check_copied(&self, id: OperationId, migration: &MigrationRecord, pass: u32) -> Result<(), Rejection> {
        if pass != migration.passes + 1 {
            return Err(refused(
                format!("operation {id} has {} passes, and {pass} is not the next", migration.passes),
                "look again",
            ));
        }
        let running = match migration.phase {
            MigrationPhase::Switchover => Some(migration.source_token),
            MigrationPhase::RollingBack => migration.granted,
            MigrationPhase::Planned
            | MigrationPhase::Preparing
            | MigrationPhase::Copying
            | MigrationPhase::Verifying
            | MigrationPhase::Done
            | MigrationPhase::RolledBack => None,
        };
        match running.filter(|token| self.claim(&migration.slot, *token).is_ok()) {
            None => Ok(()),
            Some(token) => Err(refused(
                format!("{}@{token} has not ended: its state may still change", migration.slot),
                "copy once it has stopped",
            )),
        }
    }

    /// The source is told to stop: from here on the slot changes hands, or comes back by a new grant.
    fn switch_over(&mut self, id: OperationId, migration: &MigrationRecord, step: &OperationStep) -> Outcome {
        let slot = &migration.slot;
        let claim = self.claim(slot, migration.source_token)?;
        let Some(target) = &migration.target else {
            return Err(refused(format!("operation {id} has no target yet"), "look again"));
        };
        self.check_target(slot, &migration.source, target)?;
        if migration.passes == 0 && self.source_has_state(migration) {
            return Err(refused(format!("the state of {slot} is not copied yet"), "copy it first"));
        }
        if claim.stop.is_none() {
            if self.tokens.contains(slot) {
                return Err(refused(format!("{slot} was decided on in this entry already"), "look again"));
            }
            self.order_stop(slot, migration.source_token, &format!("operation {id} moves it to {target}"));
        }
        self.step_migration(id, step, |migration| migration.phase = MigrationPhase::Switchover)
    }

    /// Whatever was granted to the target is told to stop; the source gets a new grant once that ended.
    fn begin_rollback(
        &mut self,
        id: OperationId,
        migration: &MigrationRecord,
        because: &str,
        step: &OperationStep,
    ) -> Outcome {
        let slot = &migration.slot;
        let granted = migration
            .granted
            .filter(|token| self.claim(slot, *token).is_ok_and(|claim| claim.stop.is_none()));
        if let Some(token) = granted {
            if self.tokens.contains(slot) {
                return Err(refused(format!("{slot} was decided on in this entry already"), "look again"));
            }
            self.order_stop(slot, token, &format!("operation {id} rolls back: {because}"));
        }
        let because = bounded(because, limits::TEXT_BYTES);
        self.step_migration(id, step, |migration| {
            migration.phase = MigrationPhase::RollingBack;
            migration.rollback = Some(because);
        })
    }

    /// Has a migration that rolls back granted the slot to its source again?
    fn returned(&self, migration: &MigrationRecord) -> bool {
        migration
            .granted
            .and_then(|token| self.claim(&migration.slot, token).ok())
            .is_some_and(|claim| claim.node == migration.source)
    }

    fn source_has_state(&self, migration: &MigrationRecord) -> bool {
        self.has_state(&migration.slot, migration.source_token)
    }

    fn advance_fence(
        &mut self,
        id: OperationId,
        operation: &Operation,
        fence: &FenceRecord,
        step: &OperationStep,
    ) -> Outcome {
        let cancelling = operation.cancelling && fence.phase != FencePhase::Proven;
        match step {
            OperationStep::FenceAttempt { by, attempt, level, method }
                if fence.phase != FencePhase::Proven =>
            {
                self.check_attempt(id, fence, by, (*attempt, *level, *method))?;
                self.step_fence(id, step, |fence| {
                    fence.phase = FencePhase::Running;
                    fence.by_node = Some(by.clone());
                    (fence.attempt, fence.level, fence.method) = (*attempt, *level, *method);
                })
            }
            OperationStep::FenceFailed { output } if fence.phase == FencePhase::Running => {
                self.step_fence(id, step, |fence| {
                    fence.by_node = None;
                    fence.output = bounded(output, limits::TEXT_BYTES);
                })
            }
            OperationStep::FenceProven { output } if fence.phase == FencePhase::Running => {
                self.check_judged(fence)?;
                let methods =
                    self.node(&fence.node)?.facts.fencing.get(fence.level as usize).map_or(0, Vec::len);
                // All methods of a level have to succeed: a node with two supplies is off when both are.
                let more = fence.method as usize + 1 < methods;
                self.step_fence(id, step, |fence| {
                    fence.by_node = None;
                    fence.output = bounded(output, limits::TEXT_BYTES);
                    fence.method += u32::from(more);
                })?;
                if !more {
                    self.prove_off(id, fence);
                }
                Ok(Reply::Accepted)
            }
            OperationStep::PowerOn { by, attempt, method } if fence.phase == FencePhase::Proven => {
                self.check_attempt(id, fence, by, (*attempt, fence.level, *method))?;
                self.step_fence(id, step, |fence| {
                    fence.by_node = Some(by.clone());
                    (fence.attempt, fence.method) = (*attempt, *method);
                })
            }
            OperationStep::PoweredOn { output } | OperationStep::FenceFailed { output }
                if fence.phase == FencePhase::Proven && fence.by_node.is_some() =>
            {
                self.step_fence(id, step, |fence| {
                    fence.by_node = None;
                    fence.output = bounded(output, limits::TEXT_BYTES);
                    fence.method += u32::from(matches!(step, OperationStep::PoweredOn { .. }));
                })
            }
            OperationStep::Finish if fence.phase == FencePhase::Proven => {
                self.finish(id, step, OperationResult::Done)
            }
            OperationStep::Fail { .. } if cancelling => {
                self.set_fence_phase(id, FencePhase::Released);
                self.finish(id, step, OperationResult::Cancelled)
            }
            OperationStep::Fail { because } if fence.phase != FencePhase::Proven => {
                self.set_fence_phase(id, FencePhase::Failed);
                self.finish(id, step, OperationResult::Failed(bounded(because, limits::TEXT_BYTES)))
            }
            OperationStep::FenceFailed { .. }
            | OperationStep::FenceProven { .. }
            | OperationStep::PowerOn { .. }
            | OperationStep::PoweredOn { .. }
            | OperationStep::Fail { .. }
            | OperationStep::Prepare { .. }
            | OperationStep::Copied { .. }
            | OperationStep::Switchover
            | OperationStep::Verify
            | OperationStep::RollBack { .. }
            | OperationStep::FenceAttempt { .. }
            | OperationStep::Finish => Err(unfit(id, &operation.kind, step)),
        }
    }

    /// Only a node that is lost in the epoch it was judged in is ever fenced.
    fn check_judged(&self, fence: &FenceRecord) -> Result<(), Rejection> {
        let record = self.node(&fence.node)?;
        if record.lost() && record.lease_epoch == fence.lease_epoch {
            return Ok(());
        }
        Err(refused(
            format!("{} is not lost in lease epoch {}", fence.node, fence.lease_epoch),
            "it is committed lost first",
        ))
    }

    fn check_attempt(
        &self,
        id: OperationId,
        fence: &FenceRecord,
        by: &crate::ids::NodeId,
        (attempt, level, method): (u32, u32, u32),
    ) -> Result<(), Rejection> {
        self.check_judged(fence)?;
        if self.node(by)?.lost() || by == &fence.node {
            return Err(refused(format!("{by} cannot fence {}", fence.node), "let another node do it"));
        }
        if attempt != fence.attempt + 1 {
            return Err(refused(
                format!("operation {id} is at attempt {}, and {attempt} is not the next", fence.attempt),
                "look again",
            ));
        }
        let methods = self.node(&fence.node)?.facts.fencing.get(level as usize);
        if methods.is_none_or(|methods| method as usize >= methods.len()) {
            return Err(refused(
                format!("{} has no fence method {method} at level {level}", fence.node),
                "look again",
            ));
        }
        Ok(())
    }

    fn step_fence(
        &mut self,
        id: OperationId,
        step: &OperationStep,
        change: impl FnOnce(&mut FenceRecord),
    ) -> Outcome {
        self.change_operation(id, |operation| {
            if let OperationKind::Fence(fence) = &mut operation.kind {
                change(fence);
            }
        });
        Ok(self.stepped(id, step))
    }

    fn step_migration(
        &mut self,
        id: OperationId,
        step: &OperationStep,
        change: impl FnOnce(&mut MigrationRecord),
    ) -> Outcome {
        self.change_migration(id, change);
        Ok(self.stepped(id, step))
    }

    fn finish(&mut self, id: OperationId, step: &OperationStep, result: OperationResult) -> Outcome {
        self.note(id, step);
        self.end(id, result);
        Ok(Reply::Accepted)
    }

    fn stepped(&mut self, id: OperationId, step: &OperationStep) -> Reply {
        if let Some(what) = self.note(id, step) {
            self.emit(Event::OperationAdvanced { operation: id, what });
        }
        Reply::Accepted
    }

    /// Writes the step into the history and raises the counter.
    fn note(&mut self, id: OperationId, step: &OperationStep) -> Option<String> {
        let note = OperationNote { at: self.at, step: trimmed(step) };
        self.change_operation(id, |operation| {
            operation.step += 1;
            operation.history.push(note);
            if operation.history.len() > limits::OPERATION_NOTES {
                operation.history.remove(0);
            }
            format!("{}: {}", operation.kind.words(), step.words())
        })
    }
}

fn unfit(id: OperationId, kind: &OperationKind, step: &OperationStep) -> Rejection {
    let phase = match kind {
        OperationKind::Migration(migration) => migration.phase.name(),
        OperationKind::Fence(fence) => fence.phase.name(),
        OperationKind::Drain(_) | OperationKind::Rollout(_) => "under way",
    };
    refused(format!("operation {id} is {phase}: {} does not fit", step.words()), "look again")
}

/// A step with its texts cut to what State keeps.
fn trimmed(step: &OperationStep) -> OperationStep {
    let cut = |text: &String| bounded(text, limits::TEXT_BYTES);
    match step {
        OperationStep::Copied { pass, bytes, digest } => {
            OperationStep::Copied { pass: *pass, bytes: *bytes, digest: bounded(digest, limits::NAME_BYTES) }
        }
        OperationStep::RollBack { because } => OperationStep::RollBack { because: cut(because) },
        OperationStep::FenceFailed { output } => OperationStep::FenceFailed { output: cut(output) },
        OperationStep::FenceProven { output } => OperationStep::FenceProven { output: cut(output) },
        OperationStep::PoweredOn { output } => OperationStep::PoweredOn { output: cut(output) },
        OperationStep::Fail { because } => OperationStep::Fail { because: cut(because) },
        OperationStep::Prepare { .. }
        | OperationStep::Switchover
        | OperationStep::Verify
        | OperationStep::FenceAttempt { .. }
        | OperationStep::PowerOn { .. }
        | OperationStep::Finish => step.clone(),
    }
}

impl OperationStep {
    /// What happens in it, for people.
    pub fn words(&self) -> String {
        match self {
            OperationStep::Prepare { target } => format!("{target} is chosen"),
            OperationStep::Copied { pass, bytes, .. } => format!("copied {bytes} bytes in pass {pass}"),
            OperationStep::Switchover => "the source is told to stop".to_owned(),
            OperationStep::Verify => "the new copy's health is watched".to_owned(),
            OperationStep::RollBack { because } => format!("rolls back: {because}"),
            OperationStep::FenceAttempt { by, attempt, level, .. } => {
                format!("{by} makes attempt {attempt}, level {}", level + 1)
            }
            OperationStep::FenceFailed { output } => format!("the attempt proved nothing: {output}"),
            OperationStep::FenceProven { output } => format!("read back as off: {output}"),
            OperationStep::PowerOn { by, .. } => format!("{by} switches it on again"),
            OperationStep::PoweredOn { output } => format!("switched on: {output}"),
            OperationStep::Finish => "finished".to_owned(),
            OperationStep::Fail { because } => format!("failed: {because}"),
        }
    }
}

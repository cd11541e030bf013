//! Drives each migration one step at a time: target, copy, switchover, grant, health. Before the stop a
//! trouble ends it with the source untouched; after the stop it gives the slot back (see `rollback`).

use super::desk::Desk;
use super::failover;
use super::placement::{Wish, place};
use super::rollback;
use crate::command::OperationStep;
use crate::ids::{NodeId, OperationId, SlotId};
use crate::observation::{Health, InstancePhase, InstanceReport, TransferOutcome, TransferReport};
use crate::spec::ServiceSpec;
use crate::state::{
    Claim, MigrationPhase, MigrationRecord, Operation, OperationKind, PASS_RUNNING, PASS_STOPPED, Refusal,
    ServiceRecord, WaitCause,
};

/// Added to the time a start may take before the new copy counts as failed.
const START_MARGIN_MS: u64 = 10_000;

/// One running migration.
pub(super) struct Move<'a> {
    pub id: OperationId,
    pub operation: &'a Operation,
    pub record: &'a MigrationRecord,
    pub service: &'a ServiceRecord,
    pub claims: &'a [Claim],
}

impl<'a> Move<'a> {
    pub fn slot(&self) -> &'a SlotId {
        &self.record.slot
    }

    /// The claim it moves, while it lasts.
    pub fn source_claim(&self) -> Option<&'a Claim> {
        self.claims.iter().find(|claim| claim.token == self.record.source_token)
    }

    /// A claim that this migration made on a node.
    pub fn own_claim(&self, node: &NodeId) -> Option<&'a Claim> {
        self.claims.iter().find(|claim| claim.operation == Some(self.id) && claim.node == *node)
    }

    /// Another node in good standing that runs the slot: one lost earlier that came back with its copy.
    pub fn elsewhere(&self, desk: &Desk<'_>) -> Option<&'a NodeId> {
        let stands = |claim: &&Claim| {
            claim.stop.is_none() && claim.operation != Some(self.id) && !desk.lost(&claim.node)
        };
        self.claims.iter().find(stands).map(|claim| &claim.node)
    }

    /// Does it copy state? Settled with the first pass: a spec that changes later changes nothing here.
    pub fn has_state(&self) -> bool {
        if self.record.phase < MigrationPhase::Switchover {
            self.service.spec.state_dir.is_some()
        } else {
            self.record.passes >= PASS_RUNNING
        }
    }

    pub fn step(&self, desk: &mut Desk<'_>, step: OperationStep) {
        desk.advance(self.id, self.operation, step);
    }

    pub fn fail(&self, desk: &mut Desk<'_>, because: impl Into<String>) {
        self.step(desk, OperationStep::Fail { because: because.into() });
    }

    pub fn roll_back(&self, desk: &mut Desk<'_>, because: impl Into<String>) {
        if desk.decide(self.slot()) {
            self.step(desk, OperationStep::RollBack { because: because.into() });
        }
    }

    /// Gives the slot to a node, unless another copy stands in the way: one that runs makes the migration
    /// needless, one that stops is waited for.
    pub fn grant(&self, desk: &mut Desk<'_>, node: &NodeId, because: String) {
        if let Some(detail) = failover::settling(desk, &self.slot().service, self.service) {
            return self.wait(desk, WaitCause::Other { detail });
        }
        match failover::in_the_way(desk, self.slot(), self.service, node) {
            None => failover::grant(desk, self.slot(), self.service, node, Some(self.id), because),
            Some(claim) if claim.stop.is_none() && !desk.lost(&claim.node) => {
                self.fail(desk, format!("{} runs on {} already", self.slot(), claim.node));
            }
            Some(claim) => {
                let because = "it ends before the slot is granted again".to_owned();
                self.wait(desk, WaitCause::Stopping { node: claim.node.clone(), because });
            }
        }
    }

    pub fn wait(&self, desk: &mut Desk<'_>, cause: WaitCause) {
        desk.wait_both(self.id, self.slot(), cause, None);
    }
}

/// Takes every running migration as far as it goes now.
pub(super) fn plan(desk: &mut Desk<'_>) {
    for (id, operation) in desk.running() {
        let OperationKind::Migration(record) = &operation.kind else { continue };
        let fail = |desk: &mut Desk<'_>, because: String| {
            desk.advance(id, operation, OperationStep::Fail { because });
        };
        let Some(service) = desk.service(&record.slot.service) else {
            fail(desk, format!("{} does not exist any more", record.slot.service));
            continue;
        };
        if !desk.wanted(&record.slot) {
            fail(desk, format!("{} is not wanted any more", record.slot));
            continue;
        }
        let it = Move { id, operation, record, service, claims: desk.claims(&record.slot) };
        match record.phase {
            MigrationPhase::Planned => planned(desk, &it),
            MigrationPhase::Preparing | MigrationPhase::Copying => copying(desk, &it),
            MigrationPhase::Switchover => switchover(desk, &it),
            MigrationPhase::Verifying => verifying(desk, &it),
            MigrationPhase::RollingBack => rollback::drive(desk, &it),
            MigrationPhase::Done | MigrationPhase::RolledBack => it.step(desk, OperationStep::Finish),
        }
    }
}

/// What ends a migration before its stop: then the source simply goes on.
fn obsolete(desk: &Desk<'_>, it: &Move<'_>) -> Option<String> {
    let source = &it.record.source;
    if it.operation.cancelling {
        return Some("cancelled".to_owned());
    }
    match it.source_claim() {
        None => Some(format!("{} is not on {source} any more", it.slot())),
        Some(claim) if desk.ends(it.slot(), claim) => Some(format!("{} has ended on {source}", it.slot())),
        Some(_) if desk.lost(source) => Some(format!("{source} is lost: failover decides where it goes")),
        Some(claim) if claim.stop.is_some() => Some(format!("{} is stopped on {source} anyway", it.slot())),
        Some(claim) if it.service.spec_of(claim.version).state_dir != it.service.spec.state_dir => {
            Some(format!("the state folder of {} changes with version {}", it.slot(), it.service.version))
        }
        Some(_) => None,
    }
}

fn planned(desk: &mut Desk<'_>, it: &Move<'_>) {
    if let Some(why) = obsolete(desk, it) {
        return it.fail(desk, why);
    }
    if let Err(detail) = desk.may_disturb(it.slot())
        && let Some(other) = desk.unplaced(it.slot())
    {
        // It would take the place that the other one needs, and then wait for it.
        return match it.record.parent {
            Some(_) => it.wait(desk, WaitCause::Throttled { detail }),
            None => it.fail(desk, format!("{other} has no place yet: {detail}")),
        };
    }
    choose(desk, it, it.record.wanted_target.as_ref());
}

fn choose(desk: &mut Desk<'_>, it: &Move<'_>, wanted: Option<&NodeId>) {
    let source = &it.record.source;
    let wish = Wish { only: wanted, leave: Some(source), ..Wish::anywhere(it.slot(), &it.service.spec) };
    match (place(desk, &wish), wanted) {
        (Ok(choice), _) => {
            desk.room.take(it.slot(), &choice.node, &it.service.spec);
            it.step(desk, OperationStep::Prepare { target: choice.node });
        }
        (Err(refusals), Some(wanted)) => {
            let why = refusals.into_iter().find(|(node, _)| node == wanted).map(|(_, refusal)| refusal);
            let why = why.map_or_else(|| "it is not a node here".to_owned(), |refusal| refusal.to_string());
            it.fail(desk, format!("{wanted} cannot take {}: {why}", it.slot()));
        }
        (Err(refusals), None) => {
            // Who is only away may be back soon; everything else stays as it is until somebody changes it.
            let hope = refusals.iter().any(|(_, refusal)| matches!(refusal, Refusal::NotAlive(_)));
            if hope || it.record.parent.is_some() {
                return it.wait(desk, WaitCause::NoNodeFits { refusals });
            }
            let others = refusals.iter().filter(|(node, _)| node != source);
            let why: Vec<String> = others.map(|(node, refusal)| format!("{node}: {refusal}")).collect();
            it.fail(desk, format!("no node can take {}: {}", it.slot(), why.join("; ")));
        }
    }
}

/// Does the chosen target still take the slot, with the room kept there?
fn refusal(desk: &Desk<'_>, it: &Move<'_>, target: &NodeId) -> Option<Refusal> {
    let wish = Wish {
        only: Some(target),
        leave: Some(&it.record.source),
        room_kept: true,
        ..Wish::anywhere(it.slot(), &it.service.spec)
    };
    let refusals = place(desk, &wish).err()?;
    refusals.into_iter().find(|(node, _)| node == target).map(|(_, refusal)| refusal)
}

fn copying(desk: &mut Desk<'_>, it: &Move<'_>) {
    if let Some(why) = obsolete(desk, it) {
        return it.fail(desk, why);
    }
    let Some(target) = &it.record.target else { return choose(desk, it, it.record.wanted_target.as_ref()) };
    if let Some(refusal) = refusal(desk, it, target) {
        return match &it.record.wanted_target {
            Some(_) => it.fail(desk, format!("{target} cannot take {} any more: {refusal}", it.slot())),
            None => choose(desk, it, None),
        };
    }
    if it.has_state() && it.record.passes < PASS_RUNNING {
        return copy(desk, it, target, PASS_RUNNING, |desk, why| it.fail(desk, why));
    }
    match desk.may_disturb(it.slot()) {
        Err(detail) => match desk.unplaced(it.slot()) {
            Some(other) => it.fail(desk, format!("{other} has no place yet and comes first: {detail}")),
            None => it.wait(desk, WaitCause::Throttled { detail }),
        },
        Ok(()) if desk.decide(it.slot()) => {
            desk.disturbed.insert(it.slot().clone());
            it.step(desk, OperationStep::Switchover);
        }
        Ok(()) => {}
    }
}

/// A pass of copying, as the receiving node reports it.
pub(super) fn transfer<'a>(
    desk: &Desk<'a>,
    it: &Move<'_>,
    to: &NodeId,
    pass: u32,
) -> Option<&'a TransferReport> {
    let transfers = &desk.heard(to)?.report.transfers;
    transfers.iter().find(|transfer| transfer.operation == it.id && transfer.pass == pass)
}

/// Waits for a pass of copying, then records it.
pub(super) fn copy<'a>(
    desk: &mut Desk<'a>,
    it: &Move<'_>,
    to: &NodeId,
    pass: u32,
    failed: impl FnOnce(&mut Desk<'a>, String),
) {
    let Some(report) = transfer(desk, it, to, pass) else {
        return it.wait(desk, WaitCause::Copying { done: 0, total: 0 });
    };
    match &report.outcome {
        None => it.wait(desk, WaitCause::Copying { done: report.bytes_done, total: report.bytes_total }),
        Some(TransferOutcome::Complete { digest }) => {
            let (bytes, digest) = (report.bytes_done, digest.clone());
            it.step(desk, OperationStep::Copied { pass, bytes, digest });
        }
        Some(TransferOutcome::Failed(why)) => failed(desk, format!("copying state to {to} failed: {why}")),
    }
}

fn switchover(desk: &mut Desk<'_>, it: &Move<'_>) {
    let source = &it.record.source;
    let Some(target) = &it.record.target else { return it.roll_back(desk, "no target was chosen") };
    if let Some(claim) = it.own_claim(target) {
        return arriving(desk, it, target, claim);
    }
    if it.record.granted.is_some() {
        return it.fail(desk, format!("the claim on {target} ended: failover decides where it goes"));
    }
    let unsaved = it.has_state() && it.record.passes < PASS_STOPPED;
    if desk.lost(source) && (it.source_claim().is_some() || unsaved) {
        return it.fail(desk, format!("{source} was lost during the switchover: failover decides"));
    }
    if it.source_claim().is_some() {
        let because = format!("it moves to {target}");
        return it.wait(desk, WaitCause::Stopping { node: source.clone(), because });
    }
    if let Some(other) = it.elsewhere(desk) {
        return it.fail(desk, format!("{} runs on {other} already", it.slot()));
    }
    if it.operation.cancelling {
        return it.roll_back(desk, "cancelled");
    }
    if let Some(refusal) = refusal(desk, it, target) {
        return it.roll_back(desk, format!("{target} cannot take it any more: {refusal}"));
    }
    if unsaved {
        return copy(desk, it, target, PASS_STOPPED, |desk, why| it.roll_back(desk, why));
    }
    let because = format!("migration {} from {source}", it.id);
    it.grant(desk, target, because);
}

/// Granted to the target; it is verified from the moment it runs there.
fn arriving(desk: &mut Desk<'_>, it: &Move<'_>, target: &NodeId, claim: &Claim) {
    if let Some(why) = gone_wrong(desk, it, target, claim) {
        return it.roll_back(desk, why);
    }
    match desk.instance(it.slot(), claim) {
        Some(instance) if instance.phase == InstancePhase::Running => it.step(desk, OperationStep::Verify),
        Some(_) | None => it.wait(desk, WaitCause::Starting { node: target.clone() }),
    }
}

fn verifying(desk: &mut Desk<'_>, it: &Move<'_>) {
    let Some(target) = &it.record.target else { return it.roll_back(desk, "no target was chosen") };
    let Some(claim) = it.own_claim(target) else {
        return it.fail(desk, format!("the claim on {target} ended: failover decides where it goes"));
    };
    if let Some(why) = gone_wrong(desk, it, target, claim) {
        return it.roll_back(desk, why);
    }
    if desk.well(it.slot(), claim) {
        return it.step(desk, OperationStep::Finish);
    }
    let said = desk.instance(it.slot(), claim).map(|instance| instance.health_detail.clone());
    it.wait(desk, WaitCause::Health { node: target.clone(), detail: said.unwrap_or_default() });
}

/// Why the new copy is to be given back to the source, if it is.
fn gone_wrong(desk: &Desk<'_>, it: &Move<'_>, target: &NodeId, claim: &Claim) -> Option<String> {
    if it.operation.cancelling {
        return Some("cancelled".to_owned());
    }
    if desk.lost(target) {
        return Some(format!("{target} is lost"));
    }
    if claim.stop.is_some() {
        return Some(format!("the copy on {target} was told to stop"));
    }
    let instance = desk.instance(it.slot(), claim)?;
    failing(instance, it.service.spec_of(claim.version)).map(|why| format!("{} on {target} {why}", it.slot()))
}

/// Why a freshly started copy has failed, if it has.
pub(super) fn failing(instance: &InstanceReport, spec: &ServiceSpec) -> Option<String> {
    let hopeless = |restarts_again: bool| instance.restarts >= 1 || !restarts_again;
    match &instance.phase {
        InstancePhase::Exited(end) => {
            hopeless(end.restarts(spec.restart.when)).then(|| format!("does not stay up: {end}"))
        }
        InstancePhase::StartFailed(why) => hopeless(true).then(|| format!("could not start: {why}")),
        InstancePhase::Running if instance.health == Health::Unhealthy => {
            Some(format!("is unhealthy: {}", instance.health_detail))
        }
        InstancePhase::Running if instance.health.good() => None,
        InstancePhase::Running | InstancePhase::Starting => {
            let limit = start_limit(spec);
            (instance.since.0 > limit).then(|| format!("did not become healthy in {} s", limit / 1_000))
        }
        InstancePhase::Stopping | InstancePhase::Unknown(_) => None,
    }
}

/// How long a start may take, by the service's own health check.
fn start_limit(spec: &ServiceSpec) -> u64 {
    let check = spec.health.as_ref().map_or(0, |health| {
        let round = health.interval.0.saturating_add(health.timeout.0);
        health.start_period.0.saturating_add(round.saturating_mul(u64::from(health.failures)))
    });
    check.saturating_add(START_MARGIN_MS)
}

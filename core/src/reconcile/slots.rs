//! Which instances of this node stop, start or start again, slot by slot. An instance is judged by its
//! token alone: what no unstopped claim of this node, disk and boot covers has to go.

use std::collections::BTreeSet;

use crate::effect::{Effect, Isolation, StartInstance, StopInstance};
use crate::ids::{InstanceId, OperationId, SlotId, Token};
use crate::lease::Lease;
use crate::observation::{
    ExitKind, ExitReason, Health, InstancePhase, InstanceReport, NodeReport, SlotReport,
};
use crate::spec::ServiceSpec;
use crate::state::{Claim, Inventory, MigrationPhase, OperationKind, PASS_STOPPED, ServiceRecord, State};
use crate::units::{BootMs, Millis};

/// SIGTERM, where no spec says otherwise.
const SIGTERM: i32 = 15;
/// The grace of an instance whose service is not known any more.
const ORPHAN_GRACE: Millis = Millis(10_000);

/// What the slots of this node need.
#[derive(Default)]
pub(super) struct Todo {
    pub(super) stops: Vec<Effect>,
    pub(super) starts: Vec<Effect>,
}

/// Stops and starts for every slot that is claimed by, or known on, this node.
pub(super) fn stops_and_starts(state: &State, own: &NodeReport, lease: Option<&Lease>, now: BootMs) -> Todo {
    let mut todo = Todo::default();
    let mut slots: BTreeSet<&SlotId> = own.slots.keys().collect();
    slots.extend(state.claims_on(&own.node).map(|(slot, _)| slot));
    for slot in slots {
        let here = Here { state, own, lease, now, slot };
        if let Some(stop) = here.stop() {
            todo.stops.push(Effect::Stop(stop));
        } else if let Some(start) = here.start() {
            todo.starts.push(Effect::Start(start));
        }
    }
    todo
}

/// Folders of slots whose service is gone, with nothing left that could run.
pub(super) fn folders_to_forget(state: &State, own: &NodeReport) -> Vec<Effect> {
    let gone = |slot: &SlotId, report: &SlotReport| {
        !unheard(state, own)
            && report.highest <= state.token()
            && !state.services.contains_key(&slot.service)
            && state.slots.get(slot).is_none_or(|record| record.claims.is_empty())
            && report.instance.as_ref().is_none_or(|instance| !instance.phase.may_run())
    };
    let slots = own.slots.iter().filter(|(slot, report)| gone(slot, report));
    slots.map(|(slot, _)| Effect::Forget { slot: slot.clone() }).collect()
}

/// Was this node not asked yet what runs here, since a recovery or since it came? A State that does not know this
/// node is older than its admission.
fn unheard(state: &State, own: &NodeReport) -> bool {
    state.nodes.get(&own.node).is_none_or(|record| record.inventory == Inventory::Unheard)
}

/// This node's claims of one slot: its own disk and boot only, oldest first.
fn claims_here<'a>(state: &'a State, own: &NodeReport, slot: &SlotId) -> Vec<&'a Claim> {
    let Some(raft_id) = state.nodes.get(&own.node).map(|record| record.raft_id) else { return Vec::new() };
    let claims = state.slots.get(slot).into_iter().flat_map(|record| &record.claims);
    let mut mine: Vec<&Claim> = claims
        .filter(|claim| claim.node == own.node && claim.boot == own.boot && claim.raft_id == raft_id)
        .collect();
    mine.sort_by_key(|claim| claim.token);
    mine
}

/// A claim of this host and boot that was told to stop. Of whichever disk: after a wipe nobody else can
/// tell that nothing of it runs here.
fn ordered_here<'a>(
    state: &'a State,
    own: &NodeReport,
    slot: &SlotId,
) -> Option<(&'a Claim, &'a crate::state::StopOrder)> {
    let claims = state.slots.get(slot)?.claims.iter();
    let mut mine = claims.filter(|claim| claim.node == own.node && claim.boot == own.boot);
    mine.find_map(|claim| Some((claim, claim.stop.as_ref()?)))
}

/// One slot as this node sees it.
struct Here<'a> {
    state: &'a State,
    own: &'a NodeReport,
    lease: Option<&'a Lease>,
    now: BootMs,
    slot: &'a SlotId,
}

impl Here<'_> {
    fn highest(&self) -> Token {
        self.own.slots.get(self.slot).map_or_else(Token::default, |report| report.highest)
    }

    fn instance(&self) -> Option<&InstanceReport> {
        self.own.slots.get(self.slot)?.instance.as_ref()
    }

    fn service(&self) -> Option<&ServiceRecord> {
        self.state.services.get(&self.slot.service)
    }

    /// What has to stop: an instance that no claim covers, or one whose claim was told to stop.
    fn stop(&self) -> Option<StopInstance> {
        let claims = claims_here(self.state, self.own, self.slot);
        let running = self.instance().filter(|instance| instance.phase.may_run()).map(|i| i.id.token);
        if let Some(token) = running
            && !claims.iter().any(|claim| claim.token == token)
        {
            // Since a recovery nobody knows yet what is whose: it is claimed anew first.
            if unheard(self.state, self.own) {
                return None;
            }
            // A token from beyond our State is of a grant that this replica has yet to apply again.
            return (token <= self.state.token()).then(|| self.stop_uncovered(token));
        }
        let (claim, order) = ordered_here(self.state, self.own, self.slot)?;
        let newer_runs = running.is_some_and(|token| token > order.token);
        let acknowledged = self.highest() >= order.token && running.is_none();
        if newer_runs || acknowledged {
            return None;
        }
        let spec = self.service().map(|service| service.spec_of(claim.version));
        Some(self.stop_with(order.token, spec.map(AsRef::as_ref), order.because.clone()))
    }

    fn stop_uncovered(&self, running: Token) -> StopInstance {
        let epoch = self.state.cluster.epoch;
        let changed = self.state.slots.get(self.slot).map(|record| Token { epoch, revision: record.changed });
        // The revision that took the claim away, so that no later grant is ever voided by this stop.
        let token = changed.filter(|token| *token > running).unwrap_or_else(|| self.state.token());
        let spec = self.service().map(|service| service.spec.as_ref());
        self.stop_with(token, spec, "its claim is not current any more".to_owned())
    }

    fn stop_with(&self, token: Token, spec: Option<&ServiceSpec>, because: String) -> StopInstance {
        StopInstance {
            slot: self.slot.clone(),
            token,
            signal: spec.map_or(SIGTERM, |spec| spec.stop.signal),
            grace: spec.map_or(ORPHAN_GRACE, |spec| spec.stop.grace),
            because,
        }
    }

    /// What has to start: a granted slot with nothing in it, or one whose run ended.
    fn start(&self) -> Option<StartInstance> {
        let claims = claims_here(self.state, self.own, self.slot);
        // A claim waits until the older ones of its slot ended: their acknowledgement must be seen first.
        let [claim] = claims.as_slice() else { return None };
        if claim.stop.is_some() || claim.token < self.highest() {
            return None;
        }
        let service = self.service()?;
        let spec = service.spec_of(claim.version);
        let restart = match self.instance() {
            Some(instance) if instance.id.token == claim.token => {
                let crashed = may_run_again(instance, spec)?;
                let in_place = crashed && spec.runs_without_lease();
                if !in_place && !self.lease_covers(claim) {
                    return None;
                }
                instance.restarts.saturating_add(1)
            }
            Some(instance) if instance.phase.may_run() => return None,
            Some(_) | None if !self.lease_covers(claim) => return None,
            Some(_) | None => 0,
        };
        Some(StartInstance {
            id: InstanceId { slot: self.slot.clone(), token: claim.token },
            spec: spec.clone(),
            version: claim.version,
            restart,
            isolation: isolation(spec),
            host: self.host(),
            state_from: self.staged_state(claim, spec).filter(|_| restart == 0),
        })
    }

    /// Where this node is reached by others, as it said itself.
    fn host(&self) -> String {
        let record = self.state.nodes.get(&self.own.node);
        record.and_then(|record| record.facts.endpoints.first()).map(|at| at.host.clone()).unwrap_or_default()
    }

    /// A live lease of the claim's epoch, and State at least as new as the answer that gave it.
    fn lease_covers(&self, claim: &Claim) -> bool {
        let Some(lease) = self.lease else { return false };
        let Some(record) = self.state.nodes.get(&self.own.node) else { return false };
        lease.live(self.now)
            && self.state.revision >= lease.revision
            && claim.lease_epoch == lease.epoch
            && record.lease_epoch == lease.epoch
            && record.boot == self.own.boot
            && record.settled()
            && !record.lost()
            // What State promises holds from before the start: else nothing starts until State knows.
            && (self.own.guard.armed || !record.facts.armed)
    }

    /// The operation whose staging folder holds the state this claim starts from.
    fn staged_state(&self, claim: &Claim, spec: &ServiceSpec) -> Option<OperationId> {
        spec.state_dir.as_ref()?;
        let id = claim.operation?;
        let OperationKind::Migration(migration) = &self.state.operations.get(&id)?.kind else { return None };
        let given_back = match migration.phase {
            MigrationPhase::RollingBack | MigrationPhase::RolledBack => true,
            MigrationPhase::Planned
            | MigrationPhase::Preparing
            | MigrationPhase::Copying
            | MigrationPhase::Switchover
            | MigrationPhase::Verifying
            | MigrationPhase::Done => false,
        };
        // A source that gets its slot back has its own state, unless the target ran and it was copied back.
        let passes = if given_back { PASS_STOPPED } else { 0 };
        let staged = migration.passes > passes;
        staged.then_some(id)
    }
}

/// May this ended or unhealthy instance be started again now? If so: did it run before?
fn may_run_again(instance: &InstanceReport, spec: &ServiceSpec) -> Option<bool> {
    let policy = &spec.restart;
    let unhealthy = ExitReason { kind: ExitKind::Unhealthy, code: None, signal: None };
    let failed = ExitReason { kind: ExitKind::Failed, code: None, signal: None };
    let (end, ran, crashed) = match &instance.phase {
        InstancePhase::Exited(end) => (end, instance.ran, !end.by_own_host()),
        // It did not run this time: the wait may not start anew. The first start is no restart.
        InstancePhase::StartFailed(_) => {
            (&failed, Millis(0), instance.restarts > 0 && instance.last_exit.is_some())
        }
        InstancePhase::Running if instance.health == Health::Unhealthy => (&unhealthy, instance.since, true),
        InstancePhase::Starting
        | InstancePhase::Running
        | InstancePhase::Stopping
        | InstancePhase::Unknown(_) => return None,
    };
    let due = instance.since >= end.backoff(policy, instance.restarts, ran);
    (end.restarts(policy.when) && due).then_some(crashed)
}

/// What the guard does with an instance of this spec when the lease runs out.
fn isolation(spec: &ServiceSpec) -> Isolation {
    let grace = spec.isolation_grace();
    if spec.runs_without_lease() {
        Isolation::Keep
    } else if grace == Millis(0) {
        Isolation::Kill
    } else {
        Isolation::Stop { grace }
    }
}

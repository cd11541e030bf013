//! What must never be broken, one file for each property. Judged from what truly happens on the simulated
//! hosts; State is only asked where the property is about State itself.

mod acknowledged;
mod agreement;
mod capacity;
mod critical;
mod deadline;
mod evidence;
mod explained;
mod lease;
mod liveness;
mod migration;
mod minimum;
mod no_livelock;
mod one_copy;
mod one_fence;
mod preemption;
mod residual;
mod tally;

use std::sync::Arc;

use super::Count;
use super::ctx::{Ctx, History};
use super::host::{Host, Process};
use super::log::Entry;
use super::operator::Ask;
use super::scenario::name;
use crate::command::Proposal;
use crate::event::EventRecord;
use crate::ids::{Epoch, OperationId, Revision, SlotId, Token};
use crate::lease::LeaseAnswer;
use crate::observation::{ExitKind, Observed};
use crate::state::{Answer, Plan, State};
use crate::units::BootMs;

/// What truly happened.
#[derive(Debug)]
pub(super) enum Truth {
    /// A process began to exist.
    Spawned { host: usize, process: Process },
    /// A staged copy became a slot's state.
    MovedIn { host: usize, slot: SlotId, token: Token, operation: OperationId, content: u64 },
    /// A state folder was read for a copy.
    Fetched { from: usize, to: usize, operation: OperationId },
    /// A process is gone; without a reason its host went.
    Gone { host: usize, process: Process, end: Option<ExitKind> },
    /// A node process sent a heartbeat; did both holders of its deadlines answer then?
    BeatSent { host: usize, session: u64, heartbeat: u64, at: BootMs, armed: bool },
    /// An answer reached the process that had sent the heartbeat.
    AnswerCame { host: usize, session: u64, answer: LeaseAnswer },
    /// A replica applied an entry.
    Applied {
        host: usize,
        /// Of which history it is a member.
        history: History,
        /// The epoch of tokens then.
        epoch: Epoch,
        revision: Revision,
        hash: u64,
        entry: Entry,
        events: Vec<Arc<EventRecord>>,
        /// As it is then, if an operation ended or an inventory was taken.
        state: Option<Box<State>>,
    },
    /// The log went on from its entries up to `kept` as another history; what came after them is gone. What lies
    /// between them and the recovery, at `at`, was never known to be committed: no node stands there, ever.
    Forked { kept: Revision, at: Revision, history: History },
    /// A leader made a plan.
    Planned(Box<(State, Observed, Plan)>),
    /// The planner's proposal was refused, and why.
    Refused(Box<Proposal>, String),
    /// A client got an answer; `first` is the one it had before.
    Answered { ask: usize, first: Option<Answer>, answer: Answer },
}

/// Nothing broken, or what was.
type Judgement = Result<(), String>;

/// All checkers.
pub(super) struct Checkers {
    agreement: agreement::Agreement,
    lease: lease::Leases,
    evidence: evidence::Evidences,
    migration: migration::Migrations,
    acknowledged: acknowledged::Acknowledged,
    no_livelock: no_livelock::NoLivelock,
    minimum: minimum::Minimum,
    critical: critical::Critical,
    /// What the last recovery surely kept, and where it lies.
    forked: (Revision, Revision),
    /// Judged by this one alone, if a test of it says so.
    only: Option<&'static str>,
}

/// The invariant's name and what was seen.
type Breach = (&'static str, String);

impl Checkers {
    pub(super) fn new(hosts: &[Host], only: Option<&'static str>) -> Self {
        Self {
            agreement: agreement::Agreement::default(),
            lease: lease::Leases::new(hosts.len()),
            evidence: evidence::Evidences::default(),
            migration: migration::Migrations::default(),
            acknowledged: acknowledged::Acknowledged::default(),
            no_livelock: no_livelock::NoLivelock::default(),
            minimum: minimum::Minimum::default(),
            critical: critical::Critical::default(),
            forked: (Revision(0), Revision(0)),
            only,
        }
    }

    fn judge(&self, name: &'static str, judgement: Judgement) -> Result<(), Breach> {
        match judgement {
            Err(detail) if self.only.is_none_or(|only| only == name) => Err((name, detail)),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Judges one thing that happened.
    pub(super) fn see(&mut self, truth: &Truth, hosts: &[Host], ctx: &mut Ctx) -> Result<(), Breach> {
        let agreed = self.agreement.see(truth);
        self.judge("equal_revision_means_equal_state_hash", agreed)?;
        match truth {
            // Each commit is judged once: when the first replica applies it.
            Truth::Applied { revision, history, .. }
                if self.agreement.newest() == Some(*revision) && *history == ctx.history =>
            {
                self.committed(truth, hosts, ctx)?;
            }
            Truth::Spawned { host, process } => self.spawned(*host, process, hosts, ctx)?,
            Truth::Gone { host, process, end } => {
                let judged = self.critical.gone(&hosts[*host], process, *end);
                self.judge("critical_keeps_running_on_a_node_that_is_cut_off", judged)?;
            }
            Truth::Forked { kept, at, .. } => {
                self.forked = (*kept, *at);
                self.evidence.forked(*kept);
                self.critical.forked();
                let lost = self.acknowledged.forked(*kept);
                (0..lost).for_each(|_| ctx.count(Count::WritesLost));
                self.migration = migration::Migrations::default();
            }
            Truth::Planned(seen) => {
                let (state, observed, plan) = seen.as_ref();
                let said = explained::planned(state, observed, plan);
                self.judge("everything_that_does_not_run_says_why", said)?;
                self.judge("one_fence_for_each_target_at_a_time", one_fence::planned(state))?;
                let downward = preemption::planned(state, plan, ctx);
                self.judge("preemption_is_only_downward", downward)?;
                let kept = self.minimum.planned(state, observed, plan, hosts, ctx.now);
                self.judge("an_operation_never_breaks_a_minimum", kept)?;
            }
            _ => {}
        }
        let kept = self.acknowledged.see(truth);
        self.judge("acknowledged_commands_are_never_lost", kept)?;
        let possible = self.no_livelock.see(truth);
        self.judge("the_plan_asks_for_what_is_possible", possible)?;
        self.lease.see(truth, hosts, ctx.now);
        self.migration.see(truth);
        self.minimum.see(truth, ctx.now);
        Ok(())
    }

    fn committed(&mut self, truth: &Truth, hosts: &[Host], ctx: &mut Ctx) -> Result<(), Breach> {
        let Truth::Applied { events, revision, epoch, state, .. } = truth else { return Ok(()) };
        tally::count(ctx, events);
        let at = Token { epoch: *epoch, revision: *revision };
        self.critical.committed(at, events);
        let excused = residual::hosts(hosts, &self.lease, ctx.now);
        // What nobody knew to be committed comes with the recovery that follows it: nobody acts by it before all is
        // unheard again.
        let (kept, begun) = self.forked;
        if *revision > kept && *revision < begun {
            self.evidence.replayed(*revision, events);
        } else {
            let ended = self.evidence.committed(*revision, events, hosts, &excused);
            self.judge("no_claim_ends_while_its_instance_runs", ended)?;
        }
        if let Some(state) = state {
            self.critical.inventories(at, events, state);
            self.evidence.inventories(events, state);
            let owned = migration::ended(events, state, hosts, &self.evidence, &excused);
            self.judge("a_migration_ends_with_one_owner", owned)?;
        }
        let lost = self.acknowledged.committed(truth);
        self.judge("acknowledged_commands_are_never_lost", lost)
    }

    fn spawned(
        &mut self,
        host: usize,
        process: &Process,
        hosts: &[Host],
        ctx: &mut Ctx,
    ) -> Result<(), Breach> {
        let excused = residual::hosts(hosts, &self.lease, ctx.now);
        let alone = one_copy::spawned(host, process, hosts, &self.evidence, &excused);
        if alone == Ok(true) {
            ctx.count(Count::ResidualRuns);
            let (slot, here) = (&process.slot, name(host));
            for (other, _) in one_copy::twins(host, process, hosts) {
                let there = name(other);
                ctx.tell(
                    "TWICE",
                    format_args!("{slot} on {here} and on {there}: nothing inside of a host that stands still prevents it"),
                );
            }
        }
        self.judge("no_exclusive_slot_runs_twice", alone.map(|_| ()))?;
        let leased = self.lease.spawned(host, process, hosts, ctx);
        self.judge("nothing_starts_without_a_live_lease", leased)?;
        let current = self.evidence.spawned(host, process, &excused);
        self.judge("nothing_starts_under_a_token_that_is_not_current", current)?;
        self.judge("capacity_is_never_exceeded", capacity::spawned(host, hosts))?;
        let whole = self.migration.spawned(host, process, hosts);
        self.judge("a_migration_loses_no_state", whole)
    }

    /// Looks over a host, again and again.
    pub(super) fn scan(&mut self, host: &Host, ctx: &Ctx) -> Result<(), Breach> {
        let dead = deadline::scan(host, self.lease.valid_until(host), ctx);
        self.judge("what_lost_its_lease_is_dead_by_its_deadline", dead)
    }

    /// After the heal: does everything run that should?
    pub(super) fn all_well(&self, hosts: &[Host], ctx: &Ctx) -> Result<(), String> {
        liveness::all_well(hosts, ctx)
    }

    /// What can be judged only when everything is over.
    pub(super) fn at_the_end(&self, hosts: &[Host], asks: &[Ask]) -> Result<(), Breach> {
        self.judge("acknowledged_commands_are_never_lost", self.acknowledged.at_the_end(hosts, asks))
    }
}

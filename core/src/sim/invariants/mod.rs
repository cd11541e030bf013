//! What must never be broken, one file for each property. Judged from what truly happens on the simulated
//! hosts; State is only asked where the property is about State itself.

mod acknowledged;
mod agreement;
mod capacity;
mod deadline;
mod evidence;
mod explained;
mod lease;
mod liveness;
mod migration;
mod no_livelock;
mod one_copy;
mod one_fence;
mod tally;

use std::sync::Arc;

use super::ctx::Ctx;
use super::host::{Host, Process};
use super::log::Entry;
use super::operator::Ask;
use crate::command::Proposal;
use crate::event::EventRecord;
use crate::ids::{OperationId, Revision, SlotId};
use crate::lease::LeaseAnswer;
use crate::observation::Observed;
use crate::state::{Answer, Plan, State};
use crate::units::BootMs;

/// What truly happened.
#[derive(Debug)]
pub(super) enum Truth {
    /// A process began to exist.
    Spawned { host: usize, process: Process },
    /// A staged copy became a slot's state.
    MovedIn { host: usize, slot: SlotId, operation: OperationId, content: u64 },
    /// A state folder was read for a copy.
    Fetched { from: usize, to: usize, operation: OperationId },
    /// A node process sent a heartbeat.
    BeatSent { host: usize, session: u64, heartbeat: u64, at: BootMs },
    /// An answer reached the process that had sent the heartbeat.
    AnswerCame { host: usize, session: u64, answer: LeaseAnswer },
    /// A replica applied an entry.
    Applied { host: usize, revision: Revision, hash: u64, entry: Entry, events: Vec<Arc<EventRecord>> },
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
}

/// The invariant's name and what was seen.
type Breach = (&'static str, String);

impl Checkers {
    pub(super) fn new(hosts: &[Host]) -> Self {
        Self {
            agreement: agreement::Agreement::default(),
            lease: lease::Leases::new(hosts.len()),
            evidence: evidence::Evidences::default(),
            migration: migration::Migrations::default(),
            acknowledged: acknowledged::Acknowledged::default(),
            no_livelock: no_livelock::NoLivelock::default(),
        }
    }

    /// Judges one thing that happened.
    pub(super) fn see(&mut self, truth: &Truth, hosts: &[Host], ctx: &mut Ctx) -> Result<(), Breach> {
        let named = |name: &'static str, judgement: Judgement| judgement.map_err(|detail| (name, detail));
        named("equal_revision_means_equal_state_hash", self.agreement.see(truth))?;
        // Each commit is judged once: when the first replica applies it.
        let first =
            matches!(truth, Truth::Applied { revision, .. } if self.agreement.newest() == Some(*revision));
        if let Truth::Applied { events, revision, .. } = truth
            && first
        {
            tally::count(ctx, events);
            named(
                "no_claim_ends_while_its_instance_runs",
                self.evidence.committed(*revision, events, hosts),
            )?;
            named("a_migration_ends_with_one_owner", migration::ended(events, hosts))?;
            named("acknowledged_commands_are_never_lost", self.acknowledged.committed(truth))?;
        }
        named("acknowledged_commands_are_never_lost", self.acknowledged.see(truth))?;
        if let Truth::Spawned { host, process } = truth {
            named("no_exclusive_slot_runs_twice", one_copy::spawned(*host, process, hosts))?;
            named("nothing_starts_without_a_live_lease", self.lease.spawned(*host, process, hosts, ctx))?;
            named("nothing_starts_under_a_token_that_is_not_current", self.evidence.spawned(process))?;
            named("capacity_is_never_exceeded", capacity::spawned(*host, hosts))?;
            named("a_migration_loses_no_state", self.migration.spawned(*host, process, hosts))?;
        }
        named("the_plan_asks_for_what_is_possible", self.no_livelock.see(truth))?;
        self.lease.see(truth, hosts, ctx.now);
        self.migration.see(truth);
        if let Truth::Planned(seen) = truth {
            let (state, observed, plan) = seen.as_ref();
            named("everything_that_does_not_run_says_why", explained::planned(state, observed, plan))?;
            named("one_fence_for_each_target_at_a_time", one_fence::planned(state))?;
        }
        Ok(())
    }

    /// Looks over a host, again and again.
    pub(super) fn scan(&mut self, host: &Host, ctx: &Ctx) -> Result<(), Breach> {
        deadline::scan(host, self.lease.valid_until(host), ctx)
            .map_err(|detail| ("what_lost_its_lease_is_dead_by_its_deadline", detail))
    }

    /// After the heal: does everything run that should?
    pub(super) fn all_well(&self, hosts: &[Host], ctx: &Ctx) -> Result<(), String> {
        liveness::all_well(hosts, ctx)
    }

    /// What can be judged only when everything is over.
    pub(super) fn at_the_end(&self, hosts: &[Host], asks: &[Ask]) -> Result<(), Breach> {
        let lost = self.acknowledged.at_the_end(hosts, asks);
        lost.map_err(|detail| ("acknowledged_commands_are_never_lost", detail))
    }
}

//! What was last seen of this node's instances, and how guard, engines and probes are folded into one report
//! for each. Pure: asks nobody.

use std::collections::{BTreeMap, HashMap};

use quorate_core::effect::StartInstance;
use quorate_core::ids::{InstanceId, SlotId};
use quorate_core::observation::{
    ExecutorFact, Health, InstancePhase, InstanceReport, InstanceUsage, SlotReport,
};
use quorate_core::spec::ExecutorKind;
use quorate_core::units::{BootMs, Millis, WallMs};
use tokio_util::task::AbortOnDropHandle;

use super::health::Tally;
use crate::ports::{Found, RunId};

/// What was last seen longer ago than this is not known any more.
const STALE: Millis = Millis(4_000);

/// Everything that was seen.
#[derive(Default)]
pub(super) struct Seen {
    /// As the guard told.
    pub(super) slots: BTreeMap<SlotId, SlotReport>,
    /// When.
    pub(super) at: Option<BootMs>,
    /// What the guard can do on this host.
    pub(super) facts: Option<ExecutorFact>,
    /// Why the guard was not asked, if so.
    pub(super) problem: Option<String>,
    /// How each instance was started, as far as it was asked for.
    pub(super) starts: HashMap<InstanceId, StartInstance>,
    /// Health checks under way.
    pub(super) checks: HashMap<RunId, Checked>,
    /// Starts of engines' runs under way here, and how far each is.
    pub(super) starting: BTreeMap<RunId, String>,
    /// Starts that failed and may still have left something with their engine, and why.
    pub(super) failed: BTreeMap<RunId, String>,
    /// What the engines have.
    pub(super) found: BTreeMap<RunId, Found>,
    /// Engines that do not answer, and why.
    pub(super) away: BTreeMap<ExecutorKind, String>,
}

/// A run that is asked after.
pub(super) struct Checked {
    pub(super) tally: Tally,
    pub(super) _asking: AbortOnDropHandle<()>,
}

impl Seen {
    /// Can the guard make control groups on this host?
    pub(super) fn groups(&self) -> bool {
        let without = |fact: &ExecutorFact| fact.capabilities.iter().any(|one| one == "track:processes");
        !self.facts.as_ref().is_some_and(without)
    }

    /// What was last seen, aged to now, with engines and health folded in.
    pub(super) fn inventory(&self, now: BootMs) -> BTreeMap<SlotId, SlotReport> {
        let age = self.at.map_or(Millis(0), |at| now.since(at));
        let mut slots = self.slots.clone();
        for instance in slots.values_mut().filter_map(|slot| slot.instance.as_mut()) {
            instance.since = instance.since + age;
            self.fold_engine(instance);
            self.fold_health(instance);
            if age > STALE && instance.phase.may_run() {
                let why =
                    self.problem.clone().unwrap_or_else(|| "the guard was not asked in time".to_owned());
                instance.phase = InstancePhase::Unknown(why);
            }
        }
        slots
    }

    fn fold_engine(&self, instance: &mut InstanceReport) {
        let run = RunId { id: instance.id.clone(), restart: instance.restarts };
        if let Some(doing) = self.starting.get(&run).filter(|_| instance.phase == InstancePhase::Starting) {
            instance.health_detail.clone_from(doing);
        }
        if let Some(found) = self.found.get(&run) {
            instance.unenforced.clone_from(&found.unenforced);
            if let Some(usage) = found.usage {
                instance.usage = usage;
            }
            if let Some((health, detail)) = &found.health {
                (instance.health, instance.health_detail) = (*health, detail.clone());
            }
        }
        let kind = self.starts.get(&instance.id).map(|start| start.spec.workload.executor());
        let Some(why) = kind.and_then(|kind| self.away.get(&kind)) else { return };
        // The guard sees the process itself. What only the engine could tell is not known while it is away.
        if instance.phase.may_run() && instance.pid.is_none() && !self.starting.contains_key(&run) {
            instance.phase = InstancePhase::Unknown(why.clone());
        }
        instance.health_detail.clone_from(why);
    }

    fn fold_health(&self, instance: &mut InstanceReport) {
        let run = RunId { id: instance.id.clone(), restart: instance.restarts };
        if let Some(checked) = self.checks.get(&run) {
            instance.health = checked.tally.health();
            instance.health_detail = checked.tally.detail().to_owned();
        } else if instance.phase.may_run()
            && self.starts.get(&instance.id).is_some_and(|start| start.spec.health.is_some())
        {
            instance.health = Health::Starting;
        }
    }
}

/// All of an inventory that is worth waking somebody for.
pub(super) fn fingerprint(slots: &BTreeMap<SlotId, SlotReport>) -> BTreeMap<SlotId, SlotReport> {
    let mut slots = slots.clone();
    for instance in slots.values_mut().filter_map(|slot| slot.instance.as_mut()) {
        instance.usage = InstanceUsage::default();
        instance.since = Millis(0);
        instance.started_at = WallMs(0);
        if instance.phase != InstancePhase::Starting {
            instance.health_detail.clear();
        }
    }
    slots
}

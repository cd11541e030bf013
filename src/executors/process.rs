//! Native processes: the guard runs them, this keeps what it says of them at hand and asks after their
//! health. Does not decide what follows from either.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use quorate_core::effect::{StartInstance, StopInstance};
use quorate_core::ids::{InstanceId, NodeId, SlotId};
use quorate_core::observation::{
    ExecutorFact, Health, InstancePhase, InstanceReport, InstanceUsage, SlotReport, Unavailable,
};
use quorate_core::spec::{ExecutorKind, HealthCheck};
use quorate_core::units::{BootMs, Millis, WallMs};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::ask::{Place, ask};
use super::health::Tally;
use crate::host::boot_now;
use crate::layout::Layout;
use crate::ports::{ActError, Executor, Guard, LogChunk, LogQuery};

/// How often use is asked for while nothing else happens.
const ROUND: Duration = Duration::from_secs(1);

/// What was last seen longer ago than this is not known any more.
const STALE: Millis = Millis(4_000);

/// The executor of native processes.
pub struct ProcessExecutor {
    shared: Arc<Shared>,
    _keeping: AbortOnDropHandle<()>,
}

struct Shared {
    guard: Arc<dyn Guard>,
    layout: Layout,
    node: NodeId,
    seen: Mutex<Seen>,
    changes: watch::Sender<u64>,
    /// One look at a time, so that an older one never replaces a newer one.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Seen {
    slots: BTreeMap<SlotId, SlotReport>,
    at: Option<BootMs>,
    facts: Option<ExecutorFact>,
    problem: Option<String>,
    /// How each instance was started, as far as it was asked for.
    starts: HashMap<InstanceId, StartInstance>,
    checks: HashMap<(InstanceId, u32), Checked>,
}

struct Checked {
    tally: Tally,
    _asking: AbortOnDropHandle<()>,
}

impl ProcessExecutor {
    /// Over this guard, for this node. Needs a runtime, which it keeps a task on while it lives.
    pub fn begin(guard: Arc<dyn Guard>, layout: Layout, node: NodeId) -> Self {
        let shared = Arc::new(Shared {
            guard,
            layout,
            node,
            seen: Mutex::default(),
            changes: watch::Sender::new(0),
            looking: tokio::sync::Mutex::default(),
        });
        let keeping = AbortOnDropHandle::new(tokio::spawn(shared.clone().keep()));
        Self { shared, _keeping: keeping }
    }

    /// Waits until the guard was asked once: before that an empty inventory means nothing.
    pub async fn ready(&self, patience: Duration) -> bool {
        let mut changes = self.shared.changes.subscribe();
        let asked = async { while self.shared.seen().at.is_none() && changes.changed().await.is_ok() {} };
        timeout(patience, asked).await.is_ok()
    }
}

impl Drop for ProcessExecutor {
    fn drop(&mut self) {
        // Whoever asks holds what is shared; without this both would stay for good.
        self.shared.seen().checks.clear();
    }
}

impl Executor for ProcessExecutor {
    fn kind(&self) -> ExecutorKind {
        ExecutorKind::Process
    }

    fn start(&self, start: StartInstance) -> BoxFuture<'_, Result<(), ActError>> {
        async move {
            let outcome = self.shared.guard.start(start.clone()).await;
            self.shared.seen().starts.insert(start.id.clone(), start);
            self.shared.look().await;
            outcome
        }
        .boxed()
    }

    fn stop(&self, stop: StopInstance) -> BoxFuture<'_, Result<(), ActError>> {
        async move {
            let outcome = self.shared.guard.stop(stop).await;
            self.shared.look().await;
            outcome
        }
        .boxed()
    }

    fn forget(&self, slot: SlotId) -> BoxFuture<'_, Result<(), ActError>> {
        async move {
            let outcome = self.shared.guard.forget(slot).await;
            self.shared.look().await;
            outcome
        }
        .boxed()
    }

    fn inventory(&self) -> BTreeMap<SlotId, SlotReport> {
        self.shared.inventory(boot_now())
    }

    fn facts(&self) -> ExecutorFact {
        let seen = self.shared.seen();
        let mut facts = seen.facts.clone().unwrap_or_else(|| ExecutorFact {
            kind: ExecutorKind::Process,
            version: String::new(),
            capabilities: Vec::new(),
            unavailable: None,
        });
        facts.unavailable = seen.problem.clone().map(|why| Unavailable {
            why,
            remedy: "wait: the node starts the guard again by itself; its log says why it ended".to_owned(),
        });
        facts
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn logs(&self, slot: SlotId, query: LogQuery) -> BoxFuture<'_, Result<LogChunk, ActError>> {
        self.shared.guard.logs(slot, query)
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whenever the guard says that something happened, and once a round for the use.
    async fn keep(self: Arc<Self>) {
        let mut changes = self.guard.changes();
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = round.tick() => {}
            }
            self.look().await;
        }
    }

    /// Asks the guard for all it knows.
    async fn look(self: &Arc<Self>) {
        let _one = self.looking.lock().await;
        let before = fingerprint(&self.inventory(boot_now()));
        let known = self.seen().at.is_some();
        match self.guard.inventory().await {
            Ok(slots) => {
                let at = boot_now();
                if self.seen().facts.is_none() {
                    self.seen().facts = self.guard.facts().await.ok();
                }
                self.learn_starts(&slots).await;
                let mut seen = self.seen();
                seen.slots = slots;
                seen.at = Some(at);
                seen.problem = None;
                self.follow(&mut seen, at);
            }
            Err(error) => self.seen().problem = Some(error.to_string()),
        }
        let now_known = self.seen().at.is_some();
        if known != now_known || before != fingerprint(&self.inventory(boot_now())) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// After a restart of the node the guard is the one that knows how instances were started.
    async fn learn_starts(&self, slots: &BTreeMap<SlotId, SlotReport>) {
        let ids: Vec<InstanceId> =
            slots.values().filter_map(|slot| Some(slot.instance.as_ref()?.id.clone())).collect();
        let unknown = {
            let mut seen = self.seen();
            seen.starts.retain(|id, _| ids.contains(id));
            ids.iter().any(|id| !seen.starts.contains_key(id))
        };
        if unknown && let Ok(runs) = self.guard.runs().await {
            self.seen().starts.extend(runs.into_iter().map(|start| (start.id.clone(), start)));
        }
    }

    /// Asks after the health of whatever runs and has a check; stops asking after what ended.
    fn follow(self: &Arc<Self>, seen: &mut Seen, at: BootMs) {
        let running: Vec<&InstanceReport> = seen
            .slots
            .values()
            .filter_map(|slot| slot.instance.as_ref())
            .filter(|instance| instance.phase == InstancePhase::Running)
            .collect();
        let mut checks = std::mem::take(&mut seen.checks);
        checks
            .retain(|(id, restarts), _| running.iter().any(|one| one.id == *id && one.restarts == *restarts));
        for instance in running {
            let key = (instance.id.clone(), instance.restarts);
            let Some(start) = seen.starts.get(&instance.id) else { continue };
            let Some(check) = start.spec.health.clone().filter(|_| !checks.contains_key(&key)) else {
                continue;
            };
            let place = Place { layout: self.layout.clone(), node: self.node.clone(), start: start.clone() };
            let begun = BootMs(at.0.saturating_sub(instance.since.0));
            let asking = tokio::spawn(self.clone().ask_on(key.clone(), place, check, begun));
            checks.insert(key, Checked { tally: Tally::new(), _asking: AbortOnDropHandle::new(asking) });
        }
        seen.checks = checks;
    }

    /// Asks one run again and again. Ends with its entry.
    async fn ask_on(
        self: Arc<Self>,
        key: (InstanceId, u32),
        place: Place,
        check: HealthCheck,
        begun: BootMs,
    ) {
        loop {
            let asked = Instant::now();
            let outcome = ask(&place, &check).await;
            let changed = {
                let mut seen = self.seen();
                let Some(checked) = seen.checks.get_mut(&key) else { return };
                let before = checked.tally.health();
                checked.tally.count(&check, outcome, boot_now().since(begun));
                before != checked.tally.health()
            };
            if changed {
                self.changes.send_modify(|count| *count += 1);
            }
            let pause = Duration::from_millis(check.interval.0).saturating_sub(asked.elapsed());
            sleep(pause.max(Duration::from_millis(10))).await;
        }
    }

    /// What was last seen, aged to now, with the health folded in.
    fn inventory(&self, now: BootMs) -> BTreeMap<SlotId, SlotReport> {
        let seen = self.seen();
        let age = seen.at.map_or(Millis(0), |at| now.since(at));
        let mut slots = seen.slots.clone();
        for instance in slots.values_mut().filter_map(|slot| slot.instance.as_mut()) {
            instance.since = instance.since + age;
            if let Some(checked) = seen.checks.get(&(instance.id.clone(), instance.restarts)) {
                instance.health = checked.tally.health();
                instance.health_detail = checked.tally.detail().to_owned();
            } else if instance.phase.may_run()
                && seen.starts.get(&instance.id).is_some_and(|start| start.spec.health.is_some())
            {
                instance.health = Health::Starting;
            }
            if age > STALE && instance.phase.may_run() {
                let why =
                    seen.problem.clone().unwrap_or_else(|| "the guard was not asked in time".to_owned());
                instance.phase = InstancePhase::Unknown(why);
            }
        }
        slots
    }
}

/// All of an inventory that is worth waking somebody for.
fn fingerprint(slots: &BTreeMap<SlotId, SlotReport>) -> BTreeMap<SlotId, SlotReport> {
    let mut slots = slots.clone();
    for instance in slots.values_mut().filter_map(|slot| slot.instance.as_mut()) {
        instance.usage = InstanceUsage::default();
        instance.since = Millis(0);
        instance.started_at = WallMs(0);
        instance.health_detail.clear();
    }
    slots
}

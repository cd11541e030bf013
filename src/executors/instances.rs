//! All instances of this node: native processes through the guard, the others through their engine with the
//! guard holding the deadline. Asks the guard what runs and each run after its health. Starts nothing itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use quorate_core::effect::{StartInstance, StopInstance};
use quorate_core::ids::{InstanceId, NodeId, SlotId};
use quorate_core::observation::{ExecutorFact, InstancePhase, InstanceReport, SlotReport, Unavailable};
use quorate_core::spec::{ExecutorKind, HealthCheck};
use quorate_core::units::BootMs;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::ask::{Asked, ask};
use super::drive;
use super::engine::Engine;
use super::health::Tally;
use super::seen::{Checked, Seen, fingerprint};
use crate::host::boot_now;
use crate::layout::{Layout, guard_name};
use crate::ports::{ActError, Executor, Guard, LogChunk, LogQuery, RunId};

/// How often use is asked for while nothing else happens.
const ROUND: Duration = Duration::from_secs(1);

/// Everything that runs on this node.
pub struct Instances {
    shared: Arc<Shared>,
    _keeping: Vec<AbortOnDropHandle<()>>,
}

pub(super) struct Shared {
    pub(super) guard: Arc<dyn Guard>,
    pub(super) layout: Layout,
    pub(super) node: NodeId,
    /// Tells this node's instances from those of all others that an engine knows.
    pub(super) owner: String,
    pub(super) engines: Vec<Engine>,
    seen: Mutex<Seen>,
    changes: watch::Sender<u64>,
    /// One look at a time, so that an older one never replaces a newer one.
    looking: tokio::sync::Mutex<()>,
}

impl Instances {
    /// Over this guard and these engines, for this node. Needs a runtime, which it keeps tasks on while it lives.
    pub fn begin(
        guard: Arc<dyn Guard>,
        engines: Vec<Arc<dyn Executor>>,
        layout: Layout,
        node: NodeId,
    ) -> Self {
        let shared = Arc::new(Shared {
            guard,
            owner: guard_name(layout.root()),
            layout,
            node,
            engines: engines.into_iter().map(Engine::new).collect(),
            seen: Mutex::default(),
            changes: watch::Sender::new(0),
            looking: tokio::sync::Mutex::default(),
        });
        let mut keeping = vec![AbortOnDropHandle::new(tokio::spawn(shared.clone().keep()))];
        for at in 0..shared.engines.len() {
            keeping.push(AbortOnDropHandle::new(tokio::spawn(drive::keep(shared.clone(), at))));
        }
        Self { shared, _keeping: keeping }
    }

    /// Waits until the guard, and each engine, was asked once: before that an empty inventory means nothing.
    pub async fn ready(&self, patience: Duration) -> bool {
        let mut changes = self.shared.changes.subscribe();
        let all = || self.shared.seen().at.is_some() && self.shared.engines.iter().all(Engine::surveyed);
        let asked = async { while !all() && changes.changed().await.is_ok() {} };
        timeout(patience, asked).await.is_ok()
    }

    /// Starts an instance, or starts it again if its restart is higher than its last. May take as long as an
    /// image takes to come; what came of it is in the inventory.
    pub fn start(&self, start: StartInstance) -> BoxFuture<'_, Result<(), ActError>> {
        async move {
            let kind = start.spec.workload.executor();
            self.shared.seen().starts.insert(start.id.clone(), start.clone());
            let outcome = if kind == ExecutorKind::Process {
                self.shared.guard.start(start).await
            } else {
                match self.shared.engines.iter().find(|engine| engine.kind() == kind) {
                    Some(engine) => drive::start(&self.shared, engine, start).await,
                    None => Err(ActError::Failed(format!("{}: no executor {kind} on this node", start.id))),
                }
            };
            self.shared.look().await;
            outcome
        }
        .boxed()
    }

    /// Ends a slot's instance and raises the slot's highest token.
    pub fn stop(&self, stop: StopInstance) -> BoxFuture<'_, Result<(), ActError>> {
        async move {
            let outcome = self.shared.guard.stop(stop).await;
            self.shared.look().await;
            outcome
        }
        .boxed()
    }

    /// Removes the folders of a slot that is gone for good.
    pub fn forget(&self, slot: SlotId) -> BoxFuture<'_, Result<(), ActError>> {
        async move {
            let outcome = self.shared.guard.forget(slot).await;
            self.shared.look().await;
            outcome
        }
        .boxed()
    }

    /// Every slot known, as last seen.
    pub fn inventory(&self) -> BTreeMap<SlotId, SlotReport> {
        self.shared.seen().inventory(boot_now())
    }

    /// What this host can run, and why not the rest.
    pub fn facts(&self) -> Vec<ExecutorFact> {
        let seen = self.shared.seen();
        let mut process = seen.facts.clone().unwrap_or_else(|| ExecutorFact {
            kind: ExecutorKind::Process,
            version: String::new(),
            capabilities: Vec::new(),
            unavailable: None,
        });
        process.unavailable = seen.problem.clone().map(|why| Unavailable {
            why,
            remedy: "wait: the node starts the guard again by itself; its log says why it ended".to_owned(),
        });
        drop(seen);
        let engines = self.shared.engines.iter().map(Engine::fact);
        std::iter::once(process).chain(engines).collect()
    }

    /// Moves whenever the inventory, or what the host can run, changed in more than usage.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Reads a slot's output.
    pub fn logs(&self, slot: SlotId, query: LogQuery) -> BoxFuture<'_, Result<LogChunk, ActError>> {
        self.shared.guard.logs(slot, query)
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        // Whoever asks holds what is shared; without this both would stay for good.
        self.shared.seen().checks.clear();
        self.shared.engines.iter().for_each(Engine::end_pumps);
    }
}

impl Shared {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is worth a look.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
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

    /// Asks the guard for all it knows. False if it did not tell all.
    pub(super) async fn look(self: &Arc<Self>) -> bool {
        let _one = self.looking.lock().await;
        let before = fingerprint(&self.seen().inventory(boot_now()));
        let known = self.seen().at.is_some();
        let asked = self.guard.inventory().await;
        let mut answered = asked.is_ok();
        match asked {
            Ok(slots) => {
                let at = boot_now();
                if self.seen().facts.is_none() {
                    let facts = self.guard.facts().await.ok();
                    self.seen().facts = facts;
                }
                answered = self.learn_starts(&slots).await;
                let mut seen = self.seen();
                seen.slots = slots;
                seen.at = Some(at);
                seen.problem = None;
                self.follow(&mut seen, at);
            }
            Err(error) => self.seen().problem = Some(error.to_string()),
        }
        let now_known = self.seen().at.is_some();
        if known != now_known || before != fingerprint(&self.seen().inventory(boot_now())) {
            self.changed();
        }
        answered
    }

    /// After a restart of the node the guard is the one that knows how instances were started.
    /// False while it has not told of every one.
    async fn learn_starts(&self, slots: &BTreeMap<SlotId, SlotReport>) -> bool {
        let ids: Vec<InstanceId> =
            slots.values().filter_map(|slot| Some(slot.instance.as_ref()?.id.clone())).collect();
        let unknown = {
            let mut seen = self.seen();
            let Seen { starts, starting, .. } = &mut *seen;
            starts.retain(|id, _| ids.contains(id) || starting.keys().any(|run| run.id == *id));
            ids.iter().any(|id| !starts.contains_key(id))
        };
        if !unknown {
            return true;
        }
        let runs = self.guard.runs().await;
        let told = runs.is_ok();
        let runs = runs.unwrap_or_default();
        self.seen().starts.extend(runs.into_iter().map(|start| (start.id.clone(), start)));
        told
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
        checks.retain(|run, _| running.iter().any(|one| one.id == run.id && one.restarts == run.restart));
        for instance in running {
            let run = RunId { id: instance.id.clone(), restart: instance.restarts };
            let Some(start) = seen.starts.get(&instance.id) else { continue };
            let Some(check) = start.spec.health.clone().filter(|_| !checks.contains_key(&run)) else {
                continue;
            };
            let kind = start.spec.workload.executor();
            let engine = self.engines.iter().find(|engine| engine.kind() == kind);
            let asked = Asked {
                layout: self.layout.clone(),
                node: self.node.clone(),
                start: start.clone(),
                run: run.clone(),
                owner: self.owner.clone(),
                engine: engine.map(|engine| engine.executor.clone()),
            };
            let begun = BootMs(at.0.saturating_sub(instance.since.0));
            let asking = tokio::spawn(self.clone().ask_on(run.clone(), asked, check, begun));
            checks.insert(run, Checked { tally: Tally::new(), _asking: AbortOnDropHandle::new(asking) });
        }
        seen.checks = checks;
    }

    /// Asks one run again and again. Ends with its entry.
    async fn ask_on(self: Arc<Self>, run: RunId, asked: Asked, check: HealthCheck, begun: BootMs) {
        loop {
            let at = Instant::now();
            let outcome = ask(&asked, &check).await;
            let changed = {
                let mut seen = self.seen();
                let Some(checked) = seen.checks.get_mut(&run) else { return };
                let before = checked.tally.health();
                checked.tally.count(&check, outcome, boot_now().since(begun));
                before != checked.tally.health()
            };
            if changed {
                self.changed();
            }
            let pause = Duration::from_millis(check.interval.0).saturating_sub(at.elapsed());
            sleep(pause.max(Duration::from_millis(10))).await;
        }
    }
}

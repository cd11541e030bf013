//! Instances that an engine runs: admitted by the guard, prepared, started, and from then on compared with what
//! the engine has, again and again. What the guard does not answer for is taken away; what neither knows to have
//! begun is told to be over. An engine that hangs holds up nobody but its own instances.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_core::effect::StartInstance;
use quorate_core::observation::{InstancePhase, InstanceReport, Unavailable};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::engine::Engine;
use super::instances::Shared;
use super::pump::Pump;
use super::seen::Seen;
use crate::layout::variables;
use crate::ports::{ActError, EngineEnd, EngineExit, EngineFact, Found, FoundStage, Place, RunId};

/// Between two looks while nothing happens.
const ROUND: Duration = Duration::from_secs(1);
/// How long an engine may take for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long it may take to start something.
const LAUNCH: Duration = Duration::from_secs(60);
/// Between two times that an engine is asked what it is.
const SURVEY: Duration = Duration::from_secs(5);
/// Between two looks at an engine that runs nothing of this node's.
const IDLE: Duration = Duration::from_secs(10);
/// How long the last output of a run may take to come.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Starts an engine's run under a deadline that the guard holds already.
pub(super) async fn start(
    shared: &Arc<Shared>,
    engine: &Engine,
    start: StartInstance,
) -> Result<(), ActError> {
    let run = RunId::of(&start);
    let fact = engine.usable().map_err(|why| {
        let kind = engine.kind();
        ActError::Failed(format!("{}: {kind} is unavailable: {}; {}", start.id, why.why, why.remedy))
    })?;
    let mut placing = engine.executor.placing(&fact, &start);
    if !shared.seen().groups() && placing.beyond.is_none() {
        placing.beyond = Some("no control groups can be made on this host".to_owned());
    }
    let _starting = Starting::begin(shared, &run);
    let Some(admitted) = shared.guard.admit(start.clone(), placing).await? else {
        return Ok(());
    };
    shared.look().await;
    let place = Place {
        owner: shared.owner.clone(),
        environment: variables(&shared.layout, &shared.node, &start),
        folder: shared.layout.instance(&start.id.slot),
        state: shared.layout.state(&start.id.slot, start.spec.state_dir.as_deref()),
        logs: shared.layout.logs(&start.id.slot),
        group: admitted.group,
    };
    let outcome = tokio::select! {
        outcome = prepare_and_launch(shared, engine, &start, &place) => outcome,
        why = called_off(shared, &run) => Err(why),
    };
    let outcome = match outcome {
        Ok(Some(pid)) => match shared.guard.begun(run.clone(), pid).await {
            // Whoever takes the guard's place is told by the next look.
            Ok(()) | Err(ActError::Away(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
        // It was over at once: the next look at the engine finds how.
        Ok(None) => Ok(()),
        Err(why) => Err(why),
    };
    match outcome {
        Ok(()) => {
            take_output_in(shared, engine, &run);
            shared.look().await;
            let report = shared.seen().slots.get(&run.id.slot).and_then(|slot| slot.instance.clone());
            if report.is_some_and(|report| is_of(&report, &run) && report.phase == InstancePhase::Running) {
                release(shared, engine, &run).await;
            }
            Ok(())
        }
        Err(why) => {
            give_up(shared, engine, &run, why.clone()).await;
            Err(ActError::Failed(format!("{}: {why}", start.id)))
        }
    }
}

async fn prepare_and_launch(
    shared: &Arc<Shared>,
    engine: &Engine,
    start: &StartInstance,
    place: &Place,
) -> Result<Option<u32>, String> {
    let run = RunId::of(start);
    let tell = |words: String| {
        shared.seen().starting.insert(run.clone(), words);
        shared.changed();
    };
    engine.executor.prepare(start, &tell).await?;
    match timeout(LAUNCH, engine.executor.launch(start, place)).await {
        Ok(launched) => launched,
        Err(_) => Err(format!("{} did not start it within {} s", engine.kind(), LAUNCH.as_secs())),
    }
}

/// Lets a run go on that the guard has: one that is to end already never gets here. What cannot be done now the
/// next look does.
async fn release(shared: &Arc<Shared>, engine: &Engine, run: &RunId) {
    if let Ok(Err(error)) = timeout(PATIENCE, engine.executor.release(&shared.owner, run)).await {
        tracing::warn!(%run, %error, "it is held back still");
    }
}

/// Waits until the guard does not wait for a run any more: it was told to stop, or its deadline has passed.
async fn called_off(shared: &Arc<Shared>, run: &RunId) -> String {
    let mut changes = shared.guard.changes();
    loop {
        let report = shared.seen().slots.get(&run.id.slot).and_then(|slot| slot.instance.clone());
        if report.is_some_and(|report| is_of(&report, run) && report.phase == InstancePhase::Stopping) {
            return "called off before it ran".to_owned();
        }
        if changes.changed().await.is_err() {
            return "the node is ending".to_owned();
        }
        shared.look().await;
    }
}

/// Takes away what a failed start may have left, and tells the guard. What cannot be done now the next look does.
async fn give_up(shared: &Arc<Shared>, engine: &Engine, run: &RunId, why: String) {
    shared.seen().failed.insert(run.clone(), why.clone());
    if let Ok(Ok(())) = timeout(PATIENCE, engine.executor.remove(&shared.owner, run)).await
        && shared.guard.over(run.clone(), EngineEnd::NotStarted(why)).await.is_ok()
    {
        shared.seen().failed.remove(run);
    }
}

/// A start that is under way here, for as long as this lives.
struct Starting<'a> {
    shared: &'a Arc<Shared>,
    run: RunId,
}

impl<'a> Starting<'a> {
    fn begin(shared: &'a Arc<Shared>, run: &RunId) -> Self {
        shared.seen().starting.insert(run.clone(), "waits for the guard".to_owned());
        Self { shared, run: run.clone() }
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.shared.seen().starting.remove(&self.run);
    }
}

fn is_of(report: &InstanceReport, run: &RunId) -> bool {
    report.id == run.id && report.restarts == run.restart
}

/// Compares what the guard holds with what an engine has, whenever either says that something happened.
pub(super) async fn keep(shared: Arc<Shared>, at: usize) {
    let engine = &shared.engines[at];
    let (mut guard, mut own) = (shared.guard.changes(), engine.executor.changes());
    let mut round = interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = guard.changed() => if changed.is_err() { return },
            changed = own.changed() => if changed.is_err() { return },
            _ = round.tick() => {}
        }
        survey(&shared, engine).await;
        if engine.usable().is_err() || !due(&shared, engine) {
            continue;
        }
        let before = expected(&shared, engine);
        let found = match timeout(PATIENCE, engine.executor.found(&shared.owner)).await {
            Ok(Ok(found)) => found,
            Ok(Err(why)) => {
                away(&shared, engine, why);
                continue;
            }
            Err(_) => {
                away(&shared, engine, format!("no answer within {} s", PATIENCE.as_secs()));
                continue;
            }
        };
        engine.known().looked = Some(Instant::now());
        // The guard is asked after the engine: what it does not know then is nobody's.
        if shared.look().await {
            settle(&shared, engine, found, &before).await;
        }
    }
}

/// Is there anything with this engine that could have changed? If not it is seldom asked.
fn due(shared: &Shared, engine: &Engine) -> bool {
    let seen = shared.seen();
    let own = |id| seen.starts.get(id).is_some_and(|start| start.spec.workload.executor() == engine.kind());
    let busy = seen.slots.values().filter_map(|slot| slot.instance.as_ref()).any(|one| own(&one.id));
    drop(seen);
    let known = engine.known();
    busy || known.leftovers || known.looked.is_none_or(|at| at.elapsed() >= IDLE)
}

/// Asks the engine what it is, if it was not asked of late.
async fn survey(shared: &Arc<Shared>, engine: &Engine) {
    let recent = |(_, at): &(_, Instant)| at.elapsed() < SURVEY;
    if engine.known().fact.as_ref().is_some_and(recent) {
        return;
    }
    let fact = match timeout(PATIENCE, engine.executor.survey()).await {
        Ok(fact) => fact,
        Err(_) => Err(silent(engine, &format!("no answer within {} s", PATIENCE.as_secs()))),
    };
    learn(shared, engine, fact);
}

/// It was usable, and does not answer now.
fn away(shared: &Arc<Shared>, engine: &Engine, why: String) {
    learn(shared, engine, Err(silent(engine, &why)));
}

fn silent(engine: &Engine, why: &str) -> Unavailable {
    let kind = engine.kind();
    Unavailable {
        why: format!("it does not answer: {why}"),
        remedy: format!("look after {kind} on this node; what it runs is held by the guard meanwhile"),
    }
}

fn learn(shared: &Arc<Shared>, engine: &Engine, fact: Result<EngineFact, Unavailable>) {
    let kind = engine.kind();
    let changed = {
        let mut known = engine.known();
        let changed = known.fact.as_ref().is_none_or(|(old, _)| *old != fact);
        known.fact = Some((fact.clone(), Instant::now()));
        changed
    };
    match fact {
        Ok(_) => drop(shared.seen().away.remove(&kind)),
        Err(why) => drop(shared.seen().away.insert(kind, format!("{kind} cannot be asked: {}", why.why))),
    }
    if changed {
        shared.changed();
    }
}

/// Tells the guard what the engine knows, and the engine what the guard does not want any more.
///
/// `before` are the runs that the engine had to know of as it was asked: one that began since is missing in its
/// answer without being gone.
async fn settle(shared: &Arc<Shared>, engine: &Engine, found: Vec<Found>, before: &BTreeSet<RunId>) {
    let mut found: BTreeMap<RunId, Found> = found.into_iter().map(|one| (one.run.clone(), one)).collect();
    let held = held(shared, engine);
    for (run, one) in &held {
        let told = |stage: &FoundStage| *stage != FoundStage::Made;
        let known = found.get(run).is_some_and(|found| told(&found.stage)) || before.contains(run);
        if shared.seen().starting.contains_key(run) || !known {
            continue;
        }
        settle_one(shared, engine, run, one, found.get(run)).await;
    }
    let stays = |run: &RunId| held.contains_key(run) || shared.seen().starting.contains_key(run);
    let strays: Vec<RunId> = found.keys().filter(|run| !stays(run)).cloned().collect();
    for run in &strays {
        // Its guard has closed it, or nobody answers for it: either way it may not be.
        if let Ok(Ok(())) = timeout(PATIENCE, engine.executor.remove(&shared.owner, run)).await {
            found.remove(run);
        }
    }
    {
        let mut known = engine.known();
        known.leftovers = found.keys().any(|run| !held.contains_key(run));
        known.pumps.retain(|run, _| held.contains_key(run));
        known.asked.retain(|run| held.contains_key(run));
    }
    let kind = engine.kind();
    let mut seen = shared.seen();
    let Seen { found: all, starts, failed, .. } = &mut *seen;
    failed.retain(|run, _| held.contains_key(run));
    let of_kind = |run: &RunId| starts.get(&run.id).is_none_or(|one| one.spec.workload.executor() == kind);
    all.retain(|run, _| !of_kind(run));
    all.extend(found);
}

/// One run as the guard holds it.
struct Held {
    phase: InstancePhase,
    /// Its main process; none before it is known to have begun.
    pid: Option<u32>,
}

/// What the guard holds of this engine's.
fn held(shared: &Shared, engine: &Engine) -> BTreeMap<RunId, Held> {
    let seen = shared.seen();
    let instances = seen.slots.values().filter_map(|slot| slot.instance.as_ref());
    let own = instances.filter(|one| {
        let of_kind = |start: &StartInstance| start.spec.workload.executor() == engine.kind();
        one.phase.may_run() && seen.starts.get(&one.id).is_some_and(of_kind)
    });
    let held = |one: &InstanceReport| Held { phase: one.phase.clone(), pid: one.pid };
    own.map(|one| (RunId { id: one.id.clone(), restart: one.restarts }, held(one))).collect()
}

/// What the guard holds of this engine's, and nobody is just starting.
fn expected(shared: &Shared, engine: &Engine) -> BTreeSet<RunId> {
    let held = held(shared, engine);
    let starting = &shared.seen().starting;
    held.into_keys().filter(|run| !starting.contains_key(run)).collect()
}

async fn settle_one(shared: &Arc<Shared>, engine: &Engine, run: &RunId, one: &Held, found: Option<&Found>) {
    let begun = one.pid.is_some();
    match found.map(|found| &found.stage) {
        Some(FoundStage::Running(pid)) => {
            if one.pid != Some(*pid)
                && let Err(ActError::Failed(why)) = shared.guard.begun(run.clone(), *pid).await
            {
                return give_up(shared, engine, run, why).await;
            }
            take_output_in(shared, engine, run);
            if one.phase == InstancePhase::Stopping && !engine.known().asked.contains(run) {
                engine.known().asked.push(run.clone());
                let asked = timeout(PATIENCE, engine.executor.ask_to_stop(&shared.owner, run)).await;
                if !matches!(asked, Ok(Ok(()))) {
                    engine.known().asked.retain(|one| one != run);
                }
            }
        }
        Some(FoundStage::Held(pid)) => match one.phase {
            // Released by the next look, once the guard says that it runs.
            InstancePhase::Starting => {
                if let Err(ActError::Failed(why)) = shared.guard.begun(run.clone(), *pid).await {
                    give_up(shared, engine, run, why).await;
                }
            }
            InstancePhase::Running => release(shared, engine, run).await,
            _ => give_up(shared, engine, run, "called off before it ran".to_owned()).await,
        },
        // A start that was given up, and came to its end only now: its machine or container never ran for the guard.
        Some(FoundStage::Exited(_)) if shared.seen().failed.contains_key(run) => {
            give_up(shared, engine, run, reason(shared, run, "it was given up")).await;
        }
        Some(FoundStage::Exited(exit)) => {
            take_output_in(shared, engine, run);
            let drained = engine.known().pumps.get(run).map(|pump| pump.drained(LAST_WORDS));
            if let Some(drained) = drained {
                drained.await;
            }
            let _ = shared.guard.over(run.clone(), EngineEnd::Exited(*exit)).await;
        }
        // What never began may still begin, until it is taken away.
        Some(FoundStage::Made) | None if !begun => {
            let why = reason(shared, run, "its start was interrupted");
            give_up(shared, engine, run, why).await;
        }
        // Its engine is still at its end.
        Some(FoundStage::Made) => {}
        // Somebody took it away. The guard believes it once its process is gone.
        None => {
            let _ = shared.guard.over(run.clone(), EngineEnd::Exited(EngineExit::default())).await;
        }
    }
}

/// Why a start failed, if that is known.
fn reason(shared: &Shared, run: &RunId, otherwise: &str) -> String {
    shared.seen().failed.get(run).cloned().unwrap_or_else(|| otherwise.to_owned())
}

/// Takes a run's output in, if that is not being done already.
fn take_output_in(shared: &Shared, engine: &Engine, run: &RunId) {
    let mut known = engine.known();
    if !known.pumps.contains_key(run)
        && let Some(pump) =
            Pump::begin(engine.executor.clone(), &shared.owner, run, shared.layout.logs(&run.id.slot))
    {
        known.pumps.insert(run.clone(), pump);
    }
}

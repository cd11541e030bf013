//! Units of the host's service manager: made for one run in a slice whose control group the guard holds, or there
//! already and started by their name. Nothing is ever enabled, and nothing restarts by itself.

mod bus;
mod existing;
mod journal;
mod names;
mod transient;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use quorate_core::effect::StartInstance;
use quorate_core::observation::Unavailable;
use quorate_core::spec::{ExecutorKind, UnitSource, UnitWorkload, Workload};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use zbus::wire::OwnedObjectPath;

use self::bus::Bus;
use self::existing::Marks;
use crate::host::Account;
use crate::ports::{
    EngineExit, EngineFact, Executor, Found, FoundStage, OutputPiece, Place, Placing, RunId, Tell,
};

/// What `ExecMainCode` is where a process exited.
const EXITED: i32 = 1;
/// What `ExecMainCode` is where a process was ended by a signal, and where its memory was dumped besides.
const KILLED: [i32; 2] = [2, 3];
/// Why an existing unit's deadline is never armed.
const BEYOND: &str = "an existing unit runs in a control group of the host's own";

/// The executor of units.
pub struct Systemd {
    shared: Arc<Shared>,
    _listening: AbortOnDropHandle<()>,
}

struct Shared {
    address: String,
    bus: tokio::sync::Mutex<Option<Bus>>,
    /// Tells of each run whether it is over.
    over: Mutex<BTreeMap<RunId, watch::Sender<bool>>>,
    changes: watch::Sender<u64>,
}

impl Systemd {
    /// Over the bus at this address, the system's own by default. Needs a runtime.
    pub fn new(address: Option<String>) -> Self {
        let address = address
            .or_else(|| std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok())
            .unwrap_or_else(|| bus::SYSTEM_BUS.to_owned());
        let shared = Arc::new(Shared {
            address,
            bus: tokio::sync::Mutex::default(),
            over: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let listening = AbortOnDropHandle::new(tokio::spawn(shared.clone().listen()));
        Self { shared, _listening: listening }
    }
}

impl Shared {
    fn over(&self) -> MutexGuard<'_, BTreeMap<RunId, watch::Sender<bool>>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn bus(&self) -> Result<Bus, String> {
        let mut kept = self.bus.lock().await;
        if let Some(bus) = kept.as_ref() {
            return Ok(bus.clone());
        }
        let bus = Bus::connect(&self.address).await.map_err(|error| error.to_string())?;
        *kept = Some(bus.clone());
        Ok(bus)
    }

    /// A broken connection is made anew at the next call.
    async fn lost(&self, error: &zbus::Error) -> String {
        if matches!(error, zbus::Error::InputOutput(_) | zbus::Error::Failure(_)) {
            *self.bus.lock().await = None;
        }
        error.to_string()
    }

    /// Says that something happened whenever a job or a unit is over.
    async fn listen(self: Arc<Self>) {
        loop {
            if let Ok(bus) = self.bus().await
                && let Ok(jobs) = bus.manager().receive_job_removed().await
                && let Ok(units) = bus.manager().receive_unit_removed().await
            {
                let mut any = futures::stream::select(jobs.map(drop), units.map(drop));
                while any.next().await.is_some() {
                    self.changes.send_modify(|count| *count += 1);
                }
                *self.bus.lock().await = None;
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    async fn survey(&self) -> Result<EngineFact, Unavailable> {
        let unavailable = |why: String, remedy: &str| Unavailable { why, remedy: remedy.to_owned() };
        let remedy = "run the node on a host whose init is systemd, with its bus (package dbus)";
        if let Some(socket) = self.address.strip_prefix("unix:path=").filter(|path| !Path::new(path).exists())
        {
            return Err(unavailable(format!("there is no bus at {socket}"), remedy));
        }
        let away = |error: String| unavailable(format!("{} does not answer: {error}", self.address), remedy);
        if !rustix::process::getuid().is_root() {
            let why = "only root may make units of the system".to_owned();
            return Err(unavailable(why, "run the node as root"));
        }
        let bus = self.bus().await.map_err(away)?;
        let version = match bus.manager().version().await {
            Ok(version) => version,
            Err(error) => return Err(away(self.lost(&error).await)),
        };
        let words =
            ["adopt", "logs", "limit:cpu", "limit:memory", "limit:pids", "limit:io", "existing_units"];
        Ok(EngineFact {
            version,
            capabilities: words.map(str::to_owned).into(),
            placing: Placing { slice: true, beyond: None },
        })
    }

    async fn prepare(&self, start: &StartInstance) -> Result<(), String> {
        let unit = workload(start)?;
        match &unit.source {
            UnitSource::Existing(name) => existing::check(&self.bus().await?, name).await,
            UnitSource::Transient { command, working_dir, user, .. } => {
                let program = command.first().map(String::as_str).unwrap_or_default();
                check_program(program)?;
                if let Some(folder) = working_dir.as_deref().filter(|folder| !Path::new(folder).is_dir()) {
                    return Err(format!(
                        "spec.working_dir: {folder} is no folder of this node; make it here"
                    ));
                }
                match user {
                    Some(name) => check_account(name),
                    None => Ok(()),
                }
            }
        }
    }

    async fn launch(&self, start: &StartInstance, place: &Place) -> Result<Option<u32>, String> {
        let (run, unit) = (RunId::of(start), workload(start)?);
        let bus = self.bus().await?;
        let manager = bus.manager();
        let name = match &unit.source {
            UnitSource::Transient { .. } => {
                let name = names::unit(&place.owner, &run);
                let properties = transient::properties(start, unit, place)?;
                // What an earlier attempt left failed would be in the way.
                let _ = manager.reset_failed_unit(&name).await;
                let none = Vec::new();
                let asked = manager.start_transient_unit(&name, "fail", &properties, &none);
                self.started(&bus, bus.job(asked).await, &name, unit).await?;
                name
            }
            UnitSource::Existing(name) => {
                existing::check(&bus, name).await?;
                let marks = Marks::of(&place.owner);
                if let Some(other) = marks.other(&run, name) {
                    return Err(format!("spec.unit: {name} is not free of {other} yet"));
                }
                marks
                    .put(&run, name)
                    .map_err(|error| format!("cannot note down whose {name} is: {error}"))?;
                self.started(&bus, bus.job(manager.start_unit(name, "fail")).await, name, unit).await?;
                name.clone()
            }
        };
        let ours = matches!(unit.source, UnitSource::Transient { .. });
        match self.stage(&bus, &name, ours).await? {
            FoundStage::Running(pid) | FoundStage::Held(pid) => Ok(Some(pid)),
            FoundStage::Exited(_) => Ok(None),
            FoundStage::Made => Err(format!(
                "{name} runs without a main process that systemd knows; set Type= or PIDFile= so that it does"
            )),
        }
    }

    async fn started(
        &self,
        bus: &Bus,
        job: zbus::Result<String>,
        name: &str,
        unit: &UnitWorkload,
    ) -> Result<(), String> {
        match job {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => {
                let path = bus.manager().load_unit(name).await.map_err(|error| error.to_string())?;
                let number =
                    async |property: &str| bus.property::<i32>(&path, "Service", property).await.unwrap_or(0);
                let (code, status) = (number("ExecMainCode").await, number("ExecMainStatus").await);
                match (code, status) {
                    (0, _) => Err(format!("{name}: its start ended as {result}; see its journal")),
                    (EXITED, status) if transient::START_FAILURES.contains(&status) => {
                        Err(transient::start_failure(status, unit))
                    }
                    // The program ran, and was over before the job that started it was.
                    _ => Ok(()),
                }
            }
            Err(error) => Err(self.lost(&error).await),
        }
    }

    /// `ours` is one that was made here, which stays after its end to be read.
    async fn stage(&self, bus: &Bus, name: &str, ours: bool) -> Result<FoundStage, String> {
        let failed = |error: zbus::Error| error.to_string();
        let path = bus.manager().load_unit(name).await.map_err(failed)?;
        let active: String = bus.property(&path, "Unit", "ActiveState").await.map_err(failed)?;
        let pid: u32 = bus.property(&path, "Service", "MainPID").await.map_err(failed)?;
        if pid > 0 {
            return Ok(FoundStage::Running(pid));
        }
        // Over is what is down for good: stopping, or up without its main process, is not.
        let sub: String = bus.property(&path, "Unit", "SubState").await.map_err(failed)?;
        let kept = active == "active" && sub == "exited" && ours;
        if !kept && !matches!(active.as_str(), "inactive" | "failed") {
            return Ok(FoundStage::Made);
        }
        Ok(FoundStage::Exited(self.exit(bus, &path).await.map_err(failed)?))
    }

    async fn exit(&self, bus: &Bus, path: &OwnedObjectPath) -> zbus::Result<EngineExit> {
        let result: String = bus.property(path, "Service", "Result").await?;
        let code: i32 = bus.property(path, "Service", "ExecMainCode").await?;
        let status: i32 = bus.property(path, "Service", "ExecMainStatus").await?;
        let signal = KILLED.contains(&code).then_some(status);
        let code = if signal.is_none() && code != 0 { Some(status) } else { None };
        Ok(EngineExit { code, signal, oom: result == "oom-kill" })
    }

    async fn found(&self, owner: &str) -> Result<Vec<Found>, String> {
        let bus = self.bus().await?;
        let listed = match bus.manager().list_units_by_patterns(&[], &[&names::pattern(owner)]).await {
            Ok(listed) => listed,
            Err(error) => return Err(self.lost(&error).await),
        };
        let own = listed.into_iter().filter_map(|unit| Some((names::run(owner, &unit.0)?, unit.0, true)));
        let marked = Marks::of(owner).all().into_iter().map(|(run, unit)| (run, unit, false));
        let mut all = Vec::new();
        for (run, unit, ours) in own.chain(marked) {
            let stage = self.stage(&bus, &unit, ours).await?;
            if matches!(stage, FoundStage::Exited(_)) {
                self.over_of(&run).send_replace(true);
            }
            all.push(Found { run, stage, health: None, usage: None, unenforced: Vec::new() });
        }
        Ok(all)
    }

    fn over_of(&self, run: &RunId) -> watch::Sender<bool> {
        self.over().entry(run.clone()).or_insert_with(|| watch::Sender::new(false)).clone()
    }

    /// The unit of a run, if there is a mark of an existing one.
    fn unit_of(owner: &str, run: &RunId) -> (String, bool) {
        match Marks::of(owner).get(run) {
            Some(unit) => (unit, true),
            None => (names::unit(owner, run), false),
        }
    }

    async fn ask_to_stop(&self, owner: &str, run: &RunId) -> Result<(), String> {
        // A unit that was made here is signalled by the guard; one of the host has its own way to stop.
        if let (unit, true) = Self::unit_of(owner, run) {
            self.stop(&unit).await?;
        }
        Ok(())
    }

    async fn stop(&self, unit: &str) -> Result<(), String> {
        let bus = self.bus().await?;
        match bus.job(bus.manager().stop_unit(unit, "replace")).await {
            Ok(_) => Ok(()),
            Err(error) if is_unknown(&error) => Ok(()),
            Err(error) => Err(self.lost(&error).await),
        }
    }

    async fn remove(&self, owner: &str, run: &RunId) -> Result<(), String> {
        let (unit, marked) = Self::unit_of(owner, run);
        let marks = Marks::of(owner);
        // The unit may be the next run's by now.
        if !marked || marks.other(run, &unit).is_none() {
            let bus = self.bus().await?;
            let _ = bus.manager().kill_unit(&unit, "all", libc::SIGKILL).await;
            self.stop(&unit).await?;
            if !matches!(self.stage(&bus, &unit, !marked).await?, FoundStage::Exited(_)) {
                return Err(format!("{unit} is not down yet"));
            }
            let _ = bus.manager().reset_failed_unit(&unit).await;
        }
        if marked {
            marks.drop(run);
        }
        self.over().remove(run);
        Ok(())
    }
}

fn is_unknown(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit")
}

fn workload(start: &StartInstance) -> Result<&UnitWorkload, String> {
    match &start.spec.workload {
        Workload::Unit(unit) => Ok(unit),
        other => Err(format!("{} is no unit but of the executor {}", start.id, other.executor())),
    }
}

fn check_program(program: &str) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let missing = || format!("spec.command: {program:?} is not on this node; install it or correct the path");
    let found = std::fs::metadata(program).map_err(|_| missing())?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(format!("spec.command: {program:?} is no program that can be run"));
    }
    Ok(())
}

fn check_account(name: &str) -> Result<(), String> {
    match Account::find(name) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("spec.user: there is no account {name:?} on this node; make it here")),
        Err(error) => Err(format!("spec.user: cannot look up {name:?}: {error}")),
    }
}

impl Executor for Systemd {
    fn kind(&self) -> ExecutorKind {
        ExecutorKind::Systemd
    }

    fn survey(&self) -> BoxFuture<'_, Result<EngineFact, Unavailable>> {
        self.shared.survey().boxed()
    }

    fn placing(&self, fact: &EngineFact, start: &StartInstance) -> Placing {
        let existing = matches!(&start.spec.workload, Workload::Unit(unit)
            if matches!(unit.source, UnitSource::Existing(_)));
        Placing { beyond: existing.then(|| BEYOND.to_owned()), ..fact.placing.clone() }
    }

    fn prepare<'a>(&'a self, start: &'a StartInstance, _tell: Tell<'a>) -> BoxFuture<'a, Result<(), String>> {
        self.shared.prepare(start).boxed()
    }

    fn launch<'a>(
        &'a self,
        start: &'a StartInstance,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<Option<u32>, String>> {
        self.shared.launch(start, place).boxed()
    }

    fn found<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<Vec<Found>, String>> {
        self.shared.found(owner).boxed()
    }

    fn ask_to_stop<'a>(&'a self, owner: &'a str, run: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        self.shared.ask_to_stop(owner, run).boxed()
    }

    fn remove<'a>(&'a self, owner: &'a str, run: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        self.shared.remove(owner, run).boxed()
    }

    fn exec<'a>(
        &'a self,
        _owner: &'a str,
        run: &'a RunId,
        _command: &'a [String],
    ) -> BoxFuture<'a, Result<String, String>> {
        // Checks of units run on the host, like those of native processes.
        async move { Err(format!("{run}: nothing is run inside of a unit")) }.boxed()
    }

    fn output(
        &self,
        owner: &str,
        run: &RunId,
        after: Option<String>,
    ) -> Option<BoxStream<'static, Result<OutputPiece, String>>> {
        let (unit, marked) = Shared::unit_of(owner, run);
        // A unit of the host has a journal of before.
        let since = if marked { Marks::of(owner).since(run) } else { None };
        let over = || self.shared.over_of(run).subscribe();
        transient::journal_runs().then(|| journal::follow(unit, after, since, over()))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

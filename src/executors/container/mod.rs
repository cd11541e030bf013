//! Containers of a Docker or Podman engine on this host. One container is one run, found again by its labels and
//! never made twice, since its name is the run's. Judges nothing: who may run is the guard's to say.

mod access;
mod check;
mod credentials;
mod events;
mod look;
mod make;
mod names;
mod output;
mod plain;
mod pull;
mod words;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, RemoveContainerOptions, StartContainerOptions,
};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use quorate_core::effect::StartInstance;
use quorate_core::observation::Unavailable;
use quorate_core::spec::{ContainerEngine, ContainerWorkload, ExecutorKind, Workload};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use self::access::{Reached, reach};
use self::look::Memory;
use self::plain::Refused;
use crate::layout::run_name;
use crate::ports::{EngineFact, Executor, Found, FoundStage, OutputPiece, Place, RunId, Tell};

pub use self::access::Access;

/// Between two looks whether a container that is being taken away is gone.
const GONE_ROUND: Duration = Duration::from_millis(20);
/// Output that comes seldom is no reason to ask for it again.
const QUIET: Duration = Duration::from_secs(24 * 3_600);

/// The containers of one engine.
pub struct Containers {
    shared: Arc<Shared>,
    listening: OnceLock<AbortOnDropHandle<()>>,
}

struct Shared {
    engine: ContainerEngine,
    access: Access,
    reached: Mutex<Option<Arc<Reached>>>,
    memory: tokio::sync::Mutex<Memory>,
    changes: watch::Sender<u64>,
}

impl Containers {
    /// Of the engine that is reached by `access`. Asks it nothing yet.
    pub fn new(engine: ContainerEngine, access: Access) -> Self {
        let shared = Shared {
            engine,
            access,
            reached: Mutex::default(),
            memory: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared), listening: OnceLock::new() }
    }
}

impl Shared {
    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn last_reached(&self) -> Option<Arc<Reached>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, reached: Option<Arc<Reached>>) {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = reached;
    }

    /// The engine as it was last seen; looked for if it was not there.
    async fn reached(&self) -> Result<Arc<Reached>, String> {
        match self.last_reached() {
            Some(reached) => Ok(reached),
            None => self.survey().await.map_err(|why| format!("{}; {}", why.why, why.remedy)),
        }
    }

    async fn survey(&self) -> Result<Arc<Reached>, Unavailable> {
        if let Some(reached) = self.last_reached()
            && reached.still().await
        {
            return Ok(reached);
        }
        match reach(self.engine, &self.access).await {
            Ok(reached) => {
                let reached = Arc::new(reached);
                self.keep(Some(reached.clone()));
                Ok(reached)
            }
            Err(why) => {
                self.keep(None);
                Err(why)
            }
        }
    }

    fn spec<'a>(&self, start: &'a StartInstance) -> Result<&'a ContainerWorkload, String> {
        match &start.spec.workload {
            Workload::Container(spec) => Ok(spec),
            Workload::Process(_) | Workload::Unit(_) | Workload::Machine(_) => {
                Err(format!("spec: {} runs containers only", access::name(self.engine)))
            }
        }
    }

    async fn prepare(&self, start: &StartInstance, tell: Tell<'_>) -> Result<(), String> {
        let (reached, spec) = (self.reached().await?, self.spec(start)?);
        check::all(&reached, spec).await?;
        pull::image(&reached, spec, &self.access.credentials, tell).await
    }

    async fn launch(&self, start: &StartInstance, place: &Place) -> Result<Option<u32>, String> {
        let (reached, spec) = (self.reached().await?, self.spec(start)?);
        let run = RunId::of(start);
        let name = run_name(&place.owner, &run);
        if let (Some(owner), Some(state)) = (reached.rootless, &place.state) {
            std::os::unix::fs::chown(state, Some(owner.uid), Some(owner.gid))
                .map_err(|error| format!("state_dir: cannot give it to account {}: {error}", owner.uid))?;
        }
        let options =
            CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
        let body = make::body(&reached, start, spec, place);
        match reached.docker.create_container(Some(options), body).await {
            Ok(made) => {
                if !made.warnings.is_empty() {
                    self.memory.lock().await.warnings.insert(run, made.warnings);
                }
            }
            // An earlier attempt at this very run, whose answer was not heard.
            Err(error) => match look::inspect(&reached.socket, &name).await {
                Ok(found) => match found.state.stage() {
                    Some(FoundStage::Running(pid) | FoundStage::Held(pid)) => return Ok(Some(pid)),
                    Some(FoundStage::Exited(_)) => return Ok(None),
                    Some(FoundStage::Made) => {}
                    None => return Err(format!("container {name} is being taken away")),
                },
                Err(_) => return Err(words::of_start(&error, spec)),
            },
        }
        match reached.docker.start_container(&name, None::<StartContainerOptions>).await {
            Ok(()) => {}
            Err(error) if words::status(&error) == Some(304) => {}
            Err(error) => return Err(words::of_start(&error, spec)),
        }
        let found = look::inspect(&reached.socket, &name).await.map_err(Refused::words)?;
        match found.state.stage() {
            Some(FoundStage::Running(pid) | FoundStage::Held(pid)) => Ok(Some(pid)),
            Some(FoundStage::Exited(_)) => Ok(None),
            Some(FoundStage::Made) | None => {
                Err(found.state.error().unwrap_or("it was started and does not run").to_owned())
            }
        }
    }

    async fn remove(&self, owner: &str, run: &RunId) -> Result<(), String> {
        let reached = self.reached().await?;
        let name = run_name(owner, run);
        if self.engine == ContainerEngine::Podman {
            // Podman would first ask it to stop, and wait for as long as its description lets it.
            let options = KillContainerOptions { signal: "KILL".to_owned() };
            let _ = reached.docker.kill_container(&name, Some(options)).await;
        }
        let options = RemoveContainerOptions { force: true, v: true, link: false };
        let mut last = String::new();
        loop {
            match reached.docker.remove_container(&name, Some(options.clone())).await {
                Ok(()) => {}
                Err(error) if words::status(&error) == Some(404) => return Ok(()),
                Err(error) => last = words::plain(&error),
            }
            match look::inspect(&reached.socket, &name).await {
                Err(Refused::Missing) => return Ok(()),
                Err(Refused::Other(why)) => return Err(why),
                // Taken away by somebody already: done when it is gone. The caller has the patience.
                Ok(found)
                    if found.state.status == "removing"
                        || last.contains("in progress")
                        || last.is_empty() =>
                {
                    sleep(GONE_ROUND).await;
                }
                Ok(_) => return Err(last),
            }
        }
    }

    async fn exec(&self, owner: &str, run: &RunId, command: &[String]) -> Result<String, String> {
        let reached = self.reached().await?;
        let plain = |error: bollard::errors::Error| words::plain(&error);
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..CreateExecOptions::default()
        };
        let made = reached.docker.create_exec(&run_name(owner, run), options).await.map_err(plain)?;
        let begun = reached.docker.start_exec(&made.id, None::<StartExecOptions>).await.map_err(plain)?;
        let mut said = Vec::new();
        if let StartExecResults::Attached { mut output, .. } = begun {
            while let Some(Ok(piece)) = output.next().await {
                if said.len() < 4_096 {
                    said.extend_from_slice(&piece.into_bytes());
                }
            }
        }
        let said = words::cut(&said);
        let program = command.first().map_or("", String::as_str);
        match reached.docker.inspect_exec(&made.id).await.map_err(plain)?.exit_code {
            Some(0) if said.is_empty() => Ok(format!("{program} ended with 0")),
            Some(0) => Ok(said),
            Some(code) => Err(format!("{program} ended with {code}: {said}")),
            None => Err(format!("{program} did not end: {said}")),
        }
    }
}

impl Executor for Containers {
    fn kind(&self) -> ExecutorKind {
        match self.shared.engine {
            ContainerEngine::Docker => ExecutorKind::Docker,
            ContainerEngine::Podman => ExecutorKind::Podman,
        }
    }

    fn survey(&self) -> BoxFuture<'_, Result<EngineFact, Unavailable>> {
        async move { Ok(self.shared.survey().await?.fact()) }.boxed()
    }

    fn prepare<'a>(&'a self, start: &'a StartInstance, tell: Tell<'a>) -> BoxFuture<'a, Result<(), String>> {
        self.shared.prepare(start, tell).boxed()
    }

    fn launch<'a>(
        &'a self,
        start: &'a StartInstance,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<Option<u32>, String>> {
        self.shared.launch(start, place).boxed()
    }

    fn found<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<Vec<Found>, String>> {
        async move {
            let reached = self.shared.reached().await?;
            look::all(&reached, owner, &mut *self.shared.memory.lock().await).await
        }
        .boxed()
    }

    fn ask_to_stop<'a>(&'a self, _: &'a str, _: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        // The guard signals the main process itself.
        async { Ok(()) }.boxed()
    }

    fn remove<'a>(&'a self, owner: &'a str, run: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        self.shared.remove(owner, run).boxed()
    }

    fn exec<'a>(
        &'a self,
        owner: &'a str,
        run: &'a RunId,
        command: &'a [String],
    ) -> BoxFuture<'a, Result<String, String>> {
        self.shared.exec(owner, run, command).boxed()
    }

    fn output(
        &self,
        owner: &str,
        run: &RunId,
        after: Option<String>,
    ) -> Option<BoxStream<'static, Result<OutputPiece, String>>> {
        let (shared, name) = (self.shared.clone(), run_name(owner, run));
        let begun = async move {
            match shared.reached().await {
                Ok(reached) => {
                    let docker = reached.docker.clone().with_timeout(QUIET);
                    output::follow(docker, &name, after.as_deref())
                }
                Err(why) => stream::iter([Err(why)]).boxed(),
            }
        };
        Some(stream::once(begun).flatten().boxed())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        let listen = || AbortOnDropHandle::new(tokio::spawn(events::listen(self.shared.clone())));
        self.listening.get_or_init(listen);
        self.shared.changes.subscribe()
    }
}

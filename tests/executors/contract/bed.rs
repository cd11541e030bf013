//! A node's instances over a real guard and one engine, and the words the contract is written in.

use std::sync::Arc;

use bollard::models::ContainerInspectResponse;
use quorate::executors::Instances;
use quorate::guard::GuardClient;
use quorate::layout::{guard_name, run_name};
use quorate::ports::{ActError, Executor, LogChunk, LogFrom, LogQuery, RunId};
use quorate_core::effect::StartInstance;
use quorate_core::ids::NodeId;
use quorate_core::observation::{ExitReason, Health, InstancePhase, InstanceReport};
use quorate_core::spec::{ContainerWorkload, PullPolicy, Workload};
use serde_json::{Value, json};

use super::engines::{Engine, Kind};
use crate::rig::{PATIENCE, Rig, service, slot, until};

pub struct Bed {
    pub kind: Kind,
    node: Option<(Instances, Arc<GuardClient>)>,
    pub rig: Rig,
    pub engine: Option<Engine>,
    pub owner: String,
}

impl Bed {
    /// Of that kind, if this host has it.
    pub async fn new(kind: Kind) -> Option<Self> {
        let engine = match kind {
            Kind::Process => None,
            _ => Some(Engine::begin(kind).await?),
        };
        Some(Self::over(kind, engine).await)
    }

    pub async fn over(kind: Kind, engine: Option<Engine>) -> Self {
        let rig = Rig::new().await;
        let owner = guard_name(rig.layout.root());
        let mut bed = Self { kind, node: None, rig, engine, owner };
        bed.begin().await;
        bed
    }

    /// A node's instances begin over the guard that is there.
    async fn begin(&mut self) {
        let guard = Arc::new(self.rig.client.take().unwrap());
        let engines: Vec<Arc<dyn Executor>> =
            self.engine.iter().map(|engine| engine.executor() as Arc<dyn Executor>).collect();
        let node = NodeId::new("n1").unwrap();
        let instances = Instances::begin(guard.clone(), engines, self.rig.layout.clone(), node);
        assert!(instances.ready(PATIENCE).await);
        self.node = Some((instances, guard));
    }

    /// The node process ends without a word, and the next one comes.
    pub async fn node_again(&mut self) {
        self.node_goes().await;
        self.rig.node_comes().await;
        self.begin().await;
    }

    pub async fn node_goes(&mut self) {
        let Some((instances, guard)) = self.node.take() else { return };
        let mut status = guard.status();
        drop((instances, guard));
        while status.changed().await.is_ok() {}
    }

    pub fn all(&self) -> &Instances {
        &self.node.as_ref().unwrap().0
    }

    pub fn guard(&self) -> &Arc<GuardClient> {
        &self.node.as_ref().unwrap().1
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// A shell script as an instance of this kind; `limits` as in the description's `spec`.
    pub fn script(&self, name: &str, token: &str, text: &str, whole: Value, limits: Value) -> StartInstance {
        let start = service(name, token, &["/bin/sh", "-c", text], whole, limits);
        self.contained(start)
    }

    pub fn plain(&self, name: &str, token: &str, text: &str) -> StartInstance {
        self.script(name, token, text, json!({}), json!({}))
    }

    /// The same as a container, where this kind is one.
    fn contained(&self, mut start: StartInstance) -> StartInstance {
        let Some(engine) = self.kind.engine() else { return start };
        let mut spec = (*start.spec).clone();
        let Workload::Process(process) = spec.workload else { unreachable!() };
        spec.workload = Workload::Container(ContainerWorkload {
            engine,
            image: self.engine().image.clone(),
            pull: PullPolicy::Never,
            command: process.command,
            entrypoint: Vec::new(),
            environment: process.environment,
            working_dir: None,
            user: None,
            ports: Vec::new(),
            mounts: Vec::new(),
            network: Some("none".to_owned()),
            labels: std::collections::BTreeMap::new(),
            limits: process.limits,
        });
        start.spec = Arc::new(spec);
        start
    }

    /// What cannot be armed starts once the cluster knows; here that is at once.
    pub async fn start(&self, start: &StartInstance) -> Result<(), ActError> {
        let outcome = self.all().start(start.clone()).await;
        match outcome {
            Err(ActError::Failed(why)) if why.contains("waits until the cluster knows") => {
                assert_eq!(self.kind, Kind::Rootless, "{why}");
                self.all().start(start.clone()).await
            }
            other => other,
        }
    }

    pub fn instance(&self, name: &str) -> Option<InstanceReport> {
        self.all().inventory().remove(&slot(name))?.instance
    }

    /// Waits until it runs; its main process.
    pub async fn running(&self, name: &str) -> u32 {
        until(&format!("{name} runs"), async || {
            let one = self.instance(name)?;
            match one.phase {
                InstancePhase::Running => one.pid,
                InstancePhase::StartFailed(why) => panic!("{name}: {why}"),
                _ => None,
            }
        })
        .await
    }

    pub async fn exited(&self, name: &str) -> ExitReason {
        until(&format!("{name} ends"), async || match self.instance(name)?.phase {
            InstancePhase::Exited(reason) => Some(reason),
            _ => None,
        })
        .await
    }

    pub async fn emptied(&self, name: &str) {
        until(&format!("{name} is empty"), async || {
            let slot = self.all().inventory().remove(&slot(name))?;
            slot.instance.is_none().then_some(())
        })
        .await;
    }

    pub async fn healthy(&self, name: &str) -> InstanceReport {
        until(&format!("{name} is healthy"), async || {
            self.instance(name).filter(|one| one.health == Health::Healthy)
        })
        .await
    }

    /// Waits until the engine has nothing of this node's.
    pub async fn nothing_left(&self) {
        let Some(engine) = &self.engine else { return };
        until("the engine has nothing left", async || {
            engine.names(&self.owner).await.is_empty().then_some(())
        })
        .await;
    }

    pub fn container(&self, start: &StartInstance) -> String {
        let (id, restart) = (&start.id, start.restart);
        run_name(&self.owner, &RunId { id: id.clone(), restart })
    }

    pub async fn inspect(&self, start: &StartInstance) -> ContainerInspectResponse {
        let none = None::<bollard::query_parameters::InspectContainerOptions>;
        self.engine().docker.inspect_container(&self.container(start), none).await.unwrap()
    }

    pub async fn logs(&self, name: &str, from: LogFrom) -> LogChunk {
        self.all().logs(slot(name), LogQuery { from, max_bytes: 1 << 20 }).await.unwrap()
    }

    pub async fn output(&self, name: &str) -> String {
        String::from_utf8(self.logs(name, LogFrom::Oldest).await.bytes).unwrap()
    }

    /// Waits until the output holds that.
    pub async fn says(&self, name: &str, words: &str) -> String {
        until(&format!("{name} says {words}"), async || {
            let all = self.output(name).await;
            all.contains(words).then_some(all)
        })
        .await
    }

    pub fn refused(&self, outcome: Result<(), ActError>) -> String {
        outcome.unwrap_err().to_string()
    }

    pub async fn kill_guard(&self) {
        let mut status = self.guard().status();
        let before = status.borrow_and_update().clone();
        crate::rig::signal_process(before.pid, rustix::process::Signal::KILL);
        let next = |status: &quorate::guard::GuardStatus| status.answering && status.pid != before.pid;
        tokio::time::timeout(PATIENCE, status.wait_for(next)).await.unwrap().unwrap();
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.node = None;
        let (engine, owner) = (self.engine.take(), self.owner.clone());
        // A runtime cannot be waited for on a thread that drives one.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let (Some(engine), Ok(runtime)) = (engine, runtime) {
                let clean = async { tokio::time::timeout(PATIENCE, engine.clean(&owner)).await };
                let _ = runtime.block_on(clean);
            }
        });
        let _ = cleaning.join();
    }
}

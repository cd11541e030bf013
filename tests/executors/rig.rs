//! A guard of its own for a test, and the few words tests are written in. All of it ends with the test,
//! even with one that is killed: the guard is held by a pipe.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::guard::{GuardClient, GuardOptions};
use quorate::host::{ProcessStat, boot_now};
use quorate::layout::Layout;
use quorate::ports::{ActError, Guard};
use quorate_core::effect::{Isolation, StartInstance, StopInstance};
use quorate_core::ids::{InstanceId, NodeId, SlotId, Version};
use quorate_core::observation::{ExitReason, InstancePhase, InstanceReport, SlotReport};
use quorate_core::spec::{SpecDefaults, parse_one};
use quorate_core::units::{BootMs, Millis};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The program under test.
pub const QUORATE: &str = env!("CARGO_BIN_EXE_quorate");

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long a kill may take.
pub const MARGIN: Millis = Millis(200);

pub struct Rig {
    pub client: Option<GuardClient>,
    pub layout: Layout,
    program: PathBuf,
    arguments: Vec<String>,
    held: OwnedFd,
    hold: Option<OwnedFd>,
    _folder: TempDir,
}

impl Rig {
    /// A node with its guard, and a lease of a minute.
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same, with further arguments of the guard.
    pub async fn with(arguments: &[&str]) -> Self {
        let rig = Self::without_lease(arguments).await;
        rig.renew_for(60_000).await;
        rig
    }

    pub async fn without_lease(arguments: &[&str]) -> Self {
        Self::of_program(PathBuf::from(QUORATE), arguments).await
    }

    /// The same, with the guard started from another program.
    pub async fn of_program(program: PathBuf, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Accounts that instances switch to have to get in.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let layout = Layout::new(folder.path().canonicalize().unwrap().join("data"));
        let (held, hold) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let arguments = arguments.iter().map(|one| (*one).to_owned()).collect();
        let mut rig =
            Self { client: None, layout, program, arguments, held, hold: Some(hold), _folder: folder };
        rig.node_comes().await;
        rig
    }

    /// A node process begins: it finds the guard, or starts it.
    pub async fn node_comes(&mut self) {
        let client = GuardClient::begin(GuardOptions {
            program: self.program.clone(),
            layout: self.layout.clone(),
            node: NodeId::new("n1").unwrap(),
            hold: Some(self.held.try_clone().unwrap()),
            arguments: self.arguments.clone(),
        });
        client.ready(PATIENCE).await.unwrap();
        self.client = Some(client);
    }

    /// The node process ends, without a word to the guard.
    pub async fn node_goes(&mut self) {
        let Some(client) = self.client.take() else { return };
        let mut status = client.status();
        drop(client);
        // The session's task ends with the value: nobody is left to start a guard again.
        while status.changed().await.is_ok() {}
    }

    pub fn guard(&self) -> &GuardClient {
        self.client.as_ref().expect("the node is there")
    }

    pub fn guard_pid(&self) -> u32 {
        self.guard().status().borrow().pid
    }

    /// Lets go, as the end of a demonstration does.
    pub fn let_go(&mut self) {
        self.hold = None;
    }

    /// Renews the lease; its end.
    pub async fn renew_for(&self, ms: u64) -> BootMs {
        let until = boot_now() + Millis(ms);
        self.guard().renew(until, MARGIN).await.unwrap();
        until
    }

    pub async fn start(&self, start: &StartInstance) -> Result<(), ActError> {
        self.guard().start(start.clone()).await
    }

    pub async fn slot(&self, name: &str) -> Option<SlotReport> {
        self.guard().inventory().await.unwrap().remove(&slot(name))
    }

    pub async fn instance(&self, name: &str) -> Option<InstanceReport> {
        self.slot(name).await.and_then(|slot| slot.instance)
    }

    /// Waits until the instance runs; its process.
    pub async fn running(&self, name: &str) -> u32 {
        until(&format!("{name} runs"), async || {
            let instance = self.instance(name).await?;
            (instance.phase == InstancePhase::Running).then_some(instance.pid).flatten()
        })
        .await
    }

    /// Waits until the instance ended by itself; how.
    pub async fn exited(&self, name: &str) -> ExitReason {
        until(&format!("{name} ends"), async || match self.instance(name).await?.phase {
            InstancePhase::Exited(reason) => Some(reason),
            _ => None,
        })
        .await
    }

    /// Waits until a slot holds nothing.
    pub async fn emptied(&self, name: &str) {
        until(&format!("{name} is empty"), async || {
            let slot = self.slot(name).await?;
            slot.instance.is_none().then_some(())
        })
        .await;
    }

    pub fn signal_guard(&self, signal: Signal) {
        signal_process(self.guard_pid(), signal);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let pid = self.client.as_ref().map_or(0, |client| client.status().borrow().pid);
        self.client = None;
        self.hold = None;
        let until = Instant::now() + PATIENCE;
        while pid > 0 && alive(pid) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        // A test that failed with its guard killed would leave instances behind; a guard that nobody
        // holds takes them over, ends them and itself.
        let hold = self.held.try_clone().unwrap();
        let mut last = std::process::Command::new(QUORATE);
        last.args(["guard", "--hold", "0", "--data-dir"]).arg(self.layout.root());
        last.stdin(hold).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let _ = last.status();
    }
}

/// Polls until there is a value, and says what was waited for if there is none in time.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The same for what needs no waiting to look at.
pub async fn until_so(what: &str, mut so: impl FnMut() -> bool) {
    until(what, async || so().then_some(())).await;
}

pub fn slot(name: &str) -> SlotId {
    format!("{name}/0").parse().unwrap()
}

pub fn alive(pid: u32) -> bool {
    ProcessStat::read(pid).is_some_and(|stat| !stat.dead())
}

pub fn signal_process(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Is a part of the host there that a test needs? If not, it says so, and fails where QUORATE_REQUIRE names
/// that part.
pub fn needs(part: &str, there: bool) -> bool {
    if !there {
        let required = std::env::var("QUORATE_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|one| one.trim() == part), "{part} is required and missing here");
        println!("left out: this host or account has no {part}");
    }
    there
}

pub fn root() -> bool {
    needs("root", rustix::process::getuid().is_root())
}

/// What a test asks for: a command, and further keys of the service and of its `spec`.
pub fn service(name: &str, token: &str, command: &[&str], service: Value, process: Value) -> StartInstance {
    let mut spec = json!({"command": command});
    spec.as_object_mut().unwrap().extend(process.as_object().unwrap().clone());
    let mut whole = json!({"name": name, "executor": "process", "stop": {"grace": "5s"}, "spec": spec});
    whole.as_object_mut().unwrap().extend(service.as_object().unwrap().clone());
    let spec = parse_one(&whole.to_string(), &SpecDefaults::default()).unwrap();
    StartInstance {
        id: InstanceId { slot: slot(name), token: token.parse().unwrap() },
        spec: Arc::new(spec),
        version: Version(1),
        restart: 0,
        host: "127.0.0.1".to_owned(),
        isolation: Isolation::Stop { grace: Millis(5_000) },
        state_from: None,
    }
}

/// A shell script as an instance.
pub fn script(name: &str, token: &str, text: &str) -> StartInstance {
    service(name, token, &["/bin/sh", "-c", text], json!({}), json!({}))
}

pub fn stop(name: &str, token: &str, grace: u64) -> StopInstance {
    StopInstance {
        slot: slot(name),
        token: token.parse().unwrap(),
        signal: 15,
        grace: Millis(grace),
        because: "the test says so".to_owned(),
    }
}

//! Units of a real systemd, each test in a host of its own: the test runs itself once more inside of it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::executors::{Instances, Systemd};
use quorate::guard::GuardClient;
use quorate::ports::{Executor, LogFrom, LogQuery};
use quorate_core::effect::StartInstance;
use quorate_core::ids::NodeId;
use quorate_core::observation::{ExitKind, InstancePhase, InstanceReport};
use quorate_core::spec::{SpecDefaults, parse_one};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{PATIENCE, QUORATE, Rig, alive, needs, script, slot, stop, until, until_so};

/// Set inside of the host.
const INSIDE: &str = "QUORATE_TEST_UNIT_HOST";

/// Is this the run inside of a host? If not, it is started there and must pass; without a host the test is left out.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let Some(root) = unit_root() else { return false };
    let host = Host::begin(&root);
    let own = std::env::current_exe().unwrap();
    let status = host
        .command()
        .arg(&own)
        .args(["--exact", "--nocapture", &format!("units::{test}")])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed inside of the host");
    false
}

/// The files of a Debian with systemd.
fn unit_root() -> Option<PathBuf> {
    let cached = std::env::var("QUORATE_PARTS").unwrap_or_else(|_| "/var/tmp/quorate-test-parts".to_owned());
    let folder = Path::new(&cached).join("unit-root");
    let there = rustix::process::getuid().is_root() && folder.join(".done").exists();
    needs("systemd", there).then_some(folder)
}

struct Host {
    outer: Child,
    init: u32,
    name: String,
    folder: tempfile::TempDir,
}

impl Host {
    fn begin(root: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("quorate-unit-host-{}", std::process::id());
        let parts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts");
        let target = Path::new(QUORATE).parent().unwrap();
        let mut command = Command::new(parts.join("unit-host.sh"));
        command.arg(root).arg(folder.path()).arg(&name).arg(target);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let outer = command.spawn().unwrap();
        let mut host = Self { outer, init: 0, name, folder };
        let end = Instant::now() + PATIENCE;
        while !host.answers() {
            let log = || fs::read_to_string(host.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "the host does not come up: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        host
    }

    /// The first process inside, found by its parent.
    fn answers(&mut self) -> bool {
        let outer = self.outer.id();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
        self.init = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
        if self.init == 0 {
            return false;
        }
        let asked = self.command().args(["systemctl", "is-system-running"]).output().unwrap();
        matches!(String::from_utf8_lossy(&asked.stdout).trim(), "running" | "degraded")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-p", "-m", "-u", "-i", "-n", "-C", "-r", "-w"]);
        command.env("TMPDIR", "/tmp");
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        let end = Instant::now() + PATIENCE;
        while self.init > 0 && alive(self.init) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let trees = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for tree in trees
            .map(|tree| tree.path().join(&self.name))
            .chain([Path::new("/sys/fs/cgroup").join(&self.name)])
        {
            remove_groups(&tree, end);
        }
    }
}

/// A group is gone a moment after the last process of it.
fn remove_groups(group: &Path, end: Instant) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path(), end);
        }
    }
    while group.exists() && fs::remove_dir(group).is_err() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A node's instances over the rig's guard and the host's service manager.
struct Node {
    rig: Rig,
    instances: Option<Instances>,
    guard: Option<Arc<GuardClient>>,
}

impl Node {
    async fn new() -> Self {
        let rig = Rig::new().await;
        let mut node = Self { rig, instances: None, guard: None };
        node.comes().await;
        node
    }

    async fn comes(&mut self) {
        if self.rig.client.is_none() {
            self.rig.node_comes().await;
        }
        let guard = Arc::new(self.rig.client.take().unwrap());
        let engines: Vec<Arc<dyn Executor>> = vec![Arc::new(Systemd::new(None))];
        let name = NodeId::new("n1").unwrap();
        let instances = Instances::begin(guard.clone(), engines, self.rig.layout.clone(), name);
        assert!(instances.ready(PATIENCE).await);
        (self.instances, self.guard) = (Some(instances), Some(guard));
    }

    async fn goes(&mut self) {
        let mut status = self.guard.as_ref().unwrap().status();
        (self.instances, self.guard) = (None, None);
        while status.changed().await.is_ok() {}
    }

    fn instances(&self) -> &Instances {
        self.instances.as_ref().unwrap()
    }

    fn report(&self, name: &str) -> Option<InstanceReport> {
        self.instances().inventory().remove(&slot(name))?.instance
    }

    async fn running(&self, name: &str) -> u32 {
        until(&format!("{name} runs"), async || {
            let report = self.report(name)?;
            (report.phase == InstancePhase::Running).then_some(report.pid).flatten()
        })
        .await
    }

    async fn exited(&self, name: &str) -> quorate_core::observation::ExitReason {
        until(&format!("{name} ends"), async || match self.report(name)?.phase {
            InstancePhase::Exited(reason) => Some(reason),
            _ => None,
        })
        .await
    }

    /// Why a start is refused for good: one that no holder can kill waits first until the node counts as not armed.
    async fn refused(&self, start: StartInstance) -> String {
        until("a refusal", async || {
            let error = self.instances().start(start.clone()).await.err()?.to_string();
            (!error.contains("waits until")).then_some(error)
        })
        .await
    }

    async fn output(&self, name: &str) -> String {
        let query = LogQuery { from: LogFrom::Oldest, max_bytes: 1 << 20 };
        String::from_utf8(self.instances().logs(slot(name), query).await.unwrap().bytes).unwrap()
    }
}

/// A service of the executor systemd.
fn unit(name: &str, token: &str, spec: Value) -> StartInstance {
    let whole = json!({"name": name, "executor": "systemd", "stop": {"grace": "5s"}, "spec": spec});
    let spec = parse_one(&whole.to_string(), &SpecDefaults::default()).unwrap();
    StartInstance { spec: Arc::new(spec), ..script(name, token, "true") }
}

fn shell(name: &str, token: &str, text: &str) -> StartInstance {
    unit(name, token, json!({"command": ["/bin/sh", "-c", text]}))
}

fn systemctl(arguments: &[&str]) -> String {
    let out = Command::new("systemctl").args(arguments).output().unwrap();
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn units() -> Vec<String> {
    let listed = systemctl(&["list-units", "--all", "--plain", "--no-legend", "quorate-*.service"]);
    listed.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

#[tokio::test]
async fn a_unit_runs_under_the_guards_deadline_stops_and_leaves_nothing() {
    if !inside("a_unit_runs_under_the_guards_deadline_stops_and_leaves_nothing") {
        return;
    }
    let node = Node::new().await;
    let fact = &node.instances().facts()[1];
    println!("systemd {}: {}", fact.version, fact.capabilities.join(" "));
    assert!(fact.unavailable.is_none());
    let text = "echo I am $QUORATE_INSTANCE; trap 'exit 0' TERM; while :; do sleep 0.01; done";
    let start = shell("web", "1.5", text);
    node.instances().start(start.clone()).await.unwrap();
    let pid = node.running("web").await;
    node.instances().start(start).await.unwrap();
    assert_eq!(node.running("web").await, pid, "a repeated start changes nothing");
    until("it is armed", async || node.report("web").filter(|report| report.armed)).await;
    let name = units().pop().unwrap();
    assert!(name.contains("web.0-1.5-0"), "{name}");
    assert_eq!(systemctl(&["show", &name, "-P", "Restart"]), "no");
    assert!(systemctl(&["show", &name, "-P", "ControlGroup"]).starts_with("/quorate.slice/"));
    until("its output is there", async || node.output("web").await.contains("I am web/0@1.5").then_some(()))
        .await;
    let stale = node.instances().start(shell("web", "1.4", "true")).await.unwrap_err().to_string();
    assert!(stale.contains("void"), "{stale}");
    node.instances().stop(stop("web", "1.6", 5_000)).await.unwrap();
    until("it is gone", async || node.report("web").is_none().then_some(())).await;
    assert!(!alive(pid));
    until_so("its unit is gone", || units().is_empty()).await;
    node.instances().start(shell("web", "1.7", "exec sleep 1000")).await.unwrap();
    node.running("web").await;
    assert_eq!(node.report("web").unwrap().last_exit.unwrap().kind, ExitKind::Stopped);
}

#[tokio::test]
async fn ends_are_told_apart() {
    if !inside("ends_are_told_apart") {
        return;
    }
    let node = Node::new().await;
    let hog = json!({"command": ["/bin/sh", "-c", "x=$(head -c 64000000 /dev/zero | tr '\\0' x); echo survived"],
        "memory_limit": 32});
    for (start, kind, code, signal) in [
        (shell("done", "1.5", "sleep 0.2"), ExitKind::Completed, Some(0), None),
        (shell("quick", "1.5", "true"), ExitKind::Completed, Some(0), None),
        (shell("bad", "1.5", "exit 3"), ExitKind::Failed, Some(3), None),
        (shell("shot", "1.5", "kill -SEGV $$"), ExitKind::Signaled, None, Some(11)),
        (unit("hog", "1.5", hog), ExitKind::OutOfMemory, None, Some(9)),
    ] {
        let name = start.id.slot.service.to_string();
        node.instances().start(start).await.unwrap();
        let reason = node.exited(&name).await;
        assert_eq!(
            (reason.kind, reason.code, reason.signal),
            (kind, code, signal),
            "{name}: {}",
            node.output(&name).await
        );
    }
    until_so("no unit is left", || units().is_empty()).await;
}

#[tokio::test]
async fn the_manager_shows_the_values_of_the_description_and_the_limit_holds() {
    if !inside("the_manager_shows_the_values_of_the_description_and_the_limit_holds") {
        return;
    }
    let node = Node::new().await;
    let spec = json!({
        "command": ["/bin/sh", "-c", "while :; do :; done"], "environment": {"MODE": "on"}, "working_dir": "/usr",
        "user": "nobody", "cpu_limit": 0.25, "memory_limit": 64, "memory_high": 48, "pids_limit": 10,
    });
    node.instances().start(unit("busy", "1.5", spec)).await.unwrap();
    let pid = node.running("busy").await;
    let name = units().pop().unwrap();
    for (property, value) in [
        ("CPUQuotaPerSecUSec", "250ms"),
        ("MemoryMax", "67108864"),
        ("MemoryHigh", "50331648"),
        ("TasksMax", "10"),
        ("WorkingDirectory", "/usr"),
        ("User", "nobody"),
        ("MainPID", &pid.to_string()),
    ] {
        assert_eq!(systemctl(&["show", &name, "-P", property]), value, "{property}");
    }
    assert!(systemctl(&["show", &name, "-P", "Environment"]).contains("MODE=on"));
    assert!(fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("Uid:\t65534"));
    // Measured by the processor time it gets, over a time long enough for many periods.
    let used = || quorate::host::ProcessStat::read(pid).unwrap().cpu_ticks * 10;
    let (before, at) = (used(), Instant::now());
    until("three seconds passed", async || (at.elapsed() > Duration::from_secs(3)).then_some(())).await;
    let share = (used() - before) as f64 / at.elapsed().as_millis() as f64;
    assert!((0.225..=0.275).contains(&share), "{share} of a processor");
    until("its use is seen", async || node.report("busy").filter(|one| one.usage.cpu.0 > 150)).await;
}

#[tokio::test]
async fn a_node_that_comes_back_finds_its_units_and_their_output() {
    if !inside("a_node_that_comes_back_finds_its_units_and_their_output") {
        return;
    }
    let mut node = Node::new().await;
    node.instances()
        .start(shell("web", "1.5", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"))
        .await
        .unwrap();
    let pid = node.running("web").await;
    until("some output", async || node.output("web").await.contains("line 5\n").then_some(())).await;
    node.goes().await;
    node.comes().await;
    assert_eq!(node.running("web").await, pid);
    let seen = until("more output", async || {
        let text = node.output("web").await;
        (text.lines().count() > 20).then_some(text)
    })
    .await;
    for (at, line) in seen.lines().enumerate() {
        assert_eq!(line, format!("line {}", at + 1), "{seen}");
    }
    assert_eq!(units().len(), 1);
    // What no guard answers for is taken away.
    let owner = units()[0].split('-').nth(1).unwrap().to_owned();
    let stray = format!("quorate-{owner}-other.0-1.1-0.service");
    let made = Command::new("systemd-run").args(["--unit", &stray, "sleep", "1000"]).status().unwrap();
    assert!(made.success());
    until_so("the stray is gone", || !units().contains(&stray)).await;
    assert!(alive(pid));
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_started() {
    if !inside("bad_input_is_refused_before_anything_is_started") {
        return;
    }
    let node = Node::new().await;
    for (name, spec, field) in [
        ("program", json!({"command": ["/no/such/program"]}), "spec.command"),
        ("file", json!({"command": ["/etc/passwd"]}), "spec.command"),
        ("folder", json!({"command": ["/bin/true"], "working_dir": "/no/such"}), "spec.working_dir"),
        ("account", json!({"command": ["/bin/true"], "user": "no-such-account"}), "spec.user"),
        ("missing", json!({"unit": "no-such.service"}), "spec.unit"),
    ] {
        let error = node.refused(unit(name, "1.5", spec)).await;
        assert!(error.contains(field), "{error}");
        let failed = until(name, async || match node.report(name)?.phase {
            InstancePhase::StartFailed(why) => Some(why),
            _ => None,
        })
        .await;
        assert!(failed.contains(field), "{failed}");
    }
    assert!(units().is_empty());
}

#[tokio::test]
async fn a_unit_of_the_host_is_managed_unless_anything_else_could_start_it() {
    if !inside("a_unit_of_the_host_is_managed_unless_anything_else_could_start_it") {
        return;
    }
    let write = |name: &str, more: &str| {
        let text = format!("[Service]\nExecStart=/bin/sleep 1000\nExecStop=/bin/touch /tmp/stopped\n{more}");
        fs::write(format!("/etc/systemd/system/{name}.service"), text).unwrap();
    };
    // Over is what is down for good, not what has lost its main process.
    write("own", "ExecStopPost=/bin/sleep 1\n");
    write("again", "Restart=always\n");
    write("boot", "[Install]\nWantedBy=multi-user.target\n");
    systemctl(&["daemon-reload"]);
    systemctl(&["enable", "boot.service"]);
    let node = Node::new().await;
    for (name, word) in [("again", "Restart=always"), ("boot", "enabled")] {
        let spec = json!({"unit": format!("{name}.service")});
        let error = node.refused(unit(name, "1.5", spec)).await;
        assert!(error.contains("spec.unit") && error.contains(word), "{error}");
    }
    let start = unit("own", "1.5", json!({"unit": "own.service"}));
    until("it is admitted", async || node.instances().start(start.clone()).await.ok()).await;
    let pid = node.running("own").await;
    assert_eq!(systemctl(&["show", "own.service", "-P", "MainPID"]), pid.to_string());
    // Restarted behind the cluster's back it is the same run, with another main process.
    systemctl(&["restart", "own.service"]);
    let main = systemctl(&["show", "own.service", "-P", "MainPID"]);
    until("its new process is known", async || {
        let report = node.report("own")?;
        let same = report.restarts == 0 && report.phase == InstancePhase::Running;
        (same && report.pid.map(|pid| pid.to_string()) == Some(main.clone())).then_some(())
    })
    .await;
    assert!(!node.report("own").unwrap().armed);
    let why = node.guard.as_ref().unwrap().report().unarmed.unwrap().why;
    assert!(why.contains("own/0") && why.contains("existing unit"), "{why}");
    node.instances().stop(stop("own", "1.6", 5_000)).await.unwrap();
    until("it is gone", async || node.report("own").is_none().then_some(())).await;
    assert!(fs::metadata("/tmp/stopped").is_ok(), "its own way to stop was taken");
    assert_eq!(systemctl(&["is-active", "own.service"]), "inactive");
}

#[tokio::test]
async fn deadlines_hold_without_the_manager_and_a_late_start_does_not_run() {
    if !inside("deadlines_hold_without_the_manager_and_a_late_start_does_not_run") {
        return;
    }
    let node = Node::new().await;
    node.instances().start(shell("deaf", "1.5", "trap '' TERM; while :; do sleep 0.01; done")).await.unwrap();
    let pid = node.running("deaf").await;
    until("it is armed", async || node.report("deaf").filter(|report| report.armed)).await;
    // The bus away is the manager away for everybody but the kernel.
    let bus: u32 = systemctl(&["show", "dbus.service", "-P", "MainPID"]).parse().unwrap();
    crate::rig::signal_process(bus, Signal::STOP);
    let until_ms = quorate::host::boot_now() + quorate_core::units::Millis(300);
    node.guard.as_ref().unwrap().renew(until_ms, crate::rig::MARGIN).await.unwrap();
    until_so("it is killed at its deadline", || !alive(pid)).await;
    let late = quorate::host::boot_now().since(until_ms).0;
    assert!((5_000..5_400).contains(&late), "killed {late} ms after the expiry, its grace being 5000");
    crate::rig::signal_process(bus, Signal::CONT);
    let reason = node.exited("deaf").await;
    assert_eq!(reason.kind, ExitKind::LeaseExpired);
    until_so("its unit is gone", || units().is_empty()).await;
    let error =
        node.instances().start(shell("late", "1.5", "exec sleep 1000")).await.unwrap_err().to_string();
    assert!(error.contains("lease"), "{error}");
    assert!(units().is_empty());
}

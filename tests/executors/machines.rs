//! Virtual machines of a real libvirt, each test with a daemon of its own: the test runs itself once more in namespaces
//! where it finds one. Guests are emulated, since that runs everywhere.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use quorate::executors::{DomainType, Instances, Libvirt};
use quorate::guard::GuardClient;
use quorate::host::boot_now;
use quorate::ports::{EngineFact, Executor, Found, LogFrom, LogQuery, OutputPiece, Place, RunId, Tell};
use quorate_core::effect::StartInstance;
use quorate_core::ids::NodeId;
use quorate_core::observation::{ExitKind, ExitReason, Health, InstancePhase, InstanceReport, Unavailable};
use quorate_core::spec::{ExecutorKind, SpecDefaults, parse_one};
use quorate_core::units::Millis;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::rig::{MARGIN, PATIENCE, Rig, alive, needs, script, signal_process, slot, stop, until, until_so};

/// Set inside of the host: the folder of it.
const INSIDE: &str = "QUORATE_TEST_MACHINE_HOST";
/// The tool that looks at libvirt from outside of the program under test.
const VIRSH: [&str; 3] = ["-q", "-c", "qemu:///system"];

fn parts() -> PathBuf {
    let cached = std::env::var("QUORATE_PARTS").unwrap_or_else(|_| "/var/tmp/quorate-test-parts".to_owned());
    Path::new(&cached).join("machines")
}

/// Is this the run inside of a host? If not, it is started there and must pass; where machines cannot run it is left out.
fn inside(test: &str) -> bool {
    inside_where(test, true)
}

/// The same, where libvirt may be kept from putting anything into control groups.
fn inside_where(test: &str, places: bool) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let here = |tool: &&str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
    };
    let tools =
        ["libvirtd", "virsh", "qemu-img", "qemu-system-x86_64", "unshare", "setpriv"].iter().all(here);
    let there = rustix::process::getuid().is_root() && tools && parts().join(".done").exists();
    if !needs("libvirt", there) {
        return false;
    }
    let work = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts/machine-host.sh");
    let mut command = Command::new(script);
    command.arg(work.path()).arg(parts().join("cache")).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", &format!("machines::{test}")]);
    if !places {
        command.env("QUORATE_TEST_NO_GROUPS", "1");
    }
    let status = command.env(INSIDE, work.path()).status().unwrap();
    assert!(status.success(), "{test} failed inside of the host");
    false
}

/// The daemon, which ends with the test.
struct Daemon(Child);

impl Daemon {
    fn begin() -> Self {
        Self(Self::spawn())
    }

    fn spawn() -> Child {
        let log = Path::new(&std::env::var_os(INSIDE).unwrap()).join("log/libvirtd.log");
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "libvirtd", "--pid-file", "/run/libvirtd.pid"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        command.spawn().unwrap()
    }

    fn signal(&self, signal: Signal) {
        signal_process(self.0.id(), signal);
    }

    /// Ends by force.
    fn dies(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Another in its place.
    fn comes_back(&mut self) {
        self.0 = Self::spawn();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        // What a failed test leaves: its emulators are named in its own /run alone.
        for entry in fs::read_dir("/run/libvirt/qemu").into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "pid")
                && let Ok(pid) = fs::read_to_string(&path).unwrap_or_default().trim().parse::<u32>()
                && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu"))
            {
                signal_process(pid, Signal::KILL);
            }
        }
    }
}

/// A node's instances over the rig's guard and the host's libvirt.
struct Node {
    rig: Rig,
    instances: Option<Instances>,
    guard: Option<Arc<GuardClient>>,
    daemon: Daemon,
}

impl Node {
    async fn new() -> Self {
        Self::with(Arc::new(Libvirt::new(None, Some(DomainType::Qemu)))).await
    }

    async fn with(engine: Arc<dyn Executor>) -> Self {
        let daemon = Daemon::begin();
        let mut node = Self { rig: Rig::new().await, instances: None, guard: None, daemon };
        node.comes_with(engine).await;
        node
    }

    async fn comes(&mut self) {
        self.comes_with(Arc::new(Libvirt::new(None, Some(DomainType::Qemu)))).await;
    }

    async fn comes_with(&mut self, engine: Arc<dyn Executor>) {
        if self.rig.client.is_none() {
            self.rig.node_comes().await;
        }
        let guard = Arc::new(self.rig.client.take().unwrap());
        let name = NodeId::new("n1").unwrap();
        let instances = Instances::begin(guard.clone(), vec![engine], self.rig.layout.clone(), name);
        assert!(instances.ready(PATIENCE).await);
        (self.instances, self.guard) = (Some(instances), Some(guard));
        until("libvirt answers", async || self.usable().then_some(())).await;
    }

    async fn goes(&mut self) {
        let mut status = self.guard.as_ref().unwrap().status();
        (self.instances, self.guard) = (None, None);
        while status.changed().await.is_ok() {}
    }

    fn usable(&self) -> bool {
        self.instances().facts()[1].unavailable.is_none()
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

    async fn exited(&self, name: &str) -> ExitReason {
        until(&format!("{name} ends"), async || match self.report(name)?.phase {
            InstancePhase::Exited(reason) => Some(reason),
            _ => None,
        })
        .await
    }

    async fn emptied(&self, name: &str) {
        until(&format!("{name} is gone"), async || self.report(name).is_none().then_some(())).await;
    }

    async fn output(&self, name: &str) -> String {
        let query = LogQuery { from: LogFrom::Oldest, max_bytes: 1 << 20 };
        let bytes = self.instances().logs(slot(name), query).await.unwrap().bytes;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn says(&self, name: &str, words: &str) {
        until(&format!("{name} says {words}"), async || {
            self.output(name).await.contains(words).then_some(())
        })
        .await;
    }

    async fn armed(&self, name: &str) {
        until(&format!("{name} is armed"), async || self.report(name).filter(|report| report.armed)).await;
    }

    /// The overlays of a slot.
    fn overlays(&self, name: &str) -> Vec<PathBuf> {
        let folder = self.rig.layout.instance(&slot(name));
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "qcow2")).collect()
    }
}

fn virsh(arguments: &[&str]) -> String {
    let out = Command::new("virsh").args(VIRSH).args(arguments).output().unwrap();
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Every domain, running or not.
fn domains() -> Vec<String> {
    virsh(&["list", "--all", "--name"]).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The tiny guest's image, made for each host; the guest never looks at it.
fn image() -> String {
    let path = Path::new(&std::env::var_os(INSIDE).unwrap()).join("lib/disk.img");
    if !path.exists() {
        fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    }
    path.display().to_string()
}

/// A service of the executor libvirt, by what differs from the tiny guest that is told `words` by its kernel.
fn machine(name: &str, token: &str, words: &str, more: Value) -> StartInstance {
    let kernel = |file: &str| parts().join(file).display().to_string();
    let arguments = format!("console=ttyS0 quiet panic=1 {words}");
    let mut spec = json!({
        "vm_image": image(), "vm_memory": 96, "vm_network": "none",
        "boot": {"kernel": kernel("vmlinuz"), "initrd": kernel("initrd.gz"), "arguments": arguments},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let whole = json!({"name": name, "executor": "libvirt", "stop": {"grace": "1s"}, "spec": spec});
    let spec = parse_one(&whole.to_string(), &SpecDefaults::default()).unwrap();
    StartInstance { spec: Arc::new(spec), ..script(name, token, "true") }
}

fn guest(name: &str, token: &str, words: &str) -> StartInstance {
    machine(name, token, words, json!({}))
}

/// Is it in the group it was given, in every tree that the guard uses?
fn assert_in_its_group(pid: u32, slot: &str) {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    println!("{groups}");
    let used = ["", "memory", "cpu", "cpu,cpuacct", "pids", "freezer", "blkio", "name=systemd"];
    for line in groups.lines().filter(|line| used.contains(&line.split(':').nth(1).unwrap())) {
        assert!(
            line.contains("/quorate.slice/quorate-") && line.contains(&format!("-{slot}.slice")),
            "{groups}"
        );
    }
}

#[tokio::test]
async fn a_machine_is_as_described_stops_by_its_power_button_and_leaves_nothing() {
    if !inside("a_machine_is_as_described_stops_by_its_power_button_and_leaves_nothing") {
        return;
    }
    // The type of machines is measured here, as a node does.
    let node = Node::with(Arc::new(Libvirt::new(None, None))).await;
    let fact = &node.instances().facts()[1];
    println!("libvirt {}: {}", fact.version, fact.capabilities.join(" "));
    assert!(fact.capabilities.iter().any(|one| one.starts_with("domain:")));
    let network = Path::new(&std::env::var_os(INSIDE).unwrap()).join("net.xml");
    fs::write(&network, "<network><name>lab</name><bridge name='lab0'/></network>").unwrap();
    virsh(&["net-create", network.to_str().unwrap()]);
    let more = json!({"vm_memory": 112, "vm_cpus": 2, "vm_network": "network:lab", "vm_graphics": "vnc"});
    let start = machine("web", "1.5", "", more);
    node.instances().start(start.clone()).await.unwrap();
    let pid = node.running("web").await;
    node.instances().start(start).await.unwrap();
    assert_eq!(node.running("web").await, pid, "a repeated start changes nothing");
    let names = domains();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].starts_with("quorate-") && names[0].ends_with("-web.0-1.5-0"), "{names:?}");
    node.armed("web").await;

    let text = virsh(&["dumpxml", &names[0]]);
    let overlay = node.overlays("web").pop().unwrap();
    for part in [
        "<memory unit='KiB'>114688</memory>".to_owned(),
        "<vcpu placement='static'>2</vcpu>".to_owned(),
        format!("<source file='{}'", overlay.display()),
        format!("<source file='{}'", image()),
        "<source network='lab'".to_owned(),
        "<graphics type='vnc' port='59".to_owned(),
        "listen='127.0.0.1'".to_owned(),
        "<on_crash>destroy</on_crash>".to_owned(),
        r#"slot="web/0" token="1.5" restart="0""#.to_owned(),
        "<partition>/quorate.slice/".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} is not in {text}");
    }
    assert!(virsh(&["dominfo", &names[0]]).contains("Persistent:     no"));
    assert_in_its_group(pid, "web.0");
    node.says("web", "GUEST-UP").await;
    node.says("web", "beat 3").await;
    until("its use is seen", async || node.report("web").filter(|one| one.usage.memory.0 > 10)).await;
    let stale = node.instances().start(guest("web", "1.4", "")).await.unwrap_err().to_string();
    assert!(stale.contains("void"), "{stale}");

    node.instances().stop(stop("web", "1.6", 15_000)).await.unwrap();
    node.emptied("web").await;
    assert!(!alive(pid));
    assert!(node.output("web").await.contains("POWER-BUTTON"), "it ended by its own power button");
    until_so("no domain is left", || domains().is_empty()).await;
    let owner = names[0].split('-').nth(1).unwrap();
    until_so("no mark is left", || !Path::new("/run/quorate").join(owner).join("machines").exists()).await;
    assert!(overlay.exists());
    node.instances().forget(slot("web")).await.unwrap();
    until_so("no overlay is left", || !overlay.exists()).await;
}

#[tokio::test]
async fn ends_are_told_apart_and_an_overlay_lasts_as_long_as_its_token() {
    if !inside("ends_are_told_apart_and_an_overlay_lasts_as_long_as_its_token") {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let node = Node::new().await;
    let first = guest("web", "1.5", "brief");
    node.instances().start(first.clone()).await.unwrap();
    let reason = node.exited("web").await;
    assert_eq!((reason.kind, reason.code), (ExitKind::Completed, Some(0)), "it powered itself off");
    until_so("its domain is gone", || domains().is_empty()).await;
    let overlay = node.overlays("web").pop().unwrap();
    let inode = fs::metadata(&overlay).unwrap().ino();

    let again = StartInstance { restart: 1, ..first };
    node.instances().start(again).await.unwrap();
    let pid = node.running("web").await;
    assert!(domains()[0].ends_with("-web.0-1.5-1"));
    assert_eq!(node.overlays("web"), std::slice::from_ref(&overlay));
    assert_eq!(fs::metadata(&overlay).unwrap().ino(), inode, "a restart in place keeps it");
    signal_process(pid, Signal::KILL);
    let reason = node.exited("web").await;
    assert!(matches!(reason.kind, ExitKind::Lost | ExitKind::Signaled), "{reason:?}");

    node.instances().start(guest("web", "1.7", "deaf")).await.unwrap();
    let pid = node.running("web").await;
    let overlays = node.overlays("web");
    assert!(overlays.len() == 1 && overlays[0] != overlay, "another token has another: {overlays:?}");
    node.says("web", "beat 1").await;
    let at = boot_now();
    node.instances().stop(stop("web", "1.8", 1_000)).await.unwrap();
    until_so("it is killed", || !alive(pid)).await;
    let took = boot_now().since(at).0;
    assert!((1_000..2_000).contains(&took), "killed {took} ms after the stop, its grace being 1000");
    node.emptied("web").await;
    until_so("its domain is gone", || domains().is_empty()).await;
    node.instances().start(guest("web", "1.9", "deaf")).await.unwrap();
    node.running("web").await;
    assert_eq!(node.report("web").unwrap().last_exit.unwrap().kind, ExitKind::Killed);
}

#[tokio::test]
async fn a_node_or_daemon_that_comes_back_finds_its_machines() {
    if !inside("a_node_or_daemon_that_comes_back_finds_its_machines") {
        return;
    }
    let mut node = Node::new().await;
    node.instances().start(guest("web", "1.5", "")).await.unwrap();
    let pid = node.running("web").await;
    let name = domains().pop().unwrap();
    let number = virsh(&["domid", &name]);
    node.says("web", "beat 1\r").await;
    node.goes().await;
    node.comes().await;
    assert_eq!((node.running("web").await, virsh(&["domid", &name])), (pid, number));
    node.armed("web").await;

    // What no guard answers for is taken away.
    let owner = name.split('-').nth(1).unwrap().to_owned();
    let stray = format!("quorate-{owner}-other.0-1.1-0");
    let text = format!(
        "<domain type='qemu'><name>{stray}</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    );
    let file = Path::new(&std::env::var_os(INSIDE).unwrap()).join("stray.xml");
    fs::write(&file, text).unwrap();
    virsh(&["create", file.to_str().unwrap()]);
    assert!(domains().contains(&stray));
    until_so("the stray is gone", || !domains().contains(&stray)).await;

    // Somebody pauses it: it is no less the node's, and the node says what is wrong.
    virsh(&["suspend", &name]);
    let paused = until("it is said to be paused", async || {
        node.report("web").filter(|report| report.health == Health::Unhealthy)
    })
    .await;
    assert!(
        paused.phase == InstancePhase::Running && paused.health_detail.contains("virsh resume"),
        "{paused:?}"
    );
    virsh(&["resume", &name]);
    until("it goes on", async || node.report("web").filter(|one| one.health != Health::Unhealthy)).await;

    node.daemon.dies();
    node.daemon.comes_back();
    until_so("the daemon is back", || domains() == [name.clone()]).await;
    until("it is seen again", async || {
        (node.usable() && node.report("web")?.health_detail.is_empty()).then_some(())
    })
    .await;
    assert_eq!(node.running("web").await, pid);
    let more = node.output("web").await.len();
    until("it goes on counting", async || (node.output("web").await.len() > more).then_some(())).await;

    // It ends while the daemon is away: whoever comes back knows nothing of it, and nothing is doubled.
    node.daemon.dies();
    signal_process(pid, Signal::KILL);
    node.exited("web").await;
    node.daemon.comes_back();
    until("libvirt answers", async || node.usable().then_some(())).await;
    until_so("no domain is left", || domains().is_empty()).await;
    node.instances().start(guest("web", "1.6", "")).await.unwrap();
    node.running("web").await;
    assert_eq!(domains().len(), 1);
}

/// A libvirt whose machines are never released.
struct Withheld(Libvirt);

impl Executor for Withheld {
    fn kind(&self) -> ExecutorKind {
        self.0.kind()
    }
    fn survey(&self) -> BoxFuture<'_, Result<EngineFact, Unavailable>> {
        self.0.survey()
    }
    fn prepare<'a>(&'a self, start: &'a StartInstance, tell: Tell<'a>) -> BoxFuture<'a, Result<(), String>> {
        self.0.prepare(start, tell)
    }
    fn launch<'a>(
        &'a self,
        start: &'a StartInstance,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<Option<u32>, String>> {
        self.0.launch(start, place)
    }
    fn release<'a>(&'a self, _: &'a str, _: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Err("withheld by the test".to_owned())))
    }
    fn found<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<Vec<Found>, String>> {
        self.0.found(owner)
    }
    fn ask_to_stop<'a>(&'a self, owner: &'a str, run: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        self.0.ask_to_stop(owner, run)
    }
    fn remove<'a>(&'a self, owner: &'a str, run: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        self.0.remove(owner, run)
    }
    fn exec<'a>(
        &'a self,
        owner: &'a str,
        run: &'a RunId,
        command: &'a [String],
    ) -> BoxFuture<'a, Result<String, String>> {
        self.0.exec(owner, run, command)
    }
    fn output(
        &self,
        owner: &str,
        run: &RunId,
        after: Option<String>,
    ) -> Option<BoxStream<'static, Result<OutputPiece, String>>> {
        self.0.output(owner, run, after)
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }
}

#[tokio::test]
async fn a_machine_stands_still_until_it_is_released_by_the_next_node_process_too() {
    if !inside("a_machine_stands_still_until_it_is_released_by_the_next_node_process_too") {
        return;
    }
    let mut node = Node::with(Arc::new(Withheld(Libvirt::new(None, Some(DomainType::Qemu))))).await;
    node.instances().start(guest("web", "1.5", "")).await.unwrap();
    let pid = node.running("web").await;
    node.armed("web").await;
    let name = domains().pop().unwrap();
    assert_eq!(virsh(&["domstate", &name]), "paused");
    assert_in_its_group(pid, "web.0");
    assert_eq!(node.output("web").await, "", "the guard has it and nothing in it ran");
    node.goes().await;
    assert_eq!(virsh(&["domstate", &name]), "paused");
    node.comes().await;
    node.says("web", "GUEST-UP").await;
    assert_eq!(node.running("web").await, pid);
}

#[tokio::test]
async fn deadlines_hold_without_the_daemon_and_a_late_start_does_not_run() {
    if inside("deadlines_hold_without_the_daemon_and_a_late_start_does_not_run") {
        deadlines_hold().await;
    }
}

#[tokio::test]
async fn what_libvirt_leaves_outside_is_taken_in_before_it_runs() {
    if inside_where("what_libvirt_leaves_outside_is_taken_in_before_it_runs", false) {
        deadlines_hold().await;
    }
}

async fn deadlines_hold() {
    let node = Node::new().await;
    node.instances().start(guest("deaf", "1.5", "deaf")).await.unwrap();
    let pid = node.running("deaf").await;
    node.says("deaf", "beat 1").await;
    node.armed("deaf").await;
    assert_in_its_group(pid, "deaf.0");
    let late = guest("late", "1.5", "");
    let asked = node.instances().start(late);
    let deadline = async {
        // The daemon is stopped while it is at it: the emulator is there, and held back.
        let emulator = until("the late one's emulator is there", async || {
            let entries = fs::read_dir("/run/libvirt/qemu").ok()?.flatten().map(|entry| entry.path());
            entries.filter(|path| path.to_string_lossy().ends_with("-late.0-1.5-0.pid")).last()
        })
        .await;
        node.daemon.signal(Signal::STOP);
        println!("stopped with {}", emulator.display());
        let expiry = boot_now() + Millis(300);
        node.guard.as_ref().unwrap().renew(expiry, MARGIN).await.unwrap();
        until_so("it is killed at its deadline", || !alive(pid)).await;
        boot_now().since(expiry).0
    };
    let (refused, after) = tokio::join!(asked, deadline);
    assert!((5_000..5_200).contains(&after), "killed {after} ms after the expiry, its grace being 5000");
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("called off"), "{error}");
    node.daemon.signal(Signal::CONT);
    assert_eq!(node.exited("deaf").await.kind, ExitKind::LeaseExpired);
    until_so("no domain is left", || domains().is_empty()).await;
    assert_eq!(node.output("late").await, "", "nothing in it ever ran");
    node.emptied("late").await;
    let error = node.instances().start(guest("later", "1.5", "")).await.unwrap_err().to_string();
    assert!(error.contains("lease"), "{error}");
    assert!(domains().is_empty());
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_started() {
    if !inside("bad_input_is_refused_before_anything_is_started") {
        return;
    }
    let node = Node::new().await;
    let boot = |kernel: &str, initrd: &str| json!({"boot": {"kernel": kernel, "initrd": initrd}});
    for (name, spec, field) in [
        ("image", json!({"vm_image": "/no/such.qcow2"}), "spec.vm_image"),
        ("folder", json!({"vm_image": "/etc"}), "spec.vm_image"),
        ("text", json!({"vm_image": "/etc/passwd"}), "spec.vm_image"),
        ("kernel", boot("/no/such/kernel", "/etc/passwd"), "spec.boot.kernel"),
        ("initrd", boot("/etc/passwd", "/no/such"), "spec.boot.initrd"),
        ("network", json!({"vm_network": "network:none-such"}), "spec.vm_network"),
        ("bridge", json!({"vm_network": "bridge:none0"}), "spec.vm_network"),
    ] {
        let error = node.instances().start(machine(name, "1.5", "", spec)).await.unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
        let failed = until(name, async || match node.report(name)?.phase {
            InstancePhase::StartFailed(why) => Some(why),
            _ => None,
        })
        .await;
        assert!(failed.contains(field), "{failed}");
    }
    assert!(domains().is_empty());
}

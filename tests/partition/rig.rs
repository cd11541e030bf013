//! A cluster of real node processes, each on a host of its own, with the records of its workloads and the
//! commands of its operator. All of it hangs on a pipe that this process holds, and on the lab: nothing outlives
//! a test.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tempfile::TempDir;

use crate::judge::runs::{Reader, Span};
use crate::lab::{Lab, PREFIX, SEGMENTS, address, folder};
use crate::wait::await_some;

/// From one heartbeat to the next, and the lease: long enough for a busy machine, short enough for a test.
pub const INTERVAL: Duration = Duration::from_millis(250);
pub const LEASE: Duration = Duration::from_millis(2_500);
/// How long a kill may take.
pub const MARGIN: Duration = Duration::from_millis(200);

const GRPC: u16 = 7001;
const QUORATE: &str = env!("CARGO_BIN_EXE_quorate");

/// CLOCK_BOOTTIME in nanoseconds, as the records have it.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

/// So many milliseconds from one moment to another.
pub fn ms(from: u64, to: u64) -> i64 {
    (i64::try_from(to).unwrap() - i64::try_from(from).unwrap()) / 1_000_000
}

/// A number that the environment sets.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

struct Member {
    name: String,
    child: Option<Child>,
    /// Set in the environment of its next processes.
    environment: Vec<(String, String)>,
}

pub struct Cluster {
    pub dir: TempDir,
    members: Vec<Member>,
    hold: Option<OwnedFd>,
    held: OwnedFd,
    // Ends after the nodes.
    pub lab: Lab,
}

impl Cluster {
    /// `count` nodes on as many hosts that have formed a cluster: all vote and hold a lease. Nothing where no
    /// lab can be made.
    pub fn formed(count: usize) -> Option<Self> {
        let mut cluster = Self::prepared(count)?;
        cluster.form();
        Some(cluster)
    }

    /// Files for `count` nodes; none runs.
    pub fn prepared(count: usize) -> Option<Self> {
        let lab = Lab::new(count)?;
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(folder()).unwrap();
        std::fs::create_dir(dir.path().join("records")).unwrap();
        let (held, hold) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let member = |at| Member { name: format!("n{}", at + 1), child: None, environment: Vec::new() };
        let members: Vec<Member> = (0..count).map(member).collect();
        let cluster = Self { dir, members, hold: Some(hold), held, lab };
        for at in 0..count {
            std::fs::write(cluster.file(at), cluster.config(at)).unwrap();
        }
        Some(cluster)
    }

    fn config(&self, at: usize) -> String {
        let addresses = (0..SEGMENTS.len()).map(|segment| {
            format!("{{segment: {}, host: {}, port: 7000}}", SEGMENTS[segment], address(at, segment))
        });
        // No fence acts before it is asked to: what deadlines do is seen first.
        format!(
            "node_id: {}\nbind_addr: 0.0.0.0:7000\ngrpc_port: {GRPC}\nhttp_port: 7002\naddresses: [{}]\n\
             data_dir: {}\nbootstrap: {}\nlabels: {{zone: z{at}}}\nlog: {{level: debug}}\n\
             resources: {{cpu: 8, memory_mib: 65536}}\n\
             heartbeat: {{interval: {}ms, timeout: {}ms}}\n\
             timing: {{raft_heartbeat: 50ms, election_min: 200ms, election_max: 300ms, kill_margin: {}ms}}\n\
             fencing: {{auto: off, methods: [[{{exec: [{}], timeout: 10s}}]]}}\n",
            self.members[at].name,
            addresses.collect::<Vec<_>>().join(", "),
            self.data(at).display(),
            at == 0,
            INTERVAL.as_millis(),
            LEASE.as_millis(),
            MARGIN.as_millis(),
            self.lab.power_switch(at, self.dir.path()).display(),
        )
    }

    /// Starts all nodes and waits until they have formed a cluster.
    pub fn form(&mut self) {
        let count = self.members.len();
        self.start(0, &[]);
        let token = await_some("the first node gives a token", || self.json(0, &["join-token"]));
        let token = token["token"].as_str().unwrap().to_owned();
        for at in 1..count {
            self.start(at, &["--token", &token]);
        }
        self.await_whole();
    }

    /// Waits until every node votes and is alive.
    #[track_caller]
    pub fn await_whole(&self) {
        await_some("all nodes vote and hold a lease", || {
            let nodes = self.json(0, &["nodes"])?;
            let items = nodes["items"].as_array().cloned().unwrap_or_default();
            let good = |node: &&Value| node["voter"] == true && node["state"] == "alive";
            let whole = items.iter().filter(good).count() == self.members.len();
            if whole { Ok(()) } else { Err(nodes.to_string()) }
        });
    }

    pub fn count(&self) -> usize {
        self.members.len()
    }

    pub fn name(&self, at: usize) -> &str {
        &self.members[at].name
    }

    fn file(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("{}.yaml", self.members[at].name))
    }

    pub fn data(&self, at: usize) -> PathBuf {
        self.dir.path().join(&self.members[at].name)
    }

    /// The folder of the workloads' records.
    pub fn records(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    /// Sets a variable of a node's next processes.
    pub fn set_environment(&mut self, at: usize, name: &str, value: &str) {
        self.members[at].environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts a node's process on its host.
    pub fn start(&mut self, at: usize, arguments: &[&str]) {
        let said = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{}.err", self.members[at].name)))
            .unwrap();
        // A host is a machine of its own: what else this one does, such as compiling, is not to slow it.
        let apart = "echo -15 >/proc/self/autogroup; exec \"$0\" \"$@\"";
        let mut command = Command::new("setsid");
        command
            .args(["sh", "-c", apart, QUORATE, "node", "--demo", "--hold", "0", "--config"])
            .arg(self.file(at))
            .args(arguments)
            .envs(self.members[at].environment.iter().cloned())
            .stdin(Stdio::from(self.held.try_clone().unwrap()))
            .stdout(Stdio::null())
            .stderr(said);
        let spawned = self.lab.within(at, || command.spawn());
        self.members[at].child = Some(spawned.unwrap());
    }

    /// Cuts the power of a host: node, guard and workloads are gone at once.
    pub fn power_off(&mut self, at: usize) {
        self.lab.power_off(at);
        self.buried(at);
    }

    /// Takes leave of a node that something else killed.
    pub fn buried(&mut self, at: usize) {
        let mut child = self.members[at].child.take().expect("the node was started");
        await_some("the node is dead", || child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
    }

    /// The process id of a node.
    pub fn pid(&self, at: usize) -> u32 {
        self.members[at].child.as_ref().expect("the node was started").id()
    }

    /// A command given on a node's own host.
    pub fn run(&self, at: usize, arguments: &[&str]) -> Output {
        let mut command = quorate();
        command.arg("--data-dir").arg(self.data(at)).args(arguments);
        self.lab.within(at, || command.output()).unwrap()
    }

    /// A command, its JSON or its error.
    pub fn json(&self, at: usize, arguments: &[&str]) -> Result<Value, String> {
        let output = self.run(at, &[&["-o", "json"], arguments].concat());
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// A command that is given again while an election is under way.
    #[track_caller]
    pub fn done(&self, at: usize, arguments: &[&str]) {
        await_some(&format!("{arguments:?} is taken"), || {
            let output = self.run(at, arguments);
            let taken = output.status.success();
            if taken { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        });
    }

    /// The row of a node, as another sees it; its own copy will do.
    pub fn node(&self, at: usize, of: usize) -> Result<Value, String> {
        let nodes = self.json(at, &["nodes", "--local"])?;
        let items = nodes["items"].as_array().cloned().unwrap_or_default();
        let found = items.into_iter().find(|node| node["name"] == self.members[of].name.as_str());
        found.ok_or_else(|| nodes.to_string())
    }

    /// Which node leads, as a node sees it.
    pub fn leader(&self, at: usize) -> Result<usize, String> {
        let nodes = self.json(at, &["nodes"])?;
        let items = nodes["items"].as_array().cloned().unwrap_or_default();
        let name = items.iter().find(|node| node["leader"] == true).map(|node| node["name"].clone());
        name.and_then(|name| self.place(&name)).ok_or_else(|| nodes.to_string())
    }

    fn place(&self, name: &Value) -> Option<usize> {
        self.members.iter().position(|member| *name == member.name.as_str())
    }

    /// Deploys services of a workload that records, and waits for nothing.
    #[track_caller]
    pub fn deploy(&self, at: usize, services: &[Service]) {
        let file = self.dir.path().join("services.yaml");
        let specs: Vec<String> = services.iter().map(|service| service.spec(&self.records())).collect();
        std::fs::write(&file, specs.join("---\n")).unwrap();
        self.done(at, &["deploy", "-f", file.to_str().unwrap()]);
    }

    /// Every instance row, as a node sees it.
    pub fn instances(&self, at: usize) -> Result<Vec<Value>, String> {
        let all = self.json(at, &["instances"])?;
        Ok(all["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a slot's latest life is on one of these nodes and goes on; that life.
    #[track_caller]
    pub fn await_life(&self, reader: &mut Reader, slot: &str, nodes: &[usize]) -> Span {
        await_some(&format!("{slot} runs on one of {:?}", self.names(nodes)), || {
            reader.catch_up(&self.records());
            let last = reader.runs.of(slot).last().ok_or("it never ran")?;
            let lives = ms(last.last, boottime_ns()) < 500;
            let good = lives && nodes.iter().any(|at| last.node == self.members[*at].name);
            if good { Ok(last.clone()) } else { Err(format!("{last:?}, now {}", boottime_ns())) }
        })
    }

    /// Waits until a slot runs on a node, and moves it there if it came to another.
    #[track_caller]
    pub fn await_home(&self, reader: &mut Reader, slot: &str, home: usize) {
        let name = self.name(home);
        let mut moved = None;
        await_some(&format!("{slot} runs on {name}"), || {
            reader.catch_up(&self.records());
            let last = reader.runs.of(slot).last().ok_or("it never ran")?;
            let lives = ms(last.last, boottime_ns()) < 500;
            if lives && last.node == name {
                return Ok(());
            }
            if lives && moved != Some(last.token) {
                let asked = self.run(0, &["migrate", slot, "--to", name]);
                moved = asked.status.success().then_some(last.token);
            }
            Err(format!("{last:?}, now {}", boottime_ns()))
        });
    }

    pub fn names(&self, nodes: &[usize]) -> Vec<&str> {
        nodes.iter().map(|at| self.name(*at)).collect()
    }

    fn log_tail(&self, at: usize) -> String {
        let mut text = std::fs::read_to_string(self.data(at).join("quorate.log")).unwrap_or_default();
        let said = self.dir.path().join(format!("{}.err", self.members[at].name));
        text += &std::fs::read_to_string(said).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(12).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// A service of one copy, or of several.
#[derive(Debug, Clone)]
pub struct Service {
    pub name: String,
    pub priority: &'static str,
    pub replicas: u32,
    pub exclusive: bool,
    pub grace: Duration,
    /// Is it killed at the end of its grace, or does it go when asked?
    pub stubborn: bool,
    /// Where it would rather be.
    pub home: Option<String>,
}

impl Service {
    /// An exclusive one.
    pub fn new(name: impl Into<String>, priority: &'static str) -> Self {
        let (grace, home) = (Duration::from_secs(1), None);
        Self { name: name.into(), priority, replicas: 1, exclusive: true, grace, stubborn: false, home }
    }

    pub fn at(mut self, node: &str) -> Self {
        self.home = Some(node.to_owned());
        self
    }

    /// The slot of its first copy.
    pub fn slot(&self) -> String {
        format!("{}/0", self.name)
    }

    fn spec(&self, records: &Path) -> String {
        let Self { name, priority, replicas, exclusive, grace, .. } = self;
        let affinity = self.home.as_ref().map(|node| format!("\"node == {node}\"")).unwrap_or_default();
        format!(
            "name: {name}\npriority: {priority}\nreplicas: {replicas}\nexclusive: {exclusive}\n\
             spec: {{command: [{}, workload, --record, {}{}]}}\nresources: {{cpu: 0.01, memory_mib: 8}}\n\
             placement: {{affinity: [{affinity}]}}\nstop: {{grace: {}ms}}\n",
            QUORATE,
            records.join(name).display(),
            if self.stubborn { ", --ignore-sigterm" } else { "" },
            grace.as_millis(),
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for at in 0..self.members.len() {
                eprintln!("--- {}\n{}", self.members[at].name, self.log_tail(at));
            }
            if std::env::var_os("QUORATE_KEEP").is_some() {
                // Under a name that is never swept.
                let kept = folder().join(format!("kept-{PREFIX}{}", std::process::id()));
                let _ = std::fs::rename(self.dir.path(), &kept);
                eprintln!("kept: {}", kept.display());
            }
        }
        // Guards end with everything they started, in order; what does not is killed with its host.
        drop(self.hold.take());
        for at in 0..self.members.len() {
            if let Some(mut child) = self.members[at].child.take() {
                let deadline = Instant::now() + Duration::from_secs(5);
                while child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(20));
                }
                self.lab.power_off(at);
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// What must not change where nothing has to move: lease epochs, tokens, places and processes.
pub fn standing(cluster: &Cluster, at: usize) -> Vec<String> {
    let nodes = await_some("nodes are told", || cluster.json(at, &["nodes"]));
    let epochs = nodes["items"].as_array().unwrap().iter().map(|node| node["lease_epoch"].to_string());
    let instances = await_some("all instances run", || {
        let rows = cluster.instances(at)?;
        let run = rows.iter().all(|row| row["state"] == "running" && row["pid"].is_number());
        if run { Ok(rows) } else { Err(format!("{rows:?}")) }
    });
    let running = instances.iter().map(|row| format!("{} {} {}", row["id"], row["node"], row["pid"]));
    epochs.chain(running).collect()
}

/// The real program, asked of nothing but what its arguments say.
pub fn quorate() -> Command {
    let mut command = Command::new(QUORATE);
    command.env_remove("QUORATE_ENDPOINT").env_remove("QUORATE_DATA_DIR").env_remove("QUORATE_SECRET_FILE");
    command
}

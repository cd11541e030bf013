//! A cluster of real node processes in a folder of its own, on ports that nobody uses. All of it, guards and
//! instances too, hangs on a pipe that this process holds: nothing outlives a test.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::net::Net;
use crate::wait::await_some;

/// A service that tells of itself in `record`.
pub fn workload(name: &str, extra: &str, record: &Path) -> String {
    format!(
        "name: {name}\n{extra}\nspec: {{command: [{}, workload, --record, {}]}}\nstop: {{grace: 2s}}\n",
        env!("CARGO_BIN_EXE_quorate"),
        record.display()
    )
}

/// One line of a workload's record.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Line {
    pub event: String,
    pub pid: u32,
    pub boottime_ns: u64,
}

/// Everything a workload's record holds; a line being written is left out.
pub fn record(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Fails if two processes wrote to the record at overlapping times.
pub fn never_twice(path: &Path) {
    let mut spans: Vec<(u32, u64, u64)> = Vec::new();
    for line in record(path) {
        match spans.iter_mut().find(|span| span.0 == line.pid) {
            Some(span) => span.2 = span.2.max(line.boottime_ns),
            None => spans.push((line.pid, line.boottime_ns, line.boottime_ns)),
        }
    }
    spans.sort_by_key(|span| span.1);
    for pair in spans.windows(2) {
        assert!(pair[0].2 < pair[1].1, "{pair:?} of {} overlap", path.display());
    }
}

pub struct Member {
    pub name: String,
    /// More lines of its file.
    extra: String,
    pub bind: u16,
    pub grpc: u16,
    pub http: u16,
    child: Option<Child>,
    launch: Option<Launch>,
}

/// Starts a node that is no child of the test, with these further arguments.
type Launch = Box<dyn Fn(&[&str]) + Send + Sync>;

impl Member {
    pub fn bind(&self) -> String {
        format!("127.0.0.1:{}", self.bind)
    }
}

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub members: Vec<Member>,
    hold: Option<OwnedFd>,
    held: OwnedFd,
    net: Option<Net>,
}

impl Cluster {
    /// `count` nodes that have formed a cluster: all vote and hold a lease.
    pub fn formed(count: usize) -> Self {
        Self::prepared(count).form()
    }

    /// Starts all nodes and has them form a cluster.
    pub fn form(self) -> Self {
        let (count, mut cluster) = (self.members.len(), self);
        cluster.start(0, &[]);
        cluster.ready(0);
        for at in 1..count {
            cluster.join(at);
        }
        await_some("all nodes vote and hold a lease", || {
            let nodes = cluster.json(0, &["nodes"])?;
            let items = nodes["items"].as_array().cloned().unwrap_or_default();
            let good = |node: &&Value| node["voter"] == true && node["state"] == "alive";
            let voting = items.iter().filter(good).count();
            if voting == count && (0..count).all(|at| cluster.is_ready(at)) {
                Ok(())
            } else {
                Err(nodes.to_string())
            }
        });
        cluster
    }

    /// Files for `count` nodes; none runs. The first one founds the cluster.
    pub fn prepared(count: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("quorate-cluster-").tempdir().unwrap();
        let (held, hold) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut ports = free_ports(count * 3);
        let mut port = || ports.pop().unwrap();
        let members = (0..count).map(|at| Member {
            name: format!("n{}", at + 1),
            extra: String::new(),
            bind: port(),
            grpc: port(),
            http: port(),
            child: None,
            launch: None,
        });
        let cluster = Self { members: members.collect(), dir, hold: Some(hold), held, net: None };
        for at in 0..count {
            cluster.write_file(at);
        }
        cluster
    }

    /// Puts the nodes on these segments, with a road between each two on each that can be cut.
    pub fn apart(mut self, segments: &[&str]) -> Self {
        let net = Net::new(segments, &self.members.iter().map(|member| member.bind).collect::<Vec<_>>());
        for at in 0..self.members.len() {
            self.members[at].extra.push_str(&net.addresses(at));
            std::fs::write(self.detours(at), net.detours(at)).unwrap();
            self.write_file(at);
        }
        self.net = Some(net);
        self
    }

    /// The roads between the nodes.
    pub fn net(&self) -> &Net {
        self.net.as_ref().expect("the nodes are apart")
    }

    fn detours(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("{}.detours", self.members[at].name))
    }

    /// More lines of a node's file, before it starts.
    pub fn also(mut self, at: usize, lines: &str) -> Self {
        self.members[at].extra.push_str(lines);
        self.write_file(at);
        self
    }

    fn write_file(&self, at: usize) {
        let Member { name, extra, bind, grpc, http, .. } = &self.members[at];
        let (data, bootstrap) = (self.data(at), at == 0);
        // Elections wait for a busy machine; leases are short enough for a test.
        let text = format!(
            "node_id: {name}\nbind_addr: 127.0.0.1:{bind}\ngrpc_port: {grpc}\nhttp_port: {http}\n\
             data_dir: {}\nbootstrap: {bootstrap}\nlabels: {{zone: z{at}}}\nlog: {{level: debug}}\n\
             heartbeat: {{interval: 250ms, timeout: 2500ms}}\n\
             timing: {{raft_heartbeat: 50ms, election_min: 300ms, election_max: 600ms}}\n{extra}",
            data.display()
        );
        std::fs::write(self.file(at), text).unwrap();
    }

    pub fn file(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("{}.yaml", self.members[at].name))
    }

    pub fn data(&self, at: usize) -> PathBuf {
        self.dir.path().join(&self.members[at].name)
    }

    /// Adds lines to a node's file, before it is started.
    pub fn append(&mut self, at: usize, lines: &str) {
        self.members[at].extra.push_str(lines);
        self.write_file(at);
    }

    /// The command that a node is started by.
    pub fn command(&self, at: usize) -> Command {
        let mut command = quorate();
        command.args(["node", "--demo", "--hold", "0", "--config"]).arg(self.file(at));
        if self.net.is_some() {
            command.arg("--detours").arg(self.detours(at));
        }
        command
    }

    /// One more end of the pipe that everything hangs on.
    pub fn held(&self) -> Stdio {
        Stdio::from(self.held.try_clone().unwrap())
    }

    /// This starts the node in place of a process of this test's own.
    pub fn launch_by(&mut self, at: usize, launch: impl Fn(&[&str]) + Send + Sync + 'static) {
        self.members[at].launch = Some(Box::new(launch));
    }

    /// Starts a node's process.
    pub fn start(&mut self, at: usize, arguments: &[&str]) {
        if let Some(launch) = &self.members[at].launch {
            return launch(arguments);
        }
        let stderr =
            std::fs::File::create(self.dir.path().join(format!("{}.err", self.members[at].name))).unwrap();
        let child = self
            .command(at)
            .args(arguments)
            .stdin(self.held())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        self.members[at].child = Some(child);
    }

    /// Starts a node by the token of the first.
    pub fn join(&mut self, at: usize) {
        let token = self.json(0, &["join-token"]).unwrap()["token"].as_str().unwrap().to_owned();
        self.start(at, &["--token", &token]);
    }

    /// Ends a node's process as a crash would.
    pub fn kill(&mut self, at: usize) {
        let mut child = self.members[at].child.take().expect("the node was started");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for a node's process to end by itself; what it said last.
    pub fn ended(&mut self, at: usize) -> (i32, String) {
        let name = self.members[at].name.clone();
        let mut child = self.members[at].child.take().expect("the node was started");
        let status =
            await_some("the node ends", || child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
        let said = std::fs::read_to_string(self.dir.path().join(format!("{name}.err"))).unwrap_or_default();
        (status.code().unwrap_or(-1), said)
    }

    /// What `/readyz` says.
    pub fn is_ready(&self, at: usize) -> bool {
        http_get(self.members[at].http, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// Waits until a node holds a lease.
    pub fn ready(&self, at: usize) {
        await_some(
            "the node holds a lease",
            || if self.is_ready(at) { Ok(()) } else { Err(self.log_tail(at)) },
        );
    }

    fn log_tail(&self, at: usize) -> String {
        let text = std::fs::read_to_string(self.data(at).join("quorate.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// A command to one node.
    pub fn run(&self, at: usize, arguments: &[&str]) -> Output {
        quorate().arg("--data-dir").arg(self.data(at)).args(arguments).output().unwrap()
    }

    /// A command to one node, its JSON or its error.
    pub fn json(&self, at: usize, arguments: &[&str]) -> Result<Value, String> {
        let output = self.run(at, &[&["-o", "json"], arguments].concat());
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// Writes a key through a node, again until it is acknowledged.
    pub fn put(&self, at: usize, key: &str, value: &str) {
        await_some("a write is acknowledged", || {
            let output = self.run(at, &["kv", "put", key, value]);
            if output.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
        });
    }

    /// Reads a key through a node, again while an election is under way.
    #[track_caller]
    pub fn get(&self, at: usize, key: &str) -> String {
        await_some("a read is answered", || {
            let output = self.run(at, &["kv", "get", key]);
            match output.status.code() {
                Some(0) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
                Some(4) => panic!("{key} is gone at {}", self.members[at].name),
                _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        })
    }

    /// A command that is given again while an election is under way.
    #[track_caller]
    pub fn done(&self, at: usize, arguments: &[&str]) {
        await_some("the command is taken", || {
            let output = self.run(at, arguments);
            if output.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
        });
    }

    /// The row of a node, as another sees it.
    pub fn node(&self, at: usize, of: usize) -> Result<Value, String> {
        let nodes = self.json(at, &["nodes"])?;
        let items = nodes["items"].as_array().cloned().unwrap_or_default();
        let found = items.into_iter().find(|node| node["name"] == self.members[of].name.as_str());
        found.ok_or_else(|| nodes.to_string())
    }

    /// The place of the node with a name.
    pub fn place(&self, name: &Value) -> usize {
        self.members.iter().position(|member| name == member.name.as_str()).unwrap()
    }

    /// Sends a signal to a node's process.
    pub fn signal(&self, at: usize, signal: Signal) {
        send(self.members[at].child.as_ref().expect("the node was started").id(), signal);
    }

    /// Deploys a service.
    pub fn deploy(&self, at: usize, spec: &str) {
        let file = self.dir.path().join("service.yaml");
        std::fs::File::create(&file).unwrap().write_all(spec.as_bytes()).unwrap();
        self.done(at, &["deploy", "-f", file.to_str().unwrap()]);
    }

    /// The rows of a service's instances.
    pub fn instances(&self, at: usize, service: &str) -> Result<Vec<Value>, String> {
        let all = self.json(at, &["instances"])?;
        let items = all["items"].as_array().cloned().unwrap_or_default();
        Ok(items.into_iter().filter(|item| item["service"] == service).collect())
    }

    /// Waits until exactly so many instances of a service run; their rows.
    #[track_caller]
    pub fn running(&self, at: usize, service: &str, count: usize) -> Vec<Value> {
        await_some("the service runs", || {
            let rows = self.instances(at, service)?;
            let good = rows.len() == count && rows.iter().all(|row| row["state"] == "running");
            if good { Ok(rows) } else { Err(format!("{rows:?}")) }
        })
    }

    /// Which node leads, by its place.
    pub fn leader(&self, at: usize) -> Result<usize, String> {
        let nodes = self.json(at, &["nodes"])?;
        let items = nodes["items"].as_array().cloned().unwrap_or_default();
        let name = items.iter().find(|node| node["leader"] == true).map(|node| node["name"].clone());
        let place = |name: Value| self.members.iter().position(|member| name == member.name.as_str());
        name.and_then(place).ok_or_else(|| nodes.to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for at in 0..self.members.len() {
                eprintln!("--- {}\n{}", self.members[at].name, self.log_tail(at));
            }
        }
        // Guards end with everything they started; nodes end of themselves, or are made to.
        drop(self.hold.take());
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                let deadline = Instant::now() + Duration::from_secs(5);
                while child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Sends a signal to a process that this test, or a guard of it, started.
pub fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Does a process run? A zombie does not.
pub fn runs(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

/// The real program, asked of nothing but what its arguments say.
pub fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.env_remove("QUORATE_ENDPOINT").env_remove("QUORATE_DATA_DIR").env_remove("QUORATE_SECRET_FILE");
    command
}

pub fn http_get(port: u16, path: &str) -> std::io::Result<String> {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Ports that nobody uses now, below those that the kernel gives to outgoing connections.
pub fn free_ports(count: usize) -> Vec<u16> {
    let mut found: Vec<TcpListener> = Vec::new();
    while found.len() < count {
        found.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, rand::rng().random_range(12_000..32_000))));
    }
    found.iter().map(|one| one.local_addr().unwrap().port()).collect()
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

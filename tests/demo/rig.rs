//! What the tests of the demo share: the real program, waiting with a deadline, looking at processes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The real program.
pub fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.env_remove("QUORATE_ENDPOINT").env_remove("QUORATE_DATA_DIR").env_remove("QUORATE_SECRET_FILE");
    command
}

/// Waits until `holds`, or fails naming what it waited for.
#[track_caller]
pub fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Does a process run? A zombie does not.
pub fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

/// Sends a signal to a process that this test started.
pub fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A process that is killed at the end of its test, whatever happens.
pub struct Held(pub Child);

impl Held {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A service's process as a guard of the demo's node would start it.
pub fn instance(dir: &Path, node: &str) -> Held {
    let mut command = quorate();
    command.arg("workload").env("QUORATE_INSTANCE_DIR", dir.join("nodes").join(node).join("instances/web.0"));
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut held = Held(child);
    // It has the program's own name and environment once it speaks.
    let mut line = String::new();
    let mut out = std::io::BufReader::new(held.0.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert!(line.contains("started"), "{line}");
    held
}

/// How long a demo may take to come up on a machine that is busy with other tests.
pub const UP: Duration = Duration::from_secs(120);

/// A headless demo; ended with all it started at the end of its test, whatever happens.
pub struct Demo {
    pub child: Held,
    pub dir: std::path::PathBuf,
    /// What it printed once it was ready.
    pub ready: serde_json::Value,
    _home: tempfile::TempDir,
}

impl Demo {
    /// Starts one and waits until it says that it is ready.
    pub fn start(nodes: u8) -> Self {
        Self::with(&["--nodes", &nodes.to_string()])
    }

    /// The same with these arguments.
    pub fn with(arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().canonicalize().unwrap().join("demo");
        let mut command = quorate();
        command.args(["demo", "--headless"]).args(arguments).arg("--dir").arg(&dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Held(command.spawn().unwrap());
        let out = child.0.stdout.take().unwrap();
        let (sender, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line);
            let _ = sender.send(line);
        });
        let line = said.recv_timeout(UP).unwrap_or_default();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| {
            // Ended at once, it says why.
            let _ = child.0.kill();
            let mut why = String::new();
            let _ = std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut why);
            panic!("the demo did not come up: {line}{why}")
        });
        Self { child, dir, ready, _home: home }
    }

    /// What a command answers as JSON, asked of the demo's cluster.
    pub fn ask(&self, arguments: &[&str]) -> Result<serde_json::Value, String> {
        let output = quorate().args(arguments).arg("--data-dir").arg(&self.dir).args(["-o", "json"]).output();
        let output = output.unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// Steers a node.
    pub fn ctl(&self, action: &str, node: &str) {
        self.steer(&[action, node]);
    }

    /// Steers the demo; says what it answered.
    pub fn steer(&self, arguments: &[&str]) -> String {
        let output = self.try_to_steer(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn try_to_steer(&self, arguments: &[&str]) -> std::process::Output {
        quorate().args(["demo", "ctl", "--dir"]).arg(&self.dir).args(arguments).output().unwrap()
    }

    /// What one node answers by itself, with the exit code.
    pub fn at(&self, node: &str, arguments: &[&str]) -> std::process::Output {
        let dir = self.dir.join("nodes").join(node);
        quorate().args(arguments).arg("--data-dir").arg(dir).args(["-o", "json"]).output().unwrap()
    }

    /// The items of a list, as one node tells them by itself.
    pub fn items_at(&self, node: &str, list: &str) -> Vec<serde_json::Value> {
        let output = self.at(node, &[list, "--local"]);
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// One field of one node, as any node tells it.
    pub fn node(&self, name: &str, field: &str) -> serde_json::Value {
        let Ok(list) = self.ask(&["nodes", "--local"]) else { return serde_json::Value::Null };
        let nodes = list["items"].as_array().cloned().unwrap_or_default();
        nodes
            .into_iter()
            .find(|node| node["name"] == name)
            .map_or(serde_json::Value::Null, |node| node[field].clone())
    }

    /// What its file says of a node now.
    pub fn pid(&self, name: &str, field: &str) -> u32 {
        let text = std::fs::read_to_string(self.dir.join("demo.json")).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let nodes = file["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["name"] == name).unwrap();
        u32::try_from(node[field].as_u64().unwrap()).unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.0.kill();
        // The keeper ends the rest; the directory must not go before.
        let deadline = Instant::now() + Duration::from_secs(15);
        while !of(&self.dir).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
/// All processes whose command line or environment names a directory.
pub fn of(dir: &Path) -> Vec<u32> {
    let text = dir.to_str().unwrap().as_bytes();
    let names = |pid: u32| {
        ["cmdline", "environ"].iter().any(|file| {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text)
        })
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id() && runs(*pid) && names(*pid)).collect()
}

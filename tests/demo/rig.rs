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

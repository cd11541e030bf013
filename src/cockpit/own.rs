//! `quorate` by itself: the cockpit over the node of this host, which is started in the background if it
//! does not run, and goes on when the cockpit is left; and the cockpit over nodes elsewhere.

use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use quorate_core::ids::NodeId;
use quorate_tui::Ended;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::{Attach, run};
use crate::api::error::{ApiError, ErrorCode};
use crate::host;
use crate::places::LockNote;

/// A node's first start takes some flushes of the disk.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const ENDS_WITHIN: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// Attaches to nodes that run elsewhere.
pub fn attach(endpoints: Vec<String>, secret: String) -> Result<(), ApiError> {
    let ended = show(Attach { endpoints, secret, demo: None, line: None, leaving_ends_all: false })?;
    if ended == Ended::Quit {
        println!(
            "left; the node was not stopped, since only a node of this host is stopped from its cockpit"
        );
    }
    Ok(())
}

/// Attaches to the node whose data lies in `dir`, and starts one there if none runs.
pub fn over_own_node(dir: &Path) -> Result<(), ApiError> {
    needs_terminal()?;
    let failed = |error: anyhow::Error| ApiError::failed(&error);
    let note = match running(dir).map_err(failed)? {
        Some(note) => note,
        None => begin(dir).map_err(failed)?,
    };
    let path = dir.join("secret");
    let secret = std::fs::read_to_string(&path).map_err(|error| {
        ApiError::new(
            ErrorCode::Denied,
            format!("the secret in {} cannot be read: {error}", path.display()),
            "run as the account the node runs as",
        )
    })?;
    let attach = Attach {
        endpoints: vec![note.grpc.clone()],
        secret,
        demo: None,
        line: None,
        leaving_ends_all: false,
    };
    match show(attach)? {
        Ended::Quit => {
            stop(dir, note.pid).map_err(failed)?;
            println!(
                "node {} is stopped; what it ran goes on under its guard until the lease ends",
                note.node
            );
        }
        Ended::Left | Ended::Stopped | Ended::Panicked(_) | Ended::Terminal(_) => {
            println!("node {} runs on in the background (pid {})", note.node, note.pid);
            println!("  return to it   quorate");
            println!("  stop it        quorate, then Q; or kill {}", note.pid);
            println!("  let others in  quorate join-token");
        }
    }
    Ok(())
}

/// An error where there is no terminal to draw on.
pub fn needs_terminal() -> Result<(), ApiError> {
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::Usage,
        "the cockpit needs a terminal",
        "for scripts there are `quorate status -o json` and the other commands",
    ))
}

/// Shows the cockpit until the operator leaves, the terminal goes away or the process is told to end.
fn show(attach: Attach) -> Result<Ended, ApiError> {
    needs_terminal()?;
    let shown = || -> anyhow::Result<Ended> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(async {
            tokio::select! {
                ended = run(attach) => ended,
                told = told_to_end() => told.map(|()| Ended::Stopped),
            }
        })?;
        runtime.shutdown_background();
        match ended {
            Ended::Panicked(why) => bail!("the cockpit broke off and gave the terminal back: {why}"),
            Ended::Left | Ended::Quit | Ended::Stopped | Ended::Terminal(_) => Ok(ended),
        }
    };
    shown().map_err(|error| ApiError::failed(&error))
}

/// Waits until the process is told to end.
pub(super) async fn told_to_end() -> anyhow::Result<()> {
    let (mut interrupt, mut terminate, mut hangup) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// The node that runs with this data, if one does: its lock is held and it has said where it listens.
fn running(dir: &Path) -> anyhow::Result<Option<LockNote>> {
    let path = dir.join("node.lock");
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(None);
    }
    LockNote::read(dir)
}

/// Starts a node of its own in the background and waits until it takes calls.
fn begin(dir: &Path) -> anyhow::Result<LockNote> {
    let file = first_file(dir)?;
    let said_in = dir.join("stderr.log");
    let log = File::create(&said_in).with_context(|| format!("cannot write {}", said_in.display()))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg("node").arg("--config").arg(&file);
    command.stdin(Stdio::null()).stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
    #[expect(unsafe_code, reason = "a session of its own is made between fork and exec")]
    // SAFETY: only one call of the system is made there, which needs no lock and no memory.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
    }
    let mut child = command.spawn().context("cannot start the node")?;
    let deadline = Instant::now() + STARTS_WITHIN;
    loop {
        if let Some(status) = child.try_wait()? {
            let said = std::fs::read_to_string(&said_in).unwrap_or_default();
            bail!("the node ended ({status}): {}", said.trim());
        }
        if let Some(note) = running(dir)?.filter(|note| note.pid == child.id())
            && dir.join("secret").exists()
            && std::net::TcpStream::connect(&note.grpc).is_ok()
        {
            return Ok(note);
        }
        if Instant::now() >= deadline {
            bail!("the node does not come up; see {} and node.log beside it", said_in.display());
        }
        std::thread::sleep(POLL);
    }
}

/// The file of the node; written at the first start, the operator's from then on.
fn first_file(dir: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let file = dir.join("node.yaml");
    if file.exists() {
        return Ok(file);
    }
    let [bind, grpc, http] = ports()?;
    let text = format!(
        "# Written by `quorate` at its first start: a cluster of one node, on loopback only.\n\
         # Change it as you like; the node reads it when it starts.\n\
         node_id: {}\nbind_addr: 127.0.0.1:{bind}\ngrpc_port: {grpc}\nhttp_port: {http}\n\
         data_dir: {}\nbootstrap: true\n",
        name(),
        serde_json::to_string(dir.to_str().context("the data directory's name is not UTF-8")?)?,
    );
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// The usual ports, or others if one of them is taken.
fn ports() -> anyhow::Result<[u16; 3]> {
    let usual = [7000, 7001, 7002];
    if usual.iter().all(|port| std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, *port)).is_ok()) {
        return Ok(usual);
    }
    let found = host::free_ports(3)?;
    found.try_into().map_err(|_| anyhow::anyhow!("three free ports were not found"))
}

/// The host's own name, as far as a node may be called so.
fn name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    if host.parse::<NodeId>().is_ok() { host } else { "n1".to_owned() }
}

/// Asks a node to end and waits until its data is free.
fn stop(dir: &Path, pid: u32) -> anyhow::Result<()> {
    let Some(note) = running(dir)? else { return Ok(()) };
    anyhow::ensure!(
        note.pid == pid,
        "the node was restarted meanwhile (pid {}); nothing was stopped",
        note.pid
    );
    let handle = i32::try_from(pid).ok().and_then(Pid::from_raw).context("the node has no process id")?;
    kill_process(handle, Signal::TERM).with_context(|| format!("cannot stop the node (pid {pid})"))?;
    let deadline = Instant::now() + ENDS_WITHIN;
    while running(dir)?.is_some() {
        anyhow::ensure!(Instant::now() < deadline, "the node (pid {pid}) does not end; see its node.log");
        std::thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_is_a_good_one_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = first_file(dir.path()).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let config = quorate_core::config::parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(config.bootstrap && config.bind.host == "127.0.0.1");
        std::fs::write(&file, "changed").unwrap();
        first_file(dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "changed");
    }

    #[test]
    fn a_node_runs_only_while_its_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        assert!(running(dir.path()).unwrap().is_none());
        let note = r#"{"pid": 42, "node": "n1", "bind": "", "grpc": "127.0.0.1:7001", "http": ""}"#;
        std::fs::write(dir.path().join("node.lock"), note).unwrap();
        assert!(running(dir.path()).unwrap().is_none(), "its process is gone");
        let lock = File::open(dir.path().join("node.lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert_eq!(running(dir.path()).unwrap().map(|note| note.pid), Some(42));
    }
}

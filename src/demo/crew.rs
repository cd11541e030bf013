//! The demo's node processes: started, killed, frozen, thawed, restarted and ended by their process handles.
//! Does not know what nodes do.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::files::NodePlan;
use super::keeper::Hold;
use super::place;
use crate::host::ProcessStat;

/// How long a node may take to end when asked to, before it is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// How long a node may take until it answers on its port.
const STARTS_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// One node and its process, if it has one.
#[derive(Debug)]
struct Member {
    plan: NodePlan,
    child: Option<Child>,
}

/// All nodes of a demo.
#[derive(Debug)]
pub(super) struct Crew {
    dir: PathBuf,
    program: PathBuf,
    members: Vec<Member>,
}

impl Crew {
    /// Nodes, none of them started.
    pub(super) fn new(dir: &Path, plans: Vec<NodePlan>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let members = plans.into_iter().map(|plan| Member { plan, child: None }).collect();
        Ok(Self { dir: dir.to_path_buf(), program, members })
    }

    /// All nodes with their process ids; none for one that does not run.
    pub(super) fn roster(&self) -> Vec<(NodePlan, Option<u32>)> {
        self.members.iter().map(|one| (one.plan.clone(), one.child.as_ref().and_then(Child::id))).collect()
    }

    /// Its names.
    pub(super) fn has(&self, node: &str) -> bool {
        self.members.iter().any(|one| one.plan.name == node)
    }

    fn at(&mut self, node: &str) -> anyhow::Result<&mut Member> {
        let known = self.members.iter_mut().find(|one| one.plan.name == node);
        known.with_context(|| format!("the demo has no node {node}"))
    }

    /// Starts a node by the one command it is always started by.
    pub(super) fn start(&mut self, node: &str, hold: &Hold) -> anyhow::Result<()> {
        let file = place::node_file(&self.dir, node);
        let detours = Some(place::detours_file(&self.dir, node)).filter(|file| file.exists());
        let log = place::node_dir(&self.dir, node).join("stderr.log");
        let log = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = Command::new(&self.program);
        command
            .arg("node")
            .arg("--config")
            .arg(&file)
            .args(["--demo", "--hold", "0"])
            .args(detours.iter().flat_map(|file| [OsStr::new("--detours"), file.as_os_str()]))
            .stdin(hold.end()?)
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            // Keys pressed in the demo's terminal are not for its nodes.
            .process_group(0);
        let member = self.at(node)?;
        member.child = Some(command.spawn().with_context(|| format!("cannot start node {node}"))?);
        Ok(())
    }

    /// Waits until a node takes calls, or says why it ended.
    pub(super) async fn listening(&mut self, node: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + STARTS_WITHIN;
        let api = self.at(node)?.plan.api();
        while TcpStream::connect(&api).await.is_err() {
            self.check(node)?;
            if Instant::now() >= deadline {
                bail!("node {node} does not listen on {api}; see {}", self.said_in(node).display());
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// An error with its last words if a node ended that should run.
    pub(super) fn check(&mut self, node: &str) -> anyhow::Result<()> {
        let said_in = self.said_in(node);
        let Some(child) = &mut self.at(node)?.child else { return Ok(()) };
        let Some(status) = child.try_wait()? else { return Ok(()) };
        let said = std::fs::read_to_string(&said_in).unwrap_or_default();
        let last = said.trim().lines().next_back().unwrap_or("nothing").to_owned();
        bail!("node {node} ended ({status}): {last}; see {}", said_in.display())
    }

    /// The same for all.
    pub(super) fn check_all(&mut self) -> anyhow::Result<()> {
        let names: Vec<String> = self.members.iter().map(|one| one.plan.name.clone()).collect();
        names.iter().try_for_each(|name| self.check(name))
    }

    fn said_in(&self, node: &str) -> PathBuf {
        place::node_dir(&self.dir, node).join("stderr.log")
    }

    /// The running process of a node.
    fn pid(&mut self, node: &str) -> anyhow::Result<Pid> {
        let member = self.at(node)?;
        let running = match &mut member.child {
            Some(child) => child.try_wait()?.is_none().then(|| child.id()).flatten(),
            None => None,
        };
        let pid = running.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        pid.with_context(|| format!("node {node} does not run; `quorate demo ctl restart {node}` starts it"))
    }

    /// As a crash: only the node's process, its guard lives.
    pub(super) async fn kill(&mut self, node: &str) -> anyhow::Result<String> {
        let pid = self.pid(node)?;
        kill_process(pid, Signal::KILL).with_context(|| format!("cannot kill node {node}"))?;
        if let Some(child) = &mut self.at(node)?.child {
            child.wait().await?;
        }
        Ok(format!("node {node} (pid {}) was killed", pid.as_raw_nonzero()))
    }

    /// It keeps its memory and its connections, and does nothing.
    pub(super) async fn freeze(&mut self, node: &str) -> anyhow::Result<String> {
        let pid = self.signal(node, Signal::STOP, true).await?;
        Ok(format!("node {node} (pid {pid}) is frozen"))
    }

    /// It goes on where it was.
    pub(super) async fn thaw(&mut self, node: &str) -> anyhow::Result<String> {
        let pid = self.signal(node, Signal::CONT, false).await?;
        Ok(format!("node {node} (pid {pid}) goes on"))
    }

    async fn signal(&mut self, node: &str, signal: Signal, stopped: bool) -> anyhow::Result<u32> {
        let pid = self.pid(node)?;
        kill_process(pid, signal).with_context(|| format!("cannot signal node {node}"))?;
        let number = pid.as_raw_nonzero().get().unsigned_abs();
        let reached = async {
            while ProcessStat::read(number).is_some_and(|stat| (stat.state == b'T') != stopped) {
                sleep(POLL).await;
            }
        };
        timeout(ENDS_WITHIN, reached).await.with_context(|| format!("node {node} does not react"))?;
        Ok(number)
    }

    /// Ends it if it runs, and starts it by the same command.
    pub(super) async fn restart(&mut self, node: &str, hold: &Hold) -> anyhow::Result<String> {
        self.ask_to_end(node)?;
        self.ended(node, Instant::now() + ENDS_WITHIN).await?;
        self.start(node, hold)?;
        self.listening(node).await?;
        let pid = self.pid(node)?.as_raw_nonzero();
        Ok(format!("node {node} was started (pid {pid})"))
    }

    fn ask_to_end(&mut self, node: &str) -> anyhow::Result<()> {
        if let Ok(pid) = self.pid(node) {
            // A frozen one would not hear.
            let _ = kill_process(pid, Signal::TERM);
            let _ = kill_process(pid, Signal::CONT);
        }
        Ok(())
    }

    async fn ended(&mut self, node: &str, deadline: Instant) -> anyhow::Result<()> {
        let Some(mut child) = self.at(node)?.child.take() else { return Ok(()) };
        if tokio::time::timeout_at(deadline, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends all of them.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        let names: Vec<String> = self.members.iter().map(|one| one.plan.name.clone()).collect();
        names.iter().try_for_each(|name| self.ask_to_end(name))?;
        let deadline = Instant::now() + ENDS_WITHIN;
        for name in &names {
            self.ended(name, deadline).await?;
        }
        Ok(())
    }
}

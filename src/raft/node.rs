//! Starts and ends raft: a thread with a small runtime of its own, and the log thread beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use openraft::{Config, SnapshotPolicy};
use quorate_core::ids::ClusterId;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::codec::IdentityV1;
use super::handle::{RaftHandle, Shared};
use super::inbox::{Inbox, boot_ms};
use super::log::{self, LogThread};
use super::machine::Machine;
use super::network::{Gate, Peers, Waits};
use super::sled_disk::SledDisk;
use super::snapshots::SnapshotFiles;
use super::status::{self, Marks, RaftStanding};
use super::types::Raft;
use super::{propose, reads, ticks};
use crate::ports::{PeerInbox, PeerNet, StateMachine};

/// How often the log's growth is looked at.
const GROWTH_EVERY: Duration = Duration::from_secs(1);
/// Callers that may wait for rounds at once.
const WAITERS: usize = 16 * 1024;

/// Raft's clock. A follower that hears nothing for a draw between the two elections asks for votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftTiming {
    /// From one sign of life to the next.
    pub heartbeat_ms: u64,
    /// The shortest silence that starts an election.
    pub election_min_ms: u64,
    /// The longest.
    pub election_max_ms: u64,
}

impl RaftTiming {
    /// After how much silence there is no leader to speak of.
    pub fn lost_after(&self) -> Duration {
        Duration::from_millis(self.election_max_ms * 3)
    }

    /// How long one question to a peer may take: less than the library waits, so that a dead
    /// connection is noticed and left.
    pub fn call(&self) -> Duration {
        Duration::from_millis((self.election_min_ms * 3 / 4).max(20))
    }
}

/// How much is kept, and how long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftLimits {
    /// A snapshot is taken after this many entries.
    pub snapshot_entries: u64,
    /// Or after this many bytes of proposals.
    pub snapshot_bytes: u64,
    /// How many entries before a snapshot stay, for members that are a little behind.
    pub keep_entries: u64,
    /// How long a proposal may take before it is called unknown.
    pub propose_within: Duration,
}

impl Default for RaftLimits {
    fn default() -> Self {
        Self {
            snapshot_entries: 10_000,
            snapshot_bytes: 64 * 1024 * 1024,
            keep_entries: 250,
            propose_within: Duration::from_secs(5),
        }
    }
}

/// What raft is started with.
#[derive(Debug, Clone)]
pub struct RaftOptions {
    /// This node's raft id: never reused, not even after its disk was wiped.
    pub id: u64,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// A folder for raft alone.
    pub dir: PathBuf,
    /// Its clock.
    pub timing: RaftTiming,
    /// What it may keep.
    pub limits: RaftLimits,
}

enum End {
    /// Says good-bye to the log and the peers.
    Graceful,
    /// As if the process had died.
    Abrupt,
}

/// Raft, running. Dropping it ends it abruptly and waits until its folder is free.
pub struct RaftNode {
    handle: RaftHandle,
    inbox: Arc<dyn PeerInbox>,
    end: Option<oneshot::Sender<End>>,
    thread: Option<JoinHandle<()>>,
}

impl RaftNode {
    /// Opens the folder, brings the state machine to where it was, and starts.
    pub fn start(
        options: RaftOptions,
        state: Box<dyn StateMachine>,
        net: Arc<dyn PeerNet>,
    ) -> anyhow::Result<Self> {
        let (ready, started) = sync_channel(1);
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("raft".to_owned())
            .spawn(move || {
                crate::host::hurry();
                run(options, state, net, &ready, ended);
            })
            .context("cannot start the raft thread")?;
        let (handle, inbox) = started.recv().map_err(|_| anyhow!("raft ended while it was starting"))??;
        Ok(Self { handle, inbox, end: Some(end), thread: Some(thread) })
    }

    /// A handle on it.
    pub fn handle(&self) -> RaftHandle {
        self.handle.clone()
    }

    /// Where the node-to-node server delivers what peers send.
    pub fn inbox(&self) -> Arc<dyn PeerInbox> {
        self.inbox.clone()
    }

    /// Ends it in order. Blocks until its folder is free; not for async code.
    pub fn shutdown(mut self) {
        self.finish(End::Graceful);
    }

    /// Ends it as a crash would. Blocks until its folder is free; not for async code.
    pub fn kill(mut self) {
        self.finish(End::Abrupt);
    }

    fn finish(&mut self, how: End) {
        if let Some(end) = self.end.take() {
            // If it has ended by itself there is nobody to tell.
            drop(end.send(how));
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for RaftNode {
    fn drop(&mut self) {
        self.finish(End::Abrupt);
    }
}

type Started = anyhow::Result<(RaftHandle, Arc<dyn PeerInbox>)>;

fn run(
    options: RaftOptions,
    state: Box<dyn StateMachine>,
    net: Arc<dyn PeerNet>,
    ready: &SyncSender<Started>,
    ended: oneshot::Receiver<End>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    let runtime = match runtime.context("cannot make raft's runtime") {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    match runtime.block_on(start(options, state, net, runtime.handle().clone())) {
        Err(error) => drop(ready.send(Err(error))),
        Ok((handle, inbox, log)) => {
            let raft = handle.shared.raft.clone();
            drop(ready.send(Ok((handle, inbox))));
            if let Ok(End::Graceful) = runtime.block_on(ended) {
                // A failure to end in order is no different from a crash, which it survives.
                drop(runtime.block_on(raft.shutdown()));
            }
            drop(raft);
            runtime.shutdown_timeout(Duration::from_secs(5));
            log.join();
        }
    }
}

async fn start(
    options: RaftOptions,
    state: Box<dyn StateMachine>,
    net: Arc<dyn PeerNet>,
    runtime: tokio::runtime::Handle,
) -> anyhow::Result<(RaftHandle, Arc<dyn PeerInbox>, LogThread)> {
    let RaftOptions { id, cluster, dir, timing, limits } = options;
    let config = config(&cluster, timing, limits)?;
    let identity = IdentityV1 { cluster: cluster.0.clone(), node: id };
    let disk = Arc::new(SledDisk::open(&dir)?);
    let (store, log) = log::open(disk, &dir, &identity)?;
    let files = SnapshotFiles::open(&dir.join("snapshots"))?;
    let grown = Arc::new(AtomicU64::new(0));
    let machine = Machine::new(state, files, grown.clone());
    let waits = Waits {
        append: timing.lost_after().max(Duration::from_secs(5)),
        call: timing.call(),
        snapshot: Duration::from_secs(10),
    };
    let marks = Arc::new(Marks::default());
    let peers = Peers::new(net, waits, Gate::new(marks.clone(), timing.election_max_ms));
    let raft = Raft::new(id, Arc::new(config), peers.clone(), store, machine).await;
    let raft = raft.map_err(|error| anyhow!("raft cannot start on {}: {error}", dir.display()))?;

    let rounds = Arc::new(Notify::new());
    let now = status::read(&openraft::async_runtime::WatchReceiver::borrow_watched(&raft.metrics()), &marks);
    let (publish, status) = watch::channel(now);
    let (tell, standing) = watch::channel(RaftStanding::default());
    let started = boot_ms();
    let shared = Shared { id, raft, timing, peers, marks, status, standing, rounds, started };
    let shared = Arc::new(shared);
    let (proposer, queue) = propose::queue(limits.propose_within);
    let (reads, waiting) = mpsc::channel(WAITERS);
    let raft = shared.raft.clone();
    let (marks, rounds) = (shared.marks.clone(), shared.rounds.clone());
    runtime.spawn(status::publish(raft.clone(), marks, publish, tell, rounds));
    runtime.spawn(propose::run(shared.clone(), queue));
    runtime.spawn(reads::run(shared.clone(), waiting));
    runtime.spawn(ticks::run(raft.clone(), timing, shared.marks.clone(), shared.standing.clone()));
    runtime.spawn(watch_growth(raft.clone(), grown, limits.snapshot_bytes));
    let inbox = Arc::new(Inbox::new(id, cluster, raft, shared.marks.clone()));
    Ok((RaftHandle { shared, proposer, reads, runtime }, inbox, log))
}

fn config(cluster: &ClusterId, timing: RaftTiming, limits: RaftLimits) -> anyhow::Result<Config> {
    let config = Config {
        cluster_name: cluster.0.clone(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        install_snapshot_timeout: 600_000,
        max_payload_entries: 64,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_entries),
        max_in_snapshot_log_to_keep: limits.keep_entries,
        enable_pre_vote: Some(true),
        // A leader without quorum falls silent now and then, so that those who can form one may vote.
        quorum_loss_probe_interval: Some(timing.election_max_ms * 2),
        // What was committed is written lazily, so a restarted leader must be elected again.
        enable_leader_restore: Some(false),
        backoff: "20ms 50ms 100ms ...300ms".to_owned(),
        ..Config::default()
    };
    config.validate().map_err(|error| anyhow!("raft timings do not fit together: {error}"))
}

/// Snapshots by size; those by number are the library's.
async fn watch_growth(raft: Raft, grown: Arc<AtomicU64>, limit: u64) {
    loop {
        tokio::time::sleep(GROWTH_EVERY).await;
        if grown.load(Ordering::Relaxed) > limit {
            grown.store(0, Ordering::Relaxed);
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
    }
}

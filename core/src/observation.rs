//! What drivers saw: plain facts with their age, never decisions. A node's own facts travel to the leader
//! with its heartbeats; none of this ever goes through the log.

use std::collections::BTreeMap;
use std::fmt;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::fence::FenceTool;
use crate::ids::{BootId, InstanceId, LeaseEpoch, NodeId, OperationId, RaftId, Revision, SlotId, Token};
use crate::reach::{LinkVerdict, Reach, Side};
use crate::spec::{ExecutorKind, RestartPolicy, RestartWhen};
use crate::units::{BootMs, CpuMillis, MemoryMib, Millis, WallMs};

/// Everything one node tells of itself with a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Who speaks.
    pub node: NodeId,
    /// In which boot of its host.
    pub boot: BootId,
    /// The lease epoch it believes to be in.
    pub lease_epoch: LeaseEpoch,
    /// Its lease expired or was lost: it asks to be let back in by a committed rejoin.
    pub wants_rejoin: bool,
    /// Which of its heartbeats this is, counted from the start of its process.
    pub heartbeat: u64,
    /// The newest of its heartbeats that it received an answer to. A node whom answers do not reach
    /// is lost too, however loudly it speaks.
    pub echo: u64,
    /// The revision it has applied.
    pub revision: Revision,
    /// The node process.
    pub pid: u32,
    /// Its guard.
    pub guard: GuardReport,
    /// The host's load.
    pub usage: NodeUsage,
    /// What each executor can do here.
    pub executors: Vec<ExecutorFact>,
    /// Every slot the guard knows of, by slot.
    pub slots: BTreeMap<SlotId, SlotReport>,
    /// State copies under way or finished here.
    pub transfers: Vec<TransferReport>,
    /// Its part in fencing others.
    pub fencing: FencingReport,
}

/// The guard as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GuardReport {
    /// Its process; 0 while there is none.
    pub pid: u32,
    /// The second holder of its deadlines; 0 while there is none.
    pub twin_pid: u32,
    /// Did it answer since the last heartbeat?
    pub answering: bool,
    /// Are the deadlines held by two holders with a checked kill path?
    pub armed: bool,
    /// Why they are not, while they are not.
    pub unarmed: Option<Unavailable>,
}

/// One slot as the guard of a node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// The highest token ever accepted for it, kept on disk before it is acknowledged.
    pub highest: Token,
    /// Its instance, unless it was seen to be gone with its cgroup or process group empty.
    pub instance: Option<InstanceReport>,
}

/// One instance, running or just ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Which one.
    pub id: InstanceId,
    /// What runs, as [`crate::spec::ServiceSpec::run_digest`]; 0 where nothing does.
    pub spec: u64,
    /// How far it is.
    pub phase: InstancePhase,
    /// Its main process, if one is known.
    pub pid: Option<u32>,
    /// When it was last started, for people.
    pub started_at: WallMs,
    /// How long it has been running or, if it ended, how long ago it ended.
    pub since: Millis,
    /// How long the run before the last exit lasted; the restart back-off starts anew after a long one.
    pub ran: Millis,
    /// Restarts in place under this token.
    pub restarts: u32,
    /// What its health check says.
    pub health: Health,
    /// What the last probe said, for people.
    pub health_detail: String,
    /// Its own use of the host.
    pub usage: InstanceUsage,
    /// How the previous run of it ended.
    pub last_exit: Option<ExitReason>,
    /// Limits that the spec asks for and this host does not enforce, for people.
    pub unenforced: Vec<String>,
    /// Is its deadline held by two holders, each able to kill it without asking anyone?
    pub armed: bool,
}

/// How far an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstancePhase {
    /// Being started.
    Starting,
    /// Its process runs.
    Running,
    /// Told to stop, not yet gone.
    Stopping,
    /// It ended by itself; restarted or not by its policy.
    Exited(ExitReason),
    /// It could not be started; nothing runs.
    StartFailed(String),
    /// Its executor does not answer for it.
    Unknown(String),
}

impl InstancePhase {
    /// May a process of it exist?
    pub fn may_run(&self) -> bool {
        match self {
            InstancePhase::Starting
            | InstancePhase::Running
            | InstancePhase::Stopping
            | InstancePhase::Unknown(_) => true,
            InstancePhase::Exited(_) | InstancePhase::StartFailed(_) => false,
        }
    }
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReason {
    /// Which kind of end.
    pub kind: ExitKind,
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
}

/// Kinds of end, told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitKind {
    /// Exit code 0.
    Completed,
    /// Another exit code.
    Failed,
    /// A signal nobody here sent.
    Signaled,
    /// Asked to stop, and it did within its grace.
    Stopped,
    /// Killed after its grace.
    Killed,
    /// Killed by the kernel over its memory limit.
    OutOfMemory,
    /// Killed by the guard: the lease ran out.
    LeaseExpired,
    /// Killed because its health check failed.
    Unhealthy,
    /// It was gone when the guard came back; how is unknown.
    Lost,
}

impl ExitReason {
    /// Did its own host end it on purpose? Then it did not crash.
    pub fn by_own_host(&self) -> bool {
        match self.kind {
            ExitKind::Stopped | ExitKind::Killed | ExitKind::LeaseExpired => true,
            ExitKind::Completed
            | ExitKind::Failed
            | ExitKind::Signaled
            | ExitKind::OutOfMemory
            | ExitKind::Unhealthy
            | ExitKind::Lost => false,
        }
    }

    /// Does the policy have the instance started again in place after this end?
    /// An end that its own host brought about says nothing about the workload, so it always does.
    pub fn restarts(&self, when: RestartWhen) -> bool {
        let failed = match self.kind {
            ExitKind::Stopped | ExitKind::Killed | ExitKind::LeaseExpired => return true,
            ExitKind::Completed => false,
            ExitKind::Failed
            | ExitKind::Signaled
            | ExitKind::OutOfMemory
            | ExitKind::Unhealthy
            | ExitKind::Lost => true,
        };
        match when {
            RestartWhen::Always => true,
            RestartWhen::OnFailure => failed,
            RestartWhen::Never => false,
        }
    }

    /// The wait before a start in place that follows this end.
    pub fn backoff(&self, policy: &RestartPolicy, restarts: u32, ran: Millis) -> Millis {
        match self.kind {
            ExitKind::Stopped | ExitKind::Killed | ExitKind::LeaseExpired => Millis(0),
            ExitKind::Completed
            | ExitKind::Failed
            | ExitKind::Signaled
            | ExitKind::OutOfMemory
            | ExitKind::Unhealthy
            | ExitKind::Lost => policy.backoff(restarts, ran),
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.kind, self.code, self.signal) {
            (ExitKind::Completed, ..) => "ended with code 0".to_owned(),
            (ExitKind::Failed, Some(code), _) => format!("ended with code {code}"),
            (ExitKind::Failed, None, _) => "failed".to_owned(),
            (ExitKind::Signaled, _, Some(signal)) => format!("killed by signal {signal}"),
            (ExitKind::Signaled, _, None) => "killed by a signal".to_owned(),
            (ExitKind::Stopped, ..) => "stopped as asked".to_owned(),
            (ExitKind::Killed, ..) => "killed after its grace".to_owned(),
            (ExitKind::OutOfMemory, ..) => "killed over its memory limit".to_owned(),
            (ExitKind::LeaseExpired, ..) => "killed as its node's lease ran out".to_owned(),
            (ExitKind::Unhealthy, ..) => "killed as its health check failed".to_owned(),
            (ExitKind::Lost, ..) => "gone, how is not known".to_owned(),
        };
        f.pad(&text)
    }
}

/// What a health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No check is configured: running is all that is known.
    #[default]
    Unchecked,
    /// Not enough probes yet.
    Starting,
    /// It answers.
    Healthy,
    /// It failed its probes.
    Unhealthy,
}

impl Health {
    /// Good enough to count on?
    pub fn good(self) -> bool {
        matches!(self, Health::Healthy | Health::Unchecked)
    }
}

/// The load of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeUsage {
    /// All its cores.
    pub cpu_total: CpuMillis,
    /// In use.
    pub cpu_used: CpuMillis,
    /// Memory of the host.
    pub memory_total: MemoryMib,
    /// In use.
    pub memory_used: MemoryMib,
    /// Of the file system that holds the data directory.
    pub disk_total: MemoryMib,
    /// In use.
    pub disk_used: MemoryMib,
    /// One-minute load, times 100.
    pub load_centi: u32,
    /// Received bytes a second, all interfaces but loopback.
    pub network_in_bps: u64,
    /// Sent bytes a second.
    pub network_out_bps: u64,
}

/// The load of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceUsage {
    /// Processor time.
    pub cpu: CpuMillis,
    /// Memory.
    pub memory: MemoryMib,
    /// Processes and threads.
    pub tasks: u32,
    /// Bytes read from disks per second.
    pub io_read_bps: u64,
    /// Bytes written to disks per second.
    pub io_write_bps: u64,
    /// Bytes received per second, where it has a network of its own.
    pub network_in_bps: u64,
    /// Bytes sent per second, likewise.
    pub network_out_bps: u64,
}

/// What an executor can do on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorFact {
    /// Which executor.
    pub kind: ExecutorKind,
    /// The engine's version; the kernel's for processes.
    pub version: String,
    /// Declared abilities, such as `limits:cgroup2`, `adopt`.
    pub capabilities: Vec<String>,
    /// Why it cannot be used now, and what to do about it.
    pub unavailable: Option<Unavailable>,
}

/// Why something cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// One pass of copying a state folder to this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferReport {
    /// For which operation.
    pub operation: OperationId,
    /// Which pass; a repeated pass copies what changed since.
    pub pass: u32,
    /// Bytes so far.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// How it ended, when it did.
    pub outcome: Option<TransferOutcome>,
}

/// How a copy ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferOutcome {
    /// All there, the digest agreed on both ends.
    Complete {
        /// Over names and contents, hexadecimal.
        digest: String,
    },
    /// Not all there; the reason.
    Failed(String),
}

/// A node's part in fencing others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FencingReport {
    /// Deeds under way or finished here.
    pub deeds: Vec<FenceReport>,
    /// What methods of other nodes need and is not here, bounded.
    pub missing: Vec<MissingTool>,
    /// The last test of each method that was tried from here, bounded.
    pub tests: Vec<FenceTest>,
}

/// Something that a fence method needs and that is not on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingTool {
    /// Which.
    pub tool: FenceTool,
    /// What is wrong with it, and what to do.
    pub unavailable: Unavailable,
}

/// What a device said when it was asked for the power state alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceTest {
    /// Whose device.
    pub target: NodeId,
    /// Which level, from 0.
    pub level: u32,
    /// Which method of it, from 0.
    pub method: u32,
    /// When, for people.
    pub at: WallMs,
    /// How long it took.
    pub took: Millis,
    /// `on` or `off`, or why it cannot be relied on.
    pub power: Result<String, String>,
}

/// One fencing deed as its executor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceReport {
    /// For which operation.
    pub operation: OperationId,
    /// Which attempt, counted over all levels.
    pub attempt: u32,
    /// What was seen; `None` while it runs.
    pub outcome: Option<FenceOutcome>,
}

/// What a fencing attempt ended in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FenceOutcome {
    /// The deed was done and the power state was read back as off.
    ProvenOff {
        /// What the method said, bounded.
        output: String,
    },
    /// It is not proven off; why.
    Failed {
        /// What the method said, bounded.
        output: String,
    },
    /// A node that was proven off was switched on again.
    SwitchedOn {
        /// What the method said, bounded.
        output: String,
    },
    /// Not attempted: the quorum round right before the deed failed, or the target answered again.
    Withheld {
        /// Which of them.
        why: String,
    },
}

/// What one node knows at one moment: its own report, and those it received.
/// On the leader this is nearly all; on others it is what the leader passed on and what they saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Who observes.
    pub me: NodeId,
    /// The observer's clock, at the moment of this value.
    pub now: BootMs,
    /// The newest report of every node heard.
    pub nodes: OrdMap<NodeId, Heard>,
    /// When the observer first saw each node in State in its current lease epoch: a node just admitted or
    /// let back in was not silent before.
    pub known_since: OrdMap<NodeId, BootMs>,
    /// Who reaches whom, as far as known here.
    pub reach: Reach,
    /// Raft as this node sees it.
    pub raft: RaftObserved,
}

/// What `detect` makes of the observations.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdicts {
    /// Every admitted node.
    pub nodes: BTreeMap<NodeId, NodeVerdict>,
    /// What is wrong with the links, the worst first.
    pub links: Vec<LinkVerdict>,
    /// Who is with whom, the larger side first; one side where nothing is split.
    pub sides: Vec<Side>,
}

/// What `detect` makes of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeVerdict {
    /// Heard, and answers reach it.
    Alive,
    /// In doubt.
    Suspect {
        /// Why.
        because: Vec<String>,
        /// It is to be committed lost after this.
        lost_in: Millis,
    },
    /// To be committed lost, or lost already.
    Lost {
        /// Why.
        because: Vec<String>,
    },
}

/// A report with its age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// When the observer received it, on the observer's clock.
    pub received: BootMs,
    /// When the observer last answered it with a lease, on the observer's clock.
    pub answered: Option<BootMs>,
    /// When the observer last saw its echo rise, on the observer's clock.
    pub echo_rose: BootMs,
    /// What it said.
    pub report: NodeReport,
}

/// Raft as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RaftObserved {
    /// Does this node lead, as far as it knows?
    pub leading: bool,
    /// Since when it leads, on its own clock, or since it last noticed that it had not been running for
    /// longer than a heartbeat: every wait for silence counts from here at the earliest.
    pub leading_since: Option<BootMs>,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    /// Since when it takes that one for the leader. Foresight alone rests on it: no decision is made by a node that
    /// follows.
    pub followed_since: Option<BootMs>,
    /// Raft's term.
    pub term: u64,
    /// The last applied revision.
    pub applied: Revision,
    /// How long ago a quorum last acknowledged the leader: this node, or the one it follows, by its word.
    pub quorum_ack_age: Option<Millis>,
    /// The voters.
    pub voters: Vec<RaftId>,
    /// The learners.
    pub learners: Vec<RaftId>,
    /// As leader: entries each member still lacks.
    pub lag: BTreeMap<RaftId, u64>,
}

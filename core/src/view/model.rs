//! The cluster as people and scripts see it: plain data for the cockpit and for `-o json`. Field names are
//! a promise to scripts: they may grow, never change. How it is worked out stands beside, in `view`.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::fencing::{FenceRunView, FencingView};
use super::links::LinksView;
use crate::event::Level;
use crate::ids::{
    BootId, ClusterId, Endpoint, Epoch, InstanceId, LeaseEpoch, NodeId, OperationId, RaftId, Revision,
    ServiceName, SlotId, Version,
};
use crate::observation::{ExecutorFact, Health, InstanceUsage, NodeUsage, Unavailable};
use crate::spec::{ExecutorKind, Priority, Resources, ServiceSpec};
use crate::units::WallMs;

/// Everything there is to see, from one node, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Who looks.
    pub me: NodeId,
    /// The State it was made from.
    pub revision: Revision,
    /// The viewer's wall clock when it was made.
    pub at: WallMs,
    /// Which cluster.
    pub cluster: ClusterSummary,
    /// Quorum, leader, lease: where the viewer stands.
    pub standing: Standing,
    /// The one sentence that comes before any table.
    pub verdict: Verdict,
    /// What will happen by itself, soonest first.
    pub countdowns: Vec<Countdown>,
    /// All nodes.
    pub nodes: OrdMap<NodeId, Arc<NodeView>>,
    /// All services.
    pub services: OrdMap<ServiceName, Arc<ServiceView>>,
    /// All instances and all waiting slots, by slot and token (`SLOT@TOKEN`, or `SLOT` while it waits).
    pub instances: OrdMap<String, Arc<InstanceView>>,
    /// Running and recent operations.
    pub operations: OrdMap<OperationId, Arc<OperationView>>,
    /// Recent events, oldest first, bounded.
    pub events: Vec<Arc<EventView>>,
    /// What happened here and is in no log: a side without quorum writes none. Oldest first, bounded; their
    /// revision is 0.
    pub sightings: Vec<Arc<EventView>>,
    /// Who reaches whom.
    pub links: LinksView,
}

/// Which cluster this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSummary {
    /// Its id.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// State's epoch.
    pub epoch: Epoch,
    /// How it went on from less than it once had, if it did.
    pub recovery: Option<RecoveryView>,
    /// Whether it is a real, a demo or a simulated one.
    pub kind: ClusterKind,
}

/// The last recovery of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryView {
    /// What was done, such as `restored from a snapshot`.
    pub what: String,
    /// The epoch that began with it.
    pub epoch: Epoch,
    /// The last revision that is surely there: acknowledged writes after it may be gone.
    pub last_revision: Revision,
    /// When.
    pub at: WallMs,
    /// Who did it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Nothing exclusive is granted while this is true.
    pub open: bool,
    /// Nodes of which it is not known what they run.
    pub unheard: Vec<NodeId>,
}

/// Marks what must never be taken for production.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterKind {
    /// A real cluster.
    Real,
    /// `quorate demo`.
    Demo,
    /// `quorate sim`.
    Sim,
}

/// Where the viewer stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Does the viewer's side have quorum, as far as can be told from here?
    pub quorum: bool,
    /// Voters heard from here, counting itself.
    pub voters_heard: u32,
    /// All voters.
    pub voters: u32,
    /// How many of them decide.
    pub voters_needed: u32,
    /// How many voters may still be lost before quorum is.
    pub voters_spare: u32,
    /// Whom the viewer takes for the leader.
    pub leader: Option<NodeId>,
    /// Does the leader, as far as known here, accept proposals?
    pub accepting_proposals: bool,
    /// How long ago a quorum acknowledged the leader.
    pub quorum_ack_age_ms: Option<u64>,
    /// Raft's term.
    pub term: u64,
    /// What is left of the viewer's own lease.
    pub lease_left_ms: u64,
    /// How old the newest word of the leader is.
    pub data_age_ms: u64,
    /// All of it in words, such as `3 of 3 voters heard, quorum, 1 spare`.
    pub sentence: String,
}

/// One word and one sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How bad it is.
    pub level: Level,
    /// One word, such as `healthy`, `degraded`, `waiting`, `down`.
    pub word: String,
    /// One sentence.
    pub sentence: String,
}

/// Something that will happen by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Countdown {
    /// In how many milliseconds; `None` when it waits for an event, not for a time.
    pub in_ms: Option<u64>,
    /// Is it over already, and shown because it just happened?
    pub done: bool,
    /// Whom it concerns.
    pub subject: String,
    /// Copies it is about on the viewer's side, and where: `2 (n4 n5)`; empty where it is about none.
    pub here: String,
    /// The concerned service's priority, for order and colour.
    pub priority: Option<Priority>,
    /// What happens, such as `starts on n3`.
    pub action: String,
    /// What triggers it.
    pub why: String,
    /// What follows, or what the operator can do.
    pub then: String,
    /// In how many milliseconds that follows, if a time is set.
    pub then_ms: Option<u64>,
    /// Seen from here, or inferred?
    pub observed: bool,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: NodeId,
    /// Its number in Raft.
    pub raft_id: RaftId,
    /// Its process, if known.
    pub pid: Option<u32>,
    /// Its guard's process.
    pub guard_pid: Option<u32>,
    /// Its guard's twin.
    pub twin_pid: Option<u32>,
    /// Are its deadlines held by two holders, as committed? Only then does its silence prove anything.
    pub armed: bool,
    /// Why they are not, and what to do about it.
    pub unarmed: Option<Unavailable>,
    /// Its lease epoch.
    pub lease_epoch: LeaseEpoch,
    /// Its boot.
    pub boot_id: BootId,
    /// Alive, suspect, lost or fenced.
    pub state: NodeState,
    /// Does it believe itself cut off?
    pub isolated: bool,
    /// Does it vote?
    pub voter: bool,
    /// Votes but hosts nothing.
    pub witness: bool,
    /// Does it lead?
    pub leader: bool,
    /// The heaviest leads.
    pub weight: u32,
    /// As leader: how long ago a quorum acknowledged it.
    pub quorum_ack_age_ms: Option<u64>,
    /// What is left of its lease, at least.
    pub lease_left_ms: u64,
    /// Is anything new placed there?
    pub schedulable: bool,
    /// Cordoned, drained and empty.
    pub drained: bool,
    /// Where it listens: `grpc`, `http`.
    pub endpoints: BTreeMap<String, String>,
    /// Its addresses by segment.
    pub segments: Vec<Endpoint>,
    /// What it can run.
    pub executors: Vec<ExecutorFact>,
    /// What it has and uses.
    pub resources: NodeResources,
    /// How long ago it was last heard, by the leader; `None` if never.
    pub heard_ms: Option<u64>,
    /// Instances there.
    pub instances: u32,
    /// Labels for placement.
    pub labels: BTreeMap<String, String>,
    /// How it can be fenced, in words; empty when it cannot.
    pub fence_methods: Vec<String>,
    /// How it can be fenced, by whom, what is missing, and what happened.
    pub fencing: FencingView,
    /// The release it runs.
    pub release: String,
    /// Seen from here, or passed on?
    pub observed: bool,
    /// Why it is in this state and what follows.
    pub why: Arc<Why>,
}

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It is heard.
    Alive,
    /// A detector doubts it.
    Suspect,
    /// A committed verdict.
    Lost,
    /// Lost and proven unable to act.
    Fenced,
}

/// What a node has, gave away and uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeResources {
    /// What placement may give away.
    pub capacity: Resources,
    /// What it gave away.
    pub reserved: Resources,
    /// What is in use on the host.
    pub usage: NodeUsage,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// What runs it.
    pub executor: ExecutorKind,
    /// Its priority.
    pub priority: Priority,
    /// At most one running copy a slot?
    pub exclusive: bool,
    /// Wanted, running and healthy copies.
    pub replicas: Replicas,
    /// Its newest deployment.
    pub version: Version,
    /// How it is.
    pub verdict: Verdict,
    /// Being deleted?
    pub deleting: bool,
    /// Stopped by an operator?
    pub stopped: bool,
    /// Where its copies are.
    pub nodes: Vec<NodeId>,
    /// The spec as it stands.
    pub spec: Arc<ServiceSpec>,
    /// Its recent deployments, newest first.
    pub versions: Vec<VersionView>,
    /// Why it is so and what follows.
    pub why: Arc<Why>,
}

/// One deployment of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// Which.
    pub version: Version,
    /// When.
    pub at: WallMs,
    /// By whom.
    pub by: String,
    /// `deploy`, `scale`, `restart`.
    pub cause: String,
}

/// Counts of copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Replicas {
    /// Wanted.
    pub wanted: u32,
    /// Running.
    pub running: u32,
    /// Running and healthy.
    pub healthy: u32,
}

/// One instance, or a slot that waits for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceView {
    /// The slot.
    pub slot: String,
    /// `SLOT@TOKEN`; absent while the slot waits.
    pub id: Option<String>,
    /// Of which service.
    pub service: ServiceName,
    /// Its priority.
    pub priority: Priority,
    /// Where.
    pub node: Option<NodeId>,
    /// How far it is.
    pub state: InstanceState,
    /// What its health check says.
    pub health: Health,
    /// What the last probe said.
    pub health_detail: String,
    /// Are its deadlines held twice?
    pub armed: bool,
    /// Its fencing token.
    pub token: Option<String>,
    /// Its main process.
    pub pid: Option<u32>,
    /// When it last started.
    pub started_at: Option<WallMs>,
    /// Restarts in place.
    pub restarts: u32,
    /// How its last run ended.
    pub exit: Option<ExitView>,
    /// Its use of the host.
    pub usage: InstanceUsage,
    /// Which deployment it is of.
    pub version: Version,
    /// What it waits for.
    pub waiting: Vec<WaitingView>,
    /// Limits that its host does not enforce.
    pub unenforced: Vec<String>,
    /// Seen, or inferred from what was last heard?
    pub observed: bool,
    /// Why it is so and what follows.
    pub why: Arc<Why>,
}

/// The state of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// A slot without a claim.
    Waiting,
    /// Granted, not running yet.
    Starting,
    /// It runs.
    Running,
    /// Its node is lost and nothing proves that it stopped.
    RunningUnconfirmed,
    /// Told to stop.
    Stopping,
    /// Not running, and that is right.
    Stopped,
    /// Ended or could not start; waits for its next try.
    Failed,
    /// Its executor does not answer for it.
    Unknown,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitView {
    /// `completed`, `failed`, `signaled`, ...
    pub kind: String,
    /// Exit code.
    pub code: Option<i32>,
    /// Signal number.
    pub signal: Option<i32>,
    /// Over its memory limit?
    pub oom: bool,
}

/// One thing waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingView {
    /// In words.
    pub reason: String,
    /// In how many milliseconds it ends by itself, if it does.
    pub until_ms: Option<u64>,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationView {
    /// Its number.
    pub id: OperationId,
    /// Which kind.
    pub kind: OperationKindView,
    /// The node, slot or service it is about.
    pub target: String,
    /// Where to, for migrations.
    pub to: Option<NodeId>,
    /// The drain it belongs to.
    pub parent: Option<OperationId>,
    /// The phase's name.
    pub phase: String,
    /// Steps or moves done.
    pub done: u64,
    /// Of how many.
    pub total: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Bytes to copy.
    pub bytes_total: u64,
    /// Bytes a second.
    pub rate: u64,
    /// Expected time left.
    pub eta_ms: Option<u64>,
    /// The latest end there can be, on the wall clock.
    pub worst_case_end: Option<WallMs>,
    /// What blocks it.
    pub blocked: Vec<BlockedView>,
    /// How it ended: `done`, `rolled back: ..`, `failed: ..`, `cancelled`.
    pub result: Option<String>,
    /// Who asked.
    pub by: String,
    /// When.
    pub begun_at: WallMs,
    /// When it ended.
    pub ended_at: Option<WallMs>,
    /// Can it be cancelled?
    pub cancellable: bool,
    /// Why it was asked for.
    pub reason: String,
    /// What happened, oldest first, bounded.
    pub history: Vec<NoteView>,
    /// How far a fencing is; absent for other kinds.
    pub fence: Option<FenceRunView>,
}

/// One line of an operation's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteView {
    /// When.
    pub at: WallMs,
    /// What was done or said.
    pub text: String,
}

/// Kinds of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKindView {
    /// Empties a node.
    Drain,
    /// Moves a slot.
    Migration,
    /// Replaces a service's copies.
    Rollout,
    /// Proves a node off.
    Fence,
}

/// One thing that blocks an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedView {
    /// What is blocked.
    pub what: String,
    /// By what.
    pub why: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// The revision that made it.
    pub revision: Revision,
    /// The proposer's wall clock.
    pub at: WallMs,
    /// How bad it is.
    pub level: Level,
    /// What it concerns, such as `node n2`, `web/0`.
    pub subject: String,
    /// What happened, in a sentence.
    pub text: String,
    /// Who asked for it, if a person did.
    pub by: Option<String>,
}

/// Why something is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Whom the question is about.
    pub subject: String,
    /// The answer in a sentence.
    pub verdict: String,
    /// What led there, most important first.
    pub because: Vec<String>,
    /// The ticked list of what would let it start elsewhere; empty where nothing waits for evidence.
    pub evidence: Vec<EvidenceView>,
    /// What happens next by itself, or what the operator can do.
    pub next: Vec<NextView>,
}

/// One line of the ticked list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceView {
    /// `stop_acknowledged`, `fenced`, `rebooted`, `silence`, `attested`.
    pub kind: String,
    /// Does it hold?
    pub holds: bool,
    /// In words.
    pub detail: String,
    /// In how many milliseconds it holds by itself, if it does not yet and a time is set.
    pub left_ms: Option<u64>,
}

/// One next step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextView {
    /// What.
    pub what: String,
    /// In how many milliseconds, if a time is set.
    pub when_ms: Option<u64>,
    /// On which condition.
    #[serde(rename = "if")]
    pub condition: Option<String>,
}

impl InstanceView {
    /// The key it has in [`ClusterView::instances`].
    pub fn key(slot: &SlotId, id: Option<&InstanceId>) -> String {
        id.map_or_else(|| slot.to_string(), InstanceId::to_string)
    }
}

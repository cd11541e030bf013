//! What a running node offers to those in front of it (API, command line, cockpit). Does not know how
//! it is reached nor what carries it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use quorate_core::command::{Command, Proposal};
use quorate_core::ids::{ClusterId, Endpoint, Epoch, NodeId, RaftId, RequestId, Revision, SlotId};
use quorate_core::observation::FenceTest;
use quorate_core::spec::SpecDefaults;
use quorate_core::state::{Answer, KvChange, Preview, State};
use quorate_core::view::ClusterView;
use tokio::sync::watch;

/// Why a write or a linearizable read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// No leader with a quorum is known; nothing was appended.
    #[error("no quorum: {why}; nothing was changed, try again once a majority of voters is back")]
    NoQuorum {
        /// What is known, such as `1 of 3 voters heard from n2`.
        why: String,
    },
    /// It may have been appended; a retry by the same request id is answered alike.
    #[error("outcome unknown: {why}; ask again with the same request id")]
    Unknown {
        /// What happened.
        why: String,
        /// To ask with.
        request: Option<RequestId>,
    },
    /// It is larger than one log entry may be.
    #[error("the command is larger than {limit} bytes; split it")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// This node is shutting down.
    #[error("this node is stopping; ask another")]
    Stopping,
    /// It cannot be asked for as things stand; nothing was appended.
    #[error("{because}; {remedy}")]
    Refused {
        /// Why.
        because: String,
        /// What to do.
        remedy: String,
    },
}

/// Raft as this node sees it, for `raft status`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RaftView {
    /// `leader`, `follower`, `candidate`, `learner` or `stopped`.
    pub role: String,
    /// The epoch of the cluster it is in.
    pub epoch: Epoch,
    /// Its term.
    pub term: u64,
    /// Whom it takes for the leader.
    pub leader: Option<RaftId>,
    /// The last entry of its log.
    pub last_log: u64,
    /// The term of that entry.
    pub last_log_term: u64,
    /// The last entry known to be committed.
    pub committed: u64,
    /// The last entry applied.
    pub applied: u64,
    /// The last entry covered by a snapshot.
    pub snapshot: u64,
    /// As leader: how long ago a quorum last acknowledged it.
    pub quorum_ack_age_ms: Option<u64>,
    /// Voters and learners.
    pub members: Vec<RaftMember>,
}

/// One member of Raft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftMember {
    /// Its number.
    pub raft_id: RaftId,
    /// Its name, if State knows it.
    pub node: Option<NodeId>,
    /// Does it vote?
    pub voter: bool,
    /// Does it vote and host nothing, and hand leadership away?
    pub witness: bool,
    /// The heaviest that can leads.
    pub weight: u32,
    /// As leader: entries it still lacks.
    pub lag: Option<u64>,
    /// Where it is reached.
    pub endpoints: Vec<Endpoint>,
}

/// A new epoch that a survivor of a lost majority is to go on in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// The cluster's name as the operator typed it.
    pub confirm: String,
    /// Why.
    pub reason: String,
    /// Which epoch.
    pub epoch: Epoch,
    /// With whose log it begins.
    pub begun_by: NodeId,
    /// Term and index of the last entry of that log.
    pub last: (u64, u64),
    /// All that go on.
    pub survivors: Vec<NodeId>,
    /// Who asks.
    pub by: String,
    /// Such as `cli@n1`.
    pub from: String,
}

/// A node that is to be fenced by the one asked alone, without a quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoneFence {
    /// Which one.
    pub node: NodeId,
    /// Its name as the operator typed it once more.
    pub confirm: String,
    /// Why.
    pub reason: String,
    /// Who asks.
    pub by: String,
    /// Such as `cli@n1`.
    pub from: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoneFenced {
    /// Was it read back as off?
    pub proven: bool,
    /// What each method said, in order.
    pub said: Vec<String>,
    /// What the operator does next.
    pub next: String,
}

/// The output of a slot: which node it comes from, and its pieces in order.
pub type Output = (NodeId, BoxStream<'static, Result<Bytes, SubmitError>>);

/// Changes of the key-value store, entry by entry.
pub type KvChanges = BoxStream<'static, Result<(Revision, Arc<[KvChange]>), SubmitError>>;

/// A running node. Every method may be called from any runtime.
pub trait NodePort: Send + Sync + 'static {
    /// Its name.
    fn me(&self) -> &NodeId;

    /// Proposes a command through whoever leads, and waits for its answer for at most `within`.
    /// Refused within a second with `NoQuorum` when no leader with a quorum can be found.
    fn submit(&self, proposal: Proposal, within: Duration) -> BoxFuture<'_, Result<Answer, SubmitError>>;

    /// State, after a quorum round that began after this call: no acknowledged write is missing in it.
    fn linearizable(&self, within: Duration) -> BoxFuture<'_, Result<Arc<State>, SubmitError>>;

    /// State as applied here, which may be behind.
    fn state(&self) -> Arc<State>;

    /// Every new State, latest wins.
    fn states(&self) -> watch::Receiver<Arc<State>>;

    /// Every new view, latest wins, at most some ten a second. Made only while somebody holds a receiver.
    fn views(&self) -> watch::Receiver<Arc<ClusterView>>;

    /// How old the newest word of the leader is here: the age of what [`NodePort::state`] says.
    fn staleness_ms(&self) -> u64;

    /// The revision applied here.
    fn revision(&self) -> Revision {
        self.state().revision
    }

    /// Raft as seen from here.
    fn raft(&self) -> RaftView;

    /// What commands would lead to, on State as it is here; proposes nothing.
    fn preview(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<Preview, SubmitError>>;

    /// Asks every fence device of a node for the power state, from here; nothing is switched.
    fn test_fencing(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<FenceTest>, SubmitError>>;

    /// Fences a node from here without a quorum, on an operator's word. Refused where there is a quorum.
    fn fence_alone(&self, order: LoneFence) -> BoxFuture<'_, Result<LoneFenced, SubmitError>>;

    /// Has this node go on in a later epoch alone, on an operator's word: from now on it refuses members of the
    /// one it is in. Refused where it reaches a quorum or its log goes further.
    fn agree_to_recovery(&self, agreement: Agreement) -> BoxFuture<'_, Result<(), SubmitError>>;

    /// The output of a slot from whichever node has it: the last `tail` lines (0: all that is kept), then
    /// new output as it comes if `follow`. Says which node it comes from.
    fn logs(&self, slot: SlotId, tail: u32, follow: bool) -> BoxFuture<'_, Result<Output, SubmitError>>;

    /// Changes of the key-value store after a revision (0: from now on), one item for each log entry that
    /// changed it. Refused when that revision is no longer kept; ends with an error for a reader too slow.
    fn kv_changes(&self, after: Revision) -> Result<KvChanges, SubmitError>;

    /// Admits a node by its token and its admission as the internal protocol encodes it.
    fn register(
        &self,
        token: String,
        admission: Bytes,
    ) -> BoxFuture<'_, Result<(RaftId, ClusterId), SubmitError>>;

    /// Takes a node's reports in and gives its lease answers out, both as the internal protocol encodes them.
    fn heartbeats(
        &self,
        reports: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Bytes>, SubmitError>>;

    /// Hands leadership to another voter; done when that one leads.
    fn transfer_leader(&self, to: NodeId) -> BoxFuture<'_, Result<(), SubmitError>>;

    /// What a new node joins with: cluster id, secret and addresses.
    fn join_token(&self) -> String;

    /// What a service is where its description says nothing.
    fn spec_defaults(&self) -> SpecDefaults;

    /// The cluster's secret, which every call must carry.
    fn secret(&self) -> &str;
}

//! What raft is handed: the replicated state machine, and how its messages travel between nodes. Messages
//! are opaque bytes here. Knows neither what they mean nor what carries them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use quorate_core::ids::{ClusterId, Endpoint};

/// A snapshot in the making: cheap to take, dear to run; runs beside further applies.
pub type SnapshotJob = Box<dyn FnOnce() -> anyhow::Result<Vec<u8>> + Send>;

/// What the log is applied to. Calls come one at a time, in log order, from one thread at a time.
pub trait StateMachine: Send + 'static {
    /// Applies one log entry's proposals in order; `revision` is the entry's log index. The answers
    /// are as many as the proposals and go back to their proposers. Must be a pure function of the
    /// state and the proposals: every node runs it.
    fn apply(&mut self, revision: u64, proposals: &[Bytes]) -> Vec<Bytes>;

    /// The state as of the last apply, to be written out by the job that is returned.
    fn snapshot(&self) -> SnapshotJob;

    /// Replaces the state by a snapshot of it as of `revision`.
    fn restore(&mut self, revision: u64, bytes: &[u8]) -> anyhow::Result<()>;
}

/// Why a message to a peer has no answer. Whether the peer acted on it is unknown unless refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No connection, or it broke before the answer came.
    #[error("node {peer} cannot be reached: {reason}")]
    Unreachable {
        /// The raft id dialled.
        peer: u64,
        /// What the network said.
        reason: String,
    },
    /// The peer answered that it will not: wrong secret, wrong cluster, another node at that address.
    #[error("node {peer} refused: {reason}")]
    Refused {
        /// The raft id dialled.
        peer: u64,
        /// What it said.
        reason: String,
    },
    /// No answer in the time given.
    #[error("node {peer} did not answer within {within_ms} ms")]
    TimedOut {
        /// The raft id dialled.
        peer: u64,
        /// The time given.
        within_ms: u64,
    },
}

/// Messages that are asked and answered one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerCall {
    /// Asks for a vote.
    Vote,
    /// Asks whether a vote would be given, changing nothing.
    PreVote,
    /// Tells the peer to become leader.
    Transfer,
    /// Asks whether the peer still follows the sender's term.
    Confirm,
}

/// Makes ways to peers.
pub trait PeerNet: Send + Sync + 'static {
    /// The way to `peer`, which is reached at `endpoints` (tried in this order). Called again when
    /// they change; messages of one peer share one stream. Called on the runtime that will use it.
    fn link(&self, peer: u64, endpoints: &[Endpoint]) -> Arc<dyn PeerLink>;
}

/// The way to one peer.
pub trait PeerLink: Send + Sync + 'static {
    /// Sends on the peer's one persistent stream. The order of calls is the order of arrival;
    /// answers may come in another order.
    fn append(&self, message: Bytes, within: Duration) -> BoxFuture<'static, Result<Bytes, PeerError>>;

    /// Asks one question, beside the stream.
    fn call(
        &self,
        call: PeerCall,
        message: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>>;

    /// Sends a snapshot in chunks on a connection of its own; gives up when nothing moves for `stall`.
    fn snapshot(
        &self,
        head: Bytes,
        body: Bytes,
        stall: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>>;
}

/// Why a node did not act on a peer's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InboxError {
    /// The message cannot be read.
    #[error("message cannot be read: {0}")]
    Unreadable(String),
    /// Raft has stopped on this node.
    #[error("raft has stopped: {0}")]
    Stopped(String),
}

/// Takes in what peers send.
pub trait PeerInbox: Send + Sync + 'static {
    /// The raft id of this node: messages for another are refused before they get here.
    fn id(&self) -> u64;

    /// The cluster of this node: messages of another are refused before they get here.
    fn cluster(&self) -> &ClusterId;

    /// Takes a message of a peer's stream. It is in order once the future was polled for the first time.
    fn append(&self, message: Bytes) -> BoxFuture<'static, Result<Bytes, InboxError>>;

    /// Answers one question.
    fn call(&self, call: PeerCall, message: Bytes) -> BoxFuture<'static, Result<Bytes, InboxError>>;

    /// Takes a whole snapshot.
    fn snapshot(&self, head: Bytes, body: Bytes) -> BoxFuture<'static, Result<Bytes, InboxError>>;
}

//! What the rest of the node holds of raft. Usable from any runtime; every call does its work on
//! raft's own.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::inbox::boot_ms;
use super::network::Peers;
use super::node::RaftTiming;
use super::propose::Proposer;
use super::reads::Waiter;
use super::status::{Marks, RaftRole, RaftStanding, RaftStatus};
use super::types::Raft;

/// Why a proposal has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or none does yet. Nothing was appended.
    #[error("this node does not lead; ask {}", leader.map_or("again shortly".to_owned(), |id| format!("node {id}")))]
    NotLeader {
        /// Whom to ask.
        leader: Option<u64>,
    },
    /// No leader that a quorum follows is known here, and has not been for a while. Nothing was appended.
    #[error("no quorum")]
    NoQuorum,
    /// It was appended, or may have been, but nobody can tell yet whether it will be committed.
    #[error("the outcome is unknown; ask again with the same request id")]
    Unknown,
    /// Nothing was appended.
    #[error("a proposal of {bytes} bytes is larger than {limit}; split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Raft has stopped on this node. Nothing was appended.
    #[error("raft has stopped on this node; see its status")]
    Shutdown,
}

/// Why a quorum round gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads, or none does yet.
    #[error("this node does not lead; ask {}", leader.map_or("again shortly".to_owned(), |id| format!("node {id}")))]
    NotLeader {
        /// Whom to ask.
        leader: Option<u64>,
    },
    /// No majority of the voters acknowledged this node.
    #[error("no quorum")]
    NoQuorum,
    /// Raft has stopped on this node.
    #[error("raft has stopped on this node; see its status")]
    Shutdown,
}

/// Why a change of membership or leadership was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Another node leads, or none does yet. Nothing was changed.
    #[error("this node does not lead; ask {}", leader.map_or("again shortly".to_owned(), |id| format!("node {id}")))]
    NotLeader {
        /// Whom to ask.
        leader: Option<u64>,
    },
    /// No majority of the voters acknowledged this node. Nothing was changed.
    #[error("no quorum")]
    NoQuorum,
    /// An earlier change is not through yet. Nothing was changed.
    #[error("another change of membership is under way; ask again when it is done")]
    Busy,
    /// It cannot be done as things stand. Nothing was changed.
    #[error("{reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// It may still happen.
    #[error("the outcome is unknown; see raft's status")]
    Unknown,
    /// Raft has stopped on this node.
    #[error("raft has stopped on this node; see its status")]
    Shutdown,
}

/// That this node cannot decide, and what is known of who can.
pub struct NotHere {
    leader: Option<u64>,
    lost: bool,
}

macro_rules! from_not_here {
    ($($error:ident),*) => {
        $(impl From<NotHere> for $error {
            fn from(here: NotHere) -> Self {
                if here.lost { $error::NoQuorum } else { $error::NotLeader { leader: here.leader } }
            }
        })*
    };
}
from_not_here!(ProposeError, ReadError, ChangeError);

/// What raft's tasks and handles share.
pub struct Shared {
    pub(super) id: u64,
    pub(super) raft: Raft,
    pub(super) timing: RaftTiming,
    pub(super) peers: Peers,
    pub(super) marks: Arc<Marks>,
    pub(super) status: watch::Receiver<RaftStatus>,
    pub(super) standing: watch::Receiver<RaftStanding>,
    /// Told after each round that a quorum acknowledged.
    pub(super) rounds: Arc<Notify>,
    /// When this node started, on the boot-time clock.
    pub(super) started: u64,
}

impl Shared {
    /// Another node's word for who leads is only worth something while that one is heard.
    pub fn not_leader(&self, leader: Option<u64>) -> NotHere {
        NotHere { leader: leader.filter(|id| *id != self.id), lost: self.lost() }
    }

    /// Has neither a leader been heard nor a quorum acknowledged this one for so long that none is to be expected?
    pub fn lost(&self) -> bool {
        let silent_ms = boot_ms().saturating_sub(self.marks.heard().max(self.started));
        u128::from(silent_ms) > self.timing.lost_after().as_millis()
    }
}

/// A handle on raft. Clones are cheap.
#[derive(Clone)]
pub struct RaftHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) proposer: Proposer,
    pub(super) reads: mpsc::Sender<Waiter>,
    pub(super) runtime: tokio::runtime::Handle,
}

impl RaftHandle {
    /// Term and index of the last entry of this node's log; zeros before the first.
    pub fn last_log(&self) -> (u64, u64) {
        use openraft::async_runtime::WatchReceiver;
        let metrics = self.shared.raft.data_metrics();
        let last = metrics.borrow_watched().last_log;
        last.map_or((0, 0), |id| (id.committed_leader_id().term, id.index))
    }

    /// This node's raft id.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// Has `proposal` committed and applied, and gives the state machine's answer to it. Many callers
    /// at once share log entries and syncs.
    pub async fn propose(&self, proposal: Bytes) -> Result<Bytes, ProposeError> {
        let answers = self.proposer.propose(vec![proposal]).await?;
        answers.into_iter().next().ok_or(ProposeError::Unknown)
    }

    /// As [`RaftHandle::propose`] for several at once, which are decided together: all are committed, or
    /// none is. Their answers come in the same order.
    pub async fn propose_all(&self, proposals: Vec<Bytes>) -> Result<Vec<Bytes>, ProposeError> {
        self.proposer.propose(proposals).await
    }

    /// Whom to ask instead: another node leads, as far as is known, and was heard of late.
    pub fn leader_elsewhere(&self) -> Option<u64> {
        let leader = {
            let status = self.shared.status.borrow();
            if status.role == RaftRole::Leader { None } else { status.leader }
        };
        let NotHere { leader, lost } = self.shared.not_leader(leader);
        if lost { None } else { leader }
    }

    /// Makes sure that this node leads, by a quorum round that begins after this call, and that all
    /// which was committed before it is applied here. Gives that revision.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        let (waiter, outcome) = oneshot::channel();
        self.reads.send(waiter).await.map_err(|_| ReadError::Shutdown)?;
        outcome.await.unwrap_or(Err(ReadError::Shutdown))
    }

    /// Raft as seen from here, and every change of it. Positions that move with every entry are
    /// included: watchers get the latest, not each.
    pub fn status(&self) -> watch::Receiver<RaftStatus> {
        self.shared.status.clone()
    }

    /// The part of it that changes seldom, for those who wait for a change.
    pub fn standing(&self) -> watch::Receiver<RaftStanding> {
        self.shared.standing.clone()
    }

    /// The runtime that raft runs on, for what must run beside it (heartbeats, the node-to-node server).
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }
}

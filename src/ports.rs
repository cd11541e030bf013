//! The few traits that parts of the shell are handed instead of knowing one another.

mod executor;
mod node;
mod raft;

pub use executor::{ActError, Executor, Guard, LogChunk, LogFrom, LogQuery};
pub use node::{
    Agreement, KvChanges, LoneFence, LoneFenced, NodePort, Output, RaftMember, RaftView, SubmitError,
};
pub use raft::{InboxError, PeerCall, PeerError, PeerInbox, PeerLink, PeerNet, SnapshotJob, StateMachine};

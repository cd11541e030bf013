//! The few traits that parts of the shell are handed instead of knowing one another.

mod executor;
mod node;
mod raft;

pub use executor::{
    ActError, Admitted, EngineEnd, EngineExit, EngineFact, Executor, Found, FoundStage, Guard, LogChunk,
    LogFrom, LogQuery, OutputPiece, Place, Placing, RunId, Tell,
};
pub use node::{
    Agreement, KvChanges, LoneFence, LoneFenced, NodePort, Output, RaftMember, RaftView, SubmitError,
};
pub use raft::{InboxError, PeerCall, PeerError, PeerInbox, PeerLink, PeerNet, SnapshotJob, StateMachine};

//! Replication: openraft behind an adapter that moves opaque bytes. Here live the log on disk, the
//! batching of proposals, quorum rounds and the changes of membership. Does not know what a
//! proposal means, nor how messages travel.

mod codec;
mod disk;
mod gather;
mod handle;
mod inbox;
mod journal;
mod log;
mod machine;
mod mark;
mod members;
mod network;
mod node;
mod notices;
mod propose;
mod reads;
pub mod rescue;
mod sled_disk;
mod snapshots;
mod status;
#[cfg(test)]
mod store_tests;
mod tail;
mod ticks;
mod tree;
mod types;

pub use disk::DiskError;
pub use gather::{DEPTH, Entrance, Gathered, gather, goes_beside};
pub use handle::{ChangeError, ProposeError, RaftHandle, ReadError};
pub use node::{RaftLimits, RaftNode, RaftOptions, RaftTiming};
pub use propose::MAX_PROPOSAL_BYTES;
pub use status::{RaftRole, RaftStanding, RaftStatus};

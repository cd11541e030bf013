//! The few traits that parts of the shell are handed instead of knowing one another.

mod executor;
mod node;

pub use executor::{ActError, Executor, Guard, LogChunk, LogFrom, LogQuery};
pub use node::{KvChanges, NodePort, Output, RaftMember, RaftView, SubmitError};

//! The few traits that parts of the shell are handed instead of knowing one another.

mod node;

pub use node::{NodePort, Output, RaftMember, RaftView, SubmitError};

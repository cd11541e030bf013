//! What runs instances, one file per kind, and the health checks they share. Knows what it is told to run
//! and how that goes, nothing of why.

mod ask;
mod health;
mod process;

pub use process::ProcessExecutor;

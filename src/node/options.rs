//! What a node is started with, beyond its file.

use std::path::PathBuf;

use quorate_core::config::Config;
use quorate_core::view::ClusterKind;

use crate::transport::Detours;

/// Everything a node is started with.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Its file, checked.
    pub config: Config,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// The cluster's name for people, if this node makes it.
    pub cluster_name: String,
    /// Marks what must never be taken for production.
    pub kind: ClusterKind,
    /// The program to start the guard from: this one.
    pub program: PathBuf,
    /// The read end of a pipe that the guard and all it runs do not outlive, for a demo.
    pub hold: Option<std::sync::Arc<std::os::fd::OwnedFd>>,
    /// Where other nodes are reached, if not where they say; for a demo.
    pub detours: Detours,
}

//! What a log store must do, whatever it is built on: keep records by log index and a few small
//! values, durably and in groups. Does not know raft's types: records are opaque bytes.

use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Why a log store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has the folder.
    #[error("{} is in use by another process; stop it, or choose another data_dir", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder belongs to another cluster or node.
    #[error("{} holds data of {found}, not of {wanted}; choose another data_dir, nothing was changed", dir.display())]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// Whose data it is.
        found: String,
        /// Who wanted it.
        wanted: String,
    },
    /// Data that had been made durable is missing or damaged.
    #[error("{}: {what}; the disk lost data, nothing was changed: remove this node and let it join anew", dir.display())]
    Corrupt {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with which record.
        what: String,
    },
    /// The operating system or the store beneath refused.
    #[error("{}: cannot {action}: {reason}", dir.display())]
    Failed {
        /// The folder.
        dir: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        reason: String,
    },
}

impl From<DiskError> for std::io::Error {
    fn from(error: DiskError) -> Self {
        std::io::Error::other(error.to_string())
    }
}

/// The small values beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Slot {
    /// Whose data this is.
    Identity,
    /// The vote last given.
    Vote,
    /// How far the log was known to be committed.
    Committed,
    /// The last position that was removed from the front; set right after its `Purge`.
    Purged,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Keeps a record at an index.
    Put(u64, Bytes),
    /// Removes every record from this index on.
    Truncate(u64),
    /// Removes every record up to this index, itself included.
    Purge(u64),
    /// Keeps a small value.
    Set(Slot, Bytes),
}

/// What a store holds when it is opened.
#[derive(Debug, Default)]
pub struct Held {
    /// First and last index of the log, if it has any record.
    pub range: Option<(u64, u64)>,
    /// The last record.
    pub last: Option<Bytes>,
    /// The small values.
    pub slots: std::collections::BTreeMap<Slot, Bytes>,
}

/// A log store. `write` is called by one thread; `read` by many.
pub trait LogDisk: Send + Sync + 'static {
    /// What was found when it was opened.
    fn held(&self) -> Result<Held, DiskError>;

    /// Makes the changes in their order; a crash keeps a first part of them. When it returns and
    /// `durable` was asked for, they and everything before them survive a loss of power.
    fn write(&self, changes: &[Change], durable: bool) -> Result<(), DiskError>;

    /// The records from `first` to `last`, both included, up to `limit` bytes but at least one.
    fn read(&self, first: u64, last: u64, limit: usize) -> Result<Vec<Bytes>, DiskError>;
}

//! Who runs instances (`Executor`), who holds native processes (`Guard`), and what both may answer.
//! Does not know what is to run, nor how either does it.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use quorate_core::effect::{StartInstance, StopInstance};
use quorate_core::ids::{InstanceId, SlotId, Token};
use quorate_core::observation::{ExecutorFact, SlotReport};
use quorate_core::spec::ExecutorKind;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Why a driver did not do as told. Nothing of it is final: the same effect may be given again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ActError {
    /// The slot has seen a higher token, or this one belonged to a stop.
    #[error("{slot}: token {token} is void, the slot has seen {highest}; plan again")]
    StaleToken {
        /// Which slot.
        slot: SlotId,
        /// What was given.
        token: Token,
        /// What it keeps.
        highest: Token,
    },
    /// Another instance of the slot is not gone yet.
    #[error("{running} still runs; stop it first")]
    StillRunning {
        /// Who runs.
        running: InstanceId,
    },
    /// The lease ran out or was never given; only a crashed instance that may stay starts again without one.
    #[error("{slot}: no live lease; renew it first")]
    NoLease {
        /// Which slot.
        slot: SlotId,
    },
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// Who should do it does not answer now.
    #[error("the guard does not answer: {0}; it is started again by itself")]
    Away(String),
}

/// Runs instances of one kind. Every call may be repeated, and returns as soon as the work is under way;
/// what came of it is in the inventory.
pub trait Executor: Send + Sync {
    /// Which kind.
    fn kind(&self) -> ExecutorKind;
    /// Starts an instance, or starts it again if `restart` is higher than its last.
    fn start(&self, start: StartInstance) -> BoxFuture<'_, Result<(), ActError>>;
    /// Ends a slot's instance and raises the slot's highest token.
    fn stop(&self, stop: StopInstance) -> BoxFuture<'_, Result<(), ActError>>;
    /// Removes the folders of a slot that is gone for good.
    fn forget(&self, slot: SlotId) -> BoxFuture<'_, Result<(), ActError>>;
    /// Every slot known, as last seen.
    fn inventory(&self) -> BTreeMap<SlotId, SlotReport>;
    /// What it can do on this host.
    fn facts(&self) -> ExecutorFact;
    /// Moves whenever the inventory changed in more than usage.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Reads a slot's output.
    fn logs(&self, slot: SlotId, query: LogQuery) -> BoxFuture<'_, Result<LogChunk, ActError>>;
}

/// Holds native processes and their deadlines, outside of the node's process.
pub trait Guard: Send + Sync {
    /// Starts an instance.
    fn start(&self, start: StartInstance) -> BoxFuture<'_, Result<(), ActError>>;
    /// Ends a slot's instance.
    fn stop(&self, stop: StopInstance) -> BoxFuture<'_, Result<(), ActError>>;
    /// Removes a slot's folders.
    fn forget(&self, slot: SlotId) -> BoxFuture<'_, Result<(), ActError>>;
    /// Every slot it knows.
    fn inventory(&self) -> BoxFuture<'_, Result<BTreeMap<SlotId, SlotReport>, ActError>>;
    /// How each running instance was started.
    fn runs(&self) -> BoxFuture<'_, Result<Vec<StartInstance>, ActError>>;
    /// What it can do on this host.
    fn facts(&self) -> BoxFuture<'_, Result<ExecutorFact, ActError>>;
    /// Moves whenever an instance started, ended or failed, and when the guard itself came back.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Reads a slot's output.
    fn logs(&self, slot: SlotId, query: LogQuery) -> BoxFuture<'_, Result<LogChunk, ActError>>;
}

/// Which part of an output is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// From where.
    pub from: LogFrom,
    /// At most so many bytes.
    pub max_bytes: usize,
}

/// Where reading an output begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFrom {
    /// The oldest byte kept.
    Oldest,
    /// A byte counted from the first ever written; an earlier chunk's `end` follows it across rotations.
    Offset(u64),
    /// This many lines before the end.
    Tail(u32),
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogChunk {
    /// Where it begins; beyond the offset asked for if that is rotated away.
    pub start: u64,
    /// What was written; may break a line.
    pub bytes: Vec<u8>,
    /// Where the next one begins.
    pub end: u64,
}

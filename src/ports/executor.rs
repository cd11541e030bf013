//! Who drives an engine (`Executor`), who holds native processes and all deadlines (`Guard`), and what both may
//! answer. Does not know what is to run, nor how either does it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use quorate_core::effect::{StartInstance, StopInstance};
use quorate_core::ids::{InstanceId, SlotId, Token};
use quorate_core::observation::{ExecutorFact, Health, InstanceUsage, SlotReport, Unavailable};
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

/// One run of an instance: a restart in place is another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId {
    /// Which instance.
    pub id: InstanceId,
    /// Which restart of it.
    pub restart: u32,
}

impl RunId {
    /// The run that a start asks for.
    pub fn of(start: &StartInstance) -> Self {
        Self { id: start.id.clone(), restart: start.restart }
    }
}

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} run {}", self.id, self.restart)
    }
}

/// Where an engine puts what it starts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placing {
    /// It takes a slice of systemd by name rather than the path of a control group.
    pub slice: bool,
    /// Why what it starts cannot be in a control group of the guard. Its deadline is then never armed.
    pub beyond: Option<String>,
}

/// How an engine's run ended, as the engine tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineEnd {
    /// It never began, and will not begin any more.
    NotStarted(String),
    /// It ran and is gone.
    Exited(EngineExit),
}

/// How an engine's run exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EngineExit {
    /// Its exit code, if it is known.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Did the kernel kill it over its memory limit?
    pub oom: bool,
}

/// What an engine is, where it can be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineFact {
    /// Its version.
    pub version: String,
    /// Declared abilities.
    pub capabilities: Vec<String>,
    /// Where it puts what it starts.
    pub placing: Placing,
}

/// What an instance of an engine finds around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Tells this node's instances from those of all others that the engine knows.
    pub owner: String,
    /// Its variables: those of its description and who it is. Paths among them are the host's.
    pub environment: BTreeMap<String, String>,
    /// Its own folder on the host.
    pub folder: PathBuf,
    /// Its state folder on the host, if its description names one.
    pub state: Option<PathBuf>,
    /// The folder of its output on the host.
    pub logs: PathBuf,
    /// The control group that it is to be in: a path from the root of the tree, or a slice by name.
    pub group: Option<String>,
}

/// A run as an engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which one.
    pub run: RunId,
    /// How far it is.
    pub stage: FoundStage,
    /// What the engine's own check says, if it has one.
    pub health: Option<(Health, String)>,
    /// Its use, where the guard cannot see it.
    pub usage: Option<InstanceUsage>,
    /// Limits that the engine leaves out, for people.
    pub unenforced: Vec<String>,
}

/// How far a run is with its engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundStage {
    /// Made, and not running yet.
    Made,
    /// Its main process is there and does nothing before it is released.
    Held(u32),
    /// Running, with this main process.
    Running(u32),
    /// Over.
    Exited(EngineExit),
}

/// A piece of output as an engine gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPiece {
    /// What was written.
    pub bytes: Bytes,
    /// Where to go on from after it.
    pub cursor: String,
}

/// Says in words how far a preparation is.
pub type Tell<'a> = &'a (dyn Fn(String) + Send + Sync);

/// Drives one engine. The guard holds the deadline before `launch` is called; who may run is judged there.
/// Every call may be repeated, and may hang: the caller has the patience.
pub trait Executor: Send + Sync + 'static {
    /// Which kind.
    fn kind(&self) -> ExecutorKind;
    /// What the engine is now, or why it cannot be used.
    fn survey(&self) -> BoxFuture<'_, Result<EngineFact, Unavailable>>;
    /// Where it puts what this start asks for.
    fn placing(&self, fact: &EngineFact, _start: &StartInstance) -> Placing {
        fact.placing.clone()
    }
    /// Fetches and checks what a start needs. An error names the field that is wrong; nothing has begun then.
    fn prepare<'a>(&'a self, start: &'a StartInstance, tell: Tell<'a>) -> BoxFuture<'a, Result<(), String>>;
    /// Starts a run; its main process, or none if it was over at once. After an error it may have begun all the
    /// same, until `remove` is done. Where it is held back it does nothing before `release`.
    fn launch<'a>(
        &'a self,
        start: &'a StartInstance,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<Option<u32>, String>>;
    /// Lets a run go on that was started held back: called once the guard has its main process, again and
    /// again until the run is not held any more. Most engines hold nothing back.
    fn release<'a>(&'a self, _owner: &'a str, _run: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Every run of this owner that the engine knows.
    fn found<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<Vec<Found>, String>>;
    /// Asks a run to end by the engine's own means, where a signal to its main process would not.
    fn ask_to_stop<'a>(&'a self, owner: &'a str, run: &'a RunId) -> BoxFuture<'a, Result<(), String>>;
    /// Takes a run away, whatever state it is in. Done when it can never begin any more.
    fn remove<'a>(&'a self, owner: &'a str, run: &'a RunId) -> BoxFuture<'a, Result<(), String>>;
    /// Runs a program inside of a run; its words, as an error if it did not end with 0.
    fn exec<'a>(
        &'a self,
        owner: &'a str,
        run: &'a RunId,
        command: &'a [String],
    ) -> BoxFuture<'a, Result<String, String>>;
    /// The output of a run after a cursor, and on as it comes; ends with the run. None where runs write to
    /// their folder of output by themselves.
    fn output(
        &self,
        owner: &str,
        run: &RunId,
        after: Option<String>,
    ) -> Option<BoxStream<'static, Result<OutputPiece, String>>>;
    /// Moves whenever a run began or ended, as far as the engine tells.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Holds native processes and all deadlines, outside of the node's process.
pub trait Guard: Send + Sync {
    /// Starts an instance that is a native process.
    fn start(&self, start: StartInstance) -> BoxFuture<'_, Result<(), ActError>>;
    /// Holds the deadline of an instance that an engine is to start; its control group. `None` if there is
    /// nothing to be started: it runs, or ran, already.
    fn admit(
        &self,
        start: StartInstance,
        placing: Placing,
    ) -> BoxFuture<'_, Result<Option<Admitted>, ActError>>;
    /// The engine has started it, with that main process.
    fn begun(&self, run: RunId, pid: u32) -> BoxFuture<'_, Result<(), ActError>>;
    /// The engine has not, or it has ended.
    fn over(&self, run: RunId, end: EngineEnd) -> BoxFuture<'_, Result<(), ActError>>;
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

/// The guard holds an instance's deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The control group it is to be in, where there are any.
    pub group: Option<String>,
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

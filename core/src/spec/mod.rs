//! What an operator asks for: a service, checked and complete. Parsing from YAML or JSON is `parse`;
//! this file holds only the result, in which every default is filled in and nothing is left to guess.

mod container;
mod health;
mod image;
mod machine;
mod mounts;
mod outline;
mod parse;
mod ports;
mod process;
mod runtime;
#[cfg(test)]
mod tests;
mod unit;
mod words;
mod workload;
#[cfg(test)]
mod workload_tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::ServiceName;
use crate::units::{CpuMillis, MemoryMib, Millis};

pub use crate::document::{DocumentError as SpecError, DocumentErrors as SpecErrors, decode};
pub use outline::{FieldChange, diff};
pub use parse::{EXECUTORS, MAX_REPLICAS, SpecDefaults, parse, parse_one};
pub(crate) use words::PRIORITIES;
pub use words::signal_name;
pub use workload::{
    ContainerEngine, ContainerWorkload, ExecutorKind, Limits, MachineBoot, MachineGraphics, MachineNetwork,
    MachineWorkload, Mount, PortMapping, ProcessWorkload, PullPolicy, Transport, UnitSource, UnitWorkload,
    Workload,
};

/// What a cut-off node does with an instance, and who yields to whom for room.
/// Orders from the least to the most important.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Killed at once when the lease expires.
    Low,
    /// Stopped with its grace when the lease expires.
    Normal,
    /// Stopped with its grace when the lease expires, after the normal ones.
    High,
    /// Keeps running without a lease; elsewhere it starts only after real evidence.
    Critical,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
            Priority::Critical => "critical",
        })
    }
}

/// A service as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// What a cut-off node does with it.
    pub priority: Priority,
    /// How many copies; 0 keeps the service with nothing running.
    pub replicas: u32,
    /// May each slot have at most one running copy? `None` leaves it to the first deploy:
    /// true for one replica, false for more.
    pub exclusive: Option<bool>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// What runs it, and what is run.
    pub workload: Workload,
    /// The folder that a migration copies, relative to the instance's own folder.
    pub state_dir: Option<String>,
    /// What placement reserves on the node.
    pub resources: Resources,
    /// Where it may run.
    pub placement: Placement,
    /// How to tell that it works; without one, running is healthy.
    pub health: Option<HealthCheck>,
    /// How to end it.
    pub stop: StopPolicy,
    /// What follows an exit.
    pub restart: RestartPolicy,
    /// Keep running on a node without a lease? Only for services that are not exclusive.
    pub keep_on_isolation: bool,
}

impl ServiceSpec {
    /// This spec with everything left out that does not touch a running copy.
    fn as_run(&self) -> Self {
        Self {
            labels: BTreeMap::new(),
            replicas: 0,
            placement: Placement::default(),
            exclusive: None,
            ..self.clone()
        }
    }

    /// Would a copy started by one run just as one started by the other?
    pub fn runs_alike(&self, other: &Self) -> bool {
        self.as_run() == other.as_run()
    }

    /// Equal for specs that run alike: what a copy was started by is told by this alone.
    pub fn run_digest(&self) -> u64 {
        // Encoding plain data into memory cannot fail; 0 would match nothing else.
        postcard::to_stdvec(&self.as_run()).map_or(0, |bytes| xxhash_rust::xxh3::xxh3_64(&bytes))
    }
}

/// What placement reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time.
    pub cpu: CpuMillis,
    /// Memory.
    pub memory: MemoryMib,
}

/// Where a service may run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placement {
    /// All must hold on a node.
    pub constraints: Vec<Constraint>,
    /// Each that holds makes a node better by its weight.
    pub affinity: Vec<Affinity>,
    /// How its copies relate to one another.
    pub spread: Spread,
}

/// How copies of one service are spread over nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Rather not two on one node.
    #[default]
    Prefer,
    /// Never two on one node.
    Require,
}

/// A condition on a node: `ATTRIBUTE == VALUE` or `ATTRIBUTE != VALUE`, where the attribute is `node`,
/// or a label of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// `node` or a node label.
    pub attribute: String,
    /// Must it be equal, or must it differ?
    pub equal: bool,
    /// The value compared with.
    pub value: String,
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.attribute, if self.equal { "==" } else { "!=" }, self.value)
    }
}

/// A preference with a weight; a negative weight is an aversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affinity {
    /// What is preferred.
    pub constraint: Constraint,
    /// How much, from -100 to 100.
    pub weight: i32,
}

/// How to tell that an instance works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: HealthProbe,
    /// Time from one probe to the next.
    pub interval: Millis,
    /// A probe without an answer by then has failed.
    pub timeout: Millis,
    /// This many failures in a row make an instance unhealthy.
    pub failures: u32,
    /// This many successes in a row make it healthy.
    pub successes: u32,
    /// Failures in this time after the start do not count.
    pub start_period: Millis,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthProbe {
    /// A GET answered with 2xx or 3xx.
    Http {
        /// On loopback.
        port: u16,
        /// Starting with a slash.
        path: String,
    },
    /// A connection that is taken.
    Tcp {
        /// On loopback.
        port: u16,
    },
    /// A program that ends with 0, run in the instance's folder with its environment.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
    /// The standard gRPC health service says SERVING.
    Grpc {
        /// On loopback.
        port: u16,
        /// The service asked for; empty means the whole server.
        service: String,
    },
}

/// How to end an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopPolicy {
    /// The signal that asks, by number.
    pub signal: i32,
    /// Killed when it still runs this long after the signal.
    pub grace: Millis,
}

/// When an exit is followed by a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartWhen {
    /// Whatever the exit.
    Always,
    /// Only after a failure.
    OnFailure,
    /// Not at all.
    Never,
}

/// What follows an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Which exits.
    pub when: RestartWhen,
    /// Wait before the first restart; doubled by each further one.
    pub backoff_min: Millis,
    /// The longest wait. An instance that ran this long starts again from `backoff_min`.
    pub backoff_max: Millis,
}

impl RestartPolicy {
    /// The wait before a start that follows `restarts` earlier ones, the last run having lasted `ran`:
    /// doubled each time, from `backoff_min` again after a run of at least `backoff_max`.
    pub fn backoff(&self, restarts: u32, ran: Millis) -> Millis {
        let doublings = if ran >= self.backoff_max { 0 } else { restarts.min(32) };
        Millis(self.backoff_min.0.saturating_mul(1 << doublings).min(self.backoff_max.0))
    }
}

impl ServiceSpec {
    /// Does an instance go on where its node has no lease?
    pub fn runs_without_lease(&self) -> bool {
        self.priority == Priority::Critical || self.keep_on_isolation
    }

    /// The time its stop may take after the lease expired: none for low, which is killed at once.
    pub fn isolation_grace(&self) -> Millis {
        if self.priority == Priority::Low { Millis(0) } else { self.stop.grace }
    }
}

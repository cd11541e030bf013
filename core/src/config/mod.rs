//! A node's own file, checked and complete: who it is, where it listens, what it offers, and the cluster
//! settings it would seed. Does not read files, resolve names or measure the host.

mod fencing;
mod parse;
mod seed;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::fence::FenceLevels;
use crate::ids::{Endpoint, NodeId, Segment};
use crate::settings::ClusterSettings;
use crate::spec::{Resources, SpecDefaults};
use crate::units::{CpuMillis, MemoryMib, Millis, QuantityError};

pub use crate::document::{DocumentError as ConfigError, DocumentErrors as ConfigErrors, decode};
pub use parse::{keys, parse};

/// Everything a node is told by its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `node_id`.
    pub node: NodeId,
    /// `bind_addr`: traffic between nodes. The API and HTTP listen on the same host.
    pub bind: Address,
    /// The API; 0 picks a free port.
    pub grpc_port: u16,
    /// Health over HTTP; 0 picks a free port.
    pub http_port: u16,
    /// Where other nodes reach this one; empty where `bind` is no address to dial, and the node must
    /// find its own.
    pub addresses: Vec<Endpoint>,
    /// `None` is the state folder of the account that runs the node.
    pub data_dir: Option<String>,
    /// Begin a cluster, unless the data folder already holds one.
    pub bootstrap: bool,
    /// The cluster to come to.
    pub join: JoinConfig,
    /// For placement.
    pub labels: BTreeMap<String, String>,
    /// Votes and hosts nothing.
    pub witness: bool,
    /// The heaviest healthy voter leads.
    pub weight: u32,
    /// What it offers to placement.
    pub resources: ResourceConfig,
    /// The executor of services that name none.
    pub default_executor: String,
    /// How others can fence it, level by level; the methods of a level all have to succeed.
    pub fencing: FenceLevels,
    /// Does silence count as evidence here?
    pub silence_counts: bool,
    /// Reset the host when a kill takes longer than half its margin?
    pub reset_host: bool,
    /// What should always answer this node, such as its gateway; tells a cut-off node from dead peers.
    pub arbiters: Vec<Arbiter>,
    /// When Raft's log becomes a snapshot.
    pub snapshot: SnapshotConfig,
    /// What is logged, and where to.
    pub log: LogConfig,
    /// Seeds the cluster's settings at the bootstrap; afterwards only compared with them.
    pub settings: ClusterSettings,
    /// The names of the cluster settings that the file itself gives.
    pub given: BTreeSet<&'static str>,
}

/// The cluster to come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JoinConfig {
    /// Any of its nodes, by `bind_addr`.
    pub addresses: Vec<Address>,
    /// What `quorate join-token` prints.
    pub token: Option<Secret>,
}

/// What should always answer a node. It never votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arbiter {
    /// For people.
    pub name: String,
    /// Where a connection is answered, be it by a refusal.
    pub tcp: Address,
}

/// What a node offers to placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResourceConfig {
    /// In place of the measured processors.
    pub cpu: Option<CpuMillis>,
    /// In place of the measured memory.
    pub memory: Option<MemoryMib>,
    /// Kept back for the host itself.
    pub reserved: Resources,
}

impl ResourceConfig {
    /// What placement may give away on a host with this much.
    pub fn capacity(&self, measured: Resources) -> Resources {
        let cpu = self.cpu.unwrap_or(measured.cpu).0.saturating_sub(self.reserved.cpu.0);
        let memory = self.memory.unwrap_or(measured.memory).0.saturating_sub(self.reserved.memory.0);
        Resources { cpu: CpuMillis(cpu), memory: MemoryMib(memory) }
    }
}

/// When Raft's log becomes a snapshot: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// After this long, if anything was written.
    pub interval: Millis,
    /// After this many entries.
    pub entries: u64,
}

/// What is logged, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important line that is kept.
    pub level: LogLevel,
    /// `None` is a file in the data folder.
    pub file: Option<String>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// And what is doubtful.
    Warn,
    /// And what changes.
    Info,
    /// And why.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    const ALL: [(&'static str, LogLevel); 5] = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = LogLevel::ALL.iter().find(|(_, level)| level == self).map_or("info", |(name, _)| name);
        f.pad(name)
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A host and a port, `127.0.0.1:7000` or `[::1]:7000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// An address or a resolvable name, without brackets.
    pub host: String,
    /// 0 picks a free port where one listens.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        f.pad(&text)
    }
}

impl FromStr for Address {
    type Err = QuantityError;

    /// A port alone (`:7000`) means loopback: nothing is opened to others unasked.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = || QuantityError { text: text.to_owned(), form: "an address such as 127.0.0.1:7000" };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.filter(|inner| inner.contains(':')).ok_or_else(wrong)?,
            None if host.is_empty() => "127.0.0.1",
            None => host,
        };
        let port = port.parse().map_err(|_| wrong())?;
        check_host(host).map_err(|()| wrong())?;
        if host.contains(':') && !text.starts_with('[') {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

fn check_host(host: &str) -> Result<(), ()> {
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
    if host.is_empty() || host.len() > 253 || host.starts_with('-') || !host.chars().all(good) {
        Err(())
    } else {
        Ok(())
    }
}

/// A setting that the node's file and the cluster hold differently; the cluster's holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingDifference {
    /// Which.
    pub name: &'static str,
    /// In the file.
    pub file: String,
    /// In State.
    pub cluster: String,
}

impl Config {
    /// A node of this name with every default.
    pub fn new(node: NodeId) -> Self {
        let bind = Address { host: "127.0.0.1".to_owned(), port: 7000 };
        Self {
            node,
            addresses: addresses_of(&bind),
            bind,
            grpc_port: 7001,
            http_port: 7002,
            data_dir: None,
            bootstrap: false,
            join: JoinConfig::default(),
            labels: BTreeMap::new(),
            witness: false,
            weight: 1,
            resources: ResourceConfig::default(),
            default_executor: "process".to_owned(),
            fencing: Vec::new(),
            silence_counts: true,
            reset_host: false,
            arbiters: Vec::new(),
            snapshot: SnapshotConfig { interval: Millis(120_000), entries: 10_000 },
            log: LogConfig { level: LogLevel::Info, file: None },
            settings: ClusterSettings::default(),
            given: BTreeSet::new(),
        }
    }

    /// What holds for a service description that leaves it open.
    pub fn spec_defaults(&self, current: &ClusterSettings) -> SpecDefaults {
        SpecDefaults { priority: current.default_priority, executor: self.default_executor.clone() }
    }

    /// What the file gives differently from the settings in force.
    pub fn differing(&self, current: &ClusterSettings) -> Vec<SettingDifference> {
        let given =
            self.given.iter().filter_map(|name| Some((*name, self.settings.get(name)?, current.get(name)?)));
        given
            .filter(|(_, file, cluster)| file != cluster)
            .map(|(name, file, cluster)| SettingDifference { name, file, cluster })
            .collect()
    }
}

/// The address others dial, if the one bound to is one.
fn addresses_of(bind: &Address) -> Vec<Endpoint> {
    let everywhere = ["0.0.0.0", "::"].contains(&bind.host.as_str());
    if everywhere || bind.port == 0 {
        return Vec::new();
    }
    let segment = Segment::new("main").ok();
    segment
        .map(|segment| Endpoint { segment, host: bind.host.clone(), port: bind.port })
        .into_iter()
        .collect()
}

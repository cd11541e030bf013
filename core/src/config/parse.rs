//! Reads a node's file. Every known key is in one table, so that the reference file can be held to it;
//! a key whose feature is absent says so instead of being ignored.

use std::collections::BTreeMap;

use crate::document::{DocumentErrors, Faults, Field, Fields, parse as parse_tree};
use crate::ids::{Endpoint, NodeId, Segment};
use crate::spec::{EXECUTORS, Resources};
use crate::units::{CpuMillis, MemoryMib, Millis};

use super::{
    Address, Arbiter, Config, JoinConfig, LogConfig, LogLevel, ResourceConfig, Secret, SnapshotConfig,
    addresses_of, check_host,
};

const MAX_CPU_MILLIS: u32 = 1_024_000;
const MAX_MEMORY_MIB: u64 = 16 * 1024 * 1024;
const MAX_PATH_BYTES: usize = 4_096;
const DAY: Millis = Millis(86_400_000);

/// Keys that hold a value of their own.
const PLAIN: [&str; 6] = ["node_id", "bind_addr", "data_dir", "bootstrap", "grpc_port", "http_port"];
/// Keys that hold lists or free mappings.
const LISTS: [&str; 2] = ["addresses", "labels"];
/// Keys that hold keys.
const SECTIONS: [(&str, &[&str]); 14] = [
    ("join", &["addresses", "token"]),
    ("heartbeat", &["interval", "timeout"]),
    ("timing", &["profile", "kill_margin", "clock_drift", "raft_heartbeat", "election_min", "election_max"]),
    ("raft", &["heartbeat_timeout", "election_timeout", "snapshot_interval", "snapshot_entries"]),
    ("service", &["executor_type", "default_priority"]),
    ("split_brain", &["enable", "role", "weight", "autonomous_shutdown", "arbiters"]),
    ("fencing", &["auto", "delay", "methods"]),
    ("evidence", &["silence"]),
    ("guard", &["reset"]),
    ("stop", &["max_grace"]),
    ("kv", &["quota_mib", "max_value_kib"]),
    ("resources", &["cpu", "memory_mib", "reserved_cpu", "reserved_memory_mib"]),
    ("log", &["level", "file"]),
    ("plugin", &["enable"]),
];

/// Every key, dotted.
pub fn keys() -> Vec<String> {
    let plain = PLAIN.iter().chain(&LISTS).map(|key| (*key).to_owned());
    let nested =
        SECTIONS.iter().flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")));
    plain.chain(nested).collect()
}

/// Reads the text of a node's file.
pub fn parse(text: &str) -> Result<Config, DocumentErrors> {
    let faults = Faults::default();
    let documents = parse_tree(text, &faults);
    let config = match documents.as_slice() {
        [] => {
            faults.push(nothing_said());
            None
        }
        [first, rest @ ..] => {
            if let Some(second) = rest.first() {
                Field::root(second, &faults).fail::<()>("a second document begins here", "keep one");
            }
            let root = Field::root(first, &faults);
            if root.is_null() {
                faults.push(nothing_said());
                None
            } else {
                File::open(&root).and_then(|file| file.read())
            }
        }
    };
    faults.result(config)
}

fn nothing_said() -> crate::document::DocumentError {
    crate::document::DocumentError {
        line: 1,
        column: 1,
        field: "node_id".to_owned(),
        message: "the file says nothing".to_owned(),
        remedy: "write at least node_id: followed by a name such as n1".to_owned(),
    }
}

/// The file with its sections opened.
pub(super) struct File<'a> {
    pub(super) top: Fields<'a>,
    sections: BTreeMap<&'static str, Fields<'a>>,
}

impl<'a> File<'a> {
    fn open(root: &Field<'a>) -> Option<Self> {
        let known: Vec<&str> =
            PLAIN.into_iter().chain(LISTS).chain(SECTIONS.iter().map(|(section, _)| *section)).collect();
        let top = root.fields(&known)?;
        let open =
            |(section, keys): &(&'static str, &[&str])| Some((*section, top.get(section)?.fields(keys)?));
        let sections = SECTIONS.iter().filter_map(open).collect();
        Some(Self { top, sections })
    }

    /// The value of a dotted key.
    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        match key.split_once('.') {
            Some((section, key)) => self.sections.get(section)?.get(key),
            None => self.top.get(key),
        }
    }

    fn read(&self) -> Option<Config> {
        let node = match self.get("node_id") {
            Some(field) => field.parsed(256, "write a name such as n1", str::parse::<NodeId>),
            None => self.top.missing("node_id", "write node_id: followed by a name such as n1"),
        };
        // A stand-in where the name was refused, so that the rest of the file is still judged.
        let standard = Config::new(node.or_else(|| NodeId::new("unnamed").ok())?);
        self.refuse_absent();
        let bind = self.address("bind_addr", standard.bind);
        let grpc_port = self.port("grpc_port", standard.grpc_port);
        let http_port = self.port("http_port", standard.http_port);
        self.check_ports(&bind, grpc_port, http_port);
        let (witness, weight) = self.role(standard.weight);
        let (settings, given) = self.settings();
        Some(Config {
            node: standard.node,
            addresses: self.addresses().unwrap_or_else(|| addresses_of(&bind)),
            bind,
            grpc_port,
            http_port,
            data_dir: self.path("data_dir"),
            bootstrap: self.get("bootstrap").and_then(|field| field.flag()).unwrap_or(standard.bootstrap),
            join: self.join(),
            labels: self.labels(),
            witness,
            weight,
            resources: self.resources(),
            default_executor: self
                .get("service.executor_type")
                .and_then(|field| field.word(&EXECUTORS.map(|name| (name, name))))
                .map_or(standard.default_executor, str::to_owned),
            fencing: self.fencing().unwrap_or_default(),
            silence_counts: self.switch("evidence.silence", standard.silence_counts),
            reset_host: self.switch("guard.reset", standard.reset_host),
            arbiters: self.arbiters(),
            snapshot: self.snapshot(standard.snapshot),
            log: self.log(standard.log),
            settings,
            given,
        })
    }

    /// Keys that ask for what this build does not have.
    fn refuse_absent(&self) {
        if let Some(field) = self.get("plugin.enable")
            && field.flag() == Some(true)
        {
            field.fail::<()>("plugins are not in this build", "write plugin: {enable: false}, or remove it");
        }
        if let Some(field) = self.get("split_brain.enable")
            && field.flag() == Some(false)
        {
            let remedy = "remove the key; a service that may run twice is one with exclusive: false";
            field.fail::<()>("the protection against a split brain cannot be switched off", remedy);
        }
    }

    fn address(&self, key: &str, standard: Address) -> Address {
        let remedy = "write HOST:PORT, such as 127.0.0.1:7000";
        self.get(key).and_then(|field| field.parsed(512, remedy, str::parse)).unwrap_or(standard)
    }

    fn port(&self, key: &str, standard: u16) -> u16 {
        let given = self.get(key).and_then(|field| field.whole(0..=65_535));
        given.and_then(|port| u16::try_from(port).ok()).unwrap_or(standard)
    }

    fn check_ports(&self, bind: &Address, grpc_port: u16, http_port: u16) {
        let named = [("bind_addr", bind.port), ("grpc_port", grpc_port), ("http_port", http_port)];
        for (at, (key, port)) in named.iter().enumerate().filter(|(_, (_, port))| *port != 0) {
            if let Some((other, _)) = named[..at].iter().find(|(_, other)| other == port) {
                let message = format!("the port {port} is taken by {other} already");
                let field = self.get(key).or_else(|| self.get(other));
                field
                    .as_ref()
                    .unwrap_or(self.top.whole())
                    .fail::<()>(message, format!("give {key} another port"));
            }
        }
    }

    fn addresses(&self) -> Option<Vec<Endpoint>> {
        let remedy = "name an address or a host that others can resolve, without a port";
        let endpoint = |item: &Field<'_>| {
            let map = item.fields(&["segment", "host", "port"])?;
            let segment = match map.get("segment") {
                Some(field) => field.parsed(256, "write a name such as main", str::parse::<Segment>),
                None => map.missing("segment", "write segment: main"),
            };
            let host = match map.get("host") {
                Some(field) => field.parsed(512, remedy, |text| match check_host(text) {
                    Ok(()) if !["0.0.0.0", "::"].contains(&text) => Ok(text.to_owned()),
                    _ => Err(format!("{text:?} is not a host to dial")),
                }),
                None => map.missing("host", remedy),
            };
            let port = match map.get("port") {
                Some(field) => field.whole(1..=65_535),
                None => map.missing("port", "write port: 7000"),
            };
            Some(Endpoint { segment: segment?, host: host?, port: u16::try_from(port?).ok()? })
        };
        let field = self.get("addresses")?;
        let endpoints: Vec<Endpoint> = field.items(16)?.iter().filter_map(endpoint).collect();
        for (at, one) in endpoints.iter().enumerate() {
            if endpoints[..at].iter().any(|other| other.segment == one.segment) {
                field.fail::<()>(
                    format!("the segment {} is named twice", one.segment),
                    "give one address a segment",
                );
            }
        }
        (!endpoints.is_empty()).then_some(endpoints)
    }

    fn path(&self, key: &str) -> Option<String> {
        let field = self.get(key)?;
        let path = field.text(MAX_PATH_BYTES)?;
        if path.is_empty() {
            field.fail("the path is empty", "name a path or remove the key")
        } else {
            Some(path)
        }
    }

    fn join(&self) -> JoinConfig {
        let remedy = "write HOST:PORT of a node of the cluster, such as 10.0.0.1:7000";
        let addresses = self.get("join.addresses").and_then(|field| field.items(64)).unwrap_or_default();
        let addresses = addresses.iter().filter_map(|item| {
            let address: Address = item.parsed(512, remedy, str::parse)?;
            if address.port == 0 { item.fail("the port 0 cannot be dialled", remedy) } else { Some(address) }
        });
        let token = self.get("join.token").and_then(|field| {
            let token = field.text(4_096)?;
            let good = !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
            let remedy = "copy what quorate join-token printed, on one line";
            if good { Some(Secret(token)) } else { field.fail("this is not a join token", remedy) }
        });
        JoinConfig { addresses: addresses.collect(), token }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let pairs = self.get("labels").and_then(|field| field.pairs(64)).unwrap_or_default();
        let label = |(key, value): &(&str, Field<'_>)| {
            let named = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
            if key.is_empty() || key.len() > 256 || *key == "node" || !key.chars().all(named) {
                return value.fail(
                    "this cannot be a node's label",
                    "use a-z, 0-9, '-', '.', '_' and '/'; node is taken",
                );
            }
            Some(((*key).to_owned(), value.text_or_empty(256)?))
        };
        pairs.iter().filter_map(label).collect()
    }

    /// Witness or not, and how heavy; pulsar's primary and secondary are weights.
    fn role(&self, standard: u32) -> (bool, u32) {
        let words = [
            ("member", (false, standard)),
            ("witness", (true, 0)),
            ("primary", (false, 2)),
            ("secondary", (false, 1)),
        ];
        let (witness, by_role) =
            self.get("split_brain.role").and_then(|field| field.word(&words)).unwrap_or((false, standard));
        let weight = self.get("split_brain.weight").and_then(|field| {
            let weight = field.whole(0..=1_000)?;
            if witness && weight > 0 {
                field.fail("a witness never leads", "remove its weight")
            } else {
                Some(weight)
            }
        });
        (witness, weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(by_role))
    }

    fn resources(&self) -> ResourceConfig {
        let cpu = |key| Some(CpuMillis(self.get(key)?.thousandths(0..=MAX_CPU_MILLIS)?));
        let memory = |key| Some(MemoryMib(self.get(key)?.whole(0..=MAX_MEMORY_MIB)?));
        ResourceConfig {
            cpu: cpu("resources.cpu"),
            memory: memory("resources.memory_mib"),
            reserved: Resources {
                cpu: cpu("resources.reserved_cpu").unwrap_or_default(),
                memory: memory("resources.reserved_memory_mib").unwrap_or_default(),
            },
        }
    }

    fn arbiters(&self) -> Vec<Arbiter> {
        let remedy = "write {name: gateway, tcp: 10.0.0.1:22}";
        let arbiter = |item: &Field<'_>| {
            let map = item.fields(&["name", "tcp"])?;
            let name = match map.get("name") {
                // A name is written as one of a segment is.
                Some(field) => field.parsed(256, "write a name such as gateway", str::parse::<Segment>),
                None => map.missing("name", remedy),
            };
            let tcp: Option<Address> = match map.get("tcp") {
                Some(field) => field.parsed(512, "write HOST:PORT, such as 10.0.0.1:22", str::parse),
                None => map.missing("tcp", remedy),
            };
            let (name, tcp) = (name?.to_string(), tcp?);
            if tcp.port == 0 {
                item.fail("the port 0 cannot be dialled", remedy)
            } else {
                Some(Arbiter { name, tcp })
            }
        };
        let Some(field) = self.get("split_brain.arbiters") else { return Vec::new() };
        let arbiters: Vec<Arbiter> = field.items(8).unwrap_or_default().iter().filter_map(arbiter).collect();
        for (at, one) in arbiters.iter().enumerate() {
            if arbiters[..at].iter().any(|other| other.name == one.name) {
                field.fail::<()>(
                    format!("the arbiter {} is named twice", one.name),
                    "give each a name of its own",
                );
            }
        }
        arbiters
    }

    fn switch(&self, key: &str, standard: bool) -> bool {
        let words = [("on", true), ("off", false), ("true", true), ("false", false)];
        self.get(key).and_then(|field| field.word(&words)).unwrap_or(standard)
    }

    fn snapshot(&self, standard: SnapshotConfig) -> SnapshotConfig {
        let interval = self.get("raft.snapshot_interval").and_then(|field| field.length(Millis(1_000)..=DAY));
        let entries = self.get("raft.snapshot_entries").and_then(|field| field.whole(100..=10_000_000));
        SnapshotConfig {
            interval: interval.unwrap_or(standard.interval),
            entries: entries.unwrap_or(standard.entries),
        }
    }

    fn log(&self, standard: LogConfig) -> LogConfig {
        let level = self.get("log.level").and_then(|field| field.word(&LogLevel::ALL));
        LogConfig { level: level.unwrap_or(standard.level), file: self.path("log.file").or(standard.file) }
    }
}

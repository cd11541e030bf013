//! What a node's file must give and what it must refuse; the files that come with the project included.

use std::collections::BTreeSet;

use super::*;
use crate::document::{Entry, Faults, Node, Value, parse as parse_tree};
use crate::fence::{FenceAction, FenceDevice, FenceMethod, GuestEngine};
use crate::settings::{NAMES, TimingProfile};
use crate::spec;

const REFERENCE: &str = include_str!("../../../configs/reference.yaml");
const NODES: [&str; 3] = [
    include_str!("../../../configs/node1.yaml"),
    include_str!("../../../configs/node2.yaml"),
    include_str!("../../../configs/node3.yaml"),
];
const PULSAR: &str = include_str!("../../../configs/pulsar-example.yaml");
const SERVICES: [(&str, usize); 6] = [
    (include_str!("../../../configs/services/web.yaml"), 1),
    (include_str!("../../../configs/services/database.yaml"), 1),
    (include_str!("../../../configs/services/batch.yaml"), 2),
    (include_str!("../../../configs/services/container.yaml"), 1),
    (include_str!("../../../configs/services/unit.yaml"), 2),
    (include_str!("../../../configs/services/java.yaml"), 1),
];

fn read(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn with(lines: &str) -> Config {
    read(&format!("node_id: n1\n{lines}\n"))
}

/// The only error of the file.
fn error(lines: &str) -> ConfigError {
    let mut errors = parse(&format!("node_id: n1\n{lines}\n")).expect_err(lines).0;
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

fn paths(node: &Node, path: &str, found: &mut BTreeSet<String>) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            for Entry { key, node, .. } in entries {
                paths(node, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, found);
            }
        }
        _ => _ = found.insert(path.to_owned()),
    }
}

#[test]
fn the_reference_names_every_key_and_gives_the_defaults() {
    let faults = Faults::default();
    let mut named = BTreeSet::new();
    paths(&parse_tree(REFERENCE, &faults)[0], "", &mut named);
    assert_eq!(named, keys().into_iter().collect(), "the reference and the code know different keys");
    let reference = read(REFERENCE);
    let defaults = Config::new(NodeId::new("n1").unwrap());
    assert_eq!(Config { given: BTreeSet::new(), ..reference.clone() }, defaults);
    assert_eq!(reference.given.len(), NAMES.len(), "{:?}", reference.given);
}

#[test]
fn the_reference_shows_values_that_are_taken() {
    let shown = with(
        "addresses: [{segment: main, host: 10.0.0.1, port: 7000}]\nlabels: {zone: a, disk: ssd}\n\
         fencing: {methods: [[{name: ipmi, agent: fence_ipmilan, parameters: {ip: 10.0.0.9, username: admin, \
         lanplus: 1}, password_file: /etc/quorate/bmc-n1, action: off, timeout: 3s, attempts: 2, delay: 0s}], \
         [{exec: [/usr/local/bin/fence, n1]}], [{virsh: n1, connect: qemu+ssh://host/system, action: reboot}]]}",
    );
    let texts = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let ipmi = FenceDevice::Agent {
        agent: "fence_ipmilan".to_owned(),
        parameters: texts(&[("ip", "10.0.0.9"), ("lanplus", "1"), ("username", "admin")]),
        password_file: Some("/etc/quorate/bmc-n1".to_owned()),
    };
    let exec = FenceDevice::Exec {
        command: vec!["/usr/local/bin/fence".to_owned(), "n1".to_owned()],
        parameters: BTreeMap::new(),
        password_file: None,
    };
    let guest = FenceDevice::Guest {
        engine: GuestEngine::Virsh,
        guest: "n1".to_owned(),
        connect: Some("qemu+ssh://host/system".to_owned()),
    };
    let levels = [
        [FenceMethod { name: "ipmi".to_owned(), ..FenceMethod::of(ipmi) }],
        [FenceMethod::of(exec.clone())],
        [FenceMethod { action: FenceAction::Reboot, ..FenceMethod::of(guest) }],
    ];
    assert_eq!(shown.fencing, levels);
    assert_eq!(
        with("fencing: {methods: [{exec: [/usr/local/bin/fence, n1]}]}").fencing,
        [[FenceMethod::of(exec)]]
    );
    assert_eq!(shown.addresses[0].to_string(), "main=10.0.0.1:7000");
    for comment in ["addresses:", "labels: {}", "methods: []"] {
        assert!(REFERENCE.contains(comment), "{comment} is not in the reference");
    }
}

#[test]
fn the_example_nodes_can_run_beside_one_another() {
    let nodes = NODES.map(read);
    let mut ports = BTreeSet::new();
    for node in &nodes {
        assert_eq!(node.bind.host, "127.0.0.1");
        assert!([node.bind.port, node.grpc_port, node.http_port].iter().all(|port| ports.insert(*port)));
        assert_eq!(node.settings, ClusterSettings::of(TimingProfile::Lan));
    }
    assert_eq!(nodes.iter().filter(|node| node.bootstrap).count(), 1);
    assert_eq!(nodes.iter().map(|node| &node.data_dir).collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn the_example_services_are_taken() {
    for (text, count) in SERVICES {
        let services = spec::parse(text, &SpecDefaults::default());
        assert_eq!(services.unwrap_or_else(|errors| panic!("{errors}")).len(), count);
    }
}

#[test]
fn pulsars_file_is_taken_as_it_stands() {
    let config = read(PULSAR);
    assert_eq!((config.bind.to_string().as_str(), config.bootstrap), ("0.0.0.0:7000", true));
    assert_eq!(config.addresses, [], "nobody can dial 0.0.0.0");
    let raft = config.settings.raft;
    assert_eq!(
        (raft.heartbeat, raft.election_min, raft.election_max),
        (Millis(100), Millis(1_000), Millis(2_000))
    );
    assert_eq!((config.snapshot.interval, config.weight), (Millis(120_000), 2));
}

#[test]
fn single_timings_change_a_profile_and_unsafe_ones_are_refused_by_name() {
    let config = with("timing: {profile: fast, kill_margin: 300ms}\nheartbeat: {timeout: 2s}");
    assert_eq!(
        (config.settings.terms.kill_margin, config.settings.terms.lease),
        (Millis(300), Millis(2_000))
    );
    assert_eq!(config.settings.terms.heartbeat, Millis(100));
    assert!(error("heartbeat: {timeout: 2s}").message.contains("under three times heartbeat.interval"));
    assert!(
        error("timing: {profile: lan, election_max: 600ms}").message.contains("longest election timeout")
    );
    assert!(
        error("timing: {election_min: 200ms}\nraft: {heartbeat_timeout: 1s}").message.contains("another way")
    );
    let unsafe_raft = error("raft: {heartbeat_timeout: 10s, election_timeout: 10s}");
    assert_eq!((unsafe_raft.line, unsafe_raft.field.as_str()), (2, "raft"));
}

#[test]
fn what_the_file_gives_differently_is_told_and_nothing_else() {
    let profile = with("timing: {profile: default}").differing(&ClusterSettings::of(TimingProfile::Lan));
    assert!(profile.iter().any(|one| one.name == "heartbeat.timeout" && one.cluster == "1s"), "{profile:?}");
    let config = with("fencing: {auto: off}\nstop: {max_grace: 2m}");
    let differing = config.differing(&ClusterSettings::of(TimingProfile::Wan));
    assert_eq!(
        differing,
        [SettingDifference { name: "fencing.auto", file: "off".to_owned(), cluster: "on".to_owned() }]
    );
}

#[test]
fn wrong_keys_and_values_are_refused_where_they_stand() {
    let cases = [
        ("bind_adr: x", "bind_adr", "unknown", "did you mean bind_addr?"),
        ("heartbeat: {intervall: 1s}", "heartbeat.intervall", "unknown", "did you mean interval?"),
        ("bind_addr: 7000", "bind_addr", "not an address", "HOST:PORT"),
        ("bind_addr: '::1:7000'", "bind_addr", "not an address", "HOST:PORT"),
        ("grpc_port: 70000", "grpc_port", "whole number", "65535"),
        ("grpc_port: 7000", "grpc_port", "taken by bind_addr", "another port"),
        ("bootstrap: yes", "bootstrap", "true or false", "write"),
        ("plugin: {enable: true}", "plugin.enable", "not in this build", "enable: false"),
        ("split_brain: {enable: false}", "split_brain.enable", "cannot be switched off", "exclusive: false"),
        ("split_brain: {role: boss}", "split_brain.role", "not a value", "member"),
        ("split_brain: {role: witness, weight: 3}", "split_brain.weight", "never leads", "remove"),
        (
            "split_brain: {autonomous_shutdown: maybe}",
            "split_brain.autonomous_shutdown",
            "not a value",
            "on, off",
        ),
        ("service: {executor_type: dokcer}", "service.executor_type", "not a value", "did you mean docker"),
        ("service: {default_priority: urgent}", "service.default_priority", "not a value", "critical"),
        ("heartbeat: {interval: 1000}", "heartbeat.interval", "not a value", "length of time"),
        ("join: {addresses: ['h:0']}", "join.addresses[0]", "cannot be dialled", "HOST:PORT"),
        ("join: {token: 'a b'}", "join.token", "not a join token", "quorate join-token"),
        (
            "addresses: [{segment: a, host: 0.0.0.0, port: 1}]",
            "addresses[0].host",
            "not a host to dial",
            "address",
        ),
        ("labels: {node: x}", "labels.node", "label", "node is taken"),
        ("fencing: {methods: [{name: x}]}", "fencing.methods[0]", "names no device", "fence_ipmilan"),
        ("fencing: {methods: [{exec: [a], docker: b}]}", "fencing.methods[0]", "two devices", "write"),
        ("fencing: {methods: [[{exec: []}]]}", "fencing.methods[0][0].exec", "no program", "PATH"),
        ("fencing: {methods: [{exec: [./a]}]}", "fencing.methods[0].exec", "no program", "whole path"),
        ("fencing: {methods: [[]]}", "fencing.methods[0]", "no method", "give it one"),
        ("fencing: {methods: [{agent: ipmilan}]}", "fencing.methods[0].agent", "not a fence agent", "fence_"),
        (
            "fencing: {methods: [{agent: fence_x, parameters: {passwd: hush}}]}",
            "fencing.methods[0].parameters.passwd",
            "secret does not belong here",
            "password_file",
        ),
        (
            "fencing: {methods: [{agent: fence_x, parameters: {action: on}}]}",
            "fencing.methods[0].parameters.action",
            "set for each call",
            "remove",
        ),
        (
            "fencing: {methods: [{agent: fence_x, password_file: secret}]}",
            "fencing.methods[0].password_file",
            "no whole path",
            "/etc",
        ),
        (
            "fencing: {methods: [{docker: n1, parameters: {}}]}",
            "fencing.methods[0].parameters",
            "told only the guest",
            "remove",
        ),
        ("fencing: {methods: [{docker: --all}]}", "fencing.methods[0].docker", "cannot be passed", "engine"),
        (
            "fencing: {methods: [{docker: n1, action: cycle}]}",
            "fencing.methods[0].action",
            "not a value",
            "reboot",
        ),
        ("resources: {cpu: many}", "resources.cpu", "a number", "write"),
        ("log: {level: loud}", "log.level", "not a value", "info"),
        ("raft: {snapshot_interval: 1ms}", "raft.snapshot_interval", "out of range", "1s"),
        ("kv: {quota_mib: 0}", "kv.quota_mib", "not a value", "whole number"),
    ];
    for (line, field, message, remedy) in cases {
        let error = error(line);
        assert_eq!((error.line, error.field.as_str()), (2, field), "{error}");
        assert!(error.message.contains(message) && error.remedy.contains(remedy), "{error}");
    }
}

#[test]
fn a_file_that_says_nothing_or_too_much_is_refused() {
    for nothing in ["", "# only words\n", "---\n"] {
        assert!(parse(nothing).unwrap_err().0[0].remedy.contains("node_id"));
    }
    assert!(parse("bind_addr: 127.0.0.1:1").unwrap_err().0[0].message.contains("node_id is missing"));
    assert!(error("---\nnode_id: n2").message.contains("second document"));
    let errors = parse("node_id: a/b\ngrpc_port: x\n").unwrap_err().0;
    assert_eq!(errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), ["node_id", "grpc_port"]);
}

#[test]
fn a_port_alone_is_loopback_and_tokens_are_never_printed() {
    assert_eq!(with("bind_addr: ':7000'").bind.to_string(), "127.0.0.1:7000");
    assert_eq!(with("bind_addr: '[::1]:7000'").addresses[0].to_string(), "main=[::1]:7000");
    let joining = with("join: {addresses: [10.0.0.1:7000, 'host.example:7000'], token: tell-nobody}");
    assert_eq!(joining.join.addresses.len(), 2);
    assert!(!format!("{joining:?}").contains("tell-nobody"));
}

#[test]
fn what_is_kept_back_is_not_given_away() {
    let measured = Resources { cpu: CpuMillis(4_000), memory: MemoryMib(8_192) };
    let config = with("resources: {memory_mib: 4096, reserved_cpu: 0.5, reserved_memory_mib: 5000}");
    let capacity = config.resources.capacity(measured);
    assert_eq!(capacity, Resources { cpu: CpuMillis(3_500), memory: MemoryMib(0) });
}

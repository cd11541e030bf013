//! What the demo writes before it starts nodes: their files, with free ports and ways to one another, and the
//! services it deploys. Starts nothing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use super::relay::{Relay, Signpost, Stop};
use crate::host::free_ports;

/// A node as the demo configures it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodePlan {
    /// Its name.
    pub name: String,
    /// Its zone, so that placement has something to spread over.
    pub zone: char,
    /// Node to node, API, HTTP.
    pub ports: [u16; 3],
    /// Where others reach it, on each segment; empty if only by its bind address.
    pub addresses: Vec<(&'static str, SocketAddr)>,
    /// What it dials instead of which published address.
    pub detours: BTreeMap<String, String>,
}

/// The networks that join the nodes of a demo.
pub(super) const SEGMENTS: [&str; 2] = ["a", "b"];

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Switch {
    /// It is done.
    On,
    /// It is not.
    Off,
}

/// What the nodes may do by themselves to one that is lost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fencing {
    /// As in a node's file.
    #[serde(default)]
    pub auto: Option<Switch>,
    /// As in a node's file.
    #[serde(default)]
    pub delay: Option<String>,
}

impl NodePlan {
    /// Where another node reaches it.
    pub(super) fn bind(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// As the relay knows it.
    pub(super) fn stop(&self) -> Stop {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Stop { name: self.name.clone(), bind: at(self.ports[0]), api: at(self.ports[1]) }
    }

    /// Its API.
    pub(super) fn api(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    /// Its health over HTTP.
    pub(super) fn http(&self) -> String {
        format!("127.0.0.1:{}", self.ports[2])
    }
}

/// So many nodes, `n1` onwards, and `extra` ports for services.
pub(super) fn plan(count: u8, extra: usize) -> anyhow::Result<(Vec<NodePlan>, Vec<u16>)> {
    let mut ports = free_ports(usize::from(count) * 3 + extra)?;
    let nodes = (0..count)
        .map(|number| {
            let ports = std::array::from_fn(|_| ports.pop().unwrap_or_default());
            NodePlan {
                name: format!("n{}", number + 1),
                zone: char::from(b'a' + number % 3),
                ports,
                addresses: Vec::new(),
                detours: BTreeMap::new(),
            }
        })
        .collect();
    Ok((nodes, ports))
}

/// Sends the nodes over a relay.
pub(super) fn route(nodes: &mut [NodePlan], relay: &Relay) {
    for node in nodes {
        let Signpost { addresses, detours } = relay.signpost(&node.name);
        node.addresses = SEGMENTS.into_iter().zip(addresses).collect();
        node.detours = detours;
    }
}

/// A node's file. The first begins the cluster, the others come by its token.
pub(super) fn node_yaml(
    dir: &Path,
    node: &NodePlan,
    profile: &str,
    join: Option<(&str, &str)>,
    fencing: &Fencing,
) -> anyhow::Result<String> {
    let program = std::env::current_exe()?;
    let mut text = format!(
        "# Written by `quorate demo`.\n\
         node_id: {}\nbind_addr: {}\ngrpc_port: {}\nhttp_port: {}\ndata_dir: {}\nlabels: {{zone: {}}}\n\
         timing: {{profile: {profile}}}\n",
        node.name,
        node.bind(),
        node.ports[1],
        node.ports[2],
        quoted(&super::place::node_dir(dir, &node.name))?,
        node.zone,
    );
    if !node.addresses.is_empty() {
        text.push_str("addresses:\n");
    }
    for (segment, address) in &node.addresses {
        let (host, port) = (address.ip(), address.port());
        writeln!(text, "  - {{segment: {segment}, host: {host}, port: {port}}}")?;
    }
    match join {
        None => text.push_str("bootstrap: true\n"),
        Some((address, token)) => {
            writeln!(text, "join: {{addresses: [\"{address}\"], token: {}}}", serde_json::to_string(token)?)?;
        }
    }
    let command = [quoted(&program)?, "demo".into(), "fence-agent".into(), "--dir".into(), quoted(dir)?];
    writeln!(
        text,
        "fencing:\n  methods: [[{{name: demo, exec: [{}, --node, {}], timeout: 10s, attempts: 5}}]]",
        command.join(", "),
        node.name
    )?;
    if let Some(auto) = fencing.auto {
        writeln!(text, "  auto: {}", if auto == Switch::On { "on" } else { "off" })?;
    }
    if let Some(delay) = &fencing.delay {
        writeln!(text, "  delay: {}", serde_json::to_string(delay)?)?;
    }
    Ok(text)
}

/// A JSON text is a YAML text, whatever is in the path.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text =
        path.to_str().with_context(|| format!("{} is not UTF-8; choose another --dir", path.display()))?;
    Ok(serde_json::to_string(text)?)
}

/// How many ports [`services`] uses.
pub(super) const SERVICE_PORTS: usize = 2;

/// The services of the demo, one of each priority, as YAML documents.
pub(super) fn services(ports: &[u16]) -> anyhow::Result<String> {
    let [db, worker, ..] = ports else { anyhow::bail!("the demo's services need {SERVICE_PORTS} ports") };
    let program = quoted(&std::env::current_exe()?)?;
    Ok(format!(
        r#"name: db
priority: critical
replicas: 1
exclusive: true
spec: {{command: [{program}, workload, --http, "127.0.0.1:{db}"]}}
state: {{dir: data}}
resources: {{cpu: 0.2, memory_mib: 64}}
health: {{http: {{port: {db}, path: /healthz}}}}
stop: {{grace: 3s}}
---
name: web
priority: high
replicas: 2
exclusive: false
spec: {{command: [{program}, workload, --http, "127.0.0.1:0"]}}
resources: {{cpu: 0.1, memory_mib: 32}}
placement: {{spread: prefer}}
health: {{exec: {{command: [{program}, workload, --check]}}, interval: 3s, timeout: 2s}}
stop: {{grace: 3s}}
---
name: worker
priority: normal
replicas: 1
exclusive: true
spec: {{command: [{program}, workload, --http, "127.0.0.1:{worker}"]}}
state: {{dir: data}}
resources: {{cpu: 0.1, memory_mib: 32}}
health: {{http: {{port: {worker}, path: /healthz}}}}
stop: {{grace: 3s}}
---
name: batch
priority: low
replicas: 1
exclusive: false
spec: {{command: [{program}, workload]}}
resources: {{cpu: 0.1, memory_mib: 32}}
stop: {{grace: 1s}}
"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::spec::{SpecDefaults, parse};

    #[test]
    fn the_files_of_the_nodes_are_good_ones() {
        let (mut nodes, mut extra) = plan(4, 2 + Relay::ports(4, SEGMENTS.len())).unwrap();
        let mut ports: Vec<u16> = nodes.iter().flat_map(|node| node.ports).chain(extra.clone()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 14 + 4 + 4 * 3 * 3);
        let relay = extra.split_off(2);
        let stops: Vec<Stop> = nodes.iter().map(NodePlan::stop).collect();
        let relay = Relay::open(&stops, &SEGMENTS, &relay).unwrap();
        route(&mut nodes, &relay);
        let dir = Path::new("/tmp/a demo: \"odd\"");
        for (node, join) in nodes.iter().zip([None, Some(("127.0.0.1:1", "q1/c/s/a/00")), None, None]) {
            let fencing = Fencing { auto: Some(Switch::Off), delay: Some("20s".to_owned()) };
            let text = node_yaml(dir, node, "lan", join, &fencing).unwrap();
            let config =
                quorate_core::config::parse(&text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
            assert_eq!(config.node.as_str(), node.name);
            assert_eq!(config.bootstrap, join.is_none());
            assert_eq!(config.fencing.len(), 1);
            assert_eq!(config.settings.fencing_delay.0, 20_000);
            assert_eq!(config.addresses.len(), 2);
        }
    }

    #[test]
    fn the_services_are_one_of_each_priority() {
        let text = services(&[1, 2]).unwrap();
        let specs = parse(&text, &SpecDefaults::default()).unwrap_or_else(|errors| panic!("{errors}"));
        let mut priorities: Vec<_> = specs.iter().map(|spec| spec.priority).collect();
        priorities.dedup();
        assert_eq!(priorities.len(), 4);
        assert!(services(&[1]).is_err());
    }
}

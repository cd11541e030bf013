//! Reads what a container needs: image, command, ports, mounts, network, limits. Does not know what its
//! engine makes of them.

use std::collections::BTreeMap;

use crate::document::{Field, Fields, shown};
use crate::units::MemoryMib;

use super::image::{self, image};
use super::mounts::mounts;
use super::ports::ports;
use super::process::{LIMIT_KEYS, command, described, environment, limits, optional};
use super::words::{ABSOLUTE_REMEDY, MAX_PATH_BYTES, absolute, is_account, is_engine_name};
use super::{ContainerEngine, ContainerWorkload, Limits, PullPolicy};

const KEYS: [&str; 11] = [
    "image",
    "pull",
    "command",
    "entrypoint",
    "environment",
    "working_dir",
    "user",
    "ports",
    "mounts",
    "network",
    "labels",
];
const MAX_LABELS: usize = 256;
const MAX_LABEL_KEY_BYTES: usize = 256;
const MAX_LABEL_BYTES: usize = 4_096;
/// The largest number of an account or group that engines take.
const MAX_ACCOUNT: u32 = i32::MAX as u32;
/// Docker refuses to make a container with less.
const LEAST_DOCKER_MEMORY: MemoryMib = MemoryMib(6);
/// Labels by which Quorate knows what is its own.
const OWN_LABELS: &str = "quorate.";

pub(super) fn container(map: &Fields<'_>, engine: ContainerEngine) -> Option<ContainerWorkload> {
    let keys = [&KEYS[..], &LIMIT_KEYS].concat();
    let map = described(map, &keys, "write spec: {image: nginx:1.27}")?;
    let image = match map.get("image") {
        Some(field) => field.parsed(image::MAX_BYTES, image::REMEDY, image),
        None => map.missing("image", "write image: nginx:1.27"),
    };
    let pull = map.get("pull").map_or(Some(PullPolicy::default()), |field| {
        field.word(&[
            ("missing", PullPolicy::Missing),
            ("always", PullPolicy::Always),
            ("never", PullPolicy::Never),
        ])
    });
    let command = map.get("command").map_or(Some(Vec::new()), |field| instead(&field));
    let entrypoint = map.get("entrypoint").map_or(Some(Vec::new()), |field| instead(&field));
    let environment = map.get("environment").map_or(Some(BTreeMap::new()), |field| environment(&field));
    let working_dir =
        optional(map.get("working_dir"), |field| field.parsed(MAX_PATH_BYTES, ABSOLUTE_REMEDY, absolute));
    let user = optional(map.get("user"), |field| {
        field.parsed(128, "write a name or number of the image's own, such as app, 1000 or 1000:1000", user)
    });
    let network = optional(map.get("network"), |field| {
        field.parsed(256, "name a network of the engine, or host, none or bridge", network)
    });
    let ports = map.get("ports").map_or(Some(Vec::new()), |field| {
        let given = ports(&field);
        published(&field, network.as_ref().and_then(Option::as_deref)).and(given)
    });
    let mounts = map.get("mounts").map_or(Some(Vec::new()), |field| mounts(&field));
    let labels = map.get("labels").map_or(Some(BTreeMap::new()), |field| labels(&field));
    let limits = limits(&map).and_then(|limits| enough(&map, engine, limits));
    Some(ContainerWorkload {
        engine,
        image: image?,
        pull: pull?,
        command: command?,
        entrypoint: entrypoint?,
        environment: environment?,
        working_dir: working_dir?,
        user: user?,
        ports: ports?,
        mounts: mounts?,
        network: network?,
        labels: labels?,
        limits: limits?,
    })
}

/// What takes the place of the image's own command or entry point.
fn instead(field: &Field<'_>) -> Option<Vec<String>> {
    if field.is_list() && field.items(usize::MAX)?.is_empty() {
        return field.fail("the list is empty", "name a program, or remove the key to keep the image's own");
    }
    command(field)
}

/// `NAME` or `NUMBER`, with `:GROUP` behind it or not.
fn user(text: &str) -> Result<String, String> {
    let good = |part: &str| {
        let number = part.bytes().all(|b| b.is_ascii_digit());
        is_account(part) && (!number || part.parse::<u32>().is_ok_and(|number| number <= MAX_ACCOUNT))
    };
    match text.split_once(':') {
        None if good(text) => Ok(text.to_owned()),
        Some((account, group)) if good(account) && good(group) => Ok(text.to_owned()),
        _ => Err(format!("{} is not an account", shown(text))),
    }
}

fn network(text: &str) -> Result<String, String> {
    if text.starts_with("container:") {
        return Err(
            "another container's network is gone with that container, and may be on another node".into()
        );
    }
    if is_engine_name(text) { Ok(text.to_owned()) } else { Err(format!("{} is not a network", shown(text))) }
}

/// Can ports be published on this network?
fn published(ports: &Field<'_>, network: Option<&str>) -> Option<()> {
    match network {
        Some("host") => ports.fail(
            "with network: host the container uses the ports of its host itself",
            "remove ports, or name another network",
        ),
        Some("none") => {
            ports.fail("with network: none nothing reaches a port", "remove ports, or name another network")
        }
        Some(_) | None => Some(()),
    }
}

fn labels(field: &Field<'_>) -> Option<BTreeMap<String, String>> {
    let mut labels = Some(BTreeMap::new());
    for (key, value) in field.pairs(MAX_LABELS)? {
        let blank = key.chars().any(|c| c.is_control() || c.is_whitespace());
        let text = if key.starts_with(OWN_LABELS) {
            let message = format!("labels beginning with {OWN_LABELS} tell what belongs to Quorate");
            value.fail(message, "rename it")
        } else if key.is_empty() || key.len() > MAX_LABEL_KEY_BYTES || blank {
            value.fail("a label's key has 1 to 256 bytes without blanks", "rename it")
        } else {
            value.text_or_empty(MAX_LABEL_BYTES)
        };
        match (text, &mut labels) {
            (Some(text), Some(labels)) => _ = labels.insert(key.to_owned(), text),
            (None, _) => labels = None,
            (Some(_), None) => {}
        }
    }
    labels
}

/// Is the memory enough for the engine to start anything?
fn enough(map: &Fields<'_>, engine: ContainerEngine, limits: Limits) -> Option<Limits> {
    let least = match engine {
        ContainerEngine::Docker => LEAST_DOCKER_MEMORY,
        ContainerEngine::Podman => MemoryMib(0),
    };
    match (limits.memory, map.get("memory_limit")) {
        (Some(memory), Some(field)) if memory < least => field.fail(
            format!("Docker makes no container with less than {} MiB, and this is {}", least.0, memory.0),
            format!("write memory_limit: {} or more", least.0),
        ),
        _ => Some(limits),
    }
}

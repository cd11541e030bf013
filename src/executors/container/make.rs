//! A run's description as its engine takes it. Pure, but for a look at which disks there are.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding, RestartPolicy,
    RestartPolicyNameEnum, ThrottleDevice,
};
use quorate_core::effect::StartInstance;
use quorate_core::spec::{ContainerEngine, ContainerWorkload, Limits};

use super::access::{Keeps, Reached};
use super::names::{UNENFORCED, labels};
use crate::host::disk_of;
use crate::ports::Place;

/// Where an instance finds its own folder inside of its container.
const FOLDER: &str = "/quorate";
/// Where it finds its state folder.
const STATE: &str = "/quorate/state";

/// What the engine is asked to make.
pub(super) fn body(
    reached: &Reached,
    start: &StartInstance,
    spec: &ContainerWorkload,
    place: &Place,
) -> ContainerCreateBody {
    let limits = spec.limits;
    let disks = if reached.keeps.io { disks(&[&reached.root, &place.folder]) } else { Vec::new() };
    let keeps = Keeps { io: !disks.is_empty(), ..reached.keeps };
    let mut all_labels = labels(&place.owner, start);
    let left_out = unenforced(&limits, keeps);
    if !left_out.is_empty() {
        all_labels.insert(UNENFORCED.to_owned(), left_out.join(","));
    }
    all_labels.extend(spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    let grace = i64::try_from(start.spec.stop.grace.0.div_ceil(1_000)).unwrap_or(i64::MAX);
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: filled(&spec.command),
        entrypoint: filled(&spec.entrypoint),
        env: Some(environment(place)),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        labels: Some(all_labels),
        exposed_ports: filled(&spec.ports.iter().map(inside).collect::<Vec<_>>()),
        stop_timeout: Some(grace),
        host_config: Some(HostConfig {
            cgroup_parent: place.group.as_deref().filter(|_| reached.rootless.is_none()).map(|group| {
                let slice = group.rsplit('/').next().unwrap_or(group);
                if reached.slice { slice } else { group }.to_owned()
            }),
            nano_cpus: limits.cpu.map(|cpu| i64::from(cpu.0) * 1_000_000),
            memory: limits.memory.map(|memory| bytes(memory.0)),
            memory_swap: limits.memory.map(|memory| bytes(memory.0)),
            memory_reservation: limits.memory_high.map(|memory| bytes(memory.0)),
            pids_limit: limits.pids.map(i64::from),
            blkio_device_read_bps: limits.io_read.and_then(|rate| throttled(&disks, rate)),
            blkio_device_write_bps: limits.io_write.and_then(|rate| throttled(&disks, rate)),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            port_bindings: bindings(spec),
            mounts: filled(&mounts(spec, place)),
            network_mode: spec.network.clone(),
            log_config: Some(log_config(reached.engine)),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn filled<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn bytes(mib: u64) -> i64 {
    i64::try_from(mib.saturating_mul(1 << 20)).unwrap_or(i64::MAX)
}

/// The host's paths are not those inside.
fn environment(place: &Place) -> Vec<String> {
    let mut all: BTreeMap<&str, &str> =
        place.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    all.insert("QUORATE_INSTANCE_DIR", FOLDER);
    if place.state.is_some() {
        all.insert("QUORATE_STATE_DIR", STATE);
    }
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn inside(port: &quorate_core::spec::PortMapping) -> String {
    format!("{}/{}", port.container, port.transport)
}

fn bindings(spec: &ContainerWorkload) -> Option<HashMap<String, Option<Vec<PortBinding>>>> {
    let mut all: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        let bound = PortBinding { host_ip: port.address.clone(), host_port: Some(port.host.to_string()) };
        all.entry(inside(port)).or_default().get_or_insert_default().push(bound);
    }
    (!all.is_empty()).then_some(all)
}

fn mounts(spec: &ContainerWorkload, place: &Place) -> Vec<Mount> {
    let mount = |source: String, target: &str, read_only: bool| Mount {
        typ: Some(if source.starts_with('/') { MountType::BIND } else { MountType::VOLUME }),
        source: Some(source),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    };
    let state = place.state.iter().map(|state| mount(state.display().to_string(), STATE, false));
    let own = spec.mounts.iter().map(|one| mount(one.source.clone(), &one.target, one.read_only));
    state.chain(own).collect()
}

/// A driver whose output can be read back, and that does not fill the disk.
fn log_config(engine: ContainerEngine) -> HostConfigLogConfig {
    let (kind, kept) = match engine {
        ContainerEngine::Docker => ("json-file", vec![("max-size", "10m"), ("max-file", "3")]),
        ContainerEngine::Podman => ("k8s-file", vec![("max-size", "10m")]),
    };
    let kept = kept.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    HostConfigLogConfig { typ: Some(kind.to_owned()), config: Some(kept.collect()) }
}

/// Limits that the engine does not keep, by their keys.
fn unenforced(limits: &Limits, keeps: Keeps) -> Vec<&'static str> {
    limits
        .named()
        .filter(|name| match *name {
            "cpu_limit" => !keeps.cpu,
            "memory_limit" => !keeps.memory,
            // Engines know reserving memory alone, which slows nobody down.
            "memory_high" => true,
            "pids_limit" => !keeps.pids,
            _ => !keeps.io,
        })
        .collect()
}

/// The disks that these folders lie on, by the paths that engines take.
fn disks(folders: &[&Path]) -> Vec<PathBuf> {
    let of = |folder: &&Path| {
        let number = disk_of(folder)?;
        let name = Path::new("/sys/dev/block").join(number).canonicalize().ok()?;
        Some(Path::new("/dev").join(name.file_name()?)).filter(|device| device.exists())
    };
    let mut all: Vec<PathBuf> = folders.iter().filter_map(of).collect();
    all.dedup();
    all
}

fn throttled(disks: &[PathBuf], rate: u64) -> Option<Vec<ThrottleDevice>> {
    let rate = i64::try_from(rate).unwrap_or(i64::MAX);
    let one = |disk: &PathBuf| ThrottleDevice { path: Some(disk.display().to_string()), rate: Some(rate) };
    filled(&disks.iter().map(one).collect::<Vec<_>>())
}

//! What is run, by kind of executor, as the description's `spec` says it. Does not know how any engine does it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Resources;
use crate::units::{CpuMillis, MemoryMib};

/// What runs, by executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Workload {
    /// A native process.
    Process(ProcessWorkload),
    /// A container.
    Container(ContainerWorkload),
    /// A unit of the host's service manager.
    Unit(UnitWorkload),
    /// A virtual machine.
    Machine(MachineWorkload),
}

/// The name of an executor as the spec has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorKind {
    /// Native processes under the guard.
    Process,
    /// Containers of a Docker engine.
    Docker,
    /// Containers of Podman.
    Podman,
    /// Units of systemd.
    Systemd,
    /// Virtual machines of libvirt.
    Libvirt,
}

impl ExecutorKind {
    /// Every kind, in the order they are shown in.
    pub const ALL: [ExecutorKind; 5] = [
        ExecutorKind::Process,
        ExecutorKind::Docker,
        ExecutorKind::Podman,
        ExecutorKind::Systemd,
        ExecutorKind::Libvirt,
    ];

    /// As the description has it.
    pub fn name(self) -> &'static str {
        match self {
            ExecutorKind::Process => "process",
            ExecutorKind::Docker => "docker",
            ExecutorKind::Podman => "podman",
            ExecutorKind::Systemd => "systemd",
            ExecutorKind::Libvirt => "libvirt",
        }
    }

    /// Can it run a program inside of an instance, and send it a signal?
    pub fn runs_programs(self) -> bool {
        match self {
            ExecutorKind::Process | ExecutorKind::Docker | ExecutorKind::Podman | ExecutorKind::Systemd => {
                true
            }
            ExecutorKind::Libvirt => false,
        }
    }
}

impl fmt::Display for ExecutorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Hard limits on what one instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Processor time.
    pub cpu: Option<CpuMillis>,
    /// Memory, swap included: beyond it the kernel kills.
    pub memory: Option<MemoryMib>,
    /// Memory beyond which the kernel takes back and slows down, but does not kill.
    pub memory_high: Option<MemoryMib>,
    /// Tasks.
    pub pids: Option<u32>,
    /// Bytes read from disks, per second.
    pub io_read: Option<u64>,
    /// Bytes written to disks, per second.
    pub io_write: Option<u64>,
}

impl Limits {
    /// The limits that are set, by the name of their key in the description.
    pub fn named(&self) -> impl Iterator<Item = &'static str> {
        [
            ("cpu_limit", self.cpu.is_some()),
            ("memory_limit", self.memory.is_some()),
            ("memory_high", self.memory_high.is_some()),
            ("pids_limit", self.pids.is_some()),
            ("io_read_limit", self.io_read.is_some()),
            ("io_write_limit", self.io_write.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
    }
}

/// A native process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessWorkload {
    /// Program and arguments; never empty, never through a shell.
    pub command: Vec<String>,
    /// Added to the few variables that Quorate sets.
    pub environment: BTreeMap<String, String>,
    /// Where it runs; the instance's own folder by default.
    pub working_dir: Option<String>,
    /// The account it runs as; the node's own by default.
    pub user: Option<String>,
    /// The port it listens at.
    pub port: Option<u16>,
    /// What it may use.
    pub limits: Limits,
}

/// Which engine runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ContainerEngine {
    /// Docker.
    Docker,
    /// Podman, by the interface that it shares with Docker.
    Podman,
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    /// If the engine has none of that name.
    #[default]
    Missing,
    /// Before every start.
    Always,
    /// Not at all: one that is missing refuses the start.
    Never,
}

/// What carries a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        })
    }
}

/// A port of a container, published on its host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// The address of the host it is published at; all of them if none is named.
    pub address: Option<String>,
    /// The port of the host.
    pub host: u16,
    /// The port inside of the container.
    pub container: u16,
    /// What carries it.
    pub transport: Transport,
}

/// A folder or file of the host, or a volume of the engine, seen inside of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// An absolute path of the host, or the name of a volume.
    pub source: String,
    /// An absolute path inside.
    pub target: String,
    /// May nothing be written?
    pub read_only: bool,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerWorkload {
    /// Which engine runs it.
    pub engine: ContainerEngine,
    /// The image, by name and tag or digest.
    pub image: String,
    /// When the image is fetched.
    pub pull: PullPolicy,
    /// Takes the place of the image's own command; empty leaves that one.
    pub command: Vec<String>,
    /// Takes the place of the image's own entry point; empty leaves that one.
    pub entrypoint: Vec<String>,
    /// Added to what the image and Quorate set.
    pub environment: BTreeMap<String, String>,
    /// Where it runs inside; the image's own by default.
    pub working_dir: Option<String>,
    /// Who it runs as inside; the image's own by default.
    pub user: Option<String>,
    /// Ports published on the host.
    pub ports: Vec<PortMapping>,
    /// What of the host is seen inside.
    pub mounts: Vec<Mount>,
    /// The engine's network it is in; the engine's own default otherwise.
    pub network: Option<String>,
    /// Labels for the engine.
    pub labels: BTreeMap<String, String>,
    /// What it may use.
    pub limits: Limits,
}

/// A unit of the host's service manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitWorkload {
    /// What the unit is.
    pub source: UnitSource,
    /// What it may use. An existing unit keeps its own limits: there these are empty.
    pub limits: Limits,
}

/// Where a unit comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitSource {
    /// Made for each run, and gone with it.
    Transient {
        /// Program and arguments; the program by its full path.
        command: Vec<String>,
        /// Added to the few variables that Quorate sets.
        environment: BTreeMap<String, String>,
        /// Where it runs; the instance's own folder by default.
        working_dir: Option<String>,
        /// The account it runs as; root by default.
        user: Option<String>,
        /// The port it listens at.
        port: Option<u16>,
    },
    /// One that the host has already, by its name.
    Existing(String),
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineWorkload {
    /// The disk image, by an absolute path of the host; changes go to an overlay of the instance's own.
    pub image: String,
    /// Memory.
    pub memory: MemoryMib,
    /// Virtual processors.
    pub cpus: u32,
    /// How it is connected.
    pub network: MachineNetwork,
    /// How its screen is shown.
    pub graphics: MachineGraphics,
    /// A kernel to start directly, with its initial file system and arguments.
    pub boot: Option<MachineBoot>,
}

/// How a virtual machine is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MachineNetwork {
    /// Not at all.
    None,
    /// To a network that libvirt has.
    Network(String),
    /// To a bridge of the host.
    Bridge(String),
    /// Through the emulator's own address translation.
    User,
}

/// How a virtual machine's screen is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MachineGraphics {
    /// Not at all: a serial console only.
    None,
    /// By VNC on loopback, at a free port.
    Vnc,
    /// By SPICE on loopback, at a free port.
    Spice,
}

/// A kernel that is started without a boot loader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineBoot {
    /// The kernel, by an absolute path of the host.
    pub kernel: String,
    /// The initial file system, likewise.
    pub initrd: Option<String>,
    /// What the kernel is told.
    pub arguments: String,
}

impl Workload {
    /// Which executor runs it.
    pub fn executor(&self) -> ExecutorKind {
        match self {
            Workload::Process(_) => ExecutorKind::Process,
            Workload::Container(one) => match one.engine {
                ContainerEngine::Docker => ExecutorKind::Docker,
                ContainerEngine::Podman => ExecutorKind::Podman,
            },
            Workload::Unit(_) => ExecutorKind::Systemd,
            Workload::Machine(_) => ExecutorKind::Libvirt,
        }
    }

    /// What one instance may use. A machine's size is no limit: the emulator needs more than its guest.
    pub fn limits(&self) -> Limits {
        match self {
            Workload::Process(one) => one.limits,
            Workload::Container(one) => one.limits,
            Workload::Unit(one) => one.limits,
            Workload::Machine(_) => Limits::default(),
        }
    }

    /// What one instance takes of its node, where its description does not say.
    pub fn reserves(&self) -> Resources {
        match self {
            Workload::Machine(one) => {
                Resources { cpu: CpuMillis(one.cpus.saturating_mul(1_000)), memory: one.memory }
            }
            other => {
                let limits = other.limits();
                Resources { cpu: limits.cpu.unwrap_or_default(), memory: limits.memory.unwrap_or_default() }
            }
        }
    }

    /// The variables its description lists.
    pub fn environment(&self) -> Option<&BTreeMap<String, String>> {
        match self {
            Workload::Process(one) => Some(&one.environment),
            Workload::Container(one) => Some(&one.environment),
            Workload::Unit(UnitWorkload { source: UnitSource::Transient { environment, .. }, .. }) => {
                Some(environment)
            }
            Workload::Unit(_) | Workload::Machine(_) => None,
        }
    }

    /// The account of the host it runs as, if its description names one.
    pub fn user(&self) -> Option<&str> {
        match self {
            Workload::Process(one) => one.user.as_deref(),
            Workload::Unit(UnitWorkload { source: UnitSource::Transient { user, .. }, .. }) => {
                user.as_deref()
            }
            Workload::Container(_) | Workload::Unit(_) | Workload::Machine(_) => None,
        }
    }

    /// The folder of the host it runs in, if its description names one.
    pub fn working_dir(&self) -> Option<&str> {
        match self {
            Workload::Process(one) => one.working_dir.as_deref(),
            Workload::Unit(UnitWorkload { source: UnitSource::Transient { working_dir, .. }, .. }) => {
                working_dir.as_deref()
            }
            Workload::Container(_) | Workload::Unit(_) | Workload::Machine(_) => None,
        }
    }

    /// Ports of the host that one instance takes for itself.
    pub fn host_ports(&self) -> Vec<PortMapping> {
        if let Workload::Container(one) = self {
            return one.ports.clone();
        }
        let own =
            |port| PortMapping { address: None, host: port, container: port, transport: Transport::Tcp };
        self.port().map(own).into_iter().collect()
    }

    /// The port it is told to listen at.
    pub fn port(&self) -> Option<u16> {
        match self {
            Workload::Process(one) => one.port,
            Workload::Container(one) => one.ports.first().map(|port| port.container),
            Workload::Unit(UnitWorkload { source: UnitSource::Transient { port, .. }, .. }) => *port,
            Workload::Unit(_) | Workload::Machine(_) => None,
        }
    }

    /// A unit of the host that it runs: of each there is one on a host.
    pub fn host_unit(&self) -> Option<&str> {
        match self {
            Workload::Unit(UnitWorkload { source: UnitSource::Existing(name), .. }) => Some(name),
            Workload::Unit(_) | Workload::Process(_) | Workload::Container(_) | Workload::Machine(_) => None,
        }
    }

    /// Does it take something of its host that no other instance there can have?
    pub fn claims_of_host(&self) -> bool {
        !self.host_ports().is_empty() || self.host_unit().is_some()
    }

    /// What an instance of this one would take of a host although an instance of the other has it, in words.
    pub fn collision(&self, other: &Workload) -> Option<String> {
        let theirs = other.host_ports();
        let taken = |port: &PortMapping| theirs.iter().any(|one| one.overlaps(port));
        let port = self.host_ports().into_iter().find(taken).map(|port| format!("port {}", port.on_host()));
        let unit = self.host_unit().filter(|unit| other.host_unit() == Some(unit));
        port.or_else(|| unit.map(|unit| format!("unit {unit}")))
    }

    /// What it cannot run without and does not have, with the remedy. A description that was read has it all.
    pub fn lacks(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Workload::Process(one) if one.command.is_empty() => {
                Some(("no command", "name a program in spec.command"))
            }
            Workload::Container(one) if one.image.is_empty() => Some(("no image", "name one in spec.image")),
            Workload::Unit(UnitWorkload { source: UnitSource::Existing(name), .. }) if name.is_empty() => {
                Some(("no unit", "name a service of the hosts in spec.unit"))
            }
            Workload::Unit(UnitWorkload { source: UnitSource::Transient { command, .. }, .. })
                if !command.first().is_some_and(|program| program.starts_with('/')) =>
            {
                Some(("no command with a full path", "name a program by its full path in spec.command"))
            }
            Workload::Machine(one) if !one.image.starts_with('/') => {
                Some(("no image with a full path", "name one in spec.vm_image"))
            }
            Workload::Machine(one) if one.memory == MemoryMib(0) || one.cpus == 0 => {
                Some(("no memory or no processor", "give it some by spec.vm_memory and spec.vm_cpus"))
            }
            Workload::Process(_) | Workload::Container(_) | Workload::Unit(_) | Workload::Machine(_) => None,
        }
    }
}

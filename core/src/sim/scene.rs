//! What a seed's world is made of before anything happens: hosts and their clocks, the services that may be
//! deployed and how they behave, the fence devices, and the log that all hosts begin with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::host::{Disk, Host, boot_id};
use super::log::{LogDisk, Members};
use super::random::Random;
use super::{Options, Plant};
use crate::command::{Actor, Command, NodeAdmission, NodeFacts, Proposal};
use crate::fence::{FenceAction, FenceMethod};
use crate::ids::{ClusterId, DiskId, MachineId, NodeId, RaftId, ServiceName};
use crate::observation::ExecutorFact;
use crate::settings::{ClusterSettings, TimingProfile};
use crate::spec::{
    ExecutorKind, HealthCheck, HealthProbe, Placement, Priority, ProcessWorkload, Resources, RestartPolicy,
    RestartWhen, ServiceSpec, Spread, StopPolicy, Workload,
};
use crate::state::State;
use crate::units::{CpuMillis, MemoryMib, Millis, WallMs};

/// How the processes of a service behave.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Behaviour {
    /// From its start until its health check answers.
    pub(super) ready_ms: u64,
    /// From being asked to stop until it has, at most.
    pub(super) stop_ms: u64,
    /// Never stops when asked.
    pub(super) ignores_stop: bool,
    /// It crashes about this long after each start; 0 for never.
    pub(super) crash_ms: u64,
}

/// How the fence device of a host behaves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Device {
    /// It fails until the heal.
    pub(super) fails: bool,
    /// Takes up to this long before the deed.
    pub(super) slow_ms: u64,
}

/// A world at its beginning.
pub(super) struct Scene {
    pub(super) hosts: Vec<Host>,
    pub(super) services: Vec<Arc<ServiceSpec>>,
    pub(super) behaviours: BTreeMap<ServiceName, Behaviour>,
    pub(super) devices: Vec<Device>,
}

/// What one host can give away.
pub(super) const CAPACITY: Resources = Resources { cpu: CpuMillis(4_000), memory: MemoryMib(4_096) };

/// A name known to be valid; a world cannot be drawn from others.
fn node_name(index: usize) -> Option<NodeId> {
    NodeId::new(format!("n{}", index + 1)).ok()
}

/// Draws a world.
pub(super) fn draw(options: &Options, random: &mut Random) -> Scene {
    let count = options.hosts.unwrap_or_else(|| 3 + random.index(3)).clamp(1, 7);
    let settings = settings(random);
    let facts: Vec<NodeFacts> = (0..count).filter_map(|index| facts(index, options, random)).collect();
    let proposals = beginning(&settings, &facts);
    let voters = (1..=facts.len() as u64).map(RaftId).collect();
    let log = LogDisk::seeded(Members { voters, ..Members::default() }, proposals);
    let hosts = facts
        .into_iter()
        .enumerate()
        .map(|(index, facts)| {
            let disk = Disk {
                raft_id: RaftId(index as u64 + 1),
                log: log.clone(),
                snapshot: State::empty(),
                lease_epoch: None,
                highest: BTreeMap::new(),
                forgotten: BTreeSet::new(),
                folders: BTreeMap::new(),
                staging: BTreeMap::new(),
            };
            // Within the bound that the waits allow for, and mostly near it.
            let drift = i64::try_from(random.below(19_001)).unwrap_or(0) - 9_500;
            Host::new(index, drift, disk, facts)
        })
        .collect();
    let (services, behaviours) = services(random);
    let device = |random: &mut Random| Device {
        fails: random.percent(30),
        slow_ms: if random.percent(30) { 2_500 } else { 700 },
    };
    let devices = (0..count).map(|_| device(random)).collect();
    Scene { hosts, services, behaviours, devices }
}

fn settings(random: &mut Random) -> ClusterSettings {
    let profile = if random.percent(30) { TimingProfile::Fast } else { TimingProfile::Lan };
    let mut settings = ClusterSettings::of(profile);
    settings.autonomous_shutdown = random.percent(80);
    settings.fencing_auto = random.percent(70);
    settings.fencing_delay = Millis(if random.percent(30) { 700 } else { 0 });
    settings
}

fn facts(index: usize, options: &Options, random: &mut Random) -> Option<NodeFacts> {
    let action = if random.percent(40) { FenceAction::Reboot } else { FenceAction::Off };
    let method = FenceMethod { action, ..FenceMethod::of_program("fence") };
    let fencing = if random.percent(50) { vec![vec![method]] } else { Vec::new() };
    let larger = if options.plant == Some(Plant::OversizedNodes) { 8 } else { 1 };
    let executor = ExecutorFact {
        kind: ExecutorKind::Process,
        version: "6".to_owned(),
        capabilities: Vec::new(),
        unavailable: None,
    };
    Some(NodeFacts {
        node: node_name(index)?,
        endpoints: Vec::new(),
        api: String::new(),
        http: String::new(),
        labels: BTreeMap::from([("zone".to_owned(), format!("z{}", index % 2))]),
        capacity: Resources {
            cpu: CpuMillis(CAPACITY.cpu.0 * larger),
            memory: MemoryMib(CAPACITY.memory.0 * u64::from(larger)),
        },
        executors: vec![executor],
        fencing,
        armed: random.percent(75),
        unarmed: None,
        silence_counts: random.percent(90),
        terms: 0,
        release: "1".to_owned(),
    })
}

/// The commands that make the cluster and admit all hosts.
fn beginning(settings: &ClusterSettings, facts: &[NodeFacts]) -> Vec<Proposal> {
    let bootstrap = Command::Bootstrap {
        cluster: ClusterId("sim".to_owned()),
        name: "sim".to_owned(),
        settings: settings.clone(),
    };
    let admit = |(index, facts): (usize, &NodeFacts)| {
        Command::AdmitNode(NodeAdmission {
            machine: MachineId(format!("machine-{index}")),
            disk: DiskId(format!("disk-{index}-1")),
            boot: boot_id(index, 1),
            witness: false,
            weight: 1,
            facts: facts.clone(),
        })
    };
    let commands = std::iter::once(bootstrap).chain(facts.iter().enumerate().map(admit));
    let actor = Actor::Operator { name: "sim".to_owned(), from: "sim".to_owned() };
    let propose =
        |command| Proposal { request: None, actor: actor.clone(), at: WallMs(0), expected: None, command };
    commands.map(propose).collect()
}

/// What sets one service of the cast apart.
struct Part {
    name: &'static str,
    priority: Priority,
    exclusive: bool,
    replicas: u32,
    state: bool,
    keep: bool,
    cpu: u32,
    grace_ms: u64,
}

const CAST: [Part; 7] = [
    part("db", Priority::Normal, true, 1, true, 600),
    part("vital", Priority::Critical, true, 1, false, 500),
    part("cache", Priority::Low, true, 1, false, 400),
    part("ledger", Priority::High, true, 2, true, 500),
    part("web", Priority::Normal, false, 3, false, 300),
    Part { keep: true, ..part("edge", Priority::High, false, 2, false, 200) },
    Part { grace_ms: 0, ..part("batch", Priority::Normal, true, 1, false, 1_500) },
];

const fn part(
    name: &'static str,
    priority: Priority,
    exclusive: bool,
    replicas: u32,
    state: bool,
    cpu: u32,
) -> Part {
    Part { name, priority, exclusive, replicas, state, keep: false, cpu, grace_ms: 400 }
}

fn services(random: &mut Random) -> (Vec<Arc<ServiceSpec>>, BTreeMap<ServiceName, Behaviour>) {
    let mut specs = Vec::new();
    let mut behaviours = BTreeMap::new();
    for part in &CAST {
        let Ok(name) = ServiceName::new(part.name) else { continue };
        let behaviour = Behaviour {
            ready_ms: random.between(20, 900),
            stop_ms: random.between(10, 500),
            ignores_stop: random.percent(20),
            crash_ms: if random.percent(35) { random.between(1_000, 9_000) } else { 0 },
        };
        behaviours.insert(name.clone(), behaviour);
        specs.push(Arc::new(spec(part, name, random)));
    }
    (specs, behaviours)
}

fn spec(part: &Part, name: ServiceName, random: &mut Random) -> ServiceSpec {
    let health = HealthCheck {
        probe: HealthProbe::Tcp { port: 80 },
        interval: Millis(200),
        timeout: Millis(100),
        failures: 3,
        successes: 1,
        start_period: Millis(2_000),
    };
    ServiceSpec {
        name,
        priority: part.priority,
        replicas: part.replicas,
        exclusive: Some(part.exclusive),
        labels: BTreeMap::new(),
        workload: Workload::Process(ProcessWorkload {
            command: vec!["run".to_owned()],
            environment: BTreeMap::new(),
            working_dir: None,
            user: None,
            cpu_limit: None,
            memory_limit: None,
            pids_limit: None,
        }),
        state_dir: part.state.then(|| "data".to_owned()),
        resources: Resources { cpu: CpuMillis(part.cpu), memory: MemoryMib(64) },
        placement: Placement {
            constraints: Vec::new(),
            affinity: Vec::new(),
            spread: if random.percent(20) && part.replicas <= 2 { Spread::Require } else { Spread::Prefer },
        },
        health: random.percent(60).then_some(health),
        stop: StopPolicy { signal: 15, grace: Millis(part.grace_ms * random.between(1, 3)) },
        restart: RestartPolicy {
            when: RestartWhen::Always,
            backoff_min: Millis(100),
            backoff_max: Millis(2_000),
        },
        keep_on_isolation: part.keep,
    }
}

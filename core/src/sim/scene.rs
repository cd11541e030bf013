//! What a seed's world is made of before anything happens: hosts and their clocks, the services that may be
//! deployed and how they behave, the fence devices, and the log that all hosts begin with.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Options;
use super::disk::Disk;
use super::host::{Host, boot_id, machine_id};
use super::log::{LogDisk, Members};
use super::look;
use super::random::Random;
use super::script::Shape;
use super::switches::Plant;
use crate::command::{Actor, Command, NodeAdmission, NodeFacts, Proposal};
use crate::fence::{FenceAction, FenceMethod};
use crate::ids::{ClusterId, DiskId, Endpoint, NodeId, RaftId, Segment, ServiceName};
use crate::observation::ExecutorFact;
use crate::settings::{ClusterSettings, TimingProfile};
use crate::spec::{
    ExecutorKind, HealthCheck, HealthProbe, Limits, Placement, Priority, ProcessWorkload, Resources,
    RestartPolicy, RestartWhen, ServiceSpec, Spread, StopPolicy, Workload,
};
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
    /// A start takes up to this long.
    pub(super) start_ms: u64,
    /// Its processes are an engine's children, not the guard's.
    pub(super) by_engine: bool,
    /// It crashes about this long after each start; 0 for never.
    pub(super) crash_ms: u64,
}

/// What is wrong with a fence device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceFault {
    /// Nothing.
    #[default]
    None,
    /// It refuses.
    Fails,
    /// It says that it did and does nothing.
    Lies,
    /// It does not answer in time, and may do the deed later.
    TimesOut,
}

/// How the fence device of a host behaves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Device {
    /// What is wrong with it until the heal.
    pub(super) fault: DeviceFault,
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

/// Draws a world, or makes the written one.
pub(super) fn draw(options: &Options, random: &mut Random) -> Scene {
    let shape = options.script.as_ref().map(|script| &script.shape);
    let drawn = options.hosts.unwrap_or_else(|| hosts_drawn(random));
    let count = shape.map_or(drawn, |shape| shape.hosts).clamp(1, 7);
    let settings = settings(random, shape);
    let people: Vec<Person> = (0..count).filter_map(|index| person(index, options, random)).collect();
    let people = if shape.is_none() { special(people, random) } else { people };
    let log = LogDisk::seeded(
        Members { voters: (1..=people.len() as u64).map(RaftId).collect(), ..Members::default() },
        beginning(&settings, &people),
    );
    let hosts = people.into_iter().enumerate().map(|(index, person)| {
        let disk = Disk::new(index, 1, Some(RaftId(index as u64 + 1)), log.clone());
        let mut host = Host::new(index, person.drift_ppm, disk, person.facts);
        (host.witness, host.weight) = (person.witness, person.weight);
        host.wall_off_ms = person.wall_off_ms;
        host
    });
    let hosts = hosts.collect();
    let (services, behaviours) = services(random, options);
    let device = |random: &mut Random| Device {
        fault: match random.below(100) {
            0..60 => DeviceFault::None,
            60..74 => DeviceFault::Fails,
            74..86 => DeviceFault::Lies,
            _ => DeviceFault::TimesOut,
        },
        slow_ms: if random.percent(30) { 2_500 } else { 700 },
    };
    let written = shape.map(|shape| Device { fault: shape.fencing.unwrap_or_default(), slow_ms: 700 });
    let devices = (0..count).map(|_| device(random)).map(|drawn| written.unwrap_or(drawn)).collect();
    Scene { hosts, services, behaviours, devices }
}

fn hosts_drawn(random: &mut Random) -> usize {
    3 + random.index(3)
}

/// How many hosts the world of a seed has: the first that is drawn.
pub(super) fn hosts_of(seed: u64) -> usize {
    hosts_drawn(&mut Random::new(seed))
}

/// The names of all services that may run in a world.
pub(super) fn cast() -> impl Iterator<Item = &'static str> {
    CAST.iter().map(|part| part.name)
}

/// What sets one host apart.
struct Person {
    facts: NodeFacts,
    drift_ppm: i64,
    wall_off_ms: i64,
    witness: bool,
    weight: u32,
}

/// One host of some worlds only votes; in some, one is to lead.
fn special(mut people: Vec<Person>, random: &mut Random) -> Vec<Person> {
    let (witness, heavy) = (random.index(people.len()), random.index(people.len()));
    if random.percent(25) {
        let person = &mut people[witness];
        person.witness = true;
        person.facts.executors.clear();
    }
    if random.percent(30) {
        people[heavy].weight = 3;
    }
    people
}

fn settings(random: &mut Random, shape: Option<&Shape>) -> ClusterSettings {
    if let Some(shape) = shape {
        let (fencing_auto, autonomous_shutdown) = (shape.fencing.is_some(), shape.silence_counts);
        return ClusterSettings { fencing_auto, autonomous_shutdown, ..ClusterSettings::of(shape.profile) };
    }
    let profile = if random.percent(30) { TimingProfile::Fast } else { TimingProfile::Lan };
    let mut settings = ClusterSettings::of(profile);
    settings.autonomous_shutdown = random.percent(80);
    settings.fencing_auto = random.percent(70);
    settings.fencing_delay = Millis(if random.percent(30) { 700 } else { 0 });
    settings
}

fn person(index: usize, options: &Options, random: &mut Random) -> Option<Person> {
    // Within the bound that the waits allow for, and mostly near it.
    let drift = i64::try_from(random.below(19_001)).unwrap_or(0) - 9_500;
    // Wall clocks are for people: here they hardly agree.
    let wall = i64::try_from(random.below(60_000)).unwrap_or(0) - 30_000;
    let facts = facts(index, options, random)?;
    let mut person = Person { facts, drift_ppm: drift, wall_off_ms: wall, witness: false, weight: 1 };
    if let Some(script) = &options.script {
        let shape = &script.shape;
        person.wall_off_ms = 0;
        person.drift_ppm = shape.drift_ppm.get(index).copied().unwrap_or_default();
        person.witness = shape.witnesses.contains(&index);
        (person.facts.armed, person.facts.silence_counts) = (shape.armed, shape.silence_counts);
        person.facts.fencing = if shape.fencing.is_some() { fencing(FenceAction::Off) } else { Vec::new() };
    }
    Some(person)
}

fn fencing(action: FenceAction) -> Vec<Vec<FenceMethod>> {
    vec![vec![FenceMethod { action, ..FenceMethod::of_program("fence") }]]
}

fn endpoint(segment: Segment, index: usize) -> Endpoint {
    Endpoint { segment, host: format!("n{}.sim", index + 1), port: 7_000 }
}

fn facts(index: usize, options: &Options, random: &mut Random) -> Option<NodeFacts> {
    let action = if random.percent(40) { FenceAction::Reboot } else { FenceAction::Off };
    let fencing = if random.percent(50) { fencing(action) } else { Vec::new() };
    let larger = if options.broken.has(Plant::OversizedNodes) { 8 } else { 1 };
    let executor = ExecutorFact {
        kind: ExecutorKind::Process,
        version: "6".to_owned(),
        capabilities: Vec::new(),
        unavailable: None,
    };
    Some(NodeFacts {
        node: node_name(index)?,
        endpoints: look::segments().into_iter().map(|segment| endpoint(segment, index)).collect(),
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
fn beginning(settings: &ClusterSettings, people: &[Person]) -> Vec<Proposal> {
    let bootstrap = Command::Bootstrap {
        cluster: ClusterId("sim".to_owned()),
        name: "sim".to_owned(),
        settings: settings.clone(),
    };
    let admit = |(index, person): (usize, &Person)| {
        Command::AdmitNode(NodeAdmission {
            machine: machine_id(index),
            disk: DiskId(format!("disk-{index}-1")),
            boot: boot_id(index, 1),
            witness: person.witness,
            weight: person.weight,
            facts: person.facts.clone(),
        })
    };
    let commands = std::iter::once(bootstrap).chain(people.iter().enumerate().map(admit));
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

fn services(
    random: &mut Random,
    options: &Options,
) -> (Vec<Arc<ServiceSpec>>, BTreeMap<ServiceName, Behaviour>) {
    let script = options.script.as_ref();
    let mut specs = Vec::new();
    let mut behaviours = BTreeMap::new();
    for part in &CAST {
        let Ok(name) = ServiceName::new(part.name) else { continue };
        if script.is_some_and(|script| !script.services.iter().any(|wanted| wanted == part.name)) {
            continue;
        }
        let drawn = Behaviour {
            ready_ms: random.between(20, 900),
            stop_ms: random.between(10, 500),
            ignores_stop: random.percent(20),
            start_ms: if random.percent(25) { 3_000 } else { 40 },
            by_engine: random.percent(40),
            crash_ms: if random.percent(35) { random.between(1_000, 9_000) } else { 0 },
        };
        let plain = Behaviour { ready_ms: 100, stop_ms: 100, start_ms: 40, ..Behaviour::default() };
        behaviours.insert(name.clone(), if script.is_some() { plain } else { drawn });
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
            port: None,
            limits: Limits::default(),
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

//! Random real faults on five nodes with many services: cuts of every shape, loss, frozen and killed processes,
//! lost power. After each heal all work is back; at the end nothing ran twice, no acknowledged write is lost and
//! memory is flat. QUORATE_SOAK gives the seconds, QUORATE_SERVICES the services, QUORATE_SEED the faults.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

use crate::clients::Clients;
use crate::judge::runs::{Overlap, Reader, Span};
use crate::lab::SEGMENTS;
use crate::rig::{Cluster, Service, boottime_ns, ms, setting};
use crate::wait::await_some;

/// What a run of no given length takes.
const SHORT: u64 = 40;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Split([usize; 2]),
    Isolated(usize),
    Mute(usize),
    Deaf(usize),
    Segment(usize),
    Unplugged(usize, usize),
    Loss(u32),
    Flapping(usize),
    NodeFrozen(usize),
    GuardFrozen(usize),
    BothFrozen(usize),
    NodeKilled(usize),
    GuardKilled(usize),
    PowerLost(usize),
}

impl Fault {
    fn draw(random: &mut SmallRng, leader: usize) -> Self {
        // The leader is hit as often as all others together.
        let at = if random.random_bool(0.5) { leader } else { random.random_range(0..5) };
        let other = (at + random.random_range(1..5)) % 5;
        let segment = random.random_range(0..SEGMENTS.len());
        match random.random_range(0..14) {
            0 => Fault::Split([at, other]),
            1 => Fault::Isolated(at),
            2 => Fault::Mute(at),
            3 => Fault::Deaf(at),
            4 => Fault::Segment(segment),
            5 => Fault::Unplugged(at, segment),
            6 => Fault::Loss(random.random_range(20..300)),
            7 => Fault::Flapping(at),
            8 => Fault::NodeFrozen(at),
            9 => Fault::GuardFrozen(at),
            10 => Fault::BothFrozen(at),
            11 => Fault::NodeKilled(at),
            12 => Fault::GuardKilled(at),
            _ => Fault::PowerLost(at),
        }
    }

    fn name(self) -> String {
        format!("{self:?}").split('(').next().unwrap_or_default().to_owned()
    }
}

/// A soak under way.
struct Soak {
    cluster: Cluster,
    services: Vec<Service>,
    reader: Reader,
    /// What is stopped and has to go on.
    frozen: Vec<u32>,
    /// Nodes whose process is gone.
    down: Vec<usize>,
}

impl Soak {
    fn inflict(&mut self, fault: Fault, random: &mut SmallRng) {
        let touches = |at: usize| move |way: crate::lab::Way| (way.from == at) != (way.to == at);
        let lab = &self.cluster.lab;
        match fault {
            Fault::Split(side) => lab.cut(|way| side.contains(&way.from) != side.contains(&way.to)),
            Fault::Isolated(at) => lab.cut(touches(at)),
            Fault::Mute(at) => lab.cut(|way| way.from == at),
            Fault::Deaf(at) => lab.cut(|way| way.to == at),
            Fault::Segment(segment) => lab.cut(|way| way.segment == segment),
            Fault::Unplugged(at, segment) => lab.plug(at, segment, false),
            Fault::Loss(permille) => lab.lose(permille, |_| true),
            Fault::Flapping(at) => {
                for _ in 0..random.random_range(2..6) {
                    lab.cut(touches(at));
                    std::thread::sleep(Duration::from_millis(random.random_range(50..1_200)));
                    lab.heal();
                    std::thread::sleep(Duration::from_millis(random.random_range(50..600)));
                }
            }
            Fault::NodeFrozen(at) => self.freeze(at, &["pid"]),
            Fault::GuardFrozen(at) => self.freeze(at, &["guard_pid"]),
            Fault::BothFrozen(at) => self.freeze(at, &["pid", "guard_pid"]),
            Fault::NodeKilled(at) => {
                send(self.cluster.pid(at), Signal::KILL);
                self.cluster.buried(at);
                self.down.push(at);
            }
            Fault::GuardKilled(at) => {
                if let Some(guard) = self.process(at, "guard_pid") {
                    send(guard, Signal::KILL);
                }
            }
            Fault::PowerLost(at) => {
                self.cluster.power_off(at);
                self.down.push(at);
            }
        }
    }

    fn process(&self, at: usize, which: &str) -> Option<u32> {
        let row = self.cluster.node(at, at).ok()?;
        row[which].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0)
    }

    fn freeze(&mut self, at: usize, which: &[&str]) {
        let processes: Vec<u32> = which.iter().filter_map(|which| self.process(at, which)).collect();
        for process in &processes {
            send(*process, Signal::STOP);
        }
        self.frozen.extend(processes);
    }

    /// Ends every fault, and waits until all work is back; how long that took.
    fn heal(&mut self) -> Duration {
        self.cluster.lab.heal();
        for at in 0..self.cluster.count() {
            (0..SEGMENTS.len()).for_each(|segment| self.cluster.lab.plug(at, segment, true));
        }
        for process in std::mem::take(&mut self.frozen) {
            send(process, Signal::CONT);
        }
        for at in std::mem::take(&mut self.down) {
            self.cluster.start(at, &[]);
        }
        let healed = Instant::now();
        self.await_all_work();
        self.cluster.await_whole();
        healed.elapsed()
    }

    fn await_all_work(&mut self) {
        await_some("all work is back", || {
            self.reader.catch_up(&self.cluster.records());
            let slots = self.services.iter().flat_map(|service| {
                (0..service.replicas).map(move |ordinal| format!("{}/{ordinal}", service.name))
            });
            let now = boottime_ns();
            let lives =
                |slot: &String| self.reader.runs.of(slot).iter().any(|span| ms(span.last, now) < 1_500);
            let missing: Vec<String> = slots.filter(|slot| !lives(slot)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
        });
    }

    /// Exclusive slots that ran twice at once; the others may.
    fn overlaps(&self) -> Vec<Overlap> {
        self.reader.runs.overlaps().into_iter().filter(|one| self.exclusive(&one.later.slot)).collect()
    }

    /// Lives of exclusive slots under an older token than the one before. Others may have copies that the cluster went
    /// on without, which start again in place until they are told that they are too many.
    fn disorder(&self) -> Vec<[Span; 2]> {
        self.reader.runs.disorder().into_iter().filter(|pair| self.exclusive(&pair[0].slot)).collect()
    }

    fn exclusive(&self, slot: &str) -> bool {
        let service = slot.split('/').next();
        self.services.iter().any(|one| one.exclusive && Some(one.name.as_str()) == service)
    }

    /// Kilobytes that node, guard and twin of every node hold.
    fn memory(&self) -> Vec<u64> {
        let of = |at: usize| {
            let resident = |which: &&str| self.process(at, which).and_then(resident_kib);
            ["pid", "guard_pid", "twin_pid"].iter().filter_map(resident).sum()
        };
        (0..self.cluster.count()).map(of).collect()
    }
}

fn send(pid: u32, signal: Signal) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal);
}

fn resident_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
}

#[test]
fn random_faults_run_nothing_twice_lose_no_write_and_leave_all_work_running() {
    let Some(cluster) = Cluster::formed(5) else { return };
    let length = Duration::from_secs(setting("QUORATE_SOAK").unwrap_or(SHORT));
    let count = usize::try_from(setting("QUORATE_SERVICES").unwrap_or(10)).unwrap();
    let seed = setting("QUORATE_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("{} s, {count} services, QUORATE_SEED={seed}", length.as_secs());
    let mut random = SmallRng::seed_from_u64(seed);
    let services: Vec<Service> = (0..count).map(|number| service(number, &mut random)).collect();
    let clients = Clients::start(&cluster);
    for some in services.chunks(10) {
        cluster.deploy(0, some);
    }
    let (reader, frozen, down) = (Reader::default(), Vec::new(), Vec::new());
    let mut soak = Soak { cluster, services, reader, frozen, down };
    soak.await_all_work();

    let (begun, mut faults, mut slowest) = (Instant::now(), BTreeMap::<String, u32>::new(), Duration::ZERO);
    let mut memory = vec![soak.memory()];
    while begun.elapsed() < length {
        let leader = soak.cluster.leader(0).unwrap_or(0);
        let drawn: Vec<Fault> =
            (0..random.random_range(1..3)).map(|_| Fault::draw(&mut random, leader)).collect();
        let mut hit: Vec<Fault> = Vec::new();
        for fault in drawn {
            // A process that is gone can neither be frozen nor killed again.
            if soak.down.is_empty() && soak.frozen.is_empty() {
                soak.inflict(fault, &mut random);
                *faults.entry(fault.name()).or_default() += 1;
                hit.push(fault);
            }
        }
        std::thread::sleep(Duration::from_millis(random.random_range(200..9_000)));
        println!("{} s: {hit:?} for a while", begun.elapsed().as_secs());
        let took = soak.heal();
        slowest = slowest.max(took);
        memory.push(soak.memory());
        let overlaps = soak.overlaps();
        assert!(overlaps.is_empty(), "after {hit:?}: {overlaps:#?}");
    }
    let history = clients.judge(&soak.cluster);
    soak.reader.catch_up(&soak.cluster.records());
    let runs = &soak.reader.runs;
    let peak = |samples: &[Vec<u64>]| samples.iter().flatten().max().copied().unwrap_or_default() / 1024;
    let (early, late) = (peak(&memory[..memory.len().div_ceil(3)]), peak(&memory[memory.len() * 2 / 3..]));
    println!("{} s of faults: {faults:?}", begun.elapsed().as_secs());
    println!(
        "{} slots, {} overlaps; {} writes acknowledged, {} refused, {} unknown, {} reads, {} breaches; all work \
         back within {} ms; the largest node held {early} MiB in the first third, {late} MiB in the last",
        runs.slots().count(),
        soak.overlaps().len(),
        history.acknowledged,
        history.refused,
        history.unknown,
        history.reads,
        history.breaches.len(),
        slowest.as_millis()
    );
    assert!(soak.overlaps().is_empty(), "{:#?}", soak.overlaps());
    assert!(soak.disorder().is_empty(), "{:#?}", soak.disorder());
    assert!(history.breaches.is_empty(), "{:#?}", history.breaches);
    assert!(late <= early + early / 2 + 16, "memory grew from {early} to {late} MiB");
}

fn service(number: usize, random: &mut SmallRng) -> Service {
    let priority = *["critical", "high", "normal", "low"].choose(random).unwrap();
    let shared = number % 10 == 9;
    Service {
        replicas: if shared { 3 } else { 1 },
        exclusive: !shared,
        grace: Duration::from_millis(random.random_range(100..2_000)),
        stubborn: random.random_bool(0.2),
        ..Service::new(format!("soak-{number}"), priority)
    }
}

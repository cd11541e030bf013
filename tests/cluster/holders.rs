//! Frozen and killed nodes, guards and twins: what may not stay is stopped by its deadline whoever is left to
//! do it, its silence lets it run elsewhere only after that, and a critical one waits for evidence. Judged by
//! the workloads' own records.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::rig::{Cluster, never_twice, record, runs, send, workload};
use crate::wait::await_some;

/// The services of these tests: a name and its further keys. None of them ends when asked to.
const SERVICES: [(&str, &str); 3] = [
    ("low", "priority: low\nexclusive: true"),
    ("mid", "priority: normal\nexclusive: true"),
    ("top", "priority: critical\nexclusive: true"),
];

struct Case {
    cluster: Cluster,
}

impl Case {
    /// Three armed nodes, and the three services on one of them.
    fn new() -> Self {
        let case = Self { cluster: Cluster::formed(3) };
        case.armed();
        case
    }

    fn armed(&self) {
        await_some("every node is armed", || {
            let nodes = self.cluster.json(0, &["nodes"])?;
            let items = nodes["items"].as_array().cloned().unwrap_or_default();
            let good = |node: &&Value| node["armed"] == true && node["state"] == "alive";
            if items.iter().filter(good).count() == 3 { Ok(()) } else { Err(nodes.to_string()) }
        });
    }

    fn record_of(&self, name: &str) -> PathBuf {
        self.cluster.dir.path().join(format!("{name}.jsonl"))
    }

    /// Deploys the services on the node at `home`; their processes, all of which have written by then.
    fn deploy(&self, home: usize) -> [u32; 3] {
        for (name, keys) in SERVICES {
            let zone = format!("placement: {{affinity: [\"zone == z{home}\"]}}");
            let spec = workload(name, &format!("{keys}\n{zone}"), &self.record_of(name));
            self.cluster.deploy(home, &spec.replace("workload, ", "workload, --ignore-sigterm, "));
        }
        SERVICES.map(|(name, _)| {
            let row = self.cluster.running(home, name, 1).remove(0);
            assert_eq!(self.cluster.place(&row["node"]), home, "{row}");
            assert_eq!(row["armed"], true, "{row}");
            let pid = row["pid"].as_u64().unwrap() as u32;
            await_some("it writes its record", || match record(&self.record_of(name)).last() {
                Some(line) if line.pid == pid => Ok(pid),
                other => Err(format!("{other:?}")),
            })
        })
    }

    /// The processes of the node at a place: its guard and the guard's twin.
    fn holders(&self, at: usize) -> [u32; 2] {
        let node = self.cluster.node(at, at).unwrap();
        ["guard_pid", "twin_pid"].map(|name| node[name].as_u64().unwrap() as u32)
    }

    /// Waits until a service has started on another node than `home`.
    fn elsewhere(&self, name: &str, home: usize) -> Value {
        let from = (home + 1) % 3;
        await_some("it runs elsewhere", || {
            let rows = self.cluster.instances(from, name)?;
            let away = |row: &&Value| row["state"] == "running" && self.cluster.place(&row["node"]) != home;
            rows.iter().find(away).cloned().ok_or_else(|| {
                let why = self.cluster.json(from, &["why", &format!("{name}/0")]);
                format!("{rows:?} {why:?}")
            })
        })
    }

    /// Waits until the critical one is shown as running without confirmation; it does run.
    fn unconfirmed(&self, home: usize, pid: u32) {
        let from = (home + 1) % 3;
        await_some("the critical one is unconfirmed", || {
            let rows = self.cluster.instances(from, "top")?;
            match rows.as_slice() {
                [row] if row["state"] == "running_unconfirmed" => Ok(()),
                _ => Err(format!("{rows:?}")),
            }
        });
        let why = self.cluster.json(from, &["why", "top/0"]).unwrap();
        assert!(why["verdict"].as_str().unwrap().contains("blocked until fenced or confirmed"), "{why}");
        assert!(runs(pid.into()), "the critical one was ended");
    }
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// From the loss to the last sign of the old run, and to the first of the next, in milliseconds.
fn spans(path: &Path, loss_ns: u64, old: u32) -> (u64, u64) {
    let lines = record(path);
    let last = lines.iter().filter(|line| line.pid == old).map(|line| line.boottime_ns).max().unwrap();
    let later = lines.iter().filter(|line| line.pid != old && line.boottime_ns > loss_ns);
    let first = later.map(|line| line.boottime_ns).min().expect("it writes elsewhere");
    assert!(first > last, "{} overlaps", path.display());
    (last.saturating_sub(loss_ns) / 1_000_000, (first - loss_ns) / 1_000_000)
}

/// What is done to a node's own process, its guard and its guard's twin.
type Blow = (&'static str, Option<Signal>, Option<Signal>, Option<Signal>);

const BLOWS: [Blow; 4] = [
    ("node frozen", Some(Signal::STOP), None, None),
    ("node and guard frozen", Some(Signal::STOP), Some(Signal::STOP), None),
    ("node and guard killed", Some(Signal::KILL), Some(Signal::KILL), None),
    ("node frozen, twin killed", Some(Signal::STOP), None, Some(Signal::KILL)),
];

#[test]
fn exclusive_services_of_a_silent_node_run_elsewhere_after_their_deadlines_and_never_twice() {
    let mut case = Case::new();
    for (round, (what, node, guard, twin)) in BLOWS.into_iter().enumerate() {
        let home = round % 3;
        let olds = case.deploy(home);
        let holders = case.holders(home);
        let loss = now_ns();
        for (pid, signal) in holders.into_iter().zip([guard, twin]) {
            if let Some(signal) = signal {
                send(pid, signal);
            }
        }
        match node {
            Some(Signal::KILL) => case.cluster.kill(home),
            Some(signal) => case.cluster.signal(home, signal),
            None => {}
        }
        for (at, name, stopped_by, earliest) in [(0, "low", 2_500, 2_500), (1, "mid", 4_500, 4_500)] {
            let next = case.elsewhere(name, home)["pid"].as_u64().unwrap();
            await_some("the next one writes", || {
                let wrote = record(&case.record_of(name)).iter().any(|line| u64::from(line.pid) == next);
                if wrote { Ok(()) } else { Err(format!("no line of {next}")) }
            });
            let (stopped, started) = spans(&case.record_of(name), loss, olds[at]);
            println!(
                "{what}: {name} wrote until {stopped} ms, runs elsewhere after {started} ms; overlap 0 ms"
            );
            assert!(stopped <= stopped_by + 200, "{what}: {name} ran {stopped} ms past the loss");
            assert!(started > earliest, "{what}: {name} ran elsewhere after {started} ms already");
        }
        case.unconfirmed(home, olds[2]);
        // It comes back: the critical one is adopted, the others stay where they are.
        if node == Some(Signal::KILL) {
            case.cluster.start(home, &[]);
        } else {
            case.cluster.signal(home, Signal::CONT);
        }
        if guard == Some(Signal::STOP) {
            send(holders[0], Signal::CONT);
        }
        case.cluster.ready(home);
        let row = case.cluster.running(home, "top", 1).remove(0);
        assert_eq!((row["pid"].as_u64(), row["restarts"].as_u64()), (Some(olds[2].into()), Some(0)), "{row}");
        for (name, _) in SERVICES {
            never_twice(&case.record_of(name));
            case.cluster.done(home, &["delete", name]);
        }
        await_some("all are gone", || {
            let all = case.cluster.json(home, &["services"])?;
            if all["items"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(all.to_string()) }
        });
        case.armed();
    }
}

#[test]
fn with_only_its_guard_frozen_a_node_stops_what_may_not_stay_and_starts_it_again_in_place() {
    let case = Case::new();
    let olds = case.deploy(1);
    let [guard, _] = case.holders(1);
    send(guard, Signal::STOP);
    await_some("State knows that it is not armed", || {
        let node = case.cluster.node(0, 1)?;
        let why = node["unarmed"]["why"].as_str().unwrap_or_default().to_owned();
        if node["armed"] == false && why.contains("guard") { Ok(()) } else { Err(node.to_string()) }
    });
    await_some("its twin stopped what nobody renewed", || {
        let left: Vec<u32> = olds[..2].iter().copied().filter(|pid| runs((*pid).into())).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert!(runs(olds[2].into()), "the critical one was ended");
    // The node is alive and heard: nothing of it starts elsewhere, however long.
    let node = case.cluster.node(0, 1).unwrap();
    assert_eq!(node["state"], "alive", "{node}");
    send(guard, Signal::CONT);
    for (at, (name, _)) in SERVICES.into_iter().enumerate() {
        let row = case.cluster.running(1, name, 1).remove(0);
        assert_eq!(case.cluster.place(&row["node"]), 1, "{row}");
        assert_eq!(row["pid"].as_u64() == Some(olds[at].into()), name == "top", "{row}");
        never_twice(&case.record_of(name));
    }
    case.armed();
}

#[test]
fn the_death_of_node_guard_or_twin_alone_restarts_nothing() {
    let mut case = Case::new();
    let olds = case.deploy(2);
    for who in 0..3 {
        let holders = case.holders(2);
        if who == 2 {
            case.cluster.kill(2);
            case.cluster.start(2, &[]);
        } else {
            send(holders[who], Signal::KILL);
        }
        await_some("another is in its place, and all is armed", || {
            let node = case.cluster.node(2, 2)?;
            let now = ["guard_pid", "twin_pid"].map(|name| node[name].as_u64().unwrap_or_default() as u32);
            let new =
                now.iter().zip(holders).enumerate().all(|(at, (new, old))| (*new != old) == (at == who));
            if new && node["armed"] == true { Ok(()) } else { Err(node.to_string()) }
        });
        case.cluster.ready(2);
    }
    for (at, (name, _)) in SERVICES.into_iter().enumerate() {
        let row = case.cluster.running(2, name, 1).remove(0);
        assert_eq!(
            (row["pid"].as_u64(), row["restarts"].as_u64()),
            (Some(olds[at].into()), Some(0)),
            "{row}"
        );
    }
}

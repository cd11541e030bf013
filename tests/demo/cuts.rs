//! Ways that are cut for real between the nodes of a demo, and what becomes of services and of the truth.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::rig::{Demo, until};

const SOON: Duration = Duration::from_secs(60);
/// A node whose leader is gone hears so much sooner; the rest is for a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

/// Slow enough for a machine that is busy with other tests.
fn demo(nodes: &str, more: &[&str]) -> Demo {
    Demo::with(&[&["--profile", "default", "--nodes", nodes], more].concat())
}

/// Slot, node and process of every running copy, as any node tells it.
fn copies(demo: &Demo) -> BTreeMap<String, (String, u64)> {
    let Ok(list) = demo.ask(&["instances"]) else { return BTreeMap::new() };
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let running = items.iter().filter(|copy| copy["state"] == "running");
    let told = |copy: &Value| {
        let text = |field: &str| copy[field].as_str().map(str::to_owned);
        Some((text("slot")?, (text("node")?, copy["pid"].as_u64()?)))
    };
    running.filter_map(told).collect()
}

fn leader_at(demo: &Demo, node: &str) -> Option<String> {
    let nodes = demo.items_at(node, "nodes");
    let leader = nodes.iter().find(|one| one["leader"] == true)?;
    leader["name"].as_str().map(str::to_owned)
}

fn everybody_is_alive(demo: &Demo) -> bool {
    let Ok(list) = demo.ask(&["nodes"]) else { return false };
    list["items"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["state"] == "alive"))
}

#[test]
fn a_lost_segment_moves_nothing() {
    let demo = demo("3", &[]);
    let mut before = BTreeMap::new();
    until("five copies run", SOON, || {
        before = copies(&demo);
        before.len() == 5
    });
    let said = demo.steer(&["cut", "n1", "n2", "n3", "--segment", "a"]);
    assert_eq!(said.lines().count(), 3, "{said}");
    let began = Instant::now();
    // Longer than a lease, which is 5 s.
    while began.elapsed() < Duration::from_secs(8) {
        let lost: Vec<Value> =
            demo.items_at("n2", "nodes").into_iter().filter(|node| node["state"] == "lost").collect();
        assert!(lost.is_empty(), "{lost:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    until("all of it is still told", SOON, || copies(&demo).len() == 5);
    assert_eq!(copies(&demo), before, "the same copies in the same processes");
    let links = demo.ask(&["links"]).unwrap();
    let ok = |segment: &str| {
        let rows = links["rows"].as_array().unwrap().iter();
        rows.filter(|row| row["segment"] == segment && row["ok"] == true).count()
    };
    assert_eq!((ok("a"), ok("b")), (0, 6), "{links}");
    demo.steer(&["heal"]);
    until("a is used again", SOON, || {
        let links = demo.ask(&["links"]).unwrap_or_default();
        links["rows"].as_array().is_some_and(|rows| rows.iter().all(|row| row["ok"] == true))
    });
}

#[test]
fn an_isolated_leader_is_replaced_accepts_nothing_and_comes_back_without_a_restart() {
    let demo = demo("3", &[]);
    until("nobody is fenced by itself", SOON, || demo.ask(&["settings", "set", "fencing.auto=off"]).is_ok());
    let mut db = None;
    until("db runs", SOON, || {
        db = copies(&demo).get("db/0").cloned();
        db.is_some()
    });
    let db = db.unwrap();
    let old = db.0.clone();
    // It is to hold what is critical too.
    until("its node leads", SOON, || {
        let _ = demo.ask(&["raft", "transfer", &old]);
        leader_at(&demo, &old).as_ref() == Some(&old)
    });
    let other = if old == "n3" { "n2" } else { "n3" };

    demo.steer(&["cut", &old]);
    until("another leads", Duration::from_secs(10), || {
        leader_at(&demo, other).is_some_and(|leader| leader != old)
            && demo.at(other, &["kv", "put", "new", "leader"]).status.success()
    });
    until("the old one knows that nobody follows it", SOON, || {
        demo.at(&old, &["kv", "put", "old", "leader"]).status.code() == Some(3)
    });
    let began = Instant::now();
    let refused = demo.at(&old, &["kv", "put", "old", "leader"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no_quorum"), "{refused:?}");
    assert!(began.elapsed() < REFUSED_WITHIN, "it took {:?}", began.elapsed());
    until("it says that it has no quorum", SOON, || {
        let status = demo.at(&old, &["status", "--local"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_ne!(status["verdict"]["level"], "ok", "it is green without a quorum: {status}");
        status["standing"]["quorum"] == false && status["standing"]["accepting_proposals"] == false
    });
    until("the majority has committed its loss", SOON, || {
        demo.items_at(other, "nodes")
            .iter()
            .any(|node| node["name"] == old.as_str() && node["state"] == "lost")
    });
    assert_eq!(demo.at(other, &["kv", "get", "old"]).status.code(), Some(4), "nothing of it was written");

    demo.steer(&["heal"]);
    until("it is back", SOON, || everybody_is_alive(&demo));
    until("db is told where it was", SOON, || copies(&demo).contains_key("db/0"));
    assert_eq!(copies(&demo)["db/0"], db, "adopted in the same process");
}

#[test]
fn a_split_of_five_runs_nothing_exclusive_twice() {
    let demo = demo("5", &["--without-services"]);
    let record_of = |name: &str| demo.dir.join(format!("{name}.jsonl"));
    let names = ["critical", "high", "normal", "low"];
    for name in names {
        let spec = format!(
            "name: {name}\npriority: {name}\nexclusive: true\nstop: {{grace: 2s}}\n\
             spec: {{command: [{}, workload, --record, {}]}}\n",
            env!("CARGO_BIN_EXE_quorate"),
            record_of(name).display(),
        );
        let file = demo.dir.join(format!("{name}.yaml"));
        std::fs::write(&file, spec).unwrap();
        // On a busy machine a leader may change at any moment; the same text again changes nothing.
        until("it is deployed", SOON, || demo.ask(&["deploy", "-f", file.to_str().unwrap()]).is_ok());
    }
    until("all four run", SOON, || copies(&demo).len() == 4);
    let before = copies(&demo);
    let busy = before["critical/0"].0.clone();
    let second = before.values().map(|(node, _)| node).find(|node| **node != busy);
    let second = second.cloned().unwrap_or_else(|| if busy == "n5" { "n4" } else { "n5" }.to_owned());
    let moved: Vec<&String> = before
        .iter()
        .filter(|(_, (node, _))| *node == busy || *node == second)
        .map(|(slot, _)| slot)
        .collect();

    demo.steer(&["cut", &busy, &second]);
    let majority = ["n1", "n2", "n3", "n4", "n5"].into_iter().find(|node| *node != busy && *node != second);
    let majority = majority.unwrap();
    // Its nodes are fenced for what they hold, or keep silent for long enough.
    until("all four run on the majority", Duration::from_secs(120), || {
        let copies = demo.items_at(majority, "instances");
        let good = |copy: &&Value| {
            copy["state"] == "running" && copy["node"] != busy.as_str() && copy["node"] != second.as_str()
        };
        copies.iter().filter(good).count() == 4
    });
    demo.steer(&["heal"]);
    demo.steer(&["restart", &busy, &second]);
    until("everybody is back", Duration::from_secs(120), || everybody_is_alive(&demo));
    for name in names {
        let starts = never_twice(&record_of(name));
        let wanted = 1 + usize::from(moved.contains(&&format!("{name}/0")));
        assert!(starts >= wanted, "{name}: {starts} starts");
    }
}

/// Fails if two processes wrote to a record at overlapping times; says how many there were.
fn never_twice(record: &std::path::Path) -> usize {
    let text = std::fs::read_to_string(record).unwrap();
    let mut spans: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let (Some(pid), Some(at)) = (line["pid"].as_u64(), line["boottime_ns"].as_u64()) else { continue };
        let span = spans.entry(pid).or_insert((at, at));
        *span = (span.0.min(at), span.1.max(at));
    }
    let mut spans: Vec<(u64, u64)> = spans.into_values().collect();
    spans.sort_unstable();
    for pair in spans.windows(2) {
        assert!(pair[0].1 < pair[1].0, "{}: two ran at once: {pair:?}", record.display());
    }
    spans.len()
}

#[test]
fn what_cannot_be_cut_is_refused_with_what_there_is() {
    let demo = demo("1", &["--without-services"]);
    let code = |arguments: &[&str]| {
        let output = demo.try_to_steer(arguments);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = code(&["cut", "n9"]);
    assert!(status == Some(4) && said.contains("it has n1"), "{said}");
    let (status, said) = code(&["cut", "n1"]);
    assert!(status == Some(2) && said.contains("no way between"), "{said}");
    let (status, said) = code(&["heal", "n1", "--segment", "c"]);
    assert!(status == Some(4) && said.contains("a, b"), "{said}");
    let (status, said) = code(&["scenario", "next"]);
    assert!(status == Some(6) && said.contains("--scenario list"), "{said}");
    assert!(demo.steer(&["status"]).starts_with("n1 running (pid "));
}

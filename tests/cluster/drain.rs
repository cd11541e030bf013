//! Nodes emptied while the cluster is at work: everything moves, nothing of it ever runs twice.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::rig::{Cluster, never_twice, workload};
use crate::wait::await_some;

/// Exclusive services beside the replicated one.
const EXCLUSIVE: usize = 6;

fn drain(cluster: &Cluster, at: usize) -> Result<Value, String> {
    let operations = cluster.json(at, &["operations"])?;
    let items = operations["items"].as_array().cloned().unwrap_or_default();
    items.into_iter().find(|one| one["kind"] == "drain").ok_or_else(|| operations.to_string())
}

fn on(cluster: &Cluster, at: usize, node: &Value) -> Result<usize, String> {
    let all = cluster.json(at, &["instances"])?;
    Ok(all["items"].as_array().map_or(0, |items| items.iter().filter(|item| item["node"] == *node).count()))
}

#[test]
fn a_drain_under_load_moves_everything_and_never_runs_an_exclusive_service_twice() {
    let cluster = Cluster::formed(3);
    let record_of = |n: usize| cluster.dir.path().join(format!("solo-{n}.jsonl"));
    for n in 0..EXCLUSIVE {
        // All on one node at first, so that the drain has much to do; a preference, so that they may leave.
        let extra = "exclusive: true\nstate: {dir: data}\nplacement: {affinity: [\"zone == z1\"]}";
        cluster.deploy(0, &workload(&format!("solo-{n}"), extra, &record_of(n)));
    }
    let web = "replicas: 3\nplacement: {spread: prefer}";
    cluster.deploy(0, &workload("web", web, &cluster.dir.path().join("web.jsonl")));
    for n in 0..EXCLUSIVE {
        cluster.running(0, &format!("solo-{n}"), 1);
    }
    cluster.running(0, "web", 3);
    let node: Value = "n2".into();
    let before = on(&cluster, 0, &node).unwrap();
    assert!(before > EXCLUSIVE / 2, "n2 has only {before} instances");

    let ended = AtomicBool::new(false);
    let (written, seen) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !ended.load(Ordering::Relaxed) {
                cluster.put(written % 3, &format!("drain/{written}"), &written.to_string());
                written += 1;
            }
            written
        });
        cluster.done(0, &["drain", "n2", "--max-in-flight", "2"]);
        let mut seen = Vec::new();
        let done = await_some("the drain is done", || {
            let drain = drain(&cluster, 0)?;
            seen.push(drain["done"].as_u64().unwrap());
            if drain["result"] == "done" { Ok(drain) } else { Err(drain.to_string()) }
        });
        ended.store(true, Ordering::Relaxed);
        assert_eq!(done["done"], done["total"], "{done}");
        assert_eq!(done["total"].as_u64(), Some(before as u64), "{done}");
        (writer.join().unwrap(), seen)
    });
    assert!(seen.is_sorted(), "progress went back: {seen:?}");
    assert_eq!(on(&cluster, 0, &node).unwrap(), 0);
    for n in 0..EXCLUSIVE {
        let row = cluster.running(0, &format!("solo-{n}"), 1).remove(0);
        assert_ne!(row["node"], node);
        never_twice(&record_of(n));
    }
    cluster.running(0, "web", 3);
    assert!(written > 0);
    for n in 0..written {
        assert_eq!(cluster.get(0, &format!("drain/{n}")), n.to_string());
    }

    cluster.done(0, &["uncordon", "n2"]);
    await_some("it is taken again", || {
        let node = cluster.node(0, 1)?;
        if node["schedulable"] == true { Ok(()) } else { Err(node.to_string()) }
    });
}

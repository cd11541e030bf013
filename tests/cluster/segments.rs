//! Real nodes on two networks that are cut: one network lost costs nothing, one way lost costs the leader its
//! place, and whoever is alone says so.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::Cluster;
use crate::wait::await_some;

fn verdicts(cluster: &Cluster, at: usize) -> Result<Vec<Value>, String> {
    let links = cluster.json(at, &["links", "--local"])?;
    links["verdicts"].as_array().cloned().ok_or_else(|| links.to_string())
}

/// Waits until a node tells nothing but these kinds.
#[track_caller]
fn tells(cluster: &Cluster, at: usize, kinds: &[&str]) -> Vec<Value> {
    await_some(&format!("{} tells {kinds:?}", cluster.members[at].name), || {
        let found = verdicts(cluster, at)?;
        let mut told: Vec<&str> = found.iter().filter_map(|verdict| verdict["kind"].as_str()).collect();
        told.dedup();
        if told == kinds { Ok(found) } else { Err(format!("{found:?}")) }
    })
}

fn rows(cluster: &Cluster, at: usize) -> Vec<Value> {
    cluster.json(at, &["links", "--local"]).unwrap()["rows"].as_array().cloned().unwrap_or_default()
}

/// What must not change: lease epochs, tokens and processes.
fn standing(cluster: &Cluster, at: usize) -> Vec<String> {
    let nodes = cluster.json(at, &["nodes"]).unwrap();
    let epochs = nodes["items"].as_array().unwrap().iter().map(|node| node["lease_epoch"].to_string());
    let instances = cluster.instances(at, "web").unwrap();
    let running = instances.iter().map(|row| format!("{} {} {}", row["id"], row["node"], row["pid"]));
    epochs.chain(running).collect()
}

#[test]
fn a_lost_segment_is_a_degraded_path_that_costs_no_lease_and_moves_nothing() {
    let cluster = Cluster::prepared(3).apart(&["a", "b"]).form();
    cluster.deploy(
        0,
        &crate::rig::workload("web", "replicas: 3\nexclusive: true", &cluster.dir.path().join("record")),
    );
    cluster.running(0, "web", 3);
    for at in 0..3 {
        tells(&cluster, at, &[]);
        await_some("every node knows every link", || {
            let rows = rows(&cluster, at);
            let good =
                rows.len() == 12 && rows.iter().all(|row| row["ok"] == true && row["rtt_ms"].is_number());
            if good { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    }
    let before = standing(&cluster, 0);
    cluster.net().cut_segment("a");
    for at in 0..3 {
        await_some("the segment joins nobody", || {
            let told = tells(&cluster, at, &["segment_down"]);
            let all = told.len() == 1
                && told[0]["segment"] == "a"
                && told[0]["sides"] == json!([["n1"], ["n2"], ["n3"]]);
            if all { Ok(()) } else { Err(format!("{told:?}")) }
        });
        cluster.put(at, &format!("while cut {at}"), "kept");
    }
    // Longer than a lease: whoever had lost its way would have lost it by now.
    let cut = Instant::now();
    while cut.elapsed() < Duration::from_secs(4) {
        assert!((0..3).all(|at| cluster.is_ready(at)), "a node lost its lease");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(standing(&cluster, 0), before);
    cluster.net().heal();
    for at in 0..3 {
        tells(&cluster, at, &[]);
        assert_eq!(cluster.get(at, "while cut 2"), "kept");
    }
    assert_eq!(standing(&cluster, 0), before);
}

#[test]
fn an_isolated_leader_says_so_refuses_writes_and_is_no_leader_to_the_others() {
    let cluster = Cluster::prepared(3).apart(&["a", "b"]).form();
    let old = await_some("a leader", || cluster.leader(0));
    let other = (old + 1) % 3;
    cluster.put(other, "before", "kept");
    cluster.net().cut_off(&[old]);
    let cut = Instant::now();
    cluster.put(other, "after", "kept");
    eprintln!("a write on the other side {} ms after the cut", cut.elapsed().as_millis());
    let told = tells(&cluster, old, &["self_isolated"]);
    assert_eq!(told[0]["accusers"].as_array().unwrap().len(), 1);
    await_some("the old leader refuses", || {
        let output = cluster.run(old, &["kv", "put", "alone", "no"]);
        if output.status.code() == Some(3) { Ok(()) } else { Err(format!("{output:?}")) }
    });
    // The fastest of a few: the others may have waited for this machine.
    let refused = || {
        let began = Instant::now();
        let output = cluster.run(old, &["kv", "put", "alone", "no"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        began.elapsed()
    };
    let took = (0..5).map(|_| refused()).min().unwrap();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    eprintln!("a write on the cut-off side was refused within {} ms", took.as_millis());
    let status = cluster.json(old, &["status", "--local"]).unwrap();
    assert_eq!(status["standing"]["quorum"], false, "{status}");
    assert_eq!(status["verdict"]["level"], "critical", "{status}");
    tells(&cluster, other, &["node_down"]);
    let sides = cluster.json(old, &["links", "--local"]).unwrap()["sides"].clone();
    assert_eq!((&sides[0]["quorum"], &sides[1]["mine"]), (&Value::from(true), &Value::from(true)), "{sides}");
    cluster.net().heal();
    cluster.ready(old);
    assert_eq!(cluster.get(old, "after"), "kept");
    for at in 0..3 {
        tells(&cluster, at, &[]);
    }
}

/// Cuts one direction at the leader; `hearer` tells which node then hears what it cannot answer.
fn one_way(cut: impl Fn(&Cluster, usize), hearer: impl Fn(usize) -> usize) {
    let cluster = Cluster::prepared(3).apart(&["a", "b"]).form();
    let old = await_some("a leader", || cluster.leader(0));
    let (one, two) = ((old + 1) % 3, (old + 2) % 3);
    cluster.put(one, "before", "kept");
    tells(&cluster, one, &[]);
    cut(&cluster, old);
    let began = Instant::now();
    let former = cluster.members[old].name.as_str();
    await_some("another leads", || {
        let status = cluster.json(one, &["raft", "status"])?;
        let leads = status["leader"].as_str().is_some_and(|leader| leader != former);
        if leads { Ok(()) } else { Err(status.to_string()) }
    });
    eprintln!("another leader {} ms after the cut", began.elapsed().as_millis());
    cluster.put(one, "after", "kept");
    eprintln!("a write {} ms after the cut", began.elapsed().as_millis());
    await_some("whoever still hears tells of a one-way link on both segments", || {
        let found = verdicts(&cluster, hearer(old))?;
        let on = |segment: &str| found.iter().any(|v| v["kind"] == "one_way_link" && v["segment"] == segment);
        if on("a") && on("b") { Ok(()) } else { Err(format!("{found:?}")) }
    });
    cluster.put(two, "later", "kept");
    cluster.net().heal();
    cluster.ready(old);
    assert_eq!(cluster.get(old, "later"), "kept");
}

#[test]
fn a_leader_whose_words_arrive_nowhere_is_replaced() {
    one_way(|cluster, old| cluster.net().mute(old), |old| old);
}

#[test]
fn a_leader_that_hears_nobody_is_replaced() {
    one_way(|cluster, old| cluster.net().deafen(old), |old| (old + 1) % 3);
}

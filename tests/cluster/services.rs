//! Services on real nodes: placed, adopted after a restart, moved by a drain, and never twice.

use rustix::process::Signal;

use crate::rig::{Cluster, never_twice, record, runs, send, workload};
use crate::wait::await_some;

#[test]
fn a_node_that_is_killed_and_restarted_adopts_its_services() {
    let mut cluster = Cluster::formed(3);
    let record_of = cluster.dir.path().join("solo.jsonl");
    cluster.deploy(0, &workload("solo", "exclusive: true", &record_of));
    let row = cluster.running(0, "solo", 1).remove(0);
    let (node, pid) = (row["node"].as_str().unwrap().to_owned(), row["pid"].as_u64().unwrap());
    let at = cluster.members.iter().position(|member| member.name == node).unwrap();
    cluster.kill(at);
    cluster.start(at, &[]);
    cluster.ready(at);
    let row = cluster.running(at, "solo", 1).remove(0);
    assert_eq!(row["pid"].as_u64(), Some(pid), "{row}");
    assert_eq!(row["restarts"].as_u64(), Some(0), "{row}");
    let starts = record(&record_of).iter().filter(|line| line.event == "start").count();
    assert_eq!(starts, 1);
}

#[test]
fn copies_spread_and_the_copy_of_a_lost_node_starts_elsewhere() {
    let mut cluster = Cluster::formed(3);
    let record_of = cluster.dir.path().join("web.jsonl");
    cluster.deploy(0, &workload("web", "replicas: 2\nplacement: {spread: require}", &record_of));
    let rows = cluster.running(0, "web", 2);
    assert_ne!(rows[0]["node"], rows[1]["node"], "{rows:?}");
    let victim = rows[0]["node"].as_str().unwrap().to_owned();
    let at = cluster.members.iter().position(|member| member.name == victim).unwrap();
    let other = (at + 1) % 3;
    cluster.kill(at);
    await_some("two copies run on the two nodes left", || {
        let rows = cluster.instances(other, "web")?;
        let alive = |row: &&serde_json::Value| row["state"] == "running" && row["node"] != victim.as_str();
        if rows.iter().filter(alive).count() == 2 { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    cluster.start(at, &[]);
    cluster.ready(at);
    let rows = cluster.running(other, "web", 2);
    assert_ne!(rows[0]["node"], rows[1]["node"], "{rows:?}");
}

#[test]
fn an_exclusive_service_of_a_lost_node_waits_for_evidence_and_starts_on_an_attestation() {
    let mut cluster = Cluster::formed(3);
    let record_of = cluster.dir.path().join("solo.jsonl");
    cluster.deploy(0, &workload("solo", "exclusive: true", &record_of));
    let row = cluster.running(0, "solo", 1).remove(0);
    let node = row["node"].as_str().unwrap().to_owned();
    let at = cluster.members.iter().position(|member| member.name == node).unwrap();
    let other = (at + 1) % 3;
    cluster.kill(at);
    await_some("it is unconfirmed, and why says what is lacking", || {
        let rows = cluster.instances(other, "solo")?;
        let why = cluster.json(other, &["why", "solo/0"])?;
        let listed = why["evidence"].as_array().map_or(0, Vec::len);
        if rows.iter().any(|row| row["state"] == "running_unconfirmed") && listed == 5 {
            Ok(())
        } else {
            Err(format!("{rows:?} {why}"))
        }
    });
    // Its guard ended it by itself: the lease ran out.
    await_some("the old copy is gone", || {
        if runs(row["pid"].as_u64().unwrap()) { Err("it runs".to_owned()) } else { Ok(()) }
    });
    let rows = cluster.instances(other, "solo").unwrap();
    assert!(rows.iter().all(|row| row["state"] != "running"), "{rows:?}");
    cluster.done(other, &["attest", &node, "--dead", "--reason", "its process is gone"]);
    let row = cluster.running(other, "solo", 1).remove(0);
    assert_ne!(row["node"], node.as_str());
    never_twice(&record_of);
}

#[test]
fn a_frozen_node_loses_its_lease_and_its_guard_stops_what_runs_there() {
    let cluster = Cluster::formed(3);
    let record_of = cluster.dir.path().join("solo.jsonl");
    cluster.deploy(0, &workload("solo", "exclusive: true\npriority: low", &record_of));
    let row = cluster.running(0, "solo", 1).remove(0);
    let (at, pid) = (cluster.place(&row["node"]), row["pid"].as_u64().unwrap());
    let other = (at + 1) % 3;
    cluster.signal(at, Signal::STOP);
    await_some("the guard ends it at the deadline", || {
        if runs(pid) { Err("it runs".to_owned()) } else { Ok(()) }
    });
    await_some("the node is committed lost", || {
        let node = cluster.node(other, at)?;
        if node["state"] == "lost" { Ok(()) } else { Err(node["state"].to_string()) }
    });
    cluster.signal(at, Signal::CONT);
    await_some("it is let back in, in a new lease epoch", || {
        let node = cluster.node(other, at)?;
        let back = node["state"] == "alive" && node["lease_epoch"].as_u64() > Some(1);
        if back { Ok(()) } else { Err(node.to_string()) }
    });
    let row = cluster.running(other, "solo", 1).remove(0);
    assert_ne!(row["pid"].as_u64(), Some(pid));
    never_twice(&record_of);
}

#[test]
fn a_killed_guard_is_replaced_and_its_services_run_on() {
    let cluster = Cluster::formed(1);
    let record_of = cluster.dir.path().join("solo.jsonl");
    cluster.deploy(0, &workload("solo", "exclusive: true", &record_of));
    let row = cluster.running(0, "solo", 1).remove(0);
    let pid = row["pid"].as_u64().unwrap();
    let guard = cluster.node(0, 0).unwrap()["guard_pid"].as_u64().unwrap();
    send(u32::try_from(guard).unwrap(), Signal::KILL);
    await_some("another guard answers", || {
        let node = cluster.node(0, 0)?;
        let new = node["guard_pid"].as_u64().filter(|new| *new != 0 && *new != guard);
        new.map(|_| ()).ok_or_else(|| node.to_string())
    });
    let row = cluster.running(0, "solo", 1).remove(0);
    assert_eq!(row["pid"].as_u64(), Some(pid), "{row}");
    assert!(runs(pid));
    assert_eq!(record(&record_of).iter().filter(|line| line.event == "start").count(), 1);
}

#[test]
fn a_node_that_leaves_is_drained_and_forgotten() {
    let cluster = Cluster::formed(3);
    let record_of = cluster.dir.path().join("solo.jsonl");
    cluster.deploy(0, &workload("solo", "exclusive: true", &record_of));
    let row = cluster.running(0, "solo", 1).remove(0);
    let at = cluster.place(&row["node"]);
    let other = (at + 1) % 3;
    cluster.done(other, &["leave", row["node"].as_str().unwrap()]);
    await_some("two nodes are left, in State and in raft", || {
        let nodes = cluster.json(other, &["nodes"])?;
        let raft = cluster.json(other, &["raft", "status"])?;
        let count = |list: &serde_json::Value| list.as_array().map_or(0, Vec::len);
        if count(&nodes["items"]) == 2 && count(&raft["members"]) == 2 {
            Ok(())
        } else {
            Err(format!("{nodes} {raft}"))
        }
    });
    let row = cluster.running(other, "solo", 1).remove(0);
    assert_ne!(cluster.place(&row["node"]), at);
    never_twice(&record_of);
}

/// The counter that the workload keeps in its state folder.
fn counter(cluster: &Cluster, at: usize) -> u64 {
    let folder = cluster.data(at).join("instances/solo.0/data");
    let files: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().collect();
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file.path()).ok());
    texts.filter_map(|text| text.trim().parse().ok()).max().unwrap_or(0)
}

/// Waits for the migration of `solo` to end; its result.
fn migrated(cluster: &Cluster, at: usize) -> String {
    await_some("the migration ends", || {
        let operations = cluster.json(at, &["operations"])?;
        let items = operations["items"].as_array().cloned().unwrap_or_default();
        let found =
            items.iter().find(|one| one["kind"] == "migration").and_then(|one| one["result"].as_str());
        found.map(str::to_owned).ok_or_else(|| operations.to_string())
    })
}

#[test]
fn a_migration_takes_the_state_along_and_one_whose_target_is_never_healthy_is_rolled_back() {
    for healthy in [true, false] {
        let cluster = Cluster::formed(3);
        let record_of = cluster.dir.path().join("solo.jsonl");
        let mark = cluster.dir.path().join("sick");
        let health = format!(
            "health: {{exec: {{command: [/bin/sh, -c, 'test \"$QUORATE_NODE\" != \"$(cat {})\"']}}, interval: 200ms, \
             timeout: 2s, failures: 2, start_period: 500ms}}",
            mark.display()
        );
        std::fs::write(&mark, "none").unwrap();
        let spec = format!("exclusive: true\nstate: {{dir: data}}\n{health}");
        cluster.deploy(0, &workload("solo", &spec, &record_of));
        let row = cluster.running(0, "solo", 1).remove(0);
        let source = cluster.place(&row["node"]);
        let target = (source + 1) % 3;
        await_some("it counts", || match counter(&cluster, source) {
            count if count > 5 => Ok(()),
            count => Err(count.to_string()),
        });
        let before = counter(&cluster, source);
        let name = cluster.members[target].name.clone();
        if !healthy {
            std::fs::write(&mark, &name).unwrap();
        }
        cluster.done(source, &["migrate", "solo/0", "--to", &name]);
        let result = migrated(&cluster, source);
        let row = cluster.running(source, "solo", 1).remove(0);
        let home = if healthy { target } else { source };
        assert_eq!(cluster.place(&row["node"]), home, "{result}: {row}");
        assert_eq!(result.split(':').next(), Some(if healthy { "done" } else { "rolled back" }), "{result}");
        assert!(counter(&cluster, home) >= before, "{} counts after {before}", counter(&cluster, home));
        never_twice(&record_of);
    }
}

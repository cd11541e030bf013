//! More than a minority is gone: power lost everywhere, a majority lost for good, all disks lost but for a
//! snapshot, a directory copied. What runs goes on, nothing exclusive runs twice, old members are refused.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::rig::{Cluster, never_twice, record, runs, workload};
use crate::wait::await_some;

fn pid(row: &Value) -> u64 {
    row["pid"].as_u64().unwrap_or_else(|| panic!("no pid: {row}"))
}

/// What a command said, and its exit code.
fn said(cluster: &Cluster, at: usize, arguments: &[&str]) -> (i32, String) {
    let output = cluster.run(at, arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// Leaves of a data directory what a node needs that joins anew.
fn strip(data: &Path) {
    std::fs::remove_file(data.join("identity")).unwrap();
    std::fs::remove_dir_all(data.join("raft")).unwrap();
}

/// The epoch that a node's data are of.
fn epoch_of(cluster: &Cluster, at: usize) -> u64 {
    let text = std::fs::read_to_string(cluster.data(at).join("identity")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["epoch"].as_u64().unwrap()
}

fn unheard(cluster: &Cluster, at: usize) -> Result<Vec<String>, String> {
    let status = cluster.json(at, &["status"])?;
    let names = status["cluster"]["recovery"]["unheard"].as_array().cloned().ok_or(status.to_string())?;
    Ok(names.iter().map(|name| name.as_str().unwrap_or_default().to_owned()).collect())
}

impl Cluster {
    /// Attests that a node is dead, as soon as nobody hears it.
    fn attest(&self, at: usize, dead: usize) {
        let name = self.members[dead].name.clone();
        self.done(at, &["attest", &name, "--dead", "--reason", "its rack burnt"]);
    }

    /// Kills every node, every guard and everything that runs, with nothing in between.
    fn lose_power(&mut self, rows: &[Value]) {
        let nodes = await_some("the nodes are listed", || self.json(0, &["nodes"]));
        let guards =
            nodes["items"].as_array().unwrap().iter().map(|node| node["guard_pid"].as_u64().unwrap());
        let others: Vec<u64> = guards.chain(rows.iter().map(pid)).collect();
        for at in 0..self.members.len() {
            self.signal(at, Signal::KILL);
        }
        for pid in others {
            // One that ended meanwhile, such as by a deadline on a busy machine, is as dead as the rest.
            let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL);
        }
        for at in 0..self.members.len() {
            self.kill(at);
        }
    }
}

#[test]
fn all_five_lose_power_at_once_and_state_is_whole_and_nothing_doubled() {
    let mut cluster = Cluster::formed(5);
    let records = ["solo", "web"].map(|name| cluster.dir.path().join(format!("{name}.jsonl")));
    cluster.deploy(0, &workload("solo", "exclusive: true", &records[0]));
    cluster.deploy(0, &workload("web", "replicas: 3\nexclusive: true", &records[1]));
    let mut rows = cluster.running(0, "solo", 1);
    rows.extend(cluster.running(0, "web", 3));
    for number in 0..20 {
        cluster.put(number % 5, &format!("key{number}"), "kept");
    }
    cluster.lose_power(&rows);
    await_some("nothing is left", || {
        let left: Vec<u64> = rows.iter().map(pid).filter(|pid| runs(*pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    for at in 0..5 {
        cluster.start(at, &[]);
    }
    for at in 0..5 {
        cluster.ready(at);
    }
    for number in 0..20 {
        assert_eq!(cluster.get(4 - number % 5, &format!("key{number}")), "kept");
    }
    let again = cluster.running(0, "solo", 1);
    let web = cluster.running(0, "web", 3);
    assert!(again.iter().chain(&web).all(|row| !rows.iter().any(|old| pid(old) == pid(row))));
    never_twice(&records[0]);
    let nodes = await_some("the nodes are listed", || cluster.json(0, &["nodes"]));
    assert_eq!(nodes["items"].as_array().unwrap().len(), 5, "{nodes}");
}

#[test]
fn a_lost_majority_is_gone_on_without_and_its_nodes_are_refused_until_they_join_anew() {
    let mut cluster = Cluster::formed(5);
    let record_of = cluster.dir.path().join("solo.jsonl");
    let spec = "exclusive: true\nplacement: {constraints: [\"zone == z2\"]}";
    cluster.deploy(0, &workload("solo", spec, &record_of));
    let row = cluster.running(0, "solo", 1).remove(0);
    assert_eq!(row["node"], "n3", "{row}");
    cluster.put(0, "kept", "yes");
    for at in [2, 3, 4] {
        cluster.kill(at);
    }
    await_some("the survivors know that they are too few", || {
        let (code, text) = said(&cluster, 0, &["kv", "put", "alone", "no"]);
        if code == 3 { Ok(()) } else { Err(text) }
    });
    let survivors = ["raft", "recover", "--survivors", "n1,n2"];
    let (code, text) = said(&cluster, 0, &survivors);
    assert!(code == 6 && text.contains("in use by another node"), "{code}: {text}");

    // Whoever has the longest log is the one to begin with; the other is told so.
    let mut first = 0;
    cluster.kill(0);
    let (code, text) = said(&cluster, 0, &survivors);
    if code == 6 && text.contains("longer") {
        cluster.start(0, &[]);
        cluster.kill(1);
        first = 1;
    }
    let second = 1 - first;
    let shown = cluster.json(first, &survivors).unwrap();
    assert!(shown["applied"] == false && shown["logs"].as_array().unwrap().len() == 2, "{shown}");
    assert!(shown["possible_losses"][0].as_str().unwrap().contains("n3, n4, n5 acknowledged"), "{shown}");
    let sure =
        |name: &'static str| [&survivors[..], &["--confirm", name, "--reason", "their rack burnt"]].concat();
    let (code, text) = said(&cluster, first, &sure("other"));
    assert!(code == 6 && text.contains("nothing was changed"), "{code}: {text}");
    let (code, text) = said(&cluster, first, &[&survivors[..], &["--confirm", "demo"]].concat());
    assert_eq!(code, 2, "{text}");
    let alone = ["raft", "recover", "--survivors", cluster.members[first].name.as_str()];
    let (code, text) = said(&cluster, first, &alone);
    assert!(code == 6 && text.contains("answers, so it is not lost"), "{code}: {text}");
    let done = cluster.json(first, &sure("demo")).unwrap();
    assert!(done["applied"] == true && done["epoch"] == 2, "{done}");
    let copy = &done["services"][0];
    assert!(copy["slot"] == "solo/0" && copy["node"] == "n3" && copy["exclusive"] == true, "{done}");
    for (at, action) in [(first, "forced_quorum"), (second, "agree_to_recovery")] {
        let audit = std::fs::read_to_string(cluster.data(at).join("audit.jsonl")).unwrap();
        assert!(audit.contains(action) && audit.contains("their rack burnt"), "{audit}");
    }
    assert_eq!([0, 1, 2].map(|at| epoch_of(&cluster, at)), [2, 2, 1], "the survivors have agreed");

    cluster.start(first, &[]);
    cluster.ready(first);
    cluster.ready(second);
    assert_eq!(cluster.get(second, "kept"), "yes");
    await_some("the survivors are heard, the lost are waited for", || {
        let names = unheard(&cluster, first)?;
        if names == ["n3", "n4", "n5"] { Ok(()) } else { Err(format!("{names:?}")) }
    });
    let why = cluster.json(first, &["why", "cluster"]).unwrap();
    assert!(why["verdict"].as_str().unwrap().contains("may be gone"), "{why}");
    let events = cluster.json(first, &["events"]).unwrap().to_string();
    assert!(events.contains("their rack burnt"), "the reason is in the audit trail: {events}");

    // The nodes of before come back with their old data: even the majority that they were is none any more.
    for at in [2, 3, 4] {
        cluster.start(at, &[]);
    }
    for at in [2, 3, 4] {
        await_some("it is told that the cluster went on without it", || {
            let (code, text) = said(&cluster, at, &["kv", "put", "old", "no"]);
            let told = text.contains("epoch 2") && text.contains("join again with a new token");
            if code == 3 && told { Ok(()) } else { Err(text) }
        });
        assert_eq!(epoch_of(&cluster, at), 1, "nobody's word but its operator's takes it there");
        let node = cluster.node(first, at).unwrap();
        assert_eq!(node["state"], "lost", "{node}");
    }
    let status = cluster.json(first, &["raft", "status"]).unwrap();
    let members: Vec<&str> =
        status["members"].as_array().unwrap().iter().map(|member| member["node"].as_str().unwrap()).collect();
    assert_eq!(members, ["n1", "n2"], "{status}");
    let why = cluster.json(first, &["why", "n3"]).unwrap().to_string();
    assert!(why.contains("join again with a new token"), "{why}");
    for at in [2, 3, 4] {
        cluster.kill(at);
    }
    strip(&cluster.data(2));
    let token = cluster.json(first, &["join-token"]).unwrap()["token"].as_str().unwrap().to_owned();
    cluster.start(2, &["--token", &token]);
    cluster.ready(2);
    assert_eq!(unheard(&cluster, first).unwrap(), ["n4", "n5"]);
    cluster.attest(first, 3);
    cluster.attest(first, 4);
    let row = cluster.running(first, "solo", 1).remove(0);
    assert_eq!(row["node"], "n3", "{row}");
    never_twice(&record_of);
    assert_eq!(cluster.get(2, "kept"), "yes");
}

#[test]
fn a_restored_cluster_adopts_what_runs_and_waits_for_every_node_it_knew() {
    let mut cluster = Cluster::formed(3);
    let record_of = cluster.dir.path().join("solo.jsonl");
    let spec = "exclusive: true\npriority: critical\nplacement: {constraints: [\"zone == z1\"]}";
    cluster.deploy(0, &workload("solo", spec, &record_of));
    let row = cluster.running(0, "solo", 1).remove(0);
    cluster.put(0, "before", "yes");
    let file = cluster.dir.path().join("saved");
    let file = file.to_str().unwrap();
    let saved = cluster.json(1, &["snapshot", "save", file]).unwrap();
    assert!(saved["snapshot"]["revision"].as_u64().unwrap() > 0, "{saved}");
    let (code, text) = said(&cluster, 1, &["snapshot", "save", file]);
    assert!(code != 0 && text.contains("is there already"), "{text}");
    cluster.put(0, "after", "no");
    for at in 0..3 {
        cluster.kill(at);
    }
    let config = cluster.file(0);
    let config = config.to_str().unwrap();
    let restore = ["snapshot", "restore", file, "--config", config];
    let shown = cluster.json(0, &restore).unwrap();
    assert!(shown["applied"] == false, "{shown}");
    assert!(
        shown["possible_losses"][0].as_str().unwrap().contains("every acknowledged write after"),
        "{shown}"
    );
    let wrong = ["snapshot", "restore", file, "--config", config, "--confirm", "x", "--reason", "y"];
    assert_eq!(said(&cluster, 0, &wrong).0, 6);
    assert_eq!(said(&cluster, 0, &["snapshot", "restore", "/nowhere", "--config", config]).0, 4);
    let sure = [&restore[..], &["--confirm", "demo", "--reason", "all disks lost"]].concat();
    let done = cluster.json(0, &sure).unwrap();
    assert!(done["applied"] == true && done["epoch"] == 2, "{done}");

    cluster.start(0, &[]);
    cluster.ready(0);
    assert_eq!(cluster.get(0, "before"), "yes");
    assert_eq!(cluster.run(0, &["kv", "get", "after"]).status.code(), Some(4));
    assert_eq!(unheard(&cluster, 0).unwrap(), ["n2", "n3"]);
    cluster.deploy(0, &workload("late", "exclusive: true", &cluster.dir.path().join("late.jsonl")));
    await_some("an exclusive service says whom it waits for", || {
        let rows = cluster.instances(0, "late")?;
        let waits = rows.iter().any(|row| row["waiting"].to_string().contains("what runs on n2"));
        if waits { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    // A node of before is of another cluster now.
    cluster.start(2, &[]);
    await_some("the old node is alone", || {
        let (code, text) = said(&cluster, 2, &["kv", "put", "old", "no"]);
        if code == 3 { Ok(()) } else { Err(text) }
    });
    cluster.kill(2);
    for at in [1, 2] {
        strip(&cluster.data(at));
        cluster.join(at);
        cluster.ready(at);
    }
    let late = cluster.running(0, "late", 1);
    assert_eq!(late.len(), 1);
    let again = cluster.running(0, "solo", 1).remove(0);
    assert_eq!((pid(&again), &again["node"]), (pid(&row), &row["node"]), "adopted without a restart");
    assert_eq!(again["token"], row["token"]);
    assert_eq!(record(&record_of).iter().filter(|line| line.event == "start").count(), 1);
}

#[test]
fn a_copied_data_directory_is_refused_on_the_same_host() {
    let mut cluster = Cluster::prepared(2);
    cluster.start(0, &[]);
    cluster.ready(0);
    let (from, to) = (cluster.data(0), cluster.data(1));
    let copied = std::process::Command::new("cp").arg("-a").arg(&from).arg(&to).status().unwrap();
    assert!(copied.success());
    let text = std::fs::read_to_string(cluster.file(1)).unwrap();
    std::fs::write(cluster.file(1), text.replace("node_id: n2", "node_id: n1")).unwrap();
    cluster.start(1, &[]);
    let (code, text) = cluster.ended(1);
    assert!(code != 0 && text.contains("is a copy of the data of n1"), "{code}: {text}");
    assert!(cluster.is_ready(0), "the real one goes on");
}

//! Nodes that die, and what they find on their disk when they come back.

use bytes::Bytes;
use quorate::raft::{RaftLimits, RaftRole};

use super::cluster::{Cluster, texts};

#[test]
fn acknowledged_writes_survive_the_leaders_death_and_its_return() {
    let mut cluster = Cluster::of(3);
    let all = texts(0..20);
    for text in &all[..10] {
        cluster.write(text);
    }
    let first = cluster.leader();
    cluster.kill(first);
    for text in &all[10..] {
        assert_ne!(cluster.write(text), first);
    }
    let second = cluster.leader();
    assert_eq!(cluster.nodes[&second].applied(), all);

    cluster.start(first);
    cluster.has_applied(first, &all);
    cluster.wait("it follows", |cluster| {
        (cluster.nodes[&first].status().role == RaftRole::Follower).then_some(())
    });
}

#[test]
fn a_whole_cluster_that_died_at_once_comes_back_with_every_acknowledged_write() {
    let mut cluster = Cluster::of(3);
    let all = texts(0..30);
    for text in &all {
        cluster.write(text);
    }
    for id in 1..=3 {
        cluster.kill(id);
    }
    for id in 1..=3 {
        cluster.start(id);
    }
    cluster.write("afterwards");
    let expected: Vec<String> = all.into_iter().chain(["afterwards".to_owned()]).collect();
    for id in 1..=3 {
        cluster.has_applied(id, &expected);
    }
}

#[test]
fn a_restart_from_snapshot_and_log_gives_the_same_state() {
    let limits = RaftLimits { snapshot_entries: 20, keep_entries: 3, ..RaftLimits::default() };
    let mut cluster = Cluster::with(1, limits);
    for text in texts(0..75) {
        cluster.write(&text);
    }
    cluster
        .wait("the log's front is removed", |cluster| (cluster.nodes[&1].status().purged > 20).then_some(()));
    let before = cluster.nodes[&1].journal.lock().unwrap().clone();
    cluster.nodes.get_mut(&1).unwrap().raft.take().unwrap().shutdown();
    cluster.start(1);
    cluster.leader();
    assert_eq!(*cluster.nodes[&1].journal.lock().unwrap(), before);
}

#[test]
fn a_member_that_fell_far_behind_catches_up_by_a_snapshot() {
    let limits = RaftLimits { snapshot_entries: 30, keep_entries: 2, ..RaftLimits::default() };
    let mut cluster = Cluster::with(3, limits);
    cluster.write("write 0");
    let leader = cluster.leader();
    let behind = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(behind);
    let all = texts(0..100);
    for text in &all[1..] {
        cluster.write(text);
    }
    cluster.wait("what it lacks is gone from every log", |cluster| {
        cluster.running().all(|node| node.status().purged > 60).then_some(())
    });
    cluster.start(behind);
    cluster.has_applied(behind, &all);
    cluster
        .wait("it has the snapshot", |cluster| (cluster.nodes[&behind].status().snapshot > 60).then_some(()));
}

#[test]
fn a_wiped_disk_comes_back_as_a_new_node_and_gets_everything_by_snapshot() {
    let limits = RaftLimits { snapshot_entries: 30, keep_entries: 2, ..RaftLimits::default() };
    let mut cluster = Cluster::with(3, limits);
    let all = texts(0..100);
    for text in &all {
        cluster.write(text);
    }
    let leader = cluster.leader();
    let wiped = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(wiped);
    cluster.nodes.remove(&wiped);
    cluster.add(4);
    let leader = cluster.leader();
    let (handle, endpoints) = (cluster.nodes[&leader].handle(), cluster.nodes[&4].endpoints());
    cluster.runtime.block_on(handle.add_learner(4, endpoints)).unwrap();
    cluster.has_applied(4, &all);
    let voters = cluster.nodes.keys().copied().collect();
    cluster.runtime.block_on(handle.change_voters(voters)).unwrap();
    cluster.runtime.block_on(handle.remove(wiped)).unwrap();
    cluster.wait("the wiped one is gone and the new one votes", |cluster| {
        let status = cluster.nodes[&leader].status();
        (!status.endpoints.contains_key(&wiped) && status.voters.contains(&4)).then_some(())
    });
    assert!(cluster.nodes[&4].status().snapshot > 0);
}

#[test]
fn a_damaged_log_stops_the_start_with_an_error_that_names_the_folder() {
    let mut cluster = Cluster::of(1);
    for text in texts(0..5) {
        cluster.write(&text);
    }
    cluster.kill(1);
    {
        let db = sled::open(cluster.nodes[&1].dir.path().join("log")).unwrap();
        let (key, _) = db.scan_prefix(b"l").nth(3).unwrap().unwrap();
        db.insert(key, b"damaged").unwrap();
        db.flush().unwrap();
    }
    let error = format!("{:#}", cluster.try_start(1).unwrap_err());
    assert!(error.contains("log entry 3 is damaged"), "{error}");
    assert!(error.contains(cluster.nodes[&1].dir.path().to_str().unwrap()), "{error}");
}

#[test]
fn many_callers_at_once_share_few_entries() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let handle = cluster.nodes[&leader].handle();
    let before = cluster.nodes[&leader].status().last_log;
    let mut all = texts(0..2_000);
    let asked = all.iter().map(|text| handle.propose(Bytes::from(text.clone())));
    let answers = cluster.runtime.block_on(futures::future::join_all(asked));
    assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
    let entries = cluster.nodes[&leader].status().last_log - before;
    assert!(entries < 200, "{entries} entries for 2000 proposals");
    let mut applied = cluster.nodes[&leader].applied();
    applied.sort();
    all.sort();
    assert_eq!(applied, all);
}

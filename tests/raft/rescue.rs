//! A folder whose cluster is lost, a disk that is full.

use quorate::raft::{RaftLimits, force_quorum, inspect, seed};
use quorate_core::ids::ClusterId;

use super::cluster::{Cluster, texts};

fn test_cluster() -> ClusterId {
    ClusterId("test".to_owned())
}

#[test]
fn a_survivor_that_is_forced_leads_alone_with_all_that_it_had() {
    let mut cluster = Cluster::of(3);
    let all = texts(0..20);
    for text in &all {
        cluster.write(text);
    }
    cluster.has_applied(2, &all);
    for id in 1..=3 {
        cluster.kill(id);
    }
    let (dir, endpoints) = (cluster.nodes[&2].dir.path().to_owned(), cluster.nodes[&2].endpoints());
    let end = inspect(&dir, 2, &test_cluster()).unwrap().unwrap();
    assert_eq!(force_quorum(&dir, 2, &test_cluster(), endpoints).unwrap(), end);
    cluster.start(2);
    cluster.write("alone");
    let expected: Vec<String> = all.into_iter().chain(["alone".to_owned()]).collect();
    assert_eq!(cluster.nodes[&2].applied(), expected);
    assert_eq!(cluster.nodes[&2].status().voters, [2].into());
    assert!(cluster.nodes[&2].status().term > end.term);
}

#[test]
fn a_new_cluster_begins_with_the_state_that_it_was_seeded_with() {
    let mut cluster = Cluster::with(0, RaftLimits::default());
    cluster.add(1);
    cluster.kill(1);
    let node = cluster.nodes.get_mut(&1).unwrap();
    node.dir = tempfile::tempdir().unwrap();
    let (dir, endpoints) = (node.dir.path().to_owned(), node.endpoints());
    let state = serde_json::to_vec(&[(7u64, "old"), (9, "older")]).unwrap();
    seed(&dir, 1, &test_cluster(), endpoints.clone(), 500, &state).unwrap();
    let again = seed(&dir, 1, &test_cluster(), endpoints, 500, &state).unwrap_err().to_string();
    assert!(again.contains("already holds data"), "{again}");
    cluster.start(1);
    cluster.write("new");
    assert_eq!(cluster.nodes[&1].applied(), ["old", "older", "new"]);
    assert!(cluster.nodes[&1].status().applied > 500);
    cluster.add(2);
    let (leader, endpoints) = (cluster.nodes[&1].handle(), cluster.nodes[&2].endpoints());
    cluster.runtime.block_on(leader.add_learner(2, endpoints)).unwrap();
    cluster.has_applied(2, &["old".to_owned(), "older".to_owned(), "new".to_owned()]);
    cluster.kill(1);
    cluster.start(1);
    cluster.write("restarted");
    assert_eq!(cluster.nodes[&1].applied(), ["old", "older", "new", "restarted"]);
}

/// A small file system over a folder, for as long as it lives.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Only root may mount; elsewhere this says so, and fails where `mount` is required.
    fn over(dir: &std::path::Path) -> Option<Self> {
        if mount(&["-t", "tmpfs", "-o", "size=3m", "tmpfs"], dir) {
            return Some(Self(dir.to_owned()));
        }
        let required = std::env::var("QUORATE_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|part| part == "mount"), "file systems cannot be mounted here");
        println!("left out: file systems cannot be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

fn mount(options: &[&str], dir: &std::path::Path) -> bool {
    let done = std::process::Command::new("mount").args(options).arg(dir).output();
    done.is_ok_and(|done| done.status.success())
}

#[test]
fn a_full_disk_stops_raft_with_its_reason_and_loses_nothing_acknowledged() {
    let mut cluster = Cluster::with(0, RaftLimits::default());
    cluster.add(1);
    cluster.kill(1);
    let Some(disk) = SmallDisk::over(cluster.nodes[&1].dir.path()) else { return };
    cluster.start(1);
    let (handle, endpoints) = (cluster.nodes[&1].handle(), cluster.nodes[&1].endpoints());
    cluster.runtime.block_on(handle.bootstrap(endpoints)).unwrap();
    cluster.leader();
    let mut acknowledged = Vec::new();
    for at in 0..1_000 {
        let text = format!("{at} {}", "x".repeat(20_000));
        match cluster.runtime.block_on(handle.propose(text.clone().into())) {
            Ok(_) => acknowledged.push(text),
            Err(_) => break,
        }
    }
    assert!(acknowledged.len() < 1_000, "the disk never filled");
    let said = cluster.wait("raft says why it stopped", |cluster| cluster.nodes[&1].status().stopped);
    assert!(said.contains("No space left"), "{said}");
    cluster.kill(1);
    assert!(mount(&["-o", "remount,size=200m"], &disk.0));
    cluster.start(1);
    cluster.leader();
    let applied = cluster.nodes[&1].applied();
    assert!(applied.starts_with(&acknowledged), "{} of {}", applied.len(), acknowledged.len());
    cluster.write("room again");
    cluster.kill(1);
    drop(disk);
}

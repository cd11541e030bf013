//! A working leader under every partial cut: somebody always leads whom a majority hears and answers, as long as
//! there is such a one.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::raft::RaftRole;

use super::cluster::{Cluster, TIMING};

fn others(count: u64, of: u64) -> Vec<u64> {
    (1..=count).filter(|id| *id != of).collect()
}

/// Writes again through one of these, and says how long that took.
fn works_again(cluster: &Cluster, through: &[u64], cut: &str) -> u64 {
    let began = Instant::now();
    let leader = cluster.wait("a write is accepted", |cluster| {
        through.iter().copied().find(|id| {
            let handle = cluster.nodes[id].handle();
            cluster.runtime.block_on(handle.propose(Bytes::from_static(b"after the cut"))).is_ok()
        })
    });
    eprintln!("{cut}: a write {} ms after the cut", began.elapsed().as_millis());
    leader
}

fn one_leader_is_left(cluster: &Cluster) {
    cluster.faults.heal();
    cluster.wait("one leader is left", |cluster| {
        let leaders = cluster.running().filter(|node| node.status().role == RaftRole::Leader).count();
        (leaders == 1).then_some(())
    });
}

#[test]
fn a_leader_whose_words_arrive_nowhere_is_replaced() {
    let cluster = Cluster::of(3);
    let old = cluster.leader();
    for other in others(3, old) {
        cluster.faults.cut_one_way(old, other);
    }
    works_again(&cluster, &others(3, old), "nothing leaves the leader");
    one_leader_is_left(&cluster);
}

#[test]
fn a_leader_that_nothing_reaches_is_replaced() {
    let cluster = Cluster::of(3);
    let old = cluster.leader();
    for other in others(3, old) {
        cluster.faults.cut_one_way(other, old);
    }
    works_again(&cluster, &others(3, old), "nothing reaches the leader");
    one_leader_is_left(&cluster);
}

#[test]
fn the_only_node_that_still_reaches_a_majority_comes_to_lead() {
    let cluster = Cluster::of(5);
    let old = cluster.leader();
    let hub = if old == 5 { 4 } else { 5 };
    // Everybody hears the hub only: the old leader's signs of life must not keep it from being elected.
    for one in others(5, hub) {
        for other in others(5, hub).into_iter().filter(|other| *other > one) {
            cluster.faults.cut(one, other);
        }
    }
    works_again(&cluster, &[hub], "all but the hub are cut from one another");
    assert_eq!(cluster.leader(), hub);
    one_leader_is_left(&cluster);
}

#[test]
fn a_leader_that_loses_one_of_its_followers_keeps_its_place_and_its_term() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    cluster.write("before");
    let term = cluster.nodes[&leader].status().term;
    let lonely = others(3, leader)[0];
    // The third hears both: whoever lost the leader asks it for votes in vain, again and again.
    cluster.faults.cut(leader, lonely);
    // Long enough for it to ask several times.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(TIMING.election_max_ms * 4) {
        assert_eq!(cluster.write("while cut"), leader);
    }
    let status = cluster.nodes[&leader].status();
    assert_eq!((status.role, status.term), (RaftRole::Leader, term));
    one_leader_is_left(&cluster);
    assert_eq!(cluster.leader(), leader);
}

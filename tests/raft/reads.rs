//! Quorum rounds and what a cut-off node answers.

use std::time::Instant;

use bytes::Bytes;
use quorate::raft::{MAX_PROPOSAL_BYTES, ProposeError, RaftRole, ReadError};

use super::cluster::{Cluster, PATIENCE};

fn others(leader: u64) -> Vec<u64> {
    (1..=3).filter(|id| *id != leader).collect()
}

#[test]
fn an_isolated_leader_fails_reads_and_refuses_writes_while_the_others_elect() {
    let cluster = Cluster::of(3);
    cluster.write("before");
    let old = cluster.leader();
    let handle = cluster.nodes[&old].handle();
    for other in others(old) {
        cluster.faults.cut(old, other);
    }
    assert!(cluster.runtime.block_on(handle.read_index()).is_err());
    let new = cluster.leader();
    assert_ne!(new, old);
    cluster.wait("the cut-off leader says that there is no quorum", |cluster| {
        match cluster.runtime.block_on(handle.propose(Bytes::from_static(b"lost"))) {
            Err(ProposeError::NoQuorum) => Some(()),
            Err(ProposeError::Unknown) => None,
            other => panic!("an isolated leader answered {other:?}"),
        }
    });
    assert_eq!(cluster.runtime.block_on(handle.read_index()), Err(ReadError::NoQuorum));

    let leader = cluster.nodes[&new].handle();
    cluster.runtime.block_on(leader.propose(Bytes::from_static(b"after"))).unwrap();
    cluster.faults.heal();
    cluster.wait("the old leader follows and has the new write, its own lost", |cluster| {
        let follows = cluster.nodes[&old].status().role == RaftRole::Follower;
        (follows && cluster.nodes[&old].applied() == ["before", "after"]).then_some(())
    });
}

#[test]
fn a_read_is_not_answered_by_acknowledgements_of_appends_alone() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let handle = cluster.nodes[&leader].handle();
    cluster.faults.mute(leader);
    // Appends go on being acknowledged all the while.
    cluster.write("still works");
    assert_eq!(cluster.runtime.block_on(handle.read_index()), Err(ReadError::NoQuorum));
    cluster.faults.heal();
    let index = cluster.runtime.block_on(handle.read_index()).unwrap();
    assert!(cluster.nodes[&leader].status().applied >= index);
}

#[test]
fn a_read_sees_every_write_acknowledged_before_it() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let handle = cluster.nodes[&leader].handle();
    for at in 0..50 {
        cluster.runtime.block_on(handle.propose(Bytes::from(format!("{at}")))).unwrap();
        cluster.runtime.block_on(handle.read_index()).unwrap();
        assert_eq!(cluster.nodes[&leader].applied().len(), at + 1);
    }
}

#[test]
fn many_readers_share_rounds() {
    let cluster = Cluster::of(3);
    let handle = cluster.nodes[&cluster.leader()].handle();
    let began = Instant::now();
    let reads = (0..5_000).map(|_| handle.read_index());
    let outcomes = cluster.runtime.block_on(futures::future::join_all(reads));
    assert!(outcomes.iter().all(Result::is_ok));
    // One round each would be 5,000 round trips to two peers.
    assert!(began.elapsed() < PATIENCE / 6, "{:?}", began.elapsed());
}

#[test]
fn a_follower_names_the_leader_and_a_lonely_one_says_that_there_is_no_quorum() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.leader();
    let follower = others(leader)[0];
    let handle = cluster.nodes[&follower].handle();
    let here = ProposeError::NotLeader { leader: Some(leader) };
    cluster.wait("the follower names the leader", |cluster| {
        let answer = cluster.runtime.block_on(handle.propose(Bytes::from_static(b"x")));
        (answer.as_ref() == Err(&here)).then_some(())
    });
    let read = cluster.runtime.block_on(handle.read_index());
    assert_eq!(read, Err(ReadError::NotLeader { leader: Some(leader) }));
    for other in others(follower) {
        cluster.kill(other);
    }
    cluster.wait("the lonely one says that there is no quorum", |cluster| {
        let answer = cluster.runtime.block_on(handle.propose(Bytes::from_static(b"x")));
        (answer == Err(ProposeError::NoQuorum)).then_some(())
    });
}

#[test]
fn a_proposal_that_is_too_large_is_refused() {
    let cluster = Cluster::of(1);
    let handle = cluster.nodes[&1].handle();
    let fits = Bytes::from(vec![b'x'; MAX_PROPOSAL_BYTES]);
    let large = Bytes::from(vec![b'x'; MAX_PROPOSAL_BYTES + 1]);
    cluster.runtime.block_on(handle.propose(fits)).unwrap();
    let refused = cluster.runtime.block_on(handle.propose(large));
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
}

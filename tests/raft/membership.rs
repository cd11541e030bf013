//! Leadership and membership, changed on request.

use quorate::raft::{ChangeError, RaftRole};

use super::cluster::Cluster;

#[test]
fn leadership_is_handed_over_on_request() {
    let cluster = Cluster::of(3);
    let old = cluster.leader();
    let to = if old == 2 { 3 } else { 2 };
    cluster.write("before");
    let handle = cluster.nodes[&old].handle();
    cluster.runtime.block_on(handle.transfer_leader(to)).unwrap();
    assert_eq!(cluster.leader(), to);
    let again = cluster.runtime.block_on(handle.transfer_leader(old));
    assert!(matches!(again, Err(ChangeError::NotLeader { .. })), "{again:?}");
    let nobody = cluster.runtime.block_on(cluster.nodes[&to].handle().transfer_leader(9));
    assert!(matches!(nobody, Err(ChangeError::Refused { .. })), "{nobody:?}");
}

#[test]
fn bootstrap_twice_changes_nothing() {
    let cluster = Cluster::of(3);
    cluster.write("before");
    let handle = cluster.nodes[&1].handle();
    cluster.runtime.block_on(handle.bootstrap(cluster.nodes[&1].endpoints())).unwrap();
    assert_eq!(cluster.nodes[&1].status().voters.len(), 3);
}

#[test]
fn a_learner_gets_the_log_without_a_vote_and_a_voter_can_step_back() {
    let mut cluster = Cluster::of(3);
    cluster.write("write");
    cluster.add(4);
    let leader = cluster.leader();
    let handle = cluster.nodes[&leader].handle();
    let endpoints = cluster.nodes[&4].endpoints();
    cluster.runtime.block_on(handle.add_learner(4, endpoints.clone())).unwrap();
    cluster.has_applied(4, &["write".to_owned()]);
    let status = cluster.wait("the learner shows and lags nothing", |cluster| {
        let status = cluster.nodes[&leader].status();
        (status.lag.get(&4) == Some(&0)).then_some(status)
    });
    assert_eq!(status.endpoints[&4], endpoints);
    assert!(status.learners.contains(&4) && !status.voters.contains(&4));
    assert_eq!(cluster.nodes[&4].status().role, RaftRole::Learner);

    let missing = cluster.runtime.block_on(handle.change_voters([1, 2, 3, 9].into()));
    assert!(matches!(missing, Err(ChangeError::Refused { .. })), "{missing:?}");

    let back = (1..=3).find(|id| *id != leader).unwrap();
    let voters = (1..=4).filter(|id| *id != back).collect();
    cluster.runtime.block_on(handle.change_voters(voters)).unwrap();
    cluster.wait("the voter became a learner", |cluster| {
        (cluster.nodes[&back].status().role == RaftRole::Learner).then_some(())
    });
}

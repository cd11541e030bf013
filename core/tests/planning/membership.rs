//! Who votes, who leads, who is forgotten.

use crate::world::{World, node};
use quorate_core::command::Command;
use quorate_core::ids::RaftId;
use quorate_core::state::MembershipStep;

fn ids(world: &World, names: &[&str]) -> Vec<RaftId> {
    let mut ids: Vec<RaftId> = names.iter().map(|name| world.raft_id(name)).collect();
    ids.sort();
    ids
}

fn members(world: &mut World, voters: &[&str], learners: &[&str]) {
    world.observed.raft.voters = ids(world, voters);
    world.observed.raft.learners = ids(world, learners);
}

fn step(world: &World) -> Option<MembershipStep> {
    world.plan().membership
}

#[test]
fn every_admitted_node_learns_and_an_odd_number_votes() {
    let mut world = World::new(&["n1", "n2"]);
    members(&mut world, &["n1"], &[]);
    assert_eq!(step(&world), Some(MembershipStep::AddLearner(world.raft_id("n2"))));
    members(&mut world, &["n1"], &["n2"]);
    assert_eq!(step(&world), None, "two voters would be worse than one");
    world.admit("n3", |_| {});
    members(&mut world, &["n1"], &["n2", "n3"]);
    assert_eq!(step(&world), Some(MembershipStep::SetVoters(ids(&world, &["n1", "n2", "n3"]))));
}

#[test]
fn a_node_that_was_lost_before_it_got_the_log_gets_it_after_those_that_are_not() {
    let mut world = World::new(&["n1", "n2", "n3", "n4"]);
    members(&mut world, &["n1", "n2"], &[]);
    world.lose("n3");
    assert_eq!(step(&world), Some(MembershipStep::AddLearner(world.raft_id("n4"))));
    members(&mut world, &["n1", "n2"], &["n4"]);
    assert_eq!(step(&world), Some(MembershipStep::AddLearner(world.raft_id("n3"))));
}

#[test]
fn a_learner_votes_only_once_it_has_caught_up() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    members(&mut world, &["n1"], &["n2", "n3"]);
    let late = world.raft_id("n3");
    world.observed.raft.lag.insert(late, 5_000);
    assert_eq!(step(&world), None);
    world.observed.raft.lag.insert(late, 3);
    assert!(matches!(step(&world), Some(MembershipStep::SetVoters(_))));
}

#[test]
fn a_lost_voter_is_replaced_only_where_a_learner_can_take_over() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.lose("n3");
    assert_eq!(step(&world), None, "it keeps its vote");
    world.admit("n4", |_| {});
    members(&mut world, &["n1", "n2", "n3"], &["n4"]);
    assert_eq!(step(&world), Some(MembershipStep::SetVoters(ids(&world, &["n1", "n2", "n4"]))));
    members(&mut world, &["n1", "n2", "n4"], &["n3"]);
    assert_eq!(step(&world), None, "a lost learner stays one");
}

#[test]
fn voters_are_spread_over_zones() {
    let mut world = World::new(&["n1", "n2", "n3", "n4"]);
    for (name, zone) in [("n1", "a"), ("n2", "a"), ("n3", "b"), ("n4", "c")] {
        world.facts(name, |facts| drop(facts.labels.insert("zone".to_owned(), zone.to_owned())));
    }
    members(&mut world, &["n1"], &["n2", "n3", "n4"]);
    assert_eq!(step(&world), Some(MembershipStep::SetVoters(ids(&world, &["n1", "n3", "n4"]))));
}

#[test]
fn a_replaced_disk_votes_in_place_of_the_old_one_which_is_forgotten() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    let old = world.raft_id("n3");
    world.lose("n3");
    world.admit("n3", |admission| admission.disk.0 = "another".to_owned());
    let voters = vec![world.raft_id("n1"), world.raft_id("n2"), old];
    world.observed.raft.voters = voters.clone();
    assert_eq!(step(&world), Some(MembershipStep::AddLearner(world.raft_id("n3"))));
    world.observed.raft.learners = ids(&world, &["n3"]);
    world.obey();
    assert_eq!(step(&world), Some(MembershipStep::SetVoters(ids(&world, &["n1", "n2", "n3"]))));
    members(&mut world, &["n1", "n2", "n3"], &[]);
    world.observed.raft.learners = vec![old];
    assert_eq!(step(&world), Some(MembershipStep::Remove(old)));
}

#[test]
fn a_leaving_node_is_emptied_then_demoted_then_removed_then_forgotten() {
    let mut world = World::new(&["n1", "n2", "n3", "n4"]);
    members(&mut world, &["n1", "n2", "n3"], &["n4"]);
    world.deploy("name: web\nreplicas: 3\n");
    world.settle();
    assert_eq!(world.at("web/1"), "n2");
    world.ask(Command::Leave { node: node("n2") });
    world.settle();
    assert_eq!(world.state.claims_on(&node("n2")).count(), 0);
    assert_eq!(step(&world), Some(MembershipStep::SetVoters(ids(&world, &["n1", "n3", "n4"]))));
    members(&mut world, &["n1", "n3", "n4"], &["n2"]);
    assert_eq!(step(&world), Some(MembershipStep::Remove(world.raft_id("n2"))));
    assert!(world.state.nodes.contains_key(&node("n2")));
    members(&mut world, &["n1", "n3", "n4"], &[]);
    world.up.remove(&node("n2"));
    world.settle();
    assert!(!world.state.nodes.contains_key(&node("n2")));
}

#[test]
fn the_heaviest_healthy_voter_leads_and_a_witness_hands_over() {
    let mut world = World::new(&["n1", "n2"]);
    world.admit("n3", |admission| admission.weight = 9);
    world.pass(5_000);
    assert_eq!(step(&world), Some(MembershipStep::TransferTo(world.raft_id("n3"))));
    world.kill("n3");
    world.pass(3_000);
    assert_eq!(step(&world), None, "a suspect does not lead");
    world.admit("n1", |admission| {
        admission.witness = true;
        admission.disk.0 = "disk of n1".to_owned();
    });
    world.observed.raft.voters = ids(&world, &["n1", "n2", "n3"]);
    assert_eq!(step(&world), Some(MembershipStep::TransferTo(world.raft_id("n2"))));
}

#[test]
fn voters_change_only_while_a_majority_of_the_new_ones_is_heard() {
    let mut world = World::new(&["n1", "n2"]);
    world.admit("n3", |admission| admission.witness = true);
    world.kill("n3");
    world.observed.nodes.remove(&node("n3"));
    world.observed.raft.leading_since = Some(world.observed.now);
    world.ask(Command::Leave { node: node("n2") });
    assert_eq!(step(&world), None, "n1 does not know yet whether n3 is there");
    world.thaw("n3");
    assert_eq!(step(&world), Some(MembershipStep::SetVoters(ids(&world, &["n3"]))));
}

#[test]
fn a_lost_leader_that_is_to_be_fenced_gives_others_a_vote_and_hands_over() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.fence_method("n1");
    let snapshot = world.state.clone();
    world.recover_with(&snapshot, vec![node("n1")]);
    world.ask(Command::Fence { node: node("n1"), reason: "its disk fails".to_owned() });
    for name in ["n2", "n3"] {
        world.admit(name, |admission| admission.disk.0 = format!("another of {name}"));
    }
    world.settle();
    assert!(world.state.nodes.get(&node("n1")).unwrap().lost(), "it is not let back in");
    members(&mut world, &["n1"], &["n2", "n3"]);
    assert_eq!(step(&world), Some(MembershipStep::SetVoters(ids(&world, &["n1", "n2", "n3"]))));
    members(&mut world, &["n1", "n2", "n3"], &[]);
    assert!(matches!(step(&world), Some(MembershipStep::TransferTo(_))));
}

#[test]
fn whoever_does_not_lead_plans_no_membership() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    members(&mut world, &["n1"], &["n2", "n3"]);
    world.observed.raft.leading = false;
    assert_eq!(step(&world), None);
}

//! After a restore or a forced quorum: what runs is adopted, what is exclusive waits for everybody's word.

use quorate_core::command::Command;
use quorate_core::ids::DiskId;
use quorate_core::state::{MembershipStep, Subject, WaitCause};

use crate::world::{World, node};

const SPEC: &str = "name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n";

fn waits_for(world: &World, at: &str) -> Vec<String> {
    let waits = world.waits(at);
    let unheard = waits.iter().find_map(|cause| match cause {
        WaitCause::Recovery { unheard, .. } => Some(unheard.clone()),
        _ => None,
    });
    unheard.unwrap_or_default().into_iter().map(|(node, _)| node.to_string()).collect()
}

#[test]
fn what_moved_since_the_snapshot_is_adopted_where_it_runs() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy(SPEC);
    world.deploy("name: web\nreplicas: 3\nplacement: {spread: require}\n");
    world.settle();
    assert_eq!(world.at("db/0"), "n2");
    let snapshot = world.state.clone();
    world.ask(Command::Migrate { slot: "db/0".parse().unwrap(), to: Some(node("n3")), parent: None });
    world.settle();
    assert_eq!(world.at("db/0"), "n3");
    let (moved, web) = (world.claim("db/0").token, world.claim("web/1").token);
    world.recover(&snapshot);
    world.log.clear();
    world.settle();
    assert_eq!((world.at("db/0").as_str(), world.claim("db/0").token), ("n3", moved));
    assert_eq!(world.claim("web/1").token, web);
    let granted = world.log.iter().filter(|command| matches!(command, Command::Grant { .. })).count();
    assert_eq!(granted, 0, "nothing was restarted: {:?}", world.log);
    assert!(world.state.recovering().is_none());
}

#[test]
fn an_exclusive_slot_waits_for_the_silent_node_and_says_so() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    let snapshot = world.state.clone();
    world.deploy(SPEC);
    world.settle();
    // n2 runs what the snapshot has never heard of.
    world.kill("n2");
    world.pass(10_000);
    world.recover(&snapshot);
    world.deploy(SPEC);
    world.deploy("name: web\nreplicas: 2\n");
    world.settle();
    assert_eq!(waits_for(&world, "db/0"), ["n2"]);
    assert_eq!(world.at("db/0"), "");
    assert_ne!(world.at("web/0"), "", "what is not exclusive waits for nobody");
    world.pass(600_000);
    world.settle();
    assert_eq!(world.at("db/0"), "", "silence proves nothing here");
    world.thaw("n2");
    world.settle();
    assert_eq!(world.at("db/0"), "n2");
    assert!(waits_for(&world, "db/0").is_empty());
}

#[test]
fn nobody_is_fenced_by_itself_after_a_recovery_and_an_attestation_frees_what_waits() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.deploy(SPEC);
    world.settle();
    let snapshot = world.state.clone();
    world.kill("n2");
    world.pass(10_000);
    world.recover(&snapshot);
    world.log.clear();
    world.settle();
    world.pass(60_000);
    world.settle();
    assert!(!world.log.iter().any(|command| matches!(command, Command::Fence { .. })), "{:?}", world.log);
    assert_eq!(world.at("db/0"), "n2");
    world.ask(Command::AttestDead { node: node("n2"), reason: "burnt".to_owned() });
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
}

#[test]
fn a_guard_that_does_not_tell_what_runs_is_waited_for() {
    let mut world = World::new(&["n1", "n2"]);
    let snapshot = world.state.clone();
    world.recover(&snapshot);
    world.reports("n2", |report| report.guard.answering = false);
    world.settle();
    assert_eq!(world.state.unsettled().map(|(node, _)| node.to_string()).collect::<Vec<_>>(), ["n2"]);
    world.reports("n2", |report| report.guard.answering = true);
    world.settle();
    assert!(world.state.recovering().is_none());
}

#[test]
fn a_node_of_before_a_forced_quorum_gets_no_log_and_is_not_let_back_in_before_it_joins_anew() {
    let mut world = World::new(&["n1", "n2", "n3", "n4", "n5"]);
    let (old, snapshot) = (world.raft_id("n3"), world.state.clone());
    ["n3", "n4", "n5"].iter().for_each(|name| world.kill(name));
    world.recover_with(&snapshot, vec![node("n1"), node("n2")]);
    let voters = vec![world.raft_id("n1"), world.raft_id("n2")];
    world.observed.raft.voters = voters.clone();
    world.settle();
    assert_eq!(world.plan().membership, None, "nobody of before is a member");
    // It is heard all the same: it is answered by nobody, and its line says what to do.
    world.thaw("n3");
    world.log.clear();
    world.settle();
    assert_eq!((world.plan().membership, world.log.as_slice()), (None, &[][..]));
    let waiting = world.plan().waiting;
    let lines = waiting.get(&Subject::Node(node("n3"))).expect("it says why");
    assert!(lines.iter().any(|line| line.cause.to_string().contains("join again with a new token")));
    // Even where it is a member by mistake, it is taken out and never votes.
    world.observed.raft.learners = vec![old];
    assert_eq!(world.plan().membership, Some(MembershipStep::Remove(old)));
    world.observed.raft.learners.clear();
    world.admit("n3", |admission| admission.disk = DiskId("another".to_owned()));
    world.observed.raft.voters = voters;
    world.settle();
    assert_eq!(world.plan().membership, Some(MembershipStep::AddLearner(world.raft_id("n3"))));
    assert_eq!(world.state.unsettled().map(|(node, _)| node.to_string()).collect::<Vec<_>>(), ["n4", "n5"]);
}

#[test]
fn a_node_that_was_leaving_is_not_forgotten_before_it_is_known_what_it_runs() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.kill("n3");
    world.pass(10_000);
    world.settle();
    world.ask(Command::Leave { node: node("n3") });
    let snapshot = world.state.clone();
    world.recover_with(&snapshot, vec![node("n1"), node("n2")]);
    world.observed.raft.voters = vec![world.raft_id("n1"), world.raft_id("n2")];
    world.settle();
    assert!(world.state.nodes.contains_key(&node("n3")), "who knows what runs there?");
    world.ask(Command::AttestDead { node: node("n3"), reason: "burnt".to_owned() });
    world.settle();
    assert!(!world.state.nodes.contains_key(&node("n3")));
}

#[test]
fn a_node_that_leaves_while_it_joins_anew_gets_the_log_until_it_told_what_it_runs() {
    let mut world = World::new(&["n1", "n2"]);
    let snapshot = world.state.clone();
    world.kill("n2");
    world.recover_with(&snapshot, vec![node("n1")]);
    world.observed.raft.voters = vec![world.raft_id("n1")];
    world.settle();
    world.admit("n2", |admission| admission.disk = DiskId("another".to_owned()));
    world.kill("n2");
    world.ask(Command::Leave { node: node("n2") });
    let id = world.raft_id("n2");
    world.observed.raft.voters = vec![world.raft_id("n1")];
    assert_eq!(world.plan().membership, Some(MembershipStep::AddLearner(id)));
    world.observed.raft.learners = vec![id];
    assert_eq!(world.plan().membership, None, "who else could tell what runs there?");
    world.thaw("n2");
    world.settle();
    assert_eq!(world.state.unsettled().count(), 0);
    assert_eq!(world.plan().membership, Some(MembershipStep::Remove(id)));
}

#[test]
fn a_node_that_joins_anew_on_a_new_disk_keeps_what_it_runs() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy(SPEC);
    world.settle();
    let (snapshot, token) = (world.state.clone(), world.claim("db/0").token);
    world.recover_with(&snapshot, vec![node("n1")]);
    world.log.clear();
    world.admit("n2", |admission| admission.disk = DiskId("another".to_owned()));
    world.settle();
    assert_eq!((world.at("db/0").as_str(), world.claim("db/0").token), ("n2", token));
    let stopped = world.log.iter().any(|command| matches!(command, Command::StopClaim { .. }));
    assert!(!stopped, "{:?}", world.log);
}

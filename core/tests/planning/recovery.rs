//! After a restore or a forced quorum: what runs is adopted, what is exclusive waits for everybody's word.

use quorate_core::command::Command;
use quorate_core::state::WaitCause;

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

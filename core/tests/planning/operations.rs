//! Migrations, drains and rollouts from their beginning to every end.

use crate::world::{World, node, slot};
use quorate_core::command::{Command, OperationStep};
use quorate_core::ids::{NodeId, OperationId};
use quorate_core::state::{OperationResult, Subject, WaitCause};

const ON_N1: &str = "placement: {affinity: [{constraint: \"node == n1\", weight: 50}]}\n";

fn migrate(world: &mut World, of: &str, to: Option<&str>) {
    world.ask(Command::Migrate { slot: slot(of), to: to.map(node), parent: None });
}

/// Steps and obeys until a command like this was proposed.
pub fn until(world: &mut World, reached: impl Fn(&Command) -> bool) {
    for _ in 0..100 {
        world.obey();
        let commands = world.step();
        assert!(!commands.is_empty(), "never reached; log: {:?}", world.log);
        if commands.iter().any(&reached) {
            return;
        }
    }
    panic!("never reached");
}

pub fn is_step(step: fn(&OperationStep) -> bool) -> impl Fn(&Command) -> bool {
    move |command| matches!(command, Command::Advance { step: taken, .. } if step(taken))
}

/// In how many claims could a slot run at most, at any moment of the log?
fn grants(world: &World, of: &str) -> Vec<NodeId> {
    let of = slot(of);
    let granted = |command: &Command| match command {
        Command::Grant { slot, node, .. } if *slot == of => Some(node.clone()),
        _ => None,
    };
    world.log.iter().filter_map(granted).collect()
}

#[test]
fn a_migration_copies_state_twice_and_flips_once_the_source_has_stopped() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy(&format!("name: db\nstate: {{dir: data}}\n{ON_N1}"));
    world.settle();
    let before = world.claim("db/0").token;
    migrate(&mut world, "db/0", Some("n3"));
    until(&mut world, is_step(|step| matches!(step, OperationStep::Copied { pass: 1, .. })));
    assert_eq!(world.at("db/0"), "n1", "it runs while it is copied");
    until(&mut world, is_step(|step| matches!(step, OperationStep::Copied { pass: 2, .. })));
    assert!(world.state.slots.get(&slot("db/0")).unwrap().claims.is_empty());
    world.settle();
    assert_eq!(world.at("db/0"), "n3");
    assert!(world.claim("db/0").token > before);
    assert_eq!(world.result(1), Some(&OperationResult::Done));
    assert_eq!(world.migration(1).bytes, 20);
}

#[test]
fn a_target_that_never_gets_healthy_gives_the_slot_back_with_its_state() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy(&format!("name: db\nstate: {{dir: data}}\n{ON_N1}"));
    world.settle();
    let before = world.claim("db/0").token;
    world.sick.insert(node("n2"));
    migrate(&mut world, "db/0", None);
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
    assert!(world.claim("db/0").token > before, "a new grant, never the old token");
    assert!(matches!(world.result(1), Some(OperationResult::RolledBack(why)) if why.contains("status 500")));
    assert_eq!(world.migration(1).passes, 3, "what the target wrote was copied back");
    assert_eq!(grants(&world, "db/0"), [node("n1"), node("n2"), node("n1")]);
}

#[test]
fn a_failed_copy_leaves_the_source_untouched() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy(&format!("name: db\nstate: {{dir: data}}\n{ON_N1}"));
    world.settle();
    let before = world.claim("db/0").clone();
    world.copies = false;
    migrate(&mut world, "db/0", None);
    world.settle();
    let waiting = &world.plan().waiting[&Subject::Operation(OperationId(1))];
    assert!(matches!(waiting[0].cause, WaitCause::Copying { .. }));
    world.lose("n2");
    world.settle();
    assert_eq!(world.claim("db/0"), &before);
    assert_eq!(world.result(1), None, "another target may come");
    world.ask(Command::CancelOperation { operation: OperationId(1) });
    world.settle();
    assert_eq!((world.result(1), world.claim("db/0")), (Some(&OperationResult::Cancelled), &before));
}

#[test]
fn a_source_lost_in_the_switchover_leaves_the_slot_to_failover() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.fence_method("n2");
    world.deploy(
        "name: db\nstate: {dir: data}\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n",
    );
    world.settle();
    migrate(&mut world, "db/0", Some("n3"));
    until(&mut world, is_step(|step| matches!(step, OperationStep::Switchover)));
    world.kill("n2");
    world.pass(5_000);
    world.settle();
    assert!(matches!(world.result(1), Some(OperationResult::Failed(why)) if why.contains("n2 was lost")));
    assert_eq!(world.at("db/0"), "n1", "fenced, then placed like any other");
}

#[test]
fn a_target_lost_after_the_flip_is_given_back_only_with_evidence() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy(&format!("name: db\n{ON_N1}"));
    world.settle();
    migrate(&mut world, "db/0", None);
    until(&mut world, |command| matches!(command, Command::Grant { .. }));
    world.kill("n2");
    world.pass(5_000);
    world.settle();
    assert_eq!(world.at("db/0"), "", "told to stop, but nothing proves that it did");
    assert!(world.waits("db/0").iter().any(|cause| matches!(cause, WaitCause::Evidence { .. })));
    world.ask(Command::AttestDead { node: node("n2"), reason: "seen dead".to_owned() });
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
    assert!(matches!(world.result(1), Some(OperationResult::RolledBack(_))));
}

#[test]
fn a_wanted_target_that_refuses_fails_the_migration_with_its_reason() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy(&format!("name: db\nresources: {{cpu: 2}}\n{ON_N1}"));
    world.settle();
    world.facts("n2", |facts| facts.capacity.cpu = quorate_core::units::CpuMillis(500));
    migrate(&mut world, "db/0", Some("n2"));
    world.settle();
    let why = "n2 cannot take db/0: cpu: 2.00 wanted, 0.50 free";
    assert_eq!(world.result(1), Some(&OperationResult::Failed(why.to_owned())));
}

#[test]
fn a_migration_cancelled_after_its_stop_starts_at_the_source_again() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy(&format!("name: db\n{ON_N1}"));
    world.settle();
    migrate(&mut world, "db/0", None);
    until(&mut world, is_step(|step| matches!(step, OperationStep::Switchover)));
    world.ask(Command::CancelOperation { operation: OperationId(1) });
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
    assert_eq!(grants(&world, "db/0"), [node("n1"), node("n1")]);
    assert!(world.result(1).is_some());
}

#[test]
fn a_drain_moves_everything_by_priority_within_its_limit() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    for (name, priority) in [("a", "low"), ("b", "critical"), ("c", "normal")] {
        world.deploy(&format!("name: {name}\npriority: {priority}\n{ON_N1}"));
    }
    world.settle();
    world.ask(Command::Drain { node: node("n1"), max_in_flight: 1 });
    world.obey();
    assert!(matches!(&world.step()[..], [Command::Migrate { slot: first, .. }] if *first == slot("b/0")));
    assert!(matches!(world.waits("a/0")[..], [WaitCause::Throttled { .. }]));
    let waiting = world.plan().waiting;
    let lines = &waiting[&Subject::Operation(OperationId(1))];
    assert!(lines.iter().any(|line| matches!(line.cause, WaitCause::Throttled { .. })), "{lines:?}");
    world.settle();
    assert_eq!(world.state.claims_on(&node("n1")).count(), 0);
    assert_eq!(world.result(1), Some(&OperationResult::Done));
    let order: Vec<String> = world
        .log
        .iter()
        .filter_map(|command| match command {
            Command::Migrate { slot, .. } => Some(slot.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["b/0", "c/0", "a/0"]);
}

#[test]
fn a_drain_keeps_all_but_one_copy_of_a_service_up_at_any_moment() {
    let mut world = World::new(&["n1", "n2", "n3", "n4"]);
    world.deploy("name: web\nreplicas: 3\n");
    world.settle();
    world.ask(Command::Drain { node: node("n1"), max_in_flight: 5 });
    world.ask(Command::Drain { node: node("n2"), max_in_flight: 5 });
    for _ in 0..100 {
        world.obey();
        world.step();
        let up = (0..3).filter(|ordinal| !world.at(&format!("web/{ordinal}")).is_empty()).count();
        assert!(up >= 2, "only {up} of 3 stand");
    }
    assert!(world.state.operations.values().all(|operation| operation.ended.is_some()));
    assert_eq!(world.state.claims_on(&node("n1")).count() + world.state.claims_on(&node("n2")).count(), 0);
}

#[test]
fn a_drain_names_what_blocks_it_and_ends_when_room_comes() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy(&format!("name: big\nresources: {{cpu: 3}}\n{ON_N1}"));
    world.deploy("name: other\nresources: {cpu: 3}\n");
    world.settle();
    world.ask(Command::Drain { node: node("n1"), max_in_flight: 2 });
    world.settle();
    let waiting = &world.plan().waiting[&Subject::Operation(OperationId(1))];
    assert!(
        matches!(&waiting[0].cause, WaitCause::NoNodeFits { refusals } if refusals.len() == 2),
        "{waiting:?}"
    );
    world.admit("n3", |_| {});
    world.settle();
    assert_eq!(world.at("big/0"), "n3");
    assert_eq!(world.result(1), Some(&OperationResult::Done));
}

#[test]
fn a_drain_gives_up_a_slot_after_three_failed_moves_and_says_why() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy(&format!("name: db\n{ON_N1}"));
    world.settle();
    world.sick.insert(node("n2"));
    world.ask(Command::Drain { node: node("n1"), max_in_flight: 2 });
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
    assert!(
        matches!(world.result(1), Some(OperationResult::Failed(why)) if why.contains("db/0 could not be moved"))
    );
    assert_eq!(grants(&world, "db/0").len(), 1 + 3 * 2);
}

#[test]
fn uncordon_calls_off_a_drain_and_the_moves_that_have_not_flipped() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy(&format!("name: a\nstate: {{dir: data}}\n{ON_N1}"));
    world.deploy(&format!("name: b\n{ON_N1}"));
    world.settle();
    world.copies = false;
    world.ask(Command::Drain { node: node("n1"), max_in_flight: 2 });
    until(&mut world, |command| matches!(command, Command::Grant { .. }));
    world.ask(Command::Uncordon { node: node("n1") });
    world.settle();
    assert_eq!((world.at("a/0"), world.at("b/0") != "n1"), ("n1".to_owned(), true));
    assert!(!world.state.nodes.get(&node("n1")).unwrap().cordoned);
    assert_eq!(world.result(1), Some(&OperationResult::Cancelled));
}

#[test]
fn a_rollout_replaces_one_copy_at_a_time_on_its_own_node() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy("name: web\nreplicas: 3\n");
    world.settle();
    world.ask(Command::Restart { service: "web".parse().unwrap() });
    for _ in 0..60 {
        world.obey();
        world.step();
        let up = (0..3).filter(|ordinal| !world.at(&format!("web/{ordinal}")).is_empty()).count();
        assert!(up >= 2, "only {up} of 3 stand");
    }
    assert_eq!(world.result(1), Some(&OperationResult::Done));
    assert_eq!([world.at("web/0"), world.at("web/1"), world.at("web/2")], ["n1", "n2", "n3"]);
    assert!((0..3).all(|ordinal| world.claim(&format!("web/{ordinal}")).version.0 == 2));
}

#[test]
fn a_rollout_that_does_not_get_healthy_goes_no_further() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy("name: web\nreplicas: 3\n");
    world.settle();
    world.ask(Command::Restart { service: "web".parse().unwrap() });
    world.step();
    world.sick.insert(node("n1"));
    world.settle();
    let old = (0..3).filter(|ordinal| world.claim(&format!("web/{ordinal}")).version.0 == 1).count();
    assert_eq!(old, 2);
    let waiting = &world.plan().waiting[&Subject::Operation(OperationId(1))];
    let WaitCause::Throttled { detail } = &waiting[0].cause else { panic!("{waiting:?}") };
    assert_eq!(detail, "2 healthy copies of web must stay, and web/0 is not healthy now");
}

#[test]
fn a_service_that_became_exclusive_grants_nothing_until_each_slot_has_one_claim() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy("name: web\nreplicas: 2\n");
    world.settle();
    world.lose("n2");
    world.settle();
    assert_eq!(world.at("web/1").split(',').count(), 2);
    world.deploy("name: web\nreplicas: 3\nexclusive: true\n");
    world.settle();
    assert_eq!(world.at("web/2"), "");
    assert!(
        matches!(&world.waits("web/2")[..], [WaitCause::Other { detail }] if detail.contains("became exclusive"))
    );
    world.ask(Command::AttestDead { node: node("n2"), reason: "dead".to_owned() });
    world.settle();
    assert_ne!(world.at("web/2"), "");
}

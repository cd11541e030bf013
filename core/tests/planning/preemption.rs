//! Room for what matters more: who stops for whom, where, and that nobody stops for nothing.

use crate::world::{World, node, slot};
use quorate_core::command::Command;
use quorate_core::state::WaitCause;

const TWO: [&str; 2] = ["n1", "n2"];

/// The slots that were told to stop so far.
fn stopped(world: &World) -> Vec<String> {
    let stops = world.log.iter().filter_map(|command| match command {
        Command::StopClaim { slot, .. } => Some(slot.to_string()),
        _ => None,
    });
    stops.collect()
}

fn service(world: &mut World, name: &str, priority: &str, cpu: u32) {
    world.deploy(&format!("name: {name}\npriority: {priority}\nresources: {{cpu: {cpu}}}\n"));
}

#[test]
fn the_less_important_stops_for_the_more_important_and_says_for_whom() {
    let mut world = World::new(&["n1"]);
    service(&mut world, "batch", "low", 3);
    world.settle();
    service(&mut world, "db", "critical", 2);
    let commands = world.step();
    let [Command::StopClaim { slot: stopped, because, .. }] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!((stopped, because.as_str()), (&slot("batch/0"), "db/0 (critical) needs its room on n1"));
    // Until it has stopped the other waits, and nobody else is stopped.
    let waits = world.waits("db/0");
    let [WaitCause::Other { detail }] = waits.as_slice() else { panic!("{waits:?}") };
    assert_eq!(detail, "room is made on n1: batch/0 stops first");
    assert!(world.step().is_empty());
    world.settle();
    assert_eq!((world.at("db/0"), world.at("batch/0")), ("n1".to_owned(), String::new()));
    assert!(matches!(world.waits("batch/0")[..], [WaitCause::NoNodeFits { .. }]));
    // It comes back once there is room.
    world.ask(Command::DeleteService { service: slot("db/0").service });
    world.settle();
    assert_eq!(world.at("batch/0"), "n1");
}

#[test]
fn nobody_stops_for_an_equal_or_where_it_would_not_be_enough() {
    let mut world = World::new(&["n1"]);
    service(&mut world, "web", "normal", 3);
    service(&mut world, "batch", "low", 1);
    world.settle();
    service(&mut world, "api", "normal", 2);
    service(&mut world, "big", "critical", 5);
    service(&mut world, "wide", "normal", 2);
    world.settle();
    assert_eq!(stopped(&world), Vec::<String>::new());
    for name in ["api/0", "big/0", "wide/0"] {
        assert!(matches!(world.waits(name)[..], [WaitCause::NoNodeFits { .. }]), "{name}");
    }
}

#[test]
fn the_least_important_and_the_fewest_stop() {
    let mut world = World::new(&TWO);
    for (name, priority, cpu, at) in [
        ("a", "normal", 2, "n1"),
        ("b", "low", 2, "n1"),
        ("c", "low", 1, "n2"),
        ("d", "low", 1, "n2"),
        ("e", "high", 2, "n2"),
    ] {
        let text = "placement: {constraints: [\"node == AT\"]}".replace("AT", at);
        world.deploy(&format!("name: {name}\npriority: {priority}\nresources: {{cpu: {cpu}}}\n{text}\n"));
    }
    world.settle();
    service(&mut world, "db", "critical", 2);
    world.settle();
    assert_eq!(stopped(&world), ["b/0"]);
    assert_eq!(world.at("db/0"), "n1");
}

#[test]
fn room_that_is_made_for_one_is_not_counted_for_another() {
    let mut world = World::new(&["n1"]);
    service(&mut world, "batch", "low", 2);
    service(&mut world, "more", "low", 2);
    world.settle();
    service(&mut world, "x", "high", 2);
    service(&mut world, "y", "high", 2);
    world.settle();
    assert_eq!((world.at("x/0"), world.at("y/0")), ("n1".to_owned(), "n1".to_owned()));
    let mut all = stopped(&world);
    all.sort();
    assert_eq!(all, ["batch/0", "more/0"]);
}

#[test]
fn what_finds_no_other_place_after_a_loss_takes_the_room_of_the_less_important() {
    let mut world = World::new(&TWO);
    world.fence_method("n2");
    world.deploy("name: db\npriority: high\nresources: {cpu: 3}\nplacement: {affinity: [\"node == n2\"]}\n");
    world.settle();
    assert_eq!(world.at("db/0"), "n2");
    world.deploy(
        "name: batch\npriority: low\nresources: {cpu: 3}\nplacement: {constraints: [\"node == n1\"]}\n",
    );
    world.settle();
    world.lose("n2");
    // Nothing stops for what may still run elsewhere.
    assert_eq!(stopped(&world), Vec::<String>::new());
    world.settle();
    assert_eq!((world.at("db/0"), world.at("batch/0")), ("n1".to_owned(), String::new()));
    assert!(world.state.nodes.get(&node("n2")).unwrap().lost());
}

#[test]
fn nobody_stops_for_room_that_a_rollout_wants_back() {
    let mut world = World::new(&["n1"]);
    service(&mut world, "cache", "low", 1);
    service(&mut world, "db", "normal", 3);
    world.settle();
    // With the room of both there would be enough, for as long as the rollout of db takes.
    service(&mut world, "a-batch", "normal", 4);
    world.settle();
    world.ask(Command::Restart { service: slot("db/0").service });
    world.settle();
    assert_eq!(stopped(&world), ["db/0"]);
    assert_eq!((world.at("db/0"), world.at("cache/0")), ("n1".to_owned(), "n1".to_owned()));
}

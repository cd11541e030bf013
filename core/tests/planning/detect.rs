//! Verdicts of a leader n1 over n2 and n3, by what it heard, what reached them, and how it fares itself.

use crate::world::{World, node};
use quorate_core::detect::detect;
use quorate_core::ids::{NodeId, Segment};
use quorate_core::observation::{NodeVerdict, Observed};
use quorate_core::reach::{LinkFault, Way};
use quorate_core::units::{BootMs, Millis};

/// A cluster in which all were heard at 100 s.
fn world() -> World {
    World::new(&["n1", "n2", "n3"])
}

fn verdict(world: &World, name: &str) -> NodeVerdict {
    detect(&world.observed, &world.state).nodes[&node(name)].clone()
}

fn change(observed: &mut Observed, name: &str, change: impl FnOnce(&mut quorate_core::observation::Heard)) {
    let id: NodeId = node(name);
    let mut heard = observed.nodes.get(&id).unwrap().clone();
    change(&mut heard);
    observed.nodes.insert(id, heard);
}

fn because(verdict: &NodeVerdict) -> String {
    match verdict {
        NodeVerdict::Alive => String::new(),
        NodeVerdict::Suspect { because, .. } | NodeVerdict::Lost { because } => because.join("; "),
    }
}

#[test]
fn two_missed_heartbeats_make_a_suspect_and_a_whole_lease_a_loss() {
    let mut world = world();
    world.kill("n3");
    world.pass(2_499);
    assert_eq!(verdict(&world, "n3"), NodeVerdict::Alive);
    world.pass(1);
    let suspect = verdict(&world, "n3");
    assert!(matches!(suspect, NodeVerdict::Suspect { lost_in: Millis(2_500), .. }), "{suspect:?}");
    world.pass(2_500);
    assert!(matches!(verdict(&world, "n3"), NodeVerdict::Lost { .. }));
    assert_eq!(verdict(&world, "n2"), NodeVerdict::Alive);
}

#[test]
fn a_node_whom_answers_do_not_reach_is_lost_however_loudly_it_speaks() {
    let mut world = world();
    world.pass(5_000);
    change(&mut world.observed, "n2", |heard| heard.echo_rose = BootMs(100_000));
    let lost = verdict(&world, "n2");
    assert!(matches!(lost, NodeVerdict::Lost { .. }));
    assert_eq!(because(&lost), "n1 hears n2, but no answer of n1 reached it for 5.0 s (lost after 5s)");
    world.observed.raft.leading = false;
    assert_eq!(verdict(&world, "n2"), NodeVerdict::Alive, "only who answers can tell");
}

#[test]
fn a_new_leader_and_a_new_node_are_given_a_whole_lease() {
    let mut world = world();
    world.kill("n3");
    world.pass(4_000);
    world.observed.raft.leading_since = Some(world.observed.now);
    assert_eq!(verdict(&world, "n3"), NodeVerdict::Alive);
    world.pass(4_999);
    assert!(matches!(verdict(&world, "n3"), NodeVerdict::Suspect { lost_in: Millis(1), .. }));
    world.admit("n4", |_| {});
    world.observed.nodes.remove(&node("n4"));
    assert_eq!(verdict(&world, "n4"), NodeVerdict::Alive);
    world.kill("n4");
    world.pass(5_000);
    assert_eq!(because(&verdict(&world, "n4")), "n1 has never heard n4 for 5.0 s (lost after 5s)");
}

#[test]
fn an_observer_that_did_not_run_itself_accuses_nobody() {
    let mut world = world();
    world.observed.now = world.observed.now + Millis(60_000);
    let doubt = verdict(&world, "n2");
    assert!(matches!(doubt, NodeVerdict::Suspect { lost_in: Millis(1_000), .. }), "{doubt:?}");
    assert!(because(&doubt).ends_with("so it may be n1 that was not running"), "{doubt:?}");
    assert_eq!(verdict(&world, "n1"), NodeVerdict::Alive);
}

#[test]
fn an_observer_that_ran_late_waits_so_much_longer_for_the_others() {
    let mut world = world();
    world.kill("n3");
    world.observed.reach.stall = Millis(1_500);
    world.pass(3_999);
    assert_eq!(verdict(&world, "n3"), NodeVerdict::Alive);
    world.pass(1_001);
    let suspect = verdict(&world, "n3");
    assert!(matches!(suspect, NodeVerdict::Suspect { lost_in: Millis(1_500), .. }), "{suspect:?}");
    assert!(because(&suspect).ends_with("n1 itself ran 1.5 s late and waits so much longer"), "{suspect:?}");
    world.pass(1_500);
    assert!(matches!(verdict(&world, "n3"), NodeVerdict::Lost { .. }));
}

#[test]
fn a_leader_without_a_quorum_accuses_nobody() {
    let mut world = world();
    world.kill("n2");
    world.kill("n3");
    world.pass(10_000);
    assert!(matches!(verdict(&world, "n2"), NodeVerdict::Lost { .. }));
    world.observed.raft.quorum_ack_age = Some(Millis(9_000));
    let doubt = verdict(&world, "n2");
    assert!(matches!(doubt, NodeVerdict::Suspect { .. }));
    assert!(because(&doubt).contains("it may be n1 that is cut off"), "{doubt:?}");
}

#[test]
fn others_are_named_who_reach_the_silent_node_or_do_not() {
    let mut world = World::new(&["n1", "n2", "n3", "n4"]);
    world.kill("n4");
    world.pass(3_000);
    for (from, ok) in [("n2", false), ("n3", true)] {
        let way = {
            let mut way = Way::new(BootMs(0));
            way.good(BootMs(1), 400);
            for _ in 0..if ok { 0 } else { 2 } {
                way.missed(BootMs(2), LinkFault::Silent);
            }
            way.report(&node("n4"), &Segment::new("lan").unwrap(), BootMs(3))
        };
        world.tell(from, vec![way]);
    }
    let words = because(&verdict(&world, "n4"));
    assert!(words.ends_with("n3 reaches it over lan; n2 does not reach it"), "{words}");
}

#[test]
fn a_committed_loss_stays_until_the_rejoin_whatever_is_heard() {
    let mut world = world();
    world.lose("n3");
    world.thaw("n3");
    assert!(matches!(verdict(&world, "n3"), NodeVerdict::Lost { .. }));
    world.settle();
    assert_eq!(verdict(&world, "n3"), NodeVerdict::Alive);
}

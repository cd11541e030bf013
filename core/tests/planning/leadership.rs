//! Who leads: weight decides among those who reach as many, slowly; a bridge leads before a heavyweight that is
//! half cut off, and a witness only while nobody else can.

use crate::world::{World, node};
use quorate_core::ids::Segment;
use quorate_core::reach::{LinkFault, LinkReport, Way};
use quorate_core::state::MembershipStep;
use quorate_core::units::{BootMs, Millis};

fn to(world: &World) -> Option<String> {
    match world.plan().membership {
        Some(MembershipStep::TransferTo(id)) => world.state.node_of(id).map(|(name, _)| name.to_string()),
        Some(other) => panic!("{other:?} is no transfer"),
        None => None,
    }
}

/// Leader n1 and others of these weights, all settled.
fn world(weights: &[(&str, u32)]) -> World {
    let mut world = World::new(&["n1"]);
    for (name, weight) in weights {
        world.admit(name, |admission| admission.weight = *weight);
    }
    world.pass(20_000);
    world
}

fn link(to: &str, ok: bool, since: u64) -> LinkReport {
    let mut way = Way::new(BootMs(0));
    way.good(BootMs(1), 300);
    let turned = BootMs(100_000 - since);
    for _ in 0..if ok { 0 } else { 2 } {
        way.missed(turned, LinkFault::Silent);
    }
    way.report(&node(to), &Segment::new("a").unwrap(), BootMs(100_000))
}

/// Each node tells whom it reaches; whoever is missing there has been out of reach for so long.
fn tell(world: &mut World, reach: &[(&str, &[&str])], since: u64) {
    let all: Vec<String> = world.state.nodes.keys().map(ToString::to_string).collect();
    for (from, reached) in reach {
        let others = all.iter().filter(|other| other != from);
        let links = others.map(|other| link(other, reached.contains(&other.as_str()), since)).collect();
        world.tell(from, links);
    }
}

#[test]
fn weight_decides_once_leader_and_heir_have_been_steady_for_a_lease() {
    let mut world = world(&[("n2", 1), ("n3", 9)]);
    assert_eq!(to(&world).as_deref(), Some("n3"));
    world.observed.raft.leading_since = Some(BootMs(world.observed.now.0 - 4_999));
    assert_eq!(to(&world), None, "the leader is new");
    world.pass(1);
    assert_eq!(to(&world).as_deref(), Some("n3"));
    world.observed.known_since.insert(node("n3"), world.observed.now);
    assert_eq!(to(&world), None, "the heir is new");
    world.pass(5_000);
    assert_eq!(to(&world).as_deref(), Some("n3"));
}

#[test]
fn leadership_stays_where_weights_are_equal() {
    assert_eq!(to(&world(&[("n2", 1), ("n3", 1)])), None);
}

#[test]
fn a_heavyweight_that_reaches_fewer_does_not_lead() {
    let mut world = world(&[("n2", 1), ("n3", 9)]);
    tell(&mut world, &[("n1", &["n2", "n3"]), ("n2", &["n1"]), ("n3", &["n1"])], 60_000);
    assert_eq!(to(&world), None);
}

#[test]
fn a_bridge_takes_over_from_a_leader_that_is_half_cut_off() {
    let mut world = world(&[("n2", 1), ("n3", 1)]);
    let chain: &[(&str, &[&str])] = &[("n1", &["n2"]), ("n2", &["n1", "n3"]), ("n3", &["n2"])];
    tell(&mut world, chain, 500);
    assert_eq!(to(&world), None, "it may be over in a moment");
    tell(&mut world, chain, 1_500);
    assert_eq!(to(&world).as_deref(), Some("n2"), "within a lease, so that n3 keeps its own");
}

#[test]
fn a_node_that_nobody_reaches_moves_no_leadership() {
    let mut world = world(&[("n2", 1), ("n3", 1)]);
    tell(&mut world, &[("n1", &["n2"]), ("n2", &["n1"])], 60_000);
    assert_eq!(to(&world), None);
}

#[test]
fn a_link_that_just_mended_makes_nobody_an_heir() {
    let mut world = world(&[("n2", 1), ("n3", 9)]);
    let mut way = Way::new(BootMs(0));
    way.good(BootMs(1), 300);
    for at in [2, 3] {
        way.missed(BootMs(at), LinkFault::Silent);
    }
    way.good(BootMs(97_000), 300);
    let flapping = way.report(&node("n1"), &Segment::new("a").unwrap(), BootMs(100_000));
    world.tell("n3", vec![flapping, link("n2", true, 0)]);
    assert_eq!(to(&world), None);
    world.pass(1_999);
    assert_eq!(to(&world), None);
    world.pass(1);
    assert_eq!(to(&world).as_deref(), Some("n3"));
}

#[test]
fn a_witness_hands_over_at_once_but_only_to_one_who_reaches_a_majority() {
    let mut world = World::new(&["n1"]);
    world.admit("n2", |_| {});
    world.admit("n3", |_| {});
    world.admit("n1", |admission| {
        admission.witness = true;
        admission.disk.0 = "disk of n1".to_owned();
    });
    world.observed.raft.leading_since = Some(world.observed.now);
    let of = |world: &World, name: &str| world.raft_id(name);
    world.observed.raft.voters = ["n1", "n2", "n3"].map(|name| of(&world, name)).to_vec();
    assert_eq!(to(&world).as_deref(), Some("n2"));
    tell(&mut world, &[("n1", &["n2", "n3"]), ("n2", &[]), ("n3", &["n1"])], 500);
    assert_eq!(to(&world).as_deref(), Some("n3"), "n2 reaches no majority");
    tell(&mut world, &[("n2", &[]), ("n3", &[])], 500);
    assert_eq!(to(&world), None, "better a witness than nobody");
    assert!(world.observed.reach.rows.values().all(|known| world.observed.now.since(known.at) == Millis(0)));
}

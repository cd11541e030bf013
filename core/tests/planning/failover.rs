//! Placement, failover by evidence, rejoin, stops: State made by `apply`, then what the plan asks and waits for.

use crate::world::{World, node, slot};
use quorate_core::command::Command;
use quorate_core::ids::Revision;
use quorate_core::observation::{Health, InstancePhase};
use quorate_core::plan::{attest_check, checklist};
use quorate_core::state::{Evidence, Refusal, Subject, WaitCause};
use quorate_core::units::{CpuMillis, MemoryMib, Millis};

fn ended_by(world: &World, text: &str) -> Evidence {
    world.state.slots.get(&slot(text)).unwrap().last_ended.clone().unwrap().evidence
}

fn evidence_of(world: &World, text: &str) -> Vec<(String, bool)> {
    let items = world.waits(text).into_iter().find_map(|cause| match cause {
        WaitCause::Evidence { items, .. } => Some(items),
        _ => None,
    });
    items.unwrap_or_default().into_iter().map(|item| (item.kind, item.holds)).collect()
}

#[test]
fn copies_spread_over_nodes_and_ties_go_by_name() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy("name: web\nreplicas: 3\n");
    world.settle();
    assert_eq!([world.at("web/0"), world.at("web/1"), world.at("web/2")], ["n1", "n2", "n3"]);
    assert!(world.plan().waiting.is_empty());
}

#[test]
fn every_node_says_why_it_refuses_a_slot() {
    let mut world = World::new(&["n1", "n2", "n3", "n4", "n5"]);
    world.admit("n6", |admission| admission.witness = true);
    world.facts("n1", |facts| facts.capacity.memory = MemoryMib(100));
    world.facts("n2", |facts| {
        facts.capacity.cpu = CpuMillis(100);
        facts.labels.insert("zone".to_owned(), "a".to_owned());
    });
    for name in ["n1", "n3", "n5"] {
        world.facts(name, |facts| drop(facts.labels.insert("zone".to_owned(), "a".to_owned())));
    }
    world.ask(Command::Cordon { node: node("n3"), on: true });
    world.lose("n5");
    world.obey();
    world.deploy(
        "name: big\nresources: {cpu: 1, memory_mib: 500}\nplacement: {constraints: [\"zone == a\"]}\n",
    );
    world.settle();
    let waits = world.waits("big/0");
    let [WaitCause::NoNodeFits { refusals }] = waits.as_slice() else { panic!("{waits:?}") };
    let words: Vec<String> = refusals.iter().map(|(node, why)| format!("{node}: {why}")).collect();
    assert_eq!(
        words,
        [
            "n1: memory: 500 MiB wanted, 100 MiB free",
            "n2: cpu: 1.00 wanted, 0.10 free",
            "n3: cordoned",
            "n4: zone == a does not hold: it has no such label",
            "n5: lost",
            "n6: a witness hosts nothing",
        ]
    );
}

#[test]
fn a_plan_never_promises_more_than_a_node_has() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy("name: big\nreplicas: 5\nresources: {cpu: 2, memory_mib: 10}\n");
    world.settle();
    let placed = (0..5).filter(|ordinal| !world.at(&format!("big/{ordinal}")).is_empty()).count();
    assert_eq!(placed, 4, "two on each node of four processors");
    assert!(matches!(world.waits("big/4")[..], [WaitCause::NoNodeFits { .. }]));
}

#[test]
fn copies_that_must_spread_wait_for_another_node() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy("name: web\nreplicas: 3\nplacement: {spread: require}\n");
    world.settle();
    let waits = world.waits("web/2");
    let [WaitCause::NoNodeFits { refusals }] = waits.as_slice() else { panic!("{waits:?}") };
    assert_eq!(
        refusals[..],
        [(node("n1"), Refusal::Spread(slot("web/0"))), (node("n2"), Refusal::Spread(slot("web/1"))),]
    );
    world.admit("n3", |_| {});
    world.settle();
    assert_eq!(world.at("web/2"), "n3");
}

#[test]
fn the_important_service_chooses_first() {
    let mut world = World::new(&["n1"]);
    world.deploy("name: a-low\npriority: low\nresources: {cpu: 3}\n");
    world.deploy("name: z-high\npriority: high\nresources: {cpu: 3}\n");
    world.settle();
    assert_eq!((world.at("z-high/0"), world.at("a-low/0")), ("n1".to_owned(), String::new()));
}

#[test]
fn affinity_and_zones_decide_between_equal_nodes() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    for (name, zone) in [("n1", "a"), ("n2", "a"), ("n3", "b")] {
        world.facts(name, |facts| drop(facts.labels.insert("zone".to_owned(), zone.to_owned())));
    }
    world.deploy("name: web\nreplicas: 2\n");
    world.settle();
    assert_eq!((world.at("web/0"), world.at("web/1")), ("n1".to_owned(), "n3".to_owned()));
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    assert_eq!(world.at("db/0"), "n2");
}

#[test]
fn a_silent_node_is_suspect_then_lost_and_what_is_not_exclusive_moves_at_once() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy("name: web\nreplicas: 3\n");
    world.settle();
    world.kill("n3");
    world.pass(2_600);
    let waits = world.waits("web/2");
    let [WaitCause::Suspect { node: who, because }] = waits.as_slice() else { panic!("{waits:?}") };
    assert_eq!((who, because[0].as_str()), (&node("n3"), "n1 has not heard n3 for 2.6 s (lost after 5s)"));
    assert!(world.step().is_empty());
    world.pass(2_400);
    assert!(matches!(world.step()[..], [Command::MarkLost { .. }]));
    world.settle();
    assert_eq!(world.at("web/2").split(',').count(), 2, "the old claim stays beside the new one");
    assert!(world.at("web/2").starts_with("n3,"));
}

#[test]
fn a_lost_node_is_not_recovered_before_its_fence_is_proven() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.fence_method("n2");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    assert_eq!(world.at("db/0"), "n2");
    world.fence = None;
    world.lose("n2");
    world.settle();
    assert_eq!(world.at("db/0"), "n2");
    assert!(
        world
            .waits("db/0")
            .iter()
            .any(|cause| matches!(cause, WaitCause::Fencing { operation: Some(_), .. }))
    );
    assert_eq!(evidence_of(&world, "db/0").len(), 5);
    assert!(evidence_of(&world, "db/0").iter().all(|(_, holds)| !holds));
    world.fence = Some(quorate_core::observation::FenceOutcome::ProvenOff { output: "off".to_owned() });
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
    assert!(matches!(ended_by(&world, "db/0"), Evidence::Fenced { .. }));
}

#[test]
fn without_a_fence_a_slot_waits_for_an_operators_word() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.lose("n2");
    world.settle();
    let waits = world.waits("db/0");
    assert!(
        waits
            .iter()
            .any(|cause| matches!(cause, WaitCause::Evidence { then: Some(to), .. } if *to == node("n1")))
    );
    assert!(waits.iter().any(|cause| matches!(cause, WaitCause::Operator { .. })));
    assert_eq!(attest_check(&world.observed, &world.state, &node("n2")), Ok(()));
    world.ask(Command::AttestDead { node: node("n2"), reason: "pulled the plug".to_owned() });
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
    assert!(matches!(ended_by(&world, "db/0"), Evidence::Attested { .. }));
}

#[test]
fn nobody_may_attest_a_node_that_someone_hears() {
    let mut world = World::new(&["n1", "n2"]);
    assert!(attest_check(&world.observed, &world.state, &node("n2")).is_err());
    world.lose("n2");
    world.up.insert(node("n2"));
    world.obey();
    let refused = attest_check(&world.observed, &world.state, &node("n2")).unwrap_err();
    assert!(refused.to_string().starts_with("node n2 was heard"), "{refused}");
}

#[test]
fn silence_counts_only_of_armed_guards_after_the_whole_wait() {
    let mut world = World::new(&["n1", "n2"]);
    world.facts("n2", |facts| facts.armed = true);
    world.deploy(
        "name: db\nstop: {grace: 3s}\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n",
    );
    world.settle();
    world.lose("n2");
    world.settle();
    let claim = world.claim("db/0").clone();
    let wait = world.state.cluster.settings.terms.silence_wait(claim.grace);
    world.pass(wait.0 - 5_000 - 1);
    world.settle();
    assert_eq!(world.at("db/0"), "n2");
    let items = checklist(&world.state, &world.observed, &slot("db/0"), &claim);
    assert_eq!(items[3].left, Some(Millis(1)));
    world.pass(1);
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
    assert_eq!(ended_by(&world, "db/0").kind(), "silence");
}

#[test]
fn a_new_leader_counts_silence_from_its_own_election() {
    let mut world = World::new(&["n1", "n2"]);
    world.facts("n2", |facts| facts.armed = true);
    world.deploy(
        "name: db\npriority: low\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n",
    );
    world.settle();
    world.lose("n2");
    world.observed.raft.leading_since = Some(world.observed.now);
    world.pass(5_000);
    world.settle();
    assert_eq!(world.at("db/0"), "n2");
    world.pass(1_000);
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
}

#[test]
fn a_critical_slot_never_moves_by_silence() {
    let mut world = World::new(&["n1", "n2"]);
    world.facts("n2", |facts| facts.armed = true);
    world.deploy(
        "name: db\npriority: critical\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n",
    );
    world.settle();
    world.lose("n2");
    world.pass(1_000_000);
    world.settle();
    assert_eq!(world.at("db/0"), "n2");
    assert!(world.waits("db/0").iter().any(|cause| matches!(cause, WaitCause::Operator { .. })));
}

#[test]
fn a_rebooted_host_proves_that_its_old_copies_are_gone() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy(
        "name: db\nstate: {dir: data}\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n",
    );
    world.settle();
    let old = world.claim("db/0").token;
    world.lose("n2");
    world.settle();
    world.reboot("n2");
    world.settle();
    assert_eq!(ended_by(&world, "db/0").kind(), "rebooted");
    assert_eq!(world.at("db/0"), "n2", "its state lies there");
    assert!(world.claim("db/0").token > old);
}

#[test]
fn a_node_that_was_only_away_keeps_what_runs_there_and_surplus_copies_stop() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n3\", weight: 50}]}\n");
    world.deploy(
        "name: web\nreplicas: 2\nplacement: {affinity: [{constraint: \"node == n3\", weight: 50}]}\n",
    );
    world.settle();
    let (db, web) = (world.claim("db/0").token, world.at("web/0"));
    assert_eq!(web, "n3");
    world.lose("n3");
    world.settle();
    assert_eq!(world.at("web/0").split(',').count(), 2);
    world.thaw("n3");
    world.settle();
    assert_eq!(world.claim("db/0").token, db, "adopted without a restart");
    assert_eq!(world.at("web/0").split(',').count(), 1);
    assert_eq!(ended_by(&world, "web/0").kind(), "stop_acknowledged");
    assert!(world.plan().waiting.is_empty());
}

#[test]
fn a_node_comes_back_only_after_it_stopped_what_is_not_its_any_more_and_caught_up() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy("name: web\nreplicas: 2\n");
    world.settle();
    world.lose("n2");
    let stale = world.observed.nodes.get(&node("n2")).unwrap().clone();
    world.ask(Command::Scale { service: "web".parse().unwrap(), replicas: 1 });
    world.settle();
    // Heard again as it was: it has not applied the verdict, and runs what was told to stop.
    let mut back = stale;
    (back.received, back.echo_rose) = (world.observed.now, world.observed.now);
    world.observed.nodes.insert(node("n2"), back.clone());
    assert!(world.plan().commands.is_empty());
    let told = |world: &World| match &world.plan().waiting[&Subject::Node(node("n2"))][0].cause {
        WaitCause::Other { detail } => detail.clone(),
        other => panic!("{other:?}"),
    };
    assert!(told(&world).contains("catches up first"), "{}", told(&world));
    back.report.revision = Revision(world.state.revision.0);
    world.observed.nodes.insert(node("n2"), back.clone());
    assert!(told(&world).contains("first stops web/1@"), "{}", told(&world));
    world.thaw("n2");
    world.settle();
    assert!(!world.state.nodes.get(&node("n2")).unwrap().lost());
    assert_eq!(world.at("web/1"), "");
}

#[test]
fn a_stop_ends_a_claim_only_by_its_acknowledgement() {
    let mut world = World::new(&["n1"]);
    world.deploy("name: web\n");
    world.settle();
    world.ask(Command::StopService { service: "web".parse().unwrap() });
    assert!(matches!(world.step()[..], [Command::StopClaim { .. }]));
    assert!(world.step().is_empty(), "nothing is acknowledged yet");
    assert!(matches!(world.waits("web/0")[..], [WaitCause::Stopping { .. }]));
    // Gone by itself, but without the stop's token: that proves nothing.
    world.instance_on("n1", "web/0", |i| i.phase = InstancePhase::StartFailed("gone".to_owned()));
    assert!(world.step().is_empty());
    world.settle();
    assert!(world.state.slots.get(&slot("web/0")).unwrap().claims.is_empty());
    assert!(world.plan().waiting.is_empty());
}

#[test]
fn scaling_down_stops_the_highest_ordinals_and_deleting_forgets() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.deploy("name: web\nreplicas: 3\n");
    world.settle();
    world.ask(Command::Scale { service: "web".parse().unwrap(), replicas: 1 });
    world.settle();
    assert_eq!([world.at("web/0"), world.at("web/1"), world.at("web/2")], ["n1", "", ""]);
    world.ask(Command::DeleteService { service: "web".parse().unwrap() });
    world.settle();
    assert!(world.state.services.is_empty() && world.state.slots.is_empty());
}

#[test]
fn an_unhealthy_or_ended_copy_says_what_it_waits_for() {
    let mut world = World::new(&["n1"]);
    world.deploy("name: web\nrestart: {policy: on_failure, backoff: 4s..60s}\n");
    world.settle();
    world.instance_on("n1", "web/0", |instance| {
        instance.health = Health::Unhealthy;
        instance.health_detail = "status 500".to_owned();
    });
    assert!(
        matches!(&world.waits("web/0")[..], [WaitCause::Health { detail, .. }] if detail == "status 500")
    );
    let exit = |code, kind| quorate_core::observation::ExitReason { kind, code: Some(code), signal: None };
    let failed = exit(3, quorate_core::observation::ExitKind::Failed);
    world.instance_on("n1", "web/0", |instance| instance.phase = InstancePhase::Exited(failed));
    let line = world.plan().waiting[&Subject::Slot(slot("web/0"))][0].clone();
    assert!(matches!(&line.cause, WaitCause::Backoff { detail, .. } if detail == "ended with code 3"));
    assert_eq!(line.left, Some(Millis(3_000)), "of four seconds one has passed");
    let done = exit(0, quorate_core::observation::ExitKind::Completed);
    world.instance_on("n1", "web/0", |instance| instance.phase = InstancePhase::Exited(done));
    assert!(matches!(world.waits("web/0")[..], [WaitCause::Ended { .. }]));
}

#[test]
fn what_a_wiped_disk_held_is_free_once_the_host_says_that_nothing_of_it_runs() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.lose("n2");
    world.admit("n2", |admission| admission.disk.0 = "a new disk".to_owned());
    assert!(
        matches!(&world.step()[..], [Command::StopClaim { because, .. }] if because == "n2 came with another disk")
    );
    world.settle();
    assert_eq!((ended_by(&world, "db/0").kind(), world.at("db/0")), ("stop_acknowledged", "n2".to_owned()));
}

#[test]
fn a_node_that_is_heard_belies_its_fence() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    let claim = world.claim("db/0").token;
    world.ask(Command::Fence { node: node("n2"), reason: "the device lies".to_owned() });
    for _ in 0..20 {
        world.obey();
        world.step();
    }
    assert_eq!(world.claim("db/0").token, claim, "it was heard all the time, so it was never off");
    assert!(!world.state.nodes.get(&node("n2")).unwrap().lost(), "and it is let back in");
}

//! What a host can run, and what it can give only once: executors, ports, units of its own.

use crate::world::{World, node, slot};
use quorate_core::command::Command;
use quorate_core::detect::detect;
use quorate_core::observation::Unavailable;
use quorate_core::plan::preview;
use quorate_core::spec::ExecutorKind;
use quorate_core::state::{OperationResult, Refusal, Subject, WaitCause};

const KINDS: [(ExecutorKind, &str); 4] = [
    (ExecutorKind::Docker, "image: web"),
    (ExecutorKind::Podman, "image: web"),
    (ExecutorKind::Systemd, "command: [/usr/bin/web]"),
    (ExecutorKind::Libvirt, "vm_image: /srv/web, vm_memory: 64"),
];

/// Nodes that have every executor.
fn equipped(names: &[&str]) -> World {
    let mut world = World::new(names);
    for name in names {
        KINDS.iter().for_each(|(kind, _)| world.executor(name, *kind, None));
    }
    world
}

fn whole(name: &str, executor: ExecutorKind, spec: &str, more: &str) -> String {
    format!("name: {name}\nexecutor: {executor}\nspec: {{{spec}}}\n{more}\n")
}

fn deploy(world: &mut World, text: &str) {
    let command = world.deploy_whole(text);
    world.ask(command);
}

/// A container at these ports.
fn publish(world: &mut World, name: &str, ports: &str, more: &str) {
    deploy(world, &whole(name, ExecutorKind::Docker, &format!("image: web, ports: [{ports}]"), more));
}

/// Each node's reason for refusing a slot.
fn refusals(world: &World, of: &str) -> Vec<String> {
    let waits = world.waits(of);
    let [WaitCause::NoNodeFits { refusals }] = waits.as_slice() else { panic!("{waits:?}") };
    refusals.iter().map(|(node, why)| format!("{node}: {why}")).collect()
}

#[test]
fn a_service_goes_only_where_its_executor_can_be_used() {
    for (kind, spec) in KINDS {
        let mut world = World::new(&["n1", "n2", "n3"]);
        let remedy = "start it".to_owned();
        world.executor("n2", kind, Some(Unavailable { why: "it does not answer".to_owned(), remedy }));
        deploy(&mut world, &whole("web", kind, spec, ""));
        world.settle();
        let (none, away) = (
            format!("no executor {kind} there"),
            format!("{kind} is unavailable: it does not answer; start it"),
        );
        assert_eq!(
            refusals(&world, "web/0"),
            [format!("n1: {none}"), format!("n2: {away}"), format!("n3: {none}")]
        );
        world.executor("n3", kind, None);
        world.settle();
        assert_eq!(world.at("web/0"), "n3", "{kind}");
        world.executor("n2", kind, None);
        world.executor("n3", kind, Some(Unavailable { why: "gone".to_owned(), remedy: "none".to_owned() }));
        world.settle();
        assert_eq!(world.at("web/0"), "n3", "what runs is not moved for a report");
    }
}

#[test]
fn copies_with_a_port_of_the_host_spread_by_themselves() {
    let mut world = equipped(&["n1", "n2", "n3"]);
    let near = "replicas: 4\nplacement: {affinity: [{constraint: \"node == n1\", weight: 100}]}";
    publish(&mut world, "web", "'8080:80', '8443:443'", near);
    world.settle();
    let at: Vec<String> = (0..4).map(|ordinal| world.at(&format!("web/{ordinal}"))).collect();
    assert_eq!(at, ["n1", "n2", "n3", ""]);
    assert_eq!(
        refusals(&world, "web/3"),
        [
            "n1: port 8080/tcp is taken there by web/0",
            "n2: port 8080/tcp is taken there by web/1",
            "n3: port 8080/tcp is taken there by web/2",
        ]
    );
    world.admit("n4", |_| {});
    world.executor("n4", ExecutorKind::Docker, None);
    world.settle();
    assert_eq!(world.at("web/3"), "n4");
}

#[test]
fn two_services_do_not_share_a_port_unless_transport_or_address_differ() {
    let mut world = equipped(&["n1"]);
    publish(&mut world, "a", "'10.0.0.1:53:53/udp'", "");
    world.settle();
    let cases = [
        ("udp-all", "'53:53/udp'", Some("port 53/udp is taken there by a/0")),
        ("udp-same", "'10.0.0.1:53:5353/udp'", Some("port 10.0.0.1:53/udp is taken there by a/0")),
        ("udp-any", "'0.0.0.0:53:53/udp'", Some("port 0.0.0.0:53/udp is taken there by a/0")),
        ("udp-other", "'10.0.0.2:53:53/udp'", None),
        ("tcp", "'10.0.0.1:53:53'", None),
        ("next", "'54:53/udp'", None),
    ];
    for (name, ports, refusal) in cases {
        publish(&mut world, name, ports, "");
        world.settle();
        let copy = format!("{name}/0");
        match refusal {
            Some(words) => assert_eq!(refusals(&world, &copy), [format!("n1: {words}")]),
            None => assert_eq!(world.at(&copy), "n1", "{name}"),
        }
        world.ask(Command::DeleteService { service: slot(&copy).service });
        world.settle();
    }
    // Engines share the ports of their host.
    deploy(&mut world, &whole("pod", ExecutorKind::Podman, "image: web, ports: ['53:53/udp']", ""));
    world.settle();
    assert_eq!(refusals(&world, "pod/0"), ["n1: port 53/udp is taken there by a/0"]);
    world.ask(Command::DeleteService { service: slot("a/0").service });
    world.settle();
    assert_eq!(world.at("pod/0"), "n1");
}

#[test]
fn one_pass_gives_a_port_of_a_node_once() {
    let mut world = equipped(&["n1"]);
    publish(&mut world, "a", "'80:80'", "");
    publish(&mut world, "b", "'80:80'", "priority: high");
    let granted: Vec<String> = world
        .plan()
        .commands
        .iter()
        .filter_map(|command| match command {
            Command::Grant { slot, .. } => Some(slot.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(granted, ["b/0"], "the important one chooses first");
    world.settle();
    let waits = world.waits("a/0");
    let [WaitCause::NoNodeFits { refusals }] = waits.as_slice() else { panic!("{waits:?}") };
    assert_eq!(refusals[..], [(node("n1"), Refusal::Taken("port 80/tcp".to_owned(), slot("b/0")))]);
}

#[test]
fn a_port_is_taken_until_its_claim_has_ended() {
    let mut world = equipped(&["n1", "n2", "n3"]);
    publish(&mut world, "a", "'80:80'", "priority: high\nplacement: {constraints: [\"node == n3\"]}");
    world.settle();
    world.ask(Command::StopService { service: slot("a/0").service });
    publish(&mut world, "b", "'80:80'", "placement: {constraints: [\"node == n3\"]}");
    world.step();
    assert_eq!(world.claim("a/0").stop.as_ref().map(|stop| stop.because.as_str()), Some("a is stopped"));
    assert_eq!(refusals(&world, "b/0")[2], "n3: port 80/tcp is taken there by a/0");
    world.settle();
    assert_eq!(world.at("b/0"), "n3");
}

#[test]
fn a_rollout_replaces_a_copy_on_the_node_whose_port_it_has() {
    let mut world = equipped(&["n1", "n2"]);
    publish(&mut world, "web", "'80:80'", "replicas: 2");
    world.settle();
    deploy(
        &mut world,
        &whole("web", ExecutorKind::Podman, "image: 'web:2', ports: ['80:80']", "replicas: 2"),
    );
    world.settle();
    assert_eq!((world.at("web/0"), world.at("web/1")), ("n1".to_owned(), "n2".to_owned()));
    assert_eq!(world.result(1), Some(&OperationResult::Done));
    assert!(world.plan().waiting.is_empty());
}

#[test]
fn a_service_changes_its_executor_by_a_rollout_and_its_node_with_it() {
    let mut world = World::new(&["n1", "n2"]);
    world.deploy("name: web\n");
    world.settle();
    assert_eq!(world.at("web/0"), "n1");
    let before = world.claim("web/0").token;
    world.executor("n2", ExecutorKind::Docker, None);
    deploy(&mut world, &whole("web", ExecutorKind::Docker, "image: web", ""));
    world.settle();
    assert_eq!(world.at("web/0"), "n2");
    assert!(world.claim("web/0").token > before);
    assert_eq!(world.result(1), Some(&OperationResult::Done));
    world.ask(Command::Migrate { slot: slot("web/0"), to: Some(node("n1")), parent: None });
    world.settle();
    let failed = OperationResult::Failed("n1 cannot take web/0: no executor docker there".to_owned());
    assert_eq!((world.at("web/0").as_str(), world.result(2)), ("n2", Some(&failed)));
}

#[test]
fn a_slot_that_comes_back_finds_its_port_kept() {
    let mut world = equipped(&["n1", "n2"]);
    world.sick.insert(node("n2"));
    let on_n1 = "placement: {affinity: [{constraint: \"node == n1\", weight: 50}]}";
    publish(&mut world, "web", "'80:80'", on_n1);
    world.settle();
    world.ask(Command::Migrate { slot: slot("web/0"), to: Some(node("n2")), parent: None });
    publish(&mut world, "thief", "'80:80'", "priority: critical");
    for _ in 0..20 {
        world.obey();
        world.step();
        assert_eq!(world.at("thief/0"), "", "both ends of the move are kept for web/0");
        if world.result(1).is_some() {
            break;
        }
    }
    assert!(matches!(world.result(1), Some(OperationResult::RolledBack(_))), "{:?}", world.result(1));
    assert_eq!(world.at("web/0"), "n1");
    world.settle();
    assert_eq!(world.at("thief/0"), "n2", "the other end is free again");
}

#[test]
fn a_drain_waits_for_a_node_whose_port_is_free() {
    let mut world = equipped(&["n1", "n2"]);
    publish(&mut world, "web", "'80:80'", "replicas: 2");
    world.settle();
    world.ask(Command::Drain { node: node("n1"), max_in_flight: 1 });
    world.settle();
    assert_eq!(world.at("web/0"), "n1");
    let words: Vec<String> = world.waits("web/0").iter().map(ToString::to_string).collect();
    assert!(words[0].contains("n2 (port 80/tcp is taken there by web/1)"), "{words:?}");
    assert!(world.plan().waiting.contains_key(&Subject::Operation(quorate_core::ids::OperationId(1))));
    world.admit("n3", |_| {});
    world.executor("n3", ExecutorKind::Docker, None);
    world.settle();
    assert_eq!((world.at("web/0").as_str(), world.result(1)), ("n3", Some(&OperationResult::Done)));
}

#[test]
fn nobody_stops_to_free_a_port() {
    let mut world = equipped(&["n1"]);
    publish(&mut world, "small", "'80:80'", "priority: low\nresources: {cpu: 3}");
    world.settle();
    publish(&mut world, "great", "'80:80'", "priority: high\nresources: {cpu: 3}");
    world.settle();
    assert_eq!((world.at("small/0").as_str(), world.at("great/0").as_str()), ("n1", ""));
    assert_eq!(refusals(&world, "great/0"), ["n1: port 80/tcp is taken there by small/0"]);
    assert!(!world.log.iter().any(|command| matches!(command, Command::StopClaim { .. })));
    // Room is made for it as for any other where the port is not in the way.
    publish(&mut world, "other", "'81:80'", "priority: critical\nresources: {cpu: 3}");
    world.settle();
    assert_eq!(world.at("other/0"), "n1");
}

#[test]
fn a_unit_of_the_host_runs_once_on_each() {
    let mut world = equipped(&["n1", "n2"]);
    deploy(&mut world, &whole("proxy", ExecutorKind::Systemd, "unit: nginx.service", "replicas: 3"));
    world.settle();
    deploy(&mut world, &whole("same", ExecutorKind::Systemd, "unit: nginx.service", ""));
    deploy(&mut world, &whole("other", ExecutorKind::Systemd, "unit: db.service", ""));
    world.settle();
    assert_eq!((world.at("proxy/0"), world.at("proxy/1")), ("n1".to_owned(), "n2".to_owned()));
    let taken = [
        "n1: unit nginx.service is taken there by proxy/0",
        "n2: unit nginx.service is taken there by proxy/1",
    ];
    assert_eq!(refusals(&world, "proxy/2"), taken);
    assert_eq!(refusals(&world, "same/0"), taken);
    assert!(!world.at("other/0").is_empty());
}

#[test]
fn a_deploy_is_previewed_with_the_port_that_is_taken() {
    let mut world = equipped(&["n1"]);
    publish(&mut world, "web", "'80:80'", "");
    world.settle();
    let text = whole("api", ExecutorKind::Docker, "image: api, ports: ['80:8080']", "");
    let command = world.deploy_whole(&text);
    let verdicts = detect(&world.observed, &world.state);
    let shown = preview(&world.state, &world.observed, &verdicts, &[command]);
    assert_eq!(shown.waiting, ["api/0 waits: no node fits: n1 (port 80/tcp is taken there by web/0)"]);
}

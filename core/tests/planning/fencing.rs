//! Fencings from their request to every end: levels, attempts, who does them, and the races with a node
//! that comes back.

use crate::operations::{is_step, until};
use crate::world::{World, node};
use quorate_core::command::{Command, OperationStep};
use quorate_core::fence::{FenceAction, FenceTool};
use quorate_core::ids::{NodeId, OperationId};
use quorate_core::observation::{FenceOutcome, MissingTool, Unavailable};
use quorate_core::state::{OperationKind, OperationResult, Subject, WaitCause};

#[test]
fn fencing_tries_each_method_as_often_as_it_may_then_names_the_operators_way_out() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.fence = Some(FenceOutcome::Failed { output: "no answer".to_owned() });
    world.lose("n2");
    world.settle();
    let attempts =
        world.log.iter().filter(|c| is_step(|s| matches!(s, OperationStep::FenceAttempt { .. }))(c));
    assert_eq!(attempts.count(), 2);
    assert!(matches!(world.result(1), Some(OperationResult::Failed(why)) if why.contains("no answer")));
    let waits = world.waits("db/0");
    assert!(
        waits.iter().any(
            |cause| matches!(cause, WaitCause::Fencing { detail, .. } if detail.contains("quorate attest n2"))
        ),
        "{waits:?}"
    );
    world.fence = Some(FenceOutcome::ProvenOff { output: "off".to_owned() });
    world.ask(Command::Fence { node: node("n2"), reason: "again".to_owned() });
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
}

#[test]
fn all_methods_of_a_level_have_to_succeed() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.facts("n2", |facts| facts.fencing[0].extend_from_within(..));
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.lose("n2");
    until(&mut world, is_step(|step| matches!(step, OperationStep::FenceProven { .. })));
    assert_eq!(world.at("db/0"), "n2", "one supply is off, the other not yet");
    until(&mut world, is_step(|step| matches!(step, OperationStep::FenceAttempt { method: 1, .. })));
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
}

#[test]
fn a_rebooting_level_is_switched_on_again_once_all_of_it_is_proven_off() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.facts("n2", |facts| {
        facts.fencing[0].extend_from_within(..);
        facts.fencing[0][1].action = FenceAction::Reboot;
    });
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.lose("n2");
    world.settle();
    assert_eq!((world.at("db/0"), world.result(1)), ("n1".to_owned(), Some(&OperationResult::Done)));
    let steps: Vec<String> = world
        .log
        .iter()
        .filter_map(|command| match command {
            Command::Advance { step, .. } => Some(step.words()),
            _ => None,
        })
        .collect();
    let expected = [
        "n1 makes attempt 1, level 1",
        "read back as off: off",
        "n1 makes attempt 2, level 1",
        "read back as off: off",
        "n1 switches it on again",
        "switched on: on",
        "finished",
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_node_that_cannot_be_switched_on_again_is_fenced_all_the_same() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.facts("n2", |facts| facts.fencing[0][0].action = FenceAction::Reboot);
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.switch_on = Some(FenceOutcome::Failed { output: "no answer".to_owned() });
    world.lose("n2");
    world.settle();
    assert_eq!((world.at("db/0"), world.result(1)), ("n1".to_owned(), Some(&OperationResult::Done)));
}

#[test]
fn a_node_that_comes_back_during_a_deed_waits_for_its_end() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.fence = None;
    world.lose("n2");
    until(&mut world, is_step(|step| matches!(step, OperationStep::FenceAttempt { .. })));
    world.thaw("n2");
    world.obey();
    assert_eq!(world.step(), [], "the deed cannot be called back");
    let waiting = &world.plan().waiting[&Subject::Node(node("n2"))];
    assert!(waiting.iter().any(|line| line.cause.to_string().contains("fences it at this moment")));
    // The device did nothing: now it is let back in, and what it runs is adopted.
    world.fence = Some(FenceOutcome::Failed { output: "no answer".to_owned() });
    world.settle();
    assert!(matches!(world.result(1), Some(OperationResult::Released(_))), "{:?}", world.result(1));
    assert_eq!(world.at("db/0"), "n2");
    assert!(!world.state.nodes.get(&node("n2")).unwrap().lost());
}

#[test]
fn a_deed_is_done_by_a_node_that_has_what_it_needs() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.fence_method("n3");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n3\", weight: 50}]}\n");
    world.settle();
    let tool = FenceTool::Program("off".to_owned());
    let unavailable = Unavailable { why: "not installed".to_owned(), remedy: "install it".to_owned() };
    world.missing.insert(node("n1"), vec![MissingTool { tool, unavailable }]);
    world.lose("n3");
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
    let by = world.log.iter().find_map(|command| match command {
        Command::Advance { step: OperationStep::FenceAttempt { by, .. }, .. } => Some(by.clone()),
        _ => None,
    });
    assert_eq!(by, Some(node("n2")));
}

#[test]
fn when_every_level_has_failed_the_node_says_what_was_tried_and_what_to_do() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.facts("n2", |facts| {
        facts.fencing.extend_from_within(..);
        facts.fencing[1][0].attempts = 1;
    });
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.fence = Some(FenceOutcome::Failed { output: "no answer".to_owned() });
    world.lose("n2");
    world.settle();
    let attempts: Vec<(u32, u32)> = world
        .log
        .iter()
        .filter_map(|command| match command {
            Command::Advance { step: OperationStep::FenceAttempt { attempt, level, .. }, .. } => {
                Some((*attempt, *level))
            }
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [(1, 0), (2, 0), (3, 1)]);
    let waiting = &world.plan().waiting[&Subject::Node(node("n2"))];
    let said = waiting.iter().map(|line| line.cause.to_string()).collect::<Vec<_>>().join("\n");
    for part in
        ["no level read n2 back as off", "no answer | no answer", "quorate fence n2", "quorate attest n2"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_fencing_that_is_cancelled_before_its_deed_ends_cancelled() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.fence = None;
    world.lose("n2");
    until(&mut world, is_step(|step| matches!(step, OperationStep::FenceAttempt { .. })));
    world.ask(Command::CancelOperation { operation: OperationId(1) });
    world.fence = Some(FenceOutcome::Withheld { why: "operation 1 is cancelled".to_owned() });
    world.settle();
    assert_eq!(world.result(1), Some(&OperationResult::Cancelled));
    assert_eq!(world.at("db/0"), "n2", "nothing was proven");
}

#[test]
fn fencing_by_itself_waits_for_its_delay_and_can_be_switched_off() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.set("fencing.delay", "3s");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.lose("n2");
    assert!(world.step().is_empty());
    world.set("fencing.auto", "off");
    world.pass(3_000);
    assert!(world.step().is_empty());
    assert!(world.waits("db/0").iter().any(|cause| matches!(cause, WaitCause::Operator { .. })));
    world.set("fencing.auto", "on");
    assert!(matches!(world.step()[..], [Command::Fence { .. }]));
}

#[test]
fn a_node_that_answers_again_before_the_deed_calls_it_off() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.fence = None;
    world.lose("n2");
    assert!(matches!(world.step()[..], [Command::Fence { .. }]));
    world.thaw("n2");
    world.settle();
    assert!(matches!(world.result(1), Some(OperationResult::Released(_))));
    assert_eq!(world.at("db/0"), "n2");
    assert!(!world.state.nodes.get(&node("n2")).unwrap().lost());
}

#[test]
fn an_operators_fence_of_a_living_node_takes_its_lease_first_and_is_not_called_off() {
    let mut world = World::new(&["n1", "n2"]);
    world.fence_method("n2");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n2\", weight: 50}]}\n");
    world.settle();
    world.fence = None;
    world.ask(Command::Fence { node: node("n2"), reason: "it misbehaves".to_owned() });
    assert!(matches!(world.step()[..], [Command::MarkLost { .. }]));
    world.settle();
    assert!(world.state.nodes.get(&node("n2")).unwrap().lost(), "heard, but not let back in");
    let fenced = |operation: &quorate_core::state::Operation| match &operation.kind {
        OperationKind::Fence(fence) => fence.attempt == 1,
        _ => false,
    };
    assert!(world.state.operations.values().any(fenced));
    world.kill("n2");
    world.fence = Some(FenceOutcome::ProvenOff { output: "off".to_owned() });
    world.settle();
    assert_eq!(world.at("db/0"), "n2", "it was heard a moment ago, so it is not off yet");
    world.pass(3_000);
    world.settle();
    assert_eq!(world.at("db/0"), "n1");
}

#[test]
fn a_new_leader_takes_over_the_fencing_of_a_lost_one() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.fence_method("n3");
    world.deploy("name: db\nplacement: {affinity: [{constraint: \"node == n3\", weight: 50}]}\n");
    world.settle();
    world.fence = None;
    world.lose("n3");
    until(&mut world, is_step(|step| matches!(step, OperationStep::FenceAttempt { .. })));
    world.observed.me = node("n2");
    world.fence = Some(FenceOutcome::ProvenOff { output: "off".to_owned() });
    world.kill("n1");
    world.pass(5_000);
    world.settle();
    assert_eq!(world.at("db/0"), "n2");
    let by: Vec<NodeId> = world
        .log
        .iter()
        .filter_map(|command| match command {
            Command::Advance { step: OperationStep::FenceAttempt { by, .. }, .. } => Some(by.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(by, [node("n1"), node("n2")]);
}

//! What the keys do: which commands leave the cockpit, after which questions, and what never confirms.

use crate::fixtures;
use crate::keys::Keys;
use quorate_core::command::Command;
use quorate_core::ids::Revision;
use quorate_core::view::{ClusterKind, Level};
use quorate_tui::{DemoAction, Msg, Out, Preview, PreviewLine, Settings, SimAction};

fn commands(cockpit: &Keys) -> Vec<&Command> {
    cockpit.outs.iter().filter_map(submitted).collect()
}

fn submitted(out: &Out) -> Option<&Command> {
    match out {
        Out::Submit { command, .. } => Some(command),
        _ => None,
    }
}

#[test]
fn a_drain_asks_and_only_y_confirms_it_bound_to_the_revision_on_screen() {
    let mut cockpit = Keys::over(fixtures::healthy(), 120, 40);
    cockpit.all(&["2", "j", "D"]);
    assert!(cockpit.screen().contains("DRAIN n2"));
    for key in ["enter", "D", "space", "j", "x"] {
        cockpit.press(key);
    }
    assert!(cockpit.outs.is_empty(), "{:?}", cockpit.outs);
    cockpit.press("y");
    match &cockpit.outs[..] {
        [Out::Submit { command, expected, .. }] => {
            let Command::Drain { node, .. } = &**command else { panic!("{command:?}") };
            assert_eq!((node.as_str(), *expected), ("n2", Some(Revision(812))));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn esc_cancels_and_says_that_nothing_was_done() {
    let mut cockpit = Keys::over(fixtures::healthy(), 80, 24);
    cockpit.all(&["2", "D", "esc"]);
    assert!(cockpit.outs.is_empty() && cockpit.screen().contains("nothing was done"));
}

#[test]
fn fencing_needs_the_planners_word_the_name_a_reason_and_a_second_key_in_time() {
    let mut cockpit = Keys::over(fixtures::to_be_fenced(), 120, 40);
    cockpit.all(&["2", "F", "type:n2", "tab", "type:it burns", "ctrl-x"]);
    assert!(cockpit.screen().contains("the planner has not answered yet"), "{}", cockpit.screen());
    cockpit.foresees(Ok(fixtures::foresight(1_200)));
    cockpit.all(&["backtab", "backspace", "ctrl-x"]);
    assert!(cockpit.screen().contains("type n2 first"), "{}", cockpit.screen());
    cockpit.all(&["type:2", "tab", "enter", "y"]);
    assert!(cockpit.outs.is_empty(), "{:?}", cockpit.outs);
    cockpit.wait(16_000);
    cockpit.foresees(Ok(fixtures::foresight(1_204)));
    cockpit.press("ctrl-x");
    assert!(commands(&cockpit).is_empty() && cockpit.screen().contains("too late"), "{}", cockpit.screen());
    cockpit.all(&["type:n2", "ctrl-x"]);
    match &cockpit.outs[..] {
        [Out::Submit { command, expected, .. }] => {
            let Command::Fence { node, reason } = &**command else { panic!("{command:?}") };
            assert_eq!((node.as_str(), reason.as_str()), ("n2", "it burnsy"));
            assert_eq!(*expected, Some(Revision(1_204)), "what was shown is what runs");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_armed_is_what_was_shown_and_an_answer_that_comes_later_is_let_go() {
    let mut cockpit = Keys::over(fixtures::to_be_fenced(), 120, 40);
    cockpit.all(&["2", "F"]).foresees(Ok(fixtures::foresight(1_204)));
    let mut newer = fixtures::to_be_fenced();
    newer.revision = Revision(1_300);
    cockpit.wait(2_000);
    cockpit.take(Msg::View(std::sync::Arc::new(newer)));
    assert!(matches!(cockpit.outs[..], [Out::Foresee { .. }]), "asked anew: {:?}", cockpit.outs);
    cockpit.all(&["type:n2", "tab", "type:it burns"]).foresees(Ok(fixtures::foresight(1_300)));
    cockpit.wait(2_000);
    assert!(cockpit.outs.is_empty(), "nothing is asked while it is armed: {:?}", cockpit.outs);
    cockpit.press("ctrl-x");
    assert!(
        matches!(cockpit.outs[..], [Out::Submit { expected: Some(Revision(1_204)), .. }]),
        "{:?}",
        cockpit.outs
    );
}

#[test]
fn nothing_is_fenced_from_a_side_without_quorum_nor_where_the_planner_refuses() {
    let mut cockpit = Keys::over(fixtures::split(), 120, 40);
    cockpit.all(&["2", "F"]).foresees(Ok(fixtures::foresight(900)));
    cockpit.all(&["type:n4", "tab", "type:it burns", "ctrl-x"]);
    assert!(commands(&cockpit).is_empty() && cockpit.screen().contains("NOT ALLOWED: NO QUORUM"));
    let mut cockpit = Keys::over(fixtures::to_be_fenced(), 120, 40);
    cockpit.all(&["2", "F"]).foresees(Err("n2 has no fence method".into()));
    cockpit.all(&["type:n2", "tab", "type:it burns", "ctrl-x"]);
    assert!(commands(&cockpit).is_empty() && cockpit.screen().contains("n2 has no fence method"));
}

#[test]
fn a_test_asks_the_devices_and_switches_nothing() {
    let mut cockpit = Keys::over(fixtures::fenced(), 120, 40);
    cockpit.all(&["8", "t"]);
    assert!(
        matches!(&cockpit.outs[..], [Out::TestFence { node, .. }] if node.as_str() == "n2"),
        "{:?}",
        cockpit.outs
    );
}

#[test]
fn a_pasted_name_does_not_arm() {
    let mut cockpit = Keys::over(fixtures::healthy(), 120, 40);
    cockpit.all(&["3", "s"]);
    cockpit.take(Msg::Paste("orders-db".into()));
    cockpit.press("ctrl-x");
    assert!(cockpit.outs.is_empty());
    cockpit.all(&["type:orders-db", "ctrl-x"]);
    assert!(matches!(commands(&cockpit)[..], [Command::StopService { .. }]));
}

#[test]
fn several_marked_nodes_are_cordoned_by_one_question_that_lists_them() {
    let mut cockpit = Keys::over(fixtures::healthy(), 120, 40);
    cockpit.all(&["2", "space", "space", "c"]);
    let screen = cockpit.screen();
    assert!(screen.contains("cordon node n1") && screen.contains("cordon node n2"), "{screen}");
    assert!(cockpit.outs.is_empty());
    cockpit.press("y");
    assert_eq!(commands(&cockpit).len(), 2);
}

#[test]
fn one_cordon_needs_no_question_and_is_undone_by_u() {
    let mut cockpit = Keys::over(fixtures::healthy(), 120, 40);
    cockpit.all(&["2", "j", "c", "u"]);
    match &commands(&cockpit)[..] {
        [Command::Cordon { node, on: true }, Command::Uncordon { node: same }] => assert_eq!(node, same),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_copy_is_moved_to_a_picked_node_but_never_to_a_lost_one() {
    let mut cockpit = Keys::over(fixtures::lost(), 120, 40);
    cockpit.all(&["3", "j", "j", "m"]);
    assert!(cockpit.screen().contains("MOVE billing/0 from n3 TO"), "{}", cockpit.screen());
    cockpit.all(&["j", "j", "enter"]);
    assert!(cockpit.screen().contains("n2 cannot be chosen: it is lost"), "{}", cockpit.screen());
    cockpit.all(&["k", "enter", "y"]);
    match &commands(&cockpit)[..] {
        [Command::Migrate { slot, to: Some(to), parent: None }] => {
            assert_eq!((slot.to_string().as_str(), to.as_str()), ("billing/0", "n1"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn scaling_asks_for_a_number_and_then_for_a_word() {
    let mut cockpit = Keys::over(fixtures::healthy(), 120, 40);
    cockpit.all(&["3", "j", "S", "type:many", "enter"]);
    assert!(cockpit.screen().contains("\"many\" is not a number of copies"));
    cockpit.all(&["ctrl-u", "type:5", "enter"]);
    assert!(cockpit.screen().contains("scale web from 3 to 5 copies") && cockpit.outs.is_empty());
    cockpit.press("y");
    assert!(matches!(commands(&cockpit)[..], [Command::Scale { replicas: 5, .. }]));
}

#[test]
fn a_spec_is_validated_while_it_is_typed_planned_after_a_pause_and_deployed_after_a_question() {
    let mut cockpit = Keys::over(fixtures::healthy(), 160, 40);
    cockpit.press("d");
    cockpit.wait(400);
    let Some(Out::Preview { id, spec }) = cockpit.outs.pop() else { panic!("the planner was not asked") };
    assert!(spec.starts_with("name: hello"));
    let lines = vec![PreviewLine { level: Level::Ok, text: "hello/0 starts on n1".into() }];
    cockpit.take(Msg::PlanPreview { id, outcome: Ok(Preview { revision: Revision(900), lines }) });
    assert!(cockpit.screen().contains("hello/0 starts on n1") && cockpit.screen().contains("+ hello: new"));
    cockpit.all(&["type:x: "]);
    assert!(cockpit.screen().contains("WRONG"), "{}", cockpit.screen());
    cockpit.press("ctrl-s");
    assert!(cockpit.outs.is_empty() && cockpit.screen().contains("not a service yet"));
    cockpit.all(&["backspace", "backspace", "backspace"]);
    cockpit.wait(400);
    let Some(Out::Preview { id, .. }) = cockpit.outs.pop() else { panic!("the planner was not asked again") };
    cockpit
        .take(Msg::PlanPreview { id, outcome: Ok(Preview { revision: Revision(901), lines: Vec::new() }) });
    cockpit.all(&["ctrl-s", "enter"]);
    assert!(cockpit.outs.is_empty());
    cockpit.press("y");
    match &cockpit.outs[..] {
        [Out::Submit { id, command, expected }] => {
            let Command::Deploy { spec } = &**command else { panic!("{command:?}") };
            assert_eq!((spec.name.as_str(), *expected), ("hello", Some(Revision(901))));
            let id = *id;
            cockpit.take(Msg::CommandResult { id, outcome: Err("rejected: stale revision".into()) });
        }
        other => panic!("{other:?}"),
    }
    assert!(cockpit.screen().contains("rejected: stale revision (d has your text)"), "{}", cockpit.screen());
}

#[test]
fn a_changed_text_is_not_thrown_away_by_one_esc() {
    let mut cockpit = Keys::over(fixtures::healthy(), 120, 40);
    cockpit.all(&["d", "type:# mine", "esc"]);
    assert!(cockpit.screen().contains("NEW SERVICE"));
    cockpit.press("esc");
    assert!(!cockpit.screen().contains("NEW SERVICE"));
}

#[test]
fn the_selection_stays_on_its_object_while_others_come_and_go() {
    let mut cockpit = Keys::over(fixtures::healthy(), 120, 40);
    cockpit.all(&["3", "j", "j"]);
    assert!(cockpit.screen().contains("› ✓ running   billing"));
    cockpit.take(Msg::View(std::sync::Arc::new(fixtures::lost())));
    assert!(cockpit.screen().contains("› ✓ running   billing"), "{}", cockpit.screen());
    cockpit.all(&["2", "1", "3"]);
    assert!(cockpit.screen().contains("› ✓ running   billing"), "it survives going elsewhere");
}

#[test]
fn what_is_typed_into_a_filter_never_reaches_the_list() {
    let mut cockpit = Keys::over(fixtures::healthy(), 120, 40);
    cockpit.all(&["3", "/", "type:sqDy"]);
    assert!(cockpit.outs.is_empty() && cockpit.screen().contains("/sqDy"));
    cockpit.all(&["ctrl-u", "type:!pri:low ex:once", "enter"]);
    let screen = cockpit.screen();
    assert!(
        screen.contains("orders-db") && screen.contains("billing") && !screen.contains("batch-west"),
        "{screen}"
    );
    assert!(!screen.contains(" web "), "{screen}");
    cockpit.press("esc");
    assert!(cockpit.screen().contains("batch-west"));
}

#[test]
fn demo_nodes_are_killed_after_y_and_thawed_at_once() {
    let mut cockpit = Keys::over(fixtures::healthy(), 120, 40);
    cockpit.all(&["2", "j", "K", "k"]);
    assert!(cockpit.outs.is_empty() && cockpit.screen().contains("BLAST RADIUS"));
    cockpit.press("y");
    cockpit.all(&["K", "t"]);
    let actions: Vec<_> = cockpit
        .outs
        .iter()
        .map(|out| match out {
            Out::Demo { action, node, .. } => (*action, node.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(actions, [(DemoAction::Kill, "n2"), (DemoAction::Thaw, "n2")]);
}

#[test]
fn leaving_and_suspending_are_told_apart() {
    let mut cockpit = Keys::over(fixtures::healthy(), 120, 40);
    cockpit.press("ctrl-z");
    assert!(cockpit.screen().contains("ctrl-z would stop the node") && cockpit.outs.is_empty());
    cockpit.press("q");
    assert_eq!(cockpit.outs, [Out::Leave]);
}

#[test]
fn in_a_demo_leaving_ends_everything_and_therefore_asks() {
    let settings = Settings { leaving_ends_all: true, ..Settings::default() };
    let mut cockpit = Keys::new(120, 40, settings);
    cockpit.take(Msg::View(std::sync::Arc::new(fixtures::healthy())));
    cockpit.press("q");
    assert!(cockpit.outs.is_empty() && cockpit.screen().contains("END THE DEMO"));
    cockpit.press("y");
    assert_eq!(cockpit.outs, [Out::Leave]);
}

#[test]
fn the_reference_names_every_key_once() {
    let reference = quorate_tui::reference();
    assert!(reference.contains("| fence | `F` | name, reason, ctrl-x | power this node off and prove it |"));
    assert_eq!(reference.matches("| `D` |").count(), 1);
}

#[test]
fn a_held_picture_stands_still_until_it_is_let_go() {
    let mut cockpit = Keys::over(fixtures::healthy(), 120, 40);
    cockpit.press("z");
    cockpit.take(Msg::View(std::sync::Arc::new(fixtures::lost())));
    assert!(cockpit.screen().contains("FROZEN") && cockpit.screen().contains("HEALTHY"));
    cockpit.press("z");
    assert!(cockpit.screen().contains("DEGRADED"));
}

#[test]
fn the_summary_for_the_clipboard_has_the_incident_in_it() {
    let mut cockpit = Keys::over(fixtures::lost(), 120, 40);
    cockpit.press("y");
    match &cockpit.outs[..] {
        [Out::Copy(text)] => {
            assert!(text.contains("n2 is lost") && text.contains("orders-db (critical) waiting"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_simulated_world_is_steered_and_nothing_is_asked_of_it() {
    let mut view = fixtures::healthy();
    view.cluster.kind = ClusterKind::Sim;
    let mut cockpit = Keys::over(view, 120, 40);
    cockpit.all(&["space", ".", "+", "-", "[", "]", "v", "6", "space"]);
    let asked: Vec<&Out> = cockpit.outs.iter().collect();
    let wanted = [
        SimAction::Pause,
        SimAction::Step,
        SimAction::Faster,
        SimAction::Slower,
        SimAction::Back,
        SimAction::On,
        SimAction::NextNode,
        SimAction::Pause,
    ]
    .map(Out::Sim);
    assert_eq!(asked, wanted.iter().collect::<Vec<_>>());
    cockpit.all(&["2", "D"]);
    assert_eq!(cockpit.outs.len(), wanted.len());
    assert!(cockpit.screen().contains("D does nothing here"), "{}", cockpit.screen());

    let mut real = Keys::over(fixtures::healthy(), 120, 40);
    real.all(&["2", "space", "v"]);
    assert!(real.outs.is_empty(), "a real cluster is not steered so: {:?}", real.outs);
}

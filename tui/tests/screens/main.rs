//! What the operator sees, driven by keys over views made by hand, at three sizes; and that no size and
//! no screen ever panics.

#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../keys/mod.rs"]
mod keys;
mod steering;

use keys::Keys;
use quorate_core::view::{ClusterKind, ClusterView};
use quorate_tui::{Connection, LogLine, Msg, Out};

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 50)];

fn shown(name: &str, view: impl Fn() -> ClusterView, pressed: &[&str]) {
    for (width, height) in SIZES {
        let mut cockpit = Keys::over(view(), width, height);
        cockpit.all(pressed);
        insta::assert_snapshot!(format!("{name}_{width}x{height}"), cockpit.screen());
    }
}

#[test]
fn the_overview_of_a_healthy_cluster() {
    shown("overview_healthy", fixtures::healthy, &[]);
}

#[test]
fn the_overview_while_a_lost_node_holds_an_exclusive_service() {
    shown("overview_lost", fixtures::lost, &[]);
}

#[test]
fn the_overview_while_a_node_is_drained() {
    shown("overview_drain", fixtures::drain, &[]);
}

#[test]
fn the_overview_without_quorum_is_never_calm() {
    shown("overview_no_quorum", fixtures::no_quorum, &[]);
    let mut cockpit = Keys::over(fixtures::healthy(), 80, 24);
    assert!(cockpit.screen().contains("✓ HEALTHY:"));
    cockpit.wait(9_000);
    assert!(cockpit.screen().contains("HEALTHY?:"), "old data is not called healthy:\n{}", cockpit.screen());
    assert!(cockpit.screen().contains("• running?"));
}

#[test]
fn a_split_shows_its_sides_first_also_to_the_side_that_cannot_decide() {
    shown("overview_split", fixtures::split, &[]);
    let screen = Keys::over(fixtures::split(), 80, 24).screen();
    assert!(screen.contains("YES?"), "the other side's quorum is inferred, and says so:\n{screen}");
}

#[test]
fn a_node_that_is_proven_off_is_no_split() {
    let mut view = fixtures::split();
    view.standing.quorum = true;
    for name in ["n1", "n2", "n3"] {
        fixtures::edit_node(&mut view, name, |n| n.state = quorate_core::view::NodeState::Fenced);
    }
    let screen = Keys::over(view, 120, 40).screen();
    assert!(!screen.contains("SIDES") && screen.contains("WHAT WILL HAPPEN BY ITSELF"), "{screen}");
}

#[test]
fn a_simulated_split_is_marked_and_says_how_far_it_is() {
    for (width, height) in SIZES {
        let mut view = fixtures::split();
        view.cluster.kind = ClusterKind::Sim;
        let mut cockpit = Keys::over(view, width, height);
        let line = "minority-of-two at 4.2 s, PAUSED | n4: the lease ran out, says the guard: db/0 stops within 800ms";
        cockpit.take(Msg::Line(line.into()));
        insta::assert_snapshot!(format!("overview_sim_{width}x{height}"), cockpit.screen());
    }
}

#[test]
fn the_links_with_sides_verdicts_and_the_pair_under_the_cursor() {
    shown("links_split", fixtures::split, &["7"]);
    shown("links_healthy", fixtures::healthy, &["7"]);
    shown("links_filter", fixtures::split, &["7", "/", "type:from:n4 segment:data", "enter"]);
}

#[test]
fn the_overview_of_an_empty_cluster_says_what_to_do() {
    shown("overview_empty", fixtures::empty, &[]);
}

#[test]
fn the_nodes_and_one_of_them() {
    shown("nodes", fixtures::lost, &["2"]);
    shown("node", fixtures::lost, &["2", "j", "enter"]);
    shown("node_facts", fixtures::healthy, &["2", "enter", "tab"]);
}

#[test]
fn the_services_and_one_of_them() {
    shown("services", fixtures::lost, &["3"]);
    shown("service", fixtures::lost, &["3", "enter"]);
    shown("service_spec", fixtures::healthy, &["3", "enter", "tab"]);
}

#[test]
fn the_operations_with_the_children_of_a_drain() {
    shown("operations", fixtures::drain, &["4"]);
    shown("operation_why", fixtures::drain, &["4", "w"]);
}

#[test]
fn why_a_service_waits_with_its_evidence() {
    shown("why", fixtures::lost, &["3", "w"]);
}

#[test]
fn the_events_and_a_filter_that_finds_none() {
    shown("events", fixtures::lost, &["5"]);
    shown("events_filter", fixtures::lost, &["5", "/", "type:sub:n9", "enter"]);
}

#[test]
fn help_and_palette_come_from_the_registry() {
    shown("help", fixtures::healthy, &["3", "?"]);
    shown("palette", fixtures::healthy, &["2", ":", "type:dra"]);
    shown("which", fixtures::healthy, &["2", "K"]);
}

#[test]
fn the_questions_before_anything_is_changed() {
    shown("ask_drain", fixtures::healthy, &["2", "j", "D"]);
    shown("ask_stop", fixtures::healthy, &["3", "s"]);
    shown("ask_kill", fixtures::healthy, &["2", "K", "k"]);
    shown("pick_target", fixtures::lost, &["3", "j", "j", "m"]);
}

#[test]
fn a_fence_is_asked_for_with_all_that_hangs_on_it() {
    for (width, height) in SIZES {
        let mut cockpit = Keys::over(fixtures::to_be_fenced(), width, height);
        cockpit.all(&["2", "F"]).foresees(Ok(fixtures::foresight(1_204)));
        cockpit.press("type:n2");
        insta::assert_snapshot!(format!("ask_fence_{width}x{height}"), cockpit.screen());
    }
    shown("ask_fence_split", fixtures::split, &["2", "F"]);
}

#[test]
fn the_fencing_screen_tells_who_could_fence_whom_what_is_under_way_and_what_was_done() {
    shown("fencing", fixtures::fenced, &["8"]);
    shown("fencing_blocked", fixtures::fenced, &["8", "j"]);
    shown("fencing_split", fixtures::split, &["8"]);
}

#[test]
fn it_all_works_in_ascii_and_on_light_ground() {
    for theme in ["ascii", "light"] {
        let mut cockpit = match theme {
            "ascii" => Keys::ascii(fixtures::split(), 80, 24),
            _ => Keys::over(fixtures::split(), 80, 24),
        };
        if theme == "light" {
            cockpit.press("T");
        }
        for journey in [&["1"][..], &["8"], &["2", "F"]] {
            cockpit.all(journey);
            let screen = cockpit.screen();
            assert!(theme != "ascii" || screen.is_ascii(), "{screen}");
            assert!(screen.contains("n4"), "{screen}");
        }
    }
}

#[test]
fn the_editor_with_what_is_wrong_and_what_would_change() {
    shown("editor_new", fixtures::healthy, &["d"]);
    shown("editor_change", fixtures::healthy, &["3", "e", "down", "down", "type:x"]);
}

#[test]
fn logs_are_followed_searched_and_held() {
    for (width, height) in SIZES {
        let mut cockpit = Keys::over(fixtures::healthy(), width, height);
        cockpit.all(&["3", "j", "l"]);
        let Some(Out::Logs(quorate_tui::LogRequest::Open { stream, slot, .. })) = cockpit.outs.pop() else {
            panic!("no log was asked for: {:?}", cockpit.outs);
        };
        assert_eq!(slot, "web");
        let line = |n: u32| LogLine {
            slot: format!("web/{}", n % 3),
            error: n.is_multiple_of(7),
            text: format!("request {n} took {} ms\u{1b}[31m", n * 3 % 40),
        };
        cockpit.take(Msg::LogLines { stream, lines: (0..100).map(line).collect(), ended: None });
        cockpit.all(&["/", "type:request 77", "enter"]);
        insta::assert_snapshot!(format!("logs_{width}x{height}"), cockpit.screen());
        assert!(!cockpit.screen().contains('\u{1b}'));
    }
}

#[test]
fn a_lost_connection_is_above_everything_else() {
    let mut cockpit = Keys::over(fixtures::healthy(), 100, 24);
    cockpit.wait(3_000);
    cockpit.take(Msg::Connection(Connection::Moving { from: "n1".into(), to: "n2".into() }));
    insta::assert_snapshot!("moving", cockpit.screen());
}

#[test]
fn no_size_and_no_screen_ever_panics() {
    let journeys: &[&[&str]] = &[
        &[],
        &["2"],
        &["2", "enter"],
        &["2", "enter", "tab"],
        &["3"],
        &["3", "enter"],
        &["3", "enter", "tab"],
        &["4"],
        &["5"],
        &["6"],
        &["7"],
        &["8"],
        &["8", "tab", "j"],
        &["?"],
        &[":"],
        &["3", "w"],
        &["2", "F"],
        &["2", "D"],
        &["2", "K"],
        &["d"],
        &["3", "m"],
        &["3", "/"],
        &["3", "S"],
    ];
    let troubled: &[&[&str]] = &[&[], &["7"], &["8"], &["8", "tab", "j"], &["2", "F"]];
    type Journeys<'a> = &'a [&'a [&'a str]];
    let views: [(fn() -> ClusterView, Journeys<'_>); 4] = [
        (fixtures::lost, journeys),
        (fixtures::empty, journeys),
        (fixtures::split, troubled),
        (fixtures::fenced, troubled),
    ];
    let widths = [1, 2, 3, 5, 12, 40, 80, 110, 160, 500];
    let heights = [1, 2, 3, 5, 14, 24, 200];
    for (view, journeys) in views {
        for journey in journeys {
            let mut cockpit = Keys::over(view(), 80, 24);
            cockpit.all(journey);
            cockpit.foresees(Ok(fixtures::foresight(9_999)));
            for width in widths {
                // Wide and high at once only at the very end: what is small is what breaks.
                for height in
                    heights.iter().filter(|height| width <= 80 || **height <= 5 || width + **height == 700)
                {
                    cockpit.resize(width, *height);
                    cockpit.draw();
                }
            }
        }
    }
}

#[test]
fn a_cluster_of_a_thousand_nodes_builds_only_the_rows_that_are_seen() {
    let view = fixtures::big(1_000, 50_000);
    let mut cockpit = Keys::over(view, 200, 50);
    for journey in [&["1"][..], &["2"], &["2", "enter"], &["3"], &["G"]] {
        cockpit.all(journey);
        let (_, drawn) = cockpit.draw();
        assert!(drawn.rows_built > 0 && drawn.rows_built <= 120, "{journey:?}: {} rows", drawn.rows_built);
    }
}

#[test]
fn an_unknown_future_key_says_so_and_changes_nothing() {
    let mut cockpit = Keys::over(fixtures::healthy(), 80, 24);
    cockpit.press("%");
    assert!(cockpit.screen().contains("% does nothing here; ? shows what does"));
    assert!(cockpit.outs.is_empty());
}

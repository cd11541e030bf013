//! A simulated world in a real terminal: marked as such, held, stepped, sought in, looked at from another node.

use std::path::Path;
use std::time::Duration;

use super::screen::Screen;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_scenario_is_played_held_and_looked_at_from_the_other_side() {
    let home = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/scenarios/minority-of-two");
    let mut screen = Screen::of(&["sim", "--scenario", folder.to_str().unwrap()], home.path());
    screen.until("it plays, marked as what it is", SOON, |text| {
        text.starts_with(" SIM ") && text.contains("minority-of-two at ") && text.contains("playing x1")
    });
    screen.press(" ");
    screen.until("it stands still", SOON, |text| text.contains("PAUSED"));
    // From wherever it stood: back to the beginning, on into the split, and to the other side.
    for _ in 0..8 {
        screen.press("[");
    }
    screen.until("it was played again from its beginning", SOON, |text| text.contains(" at 0.00 s, PAUSED"));
    screen.press("]]");
    screen.until("it is before the split", SOON, |text| text.contains(" at 4.00 s, PAUSED"));
    screen.press("vvv");
    screen.until("the other side says where it stands", SOON, |text| {
        text.contains("on n4") && text.contains("NO QUORUM")
    });
    screen.press(".");
    screen
        .until("it goes on by a step", SOON, |text| !text.contains(" at 4.00 s,") && text.contains("PAUSED"));
    screen.press("q");
    assert_eq!(screen.ended(SOON), 0, "{}", screen.text());
    assert!(!screen.taken(), "the terminal is given back");
}

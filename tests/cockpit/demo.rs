//! `quorate demo` in a terminal: three healthy nodes on the first screen, a killed one seen without a key,
//! and leaving only when confirmed.

use std::time::{Duration, Instant};

use super::screen::Screen;

const UP: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);

/// Processes that name this directory.
fn of(dir: &std::path::Path) -> usize {
    let text = dir.to_str().unwrap().as_bytes();
    let names = |pid: &str| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(text.len()).any(|window| window == text)
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .filter(|pid| names(pid))
        .count()
}

#[test]
fn the_demo_draws_three_healthy_nodes_and_is_left_only_when_confirmed() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().canonicalize().unwrap().join("demo");
    let mut screen = Screen::of(&["demo", "--dir", dir.to_str().unwrap()], home.path());
    screen.until("three nodes are alive and quorum is said", UP, |text| {
        ["n1", "n2", "n3"].iter().all(|node| text.contains(node)) && text.matches("alive").count() >= 3
    });
    assert!(screen.taken(), "it draws on a screen of its own");
    assert!(screen.text().contains("DEMO"), "never to be taken for a real cluster:\n{}", screen.text());

    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(["demo", "ctl", "kill", "n1", "--dir"]).arg(&dir);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    screen.until("another node is attached to, and says that n1 is gone", SOON, |text| {
        let gone = ["suspect", "lost", "fenced"].iter().any(|state| text.contains(state));
        gone && (text.contains("on n2") || text.contains("on n3"))
    });

    screen.press("q");
    screen.until("it asks", SOON, |text| text.contains("does it"));
    screen.press("\x1b");
    screen.until("nothing was done", SOON, |text| !text.contains("does it"));
    screen.press("q");
    screen.until("it asks again", SOON, |text| text.contains("does it"));
    screen.press("y");
    assert_eq!(screen.ended(SOON), 0, "{}", screen.text());
    assert!(!screen.taken(), "the terminal is given back");
    let deadline = Instant::now() + Duration::from_secs(5);
    while of(&dir) > 0 {
        assert!(Instant::now() < deadline, "something of the demo is left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! `quorate` by itself in a terminal: a node of its own that outlives the cockpit, and is stopped from it.

use std::path::Path;
use std::time::Duration;

use super::screen::Screen;

const UP: Duration = Duration::from_secs(60);

/// The node that the program started; ended with its guard at the end of the test, whatever happens.
struct Background<'a>(&'a Path);

impl Background<'_> {
    fn pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.0.join("node.lock")).unwrap();
        let note: serde_json::Value = serde_json::from_str(&text).unwrap();
        u32::try_from(note["pid"].as_u64().unwrap()).unwrap()
    }

    /// Its processes: the node and the guard, by their command lines.
    fn processes(&self) -> Vec<u32> {
        let text = self.0.to_str().unwrap().as_bytes();
        let names = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(text.len()).any(|window| window == text)
        };
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(names).collect()
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        for pid in self.processes() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

#[test]
fn the_own_node_outlives_the_cockpit_and_is_stopped_from_it() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    let dir = home.join("state/quorate/node");
    let background = Background(&dir);
    let alive = |text: &str| text.contains("alive") && text.contains("no service yet");

    // The operator's own wishes hold: another key for leaving, in place of the built-in one.
    let config = home.join("config/quorate");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("cockpit.toml"), "theme = \"light\"\n[keys]\nleave = \"ctrl-e\"\n").unwrap();
    let mut screen = Screen::of(&[], &home);
    screen.until("its only node is alive", UP, alive);
    screen.until("it is said how others join", UP, |text| text.contains("quorate join-token"));
    let pid = background.pid();
    screen.press("\u{5}");
    assert_eq!(screen.ended(UP), 0);
    screen.until("the shell is told how to return", UP, |text| text.contains("runs on in the background"));
    assert!(
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()),
        "the node runs on"
    );

    let mut screen = Screen::of(&[], &home);
    screen.until("the same node is shown again", UP, alive);
    assert_eq!(background.pid(), pid, "no second node was started");
    screen.press("Q");
    screen.until("it asks", UP, |text| text.contains("does it"));
    screen.press("y");
    assert_eq!(screen.ended(UP), 0, "{}", screen.text());
    screen.until("it says that the node is stopped", UP, |text| text.contains("is stopped"));
    let gone = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    assert!(gone.is_err() || gone.is_ok_and(|stat| stat.contains(") Z ")), "the node has ended");
}

#[test]
fn a_mistyped_directory_founds_no_cluster() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    let dir = home.join("mistyped");
    let mut screen = Screen::of(&["--data-dir", dir.to_str().unwrap()], &home);
    assert_eq!(screen.ended(UP), 7, "{}", screen.text());
    screen.until("it says what is wrong", UP, |text| text.contains("neither a node's data directory"));
    assert!(!dir.exists());
}

//! Wall clocks that jump: nothing happens, since no decision reads them. The nodes run under libfaketime, which
//! shifts what they see of the time of day and leaves the clocks that count.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::clients::await_write;
use crate::judge::runs::Reader;
use crate::rig::{Cluster, LEASE, Service, standing};
use crate::wait::await_some;

/// The library where the packages of this host put it; without it the test is left out, and fails where
/// QUORATE_REQUIRE asks for it.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut places = folders.map(|folder| folder.join("faketime/libfaketime.so.1"));
    let found = places.find(|place| place.exists());
    if found.is_none() {
        let required = std::env::var("QUORATE_REQUIRE").unwrap_or_default();
        let asked = required.split(',').any(|one| one.trim() == "faketime");
        assert!(!asked, "faketime is required; install libfaketime");
        println!("left out: libfaketime is not installed here");
    }
    found
}

/// Changes a node's time of day in one step.
fn jump(file: &Path, to: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, to).unwrap();
    std::fs::rename(&new, file).unwrap();
}

/// Does the program see the other time at all? It logs that an operator was here.
fn sees(cluster: &Cluster, at: usize, day: OffsetDateTime) {
    let day = day.date().to_string();
    for command in ["cordon", "uncordon"] {
        cluster.done(at, &[command, cluster.name(at)]);
    }
    await_some(&format!("{} logs on {day}", cluster.name(at)), || {
        let log = std::fs::read_to_string(cluster.data(at).join("quorate.log")).map_err(|e| e.to_string())?;
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        if last.iter().any(|line| line.starts_with(&day)) { Ok(()) } else { Err(last.join("; ")) }
    });
}

/// What the library leaves in shared memory; it ends with the test.
struct Traces(Vec<u32>);

impl Drop for Traces {
    fn drop(&mut self) {
        for pid in &self.0 {
            for name in ["faketime_shm_", "sem.faketime_sem_"] {
                let _ = std::fs::remove_file(format!("/dev/shm/{name}{pid}"));
            }
        }
    }
}

#[test]
fn wall_clocks_that_jump_by_a_day_change_nothing() {
    let Some(library) = library() else { return };
    // Before the cluster, so that it goes after it.
    let mut traces = Traces(Vec::new());
    let Some(mut cluster) = Cluster::prepared(3) else { return };
    let tried = Command::new("true").env("LD_PRELOAD", &library).stderr(Stdio::null()).status();
    assert!(tried.is_ok_and(|status| status.success()), "{} cannot be loaded", library.display());
    let file = |cluster: &Cluster, at: usize| cluster.dir.path().join(format!("time-{at}"));
    for at in 0..3 {
        let file = file(&cluster, at);
        jump(&file, "+0s");
        let settings = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        for (name, value) in settings {
            cluster.set_environment(at, name, value);
        }
    }
    cluster.form();
    traces.0 = (0..3).map(|at| cluster.pid(at)).collect();
    cluster.deploy(0, &[Service { replicas: 3, ..Service::new("web", "low") }]);
    let mut reader = Reader::default();
    for ordinal in 0..3 {
        cluster.await_life(&mut reader, &format!("web/{ordinal}"), &[0, 1, 2]);
    }
    cluster.done(0, &["kv", "put", "kept", "yes", "--ttl", "1h"]);
    let before = standing(&cluster, 0);
    let leader = await_some("a leader", || cluster.leader(0));
    let other = (leader + 1) % 3;
    let day = time::Duration::DAY;
    let jumps: [(&[usize], &str, time::Duration); 4] = [
        (&[leader], "+1d", day),
        (&[other], "-1d", -day),
        (&[leader], "-1d", -day),
        (&[0, 1, 2], "+1d", day),
    ];
    for (nodes, to, by) in jumps {
        for at in nodes {
            jump(&file(&cluster, *at), to);
        }
        let jumped = Instant::now();
        for at in 0..3 {
            await_write(&cluster, at, &format!("{to}/{at}"), "written");
        }
        for at in nodes {
            sees(&cluster, *at, OffsetDateTime::now_utc() + by);
        }
        while jumped.elapsed() < LEASE + Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(standing(&cluster, 0), before, "after {to} of {:?}", cluster.names(nodes));
    }
    let kept = cluster.run(other, &["kv", "get", "kept"]);
    assert_eq!(String::from_utf8_lossy(&kept.stdout).trim(), "yes", "{kept:?}");
    reader.catch_up(&cluster.records());
    assert!(reader.runs.overlaps().is_empty());
}

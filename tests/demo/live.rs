//! Whole demos: they come up healthy, are steered, and leave nothing, however they end.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use super::rig::{Demo, Held, of, quorate, runs, send, until};

const SOON: Duration = Duration::from_secs(60);

fn nothing_is_left(demo: &Demo, within: Duration) {
    until("nothing of the demo is left", within, || of(&demo.dir).is_empty());
}

#[test]
fn a_demo_is_ready_only_when_healthy_and_leaves_nothing_when_told_to_end() {
    let mut demo = Demo::start(3);
    assert_eq!(demo.ready["schema"], 1);
    assert_eq!(demo.ready["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(demo.ready["endpoints"].as_array().unwrap().len(), 3);
    let wanted: Vec<String> = demo.ready["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    // Once ready is not for ever: on a busy machine a leader may change right after it.
    until("all its services are told to be healthy", SOON, || {
        let Ok(services) = demo.ask(&["services"]) else { return false };
        let items = services["items"].as_array().unwrap();
        wanted.iter().all(|name| {
            items.iter().any(|service| {
                let replicas = &service["replicas"];
                service["name"] == name.as_str() && replicas["healthy"] == replicas["wanted"]
            })
        })
    });
    for node in ["n1", "n2", "n3"] {
        assert!(runs(demo.pid(node, "pid")) && runs(demo.pid(node, "guard_pid")), "{node}");
    }
    let status = quorate().args(["status", "--local", "--data-dir"]).arg(&demo.dir).output().unwrap();
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(
        status.status.success() && ["n1", "n2", "n3", "db"].iter().all(|name| said.contains(name)),
        "{said}"
    );

    let mut second = quorate();
    second.args(["demo", "--headless", "--dir"]).arg(&demo.dir);
    let output = second.output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("already runs"), "{output:?}");

    send(demo.child.pid(), Signal::TERM);
    let status = demo.child.0.wait().unwrap();
    let mut said = String::new();
    demo.child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(of(&demo.dir), Vec::<u32>::new(), "nothing is left once it has ended");
    assert!(!demo.dir.join("demo.json").exists());
}

#[test]
fn a_killed_demo_leaves_nothing_within_five_seconds() {
    let mut demo = Demo::start(3);
    demo.ctl("freeze", "n2");
    demo.child.0.kill().unwrap();
    demo.child.0.wait().unwrap();
    nothing_is_left(&demo, Duration::from_secs(5));
}

#[test]
fn a_node_that_is_killed_is_fenced_and_comes_back_when_restarted() {
    let demo = Demo::start(3);
    let holder = || {
        let instances = demo.ask(&["instances"]).ok()?;
        let db = instances["items"].as_array()?.iter().find(|one| one["slot"] == "db/0")?.clone();
        (db["state"] == "running").then(|| db["node"].as_str().map(str::to_owned))?
    };
    let mut node = String::new();
    until("db runs somewhere", SOON, || holder().inspect(|name| node.clone_from(name)).is_some());
    let (before, guard) = (demo.pid(&node, "pid"), demo.pid(&node, "guard_pid"));
    demo.ctl("kill", &node);
    assert!(!runs(before), "its process is gone when the answer comes");
    // It held an exclusive service, so it is fenced: its guard and instances are ended as well.
    until("it is fenced", SOON, || demo.node(&node, "state") == "fenced");
    assert!(!runs(guard));
    until("db runs on another node", SOON, || holder().is_some_and(|now| now != node));
    demo.ctl("restart", &node);
    let after = demo.pid(&node, "pid");
    assert!(after != before && runs(after));
    until("it is alive again, in its new process", SOON, || {
        demo.node(&node, "state") == "alive" && demo.node(&node, "pid") == after
    });
}

#[test]
fn the_end_of_a_piped_input_ends_a_demo_even_before_it_is_ready() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().canonicalize().unwrap().join("demo");
    let mut command = quorate();
    command.args(["demo", "--headless", "--dir"]).arg(&dir).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut demo = Held(command.spawn().unwrap());
    until("a node of it runs", SOON, || dir.join("nodes/n1/node.lock").exists());
    drop(demo.0.stdin.take());
    until("it ends", SOON, || !runs(demo.pid()));
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
    assert_eq!(of(&dir), Vec::<u32>::new());
}

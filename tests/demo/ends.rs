//! The fence device and the keeper, on processes of their own.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use super::rig::{Held, instance, quorate, runs, send, until};

const SOON: Duration = Duration::from_secs(10);

fn agent(dir: &std::path::Path, node: &str, action: &str) -> String {
    let mut command = quorate();
    command.args(["demo", "fence-agent", "--node", node, "--dir"]).arg(dir).arg(action);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_fence_device_ends_its_node_only_and_reads_back_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (own, other) = (instance(&dir, "n2"), instance(&dir, "n21"));
    send(own.pid(), Signal::STOP);
    let status = agent(&dir, "n2", "status");
    assert_eq!(status.trim().lines().next_back(), Some("on"), "{status}");
    assert!(
        status.contains(&own.pid().to_string()) && !status.contains(&other.pid().to_string()),
        "{status}"
    );
    agent(&dir, "n2", "off");
    assert!(!runs(own.pid()), "a frozen process is ended too");
    assert_eq!(agent(&dir, "n2", "status").trim(), "off");
    assert!(runs(other.pid()), "another node's process is not touched");
}

#[test]
fn the_keeper_ends_what_outlives_the_demo_frozen_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    for node in ["n1", "n2"] {
        std::fs::create_dir_all(dir.join("nodes").join(node)).unwrap();
    }
    let (frozen, going) = (instance(&dir, "n1"), instance(&dir, "n2"));
    send(frozen.pid(), Signal::STOP);
    let mut command = quorate();
    command.args(["demo", "keeper", "--dir"]).arg(&dir).stdin(Stdio::piped());
    let mut keeper = Held(command.spawn().unwrap());
    let mut pipe = keeper.0.stdin.take().unwrap();
    pipe.write_all(b"bytes are not the end").unwrap();
    until("the keeper reads what is written", SOON, || {
        rustix::io::ioctl_fionread(&pipe).is_ok_and(|n| n == 0)
    });
    assert!(runs(frozen.pid()) && runs(going.pid()), "nothing is ended while the pipe is open");
    drop(pipe);
    until("both are gone within 5 s of the end of the pipe", Duration::from_secs(5), || {
        !runs(frozen.pid()) && !runs(going.pid())
    });
    until("the keeper ends by itself", SOON, || !runs(keeper.pid()));
}

#[test]
fn steering_a_demo_that_does_not_run_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = quorate();
    command.args(["demo", "ctl", "--dir"]).arg(dir.path()).args(["kill", "n1", "-o", "json"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("no demo runs in") && error.contains("unreachable"), "{error}");
}

//! The lease's deadlines: held by the guard alone, with the node gone, frozen or restarted.

use std::time::{Duration, Instant};

use quorate::host::boot_now;
use quorate::ports::Guard;
use quorate_core::effect::Isolation;
use quorate_core::observation::{ExitKind, InstancePhase};
use quorate_core::units::{BootMs, Millis};
use rustix::process::Signal;

use crate::rig::{Rig, alive, script, signal_process, until_so};

/// Later than this no deadline is met, however busy the machine; the kill itself takes some ten milliseconds.
const LATE: Millis = Millis(1_000);

const DEAF: &str = "trap '' TERM; while :; do sleep 0.01; done";

#[tokio::test]
async fn the_guard_ends_what_may_not_stay_with_no_node_there() {
    let mut rig = Rig::new().await;
    let mut pids = Vec::new();
    for (name, isolation) in [
        ("low", Isolation::Kill),
        ("normal", Isolation::Stop { grace: Millis(400) }),
        ("polite", Isolation::Stop { grace: Millis(60_000) }),
        ("critical", Isolation::Keep),
    ] {
        let text = if name == "polite" { "trap 'exit 0' TERM; while :; do sleep 0.01; done" } else { DEAF };
        let mut start = script(name, "1.5", text);
        start.isolation = isolation;
        rig.start(&start).await.unwrap();
        pids.push(rig.running(name).await);
    }
    let expiry = rig.renew_for(500).await;
    rig.node_goes().await;
    until_so("the low one is gone", || !alive(pids[0])).await;
    let low_gone = boot_now();
    assert!(low_gone >= expiry && low_gone < expiry + LATE, "low went at {low_gone:?}, lease {expiry:?}");
    assert!(alive(pids[1]), "the grace of a normal one was cut short");
    until_so("the polite one is gone", || !alive(pids[2])).await;
    until_so("the normal one is gone", || !alive(pids[1])).await;
    let gone = boot_now();
    let deadline = expiry + Millis(400);
    assert!(gone >= deadline && gone < deadline + LATE, "normal went at {gone:?}, deadline {deadline:?}");
    assert!(alive(pids[3]), "a critical one was ended");
    rig.node_comes().await;
    for name in ["low", "normal", "polite"] {
        assert_eq!(rig.exited(name).await.kind, ExitKind::LeaseExpired, "{name}");
    }
    assert_eq!(rig.running("critical").await, pids[3]);
    // A crashed critical one starts again in place without a lease, but nothing else does.
    signal_process(pids[3], Signal::KILL);
    assert_eq!(rig.exited("critical").await.kind, ExitKind::Signaled);
    let mut again = script("critical", "1.5", "exec sleep 100");
    again.isolation = Isolation::Keep;
    again.restart = 1;
    rig.start(&again).await.unwrap();
    rig.running("critical").await;
    again.id.slot = "other/0".parse().unwrap();
    rig.start(&again).await.unwrap_err();
}

#[tokio::test]
async fn renewals_keep_instances_running_and_older_ones_change_nothing() {
    let rig = Rig::new().await;
    let mut start = script("web", "1.5", "exec sleep 100");
    start.isolation = Isolation::Kill;
    rig.start(&start).await.unwrap();
    let pid = rig.running("web").await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) {
        rig.renew_for(600).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(rig.running("web").await, pid);
    assert_eq!(rig.exited("web").await.kind, ExitKind::LeaseExpired);
}

#[tokio::test]
async fn a_frozen_guard_enforces_what_passed_meanwhile_as_soon_as_it_thaws() {
    let rig = Rig::with(&["--alone"]).await;
    let mut start = script("web", "1.5", DEAF);
    start.isolation = Isolation::Stop { grace: Millis(100) };
    rig.start(&start).await.unwrap();
    let pid = rig.running("web").await;
    let expiry = rig.renew_for(300).await;
    rig.signal_guard(Signal::STOP);
    let mut status = rig.guard().status();
    status.wait_for(|status| !status.answering).await.unwrap();
    until_so("the deadline passes", || boot_now() > expiry + Millis(200)).await;
    assert!(alive(pid));
    let error = rig.guard().inventory().await.unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");
    rig.signal_guard(Signal::CONT);
    let thawed = boot_now();
    until_so("it is gone", || !alive(pid)).await;
    assert!(boot_now() < thawed + LATE);
    status.wait_for(|status| status.answering).await.unwrap();
    assert_eq!(rig.exited("web").await.kind, ExitKind::LeaseExpired);
}

#[tokio::test]
async fn a_node_that_comes_back_counts_its_renewals_on() {
    let mut rig = Rig::new().await;
    let start = script("web", "1.5", "exec sleep 100");
    rig.start(&start).await.unwrap();
    let pid = rig.running("web").await;
    for _ in 0..5 {
        rig.renew_for(2_000).await;
    }
    rig.node_goes().await;
    rig.node_comes().await;
    // Were it taken for an old one, the instance would end with the first lease.
    let until: BootMs = rig.renew_for(30_000).await;
    let old = boot_now() + Millis(2_500);
    until_so("the older lease is over", || boot_now() > old).await;
    assert!(boot_now() < until);
    assert_eq!(rig.running("web").await, pid);
    assert_eq!(rig.instance("web").await.unwrap().phase, InstancePhase::Running);
}

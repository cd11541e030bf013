//! Deaths of the guard, the node and whoever holds them: what has to go on does, with its processes.

use quorate::host::boot_now;
use quorate::ports::{ActError, Guard};
use quorate_core::effect::Isolation;
use quorate_core::observation::ExitKind;
use quorate_core::units::Millis;
use rustix::process::Signal;

use crate::rig::{PATIENCE, QUORATE, Rig, alive, script, signal_process, slot, stop, until_so};

/// Kills the guard; returns when the next one answers.
async fn kill_guard(rig: &Rig) {
    let mut status = rig.guard().status();
    let before = status.borrow_and_update().clone();
    rig.signal_guard(Signal::KILL);
    let next = |status: &quorate::guard::GuardStatus| status.answering && status.pid != before.pid;
    tokio::time::timeout(PATIENCE, status.wait_for(next)).await.unwrap().unwrap();
    assert_eq!(status.borrow().losses, before.losses + 1);
}

#[tokio::test]
async fn a_killed_guard_is_replaced_and_adopts_what_runs() {
    for track in ["auto", "cgroup1", "processes"] {
        let rig = Rig::with(&["--track", track]).await;
        rig.start(&script("web", "1.5", "while :; do echo tick; sleep 0.01; done")).await.unwrap();
        rig.start(&script("done", "1.6", "exit 3")).await.unwrap();
        let pid = rig.running("web").await;
        rig.exited("done").await;
        rig.guard().stop(stop("done", "1.7", 0)).await.unwrap();
        kill_guard(&rig).await;
        assert_eq!(rig.running("web").await, pid, "{track}");
        // Tokens outlive the guard.
        assert_eq!(rig.slot("done").await.unwrap().highest, "1.7".parse().unwrap());
        let error = rig.start(&script("done", "1.6", "exit 0")).await.unwrap_err();
        assert!(matches!(error, ActError::StaleToken { .. }), "{error}");
        // Nobody is told how an adopted one ends; that it ended is seen.
        signal_process(pid, Signal::KILL);
        assert_eq!(rig.exited("web").await.kind, ExitKind::Lost, "{track}");
        rig.start(&script("next", "1.9", "exec sleep 100")).await.unwrap();
        let pid = rig.running("next").await;
        kill_guard(&rig).await;
        rig.guard().stop(stop("next", "1.10", 5_000)).await.unwrap();
        rig.emptied("next").await;
        assert!(!alive(pid), "{track}");
    }
}

#[tokio::test]
async fn a_new_guard_enforces_a_stored_deadline_first() {
    let mut rig = Rig::with(&["--alone"]).await;
    let mut start = script("web", "1.5", "exec sleep 100");
    start.isolation = Isolation::Kill;
    rig.start(&start).await.unwrap();
    let pid = rig.running("web").await;
    let expiry = rig.renew_for(1_500).await;
    let guard = rig.guard_pid();
    rig.node_goes().await;
    signal_process(guard, Signal::KILL);
    until_so("the deadline passes", || boot_now() > expiry + Millis(50)).await;
    assert!(alive(pid), "with no guard nobody could have ended it");
    rig.node_comes().await;
    until_so("it is gone", || !alive(pid)).await;
    assert_eq!(rig.exited("web").await.kind, ExitKind::LeaseExpired);
}

#[tokio::test]
async fn a_node_that_is_gone_harms_nothing_and_finds_all_again() {
    let mut rig = Rig::new().await;
    rig.start(&script("web", "1.5", "exec sleep 100")).await.unwrap();
    let (pid, guard) = (rig.running("web").await, rig.guard_pid());
    rig.node_goes().await;
    rig.node_comes().await;
    assert_eq!((rig.running("web").await, rig.guard_pid()), (pid, guard));
    let runs = rig.guard().runs().await.unwrap();
    assert_eq!(runs.iter().map(|run| run.id.slot.clone()).collect::<Vec<_>>(), [slot("web")]);
}

#[tokio::test]
async fn once_let_go_nothing_is_left() {
    let mut rig = Rig::new().await;
    let text = "trap '' TERM; setsid sleep 300 & while :; do sleep 0.01; done";
    rig.start(&script("web", "1.5", text)).await.unwrap();
    let (pid, guard) = (rig.running("web").await, rig.guard_pid());
    // The node is frozen or gone: the guard has to see to it alone.
    rig.node_goes().await;
    rig.let_go();
    let begun = boot_now();
    let name =
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(rig.layout.root().as_os_str().as_encoded_bytes()));
    let folders = ["/sys/fs/cgroup/unified/quorate", "/sys/fs/cgroup/quorate", "/run/quorate"];
    // Guard and second holder both leave; the last of them takes the folders away.
    let left = || folders.iter().any(|folder| std::path::Path::new(folder).join(&name).exists());
    until_so("all is gone", || !alive(pid) && !alive(guard) && !left()).await;
    assert!(boot_now() < begun + Millis(5_000));
}

#[tokio::test]
async fn a_guard_with_nothing_to_guard_ends_by_itself() {
    let mut rig = Rig::without_lease(&["--idle-exit", "200"]).await;
    let guard = rig.guard_pid();
    rig.node_goes().await;
    until_so("the guard is gone", || !alive(guard)).await;
    rig.node_comes().await;
    assert_ne!(rig.guard_pid(), guard);
}

#[tokio::test]
async fn one_data_directory_has_one_guard_and_one_node() {
    let rig = Rig::new().await;
    let second = tokio::process::Command::new(QUORATE)
        .args(["guard", "--data-dir"])
        .arg(rig.layout.root())
        .output()
        .await
        .unwrap();
    assert!(!second.status.success());
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(error.contains("another guard holds"), "{error}");
    // A second node finds the session taken; strangers and garbage do no harm.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = rig.layout.guard_socket();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[9, 0, 0, 0, 1]] {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut said = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        assert!(closed.is_ok(), "the guard kept a stranger");
    }
    rig.renew_for(60_000).await;
}

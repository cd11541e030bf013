//! Starting and stopping: what is accepted, what is refused, and what an end is called.

use std::fs;
use std::path::{Path, PathBuf};

use quorate::guard::Track;
use quorate::ports::{ActError, Guard};
use quorate_core::effect::Isolation;
use quorate_core::ids::OperationId;
use quorate_core::observation::{ExitKind, InstancePhase};
use quorate_core::units::Millis;
use rustix::process::Signal;
use serde_json::json;

use crate::rig::{QUORATE, Rig, alive, root, script, service, slot, stop, until_so};

#[tokio::test]
async fn an_instance_runs_stops_within_its_grace_and_leaves_its_token() {
    let rig = Rig::new().await;
    let start = script("web", "1.5", "trap 'exit 0' TERM; while :; do sleep 0.01; done");
    rig.start(&start).await.unwrap();
    let pid = rig.running("web").await;
    assert!(alive(pid));
    assert_eq!(rig.slot("web").await.unwrap().highest, start.id.token);
    // The same again changes nothing.
    rig.start(&start).await.unwrap();
    assert_eq!(rig.running("web").await, pid);
    rig.guard().stop(stop("web", "1.6", 10_000)).await.unwrap();
    rig.emptied("web").await;
    assert!(!alive(pid));
    assert_eq!(rig.slot("web").await.unwrap().highest, "1.6".parse().unwrap());
    rig.start(&script("web", "1.7", "exec sleep 100")).await.unwrap();
    rig.running("web").await;
    let last = rig.instance("web").await.unwrap().last_exit.unwrap();
    assert_eq!(last.kind, ExitKind::Stopped);
}

#[tokio::test]
async fn one_that_ignores_the_signal_is_killed_after_its_grace() {
    let rig = Rig::new().await;
    rig.start(&script("deaf", "1.5", "trap '' TERM; while :; do sleep 0.01; done")).await.unwrap();
    let pid = rig.running("deaf").await;
    rig.guard().stop(stop("deaf", "1.6", 300)).await.unwrap();
    rig.emptied("deaf").await;
    assert!(!alive(pid));
    rig.start(&script("deaf", "1.7", "exec sleep 100")).await.unwrap();
    rig.running("deaf").await;
    assert_eq!(rig.instance("deaf").await.unwrap().last_exit.unwrap().kind, ExitKind::Killed);
}

#[tokio::test]
async fn old_tokens_are_refused_and_a_stop_of_nothing_raises_the_token() {
    let rig = Rig::new().await;
    rig.guard().stop(stop("web", "1.9", 0)).await.unwrap();
    let seen = rig.slot("web").await.unwrap();
    assert_eq!((seen.highest, seen.instance), ("1.9".parse().unwrap(), None));
    for old in ["1.8", "1.9"] {
        let error = rig.start(&script("web", old, "exec sleep 100")).await.unwrap_err();
        assert!(matches!(error, ActError::StaleToken { .. }), "{error}");
    }
    let error = rig.guard().stop(stop("web", "1.8", 0)).await.unwrap_err();
    assert!(matches!(error, ActError::StaleToken { .. }), "{error}");
    rig.start(&script("web", "2.1", "exec sleep 100")).await.unwrap();
    rig.running("web").await;
    let error = rig.start(&script("web", "2.2", "exec sleep 100")).await.unwrap_err();
    assert!(matches!(error, ActError::StillRunning { .. }), "{error}");
}

#[tokio::test]
async fn ends_are_told_apart_and_stay_on_view() {
    let rig = Rig::new().await;
    for (name, text, kind, code, signal) in [
        ("done", "exit 0", ExitKind::Completed, Some(0), None),
        ("bad", "exit 3", ExitKind::Failed, Some(3), None),
        ("shot", "kill -SEGV $$", ExitKind::Signaled, None, Some(libc_segv())),
    ] {
        rig.start(&script(name, "1.5", text)).await.unwrap();
        let reason = rig.exited(name).await;
        assert_eq!((reason.kind, reason.code, reason.signal), (kind, code, signal), "{name}");
    }
    // The same start is over; the next in place is another run.
    let mut again = script("bad", "1.5", "exec sleep 100");
    rig.start(&again).await.unwrap();
    assert!(matches!(rig.instance("bad").await.unwrap().phase, InstancePhase::Exited(_)));
    again.restart = 1;
    rig.start(&again).await.unwrap();
    rig.running("bad").await;
    let report = rig.instance("bad").await.unwrap();
    assert_eq!((report.restarts, report.last_exit.unwrap().kind), (1, ExitKind::Failed));
}

fn libc_segv() -> i32 {
    Signal::SEGV.as_raw()
}

#[tokio::test]
async fn an_unhealthy_run_makes_room_for_the_next_in_place() {
    let rig = Rig::new().await;
    let mut start = script("web", "1.5", "exec sleep 100");
    rig.start(&start).await.unwrap();
    let first = rig.running("web").await;
    start.restart = 1;
    rig.start(&start).await.unwrap();
    until_so("the first run is gone", || !alive(first)).await;
    assert_ne!(rig.running("web").await, first);
    let report = rig.instance("web").await.unwrap();
    assert_eq!((report.restarts, report.last_exit.unwrap().kind), (1, ExitKind::Unhealthy));
}

#[tokio::test]
async fn a_start_that_fails_says_which_field_is_wrong() {
    let rig = Rig::new().await;
    let missing = service("missing", "1.5", &["no-such-program-here"], json!({}), json!({}));
    let folder =
        service("folder", "1.5", &["/bin/true"], json!({}), json!({"working_dir": "/no/such/folder"}));
    let user = service("user", "1.5", &["/bin/true"], json!({}), json!({"user": "no-such-account"}));
    let file = service("file", "1.5", &["/etc/passwd"], json!({}), json!({}));
    for (name, start, words) in [
        ("missing", missing, ["spec.command", "no-such-program-here"]),
        ("folder", folder, ["spec.working_dir", "/no/such/folder"]),
        ("user", user, ["spec.user", "no-such-account"]),
        ("file", file, ["spec.command", "may not run"]),
    ] {
        let outcome = rig.start(&start).await;
        let error = outcome.expect_err(name).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        let InstancePhase::StartFailed(why) = rig.instance(name).await.unwrap().phase else {
            panic!("{name} did not fail")
        };
        assert!(why.contains(words[0]), "{why}");
    }
}

#[tokio::test]
async fn an_instance_finds_who_it_is_and_nothing_of_the_guards_environment() {
    let rig = Rig::new().await;
    let own = json!({"environment": {"COLOUR": "blue"}});
    let start = service(
        "web",
        "3.5",
        &["/bin/sh", "-c", "env > seen; pwd >> seen"],
        json!({"state": {"dir": "data"}}),
        own,
    );
    rig.start(&start).await.unwrap();
    assert_eq!(rig.exited("web").await.kind, ExitKind::Completed);
    let folder = rig.layout.instance(&slot("web"));
    let seen = fs::read_to_string(folder.join("seen")).unwrap();
    let folder = folder.display();
    for line in [
        "COLOUR=blue".to_owned(),
        "QUORATE_NODE=n1".to_owned(),
        "QUORATE_FENCING_TOKEN=3.5".to_owned(),
        "QUORATE_SERVICE=web".to_owned(),
        "QUORATE_SLOT=web/0".to_owned(),
        "QUORATE_INSTANCE=web/0@3.5".to_owned(),
        format!("QUORATE_INSTANCE_DIR={folder}"),
        format!("QUORATE_STATE_DIR={folder}/data"),
        folder.to_string(),
    ] {
        assert!(seen.lines().any(|one| one == line), "{line} is not in\n{seen}");
    }
    assert!(!seen.contains("CARGO"), "{seen}");
    assert!(rig.layout.state(&slot("web"), Some("data")).unwrap().is_dir());
}

#[tokio::test]
async fn whoever_it_runs_as_owns_its_folders() {
    if !root() {
        return;
    }
    let rig = Rig::new().await;
    let text = "id -un > who; id -Gn >> who; touch data/mine; cat /proc/self/oom_score_adj >> who";
    let start = service(
        "web",
        "1.5",
        &["/bin/sh", "-c", text],
        json!({"state": {"dir": "data"}}),
        json!({"user": "nobody"}),
    );
    rig.start(&start).await.unwrap();
    assert_eq!(rig.exited("web").await.kind, ExitKind::Completed);
    let folder = rig.layout.instance(&slot("web"));
    assert_eq!(fs::read_to_string(folder.join("who")).unwrap(), "nobody\nnogroup\n0\n");
    assert!(folder.join("data/mine").exists());
}

#[tokio::test]
async fn what_an_instance_left_in_the_background_goes_with_it() {
    for track in [Track::Auto, Track::Cgroup1, Track::Processes] {
        let name = clap::ValueEnum::to_possible_value(&track).unwrap();
        let rig = Rig::with(&["--track", name.get_name()]).await;
        let text = "setsid sh -c 'echo $$ > daemon; exec sleep 300' & while [ ! -s daemon ]; do sleep 0.01; done; exit 0";
        rig.start(&script("parent", "1.5", text)).await.unwrap();
        assert_eq!(rig.exited("parent").await.kind, ExitKind::Completed, "{track:?}");
        let daemon = fs::read_to_string(rig.layout.instance(&slot("parent")).join("daemon")).unwrap();
        assert!(!alive(daemon.trim().parse().unwrap()), "{track:?}: the daemon outlived its instance");
    }
}

#[tokio::test]
async fn a_copied_state_is_moved_into_place_before_the_start() {
    let rig = Rig::new().await;
    let state = json!({"state": {"dir": "data"}});
    let mut start = service("web", "1.5", &["/bin/sh", "-c", "exec sleep 100"], state, json!({}));
    start.state_from = Some(OperationId(7));
    let error = rig.start(&start).await.unwrap_err().to_string();
    assert!(error.contains("operation 7") && error.contains("copy it first"), "{error}");
    let staging = rig.layout.staging(OperationId(7));
    fs::create_dir_all(&staging).unwrap();
    fs::write(staging.join("counter"), "41").unwrap();
    let old = rig.layout.state(&slot("web"), Some("data")).unwrap();
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("stale"), "").unwrap();
    rig.start(&start).await.unwrap();
    rig.running("web").await;
    assert_eq!(fs::read_to_string(old.join("counter")).unwrap(), "41");
    assert!(!old.join("stale").exists() && !staging.exists());
    // Once gone for good, nothing of it stays.
    let error = rig.guard().forget(slot("web")).await.unwrap_err();
    assert!(matches!(error, ActError::StillRunning { .. }), "{error}");
    rig.guard().stop(stop("web", "1.6", 0)).await.unwrap();
    rig.emptied("web").await;
    rig.guard().forget(slot("web")).await.unwrap();
    until_so("the folder is gone", || !rig.layout.instance(&slot("web")).exists()).await;
    assert_eq!(rig.slot("web").await, None);
}

#[tokio::test]
async fn a_start_without_a_live_lease_is_refused() {
    let rig = Rig::without_lease(&[]).await;
    let mut start = script("web", "1.5", "exec sleep 100");
    for isolation in [start.isolation, Isolation::Kill, Isolation::Keep] {
        start.isolation = isolation;
        let error = rig.start(&start).await.unwrap_err();
        assert!(matches!(error, ActError::NoLease { .. }), "{error}");
    }
    assert_eq!(rig.slot("web").await, None);
    rig.renew_for(0).await;
    let error = rig.start(&start).await.unwrap_err();
    assert!(matches!(error, ActError::NoLease { .. }), "{error}");
    rig.renew_for(60_000).await;
    rig.start(&start).await.unwrap();
    rig.running("web").await;
}

/// A program that runs quorate as nobody, from a place that nobody may enter.
fn as_nobody(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(folder);
    fs::copy(QUORATE, folder.join("quorate")).unwrap();
    let program = folder.join("as-nobody");
    let quorate = folder.join("quorate").display().to_string();
    // The node makes the data directory; here its owner has to be somebody else.
    let text = format!(
        "#!/bin/sh\nfor last; do :; done\ncase \"$*\" in *--detach*) \
         d=$(echo \"$*\" | sed 's/.*--data-dir \\([^ ]*\\).*/\\1/'); mkdir -p \"$d\"; chown nobody \"$d\";; esac\n\
         exec setpriv --reuid 65534 --regid 65534 --clear-groups {quorate} \"$@\"\n"
    );
    fs::write(&program, text).unwrap();
    open(&program);
    program
}

#[tokio::test]
async fn without_root_a_guard_holds_deadlines_by_process_groups_and_says_so() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::of_program(as_nobody(folder.path()), &[]).await;
    let facts = rig.guard().facts().await.unwrap();
    assert!(facts.capabilities.contains(&"track:processes".to_owned()), "{facts:?}");
    rig.renew_for(60_000).await;
    let other = service("other", "1.5", &["/bin/true"], json!({}), json!({"user": "root"}));
    let error = rig.start(&other).await.unwrap_err().to_string();
    assert!(error.contains("spec.user") && error.contains("as root"), "{error}");
    let mut start = script(
        "web",
        "1.6",
        "setsid sh -c 'echo $$ > daemon; exec sleep 300' & trap '' TERM; while :; do sleep 0.01; done",
    );
    start.isolation = Isolation::Stop { grace: Millis(200) };
    rig.start(&start).await.unwrap();
    let pid = rig.running("web").await;
    let daemon = rig.layout.instance(&slot("web")).join("daemon");
    until_so("its daemon runs", || fs::read_to_string(&daemon).is_ok_and(|text| text.ends_with('\n'))).await;
    let daemon: u32 = fs::read_to_string(daemon).unwrap().trim().parse().unwrap();
    rig.signal_guard(Signal::KILL);
    let mut status = rig.guard().status();
    status.wait_for(|status| status.answering && status.losses == 1).await.unwrap();
    assert_eq!(rig.running("web").await, pid);
    rig.renew_for(100).await;
    assert_eq!(rig.exited("web").await.kind, ExitKind::LeaseExpired);
    assert!(!alive(pid) && !alive(daemon));
}

#[tokio::test]
async fn a_copied_state_is_not_lost_to_a_start_that_fails_before_it_was_in_place() {
    let rig = Rig::new().await;
    let staging = rig.layout.staging(OperationId(9));
    fs::create_dir_all(&staging).unwrap();
    fs::write(staging.join("counter"), "41").unwrap();
    let state = json!({"state": {"dir": "data"}});
    let run = |user| service("web", "1.5", &["/bin/sleep", "100"], state.clone(), user);
    let mut start = run(json!({"user": "no-such-account"}));
    start.state_from = Some(OperationId(9));
    rig.start(&start).await.unwrap_err();
    // A start in place names no copy any more.
    let mut again = run(json!({}));
    again.restart = 1;
    rig.start(&again).await.unwrap();
    rig.running("web").await;
    let data = rig.layout.state(&slot("web"), Some("data")).unwrap();
    assert_eq!(fs::read_to_string(data.join("counter")).unwrap(), "41");
}

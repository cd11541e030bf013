//! The second holder: deadlines are met with the guard frozen or dead and no node there, by a twin that asks
//! nobody; whether both hold is known, and nothing starts before both do.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use quorate::guard::GuardStatus;
use quorate::host::boot_now;
use quorate::layout::guard_name;
use quorate::ports::Guard;
use quorate_core::effect::Isolation;
use quorate_core::observation::{ExitKind, InstancePhase};
use quorate_core::units::{BootMs, Millis};
use rustix::process::Signal;
use serde_json::json;

use crate::rig::{
    MARGIN, PATIENCE, QUORATE, Rig, alive, needs, script, service, signal_process, stop, until_so,
};

/// Later than this no deadline is met, however busy the machine; the kill itself takes some ten milliseconds.
const LATE: Millis = Millis(1_000);

/// Does not end when asked to, and leaves children in sessions of their own.
const DEAF: &str = "trap '' TERM; setsid sleep 300 & while :; do sleep 0.01; done";

/// A rig whose two holders hold, on a host that has control groups.
async fn armed(arguments: &[&str]) -> Option<Rig> {
    let rig = Rig::with(arguments).await;
    let facts = rig.guard().facts().await.unwrap();
    let groups = !facts.capabilities.contains(&"track:processes".to_owned());
    if !needs("cgroups", groups) {
        return None;
    }
    comes_to(&rig, "both hold", |status| status.unarmed.is_none()).await;
    Some(rig)
}

/// Waits until the guard's status is like that.
async fn comes_to(rig: &Rig, what: &str, is: impl Fn(&GuardStatus) -> bool) -> GuardStatus {
    let status = rig.guard().status();
    until_so(what, || {
        let status = status.borrow();
        status.answering && is(&status)
    })
    .await;
    status.borrow().clone()
}

/// One instance of each kind, none of which ends when asked; their processes.
async fn one_of_each(rig: &Rig) -> [u32; 3] {
    let mut pids = [0; 3];
    let kinds = [
        ("low", Isolation::Kill),
        ("normal", Isolation::Stop { grace: Millis(600) }),
        ("critical", Isolation::Keep),
    ];
    for (at, (name, isolation)) in kinds.into_iter().enumerate() {
        let mut start = script(name, "1.5", DEAF);
        start.isolation = isolation;
        rig.start(&start).await.unwrap();
        pids[at] = rig.running(name).await;
        assert!(rig.instance(name).await.unwrap().armed, "{name}");
    }
    pids
}

/// Waits for a process to be gone: at its deadline, and not before.
async fn gone_at(what: &str, pid: u32, deadline: BootMs) {
    until_so(&format!("{what} is gone"), || !alive(pid)).await;
    let gone = boot_now();
    assert!(gone >= deadline && gone < deadline + LATE, "{what} went at {gone:?}, deadline {deadline:?}");
    println!("{what} was gone {} after its deadline", gone.since(deadline));
}

/// No control group and nothing of this boot is left of an ended rig.
fn nothing_is_left(rig: &Rig) {
    let name = guard_name(rig.layout.root());
    for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let left = tree.path().join("quorate").join(&name);
        assert!(!left.exists(), "{} is left", left.display());
    }
    assert!(!Path::new("/run/quorate").join(&name).exists());
}

/// Everything of a slot's group, by the tree that the host has.
fn group_is_empty(rig: &Rig, name: &str) -> bool {
    let folder = format!("quorate/{}/{name}.0/cgroup.procs", guard_name(rig.layout.root()));
    ["", "unified/", "freezer/"].iter().all(|tree| {
        let path = Path::new("/sys/fs/cgroup").join(tree).join(&folder);
        std::fs::read_to_string(path).unwrap_or_default().is_empty()
    })
}

#[tokio::test]
async fn the_twin_ends_what_is_past_its_deadline_with_the_guard_frozen_or_dead() {
    for (track, signal) in
        [("auto", Signal::STOP), ("auto", Signal::KILL), ("cgroup1", Signal::STOP), ("cgroup1", Signal::KILL)]
    {
        let Some(mut rig) = armed(&["--track", track]).await else { return };
        let [low, normal, critical] = one_of_each(&rig).await;
        let (guard, twin) = (rig.guard_pid(), rig.guard().status().borrow().twin);
        let expiry = rig.renew_for(700).await;
        rig.node_goes().await;
        signal_process(guard, signal);
        gone_at(&format!("{track} {signal:?} low"), low, expiry).await;
        assert!(alive(normal), "the grace of a normal one was cut short");
        gone_at(&format!("{track} {signal:?} normal"), normal, expiry + Millis(600)).await;
        until_so("what they left behind is gone", || {
            group_is_empty(&rig, "low") && group_is_empty(&rig, "normal")
        })
        .await;
        assert!(alive(critical), "a critical one was ended");
        if signal == Signal::STOP {
            signal_process(guard, Signal::CONT);
        }
        rig.node_comes().await;
        comes_to(&rig, "both hold again", |status| status.unarmed.is_none()).await;
        assert_eq!(rig.guard().status().borrow().twin, twin, "the twin that held all the time");
        assert_eq!(rig.running("critical").await, critical);
        if signal == Signal::STOP {
            assert_eq!(rig.exited("low").await.kind, ExitKind::LeaseExpired);
        }
    }
}

#[tokio::test]
async fn the_guard_alone_meets_deadlines_while_its_twin_is_frozen_or_dead() {
    for signal in [Signal::STOP, Signal::KILL] {
        let Some(rig) = armed(&[]).await else { return };
        let [low, ..] = one_of_each(&rig).await;
        let expiry = rig.renew_for(300).await;
        signal_process(rig.guard().status().borrow().twin, signal);
        gone_at(&format!("{signal:?} low"), low, expiry).await;
    }
}

#[tokio::test]
async fn a_guard_that_is_let_go_ends_a_frozen_twin_too() {
    let Some(mut rig) = armed(&[]).await else { return };
    let (guard, twin) = (rig.guard_pid(), rig.guard().status().borrow().twin);
    signal_process(twin, Signal::STOP);
    rig.node_goes().await;
    rig.let_go();
    until_so("both are gone", || !alive(guard) && !alive(twin)).await;
    nothing_is_left(&rig);
}

#[tokio::test]
async fn a_twin_that_is_gone_or_silent_is_told_and_replaced() {
    let Some(rig) = armed(&[]).await else { return };
    rig.start(&script("web", "1.5", "exec sleep 100")).await.unwrap();
    let pid = rig.running("web").await;
    for signal in [Signal::KILL, Signal::STOP] {
        let twin = rig.guard().status().borrow().twin;
        let mut status = rig.guard().status();
        signal_process(twin, signal);
        // Another may come so soon after a death that nobody sees the moment between; after a silence it is long.
        let replaced =
            |status: &GuardStatus| status.twin != 0 && status.twin != twin && signal == Signal::KILL;
        let told = status.wait_for(|status| status.unarmed.is_some() || replaced(status));
        let told = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap().clone();
        match &told.unarmed {
            Some(why) => assert!(why.why.contains("second holder") && !why.remedy.is_empty(), "{why:?}"),
            None => assert!(replaced(&told), "{told:?}"),
        }
        if signal == Signal::STOP {
            let report = rig.guard().report();
            assert!(!report.armed && report.answering);
            assert!(!rig.instance("web").await.unwrap().armed);
        }
        let is = |status: &GuardStatus| status.unarmed.is_none() && status.twin != twin;
        comes_to(&rig, "another holds", is).await;
        assert!(!alive(twin));
        assert!(rig.instance("web").await.unwrap().armed);
    }
    assert_eq!(rig.running("web").await, pid);
}

#[tokio::test]
async fn renewals_by_a_new_guard_reach_the_twin_of_the_old_one() {
    let Some(rig) = armed(&[]).await else { return };
    let mut start = script("web", "1.5", "exec sleep 100");
    start.isolation = Isolation::Kill;
    rig.start(&start).await.unwrap();
    let pid = rig.running("web").await;
    let (guard, first) = (rig.guard_pid(), rig.renew_for(1_500).await);
    signal_process(guard, Signal::KILL);
    comes_to(&rig, "another guard is armed", |status| status.pid != guard && status.unarmed.is_none()).await;
    let second = rig.renew_for(2_500).await;
    until_so("the first lease is over", || boot_now() > first + MARGIN).await;
    assert!(boot_now() < second && alive(pid), "the older deadline was enforced");
    gone_at("web", pid, second).await;
}

#[tokio::test]
async fn with_no_holder_left_the_next_one_enforces_first() {
    let Some(mut rig) = armed(&[]).await else { return };
    let [low, ..] = one_of_each(&rig).await;
    let (guard, twin) = (rig.guard_pid(), rig.guard().status().borrow().twin);
    let expiry = rig.renew_for(400).await;
    rig.node_goes().await;
    // The residual risk that is stated: nobody is left who could act.
    signal_process(twin, Signal::KILL);
    signal_process(guard, Signal::KILL);
    until_so("the deadline passes", || boot_now() > expiry + Millis(300)).await;
    assert!(alive(low), "with no holder nobody could have ended it");
    // A twin started alone finds what is stored, and needs neither guard nor node.
    let args = ["guard", "--twin", "--idle-exit", "200", "--data-dir"];
    let alone = tokio::process::Command::new(QUORATE).args(args).arg(rig.layout.root()).status().await;
    assert!(alone.unwrap().success());
    assert!(!alive(low), "the twin ended with a late one running");
    rig.node_comes().await;
    assert_eq!(rig.exited("low").await.kind, ExitKind::LeaseExpired);
}

#[tokio::test]
async fn holders_that_die_one_after_the_other_start_one_another() {
    let Some(mut rig) = armed(&[]).await else { return };
    let [low, normal, _] = one_of_each(&rig).await;
    let (guard, twin) = (rig.guard_pid(), rig.guard().status().borrow().twin);
    let expiry = rig.renew_for(12_000).await;
    rig.node_goes().await;
    signal_process(guard, Signal::KILL);
    let journal = |name: &str| std::fs::read_to_string(rig.layout.guard().join(name)).unwrap_or_default();
    // Nobody but the two is there to see to it.
    until_so("the twin started a guard", || journal("guard.log").matches("listens").count() == 2).await;
    until_so("which found it", || journal("guard.log").matches("the twin is here").count() == 2).await;
    let both = || journal("guard.log").matches("armed, the twin").count();
    until_so("both hold", || both() == 2).await;
    signal_process(twin, Signal::KILL);
    until_so("that guard started a twin", || both() == 3).await;
    assert!(alive(low) && boot_now() < expiry, "too late to tell");
    gone_at("low", low, expiry).await;
    gone_at("normal", normal, expiry + Millis(600)).await;
    rig.node_comes().await;
    assert_eq!(rig.exited("low").await.kind, ExitKind::LeaseExpired);
}

#[tokio::test]
async fn without_control_groups_a_node_is_never_armed_and_says_why() {
    let rig = Rig::with(&["--track", "processes"]).await;
    rig.start(&script("web", "1.5", "exec sleep 100")).await.unwrap();
    rig.running("web").await;
    let report = rig.guard().report();
    let why = report.unarmed.clone().unwrap();
    assert!(!report.armed && report.twin_pid == 0 && why.why.contains("control groups"), "{report:?}");
    assert!(why.remedy.contains("root"), "{why:?}");
    assert!(!rig.instance("web").await.unwrap().armed);
}

#[tokio::test]
async fn one_that_leaves_its_control_group_disarms_the_node_and_is_named() {
    let Some(rig) = armed(&[]).await else { return };
    let text = "for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do echo 0 > $tree/cgroup.procs; done 2>/dev/null; \
                while :; do sleep 0.01; done";
    rig.start(&script("sly", "1.5", text)).await.unwrap();
    let pid = rig.running("sly").await;
    let status = comes_to(&rig, "it is not armed", |status| status.unarmed.is_some()).await;
    let why = status.unarmed.unwrap().why;
    assert!(why.contains("sly/0") && why.contains(&pid.to_string()), "{why}");
    // Whoever left cannot be ended by its group: the test does it.
    signal_process(pid, Signal::KILL);
    rig.guard().stop(stop("sly", "1.6", 0)).await.unwrap();
    rig.emptied("sly").await;
    comes_to(&rig, "both hold again", |status| status.unarmed.is_none()).await;
}

/// A program whose execution hangs, for as long as this lives: its file is leased, and who opens it waits.
struct Hung(std::fs::File);

impl Hung {
    #[expect(unsafe_code, reason = "file leases are reached only through the C library")]
    fn program(path: &Path) -> Self {
        std::fs::copy("/bin/sleep", path).unwrap();
        let file = std::fs::File::open(path).unwrap();
        // SAFETY: integers go in; a signal that nobody waits for would end this process, so it is ignored.
        let leased = unsafe {
            libc::signal(libc::SIGIO, libc::SIG_IGN);
            libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
        };
        assert_eq!(leased, 0, "{}", std::io::Error::last_os_error());
        Self(file)
    }
}

#[tokio::test]
async fn a_start_that_hangs_holds_up_no_deadline_and_never_runs_past_its_own() {
    for alone in [true, false] {
        let arguments: &[&str] = if alone { &["--alone"] } else { &[] };
        let rig = Rig::with(arguments).await;
        if !alone {
            comes_to(&rig, "both hold", |status| status.unarmed.is_none()).await;
        }
        let program = rig.layout.root().join("hung");
        let hung = Hung::program(&program);
        let mut low = script("low", "1.5", DEAF);
        low.isolation = Isolation::Kill;
        rig.start(&low).await.unwrap();
        let low = rig.running("low").await;
        let mut start = service("stuck", "1.6", &[program.to_str().unwrap(), "100"], json!({}), json!({}));
        start.isolation = Isolation::Stop { grace: Millis(500) };
        // Nobody knows how long an engine takes: the answer is not waited for.
        let asked = tokio::time::timeout(Duration::from_millis(300), rig.start(&start)).await;
        assert!(asked.is_err(), "{asked:?}");
        assert_eq!(rig.instance("stuck").await.unwrap().phase, InstancePhase::Starting);
        // Another starts meanwhile.
        let mut other = script("next", "1.7", "exec sleep 100");
        other.isolation = Isolation::Keep;
        rig.start(&other).await.unwrap();
        let next = rig.running("next").await;
        let expiry = rig.renew_for(500).await;
        gone_at("low", low, expiry).await;
        assert_eq!(rig.exited("stuck").await.kind, ExitKind::LeaseExpired);
        let over = boot_now();
        assert!(over >= expiry + Millis(500) && over < expiry + Millis(500) + LATE);
        assert!(alive(next), "one that may stay");
        drop(hung.0);
        let ran = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
        assert_eq!(quorate::host::process_ids().into_iter().filter(ran).count(), 0);
        // The slot is free for its next token.
        rig.renew_for(30_000).await;
        start.id.token = "1.8".parse().unwrap();
        rig.start(&start).await.unwrap();
        rig.running("stuck").await;
    }
}

#[tokio::test]
async fn a_stop_ends_a_start_that_hangs() {
    let Some(rig) = armed(&[]).await else { return };
    let program = rig.layout.root().join("hung");
    let _hung = Hung::program(&program);
    let start = service("stuck", "1.6", &[program.to_str().unwrap(), "100"], json!({}), json!({}));
    let asked = tokio::time::timeout(Duration::from_millis(300), rig.start(&start)).await;
    assert!(asked.is_err(), "{asked:?}");
    rig.guard().stop(stop("stuck", "1.7", 100)).await.unwrap();
    rig.emptied("stuck").await;
    assert!(group_is_empty(&rig, "stuck"));
}

#[tokio::test]
async fn nothing_starts_while_the_twin_that_should_hold_it_does_not_answer() {
    let Some(rig) = armed(&[]).await else { return };
    signal_process(rig.guard().status().borrow().twin, Signal::STOP);
    let error = rig.start(&script("web", "1.5", "exec sleep 100")).await.unwrap_err().to_string();
    assert!(error.contains("second holder"), "{error}");
    assert!(rig.instance("web").await.is_none());
    comes_to(&rig, "another holds", |status| status.unarmed.is_none()).await;
    rig.start(&script("web", "1.5", "exec sleep 100")).await.unwrap();
    assert!(rig.instance("web").await.unwrap().armed);
}

#[tokio::test]
async fn a_twin_leaves_nothing_behind_when_it_is_let_go_with_its_guard_frozen() {
    let Some(mut rig) = armed(&[]).await else { return };
    let [.., critical] = one_of_each(&rig).await;
    let (guard, twin) = (rig.guard_pid(), rig.guard().status().borrow().twin);
    signal_process(guard, Signal::STOP);
    rig.node_goes().await;
    rig.let_go();
    until_so("the twin ended everything", || !alive(critical) && !alive(twin)).await;
    signal_process(guard, Signal::CONT);
    until_so("the guard is gone", || !alive(guard)).await;
    nothing_is_left(&rig);
}

//! Limits that bite, and those that nobody keeps.

use quorate_core::observation::ExitKind;
use quorate_core::units::{CpuMillis, Millis};
use serde_json::json;

use super::{Bed, Kind};
use crate::rig::until;

/// Takes 64 MB into a variable of the shell's.
const HOG: &str = "sleep 0.2; x=$(head -c 64000000 /dev/zero | tr \"\\0\" x); echo survived";
const SPIN: &str = "while :; do :; done";

pub async fn one_that_takes_too_much_memory_is_told_so(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    bed.start(&bed.script("hog", "1.5", HOG, json!({}), json!({"memory_limit": 32}))).await.unwrap();
    let reason = bed.exited("hog").await;
    assert_eq!(reason.kind, ExitKind::OutOfMemory, "{reason:?}");
    // Below its limit it lives, and an end by the same signal is not taken for that.
    let lean = "exec sleep 100";
    bed.start(&bed.script("lean", "1.5", lean, json!({}), json!({"memory_limit": 32}))).await.unwrap();
    crate::rig::signal_process(bed.running("lean").await, rustix::process::Signal::KILL);
    assert_eq!(bed.exited("lean").await.kind, ExitKind::Signaled);
}

pub async fn a_quarter_of_a_core_is_a_quarter(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    bed.start(&bed.script("spin", "1.5", SPIN, json!({}), json!({"cpu_limit": 0.25}))).await.unwrap();
    let pid = bed.running("spin").await;
    let used = || quorate::host::ProcessStat::read(pid).unwrap().cpu_ticks * 10;
    let (begun, before) = (quorate::host::boot_now(), used());
    let passed = until("four seconds pass", async || {
        let passed = quorate::host::boot_now().since(begun);
        (passed >= Millis(4_000)).then_some(passed)
    })
    .await;
    let share = (used() - before) * 1_000 / passed.0;
    println!("{kind:?}: a limit of 250 thousandths of a core let {share} be used");
    assert!((225..=275).contains(&share), "{share} thousandths");
    assert!(bed.instance("spin").unwrap().unenforced.is_empty());
}

/// Without root's rights there are no control groups of version 1 to be limited by.
pub async fn what_is_not_kept_is_named(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    let limits = json!({"cpu_limit": 0.25, "memory_limit": 32, "pids_limit": 20});
    bed.start(&bed.script("web", "1.5", "exec sleep 100", json!({}), limits)).await.unwrap();
    bed.running("web").await;
    let facts = bed.all().facts();
    let able = facts.iter().any(|fact| fact.capabilities.iter().any(|one| one == "rootless_limits"));
    let wanted: &[&str] = if able { &[] } else { &["cpu_limit", "memory_limit", "pids_limit"] };
    until("what is not kept is named", async || (bed.instance("web")?.unenforced == wanted).then_some(()))
        .await;
    assert!(!bed.instance("web").unwrap().armed, "nobody else may count on its deadline");
}

pub async fn its_use_is_seen(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    bed.start(&bed.plain("spin", "1.5", &format!("sleep 100 & {SPIN}"))).await.unwrap();
    bed.running("spin").await;
    let usage = until("its use is seen", async || {
        let usage = bed.instance("spin")?.usage;
        (usage.cpu > CpuMillis(300) && usage.memory.0 > 0 && usage.tasks >= 2).then_some(usage)
    })
    .await;
    assert!(usage.cpu < CpuMillis(1_300) && usage.memory.0 < 64, "{usage:?}");
}

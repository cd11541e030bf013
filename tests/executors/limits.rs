//! Limits that bite, by whatever control groups this host has.

use quorate::ports::Guard;
use quorate_core::observation::{ExitKind, InstancePhase};
use quorate_core::units::{CpuMillis, Millis};
use serde_json::json;

use crate::rig::{QUORATE, Rig, needs, service, until};

/// The rig, if its host can limit this; a word about it otherwise.
async fn able(what: &str) -> Option<Rig> {
    let rig = Rig::new().await;
    let facts = rig.guard().facts().await.unwrap();
    let there = facts.capabilities.iter().any(|one| one.starts_with(&format!("limit:{what}:")));
    needs("cgroups", there).then_some(rig)
}

#[tokio::test]
async fn one_that_takes_too_much_memory_is_told_as_out_of_memory() {
    let Some(rig) = able("memory").await else { return };
    let limit = json!({"memory_limit": 48});
    let start = service("hog", "1.5", &[QUORATE, "workload", "--memory", "200"], json!({}), limit.clone());
    rig.start(&start).await.unwrap();
    assert_eq!(rig.exited("hog").await.kind, ExitKind::OutOfMemory);
    // Below its limit it lives, and its use is seen.
    let start = service("lean", "1.5", &[QUORATE, "workload", "--memory", "20"], json!({}), limit);
    rig.start(&start).await.unwrap();
    until("its memory is seen", async || {
        let usage = rig.instance("lean").await?.usage;
        ((20..48).contains(&usage.memory.0) && usage.tasks >= 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_that_spins_gets_its_share_of_a_core() {
    let Some(rig) = able("cpu").await else { return };
    let start = service(
        "spin",
        "1.5",
        &["/bin/sh", "-c", "while :; do :; done"],
        json!({}),
        json!({"cpu_limit": 0.2}),
    );
    rig.start(&start).await.unwrap();
    rig.running("spin").await;
    until("its processor time is seen", async || {
        let report = rig.instance("spin").await?;
        let settled = report.since >= Millis(1_500) && report.usage.cpu > CpuMillis(0);
        settled.then_some(report.usage.cpu)
    })
    .await;
    // The use is measured over half a second at least; a free spin would be near 1,000.
    let cpu = rig.instance("spin").await.unwrap().usage.cpu;
    assert!(cpu.0 > 50 && cpu.0 < 350, "limited to 200 thousandths, it used {cpu:?}");
}

#[tokio::test]
async fn one_that_forks_without_end_is_held() {
    let Some(rig) = able("pids").await else { return };
    let text = "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done; wait";
    let start = service("fork", "1.5", &["/bin/sh", "-c", text], json!({}), json!({"pids_limit": 10}));
    rig.start(&start).await.unwrap();
    // The shell gives up when it cannot fork; either way there were never more than ten.
    for _ in 0..50 {
        let Some(report) = rig.instance("fork").await else { break };
        assert!(report.usage.tasks <= 10, "{} tasks", report.usage.tasks);
        if let InstancePhase::Exited(reason) = report.phase {
            assert_eq!(reason.kind, ExitKind::Failed);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn limits_this_host_cannot_keep_are_named() {
    let rig = Rig::with(&["--track", "processes"]).await;
    let limits = json!({"cpu_limit": 0.5, "memory_limit": 64, "pids_limit": 10});
    rig.start(&service("web", "1.5", &["/bin/sleep", "100"], json!({}), limits)).await.unwrap();
    rig.running("web").await;
    let report = rig.instance("web").await.unwrap();
    assert_eq!(report.unenforced, ["cpu_limit", "memory_limit", "pids_limit"]);
    assert!(report.usage.tasks >= 1);
    let facts = rig.guard().facts().await.unwrap();
    assert!(facts.capabilities.contains(&"track:processes".to_owned()));
}

#[tokio::test]
async fn soft_memory_and_disk_limits_are_set_and_last_over_a_restart_in_place() {
    let rig = Rig::new().await;
    let limits = json!({"cpu_limit": 0.5, "memory_limit": 64, "memory_high": 48, "pids_limit": 9});
    let mut start = service("web", "1.5", &["/bin/sleep", "100"], json!({}), limits);
    rig.start(&start).await.unwrap();
    let first = rig.running("web").await;
    let before = group_files(first);
    // Where version 2 has the memory, the soft limit is real; elsewhere the instance says that it is not.
    let unenforced = rig.instance("web").await.unwrap().unenforced;
    assert_eq!(
        before.get("memory.high").map(String::as_str) == Some("50331648"),
        !unenforced.contains(&"memory_high".to_owned())
    );
    start.restart = 1;
    rig.start(&start).await.unwrap();
    until("the next run", async || (rig.instance("web").await?.restarts == 1).then_some(())).await;
    let second = rig.running("web").await;
    assert_ne!(first, second);
    assert_eq!(group_files(second), before);
}

/// The limits of a process's control groups, by file.
fn group_files(pid: u32) -> std::collections::BTreeMap<String, String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let names =
        ["cpu.max", "cpu.cfs_quota_us", "memory.max", "memory.high", "memory.limit_in_bytes", "pids.max"];
    let mut all = std::collections::BTreeMap::new();
    for group in groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
        for tree in
            mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4))
        {
            for name in names {
                if let Ok(text) = std::fs::read_to_string(format!("{tree}{group}/{name}")) {
                    all.insert(name.to_owned(), text.trim().to_owned());
                }
            }
        }
    }
    assert!(all.values().any(|value| value == "9"), "{all:?}");
    all
}

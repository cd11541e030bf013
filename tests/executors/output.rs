//! Output: kept, rotated, followed, and never a reason for an instance to wait or die.

use quorate::ports::{Guard, LogFrom, LogQuery};
use quorate_core::observation::ExitKind;
use rustix::process::Signal;

use crate::rig::{Rig, script, slot, until};

fn query(from: LogFrom) -> LogQuery {
    LogQuery { from, max_bytes: 1 << 20 }
}

#[tokio::test]
async fn output_is_followed_across_rotations_line_by_line() {
    let rig = Rig::with(&["--log-size", "64", "--log-keep", "50"]).await;
    let text =
        "i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done; echo the end >&2; exec sleep 100";
    rig.start(&script("talk", "1.5", text)).await.unwrap();
    let (mut seen, mut next) = (String::new(), 0);
    until("the end comes", async || {
        let chunk = rig.guard().logs(slot("talk"), query(LogFrom::Offset(next))).await.unwrap();
        assert_eq!(chunk.start, next, "output was lost");
        next = chunk.end;
        seen.push_str(std::str::from_utf8(&chunk.bytes).unwrap());
        seen.ends_with("the end\n").then_some(())
    })
    .await;
    let lines = (0..60_000).map(|number| format!("line {number}")).chain(["the end".to_owned()]);
    assert!(seen.lines().eq(lines), "{} lines came", seen.lines().count());
    let tail = rig.guard().logs(slot("talk"), query(LogFrom::Tail(2))).await.unwrap();
    assert_eq!(String::from_utf8(tail.bytes).unwrap(), "line 59999\nthe end\n");
    until("it is rotated", async || {
        let folder = std::fs::read_dir(rig.layout.logs(&slot("talk"))).ok()?;
        folder.flatten().any(|entry| entry.path().extension().is_some_and(|end| end == "log")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_talker_goes_on_while_the_guard_is_frozen() {
    let rig = Rig::new().await;
    let text = "i=0; while [ $i -lt 50000 ]; do echo a line that would soon fill a pipe; i=$((i+1)); done; touch done; exec sleep 100";
    rig.start(&script("talk", "1.5", text)).await.unwrap();
    rig.signal_guard(Signal::STOP);
    let done = rig.layout.instance(&slot("talk")).join("done");
    until("it has said all", async || done.exists().then_some(())).await;
    rig.signal_guard(Signal::CONT);
    let mut status = rig.guard().status();
    status.wait_for(|status| status.answering).await.unwrap();
    rig.running("talk").await;
}

#[tokio::test]
async fn what_a_failed_one_said_last_stays_readable() {
    let rig = Rig::new().await;
    rig.start(&script("sad", "1.5", "echo cannot open the book >&2; exit 4")).await.unwrap();
    assert_eq!(rig.exited("sad").await.kind, ExitKind::Failed);
    let tail = rig.guard().logs(slot("sad"), query(LogFrom::Tail(10))).await.unwrap();
    assert_eq!(String::from_utf8(tail.bytes).unwrap(), "cannot open the book\n");
    let nothing = rig.guard().logs(slot("unknown"), query(LogFrom::Oldest)).await.unwrap();
    assert!(nothing.bytes.is_empty());
}

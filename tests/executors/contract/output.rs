//! What a run writes, read by its node.

use quorate::ports::LogFrom;

use super::{Bed, Kind};
use crate::rig::until;

pub async fn it_is_read_by_its_end_and_followed(kind: Kind) {
    let Some(bed) = Bed::new(kind).await else { return };
    let text = "i=0; while [ $i -lt 50 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; sleep 0.5; \
                printf 'no end'; exit 5";
    bed.start(&bed.plain("web", "1.5", text)).await.unwrap();
    bed.says("web", "err 49\n").await;
    let tail = bed.logs("web", LogFrom::Tail(2)).await;
    assert_eq!(String::from_utf8(tail.bytes).unwrap().lines().count(), 2);
    // From where the last piece ended, until all is there.
    let (mut at, mut all) = (0, Vec::new());
    until("all of it is read", async || {
        let chunk = bed.logs("web", LogFrom::Offset(at)).await;
        assert_eq!(chunk.start, at);
        at = chunk.end;
        all.extend(chunk.bytes);
        all.windows(6).any(|words| words == b"no end").then_some(())
    })
    .await;
    assert_eq!(bed.exited("web").await.code, Some(5));
    let all = String::from_utf8(all).unwrap();
    for device in ["out", "err"] {
        let lines: Vec<&str> = all.lines().filter(|line| line.starts_with(device)).collect();
        let wanted: Vec<String> = (0..50).map(|at| format!("{device} {at}")).collect();
        assert_eq!(lines, wanted);
    }
    // What it said stays readable after its container is gone.
    bed.nothing_left().await;
    assert_eq!(bed.output("web").await, all);
}

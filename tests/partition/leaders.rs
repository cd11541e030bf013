//! Leaders whose network fails in part: a segment lost costs nothing, one direction lost costs the leader its
//! place, and one that is alone refuses at once and says why.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clients::await_write;
use crate::judge::runs::Reader;
use crate::lab::{SEGMENTS, Way};
use crate::rig::{Cluster, LEASE, Service, boottime_ns, ms, standing};
use crate::wait::await_some;

fn verdicts(cluster: &Cluster, at: usize) -> Result<Vec<Value>, String> {
    let links = cluster.json(at, &["links", "--local"])?;
    links["verdicts"].as_array().cloned().ok_or_else(|| links.to_string())
}

/// Waits until all nodes tell nothing but these kinds of verdicts.
#[track_caller]
fn all_tell(cluster: &Cluster, kinds: &[&str]) {
    for at in 0..cluster.count() {
        await_some(&format!("{} tells {kinds:?}", cluster.name(at)), || {
            let found = verdicts(cluster, at)?;
            let mut told: Vec<&str> = found.iter().filter_map(|verdict| verdict["kind"].as_str()).collect();
            told.dedup();
            if told == kinds { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }
}

/// Waits until every node reaches every other on every segment, by its own probes.
#[track_caller]
fn all_reach_all(cluster: &Cluster) {
    let ways = cluster.count() * (cluster.count() - 1) * SEGMENTS.len();
    for at in 0..cluster.count() {
        await_some(&format!("{} knows every way as good", cluster.name(at)), || {
            let links = cluster.json(at, &["links", "--local"])?;
            let rows = links["rows"].as_array().cloned().unwrap_or_default();
            let good = rows.len() == ways && rows.iter().all(|row| row["ok"] == true);
            if good { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    }
    all_tell(cluster, &[]);
}

#[test]
fn one_segment_of_two_lost_is_a_degraded_path_and_nothing_moves() {
    let Some(cluster) = Cluster::formed(3) else { return };
    let service = Service { replicas: 3, ..Service::new("web", "high") };
    cluster.deploy(0, &[service]);
    let mut reader = Reader::default();
    for ordinal in 0..3 {
        cluster.await_life(&mut reader, &format!("web/{ordinal}"), &[0, 1, 2]);
    }
    all_reach_all(&cluster);
    let before = standing(&cluster, 0);
    for (how, segment) in [("cut", 0), ("cut", 1), ("unplugged", 0)] {
        if how == "cut" {
            cluster.lab.cut(|way| way.segment == segment);
        } else {
            (0..3).for_each(|at| cluster.lab.plug(at, segment, false));
        }
        let lost = Instant::now();
        for at in 0..3 {
            await_write(&cluster, at, &format!("{how}/{segment}/{at}"), "kept");
        }
        println!(
            "segment {segment} {how}: written through every node within {} ms",
            lost.elapsed().as_millis()
        );
        all_tell(&cluster, &["segment_down"]);
        // Whoever had lost its way would have lost its lease by then.
        while lost.elapsed() < 2 * LEASE {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(standing(&cluster, 0), before, "segment {segment} {how}");
        cluster.lab.heal();
        (0..3).for_each(|at| cluster.lab.plug(at, segment, true));
        all_reach_all(&cluster);
    }
    assert_eq!(standing(&cluster, 0), before);
}

/// Cuts ways of the leader, and measures until a write through another node is acknowledged.
fn replaced(how: &str, cut: impl Fn(usize, Way) -> bool) {
    let Some(cluster) = Cluster::formed(3) else { return };
    let old = await_some("a leader", || cluster.leader(0));
    let other = (old + 1) % 3;
    await_write(&cluster, other, "before", "kept");
    cluster.lab.cut(|way| cut(old, way));
    let began = boottime_ns();
    let took = ms(began, await_write(&cluster, other, "after", "kept"));
    println!("{how}: a write {took} ms after the cut");
    assert!(took < 2_000, "{how}: no working leader for {took} ms");
    await_some("another leads", || {
        let leader = cluster.leader(other)?;
        if leader == old { Err(format!("n{} leads", leader + 1)) } else { Ok(()) }
    });
    cluster.lab.heal();
    cluster.await_whole();
    await_write(&cluster, old, "healed", "kept");
}

#[test]
fn a_leader_whose_words_arrive_nowhere_is_replaced_within_two_seconds() {
    replaced("mute", |old, way| way.from == old);
}

#[test]
fn a_leader_that_hears_nobody_is_replaced_within_two_seconds() {
    replaced("deaf", |old, way| way.to == old);
}

#[test]
fn an_isolated_leader_refuses_writes_within_a_second_and_never_looks_well() {
    let Some(cluster) = Cluster::formed(3) else { return };
    let old = await_some("a leader", || cluster.leader(0));
    let other = (old + 1) % 3;
    await_write(&cluster, old, "before", "kept");
    cluster.lab.cut(|way| (way.from == old) != (way.to == old));
    let cut = Instant::now();
    // What is sent in the moment of the cut may be in its log already: it is told unknown, and never done.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let output = cluster.run(old, &["kv", "put", "moment", "no"]);
            println!(
                "sent in the moment of the cut: code {:?} after {} ms",
                output.status.code(),
                cut.elapsed().as_millis()
            );
            assert!(matches!(output.status.code(), Some(3 | 8)), "{output:?}");
        });
        std::thread::sleep(Duration::from_secs(1));
        let (mut slowest, mut refused) = (Duration::ZERO, 0);
        // Until long after its lease: it must not change its mind.
        while cut.elapsed() < 2 * LEASE {
            let (begun, since) = (Instant::now(), cut.elapsed().as_millis());
            let output = cluster.run(old, &["kv", "put", "alone", "no"]);
            slowest = slowest.max(begun.elapsed());
            refused += 1;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{since} ms after the cut: {said}");
            assert!(said.contains("no quorum"), "{since} ms after the cut: {said}");
            let status = cluster.json(old, &["status", "--local"]).unwrap();
            assert_eq!(status["standing"]["quorum"], false, "{since} ms after the cut: {status}");
            assert_ne!(status["verdict"]["level"], "ok", "{since} ms after the cut: {status}");
        }
        println!("{refused} writes refused, the slowest within {} ms", slowest.as_millis());
        assert!(slowest < Duration::from_secs(1), "refused only after {slowest:?}");
    });
    await_write(&cluster, other, "after", "kept");
    cluster.lab.heal();
    cluster.await_whole();
    let kept = cluster.run(old, &["kv", "get", "after"]);
    assert_eq!(String::from_utf8_lossy(&kept.stdout).trim(), "kept", "{kept:?}");
    let never = cluster.run(old, &["kv", "get", "alone"]);
    assert_eq!(never.status.code(), Some(4), "a refused write was kept: {never:?}");
}

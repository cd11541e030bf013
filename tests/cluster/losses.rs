//! Nodes that die: what was acknowledged stays, and without a quorum that is said at once.

use std::time::{Duration, Instant};

use crate::rig::Cluster;
use crate::wait::await_some;

#[test]
fn acknowledged_writes_survive_the_killing_of_the_leader() {
    let mut cluster = Cluster::formed(3);
    let leader = await_some("a leader", || cluster.leader(0));
    for number in 0..20 {
        cluster.put(number % 3, &format!("before{number}"), "kept");
    }
    cluster.kill(leader);
    let other = (leader + 1) % 3;
    for number in 0..5 {
        cluster.put(other, &format!("after{number}"), "kept");
    }
    let last = (leader + 2) % 3;
    for key in (0..20).map(|n| format!("before{n}")).chain((0..5).map(|n| format!("after{n}"))) {
        assert_eq!(cluster.get(last, &key), "kept");
    }
    await_some("the dead node is committed lost", || {
        let nodes = cluster.json(other, &["nodes"])?;
        let lost = |node: &serde_json::Value| {
            node["name"] == cluster.members[leader].name.as_str() && node["state"] == "lost"
        };
        if nodes["items"].as_array().unwrap().iter().any(lost) { Ok(()) } else { Err(nodes.to_string()) }
    });
    cluster.start(leader, &[]);
    cluster.ready(leader);
    assert_eq!(cluster.get(leader, "after4"), "kept");
}

#[test]
fn without_a_quorum_writes_and_reads_are_refused_within_moments_and_nothing_is_lost() {
    let mut cluster = Cluster::formed(3);
    cluster.put(0, "kept", "yes");
    cluster.kill(1);
    cluster.kill(2);
    // A write in the moment of the loss may have been appended: that one is told unknown, later ones refused.
    await_some("the lone node knows that it is alone", || {
        let output = cluster.run(0, &["kv", "put", "alone", "no"]);
        if output.status.code() == Some(3) { Ok(()) } else { Err(format!("{output:?}")) }
    });
    for arguments in [&["kv", "put", "alone", "no"][..], &["kv", "get", "kept"]] {
        let began = Instant::now();
        let output = cluster.run(0, arguments);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
        assert!(String::from_utf8_lossy(&output.stderr).contains("no quorum"), "{output:?}");
    }
    cluster.start(1, &[]);
    cluster.ready(0);
    assert_eq!(cluster.get(1, "kept"), "yes");
}

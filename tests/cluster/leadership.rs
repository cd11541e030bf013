//! Who leads real nodes: the heaviest that can, again after it was away, and never a witness for long.

use crate::rig::{Cluster, workload};
use crate::wait::await_some;

#[track_caller]
fn leads(cluster: &Cluster, asked: usize, who: usize) {
    await_some(&format!("{} leads", cluster.members[who].name), || {
        let leader = cluster.leader(asked)?;
        if leader == who { Ok(()) } else { Err(format!("{} leads", cluster.members[leader].name)) }
    });
}

#[test]
fn the_heaviest_voter_leads_again_once_it_is_back_and_a_witness_only_votes() {
    let mut cluster = Cluster::prepared(3)
        .also(1, "split_brain: {role: witness}\n")
        .also(2, "split_brain: {weight: 5}\n")
        .form();
    leads(&cluster, 0, 2);
    let status = cluster.json(0, &["raft", "status"]).unwrap();
    let of = |name: &str| {
        let members = status["members"].as_array().unwrap();
        let member = members.iter().find(|member| member["node"] == name).unwrap();
        (member["voter"] == true, member["witness"] == true, member["weight"].as_u64().unwrap())
    };
    assert_eq!((of("n1"), of("n2"), of("n3")), ((true, false, 1), (true, true, 0), (true, false, 5)));
    cluster.deploy(0, &workload("web", "replicas: 2\nexclusive: false", &cluster.dir.path().join("record")));
    let rows = cluster.running(0, "web", 2);
    assert!(rows.iter().all(|row| row["node"] != "n2"), "a witness hosts nothing: {rows:?}");
    cluster.kill(2);
    leads(&cluster, 0, 0);
    cluster.start(2, &[]);
    cluster.ready(2);
    leads(&cluster, 0, 2);
}

//! Coming to a cluster and coming back to it: tokens, names, disks, secrets.

use crate::rig::{Cluster, http_get, quorate};
use crate::wait::await_some;

#[test]
fn three_nodes_form_a_quorum_and_any_of_them_takes_writes() {
    let cluster = Cluster::formed(3);
    for at in 0..3 {
        cluster.put(at, &format!("key{at}"), "value");
    }
    for at in 0..3 {
        for key in ["key0", "key1", "key2"] {
            assert_eq!(cluster.get(at, key), "value");
        }
        assert!(http_get(cluster.members[at].http, "/healthz").unwrap().contains("ok"));
    }
    await_some("every node sees the quorum", || {
        for at in 0..3 {
            let status = cluster.json(at, &["status"])?;
            if status["standing"]["quorum"] != true {
                return Err(status["standing"].to_string());
            }
        }
        Ok(())
    });
}

#[test]
fn a_wrong_token_a_missing_one_and_a_taken_name_are_refused() {
    let mut cluster = Cluster::prepared(3);
    cluster.start(0, &[]);
    cluster.ready(0);
    let good = cluster.json(0, &["join-token"]).unwrap()["token"].as_str().unwrap().to_owned();

    cluster.start(1, &["--token", &good[..good.len() - 2]]);
    let (code, said) = cluster.ended(1);
    assert!(code != 0 && said.contains("damaged"), "{code}: {said}");

    cluster.start(1, &[]);
    let (code, said) = cluster.ended(1);
    assert!(code != 0 && said.contains("--join") && said.contains("--token"), "{code}: {said}");

    // Another cluster's token, whole in itself.
    let mut other = Cluster::prepared(1);
    other.start(0, &[]);
    other.ready(0);
    let theirs = other.json(0, &["join-token"]).unwrap()["token"].as_str().unwrap().to_owned();
    let here = cluster.members[0].bind();
    let parts: Vec<&str> = theirs.split('/').collect();
    assert_eq!(parts.len(), 5, "{theirs}");
    cluster.start(1, &["--token", &theirs, "--join", &here]);
    await_some("the stranger is turned away or joins its own", || {
        let nodes = cluster.json(0, &["nodes"])?;
        assert_eq!(nodes["items"].as_array().unwrap().len(), 1, "{nodes}");
        let theirs = other.json(0, &["nodes"])?;
        if theirs["items"].as_array().unwrap().len() == 2 || !cluster.data(1).join("identity").exists() {
            Ok(())
        } else {
            Err(theirs.to_string())
        }
    });
}

#[test]
fn a_caller_without_the_secret_is_denied() {
    let mut cluster = Cluster::prepared(1);
    cluster.start(0, &[]);
    cluster.ready(0);
    let endpoint = format!("127.0.0.1:{}", cluster.members[0].grpc);
    let wrong = cluster.dir.path().join("wrong");
    std::fs::write(&wrong, "0123456789abcdef0123456789abcdef\n").unwrap();
    let output = quorate()
        .args([
            "--endpoint",
            &endpoint,
            "-o",
            "json",
            "--secret-file",
            wrong.to_str().unwrap(),
            "kv",
            "put",
            "a",
            "b",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    assert!(cluster.run(0, &["kv", "get", "a"]).status.code() == Some(4), "the write was let in");
}

#[test]
fn the_same_commands_start_a_node_again_on_its_own_data() {
    let mut cluster = Cluster::formed(3);
    cluster.put(0, "kept", "yes");
    for at in 0..3 {
        cluster.kill(at);
    }
    // The first one's file still says bootstrap, the others come without a token.
    for at in 0..3 {
        cluster.start(at, &[]);
    }
    for at in 0..3 {
        cluster.ready(at);
    }
    assert_eq!(cluster.get(2, "kept"), "yes");
    let nodes = cluster.json(0, &["nodes"]).unwrap();
    assert_eq!(nodes["items"].as_array().unwrap().len(), 3, "{nodes}");
}

#[test]
fn a_wiped_node_comes_back_as_a_new_voter() {
    let mut cluster = Cluster::formed(3);
    cluster.put(0, "kept", "yes");
    let before = cluster.json(0, &["nodes"]).unwrap();
    let raft_id = |nodes: &serde_json::Value| {
        let items = nodes["items"].as_array().unwrap().clone();
        items
            .iter()
            .find(|node| node["name"] == "n3")
            .map(|node| (node["raft_id"].as_u64(), node["voter"] == true))
    };
    let (old, _) = raft_id(&before).unwrap();
    cluster.kill(2);
    let guard = std::fs::remove_dir_all(cluster.data(2));
    assert!(guard.is_ok(), "{guard:?}");
    cluster.join(2);
    cluster.ready(2);
    await_some("the new disk votes and the old one is forgotten", || {
        let nodes = cluster.json(0, &["nodes"])?;
        let raft = cluster.json(0, &["raft", "status"])?;
        let members = raft["members"].as_array().cloned().unwrap_or_default();
        match raft_id(&nodes) {
            Some((new, true)) if new != old && members.len() == 3 => Ok(()),
            _ => Err(format!("{nodes} {raft}")),
        }
    });
    assert_eq!(cluster.get(2, "kept"), "yes");
}

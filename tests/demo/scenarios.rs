//! Game days: steps come by the clock or when told to, do what they say, and are told.

use std::io::{BufRead, BufReader};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::rig::{Demo, quorate, until};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_scenarios_are_listed_and_an_unknown_one_is_refused_with_the_names() {
    let output = quorate().args(["demo", "--scenario", "list", "-o", "json"]).output().unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(
        ["split-brain", "isolated-leader", "frozen-node", "lost-segment"].iter().all(|n| names.contains(n))
    );
    let output = quorate().args(["demo", "--headless", "--scenario", "armageddon"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("rolling-restart"), "{output:?}");
}

#[test]
fn a_scenario_is_played_step_by_step_held_and_told() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("mine.yaml");
    let text = "name: mine\nabout: a test\nnodes: 2\ncast: {first: leader}\nsteps:\n\
                - {after: 1h, say: $first is late, do: [delay $first --ms 3], see: it is late}\n\
                - {after: 0s, say: $first is gone, do: [freeze $first, kill n9]}\n\
                - {after: 1h, say: $first is back, do: [heal, thaw $first]}\n";
    std::fs::write(&file, text).unwrap();
    let mut demo = Demo::with(&["--without-services", "-o", "json", "--scenario", file.to_str().unwrap()]);
    let (sender, told) = mpsc::channel();
    let errors = demo.child.0.stderr.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let news = || -> Value { serde_json::from_str(&told.recv_timeout(SOON).unwrap()).unwrap() };
    let begun = news();
    assert_eq!((begun["scenario"]["step"].clone(), begun["scenario"]["steps"].clone()), (0.into(), 3.into()));
    let status = || -> Value { serde_json::from_str(&demo.steer(&["status", "-o", "json"])).unwrap() };
    assert_eq!(status()["nodes"].as_array().unwrap().len(), 2, "as many nodes as it needs");

    demo.steer(&["scenario", "pause"]);
    demo.steer(&["scenario", "next"]);
    until("the first step is taken and no other", SOON, || status()["scenario"]["step"] == 1);
    assert_eq!(status()["links"].as_array().unwrap().len(), 4, "both ways on both segments");
    assert!(demo.steer(&["scenario", "resume"]).contains("step 1/3"));
    until("the second comes by the clock", SOON, || status()["scenario"]["step"] == 2);
    assert!(status()["nodes"].as_array().unwrap().iter().any(|node| node["state"] == "frozen"));
    demo.steer(&["scenario", "next"]);
    until("it is over", SOON, || status()["scenario"]["step"] == 3);
    assert_eq!(status()["links"], serde_json::json!([]));
    let refused = demo.try_to_steer(&["scenario", "next"]);
    assert_eq!(refused.status.code(), Some(6), "{refused:?}");

    let steps: Vec<Value> = std::iter::from_fn(|| told.recv_timeout(Duration::from_millis(500)).ok())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect();
    let failed = steps.iter().flat_map(|told| told["failed"].as_array().unwrap());
    assert!(failed.clone().any(|why| why.as_str().unwrap().contains("no node n9")), "{steps:?}");
    assert!(steps.iter().any(|told| told["scenario"]["see"] == "it is late"), "{steps:?}");
}

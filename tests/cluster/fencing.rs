//! Fencing by real devices: a simulated management controller whose power switch really kills a node, agents
//! that fail, a node in a container, and the races with a node that comes back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_core::units::Millis;
use rustix::process::Signal;
use serde_json::Value;

use crate::bmc::{self, Bmc};
use crate::container::{self, Container};
use crate::rig::{Cluster, never_twice, record, runs, workload};
use crate::wait::await_some;

/// Where the service of these tests begins.
const ON_N3: &str = "priority: critical\nplacement: {affinity: [{constraint: \"node == n3\", weight: 50}]}";
/// A busy machine takes its time to start an agent.
const PATIENT: &str = "timeout: 20s, attempts: 3";
const HASTY: &str = "timeout: 1s, attempts: 1";

/// Three nodes, of which the third is fenced by this; it runs `db`, which is exclusive and critical.
struct Scene {
    cluster: Cluster,
    record: PathBuf,
    pid: u64,
    guard: u64,
}

impl Scene {
    fn new(cluster: Cluster, methods: &str) -> Self {
        let mut scene = Self::started(cluster, methods);
        scene.deploy();
        scene
    }

    fn started(mut cluster: Cluster, methods: &str) -> Self {
        cluster.append(2, &format!("fencing: {{methods: {methods}}}\n"));
        let cluster = cluster.form();
        let record = cluster.dir.path().join("record");
        Self { cluster, record, pid: 0, guard: 0 }
    }

    fn deploy(&mut self) {
        self.cluster.deploy(0, &workload("db", ON_N3, &self.record));
        let row = self.cluster.running(0, "db", 1).remove(0);
        assert_eq!(row["node"], "n3", "{row}");
        self.pid = row["pid"].as_u64().unwrap();
        self.guard = self.cluster.node(0, 2).unwrap()["guard_pid"].as_u64().unwrap();
    }

    /// Is every lease as short as the settings of now want it?
    fn leases_are_short(&self) -> Result<(), String> {
        let timeout = self.cluster.json(0, &["settings", "get", "heartbeat.timeout"])?;
        let timeout = timeout["heartbeat.timeout"].as_str().unwrap_or_default();
        let lease = timeout.parse::<Millis>().map_err(|error| error.to_string())?.0;
        let nodes = self.cluster.json(0, &["nodes"])?;
        let short =
            |node: &Value| node["lease_left_ms"].as_u64().is_some_and(|left| left > 0 && left <= lease);
        let all = nodes["items"].as_array().is_some_and(|items| items.iter().all(short));
        if all { Ok(()) } else { Err(nodes.to_string()) }
    }

    /// Waits until the service runs on another node.
    #[track_caller]
    fn moved(&self) -> Value {
        await_some("the service runs elsewhere", || {
            let rows = self.cluster.instances(0, "db")?;
            let good = rows.iter().find(|row| row["node"] != "n3" && row["state"] == "running");
            good.cloned().ok_or_else(|| format!("{rows:?} {:?}", self.fence()))
        })
    }

    /// The newest fencing.
    fn fence(&self) -> Result<Value, String> {
        let all = self.cluster.json(0, &["operations"])?;
        let items = all["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().rev().find(|item| item["kind"] == "fence").ok_or_else(|| all.to_string())
    }

    /// What `why` says of something, all in one text.
    fn why(&self, subject: &str) -> String {
        self.cluster.json(0, &["why", subject]).map_or_else(|error| error, |why| why.to_string())
    }

    /// Everything that this cluster shows or keeps as text.
    fn shown(&self) -> String {
        let views = ["nodes", "operations", "events", "status"]
            .map(|what| self.cluster.json(0, &[what]).map_or_else(|error| error, |value| value.to_string()));
        let logs = (0..3)
            .map(|at| std::fs::read_to_string(self.cluster.data(at).join("quorate.log")).unwrap_or_default());
        views.into_iter().chain(logs).collect::<Vec<_>>().join("\n")
    }
}

fn wall_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

#[test]
fn a_node_is_powered_off_through_its_bmc_and_what_it_ran_starts_elsewhere() {
    if !bmc::there() {
        return;
    }
    let cluster = Cluster::prepared(3);
    let bmc = Bmc::of(&cluster, 2);
    let mut scene = Scene::new(cluster, &format!("[[{}]]", bmc.method("ipmi", PATIENT)));
    let tests = scene.cluster.json(0, &["fence", "n3", "--test"]).unwrap();
    assert_eq!((&tests["tests"][0]["power"], &tests["tests"][0]["method"]), (&"on".into(), &"ipmi".into()));
    assert!(!bmc.calls().contains("set power"), "a test never does the deed: {}", bmc.calls());

    // Whoever measures names a profile; its leases are too short for a machine that does much else.
    if let Ok(profile) = std::env::var("QUORATE_TEST_PROFILE") {
        scene.cluster.done(0, &["settings", "set", &format!("timing.profile={profile}")]);
        await_some("the leases of the profile are in force", || scene.leases_are_short());
    }
    // The node's process dies; its guard and what it runs go on.
    let (lost_wall, lost_boot) = (wall_ms(), boot_ns());
    scene.cluster.kill(2);
    assert!(runs(scene.pid), "it is critical: nothing but its power ends it");
    let row = scene.moved();
    assert!(!runs(scene.pid) && !runs(scene.guard), "the power is off");
    never_twice(&scene.record);
    let fence = await_some("the fencing is over", || {
        let fence = scene.fence()?;
        if fence["result"] == "done" { Ok(fence) } else { Err(fence.to_string()) }
    });
    assert_eq!((&fence["done"], &fence["total"]), (&1.into(), &1.into()), "{fence}");
    tell_parts(&fence, lost_wall, lost_boot, &scene.record);
    assert_eq!(scene.cluster.node(0, 2).unwrap()["state"], "fenced");
    assert!(!scene.shown().contains(Bmc::password()), "the password is shown somewhere");

    // Switched on again it comes back, runs nothing of what it had, and is let in.
    bmc.power("on").unwrap();
    await_some("the node is back", || {
        let node = scene.cluster.node(0, 2)?;
        if node["state"] == "alive" { Ok(()) } else { Err(node.to_string()) }
    });
    let again = scene.cluster.running(0, "db", 1).remove(0);
    assert_eq!((&again["node"], &again["pid"]), (&row["node"], &row["pid"]), "nothing moved back");
    never_twice(&scene.record);
}

/// The parts of a failover, for people who measure; run with `--no-capture`.
fn tell_parts(fence: &Value, lost_wall: u64, lost_boot: u64, path: &Path) {
    let history = fence["history"].as_array().unwrap();
    let at = |word: &str| {
        let line = history.iter().find(|line| line["text"].as_str().unwrap().contains(word)).unwrap();
        line["at"].as_u64().unwrap()
    };
    let (asked, begun, proven) = (fence["begun_at"].as_u64().unwrap(), at("attempt 1"), at("read back"));
    let began = record(path).into_iter().filter(|line| line.event == "start").map(|line| line.boottime_ns);
    let runs = (began.max().unwrap() - lost_boot) / 1_000_000;
    println!(
        "loss to running elsewhere {runs} ms: detected {} ms, ordered {} ms, off and read back {} ms, started \
         {} ms; {}",
        asked.saturating_sub(lost_wall),
        begun.saturating_sub(asked),
        proven.saturating_sub(begun),
        (lost_wall + runs).saturating_sub(proven),
        history.iter().map(|line| line["text"].as_str().unwrap()).collect::<Vec<_>>().join(" | ")
    );
}

#[test]
fn a_bmc_that_does_not_answer_leaves_it_to_the_next_level() {
    if !bmc::there() {
        return;
    }
    let cluster = Cluster::prepared(3);
    let bmc = Bmc::of(&cluster, 2);
    // Nobody listens at the discard port.
    let levels = format!("[[{}], [{}]]", bmc.method_at("dead", 9, HASTY), bmc.method("spare", PATIENT));
    let mut scene = Scene::new(cluster, &levels);
    scene.cluster.kill(2);
    scene.moved();
    assert!(!runs(scene.pid) && !runs(scene.guard), "the power is off");
    never_twice(&scene.record);
    let history = scene.fence().unwrap()["history"].to_string();
    for part in ["level 1", "dead: off:", "was killed", "level 2", "spare: off:", "read back off"] {
        assert!(history.contains(part), "{part}: {history}");
    }
}

#[test]
fn when_no_level_proves_it_the_node_stays_blocked_and_says_what_to_do() {
    if !bmc::there() {
        return;
    }
    let cluster = Cluster::prepared(3);
    let bmc = Bmc::of(&cluster, 2);
    let failing = "{name: broken, agent: fence_dummy, parameters: {type: fail, plug: x, power_timeout: 1}, attempts: 1, timeout: 20s}";
    let absent = "{name: absent, agent: fence_quorate_nothing, attempts: 1}";
    let levels = format!("[[{}], [{failing}], [{absent}]]", bmc.method_at("dead", 9, HASTY));
    let mut scene = Scene::new(cluster, &levels);
    // What no node has is known before it is needed.
    await_some("the missing agent is told", || {
        let node = scene.cluster.node(0, 2)?;
        let missing = node["fencing"]["levels"][2][0]["missing"].as_array().cloned().unwrap_or_default();
        let told = missing.len() == 2 && missing[0]["why"] == "fence_quorate_nothing is not installed";
        if told { Ok(()) } else { Err(node["fencing"].to_string()) }
    });
    let tests = scene.cluster.json(0, &["fence", "n3", "--test"]).unwrap();
    assert!(tests["tests"][2]["error"].as_str().unwrap().contains("not installed"), "{tests}");

    scene.cluster.kill(2);
    await_some("the fencing has failed", || {
        let fence = scene.fence()?;
        let failed = fence["result"].as_str().is_some_and(|result| result.starts_with("failed"));
        if failed { Ok(()) } else { Err(fence.to_string()) }
    });
    for subject in ["n3", "db"] {
        await_some("the way out is said", || {
            let why = scene.why(subject);
            let parts = ["dead: off", "broken: ", "absent: ", "quorate fence n3", "quorate attest n3 --dead"];
            if parts.iter().all(|part| why.contains(part)) { Ok(()) } else { Err(why) }
        });
    }
    assert!(runs(scene.pid), "nothing was done to it");
    assert_eq!(scene.cluster.instances(0, "db").unwrap()[0]["state"], "running_unconfirmed");
    // An operator goes there and pulls the plug.
    bmc.power("off").unwrap();
    assert!(!runs(scene.pid) && !runs(scene.guard));
    scene.cluster.done(0, &["attest", "n3", "--dead", "--reason", "pulled its plug"]);
    scene.moved();
    never_twice(&scene.record);
}

/// A device that only writes down what it is asked, and takes its time.
fn scribe(dir: &Path) -> (PathBuf, String) {
    let (calls, script) = (dir.join("device-calls"), dir.join("device"));
    let text = format!("#!/bin/sh\necho $1 >>{}\n[ $1 = status ] && echo off\nexit 0\n", calls.display());
    std::fs::write(&script, text).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    (calls, script.display().to_string())
}

#[test]
fn a_node_that_answers_again_before_the_deed_keeps_its_power_and_what_it_runs() {
    let cluster = Cluster::prepared(3);
    let (calls, device) = scribe(cluster.dir.path());
    let mut scene = Scene::new(cluster, &format!("[[{{exec: [{device}], delay: 20s}}]]"));
    scene.cluster.signal(2, Signal::STOP);
    await_some("the deed is ordered", || {
        let fence = scene.fence()?;
        if fence["phase"] == "running" { Ok(()) } else { Err(fence.to_string()) }
    });
    // The dry run of what is under way is refused in words.
    let again = scene.cluster.run(0, &["fence", "n3", "--dry-run"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("fences n3 already"), "{again:?}");
    scene.cluster.signal(2, Signal::CONT);
    await_some("the fencing is called off", || {
        let fence = scene.fence()?;
        let over = fence["result"].as_str().is_some_and(|result| result.contains("n3 answered again"));
        if over { Ok(()) } else { Err(fence.to_string()) }
    });
    let row = scene.cluster.running(0, "db", 1).remove(0);
    assert_eq!((&row["node"], &row["pid"]), (&"n3".into(), &scene.pid.into()), "adopted, not restarted");
    assert_eq!(std::fs::read_to_string(&calls).unwrap_or_default(), "", "the device was never asked");
    scene.pid = 0;
}

#[test]
fn a_dry_run_shows_what_stops_where_it_goes_and_what_happens_if_nothing_is_done() {
    let cluster = Cluster::prepared(3);
    let (calls, device) = scribe(cluster.dir.path());
    let scene = Scene::new(cluster, &format!("[[{{exec: [{device}]}}]]"));
    let plan = scene.cluster.json(0, &["fence", "n3", "--dry-run"]).unwrap();
    assert_eq!(plan["loses"][0]["slot"], "db/0");
    assert_eq!(
        (&plan["loses"][0]["priority"], &plan["loses"][0]["exclusive"]),
        (&"critical".into(), &true.into())
    );
    let actions = plan["actions"].to_string();
    for part in ["n3 is committed lost", "fences n3", "db/0 starts on n"] {
        assert!(actions.contains(part), "{part}: {plan}");
    }
    assert!(plan["quorum"].as_str().unwrap().contains("2 of 3"), "{plan}");
    assert_eq!(plan["otherwise"], serde_json::json!([]), "nothing is due");
    assert!(runs(scene.pid), "it was only looked at");
    assert_eq!(std::fs::read_to_string(&calls).unwrap_or_default(), "");
}

#[test]
fn the_survivor_of_a_lost_quorum_may_fence_on_its_operators_word_and_writes_it_down() {
    let cluster = Cluster::prepared(3);
    let (calls, device) = scribe(cluster.dir.path());
    let mut scene = Scene::started(cluster, &format!("[[{{exec: [{device}]}}]]"));
    let alone = |scene: &Scene, confirm: &str| {
        let words = ["fence", "n3", "--without-quorum", "--confirm", confirm, "--reason", "both racks burn"];
        scene.cluster.run(0, &[&["-o", "json"], &words[..]].concat())
    };
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = alone(&scene, "n3");
    assert!(said(&refused).contains("this side has a quorum"), "{refused:?}");
    scene.cluster.kill(1);
    scene.cluster.kill(2);
    let refused = alone(&scene, "n2");
    assert!(said(&refused).contains("is not the name of the node to fence"), "{refused:?}");
    let outcome = await_some("the survivor believes that it is alone", || {
        let output = alone(&scene, "n3");
        if output.status.success() { Ok(output.stdout) } else { Err(said(&output)) }
    });
    let outcome: Value = serde_json::from_slice(&outcome).unwrap();
    assert_eq!(outcome["proven"], true, "{outcome}");
    assert!(outcome["next"].as_str().unwrap().contains("quorate raft recover --survivors n1"), "{outcome}");
    assert_eq!(std::fs::read_to_string(&calls).unwrap(), "off\nstatus\n");
    let audit = std::fs::read_to_string(scene.cluster.data(0).join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{audit}");
    assert_eq!((&lines[0]["outcome"], &lines[1]["outcome"]), (&"begun".into(), &"proven_off".into()));
    assert!(lines.iter().all(|line| line["node"] == "n3" && line["reason"] == "both racks burn"), "{audit}");
}

#[test]
fn a_node_in_a_container_is_fenced_by_its_engine() {
    if !container::there() {
        return;
    }
    let mut cluster = Cluster::prepared(3);
    let container = Container::of(&mut cluster, 2);
    let method = format!("[[{{docker: {}, action: reboot, timeout: 30s}}]]", container.name());
    let mut scene = Scene::started(cluster, &method);
    scene.deploy();
    // The node's process hangs; its guard and what it runs go on.
    container.engine(&["kill", "--signal", "STOP", container.name()]);
    let began = Instant::now();
    scene.moved();
    println!("moved {} ms after the node froze", began.elapsed().as_millis());
    never_twice(&scene.record);
    let history = scene.fence().unwrap()["history"].to_string();
    assert!(history.contains("read back off"), "{history}");
    // The engine gives it back: a node that comes back with nothing running.
    await_some("the node is back", || {
        let node = scene.cluster.node(0, 2)?;
        if node["state"] == "alive" { Ok(()) } else { Err(format!("{node} {:?}", scene.fence())) }
    });
    let fence = scene.fence().unwrap();
    assert_eq!(fence["result"], "done", "{fence}");
    assert!(fence["history"].to_string().contains("switches it on again"), "{fence}");
    never_twice(&scene.record);
    assert!(began.elapsed() < Duration::from_secs(300));
}

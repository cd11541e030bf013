//! A split with work that an engine runs: a container is stopped by its deadline on the side that was cut off, with
//! that side's node process frozen, and starts on the other side only after. Judged by what the workload wrote.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::judge::runs::Reader;
use crate::rig::{Cluster, LEASE, MARGIN, boottime_ns, ms};
use crate::wait::await_some;

const QUORATE: &str = env!("CARGO_BIN_EXE_quorate");
const GRACE: Duration = Duration::from_secs(1);
/// How far the rate of a clock may be off, on both sides.
const DRIFT: f64 = 1.01 / 0.99;
/// A heartbeat of a busy machine may be late by this much, and the next one never comes.
const LATE: Duration = Duration::from_secs(1);

/// An image of the engine's, for as long as this lives.
struct Image(String);

impl Image {
    /// With the workload and what it is linked to, and nothing else; `None` where no engine answers.
    fn of_the_workload(folder: &Path) -> Option<Self> {
        let there = docker(&["version"]).is_ok();
        let required = std::env::var("QUORATE_REQUIRE").unwrap_or_default();
        assert!(there || !required.split(',').any(|one| one.trim() == "docker"), "docker is required");
        if !there {
            println!("left out: no docker answers here");
            return None;
        }
        let root = folder.join("image");
        for path in libraries().into_iter().chain([PathBuf::from(QUORATE)]) {
            let inside = root.join(path.strip_prefix("/").unwrap());
            std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
            std::fs::copy(&path, &inside).unwrap();
        }
        let program = root.join(QUORATE.trim_start_matches('/'));
        assert!(Command::new("strip").arg(&program).status().unwrap().success());
        let name = format!("quorate-split-{}:1", std::process::id());
        let tar = folder.join("image.tar");
        assert!(
            Command::new("tar")
                .arg("-C")
                .arg(&root)
                .arg("-cf")
                .arg(&tar)
                .arg(".")
                .status()
                .unwrap()
                .success()
        );
        docker(&["import", tar.to_str().unwrap(), &name]).unwrap();
        Some(Self(name))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let left = docker(&["ps", "-aq", "--filter", &format!("ancestor={}", self.0)]).unwrap_or_default();
        for container in left.split_whitespace() {
            let _ = docker(&["rm", "-f", container]);
        }
        let _ = docker(&["rmi", "-f", &self.0]);
    }
}

fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("timeout")
        .arg("20")
        .arg("docker")
        .args(arguments)
        .output()
        .map_err(|e| e.to_string())?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

fn libraries() -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(QUORATE).output().unwrap();
    let words = String::from_utf8_lossy(&listed.stdout).into_owned();
    words.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[test]
fn a_container_cut_off_with_its_node_frozen_ends_by_its_deadline_and_starts_elsewhere_only_after() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(image) = Image::of_the_workload(scratch.path()) else { return };
    let Some(cluster) = Cluster::formed(3) else { return };
    let mut reader = Reader::default();
    let home = 2;
    for (name, stubborn) in [("asked", ""), ("stubborn", ", --ignore-sigterm")] {
        let spec = format!(
            "name: {name}\nexecutor: docker\npriority: normal\n\
             spec: {{image: \"{}\", pull: never, command: [{QUORATE}, workload, --record, /records/{name}{stubborn}], \
             mounts: [\"{}:/records\"], network: none, memory_limit: 128}}\n\
             resources: {{cpu: 0.01}}\nplacement: {{affinity: [\"node == {}\"]}}\nstop: {{grace: {}ms}}\n",
            image.0,
            cluster.records().display(),
            cluster.name(home),
            GRACE.as_millis(),
        );
        let file = cluster.dir.path().join(format!("{name}.yaml"));
        std::fs::write(&file, spec).unwrap();
        cluster.done(0, &["deploy", "-f", file.to_str().unwrap()]);
        cluster.await_home(&mut reader, &format!("{name}/0"), home);
    }
    await_some("both are armed", || {
        let rows = cluster.instances(0)?;
        let armed = rows.iter().filter(|row| row["armed"] == true).count();
        if armed == 2 { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    let node = Pid::from_raw(cluster.pid(home).cast_signed()).unwrap();
    let begun = boottime_ns();
    kill_process(node, Signal::STOP).unwrap();
    cluster.lab.cut(|way| (way.from == home) != (way.to == home));
    let cut = boottime_ns();
    let deadline = LEASE + GRACE + MARGIN;
    for name in ["asked", "stubborn"] {
        let slot = format!("{name}/0");
        let later = cluster.await_life(&mut reader, &slot, &[0, 1]);
        let lives = reader.runs.of(&slot);
        let earlier = &lives[lives.len() - 2];
        let (ended, started) = (ms(cut, earlier.last), ms(begun, later.first));
        println!("{name}: ended {ended} ms after the cut, started elsewhere after {started} ms");
        assert!(ended <= i64::try_from(deadline.as_millis()).unwrap(), "{lives:#?}");
        assert_eq!(earlier.stopped.is_some(), name == "asked", "{lives:#?}");
        let due = deadline.mul_f64(DRIFT);
        assert!(started >= i64::try_from((due - LATE).as_millis()).unwrap(), "{lives:#?}");
    }
    kill_process(node, Signal::CONT).unwrap();
    cluster.lab.heal();
    cluster.await_whole();
    await_some("exactly the wanted containers are left", || {
        let rows = cluster.instances(0)?;
        let good =
            rows.iter().filter(|row| row["state"] == "running" && row["node"] != cluster.name(home)).count();
        let left = docker(&["ps", "-aq", "--filter", &format!("ancestor={}", image.0)])?;
        if good == 2 && left.lines().count() == 2 { Ok(()) } else { Err(format!("{rows:?}\n{left}")) }
    });
    reader.catch_up(&cluster.records());
    assert!(reader.runs.overlaps().is_empty(), "{:#?}", reader.runs.overlaps());
    assert!(reader.runs.disorder().is_empty(), "{:#?}", reader.runs.disorder());
    for name in ["asked", "stubborn"] {
        cluster.done(0, &["delete", name]);
    }
    await_some("nothing is left with the engine", || {
        let left = docker(&["ps", "-aq", "--filter", &format!("ancestor={}", image.0)])?;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

//! Power lost under a real file system: all nodes live on one that is kept in a file, and what that file holds at
//! one moment, unsynced pages of the file system left out, is all that they find again.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::{Cluster, texts};

/// A file system of its own, in a file.
struct Drive {
    folder: tempfile::TempDir,
    cuts: u32,
}

impl Drive {
    /// Needs root and a loop device; says so where they are missing, and fails where they are required.
    fn new() -> Option<Self> {
        let drive = Self { folder: tempfile::tempdir().unwrap(), cuts: 0 };
        std::fs::create_dir(drive.root()).unwrap();
        let image = drive.image();
        let made = run("truncate", &["-s".as_ref(), "64M".as_ref(), &image])
            .and_then(|()| run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), &image]))
            .and_then(|()| drive.mount());
        match made {
            Ok(()) => Some(drive),
            Err(why) => {
                let required = std::env::var("QUORATE_REQUIRE").unwrap_or_default();
                assert!(!required.split(',').any(|part| part.trim() == "loop"), "no loop device: {why}");
                eprintln!("not tested here: a file system in a file needs root and a loop device: {why}");
                None
            }
        }
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join(format!("image{}", self.cuts))
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Nothing is written by itself for minutes: only what is synced leaves the memory.
    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o".as_ref(), "loop,commit=300".as_ref(), &self.image(), &self.root()])
    }

    /// What the device holds now is kept; all that was only in memory is lost with `end`.
    fn cut_power(&mut self, end: impl FnOnce()) {
        let before = self.image();
        self.cuts += 1;
        run("cp", &["--sparse=always".as_ref(), &before, &self.image()]).unwrap();
        end();
        run("umount", &[&self.root()]).unwrap();
        self.mount().unwrap();
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        // Not mounted, or busy after a failed test: then it goes with its last user.
        let _ = run("umount", &["-l".as_ref(), &self.root()]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[test]
fn every_acknowledged_write_is_there_after_power_is_lost_at_all_nodes_at_once() {
    let Some(mut drive) = Drive::new() else { return };
    let mut cluster = Cluster::on(&drive.root(), 3);
    let all = texts(0..60);
    for (round, some) in all.chunks(20).enumerate() {
        for text in some {
            cluster.write(text);
        }
        let unsynced = drive.root().join(format!("unsynced{round}"));
        std::fs::write(&unsynced, "in memory alone").unwrap();
        drive.cut_power(|| (1..=3).for_each(|id| cluster.kill(id)));
        let left = std::fs::read_to_string(&unsynced).unwrap_or_default();
        assert_ne!(left, "in memory alone", "this file system loses nothing: the test would prove nothing");
        for id in 1..=3 {
            cluster.start(id);
        }
        cluster.leader();
        for id in 1..=3 {
            cluster.has_applied(id, &all[..(round + 1) * 20]);
        }
    }
}

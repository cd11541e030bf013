//! The demo's directory: one demo at a time, begun empty, and where everything of it lies. Does not know
//! what runs there.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

use crate::host::ProcessStat;

/// How long the leftovers of a killed demo may take to be ended.
const SWEPT_WITHIN: Duration = Duration::from_secs(10);

/// A directory that this demo has for itself.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    lock: File,
}

/// The data directory of a node, which also holds its file.
pub(super) fn node_dir(dir: &Path, node: &str) -> PathBuf {
    dir.join("nodes").join(node)
}

/// A node's own file.
pub(super) fn node_file(dir: &Path, node: &str) -> PathBuf {
    node_dir(dir, node).join("node.yaml")
}

/// What it dials instead of which published address.
pub(super) fn detours_file(dir: &Path, node: &str) -> PathBuf {
    node_dir(dir, node).join("detours.json")
}

/// Where a running demo is steered.
pub(super) fn door(dir: &Path) -> PathBuf {
    dir.join("demo.sock")
}

/// What a running demo says of itself.
pub(super) fn demo_file(dir: &Path) -> PathBuf {
    dir.join("demo.json")
}

impl Place {
    /// Takes the directory, waits for what a killed demo left to be ended, and empties it.
    pub(super) fn take(dir: &Path) -> anyhow::Result<Self> {
        let used =
            !dir.join("demo.lock").exists() && fs::read_dir(dir).is_ok_and(|mut all| all.next().is_some());
        if used {
            bail!("{} holds other things than a demo; choose an empty or a new directory", dir.display());
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
        let path = dir.join("demo.lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        take_lock(&mut lock, &dir)?;
        lock.set_len(0)?;
        lock.rewind()?;
        write!(lock, "{}", std::process::id())?;
        Ok(Self { dir, lock })
    }

    /// Where it is, absolute.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The lock itself: whoever has a copy keeps the directory taken.
    pub(super) fn share(&self) -> std::io::Result<File> {
        self.lock.try_clone()
    }

    /// Removes what an earlier demo left on disk.
    pub(super) fn empty(&self) -> anyhow::Result<()> {
        for path in [demo_file(&self.dir), door(&self.dir)] {
            let _ = fs::remove_file(path);
        }
        let nodes = self.dir.join("nodes");
        match fs::remove_dir_all(&nodes) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", nodes.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes a file all or nothing, for this account's eyes only.
    pub(super) fn write(&self, path: &Path, text: &str) -> anyhow::Result<()> {
        let draft = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            if let Some(above) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
            }
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&draft, path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Waits for the lock as long as its holder is not a demo but what ends a dead one.
fn take_lock(lock: &mut File, dir: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + SWEPT_WITHIN;
    loop {
        if flock(&*lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(());
        }
        let mut text = String::new();
        lock.rewind()?;
        lock.read_to_string(&mut text)?;
        let holder =
            text.trim().parse::<u32>().ok().filter(|pid| ProcessStat::read(*pid).is_some_and(|s| !s.dead()));
        if let Some(pid) = holder {
            bail!(
                "a demo already runs in {} (pid {pid}); steer it with `quorate demo ctl`, end it, or choose another --dir",
                dir.display()
            );
        }
        if Instant::now() >= deadline {
            bail!(
                "{} is still taken by the leftovers of an ended demo; try again or choose another --dir",
                dir.display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_demo_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo");
        let place = Place::take(&path).unwrap();
        let error = Place::take(&path).unwrap_err().to_string();
        assert!(error.contains("already runs") && error.contains(&std::process::id().to_string()), "{error}");
        drop(place);
        Place::take(&path).unwrap();
    }

    #[test]
    fn a_directory_with_other_things_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        let error = Place::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("other things"), "{error}");
    }

    #[test]
    fn a_demo_begins_empty() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::take(dir.path()).unwrap();
        place.write(&node_file(place.dir(), "n1"), "old").unwrap();
        place.empty().unwrap();
        assert!(!dir.path().join("nodes").exists());
    }
}

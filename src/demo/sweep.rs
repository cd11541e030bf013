//! Ends everything of a demo's node - its process, its guard, its instances - and reads back that nothing
//! is left. Goes by what the kernel says, not by what node or guard wrote down, so it works whatever they did.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::place;
use crate::host::{ProcessStat, process_ids};
use crate::layout::guard_name;

/// What a process is to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The node itself.
    Node,
    /// Its guard.
    Guard,
    /// The guard's twin.
    Twin,
    /// An instance, or what one left behind.
    Instance,
}

/// Everything of one node of one demo.
#[derive(Debug, Clone)]
pub(super) struct Target {
    data: PathBuf,
    file: PathBuf,
    /// As in `/proc/PID/cgroup`.
    group: String,
    /// How the environment of its instances begins.
    mark: Vec<u8>,
}

impl Target {
    /// Of a node in a demo's directory, which must be absolute.
    pub(super) fn new(dir: &Path, node: &str) -> Self {
        let data = place::node_dir(dir, node);
        let mut mark = b"QUORATE_INSTANCE_DIR=".to_vec();
        mark.extend_from_slice(data.as_os_str().as_bytes());
        mark.push(b'/');
        Self {
            file: place::node_file(dir, node),
            group: format!("/quorate/{}/", guard_name(&data)),
            mark,
            data,
        }
    }

    /// What of it still runs; zombies do not.
    pub(super) fn left(&self) -> Vec<(u32, Part)> {
        let own = std::process::id();
        let mut left: Vec<_> = process_ids()
            .into_iter()
            .filter(|pid| *pid != own && ProcessStat::read(*pid).is_some_and(|stat| !stat.dead()))
            .filter_map(|pid| Some((pid, self.part(pid)?)))
            .collect();
        // The node first: while it lives it starts a new guard.
        left.sort_by_key(|(pid, part)| (*part, *pid));
        left
    }

    /// Its guard, if one runs.
    pub(super) fn guard(&self) -> Option<u32> {
        self.left().into_iter().find(|(_, part)| *part == Part::Guard).map(|(pid, _)| pid)
    }

    fn part(&self, pid: u32) -> Option<Part> {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let line = read("cmdline");
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let names = |path: &Path| words.iter().skip(2).any(|word| *word == path.as_os_str().as_bytes());
        match words.get(1) {
            Some(&b"node") if names(&self.file) => return Some(Part::Node),
            Some(&b"guard") if names(&self.data) => {
                let twin = words.contains(&&b"--twin"[..]);
                return Some(if twin { Part::Twin } else { Part::Guard });
            }
            _ => {}
        }
        let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        let marked = || read("environ").split(|byte| *byte == 0).any(|one| one.starts_with(&self.mark));
        (groups.contains(&self.group) || marked()).then_some(Part::Instance)
    }

    /// Kills all of it; an error names what is still there after `within`.
    pub(super) fn end(&self, within: Duration) -> Result<usize, String> {
        let deadline = Instant::now() + within;
        let mut killed = std::collections::BTreeSet::new();
        let mut clean = 0;
        loop {
            let left = self.left();
            // Twice clean: a process may have started another behind the first look.
            clean = if left.is_empty() { clean + 1 } else { 0 };
            if clean == 2 {
                self.clear();
                return Ok(killed.len());
            }
            if Instant::now() >= deadline {
                return Err(format!("{} still runs {}", self.data.display(), describe(&left)));
            }
            for (pid, _) in &left {
                self.kill(*pid);
                killed.insert(*pid);
            }
            if !left.is_empty() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// By a handle that is good for one process only: the number may be another's by now.
    fn kill(&self, pid: u32) {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if self.part(pid.as_raw_nonzero().get().unsigned_abs()).is_some() {
            let _ = pidfd_send_signal(&handle, Signal::KILL);
        }
    }

    /// Removes its empty control groups and what the guard kept for this boot.
    fn clear(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in mounts.lines() {
            let Some((front, back)) = line.split_once(" - ") else { continue };
            if !back.starts_with("cgroup") {
                continue;
            }
            let Some(mount) = front.split(' ').nth(4) else { continue };
            let folder = PathBuf::from(format!("{mount}{}", self.group.trim_end_matches('/')));
            let inner = fs::read_dir(&folder).into_iter().flatten().flatten();
            // Only empty groups can be removed, so there is nothing to lose.
            for entry in inner.filter(|entry| entry.path().is_dir()) {
                let _ = fs::remove_dir(entry.path());
            }
            let _ = fs::remove_dir(&folder);
            // The last guard of the host leaves nothing at all.
            let _ = folder.parent().map(fs::remove_dir);
        }
    }
}

/// Processes in words.
pub(super) fn describe(left: &[(u32, Part)]) -> String {
    let word = |part| match part {
        Part::Node => "node",
        Part::Guard => "guard",
        Part::Twin => "twin",
        Part::Instance => "instance",
    };
    left.iter().map(|(pid, part)| format!("{} {pid}", word(*part))).collect::<Vec<_>>().join(", ")
}

/// Ends every node there is in a demo's directory.
pub(super) fn end_all(dir: &Path, within: Duration) -> Result<usize, String> {
    let deadline = Instant::now() + within;
    let nodes = fs::read_dir(dir.join("nodes")).into_iter().flatten().flatten();
    let names: Vec<String> = nodes.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let mut ended = 0;
    let mut failed = Vec::new();
    for name in names {
        let target = Target::new(dir, &name);
        match target.end(deadline.saturating_duration_since(Instant::now())) {
            Ok(count) => {
                let _ = fs::remove_dir_all(Path::new("/run/quorate").join(guard_name(&target.data)));
                let _ = fs::remove_dir("/run/quorate");
                ended += count;
            }
            Err(why) => failed.push(why),
        }
    }
    if failed.is_empty() { Ok(ended) } else { Err(failed.join("; ")) }
}

//! One instance's control group, in all trees it lies in: who is in it, what it may use, what it used,
//! and the ways to end everything in it, late arrivals too. Does not know which instance it belongs to.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use quorate_core::observation::InstanceUsage;
use quorate_core::spec::Limits;
use quorate_core::units::{BootMs, CpuMillis, MemoryMib};

use super::cgroup::{Controller, Tree};
use super::signal;

/// One group.
#[derive(Debug, Clone)]
pub struct Group {
    pub(super) tracking: Tree,
    pub(super) controllers: BTreeMap<Controller, Tree>,
    pub(super) folders: Vec<PathBuf>,
    /// Where an engine may leave folders of its own.
    pub(super) leftovers: Vec<PathBuf>,
    /// The disk that reading and writing is limited on, as `MAJOR:MINOR`.
    pub(super) disk: Option<String>,
}

/// What was used so far, to tell use from one reading to the next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    /// When.
    pub at: BootMs,
    /// Microseconds of processor time.
    pub used_us: u64,
    /// Bytes read from and written to disks.
    pub io: Traffic,
    /// Bytes received and sent.
    pub network: Traffic,
}

/// Bytes in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Read or received.
    pub read: u64,
    /// Written or sent.
    pub written: u64,
}

impl Reading {
    /// Bytes per second since an earlier reading.
    fn rates(&self, before: Option<Reading>, of: impl Fn(&Reading) -> Traffic) -> Traffic {
        let Some(before) = before else { return Traffic::default() };
        let passed_ms = self.at.since(before.at).0.max(1);
        let rate = |now: u64, before: u64| now.saturating_sub(before).saturating_mul(1_000) / passed_ms;
        let (now, before) = (of(self), of(&before));
        Traffic { read: rate(now.read, before.read), written: rate(now.written, before.written) }
    }
}

impl Group {
    /// Files a process writes `0` to in order to enter the group.
    pub fn doors(&self) -> io::Result<Vec<File>> {
        self.folders
            .iter()
            .map(|folder| OpenOptions::new().write(true).open(folder.join("cgroup.procs")))
            .collect()
    }

    /// Sets the limits of a spec, lifting those it has none for.
    pub fn limit(&self, limits: &Limits) -> io::Result<()> {
        const PERIOD_US: u64 = 100_000;
        let quota = limits.cpu.map(|cpu| (u64::from(cpu.0) * PERIOD_US / 1_000).max(1_000));
        match self.controllers.get(&Controller::Cpu) {
            Some(Tree::V2(folder)) => {
                let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                set(folder, "cpu.max", &format!("{quota} {PERIOD_US}"))?;
            }
            Some(Tree::V1(folder)) => {
                set(folder, "cpu.cfs_period_us", &PERIOD_US.to_string())?;
                let quota = quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
                set(folder, "cpu.cfs_quota_us", &quota)?;
            }
            None => {}
        }
        self.limit_memory(limits)?;
        self.limit_io(limits)?;
        let most = limits.pids.map_or_else(|| "max".to_owned(), |most| most.to_string());
        match self.controllers.get(&Controller::Pids) {
            Some(Tree::V1(folder) | Tree::V2(folder)) => set(folder, "pids.max", &most),
            None => Ok(()),
        }
    }

    /// On the data directory's disk alone: what an instance does elsewhere is not the node's to know.
    fn limit_io(&self, limits: &Limits) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        match self.controllers.get(&Controller::Io) {
            Some(Tree::V2(folder)) => {
                let rate = |rate: Option<u64>| rate.map_or_else(|| "max".to_owned(), |rate| rate.to_string());
                let (read, write) = (rate(limits.io_read), rate(limits.io_write));
                set(folder, "io.max", &format!("{disk} rbps={read} wbps={write}"))
            }
            Some(Tree::V1(folder)) => {
                let rate = |rate: Option<u64>| format!("{disk} {}", rate.unwrap_or(0));
                set(folder, "blkio.throttle.read_bps_device", &rate(limits.io_read))?;
                set(folder, "blkio.throttle.write_bps_device", &rate(limits.io_write))
            }
            None => Ok(()),
        }
    }

    fn limit_memory(&self, limits: &Limits) -> io::Result<()> {
        let written =
            |limit: Option<MemoryMib>| limit.map(|limit| limit.0.saturating_mul(1 << 20).to_string());
        let (limit, bytes) = (limits.memory, written(limits.memory));
        match self.controllers.get(&Controller::Memory) {
            Some(Tree::V2(folder)) => {
                set(folder, "memory.max", bytes.as_deref().unwrap_or("max"))?;
                set(folder, "memory.high", written(limits.memory_high).as_deref().unwrap_or("max"))?;
                // Memory that swaps is not limited memory; kernels without swap lack the file.
                let _ = fs::write(folder.join("memory.swap.max"), if limit.is_some() { "0" } else { "max" });
                Ok(())
            }
            Some(Tree::V1(folder)) => {
                let bytes = bytes.as_deref().unwrap_or("-1");
                // With swap accounting the sum may never be below the memory limit, so it goes up first.
                let sum = folder.join("memory.memsw.limit_in_bytes");
                let _ = fs::write(&sum, "-1");
                set(folder, "memory.limit_in_bytes", bytes)?;
                let _ = fs::write(&sum, bytes);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Processes in it and in the groups below, which engines make; zombies are not listed by the kernel.
    pub fn members(&self) -> Vec<u32> {
        let (Tree::V1(folder) | Tree::V2(folder)) = &self.tracking;
        members_of(folder)
    }

    /// Takes in a process that was started elsewhere, with all its threads, in each tree where it is neither here nor
    /// below. Where the group is barred it is stopped by that.
    pub fn gather(&self, pid: u32) -> io::Result<()> {
        for folder in &self.folders {
            if !members_of(folder).contains(&pid) {
                set(folder, "cgroup.procs", &pid.to_string())?;
            }
        }
        Ok(())
    }

    /// Kills everything in it, forks in flight included. May need repeating until it is empty.
    pub fn kill(&self) {
        match &self.tracking {
            Tree::V2(folder) => {
                if fs::write(folder.join("cgroup.kill"), "1").is_err() {
                    self.kill_frozen(&folder.join("cgroup.freeze"), "1", "0");
                }
            }
            Tree::V1(folder) => self.kill_frozen(&folder.join("freezer.state"), "FROZEN", "THAWED"),
        }
    }

    /// Kills everything in it, and leaves it frozen: whoever still arrives does not run, and is killed by the
    /// next round.
    pub fn kill_and_bar(&self) {
        self.freeze(true);
        self.kill();
        // A version 1 kill takes effect with the thaw.
        self.freeze(true);
    }

    /// Stops everything in it and whoever enters it, or lets it go on.
    pub fn freeze(&self, on: bool) {
        let _ = match &self.tracking {
            Tree::V2(folder) => fs::write(folder.join("cgroup.freeze"), if on { "1" } else { "0" }),
            Tree::V1(folder) => fs::write(folder.join("freezer.state"), if on { "FROZEN" } else { "THAWED" }),
        };
    }

    /// Can everything of an instance be killed by it, without asking anyone? `main` is its main process, if
    /// one runs.
    pub fn can_kill(&self, main: Option<u32>) -> Result<(), String> {
        let (Tree::V1(folder) | Tree::V2(folder)) = &self.tracking;
        let names: &[&str] = match &self.tracking {
            Tree::V2(_) => &["cgroup.kill", "cgroup.freeze"],
            Tree::V1(_) => &["freezer.state"],
        };
        let wrong = |why: String| Err(format!("{}: {why}", folder.display()));
        let owner = match fs::metadata(folder) {
            Ok(found) => found.uid(),
            Err(error) => return wrong(error.to_string()),
        };
        if owner != rustix::process::geteuid().as_raw() {
            return wrong(format!("belongs to account {owner}"));
        }
        let opens = |name: &&str| OpenOptions::new().write(true).open(folder.join(name)).is_ok();
        if !names.iter().any(opens) {
            return wrong(format!("{} cannot be written", names[0]));
        }
        match main.filter(|main| !self.members().contains(main)) {
            Some(main) => wrong(format!("process {main} has left it")),
            None => Ok(()),
        }
    }

    /// Frozen, nothing can fork away from the signals, which take effect with the thaw.
    fn kill_frozen(&self, switch: &Path, freeze: &str, thaw: &str) {
        let _ = fs::write(switch, freeze);
        for pid in self.members() {
            signal::send(pid, libc::SIGKILL);
        }
        let _ = fs::write(switch, thaw);
    }

    /// Kills by the kernel for memory so far. Version 1 counts them in each group for itself, so those below
    /// count too.
    pub fn memory_kills(&self) -> u64 {
        match self.controllers.get(&Controller::Memory) {
            Some(Tree::V2(folder)) => field(folder, "memory.events", "oom_kill"),
            Some(Tree::V1(folder)) => {
                let mut all = 0;
                walk(folder, &mut |folder| all += field(folder, "memory.oom_control", "oom_kill"));
                all
            }
            None => 0,
        }
    }

    /// Has the group of an engine's count how often the memory limit is reached. In version 1 a kill is counted only
    /// in the engine's own group below, which is gone with the run; so this one is made to be reached just before.
    pub fn witness_memory(&self, limit: Option<MemoryMib>) -> io::Result<()> {
        const PAGE: u64 = 4_096;
        match (self.controllers.get(&Controller::Memory), limit) {
            (Some(Tree::V1(folder)), Some(limit)) => {
                set(folder, "memory.limit_in_bytes", &((limit.0 << 20) - PAGE).to_string())
            }
            _ => Ok(()),
        }
    }

    /// How often that was so.
    pub fn memory_hits(&self) -> u64 {
        match self.controllers.get(&Controller::Memory) {
            Some(Tree::V1(folder)) => number(folder, "memory.failcnt").unwrap_or(0),
            Some(Tree::V2(_)) | None => 0,
        }
    }

    /// What was used so far; `main` tells the network that it is in.
    pub fn read(&self, main: Option<u32>, now: BootMs) -> Option<Reading> {
        let used_us = match self.controllers.get(&Controller::CpuAccount)? {
            Tree::V2(folder) => field(folder, "cpu.stat", "usage_usec"),
            Tree::V1(folder) => number(folder, "cpuacct.usage")? / 1_000,
        };
        let network = main.map(network_of).unwrap_or_default();
        Some(Reading { at: now, used_us, io: self.io(), network })
    }

    fn io(&self) -> Traffic {
        let text = match self.controllers.get(&Controller::Io) {
            Some(Tree::V2(folder)) => fs::read_to_string(folder.join("io.stat")),
            Some(Tree::V1(folder)) => {
                fs::read_to_string(folder.join("blkio.throttle.io_service_bytes_recursive"))
            }
            None => return Traffic::default(),
        };
        let mut all = Traffic::default();
        for line in text.unwrap_or_default().lines() {
            let mut words = line.split_ascii_whitespace().skip(1);
            while let Some(word) = words.next() {
                // `rbytes=1 wbytes=2` in version 2, `Read 1` and `Write 2` on lines of their own in version 1.
                let (name, value) =
                    word.split_once('=').unwrap_or_else(|| (word, words.next().unwrap_or("0")));
                let value: u64 = value.parse().unwrap_or(0);
                match name {
                    "rbytes" | "Read" => all.read += value,
                    "wbytes" | "Write" => all.written += value,
                    _ => {}
                }
            }
        }
        all
    }

    /// What it uses now, with all that is counted taken since an earlier reading.
    pub fn usage(&self, before: Option<Reading>, now: Option<Reading>) -> InstanceUsage {
        let rates = |of: fn(&Reading) -> Traffic| now.map(|now| now.rates(before, of)).unwrap_or_default();
        let (io, network) = (rates(|one| one.io), rates(|one| one.network));
        let memory =
            match self.controllers.get(&Controller::Memory) {
                Some(Tree::V2(folder)) => number(folder, "memory.current")
                    .unwrap_or(0)
                    .saturating_sub(field(folder, "memory.stat", "inactive_file")),
                Some(Tree::V1(folder)) => number(folder, "memory.usage_in_bytes")
                    .unwrap_or(0)
                    .saturating_sub(field(folder, "memory.stat", "total_inactive_file")),
                None => 0,
            };
        let tasks = match self.controllers.get(&Controller::Pids) {
            Some(Tree::V1(folder) | Tree::V2(folder)) => number(folder, "pids.current").unwrap_or(0),
            None => self.members().len() as u64,
        };
        InstanceUsage {
            cpu: cpu_between(before, now),
            memory: MemoryMib(memory.div_ceil(1 << 20)),
            tasks: tasks as u32,
            io_read_bps: io.read,
            io_write_bps: io.written,
            network_in_bps: network.read,
            network_out_bps: network.written,
        }
    }

    /// Removes its folders; fails silently while a process is left in one.
    pub fn remove(&self) {
        for folder in self.folders.iter().chain(&self.leftovers) {
            walk(folder, &mut |folder| drop(fs::remove_dir(folder)));
        }
    }
}

/// Processes in a group and in those below.
fn members_of(folder: &Path) -> Vec<u32> {
    let mut all = Vec::new();
    walk(folder, &mut |folder| {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        all.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    });
    all
}

/// Every group of a tree, those below first.
fn walk(folder: &Path, see: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), see);
        }
    }
    see(folder);
}

/// Mean use between two readings.
pub fn cpu_between(before: Option<Reading>, now: Option<Reading>) -> CpuMillis {
    let (Some(before), Some(now)) = (before, now) else { return CpuMillis(0) };
    let passed_ms = now.at.since(before.at).0.max(1);
    let used_us = now.used_us.saturating_sub(before.used_us);
    // Microseconds of use in a millisecond are thousandths of one core.
    CpuMillis(u32::try_from(used_us / passed_ms).unwrap_or(u32::MAX))
}

/// What went through the network of a process, if that is not the host's: there nothing can be told apart.
fn network_of(main: u32) -> Traffic {
    let network = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    let main = main.to_string();
    if network(&main).is_none_or(|theirs| Some(theirs) == network("self")) {
        return Traffic::default();
    }
    let text = fs::read_to_string(format!("/proc/{main}/net/dev")).unwrap_or_default();
    let mut all = Traffic::default();
    for (name, counts) in text.lines().filter_map(|line| line.split_once(':')) {
        let mut counts = counts.split_ascii_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
        if name.trim() != "lo" {
            all.read += counts.next().unwrap_or(0);
            all.written += counts.nth(7).unwrap_or(0);
        }
    }
    all
}

fn set(folder: &Path, name: &str, value: &str) -> io::Result<()> {
    let path = folder.join(name);
    fs::write(&path, value).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot set {} to {value}: {error}", path.display()))
    })
}

fn number(folder: &Path, name: &str) -> Option<u64> {
    fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
}

fn field(folder: &Path, name: &str, key: &str) -> u64 {
    let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(cpu: Option<u32>, memory: Option<u64>, pids: Option<u32>) -> Limits {
        Limits { cpu: cpu.map(CpuMillis), memory: memory.map(MemoryMib), pids, ..Limits::default() }
    }

    fn group(folder: &Path, tree: fn(PathBuf) -> Tree) -> Group {
        let all =
            [Controller::Cpu, Controller::CpuAccount, Controller::Memory, Controller::Pids, Controller::Io];
        Group {
            tracking: tree(folder.to_path_buf()),
            controllers: all.map(|controller| (controller, tree(folder.to_path_buf()))).into(),
            folders: vec![folder.to_path_buf()],
            leftovers: Vec::new(),
            disk: Some("8:0".to_owned()),
        }
    }

    fn shown(folder: &Path, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| fs::read_to_string(folder.join(name)).unwrap()).collect()
    }

    #[test]
    fn limits_are_written_in_the_words_of_each_version() {
        let folder = tempfile::tempdir().unwrap();
        let v2 = group(folder.path(), Tree::V2);
        let names = ["cpu.max", "memory.max", "memory.swap.max", "pids.max"];
        v2.limit(&limits(Some(250), Some(64), Some(10))).unwrap();
        assert_eq!(shown(folder.path(), &names), ["25000 100000", "67108864", "0", "10"]);
        v2.limit(&limits(None, None, None)).unwrap();
        assert_eq!(shown(folder.path(), &names), ["max 100000", "max", "max", "max"]);
        let slow =
            Limits { memory_high: Some(MemoryMib(1)), io_read: Some(5), io_write: None, ..Limits::default() };
        v2.limit(&slow).unwrap();
        assert_eq!(shown(folder.path(), &["memory.high", "io.max"]), ["1048576", "8:0 rbps=5 wbps=max"]);
        let v1 = group(folder.path(), Tree::V1);
        let names = ["cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.limit_in_bytes", "pids.max"];
        v1.limit(&limits(Some(1_500), Some(1), None)).unwrap();
        assert_eq!(shown(folder.path(), &names), ["150000", "100000", "1048576", "max"]);
        v1.limit(&limits(None, None, Some(3))).unwrap();
        assert_eq!(shown(folder.path(), &names), ["-1", "100000", "-1", "3"]);
    }

    #[test]
    fn use_and_kills_are_read_from_version_2() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cpu.stat", "usage_usec 2000000\nuser_usec 1\n"),
            ("memory.current", "52428800\n"),
            ("memory.stat", "anon 1\ninactive_file 10485760\n"),
            ("memory.events", "low 0\nmax 9\noom 2\noom_kill 1\n"),
            ("pids.current", "7\n"),
            ("cgroup.procs", "12\n34\n"),
            ("io.stat", "8:0 rbytes=1024 wbytes=512 rios=1\n8:16 rbytes=1024 wbytes=0\n"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let group = group(folder.path(), Tree::V2);
        assert_eq!((group.members(), group.memory_kills()), (vec![12, 34], 1));
        let before = Reading { at: BootMs(1_000), used_us: 1_500_000, ..Reading::default() };
        let usage = group.usage(Some(before), group.read(None, BootMs(2_000)));
        let wanted = InstanceUsage {
            cpu: CpuMillis(500),
            memory: MemoryMib(40),
            tasks: 7,
            io_read_bps: 2_048,
            io_write_bps: 512,
            ..InstanceUsage::default()
        };
        assert_eq!(usage, wanted);
    }
}

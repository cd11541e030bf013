//! One instance's control group, in all trees it lies in: who is in it, what it may use, what it used,
//! and the two ways to end everything in it. Does not know which instance it belongs to.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use quorate_core::observation::InstanceUsage;
use quorate_core::spec::ProcessWorkload;
use quorate_core::units::{BootMs, CpuMillis, MemoryMib};

use super::cgroup::{Controller, Tree};
use super::signal;

/// One group.
#[derive(Debug, Clone)]
pub struct Group {
    pub(super) tracking: Tree,
    pub(super) controllers: BTreeMap<Controller, Tree>,
    pub(super) folders: Vec<PathBuf>,
}

/// A reading of processor time, to tell use from one to the next.
#[derive(Debug, Clone, Copy)]
pub struct CpuReading {
    /// When.
    pub at: BootMs,
    /// Microseconds used so far.
    pub used_us: u64,
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
    pub fn limit(&self, process: &ProcessWorkload) -> io::Result<()> {
        const PERIOD_US: u64 = 100_000;
        let quota = process.cpu_limit.map(|cpu| (u64::from(cpu.0) * PERIOD_US / 1_000).max(1_000));
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
        self.limit_memory(process.memory_limit)?;
        let most = process.pids_limit.map_or_else(|| "max".to_owned(), |most| most.to_string());
        match self.controllers.get(&Controller::Pids) {
            Some(Tree::V1(folder) | Tree::V2(folder)) => set(folder, "pids.max", &most),
            None => Ok(()),
        }
    }

    fn limit_memory(&self, limit: Option<MemoryMib>) -> io::Result<()> {
        let bytes = limit.map(|limit| limit.0.saturating_mul(1 << 20).to_string());
        match self.controllers.get(&Controller::Memory) {
            Some(Tree::V2(folder)) => {
                set(folder, "memory.max", bytes.as_deref().unwrap_or("max"))?;
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

    /// Processes in it; zombies are not listed by the kernel.
    pub fn members(&self) -> Vec<u32> {
        let (Tree::V1(folder) | Tree::V2(folder)) = &self.tracking;
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
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

    /// Frozen, nothing can fork away from the signals, which take effect with the thaw.
    fn kill_frozen(&self, switch: &Path, freeze: &str, thaw: &str) {
        let _ = fs::write(switch, freeze);
        for pid in self.members() {
            signal::send(pid, libc::SIGKILL);
        }
        let _ = fs::write(switch, thaw);
    }

    /// Kills by the kernel for memory so far.
    pub fn memory_kills(&self) -> u64 {
        match self.controllers.get(&Controller::Memory) {
            Some(Tree::V2(folder)) => field(folder, "memory.events", "oom_kill"),
            Some(Tree::V1(folder)) => field(folder, "memory.oom_control", "oom_kill"),
            None => 0,
        }
    }

    /// Processor time so far.
    pub fn cpu(&self, now: BootMs) -> Option<CpuReading> {
        let used_us = match self.controllers.get(&Controller::CpuAccount)? {
            Tree::V2(folder) => field(folder, "cpu.stat", "usage_usec"),
            Tree::V1(folder) => number(folder, "cpuacct.usage")? / 1_000,
        };
        Some(CpuReading { at: now, used_us })
    }

    /// What it uses now, with processor time taken since an earlier reading.
    pub fn usage(&self, before: Option<CpuReading>, now: Option<CpuReading>) -> InstanceUsage {
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
        }
    }

    /// Removes its folders; fails silently while a process is left in one.
    pub fn remove(&self) {
        for folder in &self.folders {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Mean use between two readings.
pub fn cpu_between(before: Option<CpuReading>, now: Option<CpuReading>) -> CpuMillis {
    let (Some(before), Some(now)) = (before, now) else { return CpuMillis(0) };
    let passed_ms = now.at.since(before.at).0.max(1);
    let used_us = now.used_us.saturating_sub(before.used_us);
    // Microseconds of use in a millisecond are thousandths of one core.
    CpuMillis(u32::try_from(used_us / passed_ms).unwrap_or(u32::MAX))
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

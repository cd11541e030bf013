//! The host's load: processors, memory, network, and the file system that holds the data directory.
//! Cheap enough for once a second; does not know who looks.

use std::path::PathBuf;

use anyhow::Context;
use quorate_core::observation::NodeUsage;
use quorate_core::units::{BootMs, CpuMillis, MemoryMib};
use sysinfo::{Networks, System};

use crate::host::boot_now;

/// Samples one host. Rates are taken between two samples, so the first one has none.
#[derive(Debug)]
pub struct HostProbe {
    system: System,
    networks: Networks,
    data: PathBuf,
    last: Option<BootMs>,
}

impl HostProbe {
    /// For the host of this data directory.
    pub fn new(data: PathBuf) -> anyhow::Result<Self> {
        let system = System::new()?;
        let networks = Networks::new_with_refreshed_list()?;
        let mut probe = Self { system, networks, data, last: None };
        probe.sample().context("cannot read the host's load")?;
        Ok(probe)
    }

    /// The load now.
    pub fn sample(&mut self) -> anyhow::Result<NodeUsage> {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.networks.refresh(true);
        let now = boot_now();
        let passed_ms = self.last.replace(now).map_or(0, |last| now.since(last).0);
        let rate = |bytes: u64| bytes.saturating_mul(1_000).checked_div(passed_ms).unwrap_or(0);
        let cores = self.system.cpus().len() as u32;
        let share = f64::from(self.system.global_cpu_usage()).clamp(0.0, 100.0) / 100.0;
        let disk = rustix::fs::statvfs(&self.data)
            .with_context(|| format!("cannot look at the file system of {}", self.data.display()))?;
        let mib = |blocks: u64| MemoryMib(((u128::from(blocks) * u128::from(disk.f_frsize)) >> 20) as u64);
        let outside = || self.networks.iter().filter(|(name, _)| *name != "lo").map(|(_, data)| data);
        let total = self.system.total_memory();
        Ok(NodeUsage {
            cpu_total: CpuMillis(cores * 1_000),
            cpu_used: CpuMillis((f64::from(cores) * 1_000.0 * share).round() as u32),
            memory_total: MemoryMib(total >> 20),
            memory_used: MemoryMib(total.saturating_sub(self.system.available_memory()) >> 20),
            disk_total: mib(disk.f_blocks),
            disk_used: mib(disk.f_blocks.saturating_sub(disk.f_bavail)),
            load_centi: (System::load_average()?.one * 100.0).round() as u32,
            network_in_bps: rate(outside().map(|data| data.received()).sum()),
            network_out_bps: rate(outside().map(|data| data.transmitted()).sum()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    fn own_cpu() -> Duration {
        let used = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
    }

    #[test]
    fn a_sample_is_plausible_and_cheap() {
        let mut probe = HostProbe::new(std::env::temp_dir()).unwrap();
        let begun = Instant::now();
        // Something for it to see.
        while begun.elapsed() < Duration::from_millis(300) {
            std::hint::spin_loop();
        }
        let seen = probe.sample().unwrap();
        assert!(
            seen.cpu_total.0 >= 1_000 && seen.cpu_used.0 > 0 && seen.cpu_used <= seen.cpu_total,
            "{seen:?}"
        );
        assert!(seen.memory_used.0 > 0 && seen.memory_used < seen.memory_total, "{seen:?}");
        assert!(seen.disk_total.0 > 0 && seen.disk_used <= seen.disk_total, "{seen:?}");
        let before = own_cpu();
        for _ in 0..20 {
            probe.sample().unwrap();
        }
        let each = (own_cpu() - before) / 20;
        // A thousandth of a second each second, with room for unoptimised code.
        assert!(each < Duration::from_millis(5), "{each:?} for one sample");
    }
}

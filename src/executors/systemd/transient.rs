//! The properties of a unit that is made for one run, and what its failures mean in the description's words.

use std::collections::BTreeMap;

use quorate_core::effect::StartInstance;
use quorate_core::spec::{Limits, UnitSource, UnitWorkload};
use zbus::wire::Variant;

use crate::ports::Place;

/// Program, arguments, and how it is run.
type Commands<'a> = Vec<(&'a str, Vec<&'a str>, Vec<&'a str>)>;

/// What stands in a command stays as it is written: a dollar sign is the program's own matter.
const AS_WRITTEN: &str = "no-env-expand";

/// Where the journal takes output in, if one runs.
const JOURNAL: &str = "/run/systemd/journal/stdout";

/// Does a journal take output in on this host?
pub(super) fn journal_runs() -> bool {
    std::path::Path::new(JOURNAL).exists()
}

/// Everything that a unit is started with. Nothing in it starts it again, and it is gone once it was reset.
pub(super) fn properties<'a>(
    start: &'a StartInstance,
    unit: &'a UnitWorkload,
    place: &'a Place,
) -> Result<Vec<(&'static str, Variant<'a>)>, String> {
    let UnitSource::Transient { command, working_dir, user, .. } = &unit.source else {
        return Err("spec.unit: an existing unit is started as it is".to_owned());
    };
    let program = command.first().ok_or("spec.command: is empty; name a program")?;
    let commands: Commands<'a> =
        vec![(program, command.iter().map(String::as_str).collect(), vec![AS_WRITTEN])];
    let folder = working_dir.clone().unwrap_or_else(|| place.folder.display().to_string());
    let mut all = vec![
        ("Description", Variant::from(format!("Quorate instance {}", start.id))),
        // The job ends once the program runs, or says why it could not.
        ("Type", Variant::from("exec")),
        ("ExecStartEx", Variant::from(commands)),
        ("Environment", Variant::from(environment(&place.environment))),
        ("WorkingDirectory", Variant::from(folder)),
        ("Restart", Variant::from("no")),
        // Its end stays to be read until it was taken in.
        ("RemainAfterExit", Variant::from(true)),
        ("KillSignal", Variant::from(start.spec.stop.signal)),
        ("TimeoutStopUSec", Variant::from(start.spec.stop.grace.0.saturating_mul(1_000))),
        ("OOMPolicy", Variant::from("kill")),
        ("CPUAccounting", Variant::from(true)),
        ("MemoryAccounting", Variant::from(true)),
        ("TasksAccounting", Variant::from(true)),
        ("IOAccounting", Variant::from(true)),
    ];
    if let Some(slice) = place.group.as_deref().and_then(|group| group.rsplit('/').next()) {
        all.push(("Slice", Variant::from(slice)));
    }
    if let Some(user) = user {
        all.push(("User", Variant::from(user.as_str())));
    }
    if journal_runs() {
        all.push(("StandardOutput", Variant::from("journal")));
        all.push(("StandardError", Variant::from("journal")));
        all.push(("SyslogIdentifier", Variant::from(start.id.slot.to_string())));
    } else {
        let file = place.logs.join("current").display().to_string();
        all.push(("StandardOutputFileToAppend", Variant::from(file.clone())));
        all.push(("StandardErrorFileToAppend", Variant::from(file)));
    }
    limit(&mut all, &unit.limits, place);
    Ok(all)
}

fn environment(variables: &BTreeMap<String, String>) -> Vec<String> {
    variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn limit(all: &mut Vec<(&'static str, Variant<'_>)>, limits: &Limits, place: &Place) {
    let bytes = |mib: u64| mib.saturating_mul(1 << 20);
    if let Some(cpu) = limits.cpu {
        // Thousandths of a second, each second.
        all.push(("CPUQuotaPerSecUSec", Variant::from(u64::from(cpu.0) * 1_000)));
    }
    if let Some(memory) = limits.memory {
        all.push(("MemoryMax", Variant::from(bytes(memory.0))));
        all.push(("MemorySwapMax", Variant::from(0_u64)));
    }
    if let Some(memory) = limits.memory_high {
        all.push(("MemoryHigh", Variant::from(bytes(memory.0))));
    }
    if let Some(pids) = limits.pids {
        all.push(("TasksMax", Variant::from(u64::from(pids))));
    }
    // Any path on a disk stands for that disk.
    let disk = || place.folder.display().to_string();
    if let Some(rate) = limits.io_read {
        all.push(("IOReadBandwidthMax", Variant::from(vec![(disk(), rate)])));
    }
    if let Some(rate) = limits.io_write {
        all.push(("IOWriteBandwidthMax", Variant::from(vec![(disk(), rate)])));
    }
}

/// Exit statuses that the manager itself gives a process whose program it could not run.
pub(super) const START_FAILURES: std::ops::RangeInclusive<i32> = 200..=245;

/// What a unit that failed before its program ran says by its exit status, after systemd.exec(5).
pub(super) fn start_failure(status: i32, unit: &UnitWorkload) -> String {
    let UnitSource::Transient { command, working_dir, user, .. } = &unit.source else {
        return format!("spec.unit: it failed at its start with status {status}; see its journal");
    };
    let program = command.first().map(String::as_str).unwrap_or_default();
    match status {
        200 => format!("spec.working_dir: cannot enter {}", working_dir.as_deref().unwrap_or("its folder")),
        203 => format!("spec.command: cannot run {program:?}; it is not there or not executable"),
        216 | 217 => format!("spec.user: cannot become {}", user.as_deref().unwrap_or("root")),
        209 => "its output could not be opened".to_owned(),
        219 => "its control group could not be entered".to_owned(),
        other => format!("it failed at its start with status {other}; see its journal"),
    }
}

//! What an engine has of this node's: listed each time, and asked after one by one only where that may tell
//! something new.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use quorate_core::observation::{Health, InstanceUsage};
use quorate_core::units::{BootMs, CpuMillis, MemoryMib};
use serde::Deserialize;

use super::access::Reached;
use super::names::{OWNER, UNENFORCED, run_of};
use super::plain::{self, Refused, escaped};
use super::words;
use crate::host::{ProcessStat, boot_now, process_ids, resident_kib};
use crate::ports::{EngineExit, Found, FoundStage, RunId};

/// A container in a list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
}

/// A container that was asked after.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub(super) state: State,
}

/// How far a container is.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct State {
    pub(super) status: String,
    pub(super) pid: u32,
    exit_code: i32,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    error: Option<String>,
    started_at: String,
    health: Option<Checked>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Checked {
    status: String,
    log: Option<Vec<Probe>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Probe {
    output: String,
}

/// Asks after one container, by name or id.
pub(super) async fn inspect(socket: &Path, which: &str) -> Result<Inspected, Refused> {
    plain::get(socket, &format!("/containers/{}/json", escaped(which))).await
}

impl State {
    /// Was it ever started?
    fn started(&self) -> bool {
        !(self.started_at.is_empty() || self.started_at.starts_with("0001-"))
    }

    /// How far it is; none for one that is being taken away.
    pub(super) fn stage(&self) -> Option<FoundStage> {
        match self.status.as_str() {
            "running" | "paused" | "stopping" if self.pid > 0 => Some(FoundStage::Running(self.pid)),
            "exited" | "stopped" | "dead" | "stopping" if self.started() => {
                Some(FoundStage::Exited(self.exit()))
            }
            "created" | "configured" | "initialized" | "exited" | "dead" => Some(FoundStage::Made),
            _ => None,
        }
    }

    /// A runtime tells of a signal by a code above 128.
    fn exit(&self) -> EngineExit {
        let signal = Some(self.exit_code - 128).filter(|signal| (1..=31).contains(signal));
        let code = Some(self.exit_code).filter(|code| signal.is_none() && *code >= 0);
        EngineExit { code, signal, oom: self.oom_killed }
    }

    /// What it says itself of a start that failed.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref().filter(|words| !words.is_empty())
    }

    fn health(&self) -> Option<(Health, String)> {
        let checked = self.health.as_ref()?;
        let last = checked.log.as_ref().and_then(|log| log.last());
        let words = last.map_or_else(String::new, |probe| words::cut(probe.output.as_bytes()));
        match checked.status.as_str() {
            "starting" => Some((Health::Starting, words)),
            "healthy" => Some((Health::Healthy, words)),
            "unhealthy" => Some((Health::Unhealthy, words)),
            _ => None,
        }
    }
}

/// What was found, and by what it is known to be still so.
struct Known {
    state: String,
    health: String,
    main: Option<(u32, u64)>,
    found: Found,
}

/// Processor time of a run at a reading.
type Reading = (BootMs, u64);

/// What was found before.
#[derive(Default)]
pub(super) struct Memory {
    known: HashMap<String, Known>,
    readings: BTreeMap<RunId, Reading>,
    /// What the engine said as it made a run, by its run.
    pub(super) warnings: BTreeMap<RunId, Vec<String>>,
}

/// Everything of an owner.
pub(super) async fn all(reached: &Reached, owner: &str, memory: &mut Memory) -> Result<Vec<Found>, String> {
    let filters = serde_json::json!({"label": [format!("{OWNER}={owner}")]}).to_string();
    let path = format!("/containers/json?all=true&filters={}", escaped(&filters));
    let listed: Vec<Listed> = plain::get(&reached.socket, &path).await.map_err(Refused::words)?;
    let (mut all, mut kept) = (Vec::new(), HashMap::new());
    for one in listed {
        let labels = one.labels.unwrap_or_default();
        let Some(run) = run_of(&labels) else { continue };
        let health = one.status.rsplit_once('(').map_or("", |(_, health)| health).to_owned();
        if let Some(known) = memory.known.remove(&one.id)
            && known.state == one.state
            && (known.health == health || known.main.is_none())
            && known.main.is_none_or(|(pid, since)| {
                ProcessStat::read(pid).is_some_and(|stat| stat.start_time == since && !stat.dead())
            })
        {
            all.push(known.found.clone());
            kept.insert(one.id, known);
            continue;
        }
        let inspected = match inspect(&reached.socket, &one.id).await {
            Ok(inspected) => inspected,
            Err(Refused::Missing) => continue,
            Err(Refused::Other(why)) => return Err(why),
        };
        let Some(stage) = inspected.state.stage() else { continue };
        let mut unenforced: Vec<String> =
            labels.get(UNENFORCED).iter().flat_map(|all| all.split(',')).map(str::to_owned).collect();
        unenforced.extend(memory.warnings.get(&run).into_iter().flatten().cloned());
        let found = Found { run, stage, health: inspected.state.health(), usage: None, unenforced };
        let main = match found.stage {
            FoundStage::Running(pid) => ProcessStat::read(pid).map(|stat| (pid, stat.start_time)),
            FoundStage::Made | FoundStage::Held(_) | FoundStage::Exited(_) => None,
        };
        // A check of Podman's own does not show in its list, and what is neither running nor over changes soon.
        let settled = match found.stage {
            FoundStage::Running(_) => main.is_some() && (found.health.is_none() || !health.is_empty()),
            FoundStage::Exited(_) => true,
            FoundStage::Made | FoundStage::Held(_) => false,
        };
        all.push(found.clone());
        if settled && inspected.state.status == one.state {
            kept.insert(one.id, Known { state: one.state, health, main, found });
        }
    }
    memory.known = kept;
    memory.warnings.retain(|run, _| all.iter().any(|one| one.run == *run));
    if reached.rootless.is_some() {
        measure(&mut all, &mut memory.readings);
    }
    Ok(all)
}

/// Fills in the use of runs that are in no group of the guard: of every process in their process namespace.
fn measure(all: &mut [Found], readings: &mut BTreeMap<RunId, Reading>) {
    let space = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let mut spaces: HashMap<_, (u64, u64, u32)> = HashMap::new();
    let mains: Vec<_> = all
        .iter()
        .map(|one| match one.stage {
            FoundStage::Running(pid) => space(pid),
            FoundStage::Made | FoundStage::Held(_) | FoundStage::Exited(_) => None,
        })
        .collect();
    let wanted: HashSet<_> = mains.iter().flatten().cloned().collect();
    if !wanted.is_empty() {
        for pid in process_ids() {
            let Some(space) = space(pid).filter(|space| wanted.contains(space)) else { continue };
            let Some(stat) = ProcessStat::read(pid) else { continue };
            let sum = spaces.entry(space).or_default();
            sum.0 += stat.cpu_ticks;
            sum.1 += resident_kib(pid).unwrap_or(0);
            sum.2 += stat.threads;
        }
    }
    let now = boot_now();
    let mut kept = BTreeMap::new();
    for (one, space) in all.iter_mut().zip(mains) {
        let Some((ticks, kib, tasks)) = space.and_then(|space| spaces.get(&space).copied()) else { continue };
        let cpu = readings.get(&one.run).map_or(0, |(at, before)| {
            // A tick is ten milliseconds, a thousandth of a core a microsecond in each of them.
            ticks.saturating_sub(*before) * 10_000 / now.since(*at).0.max(1)
        });
        one.usage = Some(InstanceUsage {
            cpu: CpuMillis(u32::try_from(cpu).unwrap_or(u32::MAX)),
            memory: MemoryMib(kib.div_ceil(1 << 10)),
            tasks,
            ..InstanceUsage::default()
        });
        kept.insert(one.run.clone(), (now, ticks));
    }
    *readings = kept;
}

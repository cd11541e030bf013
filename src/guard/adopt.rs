//! Opening the guard: what an earlier one left running is taken over, found by process id, start time and
//! boot; what nobody answers for is killed. Stored deadlines are enforced before anybody is listened to.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context;
use quorate_core::ids::SlotId;
use quorate_core::observation::Unavailable;
use quorate_core::spec::ExecutorKind;
use quorate_core::units::BootMs;

use super::cgroup::{Cgroups, Track};
use super::disk::Disk;
use super::group::Group;
use super::journal::Journal;
use super::keeper::{Keeper, Slot};
use super::records::{RunRecord, Runs, Slots, make_private};
use super::run::{RawExit, Run};
use super::second::Second;
use crate::host::{ProcessStat, boot_id, boot_now, process_ids};
use crate::layout::{GroupNames, Layout, guard_name};
use crate::logs::LogPolicy;

/// The groups of the holders beside those of the instances: the guard's and its twin's.
pub const OWN_GROUPS: [&str; 2] = ["guard", "twin"];

/// What a guard is to be like.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// What finds and ends an instance's processes.
    pub track: Track,
    /// How much output is kept.
    pub logs: LogPolicy,
    /// Reset the host when a kill takes too long?
    pub reset: bool,
    /// Nothing will run here: no second holder is needed.
    pub alone: bool,
}

/// The control groups of a data directory's guard, which its twin finds in the same places.
pub fn cgroups(layout: &Layout, track: Track) -> Cgroups {
    let names = GroupNames::new(guard_name(layout.root()));
    Cgroups::detect(names, crate::host::disk_of(layout.root()), track)
}

/// Why there is no second holder, if so.
fn no_twin(wanted: &Wanted, cgroups: &Cgroups) -> Option<Unavailable> {
    let (why, remedy) = if wanted.alone {
        ("nothing runs here, so no second holder of deadlines is kept", "nothing is to be done")
    } else if cgroups.tracking.is_none() {
        (
            "no control groups can be made here: instances are killed by process group, which they can leave",
            "run the node as root on a host with control groups",
        )
    } else {
        return None;
    };
    Some(Unavailable { why: why.to_owned(), remedy: remedy.to_owned() })
}

impl Keeper {
    /// Opens everything and takes over what runs.
    pub fn open(layout: Layout, wanted: Wanted, journal: Journal) -> anyhow::Result<Self> {
        let boot = boot_id().context("cannot tell which boot this is")?;
        let name = guard_name(layout.root());
        let cgroups = cgroups(&layout, wanted.track);
        cgroups.enter(OWN_GROUPS[0]);
        let impossible = no_twin(&wanted, &cgroups);
        let slots = Slots::open(layout.guard().join("slots"))?;
        let records = slots.load()?;
        let runs = Runs::open(&runs_folder(&layout, &name), &boot)?;
        let mut keeper = Self {
            lease: runs.load_lease(),
            disk: Disk::spawn(slots, layout.clone(), journal.clone())?,
            layout,
            boot,
            node: None,
            cgroups,
            runs,
            journal,
            logs: wanted.logs,
            slots: records
                .into_iter()
                .map(|(id, record)| (id, Slot { kept: record.highest, record, ..Slot::default() }))
                .collect(),
            strays: Vec::new(),
            answers: Vec::new(),
            changed: false,
            second: Second::new(impossible),
            reset: wanted.reset,
            launching: 0,
            served: false,
            next_ticket: 0,
            next_round: BootMs(0),
        };
        keeper.adopt()?;
        keeper.tick();
        Ok(keeper)
    }

    fn adopt(&mut self) -> anyhow::Result<()> {
        let (records, broken) = self.runs.load()?;
        for error in broken {
            self.journal.write(&error);
        }
        for record in records {
            let id = record.start.id.slot.clone();
            let group = self.cgroups.group(&id, record.placing.slice)?;
            self.take_over(id, record, group);
        }
        let owned: BTreeSet<(SlotId, bool)> = self
            .slots
            .iter()
            .filter_map(|(id, slot)| Some((id.clone(), slot.run.as_ref()?.record.placing.slice)))
            .collect();
        for (slot, slice) in self.cgroups.slots() {
            if !owned.contains(&(slot.clone(), slice))
                && let Some(group) = self.cgroups.group(&slot, slice)?
            {
                if !group.members().is_empty() {
                    self.journal.write(&format!("{slot}: runs without a record and is killed"));
                }
                self.strays.push(group);
            }
        }
        Ok(())
    }

    fn take_over(&mut self, id: SlotId, mut record: RunRecord, group: Option<Group>) {
        self.node = Some(record.node.clone());
        let driven = record.start.spec.workload.executor() != ExecutorKind::Process;
        if record.pid.is_none()
            && !driven
            && let Some((pid, stat)) = find_main(&record, group.as_ref())
        {
            record.pid = Some(pid);
            record.start_time = stat.start_time;
            let _ = self.runs.save(&record);
        }
        let token = record.start.id.token;
        if let Some(why) = &record.placing.beyond {
            self.second.give_up(&id, why, boot_now());
        }
        let mut run = Run::new(record, group, false);
        // What an engine was handed is not known to have begun: the node asks the engine.
        if run.begun() && !run.main_alive() {
            run.exit = Some(RawExit::Untold);
        }
        let word = if run.exit.is_none() { "taken over" } else { "was gone" };
        self.journal.write(&format!("{}: {word}", run.record.start.id));
        let slot = self.slots.entry(id).or_default();
        // A disk wiped under a running instance: its token was accepted here, so it still counts.
        if slot.record.highest < token {
            slot.record.highest = token;
        }
        slot.run = Some(run);
    }

    /// Leaves nothing behind that an ended guard would not need: call it only when nothing runs.
    pub fn close_down(&self) {
        self.runs.clear();
        self.cgroups.remove(&OWN_GROUPS);
    }
}

/// The main process of a run whose guard died between the fork and writing it down.
fn find_main(record: &RunRecord, group: Option<&Group>) -> Option<(u32, ProcessStat)> {
    let candidates = group.map_or_else(process_ids, Group::members);
    let name = format!("QUORATE_INSTANCE={}", record.start.id);
    candidates.into_iter().find_map(|pid| {
        let stat = ProcessStat::read(pid).filter(|stat| stat.session == pid && !stat.dead())?;
        super::run::carries(pid, &name).then_some((pid, stat))
    })
}

/// Below /run for root, since it ends with the boot; else in the data directory, tagged with the boot.
pub fn runs_folder(layout: &Layout, name: &str) -> PathBuf {
    let run = PathBuf::from("/run/quorate").join(name);
    if rustix::process::getuid().is_root() && make_private(&run).is_ok() {
        return run;
    }
    layout.guard().join("runs")
}

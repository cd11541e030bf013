//! The guard's knowledge as observations.

use std::collections::BTreeMap;

use quorate_core::ids::SlotId;
use quorate_core::observation::{
    ExecutorFact, Health, InstancePhase, InstanceReport, InstanceUsage, SlotReport,
};
use quorate_core::spec::ExecutorKind;
use quorate_core::units::{BootMs, Millis};

use super::keeper::{Act, Keeper, Slot};
use crate::host::wall_now;

impl Keeper {
    /// Every slot. Only tokens that are on disk are told.
    pub fn inventory(&mut self, now: BootMs) -> BTreeMap<SlotId, SlotReport> {
        let Self { slots, cgroups, boot, second, .. } = self;
        slots
            .iter_mut()
            .filter(|(_, slot)| slot.known())
            .map(|(id, slot)| {
                let last_exit = slot.record.last_exit.clone();
                let instance = if let Some(run) = slot.run.as_mut() {
                    let record = &run.record;
                    let limits = record.start.spec.workload.limits();
                    Some(InstanceReport {
                        id: record.start.id.clone(),
                        spec: record.start.spec.run_digest(),
                        phase: match &record.ending {
                            None if !run.begun() => InstancePhase::Starting,
                            None => InstancePhase::Running,
                            Some(_) => InstancePhase::Stopping,
                        },
                        pid: record.pid,
                        started_at: record.started_at,
                        since: now.since(record.started),
                        ran: slot.record.last_ran,
                        restarts: record.start.restart,
                        health: Health::Unchecked,
                        health_detail: String::new(),
                        unenforced: if run.driven() { Vec::new() } else { cgroups.unenforced(&limits) },
                        armed: run.group.is_some() && run.begun() && second.arms(id, now),
                        last_exit,
                        usage: run.usage(now),
                    })
                } else {
                    starting(slot).or_else(|| ended(slot, boot, now))
                };
                (id.clone(), SlotReport { highest: slot.kept, instance })
            })
            .collect()
    }

    /// What this host can do for native processes.
    pub fn facts(&self) -> ExecutorFact {
        let version = rustix::system::uname().release().to_string_lossy().into_owned();
        ExecutorFact {
            kind: ExecutorKind::Process,
            version,
            capabilities: self.cgroups.capabilities(),
            unavailable: None,
        }
    }
}

fn starting(slot: &Slot) -> Option<InstanceReport> {
    let (_, _, Act::Start(start) | Act::Admit(start, _)) = slot.raising.as_ref()? else { return None };
    Some(InstanceReport {
        id: start.id.clone(),
        spec: start.spec.run_digest(),
        phase: InstancePhase::Starting,
        pid: None,
        started_at: wall_now(),
        since: Millis(0),
        ran: slot.record.last_ran,
        restarts: start.restart,
        health: Health::Unchecked,
        health_detail: String::new(),
        usage: InstanceUsage::default(),
        last_exit: slot.record.last_exit.clone(),
        unenforced: Vec::new(),
        armed: false,
    })
}

/// A run of an earlier boot is not this host's any more: its claim ends by the new boot.
fn ended(slot: &Slot, boot: &quorate_core::ids::BootId, now: BootMs) -> Option<InstanceReport> {
    let ended = slot.record.ended.as_ref().filter(|ended| ended.boot == *boot)?;
    Some(InstanceReport {
        id: ended.id.clone(),
        spec: 0,
        phase: match &ended.outcome {
            Ok(reason) => InstancePhase::Exited(reason.clone()),
            Err(why) => InstancePhase::StartFailed(why.clone()),
        },
        pid: None,
        started_at: ended.started_at,
        since: now.since(ended.ended),
        ran: slot.record.last_ran,
        restarts: ended.restart,
        health: Health::Unchecked,
        health_detail: String::new(),
        usage: InstanceUsage::default(),
        last_exit: ended.before.clone(),
        unenforced: Vec::new(),
        armed: false,
    })
}

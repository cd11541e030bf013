//! One running instance as the guard holds it: its processes, how it is ended, what it left behind.
//! Does not know tokens or leases.

use std::os::fd::OwnedFd;

use quorate_core::effect::StartInstance;
use quorate_core::observation::{ExitKind, ExitReason, InstanceUsage};
use quorate_core::spec::{ExecutorKind, UnitSource, UnitWorkload, Workload};
use quorate_core::units::{BootMs, CpuMillis, MemoryMib, Millis};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::group::{Group, Reading, cpu_between};
use super::keeper::ReplyTo;
use super::launch::Prepared;
use super::records::{Ending, RunRecord};
use super::signal;
use crate::host::{ProcessStat, process_ids, resident_kib};
use crate::ports::{EngineEnd, EngineExit};

/// How a main process ended, as the kernel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawExit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody was there to be told.
    Untold,
}

/// How far a start has come.
#[derive(Debug)]
pub enum Stage {
    /// Nothing is begun before every holder has its deadline.
    Gate {
        /// The second holder's answer that is waited for; 0 where there is nobody to ask.
        number: u64,
        /// What the start needs.
        prepared: Box<Prepared>,
        /// Who asked.
        to: ReplyTo,
    },
    /// Being begun, by somebody who may hang. From here on processes may arrive in its group.
    Launching {
        /// Which launch.
        ticket: u64,
        /// Who asked.
        to: ReplyTo,
    },
    /// Being begun by an engine, which may hang or be gone: whoever arrives too late is killed.
    Handed,
    /// Begun.
    Begun,
}

/// A run.
#[derive(Debug)]
pub struct Run {
    /// As kept for the next guard.
    pub record: RunRecord,
    /// Its control group, where there are any.
    pub group: Option<Group>,
    /// How far its start has come.
    pub stage: Stage,
    /// Set once its main process is gone.
    pub exit: Option<RawExit>,
    /// Readable once the main process is gone.
    pub watch: Option<OwnedFd>,
    /// Is it this guard's child? Then the kernel tells how it ended.
    pub own: bool,
    /// Has the end of the lease been seen to?
    pub expired: bool,
    /// Was the main process alive when all was killed?
    pub killed: bool,
    /// What is to be started once this is gone.
    pub then: Option<StartInstance>,
    /// What its engine said of its end.
    pub told: Option<EngineEnd>,
    /// Since when its main process is gone and its engine owes word of how it ended.
    pub owed: Option<BootMs>,
    /// The last reading, and use since the one before it.
    reading: Option<Reading>,
    usage: InstanceUsage,
    /// Kills for memory that were seen: an engine's group is gone with what it counted.
    memory_kills: u64,
}

impl Run {
    /// Takes hold of a main process.
    pub fn new(record: RunRecord, group: Option<Group>, own: bool) -> Self {
        let watch = record.pid.and_then(open_watch);
        let driven = record.start.spec.workload.executor() != ExecutorKind::Process;
        Self {
            stage: if driven && record.pid.is_none() { Stage::Handed } else { Stage::Begun },
            own: own && !driven,
            record,
            group,
            exit: None,
            watch,
            expired: false,
            killed: false,
            then: None,
            told: None,
            owed: None,
            reading: None,
            usage: InstanceUsage::default(),
            memory_kills: 0,
        }
    }

    /// Does an engine start it, and tell of its end?
    pub fn driven(&self) -> bool {
        self.record.start.spec.workload.executor() != ExecutorKind::Process
    }

    /// Is nobody at work on its start any more?
    pub fn begun(&self) -> bool {
        matches!(self.stage, Stage::Begun)
    }

    /// Its main process is there.
    pub fn begin(&mut self, pid: u32) {
        self.stage = Stage::Begun;
        self.record.pid = Some(pid);
        self.record.start_time = ProcessStat::read(pid).map_or(0, |stat| stat.start_time);
        self.watch = open_watch(pid);
    }

    /// Is its main process the one it was started as? A process id alone may be another's by now.
    pub fn main_alive(&self) -> bool {
        self.record.pid.is_some_and(|pid| {
            ProcessStat::read(pid)
                .is_some_and(|stat| stat.start_time == self.record.start_time && !stat.dead())
        })
    }

    /// Everything of it that still runs.
    pub fn members(&self) -> Vec<u32> {
        let mut all = match &self.group {
            Some(group) => group.members(),
            None if self.driven() => Vec::new(),
            None => self.members_without_group(),
        };
        // An engine's may be in a group of the engine's own.
        if let Some(main) =
            self.record.pid.filter(|main| self.driven() && !all.contains(main) && self.main_alive())
        {
            all.push(main);
        }
        all
    }

    /// Without a control group: its session, and whoever still carries its name in the environment.
    fn members_without_group(&self) -> Vec<u32> {
        let Some(main) = self.record.pid else { return Vec::new() };
        let name = format!("QUORATE_INSTANCE={}", self.record.start.id);
        let belongs = |pid: &u32| {
            let Some(stat) = ProcessStat::read(*pid) else { return false };
            if stat.dead() || stat.start_time < self.record.start_time {
                return false;
            }
            stat.session == main || stat.group == main || carries(*pid, &name)
        };
        process_ids().into_iter().filter(belongs).collect()
    }

    /// Asks it to end: the signal to its process group, and a time at which all of it is killed.
    pub fn ask_to_end(&mut self, kind: ExitKind, signal: i32, grace: Millis, now: BootMs) {
        self.record.ending = Some(Ending { kind, kill_at: now + grace });
        let main = self.record.pid.filter(|_| grace.0 > 0 && self.main_alive());
        match (main, &self.record.start.spec.workload) {
            (None, _) => {}
            (Some(main), Workload::Process(_)) => signal::send_to_group(main, signal),
            // A unit of the host has a way of its own to stop, which its engine takes.
            (Some(_), Workload::Unit(UnitWorkload { source: UnitSource::Existing(_), .. })) => {}
            // The main process of a container or unit ends the rest, or the engine does.
            (Some(main), Workload::Container(_) | Workload::Unit(_)) => signal::send(main, signal),
            // A signal would take the machine's power; its engine asks the guest.
            (Some(_), Workload::Machine(_)) => {}
        }
    }

    /// Kills all of it. Repeated until nothing is left.
    pub fn kill(&mut self) {
        self.killed |= self.exit.is_none();
        match &self.group {
            Some(group) if self.begun() => group.kill(),
            Some(group) => group.kill_and_bar(),
            None => {}
        }
        if self.group.is_none() || self.driven() {
            for pid in self.members() {
                signal::send(pid, libc::SIGKILL);
            }
        }
    }

    /// Its main process is gone; how is told by its engine, if at all.
    pub fn ended_untold(&mut self) {
        self.exit = Some(match &self.told {
            Some(EngineEnd::Exited(EngineExit { code: _, signal: Some(signal), .. })) => {
                RawExit::Signal(*signal)
            }
            Some(EngineEnd::Exited(EngineExit { code: Some(code), signal: None, .. })) => {
                RawExit::Code(*code)
            }
            _ => RawExit::Untold,
        });
    }

    /// Looks for kills by the kernel while the groups that count them are there.
    pub fn note_memory_kills(&mut self) {
        self.memory_kills = self.memory_kills.max(self.group.as_ref().map_or(0, Group::memory_kills));
    }

    /// What the end is called, once all is gone.
    pub fn reason(&self) -> ExitReason {
        let (code, signal) = match self.exit.unwrap_or(RawExit::Untold) {
            RawExit::Code(code) => (Some(code), None),
            RawExit::Signal(signal) => (None, Some(signal)),
            RawExit::Untold => (None, None),
        };
        let memory_kills = self.group.as_ref().map_or(0, Group::memory_kills).max(self.memory_kills);
        let kind = match &self.record.ending {
            Some(ending) if ending.kind == ExitKind::Stopped && self.killed => ExitKind::Killed,
            Some(ending) => ending.kind,
            None if (memory_kills > self.record.memory_kills || self.told_oom()) && code != Some(0) => {
                ExitKind::OutOfMemory
            }
            None => match (code, signal) {
                (Some(0), _) => ExitKind::Completed,
                (Some(_), _) => ExitKind::Failed,
                (None, Some(_)) => ExitKind::Signaled,
                (None, None) => ExitKind::Lost,
            },
        };
        ExitReason { kind, code, signal }
    }

    /// Did its engine see the kernel kill it over its memory limit, or did its group while nobody here killed it?
    fn told_oom(&self) -> bool {
        let hit = || self.group.as_ref().is_some_and(|group| group.memory_hits() > self.record.memory_hits);
        match &self.told {
            Some(EngineEnd::Exited(exit)) => exit.oom || (exit.signal == Some(libc::SIGKILL) && hit()),
            Some(EngineEnd::NotStarted(_)) | None => false,
        }
    }

    /// What it uses; processor time is measured anew at most twice a second.
    pub fn usage(&mut self, now: BootMs) -> InstanceUsage {
        if self.reading.is_some_and(|reading| now.since(reading.at).0 < 500) {
            return self.usage;
        }
        self.usage = match &self.group {
            Some(group) => {
                let reading = group.read(self.record.pid, now);
                let usage = group.usage(self.reading, reading);
                self.reading = reading;
                usage
            }
            None => self.usage_of_main(now),
        };
        self.usage
    }

    fn usage_of_main(&mut self, now: BootMs) -> InstanceUsage {
        let Some(stat) = self.record.pid.and_then(ProcessStat::read) else { return InstanceUsage::default() };
        // The unit of both is fixed on every machine that Rust's standard library runs on with Linux.
        let reading = Some(Reading { at: now, used_us: stat.cpu_ticks * 10_000, ..Reading::default() });
        let cpu: CpuMillis = cpu_between(self.reading, reading);
        self.reading = reading;
        let memory = MemoryMib(resident_kib(self.record.pid.unwrap_or(0)).unwrap_or(0).div_ceil(1 << 10));
        InstanceUsage { cpu, memory, tasks: stat.threads, ..InstanceUsage::default() }
    }
}

fn open_watch(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::NONBLOCK).ok()
}

/// Does a process bear this name among its arguments? An id alone may be another's by now.
pub(super) fn named(pid: u32, name: &str) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut parts = arguments.split(|byte| matches!(byte, 0 | b',' | b'='));
    parts.any(|part| part == name.as_bytes())
}

pub(super) fn carries(pid: u32, variable: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
}

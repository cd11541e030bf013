//! What the guard answers for: every slot's highest token and run, and the lease. Here each question is
//! judged; `advance` moves runs along, `adopt` takes them over, `report` tells of them.
//! Does not know sockets.

use std::collections::{BTreeMap, VecDeque};

use quorate_core::effect::{Isolation, StartInstance, StopInstance};
use quorate_core::ids::{BootId, NodeId, SlotId, Token};
use quorate_core::observation::ExitKind;
use quorate_core::units::{BootMs, Millis};

use super::cgroup::Cgroups;
use super::disk::{Disk, Job};
use super::group::Group;
use super::journal::Journal;
use super::launch::launch;
use super::logs::LogPolicy;
use super::protocol::{Answer, Ask};
use super::records::{Ended, HeldLease, RunRecord, Runs, SlotRecord};
use super::run::Run;
use crate::host::{ProcessStat, boot_now, wall_now};
use crate::layout::{Layout, slot_folder};
use crate::ports::ActError;

/// Slots beyond this are refused.
const MOST_SLOTS: usize = 20_000;

/// Whom an answer goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    /// Which connection.
    pub connection: u64,
    /// Which question on it.
    pub number: u64,
}

/// A start or stop.
#[derive(Debug, Clone)]
pub enum Act {
    /// Start.
    Start(StartInstance),
    /// Stop.
    Stop(StopInstance),
}

/// One slot.
#[derive(Debug, Default)]
pub struct Slot {
    /// As last given to the disk.
    pub record: SlotRecord,
    /// The highest token known to be on disk: only this one is told.
    pub kept: Token,
    /// What runs.
    pub run: Option<Run>,
    /// Waits for the disk, under this ticket.
    pub raising: Option<(u64, ReplyTo, Act)>,
    /// Wait for that.
    pub(super) queue: VecDeque<(ReplyTo, Act)>,
}

impl Slot {
    /// Was anything of it ever accepted? A refused start leaves no trace.
    pub(super) fn known(&self) -> bool {
        self.kept > Token::default()
            || self.run.is_some()
            || self.raising.is_some()
            || self.record.ended.is_some()
    }
}

/// All of it.
pub struct Keeper {
    pub(super) layout: Layout,
    pub(super) boot: BootId,
    pub(super) node: Option<NodeId>,
    pub(super) cgroups: Cgroups,
    pub(super) runs: Runs,
    pub(super) disk: Disk,
    pub(super) journal: Journal,
    pub(super) logs: LogPolicy,
    pub(super) lease: Option<HeldLease>,
    pub(super) slots: BTreeMap<SlotId, Slot>,
    /// Groups nobody answers for; killed until empty.
    pub(super) strays: Vec<Group>,
    /// Answers that are ready.
    pub answers: Vec<(ReplyTo, Answer)>,
    /// Did anything happen that the node wants to know at once?
    pub changed: bool,
    pub(super) next_ticket: u64,
    pub(super) next_round: BootMs,
}

impl Keeper {
    /// Judges a question. The answer comes into `answers`, now or after the disk.
    pub fn ask(&mut self, node: &NodeId, to: ReplyTo, ask: Ask) {
        self.node = Some(node.clone());
        let answer = match ask {
            Ask::Ping => Answer::Done,
            Ask::Start(start) => return self.act(start.id.slot.clone(), to, Act::Start(start)),
            Ask::Stop(stop) => return self.act(stop.slot.clone(), to, Act::Stop(stop)),
            Ask::Renew { number, valid_until } => self.renew(HeldLease { number, valid_until }),
            Ask::Forget(slot) => self.forget(&slot).map_or_else(Answer::Refused, |()| Answer::Done),
            Ask::Inventory => Answer::Inventory(self.inventory(boot_now())),
            Ask::Runs => Answer::Runs(self.active().map(|run| run.record.start.clone()).collect()),
            Ask::Facts => Answer::Facts(self.facts()),
        };
        self.answers.push((to, answer));
    }

    /// Every run.
    pub fn active(&self) -> impl Iterator<Item = &Run> {
        self.slots.values().filter_map(|slot| slot.run.as_ref())
    }

    fn renew(&mut self, lease: HeldLease) -> Answer {
        if self.lease.is_some_and(|held| held.number >= lease.number) {
            return Answer::Done;
        }
        match self.runs.save_lease(lease) {
            Ok(()) => {
                self.lease = Some(lease);
                Answer::Done
            }
            // Held in memory alone, a longer lease would be cut short by the next guard: refused, so that
            // the node knows that it does not stand.
            Err(error) => Answer::Refused(ActError::Failed(format!("cannot keep the lease: {error}"))),
        }
    }

    fn forget(&mut self, id: &SlotId) -> Result<(), ActError> {
        let Some(slot) = self.slots.get(id) else { return Ok(()) };
        if let Some(run) = &slot.run {
            return Err(ActError::StillRunning { running: run.record.start.id.clone() });
        }
        if slot.raising.is_some() {
            return Err(ActError::Failed(format!("{id}: is being started or stopped; forget it afterwards")));
        }
        self.slots.remove(id);
        let folders = vec![self.layout.instance(id), self.layout.logs(id)];
        self.disk.give(Job::Forget(id.clone(), folders));
        Ok(())
    }

    fn act(&mut self, id: SlotId, to: ReplyTo, act: Act) {
        if self.slots.len() >= MOST_SLOTS && !self.slots.contains_key(&id) {
            let text =
                format!("{id}: this guard knows {MOST_SLOTS} slots already; delete services that are gone");
            return self.answers.push((to, Answer::Refused(ActError::Failed(text))));
        }
        let slot = self.slots.entry(id.clone()).or_default();
        if slot.raising.is_some() {
            return slot.queue.push_back((to, act));
        }
        match act {
            Act::Start(start) => self.ask_start(&id, to, start),
            Act::Stop(stop) => self.ask_stop(&id, to, stop),
        }
    }

    fn ask_start(&mut self, id: &SlotId, to: ReplyTo, start: StartInstance) {
        match self.judge_start(id, &start, boot_now()) {
            Err(error) => self.answers.push((to, Answer::Refused(error))),
            Ok(Judged::AlreadySo) => self.answers.push((to, Answer::Done)),
            Ok(Judged::Replace) => {
                self.replace(id, start);
                self.answers.push((to, Answer::Done));
            }
            Ok(Judged::Go) => {
                let Some(slot) = self.slots.get_mut(id) else { return };
                let moved = start.state_from.is_some() && slot.record.state_from != start.state_from;
                if slot.kept == start.id.token && !moved {
                    return self.begin(id, to, start);
                }
                slot.record.highest = start.id.token;
                slot.record.stopped = false;
                slot.record.state_from = start.state_from.or(slot.record.state_from);
                self.raise(id, to, Act::Start(start));
            }
        }
    }

    /// The rules of a start.
    fn judge_start(&self, id: &SlotId, start: &StartInstance, now: BootMs) -> Result<Judged, ActError> {
        let Some(slot) = self.slots.get(id) else { return Err(ActError::NoLease { slot: id.clone() }) };
        let (token, highest) = (start.id.token, slot.record.highest);
        if token < highest || (token == highest && slot.record.stopped) {
            return Err(ActError::StaleToken { slot: id.clone(), token, highest });
        }
        if let Some(run) = &slot.run {
            let running = &run.record.start;
            let same = running.id == start.id;
            if same && start.restart <= running.restart {
                return Ok(Judged::AlreadySo);
            }
            let may_follow = match &run.record.ending {
                None => true,
                Some(ending) => ending.kind == ExitKind::Unhealthy,
            };
            if same && may_follow && run.exit.is_none() {
                return Ok(Judged::Replace);
            }
            return Err(ActError::StillRunning { running: running.id.clone() });
        }
        if slot.record.ended.as_ref().is_some_and(|old| old.id == start.id && start.restart <= old.restart) {
            return Ok(Judged::AlreadySo);
        }
        self.judge_lease(slot, start, now)?;
        if let Some(operation) = start.state_from
            && slot.record.state_from != start.state_from
            && !self.layout.staging(operation).is_dir()
        {
            let text =
                format!("{id}: the state copy of operation {operation} is not on this node; copy it first");
            return Err(ActError::Failed(text));
        }
        Ok(Judged::Go)
    }

    /// Without a live lease only what may stay starts, and only in place: after a run under the same token.
    fn judge_lease(&self, slot: &Slot, start: &StartInstance, now: BootMs) -> Result<(), ActError> {
        if self.lease.is_some_and(|lease| now < lease.valid_until) {
            return Ok(());
        }
        let ran_here =
            slot.record.ended.as_ref().is_some_and(|old| old.id == start.id && old.boot == self.boot);
        if start.isolation == Isolation::Keep && start.restart > 0 && ran_here {
            return Ok(());
        }
        Err(ActError::NoLease { slot: start.id.slot.clone() })
    }

    /// Ends a run for the sake of its next one: the node found it unhealthy.
    fn replace(&mut self, id: &SlotId, start: StartInstance) {
        let now = boot_now();
        let Some(run) = self.slots.get_mut(id).and_then(|slot| slot.run.as_mut()) else { return };
        if run.record.ending.is_none() {
            let stop = run.record.start.spec.stop;
            run.ask_to_end(ExitKind::Unhealthy, stop.signal, stop.grace, now);
            let _ = self.runs.save(&run.record);
        }
        run.then = Some(start);
        self.changed = true;
    }

    fn ask_stop(&mut self, id: &SlotId, to: ReplyTo, stop: StopInstance) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let highest = slot.record.highest;
        if stop.token < highest {
            let error = ActError::StaleToken { slot: id.clone(), token: stop.token, highest };
            return self.answers.push((to, Answer::Refused(error)));
        }
        if slot.record.stopped && slot.kept == stop.token {
            self.end(id, &stop);
            return self.answers.push((to, Answer::Done));
        }
        slot.record.highest = stop.token;
        slot.record.stopped = true;
        if slot.run.is_none() {
            slot.record.ended = None;
        }
        self.raise(id, to, Act::Stop(stop));
    }

    fn end(&mut self, id: &SlotId, stop: &StopInstance) {
        let now = boot_now();
        let Some(run) = self.slots.get_mut(id).and_then(|slot| slot.run.as_mut()) else { return };
        run.then = None;
        match &mut run.record.ending {
            Some(ending) => ending.kill_at = ending.kill_at.min(now + stop.grace),
            None => {
                run.ask_to_end(ExitKind::Stopped, stop.signal, stop.grace, now);
                self.journal.write(&format!("{}: stopping, {}", run.record.start.id, stop.because));
                let _ = self.runs.save(&run.record);
                self.changed = true;
            }
        }
    }

    /// Has the slot's record written; the act goes on once it is on disk.
    fn raise(&mut self, id: &SlotId, to: ReplyTo, act: Act) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        self.next_ticket += 1;
        slot.raising = Some((self.next_ticket, to, act));
        self.disk.give(Job::Save(id.clone(), Box::new(slot.record.clone()), Some(self.next_ticket)));
    }

    /// Goes on with the acts whose records are on disk now.
    pub fn written(&mut self) {
        for (ticket, outcome) in self.disk.done() {
            let found = self
                .slots
                .iter_mut()
                .find(|(_, slot)| matches!(&slot.raising, Some((one, ..)) if *one == ticket));
            let Some((id, slot)) = found else { continue };
            let id = id.clone();
            let Some((_, to, act)) = slot.raising.take() else { continue };
            if outcome.is_ok() {
                slot.kept = slot.record.highest;
            }
            self.go_on(&id, to, act, outcome.err());
            let queued = self.slots.get_mut(&id).map(|slot| std::mem::take(&mut slot.queue));
            for (to, act) in queued.unwrap_or_default() {
                self.act(id.clone(), to, act);
            }
        }
    }

    fn go_on(&mut self, id: &SlotId, to: ReplyTo, act: Act, failed: Option<String>) {
        let refusal = failed.map(|error| Answer::Refused(ActError::Failed(format!("{id}: {error}"))));
        match act {
            // Not kept, so not acknowledged; but whoever may not run is ended all the same.
            Act::Stop(stop) => {
                self.end(id, &stop);
                self.answers.push((to, refusal.unwrap_or(Answer::Done)));
                self.changed = true;
            }
            Act::Start(start) => match refusal {
                Some(refusal) => self.answers.push((to, refusal)),
                None => self.begin(id, to, start),
            },
        }
    }

    /// Launches, if the lease still stands.
    fn begin(&mut self, id: &SlotId, to: ReplyTo, start: StartInstance) {
        let Some(slot) = self.slots.get(id) else { return };
        let answer = match self.judge_lease(slot, &start, boot_now()) {
            Err(error) => Answer::Refused(error),
            Ok(()) => self.start_now(id, start).map_or_else(Answer::Refused, |()| Answer::Done),
        };
        self.answers.push((to, answer));
    }

    /// Launches what may start, or notes why it did not.
    pub(super) fn start_now(&mut self, id: &SlotId, start: StartInstance) -> Result<(), ActError> {
        let group = match self.cgroups.group(&slot_folder(id)) {
            Ok(group) => group,
            Err(error) => return Err(self.note_failure(id, &start, &error.to_string())),
        };
        if let Some(group) = &group
            && !group.members().is_empty()
        {
            group.kill();
            return Err(ActError::StillRunning { running: start.id });
        }
        match self.launch(&start, group.as_ref()) {
            Ok(record) => {
                let slot = self.slots.entry(id.clone()).or_default();
                slot.record.ended = None;
                self.journal.write(&format!("{}: started, pid {}", start.id, record.pid.unwrap_or(0)));
                slot.run = Some(Run::new(record, group, true));
                self.changed = true;
                Ok(())
            }
            Err(error) => {
                self.runs.remove(id);
                let _ = group.map(|group| group.remove());
                Err(self.note_failure(id, &start, &format!("{error:#}")))
            }
        }
    }

    fn launch(&self, start: &StartInstance, group: Option<&Group>) -> anyhow::Result<RunRecord> {
        let node = self.node.clone().ok_or_else(|| anyhow::anyhow!("no node has introduced itself"))?;
        if let Some(group) = group {
            group.limit(crate::layout::process(start))?;
        }
        let mut record = RunRecord {
            start: start.clone(),
            node: node.clone(),
            boot: self.boot.clone(),
            pid: None,
            start_time: 0,
            started_at: wall_now(),
            started: boot_now(),
            memory_kills: group.map_or(0, Group::memory_kills),
            ending: None,
        };
        // Before the fork, so that a guard that dies in between leaves a trace of what it began.
        self.runs.save(&record)?;
        let staged =
            start.state_from.map(|operation| self.layout.staging(operation)).filter(|path| path.is_dir());
        let pid = launch(&self.layout, &node, start, group, staged)?;
        record.pid = Some(pid);
        record.start_time = ProcessStat::read(pid).map_or(0, |stat| stat.start_time);
        if let Err(error) = self.runs.save(&record) {
            self.journal.write(&format!("{}: {error:#}", start.id));
        }
        Ok(record)
    }

    fn note_failure(&mut self, id: &SlotId, start: &StartInstance, why: &str) -> ActError {
        self.journal.write(&format!("{}: not started: {why}", start.id));
        let slot = self.slots.entry(id.clone()).or_default();
        slot.record.ended = Some(Ended {
            id: start.id.clone(),
            boot: self.boot.clone(),
            restart: start.restart,
            started_at: wall_now(),
            ended: boot_now(),
            outcome: Err(why.to_owned()),
            before: slot.record.last_exit.clone(),
        });
        self.disk.give(Job::Save(id.clone(), Box::new(slot.record.clone()), None));
        self.changed = true;
        ActError::Failed(format!("{}: {why}", start.id))
    }

    /// Kills everything at once, for the end of a demonstration.
    pub fn kill_all(&mut self) {
        let now = boot_now();
        for slot in self.slots.values_mut() {
            if let Some(run) = slot.run.as_mut() {
                run.then = None;
                run.ask_to_end(ExitKind::Killed, libc::SIGKILL, Millis(0), now);
            }
        }
    }
}

/// What becomes of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// It runs, or ran, already.
    AlreadySo,
    /// Once the unhealthy run is gone.
    Replace,
    /// Now.
    Go,
}

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
use super::protocol::{Answer, Ask};
use super::records::{HeldLease, Runs, SlotRecord};
use super::run::Run;
use super::second::Second;
use crate::host::boot_now;
use crate::layout::Layout;
use crate::logs::LogPolicy;
use crate::ports::{ActError, Placing};

/// Slots beyond this are refused.
const MOST_SLOTS: usize = 20_000;

/// Acts on one slot that wait for the disk; further ones are refused.
const MOST_QUEUED: usize = 16;

/// Whom an answer goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    /// Which connection.
    pub connection: u64,
    /// Which question on it.
    pub number: u64,
}

/// For acts that nobody waits for: connections count from 1.
pub const NOBODY: ReplyTo = ReplyTo { connection: 0, number: 0 };

/// A start or stop.
#[derive(Debug, Clone)]
pub enum Act {
    /// Start.
    Start(StartInstance),
    /// Hold the deadline of what an engine is to start.
    Admit(StartInstance, Placing),
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
    /// The second holder of all deadlines.
    pub second: Second,
    /// Reset the host when a kill takes too long?
    pub(super) reset: bool,
    /// Launches under way.
    pub(super) launching: usize,
    /// Is a node there that could tell how an engine's run ended?
    pub served: bool,
    pub(super) next_ticket: u64,
    pub(super) next_round: BootMs,
}

impl Keeper {
    /// Judges a question. The answer comes into `answers`, now or after the disk.
    pub fn ask(&mut self, node: &NodeId, to: ReplyTo, ask: Ask) {
        self.node = Some(node.clone());
        let answer = match ask {
            Ask::Ping => {
                self.second.ping(boot_now());
                Answer::Done
            }
            Ask::Start(start) => return self.act(start.id.slot.clone(), to, Act::Start(start)),
            Ask::Admit(start, placing) => {
                return self.act(start.id.slot.clone(), to, Act::Admit(start, placing));
            }
            Ask::Begun { run, pid } => self.begun(&run, pid).map_or_else(Answer::Refused, |()| Answer::Done),
            Ask::Over { run, end } => {
                self.over(&run, end);
                Answer::Done
            }
            Ask::Stop(stop) => return self.act(stop.slot.clone(), to, Act::Stop(stop)),
            Ask::Renew { number, valid_until, kill_margin } => {
                self.renew(HeldLease { number, valid_until, kill_margin })
            }
            Ask::Forget(slot) => self.forget(&slot).map_or_else(Answer::Refused, |()| Answer::Done),
            Ask::Inventory => Answer::Inventory(self.inventory(boot_now())),
            Ask::Runs => Answer::Runs(self.active().map(|run| run.record.start.clone()).collect()),
            Ask::Facts => Answer::Facts(self.facts()),
        };
        self.answers.push((to, answer));
    }

    /// The second holder is here: it is told of everything that runs.
    pub fn second_came(&mut self, pid: u32, now: BootMs) {
        let slots = self.active().map(|run| run.record.start.id.slot.clone()).collect();
        self.second.came(pid, slots, now);
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
                self.second.look(boot_now());
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

    pub(super) fn act(&mut self, id: SlotId, to: ReplyTo, act: Act) {
        if self.slots.len() >= MOST_SLOTS && !self.slots.contains_key(&id) {
            let text =
                format!("{id}: this guard knows {MOST_SLOTS} slots already; delete services that are gone");
            return self.answers.push((to, Answer::Refused(ActError::Failed(text))));
        }
        let slot = self.slots.entry(id.clone()).or_default();
        if slot.raising.is_some() {
            if slot.queue.len() < MOST_QUEUED {
                return slot.queue.push_back((to, act));
            }
            let text = format!("{id}: {MOST_QUEUED} acts wait for the disk already; see to the disk");
            return self.answers.push((to, Answer::Refused(ActError::Failed(text))));
        }
        match act {
            Act::Start(start) => self.ask_start(&id, to, start, None),
            Act::Admit(start, placing) => self.ask_start(&id, to, start, Some(placing)),
            Act::Stop(stop) => self.ask_stop(&id, to, stop),
        }
    }

    /// A start of the guard's own, or with `placing` of an engine's.
    fn ask_start(&mut self, id: &SlotId, to: ReplyTo, start: StartInstance, placing: Option<Placing>) {
        match self.judge_start(id, &start, boot_now()) {
            Err(error) => self.answers.push((to, Answer::Refused(error))),
            Ok(Judged::AlreadySo) => self.answers.push((to, Answer::Done)),
            Ok(Judged::Replace) if placing.is_some() => {
                // The engine is asked for the next run once this one is gone.
                let running = start.id.clone();
                self.end_unhealthy(id);
                self.answers.push((to, Answer::Refused(ActError::StillRunning { running })));
            }
            Ok(Judged::Replace) => {
                self.replace(id, start);
                self.answers.push((to, Answer::Done));
            }
            Ok(Judged::Go) => {
                if let Some(why) = placing.as_ref().and_then(|placing| placing.beyond.as_deref())
                    && let Err(error) = self.take_back_armed(id, why)
                {
                    return self.answers.push((to, Answer::Refused(error)));
                }
                let Some(slot) = self.slots.get_mut(id) else { return };
                let moved = start.state_from.is_some() && slot.record.state_from != start.state_from;
                let write = slot.kept != start.id.token || moved;
                slot.record.highest = start.id.token;
                slot.record.stopped = false;
                slot.record.state_from = start.state_from.or(slot.record.state_from);
                let act = match placing {
                    None => Act::Start(start),
                    Some(placing) => Act::Admit(start, placing),
                };
                self.ready(id, to, act, write);
            }
        }
    }

    /// What cannot be held in a group of the guard is admitted only once nobody counts on its deadline: the
    /// node is said not to be armed any more, and asks again when the cluster knows.
    fn take_back_armed(&mut self, id: &SlotId, why: &str) -> Result<(), ActError> {
        let now = boot_now();
        let known = self.second.gave_up(id);
        self.second.give_up(id, why, now);
        if !known {
            let text =
                format!("{id}: waits until the cluster knows that its deadline is not armed here: {why}");
            return Err(ActError::Failed(text));
        }
        Ok(())
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
            if same && may_follow && run.exit.is_none() && run.begun() {
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
    pub(super) fn judge_lease(
        &self,
        slot: &Slot,
        start: &StartInstance,
        now: BootMs,
    ) -> Result<(), ActError> {
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
        self.end_unhealthy(id);
        if let Some(run) = self.slots.get_mut(id).and_then(|slot| slot.run.as_mut()) {
            run.then = Some(start);
        }
    }

    fn end_unhealthy(&mut self, id: &SlotId) {
        let now = boot_now();
        let Some(run) = self.slots.get_mut(id).and_then(|slot| slot.run.as_mut()) else { return };
        if run.record.ending.is_none() {
            let stop = run.record.start.spec.stop;
            run.ask_to_end(ExitKind::Unhealthy, stop.signal, stop.grace, now);
            let _ = self.runs.save(&run.record);
        }
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
        self.ready(id, to, Act::Stop(stop), true);
    }

    pub(super) fn end(&mut self, id: &SlotId, stop: &StopInstance) {
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

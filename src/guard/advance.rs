//! Moves runs along as time passes and processes end: the lease's deadlines, kills until nothing is left,
//! the reason of each exit. Everything here works without a node.

use quorate_core::effect::Isolation;
use quorate_core::ids::SlotId;
use quorate_core::observation::{ExitKind, ExitReason};
use quorate_core::spec::Workload;
use quorate_core::units::{BootMs, Millis};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};

use super::disk::Job;
use super::keeper::{Act, Keeper, NOBODY};
use super::records::Ended;
use super::reset;
use super::run::{RawExit, Run, Stage, named};
use crate::host::{ProcessStat, boot_now};
use crate::layout::{guard_name, run_name};
use crate::ports::{ActError, EngineEnd, RunId};

/// Between two looks at what is being killed.
const KILL_ROUND: Millis = Millis(10);

/// Between two rounds of output rotation and reaping while something runs.
const ROUND: Millis = Millis(500);

/// How long an engine may take to say how its run ended, before that counts as unknown.
const WORD: Millis = Millis(5_000);

/// Between two looks whether it has.
const WORD_ROUND: Millis = Millis(100);

impl Keeper {
    /// Does all that is due. Cheap when nothing is.
    pub fn tick(&mut self) {
        self.reap();
        let now = boot_now();
        self.enforce(now);
        self.reset_if_overdue(now);
        let slots = &self.slots;
        self.second
            .expire(|id| slots.get(id).is_some_and(|slot| slot.run.is_some() || slot.raising.is_some()), now);
        let ids: Vec<SlotId> =
            self.slots.iter().filter(|(_, slot)| slot.run.is_some()).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.pass_gate(&id, now);
            self.advance(&id, now);
        }
        self.strays.retain(|group| {
            let left = !group.members().is_empty();
            if left {
                group.kill();
            } else {
                group.remove();
            }
            left
        });
        if now >= self.next_round {
            self.next_round = now + ROUND;
            for (id, slot) in &self.slots {
                if slot.run.is_some() {
                    self.disk.give(Job::Rotate(self.layout.logs(id), self.logs));
                }
            }
        }
    }

    /// When the next tick is due at the latest.
    pub fn next_tick(&self) -> Option<BootMs> {
        let now = boot_now();
        let mut due: Option<BootMs> = None;
        let mut sooner = |at: BootMs| due = Some(due.map_or(at, |due| due.min(at)));
        if let Some(at) = self.second.next(now) {
            sooner(at);
        }
        for run in self.active() {
            sooner(self.next_round);
            if run.exit.is_some() || run.told.is_some() {
                let owes = run.told.is_none() && run.owed.is_some();
                let waits = run.driven() && (owes || (run.begun() && run.exit.is_none()));
                sooner(now + if waits { WORD_ROUND } else { KILL_ROUND });
            }
            if let Some(ending) = &run.record.ending {
                sooner(ending.kill_at.max(now + KILL_ROUND));
            }
            if !run.expired && run.record.start.isolation != Isolation::Keep {
                sooner(self.expiry());
            }
        }
        if !self.strays.is_empty() {
            sooner(now + KILL_ROUND);
        }
        due
    }

    /// A run that is held to a lease nobody knows of counts as past it.
    fn expiry(&self) -> BootMs {
        self.lease.map_or(BootMs(0), |lease| lease.valid_until)
    }

    /// Takes the exits of all children, adopted grandchildren too. While a launch is under way only of those
    /// it knows: a child whose program could not be run is the launch's own to wait for.
    fn reap(&mut self) {
        if self.launching == 0 {
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                let pid = pid.as_raw_nonzero().get().unsigned_abs();
                let runs = self.slots.values_mut().filter_map(|slot| slot.run.as_mut());
                if let Some(run) = runs.filter(|run| run.own).find(|run| run.record.pid == Some(pid)) {
                    run.exit = raw(status);
                }
            }
            return;
        }
        for run in self.slots.values_mut().filter_map(|slot| slot.run.as_mut()) {
            let pid = run.record.pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
            if run.own
                && run.exit.is_none()
                && pid.is_some()
                && let Ok(Some((_, status))) = waitpid(pid, WaitOptions::NOHANG)
            {
                run.exit = raw(status);
            }
        }
    }

    /// Begins to end what may not outlive the lease, once it has run out.
    fn enforce(&mut self, now: BootMs) {
        let expiry = self.expiry();
        if now < expiry {
            return;
        }
        for slot in self.slots.values_mut() {
            let Some(run) = slot.run.as_mut() else { continue };
            let grace = match run.record.start.isolation {
                Isolation::Keep => continue,
                Isolation::Kill => Millis(0),
                Isolation::Stop { grace } => grace,
            };
            if std::mem::replace(&mut run.expired, true) {
                continue;
            }
            let kill_at = expiry + grace;
            run.then = None;
            match &mut run.record.ending {
                Some(ending) => ending.kill_at = ending.kill_at.min(kill_at),
                None => {
                    let left = now.until(kill_at);
                    run.ask_to_end(ExitKind::LeaseExpired, run.record.start.spec.stop.signal, left, now);
                    self.journal.write(&format!("{}: the lease ran out", run.record.start.id));
                }
            }
            let _ = self.runs.save(&run.record);
            self.changed = true;
        }
    }

    /// The last resort, where it is allowed: a host on which a kill takes half the margin is reset.
    fn reset_if_overdue(&mut self, now: BootMs) {
        let Some(lease) = self.lease.filter(|_| self.reset) else { return };
        let overdue = |run: &&Run| {
            lease.deadline(run.record.start.isolation).is_some_and(|due| now >= lease.overdue(due))
                && !run.members().is_empty()
        };
        let slot = self.active().find(overdue).map(|run| run.record.start.id.slot.clone());
        if let Some(slot) = slot {
            self.reset = false;
            reset::host(&self.journal, &slot);
        }
    }

    /// One run: kills what is due, and closes it once nothing of it is left.
    fn advance(&mut self, id: &SlotId, now: BootMs) {
        let Some(run) = self.slots.get_mut(id).and_then(|slot| slot.run.as_mut()) else { return };
        if !run.own && run.begun() && !run.main_alive() && (run.exit.is_none() || run.told.is_some()) {
            run.ended_untold();
        }
        if run.driven() && !run.begun() && run.told.is_some() {
            return self.call_off(id);
        }
        let due = run.record.ending.as_ref().is_some_and(|ending| ending.kill_at <= now);
        if run.exit.is_none() && !due {
            return;
        }
        // Whoever arrives while its start is still under way arrives frozen.
        if !run.begun() {
            return run.kill();
        }
        run.note_memory_kills();
        let empty = run.members().is_empty();
        if !due && self.owes_word(id, now) {
            // Engines keep helpers in the group, which are to say how it ended before they go.
            return;
        }
        // What the main process left behind goes with it.
        let Some(run) = self.slots.get_mut(id).and_then(|slot| slot.run.as_mut()) else { return };
        if !empty {
            run.kill();
        } else if run.exit.is_some() && !self.owes_word(id, now) {
            self.close(id, now);
        }
    }

    /// An engine said that it did not start what was handed to it: what arrived all the same is killed.
    fn call_off(&mut self, id: &SlotId) {
        let Some(run) = self.slots.get_mut(id).and_then(|slot| slot.run.as_mut()) else { return };
        if !run.members().is_empty() {
            return run.kill();
        }
        let (start, told) = (run.record.start.clone(), run.told.take());
        let ending = run.record.ending.is_some();
        let why = match told {
            Some(EngineEnd::NotStarted(why)) => why,
            _ => "it ended before its start was known".to_owned(),
        };
        // One that was told to end has nothing to be told of.
        let error = if ending { ActError::Failed(why) } else { self.note_failure(id, &start, &why) };
        self.drop_run(id, NOBODY, error);
    }

    /// Is the engine still to say how its run ended? It is waited for while a node is there to ask it, and longer
    /// while none is: without one nobody would act on the end.
    fn owes_word(&mut self, id: &SlotId, now: BootMs) -> bool {
        let served = self.served;
        let Some(run) = self.slots.get_mut(id).and_then(|slot| slot.run.as_mut()) else { return false };
        if !run.driven() || run.told.is_some() {
            return false;
        }
        // What is in no group of the guard's may go on without the process that is known: only its engine can tell.
        if !served || run.record.placing.beyond.is_some() {
            run.owed = None;
            return true;
        }
        now.since(*run.owed.get_or_insert(now)) < WORD
    }

    /// The engine has started a run that it was handed. A machine comes held back, and is not always where it was
    /// told to be: it is taken in here, in every tree, before anything in it runs. The caller releases it after that.
    pub(super) fn begun(&mut self, which: &RunId, pid: u32) -> Result<(), ActError> {
        let name = run_name(&guard_name(self.layout.root()), which);
        let Some(run) = self.driven_run(which) else {
            return Err(ActError::Failed(format!("{which} is not expected; end it")));
        };
        if run.begun() {
            // One of the host's own may go on with another main process.
            if run.record.placing.beyond.is_some() && run.record.pid != Some(pid) && run.told.is_none() {
                run.begin(pid);
                run.exit = None;
                let record = run.record.clone();
                let _ = self.runs.save(&record);
                self.second.note(&which.id.slot);
            }
            return Ok(());
        }
        let machine = matches!(run.record.start.spec.workload, Workload::Machine(_));
        if machine && run.record.ending.is_some() {
            return Err(ActError::Failed(format!("{which} is to end before it ran")));
        }
        if machine
            && let Some(group) = &run.group
            && named(pid, &name)
            && let Err(error) = group.gather(pid)
        {
            let text = format!("{which}: its process {pid} cannot be taken into its control group: {error}");
            return Err(ActError::Failed(text));
        }
        // One that is gone already is in no group any more, and its engine tells how it ended.
        let gone = ProcessStat::read(pid).is_none_or(|stat| stat.dead());
        let held = run.group.as_ref().is_some_and(|group| group.members().contains(&pid));
        if !held && !gone && run.record.placing.beyond.is_none() {
            let text = format!("{which}: its process {pid} is not in the control group it was given");
            return Err(ActError::Failed(text));
        }
        run.begin(pid);
        // Whoever made the run may have set the limits of the group above it anew.
        if let Some(group) = &run.group {
            let _ = group.witness_memory(run.record.start.spec.workload.limits().memory);
        }
        // Told to end while its engine was at it: it has no more time.
        if let Some(ending) = &mut run.record.ending {
            ending.kill_at = ending.kill_at.min(boot_now());
        }
        if run.record.start_time == 0 {
            // Gone already: its engine tells how.
            run.exit = Some(RawExit::Untold);
        }
        let record = run.record.clone();
        let _ = self.runs.save(&record);
        let slot = which.id.slot.clone();
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.record.ended = None;
        }
        self.second.note(&slot);
        self.second.look(boot_now());
        self.journal.write(&format!("{}: started by its engine, pid {pid}", which.id));
        self.changed = true;
        Ok(())
    }

    /// The engine tells of the end of a run, or that it never began. Believed only once nothing of it is left.
    pub(super) fn over(&mut self, which: &RunId, end: EngineEnd) {
        let Some(run) = self.driven_run(which) else { return };
        // While its process lives, what was told of its end is not the last word.
        if run.told.is_none() || run.main_alive() {
            if !run.begun() && matches!(end, EngineEnd::Exited(_)) {
                // It was over before it was known to have begun.
                run.stage = Stage::Begun;
            }
            run.told = Some(end);
        }
    }

    /// A run that an engine has, if it is the one that is meant.
    fn driven_run(&mut self, which: &RunId) -> Option<&mut Run> {
        let run = self.slots.get_mut(&which.id.slot)?.run.as_mut()?;
        let gate = matches!(run.stage, Stage::Gate { .. });
        (run.driven() && !gate && RunId::of(&run.record.start) == *which).then_some(run)
    }

    fn close(&mut self, id: &SlotId, now: BootMs) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Some(run) = slot.run.take() else { return };
        let reason = run.reason();
        // The record first: what the second holder finds without a group must have been written down.
        self.runs.remove(id);
        if let Some(group) = &run.group {
            group.remove();
        }
        self.second.note(id);
        self.second.recover(id);
        self.journal.write(&format!("{}: ended, {}", run.record.start.id, describe(&reason)));
        // After a stop the slot is empty; otherwise the end stays on view until somebody acts on it.
        slot.record.ended = (!slot.record.stopped).then(|| Ended {
            id: run.record.start.id.clone(),
            boot: self.boot.clone(),
            restart: run.record.start.restart,
            started_at: run.record.started_at,
            ended: now,
            outcome: Ok(reason.clone()),
            before: slot.record.last_exit.clone(),
        });
        slot.record.last_exit = Some(reason);
        slot.record.last_ran = now.since(run.record.started);
        self.disk.give(Job::Save(id.clone(), Box::new(slot.record.clone())));
        self.changed = true;
        if let Some(start) = run.then
            && slot.raising.is_none()
        {
            // A failure is noted in the slot, where the node finds it.
            self.ready(id, NOBODY, Act::Start(start), false);
        }
    }
}

fn raw(status: WaitStatus) -> Option<RawExit> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(RawExit::Code(code)),
        (None, Some(signal)) => Some(RawExit::Signal(signal)),
        (None, None) => None,
    }
}

fn describe(reason: &ExitReason) -> String {
    match (reason.code, reason.signal) {
        (Some(code), _) => format!("{:?}, code {code}", reason.kind),
        (None, Some(signal)) => format!("{:?}, signal {signal}", reason.kind),
        (None, None) => format!("{:?}", reason.kind),
    }
}

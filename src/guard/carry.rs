//! Carries out what the keeper judged right: the disk first, then the deadline with both holders, then the
//! process. Judges nothing but the lease, which may have run out meanwhile.

use quorate_core::effect::{StartInstance, StopInstance};
use quorate_core::ids::SlotId;
use quorate_core::spec::ExecutorKind;
use quorate_core::units::BootMs;

use super::disk::{Errand, Job, Launch, Outcome};
use super::group::Group;
use super::keeper::{Act, Keeper, ReplyTo};
use super::launch::Prepared;
use super::protocol::Answer;
use super::records::{Ended, RunRecord};
use super::run::{Run, Stage};
use crate::host::{boot_now, wall_now};
use crate::ports::{ActError, Placing};

/// Launches under way at once; further ones wait.
const MOST_LAUNCHES: usize = 64;

impl Keeper {
    /// Has the disk do what an act needs first: keep the slot's record, make a start's folders.
    pub(super) fn ready(&mut self, id: &SlotId, to: ReplyTo, act: Act, write: bool) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        self.next_ticket += 1;
        let folders = match &act {
            // The last state copy accepted, not this start's alone: an earlier start may have failed before
            // its copy was moved into place.
            Act::Start(start) | Act::Admit(start, _) => Some((start.clone(), slot.record.state_from)),
            Act::Stop(_) => None,
        };
        let record = write.then(|| slot.record.clone());
        let errand = Errand { ticket: self.next_ticket, slot: id.clone(), record, folders };
        slot.raising = Some((self.next_ticket, to, act));
        self.disk.give(Job::Ready(Box::new(errand)));
    }

    /// Goes on with the acts that the disk, or a launch, is done with.
    pub fn written(&mut self) {
        for (ticket, outcome) in self.disk.done() {
            if let Outcome::Launched(launched) = outcome {
                self.launched(ticket, launched);
                continue;
            }
            let waits =
                |act: &Option<(u64, ReplyTo, Act)>| act.as_ref().is_some_and(|(one, ..)| *one == ticket);
            let Some((id, slot)) = self.slots.iter_mut().find(|(_, slot)| waits(&slot.raising)) else {
                continue;
            };
            let id = id.clone();
            let Some((_, to, act)) = slot.raising.take() else { continue };
            if !matches!(outcome, Outcome::NotKept(_)) {
                slot.kept = slot.record.highest;
            }
            match act {
                Act::Stop(stop) => {
                    let answer = self.go_on_stopping(&id, &stop, outcome);
                    self.answer(to, answer);
                }
                Act::Start(start) => {
                    if let Err(error) = self.go_on_starting(&id, to, start, Placing::default(), outcome) {
                        self.answer(to, Err(error));
                    }
                }
                Act::Admit(start, placing) => {
                    if let Err(error) = self.go_on_starting(&id, to, start, placing, outcome) {
                        self.answer(to, Err(error));
                    }
                }
            }
            let queued = self.slots.get_mut(&id).map(|slot| std::mem::take(&mut slot.queue));
            for (to, act) in queued.unwrap_or_default() {
                self.act(id.clone(), to, act);
            }
        }
    }

    pub(super) fn answer(&mut self, to: ReplyTo, answer: Result<(), ActError>) {
        self.answers.push((to, answer.map_or_else(Answer::Refused, |()| Answer::Done)));
    }

    /// A stop that is not kept is not acknowledged; but whoever may not run is ended all the same.
    fn go_on_stopping(&mut self, id: &SlotId, stop: &StopInstance, outcome: Outcome) -> Result<(), ActError> {
        self.end(id, stop);
        self.changed = true;
        match outcome {
            Outcome::Done(_) => Ok(()),
            Outcome::NotKept(why) | Outcome::NotPrepared(why) => {
                Err(ActError::Failed(format!("{id}: {why}")))
            }
            Outcome::Launched(_) => Ok(()),
        }
    }

    fn go_on_starting(
        &mut self,
        id: &SlotId,
        to: ReplyTo,
        start: StartInstance,
        placing: Placing,
        outcome: Outcome,
    ) -> Result<(), ActError> {
        match outcome {
            Outcome::NotKept(why) => Err(ActError::Failed(format!("{id}: {why}"))),
            Outcome::NotPrepared(why) => Err(self.note_failure(id, &start, &why)),
            Outcome::Done(None) | Outcome::Launched(_) => {
                Err(ActError::Failed(format!("{id}: its folders were not made")))
            }
            Outcome::Done(Some(prepared)) => {
                let Some(slot) = self.slots.get(id) else { return Ok(()) };
                // The disk may have taken longer than the lease lasted.
                self.judge_lease(slot, &start, boot_now())?;
                self.hold(id, to, start, placing, prepared)
            }
        }
    }

    /// First of all the deadline: the group that everything of the instance will be in is made and written
    /// down with it, for both holders. Whoever is asked to start it comes after that.
    fn hold(
        &mut self,
        id: &SlotId,
        to: ReplyTo,
        start: StartInstance,
        placing: Placing,
        prepared: Prepared,
    ) -> Result<(), ActError> {
        let group = match self.cgroups.group(id, placing.slice) {
            Ok(group) => group,
            Err(error) => return Err(self.note_failure(id, &start, &error.to_string())),
        };
        if let Some(group) = &group {
            if !group.members().is_empty() {
                group.kill();
                return Err(ActError::StillRunning { running: start.id });
            }
            // An earlier start that came too late may have left it barred.
            group.freeze(false);
        }
        match self.write_down(&start, placing, group.as_ref()) {
            Ok(record) => {
                self.second.note(id);
                let number = self.second.look(boot_now());
                let mut run = Run::new(record, group, true);
                run.stage = Stage::Gate { number, prepared: Box::new(prepared), to };
                self.slots.entry(id.clone()).or_default().run = Some(run);
                self.pass_gate(id, boot_now());
                Ok(())
            }
            Err(error) => {
                self.runs.remove(id);
                let _ = group.map(|group| group.remove());
                Err(self.note_failure(id, &start, &format!("{error:#}")))
            }
        }
    }

    /// What the next guard, and the second holder, need to know of a run that is about to be.
    fn write_down(
        &self,
        start: &StartInstance,
        placing: Placing,
        group: Option<&Group>,
    ) -> anyhow::Result<RunRecord> {
        let node = self.node.clone().ok_or_else(|| anyhow::anyhow!("no node has introduced itself"))?;
        let limits = start.spec.workload.limits();
        match group {
            Some(group) if start.spec.workload.executor() == ExecutorKind::Process => group.limit(&limits)?,
            // Done once more when it has begun: whoever makes the run may make the group anew.
            Some(group) => drop(group.witness_memory(limits.memory)),
            None => {}
        }
        let record = RunRecord {
            start: start.clone(),
            node,
            placing,
            boot: self.boot.clone(),
            pid: None,
            start_time: 0,
            started_at: wall_now(),
            started: boot_now(),
            memory_kills: group.map_or(0, Group::memory_kills),
            memory_hits: group.map_or(0, Group::memory_hits),
            ending: None,
        };
        self.runs.save(&record)?;
        Ok(record)
    }

    /// Launches what waits at the gate once the second holder has its deadline, or refuses it.
    pub(super) fn pass_gate(&mut self, id: &SlotId, now: BootMs) {
        let Some(run) = self.slots.get(id).and_then(|slot| slot.run.as_ref()) else { return };
        let Stage::Gate { number, to, .. } = &run.stage else { return };
        let (number, to, start) = (*number, *to, run.record.start.clone());
        let refusal = if run.record.ending.is_some() {
            Some(ActError::Failed(format!("{id}: called off before it ran")))
        } else if self.second.fails(number, now) {
            let text = format!("{id}: not started: its deadline is not held by the second holder yet");
            Some(ActError::Failed(text))
        } else if !self.second.holds(number) || self.launching >= MOST_LAUNCHES {
            return;
        } else {
            self.slots.get(id).and_then(|slot| self.judge_lease(slot, &start, now).err())
        };
        match refusal {
            Some(error) => self.drop_run(id, to, error),
            None => self.launch(id, start),
        }
    }

    fn launch(&mut self, id: &SlotId, start: StartInstance) {
        let Some(run) = self.slots.get_mut(id).and_then(|slot| slot.run.as_mut()) else { return };
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        match std::mem::replace(&mut run.stage, Stage::Begun) {
            Stage::Gate { to, .. } if run.driven() => {
                run.stage = Stage::Handed;
                let group = self.cgroups.name_of(id, run.record.placing.slice);
                self.answers.push((to, Answer::Admitted(group)));
            }
            Stage::Gate { prepared, to, .. } => {
                run.stage = Stage::Launching { ticket, to };
                let (node, group) = (run.record.node.clone(), run.group.clone());
                self.launching += 1;
                if let Err(error) = self.disk.launch(Launch { ticket, node, start, group, prepared }) {
                    self.launched(ticket, Err(format!("{error:#}")));
                }
            }
            other => run.stage = other,
        }
    }

    fn launched(&mut self, ticket: u64, launched: Result<u32, String>) {
        self.launching -= 1;
        let is = |stage: &Stage| matches!(stage, Stage::Launching { ticket: one, .. } if *one == ticket);
        let found = self.slots.iter_mut().find_map(|(id, slot)| {
            let run = slot.run.as_mut().filter(|run| is(&run.stage))?;
            Some((id.clone(), run))
        });
        let Some((id, run)) = found else { return };
        let Stage::Launching { to, .. } = run.stage else { return };
        match launched {
            Ok(pid) => {
                run.begin(pid);
                // Told to end while it was being launched: it has no more time.
                if let Some(ending) = &mut run.record.ending {
                    ending.kill_at = ending.kill_at.min(boot_now());
                }
                let start = run.record.start.id.clone();
                let kept = self.runs.save(&run.record);
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.record.ended = None;
                }
                self.second.note(&id);
                self.journal.write(&format!("{start}: started, pid {pid}"));
                if let Err(error) = kept {
                    self.journal.write(&format!("{start}: {error:#}"));
                }
                self.changed = true;
                self.answer(to, Ok(()));
            }
            Err(why) => {
                let start = run.record.start.clone();
                let error = self.note_failure(&id, &start, &why);
                self.drop_run(&id, to, error);
            }
        }
    }

    /// Nothing of it runs: it never began.
    pub(super) fn drop_run(&mut self, id: &SlotId, to: ReplyTo, error: ActError) {
        self.runs.remove(id);
        if let Some(run) = self.slots.get_mut(id).and_then(|slot| slot.run.take())
            && let Some(group) = &run.group
        {
            group.remove();
        }
        self.second.note(id);
        self.second.recover(id);
        self.changed = true;
        self.answer(to, Err(error));
    }

    pub(super) fn note_failure(&mut self, id: &SlotId, start: &StartInstance, why: &str) -> ActError {
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
        self.disk.give(Job::Save(id.clone(), Box::new(slot.record.clone())));
        self.changed = true;
        ActError::Failed(format!("{}: {why}", start.id))
    }
}

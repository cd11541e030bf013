//! Carries out what the keeper judged right: the disk first, then the process. Judges nothing but the lease,
//! which may have run out meanwhile.

use quorate_core::effect::{StartInstance, StopInstance};
use quorate_core::ids::SlotId;

use super::disk::{Errand, Job, Outcome};
use super::group::Group;
use super::keeper::{Act, Keeper, ReplyTo};
use super::launch::{Prepared, launch};
use super::protocol::Answer;
use super::records::{Ended, RunRecord};
use super::run::Run;
use crate::host::{ProcessStat, boot_now, wall_now};
use crate::layout::{process, slot_folder};
use crate::ports::ActError;

impl Keeper {
    /// Has the disk do what an act needs first: keep the slot's record, make a start's folders.
    pub(super) fn ready(&mut self, id: &SlotId, to: ReplyTo, act: Act, write: bool) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        self.next_ticket += 1;
        let folders = match &act {
            // The last state copy accepted, not this start's alone: an earlier start may have failed before
            // its copy was moved into place.
            Act::Start(start) => Some((start.clone(), slot.record.state_from)),
            Act::Stop(_) => None,
        };
        let record = write.then(|| slot.record.clone());
        let errand = Errand { ticket: self.next_ticket, slot: id.clone(), record, folders };
        slot.raising = Some((self.next_ticket, to, act));
        self.disk.give(Job::Ready(Box::new(errand)));
    }

    /// Goes on with the acts that the disk is done with.
    pub fn written(&mut self) {
        for (ticket, outcome) in self.disk.done() {
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
            let answer = match act {
                Act::Stop(stop) => self.go_on_stopping(&id, &stop, outcome),
                Act::Start(start) => self.go_on_starting(&id, start, outcome),
            };
            self.answers.push((to, answer.map_or_else(Answer::Refused, |()| Answer::Done)));
            let queued = self.slots.get_mut(&id).map(|slot| std::mem::take(&mut slot.queue));
            for (to, act) in queued.unwrap_or_default() {
                self.act(id.clone(), to, act);
            }
        }
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
        }
    }

    fn go_on_starting(
        &mut self,
        id: &SlotId,
        start: StartInstance,
        outcome: Outcome,
    ) -> Result<(), ActError> {
        match outcome {
            Outcome::NotKept(why) => Err(ActError::Failed(format!("{id}: {why}"))),
            Outcome::NotPrepared(why) => Err(self.note_failure(id, &start, &why)),
            Outcome::Done(None) => Err(ActError::Failed(format!("{id}: its folders were not made"))),
            Outcome::Done(Some(prepared)) => {
                let Some(slot) = self.slots.get(id) else { return Ok(()) };
                // The disk may have taken longer than the lease lasted.
                self.judge_lease(slot, &start, boot_now())?;
                self.start_now(id, start, &prepared)
            }
        }
    }

    /// Launches what may start, or notes why it did not.
    fn start_now(&mut self, id: &SlotId, start: StartInstance, prepared: &Prepared) -> Result<(), ActError> {
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
        match self.launch(&start, group.as_ref(), prepared) {
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

    fn launch(
        &self,
        start: &StartInstance,
        group: Option<&Group>,
        prepared: &Prepared,
    ) -> anyhow::Result<RunRecord> {
        let node = self.node.clone().ok_or_else(|| anyhow::anyhow!("no node has introduced itself"))?;
        if let Some(group) = group {
            group.limit(process(start))?;
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
        let pid = launch(&self.layout, &node, start, group, prepared)?;
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
        self.disk.give(Job::Save(id.clone(), Box::new(slot.record.clone())));
        self.changed = true;
        ActError::Failed(format!("{}: {why}", start.id))
    }
}

//! No claim ends, and so nothing is granted elsewhere, while an instance of it truly runs or could still
//! start; and nothing ever starts again under a claim that ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Judgement;
use crate::event::{Event, EventRecord};
use crate::evidence::Evidence;
use crate::ids::{Revision, SlotId, Token};
use crate::sim::host::{Host, Process};
use crate::state::State;

/// Every claim ever granted, with its host, and those that ended.
#[derive(Default)]
pub(super) struct Evidences {
    granted: BTreeMap<(SlotId, Token), usize>,
    /// Those that ended, and how.
    ended: BTreeMap<(SlotId, Token), End>,
    /// Those that silence ended in a history that is over, and what was granted there and is gone with it.
    silenced: BTreeSet<(SlotId, Token)>,
    gone: BTreeSet<(SlotId, Token)>,
}

#[derive(PartialEq, Eq)]
struct End {
    silence: bool,
    revision: Revision,
}

impl Evidences {
    /// A revision was committed: its events are judged against what the hosts truly do at this moment.
    pub(super) fn committed(
        &mut self,
        revision: Revision,
        events: &[Arc<EventRecord>],
        hosts: &[Host],
        excused: &[usize],
    ) -> Judgement {
        for record in events {
            match &record.event {
                Event::Granted { slot, node, token, .. } => {
                    let host = hosts.iter().position(|host| &host.name == node).unwrap_or(0);
                    self.granted.insert((slot.clone(), *token), host);
                    self.granted_over_a_living_one(slot, *token, hosts, excused)?;
                }
                Event::ClaimEnded { slot, node, token, evidence } => {
                    let claim = (slot.clone(), *token);
                    self.ended_while_it_runs(claim, node.as_str(), hosts, evidence, revision, excused)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The log went on from an earlier entry: what ended after that never did, and may be running.
    pub(super) fn forked(&mut self, kept: Revision) {
        let lost = self.ended.iter().filter(|(_, end)| end.silence && end.revision > kept);
        self.silenced.extend(lost.map(|(claim, _)| claim.clone()));
        self.gone.extend(self.granted.keys().filter(|(_, token)| token.revision > kept).cloned());
        self.ended.retain(|_, end| end.revision <= kept);
    }

    /// What comes with a recovery and was never known to be committed: nothing can have been done by it.
    pub(super) fn replayed(&mut self, revision: Revision, events: &[Arc<EventRecord>]) {
        for record in events {
            if let Event::ClaimEnded { slot, token, evidence, .. } = &record.event {
                let silence = matches!(evidence, Evidence::Silence { .. });
                self.ended.insert((slot.clone(), *token), End { silence, revision });
            }
        }
    }

    /// What runs on a node after a recovery is claimed again, whatever the log says of before.
    pub(super) fn inventories(&mut self, events: &[Arc<EventRecord>], state: &State) {
        for record in events {
            let Event::InventoryTaken { node, .. } = &record.event else { continue };
            for (slot, claim) in state.claims_on(node) {
                self.ended.remove(&(slot.clone(), claim.token));
            }
        }
    }

    /// Is this a copy whose claim ended by silence, on a host where silence cannot be trusted?
    pub(super) fn excuses(&self, host: usize, process: &Process, excused: &[usize]) -> bool {
        let ended = self.ended.get(&(process.slot.clone(), process.token));
        excused.contains(&host) && ended.is_some_and(|end| end.silence)
    }

    /// The same beside another copy. That may have been granted in a history that is over, as was the end: what such
    /// a pair does was decided before the recovery.
    pub(super) fn excuses_beside(
        &self,
        (host, process): (usize, &Process),
        other: &Process,
        excused: &[usize],
    ) -> bool {
        let claim = |process: &Process| (process.slot.clone(), process.token);
        let before = || self.silenced.contains(&claim(process)) && self.gone.contains(&claim(other));
        self.excuses(host, process, excused) || (excused.contains(&host) && before())
    }

    fn granted_over_a_living_one(
        &self,
        slot: &SlotId,
        token: Token,
        hosts: &[Host],
        excused: &[usize],
    ) -> Judgement {
        for host in hosts {
            for process in host.processes.iter().filter(|process| &process.slot == slot) {
                let excused = self.excuses(host.index, process, excused);
                if process.spec.exclusive == Some(true) && process.token < token && !excused {
                    return Err(format!(
                        "{slot} is granted as {token} while @{} still runs on host {}",
                        process.token, host.index
                    ));
                }
            }
        }
        Ok(())
    }

    fn ended_while_it_runs(
        &mut self,
        (slot, token): (SlotId, Token),
        node: &str,
        hosts: &[Host],
        evidence: &Evidence,
        revision: Revision,
        excused: &[usize],
    ) -> Judgement {
        let silence = matches!(evidence, Evidence::Silence { .. });
        self.ended.insert((slot.clone(), token), End { silence, revision });
        let judged = |host: &&Host| host.name.as_str() == node && !(silence && excused.contains(&host.index));
        for host in hosts.iter().filter(judged) {
            if let Some(process) = host.processes.iter().find(|p| p.slot == slot && p.token == token) {
                return Err(format!(
                    "{slot}@{} ended at revision {revision} by {evidence:?}, and it runs on host {}",
                    process.token, host.index
                ));
            }
        }
        Ok(())
    }

    /// A start under a claim that was never made, or has ended.
    pub(super) fn spawned(&self, host: usize, process: &Process, excused: &[usize]) -> Judgement {
        let id = (process.slot.clone(), process.token);
        if !self.granted.contains_key(&id) {
            return Err(format!("{}@{} was never granted", process.slot, process.token));
        }
        if self.ended.contains_key(&id) && !self.excuses(host, process, excused) {
            return Err(format!("{}@{} starts after its claim ended", process.slot, process.token));
        }
        Ok(())
    }
}

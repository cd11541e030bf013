//! A migration loses no state, and ends with one owner: what the new copy starts with is what lies on the
//! host it was fetched from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Judgement, Truth};
use crate::event::{Event, EventRecord};
use crate::ids::{OperationId, SlotId};
use crate::sim::host::{Host, Process};

/// Where each host last fetched each operation's state from, and what it put into place.
#[derive(Default)]
pub(super) struct Migrations {
    fetched: BTreeMap<(usize, OperationId), usize>,
    moved: BTreeMap<(usize, SlotId), (OperationId, u64)>,
    /// Where a staged copy was put into place: from then on the slot's own folder is the newest.
    started: BTreeSet<(usize, OperationId)>,
}

impl Migrations {
    pub(super) fn see(&mut self, truth: &Truth) {
        match truth {
            Truth::Fetched { from, to, operation } => {
                self.fetched.insert((*to, *operation), *from);
            }
            Truth::MovedIn { host, slot, operation, content } => {
                self.started.insert((*host, *operation));
                self.moved.insert((*host, slot.clone()), (*operation, *content));
            }
            Truth::Spawned { .. }
            | Truth::BeatSent { .. }
            | Truth::AnswerCame { .. }
            | Truth::Applied { .. }
            | Truth::Planned(_)
            | Truth::Refused(..)
            | Truth::Answered { .. } => {}
        }
    }

    /// A process that begins from moved state begins with all that its source has.
    pub(super) fn spawned(&mut self, host: usize, process: &Process, hosts: &[Host]) -> Judgement {
        let Some((operation, content)) = self.moved.remove(&(host, process.slot.clone())) else {
            return Ok(());
        };
        let source = self.fetched.get(&(host, operation)).and_then(|source| hosts.get(*source));
        let Some(source) = source else {
            return Err(format!("{} starts on host {host} from state that was never fetched", process.slot));
        };
        let staged = source.disk.staging.get(&operation);
        let staged = staged.filter(|_| !self.started.contains(&(source.index, operation)));
        let left = staged.or(source.disk.folders.get(&process.slot)).copied().unwrap_or(0);
        if content < left {
            return Err(format!(
                "{} starts on host {host} with state {content}; host {} had come to {left}",
                process.slot, source.index
            ));
        }
        Ok(())
    }
}

/// When a move ends, no two processes of an exclusive slot exist.
pub(super) fn ended(events: &[Arc<EventRecord>], hosts: &[Host]) -> Judgement {
    if !events.iter().any(|record| matches!(record.event, Event::OperationEnded { .. })) {
        return Ok(());
    }
    let mut owners: BTreeMap<&SlotId, usize> = BTreeMap::new();
    for host in hosts {
        for process in host.processes.iter().filter(|process| process.spec.exclusive == Some(true)) {
            if let Some(other) = owners.insert(&process.slot, host.index) {
                return Err(format!(
                    "{} runs on hosts {other} and {} as a move ends",
                    process.slot, host.index
                ));
            }
        }
    }
    Ok(())
}

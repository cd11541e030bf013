//! A migration loses no state, and ends with one owner: what the new copy starts with is what lies on the
//! host it was fetched from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evidence::Evidences;
use super::{Judgement, Truth, one_copy};
use crate::event::{Event, EventRecord};
use crate::ids::{OperationId, SlotId, Token};
use crate::sim::host::{Host, Process};
use crate::state::{MigrationPhase, MigrationRecord, OperationKind, State};

/// Where each host last fetched each operation's state from, and what it put into place.
#[derive(Default)]
pub(super) struct Migrations {
    fetched: BTreeMap<(usize, OperationId), usize>,
    moved: BTreeMap<(usize, SlotId, Token), (OperationId, u64)>,
    /// Where a staged copy was put into place: from then on the slot's own folder is the newest.
    started: BTreeSet<(usize, OperationId)>,
}

impl Migrations {
    pub(super) fn see(&mut self, truth: &Truth) {
        match truth {
            Truth::Fetched { from, to, operation } => {
                self.fetched.insert((*to, *operation), *from);
            }
            Truth::MovedIn { host, slot, token, operation, content } => {
                self.started.insert((*host, *operation));
                self.moved.insert((*host, slot.clone(), *token), (*operation, *content));
            }
            _ => {}
        }
    }

    /// A process that begins from moved state begins with all that its source has.
    pub(super) fn spawned(&mut self, host: usize, process: &Process, hosts: &[Host]) -> Judgement {
        let Some((operation, content)) = self.moved.remove(&(host, process.slot.clone(), process.token))
        else {
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

/// When a move ends, its slot has one owner by the log and no two processes of an exclusive one exist.
pub(super) fn ended(
    events: &[Arc<EventRecord>],
    state: &State,
    hosts: &[Host],
    evidence: &Evidences,
    excused: &[usize],
) -> Judgement {
    for record in events {
        let Event::OperationEnded { operation, well, .. } = &record.event else { continue };
        let Some(OperationKind::Migration(moved)) = state.operations.get(operation).map(|it| &it.kind) else {
            continue;
        };
        one_owner(state, moved, *well)?;
        let all = hosts.iter().flat_map(|host| host.processes.iter().map(|process| (host.index, process)));
        for (host, process) in all.filter(|(_, process)| process.slot == moved.slot) {
            let twin = one_copy::twins(host, process, hosts)
                .find(|(other, twin)| !evidence.excuses(*other, twin, excused));
            if let Some((other, _)) = twin.filter(|_| !evidence.excuses(host, process, excused)) {
                return Err(format!("{} runs on hosts {host} and {other} as its move ends", moved.slot));
            }
        }
    }
    Ok(())
}

/// One that went well leaves the slot with the target, under the token that the move was granted.
fn one_owner(state: &State, moved: &MigrationRecord, well: bool) -> Judgement {
    let exclusive = state.services.get(&moved.slot.service).is_some_and(|service| service.exclusive);
    let claims = state.slots.get(&moved.slot).map_or(&[][..], |slot| slot.claims.as_slice());
    // Several that a recovery found are no doing of the move: each is told to stop, or waits to be heard of.
    let recovered = state.cluster.recovery.as_ref().map(|recovery| recovery.epoch);
    let granted_since = claims.iter().any(|claim| recovered.is_none_or(|epoch| claim.token.epoch >= epoch));
    if exclusive && claims.len() > 1 && granted_since {
        return Err(format!("{} has {} owners as its move ends", moved.slot, claims.len()));
    }
    let at_target = claims.iter().any(|claim| Some(&claim.node) == moved.target.as_ref());
    if well && moved.phase == MigrationPhase::Done && !at_target {
        return Err(format!("{} is not with {:?} as its move ends well", moved.slot, moved.target));
    }
    Ok(())
}

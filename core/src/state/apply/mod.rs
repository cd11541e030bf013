//! The only way State changes: one log entry of proposals, applied in order, alike on every node. Total:
//! whatever it is given, it answers; a refusal changes nothing. Knows no clock and nothing observed.

mod advance;
mod claims;
mod clients;
mod cluster;
mod kv;
pub mod limits;
mod migration;
mod nodes;
mod operations;
#[cfg(test)]
mod random;
mod recovery;
#[cfg(test)]
mod recovery_tests;
mod services;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Answer, Rejection, Reply, State, codec};
use crate::command::{Actor, Command, Proposal};
use crate::event::{Event, EventRecord};
use crate::ids::{Revision, SlotId};
use crate::units::WallMs;

/// What one entry did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// One for each proposal, in their order.
    pub answers: Vec<Answer>,
    /// What happened, in order.
    pub events: Vec<Arc<EventRecord>>,
    /// Which keys changed, in order.
    pub kv: Vec<KvChange>,
}

/// One change of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvChange {
    /// The revision that changed it.
    pub revision: Revision,
    /// Which key.
    pub key: Vec<u8>,
    /// Its new value; `None` when it is gone.
    pub value: Option<Vec<u8>>,
    /// Gone because its time ran out.
    pub expired: bool,
}

/// Accepted or refused; a refusal has changed nothing.
type Outcome = Result<Reply, Rejection>;

/// One entry being applied.
struct Entry<'a> {
    state: &'a mut State,
    /// The current proposal's wall clock.
    at: WallMs,
    /// The current proposal's operator, if it has one.
    operator: Option<String>,
    events: Vec<Arc<EventRecord>>,
    kv: Vec<KvChange>,
    /// Slots that used up this entry's token: one decision a slot and entry.
    tokens: BTreeSet<SlotId>,
}

impl State {
    /// Applies one log entry. `revision` is its index and must be above the last; the same entry twice is
    /// refused as a whole.
    pub fn apply(&mut self, revision: Revision, proposals: &[Proposal]) -> Applied {
        self.apply_each(revision, proposals.iter().map(Ok))
    }

    /// As [`State::apply`] for proposals and answers in their stored form.
    pub fn apply_entry(
        &mut self,
        revision: Revision,
        proposals: &[impl AsRef<[u8]>],
    ) -> (Vec<Vec<u8>>, Applied) {
        let read: Vec<_> = proposals.iter().map(|bytes| codec::decode_proposal(bytes.as_ref())).collect();
        let applied = self.apply_each(revision, read.iter().map(|one| one.as_ref().map_err(Clone::clone)));
        (applied.answers.iter().map(codec::encode_answer).collect(), applied)
    }

    fn apply_each<'p>(
        &mut self,
        revision: Revision,
        proposals: impl Iterator<Item = Result<&'p Proposal, Rejection>>,
    ) -> Applied {
        if revision <= self.revision {
            let refusal = refused(
                format!("revision {revision} is not above the last applied {}", self.revision),
                "replay the log from the last applied entry",
            );
            let answer = Answer { revision: self.revision, result: Err(refusal) };
            return Applied { answers: proposals.map(|_| answer.clone()).collect(), ..Applied::default() };
        }
        self.revision = revision;
        let mut entry = Entry {
            state: self,
            at: WallMs(0),
            operator: None,
            events: Vec::new(),
            kv: Vec::new(),
            tokens: BTreeSet::new(),
        };
        let answers = proposals
            .map(|proposal| match proposal {
                Ok(proposal) => entry.answer(proposal),
                Err(unreadable) => Answer { revision, result: Err(unreadable) },
            })
            .collect();
        entry.alarm();
        let Entry { events, kv, .. } = entry;
        Applied { answers, events, kv }
    }
}

impl Entry<'_> {
    /// The answer to one proposal: remembered, or worked out and remembered.
    fn answer(&mut self, proposal: &Proposal) -> Answer {
        self.at = proposal.at;
        self.operator = match &proposal.actor {
            Actor::Planner | Actor::Node(_) => None,
            Actor::Operator { name, from } => Some(by_line(name, from)),
        };
        if let Some(answer) = proposal.request.as_ref().and_then(|request| self.remembered(request)) {
            return answer;
        }
        let result = self.fresh(proposal).and_then(|()| self.run(&proposal.command));
        let answer = Answer { revision: self.state.revision, result };
        if let Some(request) = &proposal.request {
            self.remember(request, &answer);
        }
        answer
    }

    fn run(&mut self, command: &Command) -> Outcome {
        if self.state.cluster.id.0.is_empty() && !matches!(command, Command::Bootstrap { .. }) {
            return Err(refused("there is no cluster yet", "bootstrap one first"));
        }
        match command {
            Command::Bootstrap { cluster, name, settings } => self.bootstrap(cluster, name, settings),
            Command::Recover(recovery) => self.recover(recovery),
            Command::TakeInventory { .. } => self.take_inventory(command),
            Command::ChangeSettings(changes) => self.change_settings(changes),
            Command::AdmitNode(admission) => self.admit_node(admission),
            Command::UpdateNode(facts) => self.update_node(facts),
            Command::MarkLost { node, lease_epoch, because } => self.mark_lost(node, *lease_epoch, because),
            Command::Rejoin { node, boot, lease_epoch, holds } => {
                self.rejoin(node, boot, *lease_epoch, holds)
            }
            Command::Cordon { node, on } => self.cordon(node, *on),
            Command::AttestDead { node, reason } => self.attest_dead(node, reason),
            Command::Leave { node } => self.leave(node),
            Command::RemoveNode { node } => self.remove_node(node),
            Command::Deploy { spec } => self.deploy(spec),
            Command::Scale { service, replicas } => self.scale(service, *replicas),
            Command::Restart { service } => self.restart(service),
            Command::StopService { service } => self.stop_service(service),
            Command::DeleteService { service } => self.delete_service(service),
            Command::Grant { .. } => self.grant(command),
            Command::StopClaim { slot, token, because, operation: _ } => {
                self.stop_claim(slot, *token, because)
            }
            Command::EndClaim { slot, token, evidence } => self.end_claim(slot, *token, evidence),
            Command::Drain { node, max_in_flight } => self.drain(node, *max_in_flight),
            Command::Uncordon { node } => self.uncordon(node),
            Command::Migrate { slot, to, parent } => self.migrate(slot, to.as_ref(), *parent),
            Command::Fence { node, reason } => self.fence(node, reason),
            Command::CancelOperation { operation } => self.cancel(*operation),
            Command::Advance { operation, from, step } => self.advance(*operation, *from, step),
            Command::KvPut { key, value, ttl, if_revision } => self.kv_put(key, value, *ttl, *if_revision),
            Command::KvDelete { key, range_end } => self.kv_delete(key, range_end.as_deref()),
            Command::KvExpire { keys } => self.kv_expire(keys),
        }
    }

    /// Refuses a proposal whose ground moved since its proposer looked.
    fn fresh(&self, proposal: &Proposal) -> Result<(), Rejection> {
        let Some(expected) = proposal.expected else { return Ok(()) };
        match self.concern(&proposal.command) {
            Some((what, changed)) if changed > expected => Err(Rejection::Stale { what, changed, expected }),
            _ => Ok(()),
        }
    }

    /// What a command is about, and when that last changed.
    fn concern(&self, command: &Command) -> Option<(String, Revision)> {
        let state = &*self.state;
        let node = |id| state.nodes.get(id).map(|record| (format!("node {id}"), record.changed));
        let service = |id| state.services.get(id).map(|record| (format!("service {id}"), record.changed));
        let slot = |id| state.slots.get(id).map(|record| (format!("slot {id}"), record.changed));
        let operation =
            |id| state.operations.get(id).map(|record| (format!("operation {id}"), record.changed));
        match command {
            Command::Bootstrap { .. }
            | Command::Recover(_)
            | Command::KvDelete { .. }
            | Command::KvExpire { .. } => None,
            Command::ChangeSettings(_) => Some(("settings".to_owned(), state.cluster.settings_changed)),
            Command::AdmitNode(admission) => node(&admission.facts.node),
            Command::UpdateNode(facts) => node(&facts.node),
            Command::MarkLost { node: id, .. }
            | Command::TakeInventory { node: id, .. }
            | Command::Rejoin { node: id, .. }
            | Command::Cordon { node: id, .. }
            | Command::AttestDead { node: id, .. }
            | Command::Leave { node: id }
            | Command::RemoveNode { node: id }
            | Command::Drain { node: id, .. }
            | Command::Uncordon { node: id }
            | Command::Fence { node: id, .. } => node(id),
            Command::Deploy { spec } => service(&spec.name),
            Command::Scale { service: id, .. }
            | Command::Restart { service: id }
            | Command::StopService { service: id }
            | Command::DeleteService { service: id } => service(id),
            Command::Grant { slot: id, .. }
            | Command::StopClaim { slot: id, .. }
            | Command::EndClaim { slot: id, .. }
            | Command::Migrate { slot: id, .. } => slot(id),
            Command::CancelOperation { operation: id } | Command::Advance { operation: id, .. } => {
                operation(id)
            }
            Command::KvPut { key, .. } => {
                state.kv.get(key).map(|record| (format!("key {}", printable(key)), record.modified))
            }
        }
    }

    /// Records what happened.
    fn emit(&mut self, event: Event) {
        let record = Arc::new(EventRecord {
            revision: self.state.revision,
            at: self.at,
            by: self.operator.clone(),
            event,
        });
        self.state.events.push_back(record.clone());
        while self.state.events.len() > limits::EVENTS {
            self.state.events.pop_front();
        }
        self.events.push(record);
    }

    /// Who asks, for records that people read.
    fn asker(&self) -> String {
        self.operator.clone().unwrap_or_else(|| "quorate".to_owned())
    }

    /// Says aloud what must never be true of the slots this entry decided on.
    fn alarm(&mut self) {
        let slots = std::mem::take(&mut self.tokens);
        self.operator = None;
        for text in slots.iter().flat_map(|slot| self.state.check_slot(slot)).collect::<Vec<_>>() {
            self.emit(Event::Alarm(text));
        }
    }
}

fn by_line(name: &str, from: &str) -> String {
    let name = bounded(name, limits::NAME_BYTES);
    let from = bounded(from, limits::NAME_BYTES);
    if from.is_empty() { name } else { format!("{name} ({from})") }
}

/// A rule that forbids it, and what to do.
fn refused(because: impl Into<String>, remedy: impl Into<String>) -> Rejection {
    Rejection::Refused { because: because.into(), remedy: remedy.into() }
}

fn not_found(what: &str, name: impl ToString) -> Rejection {
    Rejection::NotFound { what: what.to_owned(), name: name.to_string() }
}

/// Text cut to at most `limit` bytes at a character's border, so that no caller fills State with words.
fn bounded(text: &str, limit: usize) -> String {
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].to_owned()
}

fn bounded_all(texts: &[String]) -> Vec<String> {
    texts.iter().take(limits::REASONS).map(|text| bounded(text, limits::TEXT_BYTES)).collect()
}

/// A key for people: its text, or its bytes where it has none.
fn printable(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => format!("{text:?}"),
        Err(_) => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

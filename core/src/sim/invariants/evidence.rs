//! No claim ends, and so nothing is granted elsewhere, while an instance of it truly runs or could still
//! start; and nothing ever starts again under a claim that ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Judgement;
use crate::event::{Event, EventRecord};
use crate::ids::{Revision, SlotId, Token};
use crate::sim::host::{Host, Process};

/// Every claim ever granted, with its host, and those that ended.
#[derive(Default)]
pub(super) struct Evidences {
    granted: BTreeMap<(SlotId, Token), usize>,
    ended: BTreeSet<(SlotId, Token)>,
    live: BTreeMap<SlotId, Vec<Token>>,
}

impl Evidences {
    /// A revision was committed: its events are judged against what the hosts truly do at this moment.
    pub(super) fn committed(
        &mut self,
        revision: Revision,
        events: &[Arc<EventRecord>],
        hosts: &[Host],
    ) -> Judgement {
        for record in events {
            match &record.event {
                Event::Granted { slot, node, token, .. } => {
                    let host = hosts.iter().position(|host| &host.name == node).unwrap_or(0);
                    self.granted.insert((slot.clone(), *token), host);
                    self.live.entry(slot.clone()).or_default().push(*token);
                    self.granted_over_a_living_one(slot, *token, hosts)?;
                }
                Event::ClaimEnded { slot, node, evidence } => {
                    self.ended_while_it_runs(slot, node.as_str(), hosts, &format!("{evidence:?}"), revision)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn granted_over_a_living_one(&self, slot: &SlotId, token: Token, hosts: &[Host]) -> Judgement {
        for host in hosts {
            for process in host.processes.iter().filter(|process| &process.slot == slot) {
                if process.spec.exclusive == Some(true) && process.token < token {
                    return Err(format!(
                        "{slot} is granted as {token} while @{} still runs on host {}",
                        process.token, host.index
                    ));
                }
            }
        }
        Ok(())
    }

    /// The event names the node, not the token: the oldest live claim there is the one that State ended,
    /// unless the slot had several on it.
    fn ended_while_it_runs(
        &mut self,
        slot: &SlotId,
        node: &str,
        hosts: &[Host],
        evidence: &str,
        revision: Revision,
    ) -> Judgement {
        let live = self.live.entry(slot.clone()).or_default();
        let there = |token: &Token| {
            let host = self.granted.get(&(slot.clone(), *token));
            host.and_then(|host| hosts.get(*host)).is_some_and(|host| host.name.as_str() == node)
        };
        let Some(at) = live.iter().position(there) else { return Ok(()) };
        let token = live.remove(at);
        self.ended.insert((slot.clone(), token));
        for host in hosts.iter().filter(|host| host.name.as_str() == node) {
            if let Some(process) = host.processes.iter().find(|p| &p.slot == slot && p.token == token) {
                return Err(format!(
                    "{slot}@{} ended at revision {revision} by {evidence}, and it runs on host {}",
                    process.token, host.index
                ));
            }
        }
        Ok(())
    }

    /// A start under a claim that was never made, or has ended.
    pub(super) fn spawned(&self, process: &Process) -> Judgement {
        let id = (process.slot.clone(), process.token);
        if !self.granted.contains_key(&id) {
            return Err(format!("{}@{} was never granted", process.slot, process.token));
        }
        if self.ended.contains(&id) {
            return Err(format!("{}@{} starts after its claim ended", process.slot, process.token));
        }
        Ok(())
    }
}

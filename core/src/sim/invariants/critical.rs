//! Critical instances, and those that are kept, run on without a lease: nothing of their own host ends them but
//! a committed stop, a failed health check, or their own crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Judgement;
use crate::effect::Isolation;
use crate::event::{Event, EventRecord};
use crate::ids::{NodeId, SlotId, Token};
use crate::observation::ExitKind;
use crate::sim::host::{Host, Process};
use crate::state::State;

#[derive(Default)]
pub(super) struct Critical {
    /// When each slot was last told to stop somewhere, or a claim of it ended, as a grant of that moment would say.
    told: BTreeMap<SlotId, Token>,
    /// When it was taken down what each node runs since a recovery, and what of that is claimed again. The rest the
    /// recovered cluster never heard of, and its node stops it.
    taken: BTreeMap<NodeId, (Token, BTreeSet<(SlotId, Token)>)>,
}

impl Critical {
    pub(super) fn committed(&mut self, at: Token, events: &[Arc<EventRecord>]) {
        for record in events {
            if let Event::StopOrdered { slot, .. } | Event::ClaimEnded { slot, .. } = &record.event {
                self.told.insert(slot.clone(), at);
            }
        }
    }

    pub(super) fn inventories(&mut self, at: Token, events: &[Arc<EventRecord>], state: &State) {
        for record in events {
            if let Event::InventoryTaken { node, .. } = &record.event {
                let claims = state.claims_on(node).map(|(slot, claim)| (slot.clone(), claim.token));
                self.taken.insert(node.clone(), (at, claims.collect()));
            }
        }
    }

    /// Until it was asked anew a node stops nothing for want of a claim.
    pub(super) fn forked(&mut self) {
        self.taken.clear();
    }

    fn unclaimed(&self, node: &NodeId, process: &Process) -> bool {
        let claim = (process.slot.clone(), process.token);
        self.taken.get(node).is_some_and(|(at, claims)| process.token < *at && !claims.contains(&claim))
    }

    pub(super) fn gone(&self, host: &Host, process: &Process, end: Option<ExitKind>) -> Judgement {
        if process.isolation != Isolation::Keep {
            return Ok(());
        }
        let because = match end {
            Some(ExitKind::LeaseExpired) => "because its lease ran out",
            Some(ExitKind::Stopped | ExitKind::Killed)
                if self.told.get(&process.slot).is_none_or(|at| *at <= process.token)
                    && !self.unclaimed(&host.name, process) =>
            {
                "with no order to stop it"
            }
            _ => return Ok(()),
        };
        Err(format!("{}@{} was stopped on host {} {because}", process.slot, process.token, host.index))
    }
}

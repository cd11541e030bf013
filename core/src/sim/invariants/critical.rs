//! Critical instances, and those that are kept, run on without a lease: nothing of their own host ends them but
//! a committed stop, a failed health check, or their own crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Judgement;
use crate::effect::Isolation;
use crate::event::{Event, EventRecord};
use crate::ids::{SlotId, Token};
use crate::observation::ExitKind;
use crate::sim::host::Process;

/// When each slot was last told to stop somewhere, or a claim of it ended, as a grant of that moment would say.
#[derive(Default)]
pub(super) struct Critical(BTreeMap<SlotId, Token>);

impl Critical {
    pub(super) fn committed(&mut self, at: Token, events: &[Arc<EventRecord>]) {
        for record in events {
            if let Event::StopOrdered { slot, .. } | Event::ClaimEnded { slot, .. } = &record.event {
                self.0.insert(slot.clone(), at);
            }
        }
    }

    pub(super) fn gone(&self, host: usize, process: &Process, end: Option<ExitKind>) -> Judgement {
        if process.isolation != Isolation::Keep {
            return Ok(());
        }
        let because = match end {
            Some(ExitKind::LeaseExpired) => "because its lease ran out",
            Some(ExitKind::Stopped | ExitKind::Killed)
                if self.0.get(&process.slot).is_none_or(|at| *at <= process.token) =>
            {
                "with no order to stop it"
            }
            _ => return Ok(()),
        };
        Err(format!("{}@{} was stopped on host {host} {because}", process.slot, process.token))
    }
}

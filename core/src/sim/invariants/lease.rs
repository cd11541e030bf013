//! Nothing starts without a live lease, but a crashed instance that may run without one, in place. Leases are
//! reckoned here a second time, from the heartbeats and answers that truly went over the network.

use std::collections::BTreeMap;

use super::{Judgement, Truth};
use crate::effect::Isolation;
use crate::ids::{LeaseEpoch, SlotId, Token};
use crate::sim::Count;
use crate::sim::ctx::Ctx;
use crate::sim::host::{Host, Process};
use crate::units::BootMs;

/// What is known of one host's lease.
#[derive(Debug, Default)]
struct Known {
    boots: u64,
    sent: BTreeMap<(u64, u64), BootMs>,
    epoch: LeaseEpoch,
    valid_until: BootMs,
    /// What ran in this boot, with its newest token.
    ran: BTreeMap<SlotId, Token>,
}

/// The leases of all hosts.
pub(super) struct Leases(Vec<Known>);

impl Leases {
    pub(super) fn new(hosts: usize) -> Self {
        Self((0..hosts).map(|_| Known::default()).collect())
    }

    /// When the lease of this boot ended or ends, if it had one.
    pub(super) fn valid_until(&self, host: &Host) -> Option<BootMs> {
        let known = self.0.get(host.index).filter(|known| known.boots == host.boots)?;
        (known.valid_until > BootMs(0)).then_some(known.valid_until)
    }

    fn of(&mut self, host: &Host) -> &mut Known {
        let known = &mut self.0[host.index];
        if known.boots != host.boots {
            let epoch = known.epoch;
            *known = Known { boots: host.boots, epoch, ..Known::default() };
        }
        known
    }

    pub(super) fn see(&mut self, truth: &Truth, hosts: &[Host], now_us: u64) {
        match truth {
            Truth::BeatSent { host, session, heartbeat, at } => {
                let known = self.of(&hosts[*host]);
                known.sent.insert((*session, *heartbeat), *at);
                if known.sent.len() > 200 {
                    known.sent.pop_first();
                }
            }
            Truth::AnswerCame { host, session, answer } => {
                let now = hosts[*host].clock(now_us);
                let known = self.of(&hosts[*host]);
                let Some(sent) = known.sent.get(&(*session, answer.heartbeat)) else { return };
                let until = *sent + answer.terms.lease;
                // Later than the lease it would give: it gives none, and starts no epoch.
                if until <= now {
                    return;
                }
                let expired = known.valid_until <= now;
                // A lease that ran out returns with a higher epoch alone; the first of a boot is new too.
                if answer.lease_epoch > known.epoch || !expired || known.valid_until == BootMs(0) {
                    known.valid_until = known.valid_until.max(until);
                    known.epoch = known.epoch.max(answer.lease_epoch);
                }
            }
            Truth::Spawned { host, process } => {
                self.of(&hosts[*host]).ran.insert(process.slot.clone(), process.token);
            }
            Truth::MovedIn { .. }
            | Truth::Fetched { .. }
            | Truth::Applied { .. }
            | Truth::Planned(_)
            | Truth::Refused(..)
            | Truth::Answered { .. } => {}
        }
    }

    pub(super) fn spawned(
        &mut self,
        host: usize,
        process: &Process,
        hosts: &[Host],
        ctx: &mut Ctx,
    ) -> Judgement {
        let now = hosts[host].clock(ctx.now);
        let known = self.of(&hosts[host]);
        if now < known.valid_until {
            return Ok(());
        }
        let in_place = process.restart > 0
            && process.isolation == Isolation::Keep
            && known.ran.get(&process.slot) == Some(&process.token);
        if in_place {
            ctx.count(Count::RestartsWithoutLease);
            return Ok(());
        }
        Err(format!(
            "host {host} starts {}@{} at {} on its clock; its lease ended at {}",
            process.slot, process.token, now.0, known.valid_until.0
        ))
    }
}

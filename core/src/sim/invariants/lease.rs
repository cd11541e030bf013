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
    disk: u64,
    sent: BTreeMap<(u64, u64), (BootMs, bool)>,
    /// Did both holders answer when the heartbeat was sent that gave the lease?
    armed: bool,
    /// The end that it had by the terms before.
    before: BootMs,
    /// By which terms it was given last.
    terms: u64,
    /// When that was sent.
    newest: BootMs,
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
        if host.run.terms < known.terms && known.before > BootMs(0) {
            // The guard has yet to hear of the terms that end it sooner.
            return Some(known.before.max(known.valid_until));
        }
        (known.valid_until > BootMs(0)).then_some(known.valid_until)
    }

    /// Did both holders of the deadlines answer when this boot's lease was asked for?
    pub(super) fn armed(&self, host: &Host) -> bool {
        self.0.get(host.index).is_some_and(|known| known.boots == host.boots && known.armed)
    }

    fn of(&mut self, host: &Host) -> &mut Known {
        let known = &mut self.0[host.index];
        if known.disk != host.disk.number {
            // With an empty disk it is another node, whose epochs begin anew.
            (known.disk, known.epoch) = (host.disk.number, LeaseEpoch(0));
        }
        if known.boots != host.boots {
            let epoch = known.epoch;
            *known = Known { boots: host.boots, disk: known.disk, epoch, ..Known::default() };
        }
        known
    }

    pub(super) fn see(&mut self, truth: &Truth, hosts: &[Host], now_us: u64) {
        match truth {
            Truth::BeatSent { host, session, heartbeat, at, armed } => {
                let known = self.of(&hosts[*host]);
                known.sent.insert((*session, *heartbeat), (*at, *armed));
                if known.sent.len() > 200 {
                    known.sent.pop_first();
                }
            }
            Truth::AnswerCame { host, session, answer } => {
                let now = hosts[*host].clock(now_us);
                // A lease whose epoch could not be kept never came into force: the guard was not told of it.
                if hosts[*host].disk.lease_epoch != Some(answer.lease_epoch) {
                    return;
                }
                let known = self.of(&hosts[*host]);
                let Some((sent, armed)) = known.sent.get(&(*session, answer.heartbeat)).copied() else {
                    return;
                };
                let until = sent + answer.terms.lease;
                // Later than the lease it would give: it gives none, and starts no epoch.
                if until <= now {
                    return;
                }
                let expired = known.valid_until <= now;
                // A lease that ran out returns with a higher epoch alone; the first of a boot is new too.
                if answer.lease_epoch > known.epoch || !expired || known.valid_until == BootMs(0) {
                    if sent > known.newest {
                        (known.newest, known.armed) = (sent, armed);
                    }
                    let number = answer.terms.number;
                    if number > known.terms {
                        // Newer terms may end it sooner.
                        known.before = known.valid_until;
                        (known.terms, known.valid_until) = (number, until);
                    }
                    known.valid_until = known.valid_until.max(until);
                    known.epoch = known.epoch.max(answer.lease_epoch);
                }
            }
            Truth::Spawned { host, process } => {
                self.of(&hosts[*host]).ran.insert(process.slot.clone(), process.token);
            }
            _ => {}
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
        // What an engine began in time may come late; with nobody there to hold it, it runs until somebody is.
        if now < known.valid_until || !hosts[host].holders_act() {
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

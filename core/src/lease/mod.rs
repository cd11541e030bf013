//! A node's time-bounded right to run instances: the lease itself, [`LeaseHolder`] for the node that holds
//! it and [`LeaseGranter`] for the leader that answers. Does not know how either is reached.

mod granter;
mod holder;

use serde::{Deserialize, Serialize};

pub use granter::{Asked, LeaseGranter};
pub use holder::{Beat, LeaseHolder, Renewal};

use crate::ids::{BootId, LeaseEpoch, Revision};
use crate::units::{BootMs, Millis};

/// The cluster-wide numbers that a lease and the evidence against it both rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// Counts changes of the terms.
    pub number: u64,
    /// Time from one heartbeat to the next.
    pub heartbeat: Millis,
    /// L: how long a lease lasts from the moment its heartbeat was sent.
    pub lease: Millis,
    /// How long a kill may take.
    pub kill_margin: Millis,
    /// rho: how far a clock's rate may be from true, in thousandths of a percent (1,000 is 1 %).
    pub clock_drift_pcm: u32,
}

/// What a node holds of its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The epoch it was given in.
    pub epoch: LeaseEpoch,
    /// Sent-at of the newest answered heartbeat, plus L.
    pub valid_until: BootMs,
    /// Nothing starts before this revision is applied.
    pub revision: Revision,
    /// The terms in force.
    pub terms: LeaseTerms,
    /// Set once the node noticed an expiry: only a committed rejoin with a higher epoch clears it.
    pub lost: bool,
}

/// The leader's answer to one heartbeat: the lease lasts until that was sent, plus L.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// Which heartbeat.
    pub heartbeat: u64,
    /// In which lease epoch.
    pub lease_epoch: LeaseEpoch,
    /// Nothing starts before this revision is applied.
    pub revision: Revision,
    /// The terms in force.
    pub terms: LeaseTerms,
}

/// What State says of a node, as far as its lease goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<'a> {
    /// Not committed lost.
    pub alive: bool,
    /// The boot it was let in.
    pub boot: &'a BootId,
    /// Raised by each rejoin.
    pub lease_epoch: LeaseEpoch,
    /// It promised that two holders have its deadlines.
    pub armed: bool,
}

impl Lease {
    /// May this node start what it was granted?
    pub fn live(&self, now: BootMs) -> bool {
        !self.lost && now < self.valid_until
    }

    /// The time left; nothing when it has expired or was lost.
    pub fn left(&self, now: BootMs) -> Millis {
        if self.lost { Millis(0) } else { now.until(self.valid_until) }
    }

    /// When an instance with this grace must be dead at the latest if no answer comes any more.
    pub fn deadline(&self, grace: Millis) -> BootMs {
        self.valid_until + grace
    }
}

impl LeaseTerms {
    /// How long after the last heartbeat's receipt silence proves, by guarded deadlines, that an
    /// instance with this grace is dead: (L + g + kill margin) x (1 + rho) / (1 - rho) + timer slack,
    /// rounded up.
    pub fn silence_wait(&self, grace: Millis) -> Millis {
        const TIMER_SLACK_MS: u64 = 50;
        const ONE: u128 = 100_000;
        let drift = u128::from(self.clock_drift_pcm).min(ONE / 2);
        let span = u128::from(self.lease.0 + grace.0 + self.kill_margin.0);
        let scaled = (span * (ONE + drift)).div_ceil(ONE - drift);
        Millis(u64::try_from(scaled).unwrap_or(u64::MAX).saturating_add(TIMER_SLACK_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_waits_longer_than_any_deadline_under_drift() {
        let terms = LeaseTerms {
            number: 1,
            heartbeat: Millis(1_000),
            lease: Millis(5_000),
            kill_margin: Millis(200),
            clock_drift_pcm: 1_000,
        };
        assert_eq!(terms.silence_wait(Millis(10_000)), Millis(15_508 + 50));
    }
}

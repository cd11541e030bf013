//! The node's side of its lease: numbers heartbeats, takes answers, notices expiry, and knows when only a
//! committed rejoin helps. Takes time and what State says as arguments; sends and stores nothing itself.

use std::collections::VecDeque;

use super::{Lease, LeaseAnswer, Standing};
use crate::ids::{BootId, LeaseEpoch};
use crate::units::BootMs;

/// Heartbeats whose answer may still come; older ones could only give a lease that is over.
const MAX_UNANSWERED: usize = 64;

/// A node process's lease, from the start of that process.
#[derive(Debug, Clone)]
pub struct LeaseHolder {
    boot: BootId,
    lease: Option<Lease>,
    /// A lease that an earlier process of this boot held, with its end: it may run out before any answer.
    inherited: Option<(LeaseEpoch, BootMs)>,
    /// The newest epoch whose lease ran out here: only a higher one counts.
    left: Option<LeaseEpoch>,
    /// Number and send time of heartbeats without an answer.
    sent: VecDeque<(u64, BootMs)>,
    next: u64,
    echo: u64,
    renewals: u64,
}

/// What a heartbeat says of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Counted from the start of the process.
    pub heartbeat: u64,
    /// The newest one answered.
    pub echo: u64,
    /// The epoch it believes to be in.
    pub lease_epoch: LeaseEpoch,
    /// It asks to be let back in.
    pub wants_rejoin: bool,
}

/// A lease that became longer: for the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// Rises with each renewal of this process.
    pub number: u64,
    /// When it ends now.
    pub valid_until: BootMs,
    /// Its epoch, to be stored before the first start under it: a restarted process asks for it.
    pub epoch: LeaseEpoch,
}

impl LeaseHolder {
    /// A node process starts in this boot. `stored` is the epoch of the last lease ever held with this data
    /// directory, `guarded` the lease's end as the guard of this boot holds it: while that is to come, the
    /// node goes on in its epoch; afterwards only a rejoin brings a lease back.
    pub fn new(boot: BootId, stored: Option<LeaseEpoch>, guarded: Option<BootMs>, now: BootMs) -> Self {
        let inherited = stored.map(|epoch| (epoch, guarded.unwrap_or_default()));
        let mut holder = Self {
            boot,
            lease: None,
            inherited,
            left: None,
            sent: VecDeque::new(),
            next: 1,
            echo: 0,
            renewals: 0,
        };
        holder.expire(now);
        holder
    }

    /// The lease as it stands; ask [`Lease::live`] before any start.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Notes an expiry. To be called before anything else is decided at `now`.
    pub fn expire(&mut self, now: BootMs) {
        if let Some((epoch, _)) = self.inherited.take_if(|(_, end)| now >= *end) {
            self.left = self.left.max(Some(epoch));
        }
        if let Some(lease) = self.lease.as_mut().filter(|lease| now >= lease.valid_until) {
            lease.lost = true;
            self.left = self.left.max(Some(lease.epoch));
        }
    }

    /// Does only a committed rejoin help? `own` is this node as its State has it.
    pub fn wants_rejoin(&self, own: Option<Standing<'_>>) -> bool {
        let Some(own) = own else { return false };
        !own.alive || own.boot != &self.boot || self.left.is_some_and(|left| own.lease_epoch <= left)
    }

    /// The next heartbeat, sent now.
    pub fn beat(&mut self, own: Option<Standing<'_>>, now: BootMs) -> Beat {
        self.expire(now);
        let heartbeat = self.next;
        self.next += 1;
        self.sent.push_back((heartbeat, now));
        if self.sent.len() > MAX_UNANSWERED {
            self.sent.pop_front();
        }
        let lease_epoch = own.map_or_else(LeaseEpoch::default, |own| own.lease_epoch);
        Beat { heartbeat, echo: self.echo, lease_epoch, wants_rejoin: self.wants_rejoin(own) }
    }

    /// Takes an answer to a heartbeat of this process. A renewal goes to the guard before anything starts
    /// under it; nothing comes of an answer that is late, repeated, or of an epoch that was left.
    pub fn answered(
        &mut self,
        answer: &LeaseAnswer,
        own: Option<Standing<'_>>,
        now: BootMs,
    ) -> Option<Renewal> {
        self.expire(now);
        let at = self.sent.iter().position(|(heartbeat, _)| *heartbeat == answer.heartbeat)?;
        let (heartbeat, sent) = self.sent[at];
        self.sent.drain(..=at);
        self.echo = self.echo.max(heartbeat);
        let valid_until = sent + answer.terms.lease;
        let current = own.is_some_and(|own| own.lease_epoch == answer.lease_epoch);
        if !current || self.wants_rejoin(own) || valid_until <= now {
            return None;
        }
        let before = self.lease.filter(|lease| lease.epoch == answer.lease_epoch);
        if before.is_some_and(|lease| lease.terms.number > answer.terms.number) {
            return None;
        }
        // Newer terms may end the lease sooner. Whoever says that it holds them must not go by the older.
        let same_terms = before.filter(|lease| lease.terms.number == answer.terms.number);
        let lease = Lease {
            epoch: answer.lease_epoch,
            valid_until: same_terms.map_or(valid_until, |lease| lease.valid_until.max(valid_until)),
            revision: before.map_or(answer.revision, |lease| lease.revision.max(answer.revision)),
            terms: answer.terms,
            lost: false,
        };
        self.lease = Some(lease);
        self.inherited = None;
        self.renewals += 1;
        Some(Renewal { number: self.renewals, valid_until: lease.valid_until, epoch: lease.epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Revision;
    use crate::lease::LeaseTerms;
    use crate::units::Millis;

    const TERMS: LeaseTerms = LeaseTerms {
        number: 1,
        heartbeat: Millis(1_000),
        lease: Millis(5_000),
        kill_margin: Millis(200),
        clock_drift_pcm: 1_000,
    };

    fn boot() -> BootId {
        BootId("boot".to_owned())
    }

    fn standing(boot: &BootId, epoch: u64) -> Option<Standing<'_>> {
        Some(Standing { alive: true, boot, lease_epoch: LeaseEpoch(epoch), armed: false })
    }

    fn answer(heartbeat: u64, epoch: u64) -> LeaseAnswer {
        let (lease_epoch, revision) = (LeaseEpoch(epoch), Revision(10));
        LeaseAnswer { heartbeat, lease_epoch, revision, terms: TERMS }
    }

    #[test]
    fn a_lease_counts_from_the_sending_of_the_answered_heartbeat() {
        let boot = boot();
        let mut holder = LeaseHolder::new(boot.clone(), None, None, BootMs(0));
        holder.beat(standing(&boot, 1), BootMs(1_000));
        let renewal = holder.answered(&answer(1, 1), standing(&boot, 1), BootMs(3_000)).unwrap();
        assert_eq!(renewal.valid_until, BootMs(6_000));
        assert!(holder.lease().unwrap().live(BootMs(5_999)));
        assert_eq!(holder.answered(&answer(1, 1), standing(&boot, 1), BootMs(3_000)), None, "repeated");
    }

    #[test]
    fn an_expired_lease_returns_only_with_a_higher_epoch() {
        let boot = boot();
        let mut holder = LeaseHolder::new(boot.clone(), None, None, BootMs(0));
        holder.beat(standing(&boot, 1), BootMs(0));
        holder.beat(standing(&boot, 1), BootMs(4_000));
        holder.answered(&answer(1, 1), standing(&boot, 1), BootMs(100)).unwrap();
        assert_eq!(holder.answered(&answer(2, 1), standing(&boot, 1), BootMs(5_000)), None);
        assert!(holder.beat(standing(&boot, 1), BootMs(5_000)).wants_rejoin);
        assert!(!holder.lease().unwrap().live(BootMs(4_999)));
        let beat = holder.beat(standing(&boot, 2), BootMs(6_000));
        assert!(!beat.wants_rejoin);
        assert!(holder.answered(&answer(beat.heartbeat, 2), standing(&boot, 2), BootMs(6_100)).is_some());
    }

    #[test]
    fn a_restarted_process_goes_on_only_while_the_guard_still_holds_its_lease() {
        let boot = boot();
        let stored = Some(LeaseEpoch(3));
        let held = LeaseHolder::new(boot.clone(), stored, Some(BootMs(900)), BootMs(800));
        assert!(!held.wants_rejoin(standing(&boot, 3)));
        let over = LeaseHolder::new(boot.clone(), stored, Some(BootMs(900)), BootMs(900));
        assert!(over.wants_rejoin(standing(&boot, 3)));
        // Its State may be old: catching up to the epoch that was left is no rejoin.
        assert!(over.wants_rejoin(standing(&boot, 2)));
        assert!(!over.wants_rejoin(standing(&boot, 4)));
        let other = BootId("older".to_owned());
        assert!(over.wants_rejoin(standing(&other, 4)));
    }

    #[test]
    fn a_lease_that_runs_out_between_a_restart_and_the_first_answer_returns_only_by_a_rejoin() {
        let boot = boot();
        let mut holder = LeaseHolder::new(boot.clone(), Some(LeaseEpoch(3)), Some(BootMs(900)), BootMs(800));
        holder.beat(standing(&boot, 3), BootMs(850));
        assert_eq!(holder.answered(&answer(1, 3), standing(&boot, 3), BootMs(950)), None);
        assert!(holder.beat(standing(&boot, 3), BootMs(960)).wants_rejoin);
    }

    #[test]
    fn a_lease_under_newer_and_shorter_terms_ends_by_them_and_never_again_by_the_older() {
        let boot = boot();
        let mut holder = LeaseHolder::new(boot.clone(), None, None, BootMs(0));
        for at in [1_000, 1_500, 2_000] {
            holder.beat(standing(&boot, 1), BootMs(at));
        }
        holder.answered(&answer(1, 1), standing(&boot, 1), BootMs(1_100)).unwrap();
        let shorter = LeaseTerms { number: 2, lease: Millis(1_000), ..TERMS };
        let renewal = holder.answered(
            &LeaseAnswer { terms: shorter, ..answer(2, 1) },
            standing(&boot, 1),
            BootMs(1_600),
        );
        assert_eq!(renewal.unwrap().valid_until, BootMs(2_500), "not the 6.0 s of the older terms");
        assert_eq!(holder.answered(&answer(3, 1), standing(&boot, 1), BootMs(2_100)), None, "older terms");
    }

    #[test]
    fn an_answer_that_comes_after_its_own_lease_is_over_gives_nothing() {
        let boot = boot();
        let mut holder = LeaseHolder::new(boot.clone(), None, None, BootMs(0));
        holder.beat(standing(&boot, 1), BootMs(0));
        assert_eq!(holder.answered(&answer(1, 1), standing(&boot, 1), BootMs(5_000)), None);
        assert!(holder.lease().is_none());
    }
}

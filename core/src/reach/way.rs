//! What probes over one way add up to: does it work, since when, how well. Time is an argument.

use std::collections::VecDeque;

use super::{ArbiterReport, LinkFault, LinkReport};
use crate::ids::{NodeId, Segment};
use crate::units::{BootMs, Millis};

/// So many lost probes in a row make a way broken: one alone may be chance.
pub const LOST_IN_A_ROW: u32 = 2;
/// Probes that loss is counted over.
const WINDOW: u32 = 100;
/// Changes that are remembered, and for how long.
const CHANGES: usize = 8;
const REMEMBERED: Millis = Millis(60_000);

/// One way under observation.
#[derive(Debug, Clone)]
pub struct Way {
    /// One bit a probe, the newest lowest; set where it was lost.
    lost: u128,
    probes: u32,
    misses: u32,
    ok: bool,
    since: BootMs,
    fault: Option<LinkFault>,
    rtt_us: Option<u32>,
    last_good: Option<BootMs>,
    heard: Option<BootMs>,
    changes: VecDeque<BootMs>,
}

impl Way {
    /// A way that nobody has tried yet.
    pub fn new(now: BootMs) -> Self {
        Self {
            lost: 0,
            probes: 0,
            misses: 0,
            ok: false,
            since: now,
            fault: None,
            rtt_us: None,
            last_good: None,
            heard: None,
            changes: VecDeque::new(),
        }
    }

    /// Is enough known to say something of it?
    pub fn tried(&self) -> bool {
        self.ok || self.misses >= LOST_IN_A_ROW
    }

    /// Do probes come back?
    pub fn ok(&self) -> bool {
        self.ok
    }

    /// The usual round trip, in microseconds.
    pub fn rtt_us(&self) -> Option<u32> {
        self.rtt_us
    }

    /// A probe came back. True when the way had been broken.
    pub fn good(&mut self, now: BootMs, rtt_us: u32) -> bool {
        self.count(false);
        (self.misses, self.fault) = (0, None);
        // Smoothed, so that one late answer does not read as a slow way.
        self.rtt_us = Some(self.rtt_us.map_or(rtt_us, |usual| usual - usual / 8 + rtt_us / 8));
        let first = self.last_good.replace(now).is_none();
        self.heard(now);
        let mended = !self.ok;
        if mended {
            self.turn(now, true);
        }
        if first {
            // The first time that anything came back is the beginning, no change.
            self.changes.clear();
        }
        mended
    }

    /// A probe did not come back. True when that broke the way.
    pub fn missed(&mut self, now: BootMs, fault: LinkFault) -> bool {
        self.count(true);
        self.misses = self.misses.saturating_add(1);
        self.fault = Some(fault);
        let broke = self.ok && self.misses >= LOST_IN_A_ROW;
        if broke {
            self.turn(now, false);
        }
        broke
    }

    /// Something of the other end came in, of whatever kind.
    pub fn heard(&mut self, now: BootMs) {
        self.heard = Some(self.heard.map_or(now, |heard| heard.max(now)));
    }

    fn count(&mut self, lost: bool) {
        self.lost = (self.lost << 1 | u128::from(lost)) & ((1 << WINDOW) - 1);
        self.probes = (self.probes + 1).min(WINDOW);
    }

    fn turn(&mut self, now: BootMs, ok: bool) {
        self.ok = ok;
        self.since = now;
        self.changes.push_front(now);
        self.changes.truncate(CHANGES);
    }

    fn loss_percent(&self) -> u8 {
        let percent = self.lost.count_ones() * 100 / self.probes.max(1);
        u8::try_from(percent).unwrap_or(100)
    }

    /// The cell of the matrix, as of now.
    pub fn report(&self, to: &NodeId, segment: &Segment, now: BootMs) -> LinkReport {
        let ago = |at: BootMs| now.since(at);
        let changes = self.changes.iter().map(|at| ago(*at)).filter(|age| *age < REMEMBERED);
        LinkReport {
            to: to.clone(),
            segment: segment.clone(),
            ok: self.ok,
            fault: self.fault.filter(|_| !self.ok),
            rtt_us: self.rtt_us.map(rounded),
            loss_percent: self.loss_percent(),
            misses: self.misses,
            last_good: self.last_good.map(ago),
            heard: self.heard.map(ago),
            since: ago(self.since),
            changes: changes.collect(),
        }
    }

    /// The same of an arbiter.
    pub fn arbiter(&self, name: &str, now: BootMs) -> ArbiterReport {
        ArbiterReport {
            name: name.to_owned(),
            ok: self.ok,
            rtt_us: self.rtt_us.map(rounded),
            loss_percent: self.loss_percent(),
            misses: self.misses,
            last_good: self.last_good.map(|at| now.since(at)),
            since: now.since(self.since),
        }
    }
}

/// Two significant digits: more would be noise that has to be sent about.
fn rounded(us: u32) -> u32 {
    let scale = 10_u32.pow(us.checked_ilog10().unwrap_or(0).saturating_sub(1));
    us / scale * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(way: &Way, now: u64) -> LinkReport {
        way.report(&NodeId::new("n2").unwrap(), &Segment::new("mgmt").unwrap(), BootMs(now))
    }

    #[test]
    fn one_lost_probe_breaks_nothing_and_two_in_a_row_do() {
        let mut way = Way::new(BootMs(0));
        assert!(!way.tried());
        assert!(way.good(BootMs(10), 300));
        assert!(!way.missed(BootMs(20), LinkFault::Silent) && way.ok());
        assert!(!way.good(BootMs(30), 300));
        assert!(!way.missed(BootMs(40), LinkFault::Silent));
        assert!(way.missed(BootMs(50), LinkFault::Silent));
        assert!(!way.missed(BootMs(60), LinkFault::Refused), "it is broken already");
        let seen = report(&way, 100);
        assert_eq!((seen.ok, seen.misses, seen.fault), (false, 3, Some(LinkFault::Refused)));
        assert_eq!((seen.since, seen.last_good), (Millis(50), Some(Millis(70))));
        assert_eq!(seen.loss_percent, 66);
        assert_eq!(seen.changes, [Millis(50)], "the first answer is the beginning, no change");
    }

    #[test]
    fn a_way_that_never_worked_has_not_changed_when_it_first_does() {
        let mut way = Way::new(BootMs(0));
        way.missed(BootMs(10), LinkFault::Refused);
        assert!(!way.tried());
        way.missed(BootMs(20), LinkFault::Refused);
        assert!(way.tried() && !way.ok());
        way.good(BootMs(30), 100);
        assert_eq!(report(&way, 40).changes, []);
    }

    #[test]
    fn changes_are_few_and_forgotten_after_a_minute() {
        let mut way = Way::new(BootMs(0));
        for at in 0..40 {
            way.good(BootMs(at * 1_000), 100);
            way.missed(BootMs(at * 1_000 + 100), LinkFault::Silent);
            way.missed(BootMs(at * 1_000 + 200), LinkFault::Silent);
        }
        let seen = report(&way, 40_000);
        assert_eq!(seen.changes.len(), CHANGES);
        assert!(seen.changes.is_sorted(), "newest first: {:?}", seen.changes);
        assert_eq!(seen.loss_percent, 67);
        assert!(report(&way, 140_000).changes.is_empty());
    }

    #[test]
    fn loss_counts_the_last_hundred_only() {
        let mut way = Way::new(BootMs(0));
        for _ in 0..100 {
            way.missed(BootMs(1), LinkFault::Silent);
        }
        assert_eq!(report(&way, 2).loss_percent, 100);
        for _ in 0..95 {
            way.good(BootMs(3), 9);
        }
        assert_eq!(report(&way, 4).loss_percent, 5);
    }
}

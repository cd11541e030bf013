//! The simulated network: two segments, and on them each direction of each pair by itself, so that cuts can
//! be one-way. Messages are delayed, lost, doubled and overtake one another. Knows nothing of what it carries.

use super::random::Random;

/// The network between all hosts.
#[derive(Debug)]
pub(super) struct Network {
    /// Cut until, by (from, to), in true microseconds.
    cut: Vec<Vec<u64>>,
    /// Slow until, and by how much at most.
    slow: Vec<Vec<(u64, u64)>>,
    /// Lossy until, and how many percent.
    lossy: (u64, u64),
    /// Each segment is lost until then.
    segments: [u64; SEGMENTS],
    /// The segment that each direction uses, and since when that one has failed it.
    paths: Vec<Vec<(usize, Option<u64>)>>,
    /// Nothing is lost by chance.
    calm: bool,
}

/// How many segments there are.
pub(super) const SEGMENTS: usize = 2;
/// A direction whose segment is lost uses the other after this, in microseconds.
const FAIL_OVER_US: u64 = 150_000;

impl Network {
    pub(super) fn new(hosts: usize, calm: bool) -> Self {
        Self {
            cut: vec![vec![0; hosts]; hosts],
            slow: vec![vec![(0, 0); hosts]; hosts],
            lossy: (0, 0),
            segments: [0; SEGMENTS],
            paths: vec![vec![(0, None); hosts]; hosts],
            calm,
        }
    }

    pub(super) fn lose_segment(&mut self, segment: usize, until: u64) {
        let lost = &mut self.segments[segment % SEGMENTS];
        *lost = until.max(*lost);
    }

    /// Does the segment that this direction uses carry anything now? If not, another is used soon.
    fn carried(&mut self, from: usize, to: usize, now: u64) -> bool {
        let (segment, failing) = &mut self.paths[from][to];
        if self.segments[*segment] <= now {
            *failing = None;
            return true;
        }
        let since = *failing.get_or_insert(now);
        if now - since >= FAIL_OVER_US {
            (*segment, *failing) = ((*segment + 1) % SEGMENTS, None);
        }
        false
    }

    /// Could a message pass over this segment now?
    pub(super) fn open(&self, from: usize, to: usize, segment: usize, now: u64) -> bool {
        self.cut[from][to] <= now && self.segments[segment % SEGMENTS] <= now
    }

    pub(super) fn cut(&mut self, from: usize, to: usize, until: u64) {
        self.cut[from][to] = self.cut[from][to].max(until);
    }

    pub(super) fn slow(&mut self, from: usize, to: usize, until: u64, most_ms: u64) {
        self.slow[from][to] = (until, most_ms);
    }

    pub(super) fn lossy(&mut self, until: u64, percent: u64) {
        self.lossy = (until, percent);
    }

    pub(super) fn heal(&mut self) {
        *self = Self::new(self.cut.len(), true);
    }

    /// When each copy of a message arrives, as delays in microseconds: none if it is lost.
    pub(super) fn delays(
        &mut self,
        from: usize,
        to: usize,
        now: u64,
        random: &mut Random,
    ) -> [Option<u64>; 2] {
        let usual = random.between(200, 3_000);
        if from == to {
            return [Some(usual / 4), None];
        }
        if self.cut[from][to] > now || !self.carried(from, to, now) {
            return [None, None];
        }
        let loss = if self.lossy.0 > now { self.lossy.1 } else { u64::from(!self.calm) };
        if random.percent(loss) {
            return [None, None];
        }
        let (slow_until, most_ms) = self.slow[from][to];
        let slow = if slow_until > now { random.below(most_ms * 1_000 + 1) } else { 0 };
        let straggles = !self.calm && random.percent(1);
        let tail = if straggles { random.below(400_000) } else { 0 };
        let double = (!self.calm && random.percent(2)).then(|| usual + slow + random.below(80_000));
        [Some(usual + slow + tail), double]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_way_cut_loses_one_direction_until_it_is_over() {
        let mut random = Random::new(1);
        let mut network = Network::new(2, false);
        network.cut(0, 1, 1_000);
        assert!((0..50).all(|_| network.delays(0, 1, 999, &mut random)[0].is_none()));
        assert!((0..50).any(|_| network.delays(1, 0, 999, &mut random)[0].is_some()));
        assert!((0..50).any(|_| network.delays(0, 1, 1_000, &mut random)[0].is_some()));
        network.cut(0, 1, 9_000);
        network.heal();
        assert!((0..200).all(|_| network.delays(0, 1, 2_000, &mut random)[0].is_some()));
    }

    #[test]
    fn a_lost_segment_costs_messages_until_the_other_is_used() {
        let mut random = Random::new(1);
        let mut network = Network::new(2, true);
        network.lose_segment(0, u64::MAX);
        assert!(network.delays(0, 1, 0, &mut random)[0].is_none());
        assert!(network.delays(0, 1, FAIL_OVER_US, &mut random)[0].is_none());
        assert!(network.delays(0, 1, FAIL_OVER_US + 1, &mut random)[0].is_some());
        network.lose_segment(1, u64::MAX);
        assert!((1..9).all(|n| network.delays(0, 1, FAIL_OVER_US * (n + 2), &mut random)[0].is_none()));
    }
}

//! Counts values by powers of two. Has the names that openraft uses of the registry's `base2histogram`, whose first
//! histogram builds tables of 24 MiB for every resolution it offers. Nobody reads these counts: they appear only
//! with openraft's feature `runtime-stats`, which needs `AsciiChart::detailed` and so the registry's crate.

use std::fmt;
use std::marker::PhantomData;

/// One bucket for 0, and one for each number of significant bits.
const BUCKETS: usize = 65;

/// How many values of each magnitude were recorded.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64; BUCKETS]>,
    _slots: PhantomData<T>,
}

/// Some percentiles, each as the largest value that its bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the percentile that its name says")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, .. } = self;
        write!(f, "{samples} samples, p50 {p50}, p90 {p90}, p99 {p99}")
    }
}

/// Histograms to be drawn together; nobody does.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    series: Vec<(String, Histogram)>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").field("stats", &self.percentile_stats()).finish()
    }
}

impl<T> Histogram<T> {
    /// Nothing recorded.
    pub fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), _slots: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[bucket] = self.counts[bucket].saturating_add(times);
    }

    /// How many values were recorded.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// All percentiles at once.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.permille(1),
            p1: self.permille(10),
            p5: self.permille(50),
            p10: self.permille(100),
            p50: self.permille(500),
            p90: self.permille(900),
            p99: self.permille(990),
            p99_9: self.permille(999),
        }
    }

    /// The largest value of the bucket that holds the value at this share of all.
    fn permille(&self, share: u64) -> u64 {
        let wanted = (u128::from(self.total()) * u128::from(share)).div_ceil(1_000).max(1);
        let mut seen = 0_u128;
        let bucket = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= wanted
        });
        match bucket {
            None | Some(0) => 0,
            Some(bits) => u64::MAX >> (BUCKETS - 1 - bits),
        }
    }
}

impl AsciiChart {
    /// Without histograms.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.series.push((name.into(), histogram));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_name_the_top_of_their_bucket() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        histogram.record(0);
        histogram.record_n(5, 8);
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p1, stats.p50, stats.p99), (10, 0, 7, u64::MAX));
    }
}

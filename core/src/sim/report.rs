//! Many seeds in one report: what `quorate sim` prints and CI asserts on.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Count, Outcome, Violation};

/// The sum of many outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// How many seeds ran.
    pub seeds: u64,
    /// How much happened in all.
    pub steps: u64,
    /// True time in all, in milliseconds.
    pub virtual_ms: u64,
    /// What was broken, by seed.
    pub violations: Vec<Violation>,
    /// How often what happened, in all.
    pub counts: BTreeMap<Count, u64>,
}

impl Report {
    /// Adds the outcome of one seed.
    pub fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        self.virtual_ms += outcome.virtual_ms;
        self.violations.extend(outcome.violations);
        for (what, count) in outcome.counts {
            *self.counts.entry(what).or_insert(0) += count;
        }
    }
}

//! Turns single probes of one instance into its health. Pure: asks nothing itself.

use quorate_core::observation::Health;
use quorate_core::spec::HealthCheck;
use quorate_core::units::Millis;

/// The health of one run so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    health: Health,
    failures: u32,
    successes: u32,
    detail: String,
}

/// Longer words of a probe are cut.
const MOST_CHARACTERS: usize = 200;

impl Tally {
    /// Before the first probe.
    pub fn new() -> Self {
        Self { health: Health::Starting, failures: 0, successes: 0, detail: "not probed yet".to_owned() }
    }

    /// Takes one probe's outcome in, seen this long after the run began.
    pub fn count(&mut self, check: &HealthCheck, outcome: Result<String, String>, age: Millis) {
        let (good, words) = match outcome {
            Ok(words) => (true, words),
            Err(words) => (false, words),
        };
        self.detail = words.chars().take(MOST_CHARACTERS).collect();
        if good {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            if self.successes >= check.successes {
                self.health = Health::Healthy;
            }
            return;
        }
        self.successes = 0;
        // Whoever has never been healthy is given time to come up.
        if self.health == Health::Starting && age < check.start_period {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= check.failures {
            self.health = Health::Unhealthy;
        }
    }

    /// What it is.
    pub fn health(&self) -> Health {
        self.health
    }

    /// What the last probe said.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::spec::HealthProbe;

    use super::*;

    fn check() -> HealthCheck {
        HealthCheck {
            probe: HealthProbe::Tcp { port: 1 },
            interval: Millis(1_000),
            timeout: Millis(500),
            failures: 3,
            successes: 2,
            start_period: Millis(5_000),
        }
    }

    fn after(outcomes: &[(bool, u64)]) -> Health {
        let mut tally = Tally::new();
        for (good, age) in outcomes {
            let outcome = if *good { Ok("fine".to_owned()) } else { Err("refused".to_owned()) };
            tally.count(&check(), outcome, Millis(*age));
        }
        tally.health()
    }

    #[test]
    fn failures_while_starting_do_not_count_until_the_period_is_over() {
        assert_eq!(after(&[(false, 100), (false, 200), (false, 300), (false, 400)]), Health::Starting);
        assert_eq!(after(&[(false, 100), (false, 5_000), (false, 6_000)]), Health::Starting);
        assert_eq!(after(&[(false, 5_000), (false, 6_000), (false, 7_000)]), Health::Unhealthy);
    }

    #[test]
    fn health_needs_its_successes_in_a_row_and_is_lost_by_failures_in_a_row() {
        assert_eq!(after(&[(true, 100), (false, 200), (true, 300)]), Health::Starting);
        assert_eq!(after(&[(true, 100), (true, 200)]), Health::Healthy);
        // Once it was healthy, the start period protects it no more.
        let mut outcomes = vec![(true, 100), (true, 200), (false, 300), (false, 400)];
        assert_eq!(after(&outcomes), Health::Healthy);
        outcomes.push((false, 500));
        assert_eq!(after(&outcomes), Health::Unhealthy);
        outcomes.extend([(true, 600), (true, 700)]);
        assert_eq!(after(&outcomes), Health::Healthy);
    }

    #[test]
    fn long_words_are_cut() {
        let mut tally = Tally::new();
        tally.count(&check(), Err("ä".repeat(1_000)), Millis(0));
        assert_eq!(tally.detail().chars().count(), MOST_CHARACTERS);
    }
}

//! Makes a world that breaks as small as it can be: faults are taken away, halves first, then one by one, then
//! chance and operators, then what is left is made shorter, as long as the same invariant still breaks. What
//! remains is a scenario that shows it again.

use super::faults::Fault;
use super::scenario::{Scenario, Setting};
use super::script::{Deed, Step};
use super::world::World;
use super::{Options, Violation, run};

/// Worlds that are tried at most.
const MOST_RUNS: u32 = 400;
/// A smaller world may break so much later than the first.
const PATIENCE_MS: u64 = 4_000;
/// A length that is not worth halving any more, in milliseconds.
const SHORT_MS: u64 = 60;

/// The smallest world found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// It, as a scenario.
    pub scenario: Scenario,
    /// How it breaks.
    pub violation: Violation,
    /// Faults of the world as it was drawn.
    pub drawn: usize,
    /// Worlds that were tried.
    pub runs: u32,
}

struct Search<'a> {
    seed: u64,
    base: &'a Options,
    /// A world that is whole by then is taken for whole.
    until_us: u64,
    violation: Violation,
    runs: u32,
    steps: Vec<Step>,
    operators: bool,
    chance: bool,
}

/// Shrinks the drawn world of a seed; nothing if no invariant breaks in it.
pub fn shrink(seed: u64, options: &Options) -> Option<Shrunk> {
    let base = Options { keep_transcript: false, script: None, instead: None, ..options.clone() };
    let violation = run(seed, &base).violations.into_iter().next()?;
    let steps = World::new(seed, &base).steps().to_vec();
    let (operators, chance) = (base.operators, base.chance);
    let count = steps.len();
    let until_us = (violation.at_ms + PATIENCE_MS) * 1_000;
    let mut search = Search { seed, base: &base, until_us, violation, runs: 1, steps, operators, chance };
    // What comes after the breach had no part in it.
    let end_us = (search.violation.at_ms + 1) * 1_000;
    let early: Vec<Step> = search.steps.iter().filter(|step| step.at_us <= end_us).cloned().collect();
    search.with_steps(early);
    loop {
        let before = (search.steps.clone(), search.operators, search.chance);
        search.drop_parts();
        search.quieten();
        search.shorten();
        search.round();
        if (search.steps.clone(), search.operators, search.chance) == before {
            break;
        }
    }
    let Search { violation, runs, mut steps, operators, chance, .. } = search;
    steps.sort_by_key(|step| step.at_us);
    let about = format!("breaks: {}", violation.invariant.replace('_', " "));
    let world = Setting::Drawn { faults: base.faults, operators, chance };
    let scenario = Scenario { about, seed, world, lasts_ms: base.faults_ms, steps, expect: Vec::new() };
    Some(Shrunk { scenario, violation, drawn: count, runs })
}

/// How a world breaks, if it does before this moment.
fn broken_within(seed: u64, options: &Options, until_us: u64) -> Option<Violation> {
    let mut world = World::new(seed, options);
    while world.goes_on() && world.next_us().is_some_and(|next| next <= until_us) {
        world.step();
    }
    world.outcome().violations.into_iter().next()
}

impl Search<'_> {
    /// Does it still break so?
    fn breaks(&mut self, steps: &[Step], operators: bool, chance: bool) -> bool {
        if self.runs >= MOST_RUNS {
            return false;
        }
        self.runs += 1;
        let options = Options { instead: Some(steps.into()), operators, chance, ..self.base.clone() };
        let found = broken_within(self.seed, &options, self.until_us);
        match found.filter(|found| found.invariant == self.violation.invariant) {
            Some(found) => {
                self.violation = found;
                true
            }
            None => false,
        }
    }

    /// Goes on with these faults if it still breaks.
    fn with_steps(&mut self, steps: Vec<Step>) -> bool {
        let smaller = steps != self.steps && self.breaks(&steps, self.operators, self.chance);
        if smaller {
            self.steps = steps;
        }
        smaller
    }

    /// Without halves, quarters, and so on down to single faults.
    fn drop_parts(&mut self) {
        if !self.steps.is_empty() && self.with_steps(Vec::new()) {
            return;
        }
        let mut size = self.steps.len().div_ceil(2);
        while size > 0 && !self.steps.is_empty() {
            let mut from = 0;
            while from < self.steps.len() {
                let to = (from + size).min(self.steps.len());
                let rest = [&self.steps[..from], &self.steps[to..]].concat();
                // What follows moves up when a part is gone.
                if !self.with_steps(rest) {
                    from = to;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    /// Without operators, and without chance.
    fn quieten(&mut self) {
        let steps = self.steps.clone();
        if self.operators && self.breaks(&steps, false, self.chance) {
            self.operators = false;
        }
        if self.chance && self.breaks(&steps, self.operators, false) {
            self.chance = false;
        }
    }

    /// Every fault as short as it may be: half of it, then half of that.
    fn shorten(&mut self) {
        for at in 0..self.steps.len() {
            while let Some(shorter) = halved(&self.steps[at]) {
                let mut steps = self.steps.clone();
                steps[at] = shorter;
                if !self.with_steps(steps) {
                    break;
                }
            }
        }
    }

    /// Moments and lengths that are easier to read.
    fn round(&mut self) {
        for at in 0..self.steps.len() {
            for grain_us in [500_000, 100_000, 10_000] {
                let mut steps = self.steps.clone();
                let step = &mut steps[at];
                step.at_us = (step.at_us + grain_us / 2) / grain_us * grain_us;
                if let Deed::Fault(fault) = &mut step.deed
                    && let Some(ms) = fault.length_mut()
                {
                    *ms = ms.div_ceil(10) * 10;
                }
                if steps == self.steps || self.with_steps(steps) {
                    break;
                }
            }
        }
    }
}

fn halved(step: &Step) -> Option<Step> {
    let mut step = step.clone();
    let Deed::Fault(fault) = &mut step.deed else { return None };
    let ms = fault.length_mut().filter(|ms| **ms > SHORT_MS)?;
    *ms /= 2;
    Some(step)
}

impl Fault {
    /// How long it lasts, where it does.
    fn length_mut(&mut self) -> Option<&mut u64> {
        match self {
            Fault::Restart { .. }
            | Fault::RestartOld { .. }
            | Fault::WallJump { .. }
            | Fault::Transfer { .. }
            | Fault::WipeRunning { .. } => None,
            Fault::Crash { ms, .. }
            | Fault::KillGuard { ms, .. }
            | Fault::KillTwin { ms, .. }
            | Fault::Reboot { ms, .. }
            | Fault::PowerLoss { ms }
            | Fault::FreezeNode { ms, .. }
            | Fault::FreezeGuard { ms, .. }
            | Fault::FreezeTwin { ms, .. }
            | Fault::FreezeBoth { ms, .. }
            | Fault::FreezeAll { ms, .. }
            | Fault::Pause { ms, .. }
            | Fault::Suspend { ms, .. }
            | Fault::Isolate { ms, .. }
            | Fault::OneWay { ms, .. }
            | Fault::Pair { ms, .. }
            | Fault::Split { ms, .. }
            | Fault::Mute { ms, .. }
            | Fault::Deaf { ms, .. }
            | Fault::LoseSegment { ms, .. }
            | Fault::Slow { ms, .. }
            | Fault::Lossy { ms, .. }
            | Fault::CrashLeader { ms }
            | Fault::FreezeLeader { ms }
            | Fault::IsolateLeader { ms }
            | Fault::IsolateAndCrash { ms, .. }
            | Fault::IsolateAndFreeze { ms, .. }
            | Fault::Wipe { ms, .. }
            | Fault::CopyDisk { ms, .. }
            | Fault::DiskFull { ms, .. }
            | Fault::EngineFails { ms, .. }
            | Fault::EngineHangs { ms, .. }
            | Fault::ForcedQuorum { ms, .. }
            | Fault::Restore { ms, .. } => Some(ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Broken;
    use crate::sim::switches::Plant;

    /// The first world that a planted bug breaks, shrunk, and played again from the file it is written to.
    #[track_caller]
    fn shrinks(plant: Plant, seeds: u64, most_left: usize) {
        let broken = Broken::by(plant);
        let options = Options { broken: broken.clone(), ..Options::default() };
        let breaks = |seed: &u64| !run(*seed, &options).violations.is_empty();
        let Some(seed) = (0..seeds).find(breaks) else { panic!("{plant:?} breaks none of {seeds} worlds") };
        let first = run(seed, &options).violations.remove(0);
        let Some(shrunk) = shrink(seed, &options) else { panic!("seed {seed} breaks no more") };
        assert_eq!(shrunk.violation.invariant, first.invariant);
        assert!(shrunk.drawn >= 12, "{}", shrunk.drawn);
        let steps = &shrunk.scenario.steps;
        assert!(
            steps.len() <= most_left,
            "{plant:?} in seed {seed}: {} faults are left: {steps:?}",
            steps.len()
        );
        let file = shrunk.scenario.to_yaml();
        let read = Scenario::parse(&file).unwrap_or_else(|errors| panic!("{file}\n{errors}"));
        assert_eq!(read, shrunk.scenario);
        let again = run(read.seed, &Options { broken, ..read.options() });
        assert_eq!(again.violations.first(), Some(&shrunk.violation), "{file}");
        println!("{plant:?}: seed {seed}, {} worlds tried\n{file}", shrunk.runs);
    }

    #[test]
    fn deadlines_that_nobody_enforces_shrink_to_what_ends_a_lease() {
        shrinks(Plant::ForgetDeadlines, 5, 1);
    }

    #[test]
    fn claims_forgotten_without_evidence_shrink_to_what_loses_a_node() {
        shrinks(Plant::ForgetClaimsOfLost, 30, 2);
    }

    #[test]
    fn a_bug_that_needs_no_fault_shrinks_to_none_and_to_a_quiet_world() {
        let options = Options { broken: Broken::by(Plant::SilentPlan), ..Options::default() };
        let Some(shrunk) = shrink(1, &options) else { panic!("seed 1 is whole") };
        assert_eq!(shrunk.scenario.steps, []);
        let quiet = Setting::Drawn { faults: 12, operators: false, chance: false };
        assert_eq!(shrunk.scenario.world, quiet);
    }

    #[test]
    fn a_world_that_is_whole_is_not_shrunk() {
        assert_eq!(shrink(3, &Options { faults_ms: 4_000, faults: 1, ..Options::default() }), None);
    }
}

//! `quorate sim`: whole clusters under faults on virtual time, drawn from a seed. The same seed gives the
//! same run, byte for byte.

use std::fmt::Write;
use std::io::{IsTerminal, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use quorate_core::document;
use quorate_core::sim::report::Report;
use quorate_core::sim::{self, Options, Outcome, Scenario, Shrunk, Violation};
use serde_json::json;

use crate::api::error::{ApiError, ErrorCode};
use crate::cockpit::simulated;
use crate::output::{Output, print, print_json};

/// The exit code for a violated invariant.
const VIOLATION: u8 = 10;
/// Violations that are printed whole; more are only counted.
const TOLD: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate sim --seeds 1..300            300 clusters, both ends included
  quorate sim --seed 4711               one, played in the cockpit
  quorate sim --seed 4711 --transcript  everything that happened in one
  quorate sim --seed 4711 --shrink      the fewest faults that still break it, as a scenario
  quorate sim --scenario split.yaml     a written world: played in the cockpit, or its story
  quorate sim --seeds 1..300 -o json

Exit code 10 means that an invariant was violated or that a scenario went otherwise than it expects.")]
pub(super) struct SimArgs {
    /// One seed
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Seeds from A to B, both included
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Option<RangeInclusive<u64>>,
    /// Print every line of what happened
    #[arg(long, requires = "seed")]
    transcript: bool,
    /// A written world: its file, or a folder with a scenario.yaml
    #[arg(long, value_name = "PATH", conflicts_with_all = ["seed", "seeds", "faults"])]
    scenario: Option<PathBuf>,
    /// Take away every fault that is not needed to break it, and print the rest as a scenario
    #[arg(long, requires = "seed", conflicts_with = "transcript")]
    shrink: bool,
    /// Print what came of it instead of playing it in the cockpit
    #[arg(long)]
    headless: bool,
    /// How many faults each run has
    #[arg(long, value_name = "N")]
    faults: Option<u32>,
}

fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let wrong = || format!("{text:?} is not two numbers such as 1..300");
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let first: u64 = first.parse().map_err(|_| wrong())?;
    let last: u64 = last.trim_start_matches('=').parse().map_err(|_| wrong())?;
    if first > last {
        return Err(format!("{first}..{last} is empty; the smaller seed comes first"));
    }
    Ok(first..=last)
}

pub(super) fn run(args: &SimArgs, output: Output) -> Result<u8, ApiError> {
    if let Some(path) = &args.scenario {
        return scenario(path, args, output);
    }
    let seeds = match (&args.seed, &args.seeds) {
        (Some(seed), _) => *seed..=*seed,
        (None, Some(seeds)) => seeds.clone(),
        (None, None) => {
            return Err(ApiError::new(
                ErrorCode::Usage,
                "no seed given",
                "use --seed N for one run, --seeds A..B for many, or --scenario PATH",
            ));
        }
    };
    let mut options = Options { keep_transcript: args.transcript, ..Options::default() };
    options.faults = args.faults.unwrap_or(options.faults);
    if let Some(seed) = args.seed {
        if args.shrink {
            return shrink(seed, &options, output);
        }
        if !args.transcript && played(args, output) {
            return watched(simulated::play(seed, &options, &format!("seed {seed}"))?);
        }
    }
    let outcomes = run_all(seeds, &options, output);
    let mut report = Report::default();
    let mut transcript = String::new();
    for outcome in outcomes {
        for line in &outcome.transcript {
            let _ = writeln!(transcript, "{line}");
        }
        report.add(outcome);
    }
    let violated = !report.violations.is_empty();
    match output {
        Output::Json => print_json(&report)?,
        Output::Table => print(&(transcript + &text(&report)))?,
    }
    Ok(if violated { VIOLATION } else { 0 })
}

/// Is there somebody who watches?
fn played(args: &SimArgs, output: Output) -> bool {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    !args.headless && output == Output::Table && terminal
}

/// A short name of a scenario: its folder's where the file is called as all are, else the file's.
fn called(file: &Path) -> String {
    let usual = file.file_name().is_some_and(|name| name == "scenario.yaml");
    let folder = file.parent().and_then(Path::file_name).filter(|_| usual);
    let name = folder.or_else(|| file.file_stem()).unwrap_or(file.as_os_str());
    name.to_string_lossy().into_owned()
}

/// How a world ended that was played to its end.
fn watched(outcome: Option<Outcome>) -> Result<u8, ApiError> {
    let Some(Outcome { violations, unmet, .. }) = outcome else { return Ok(0) };
    for violation in &violations {
        let Violation { invariant, at_ms, detail, .. } = violation;
        print(&format!("VIOLATION of {invariant} at {at_ms} ms: {detail}\n"))?;
    }
    for unmet in &unmet {
        print(&format!("NOT AS EXPECTED {unmet}\n"))?;
    }
    Ok(if violations.is_empty() && unmet.is_empty() { 0 } else { VIOLATION })
}

fn scenario(path: &Path, args: &SimArgs, output: Output) -> Result<u8, ApiError> {
    let file = if path.is_dir() { path.join("scenario.yaml") } else { path.to_owned() };
    let shown = file.display();
    let wrong = |message: String, remedy: &str| ApiError::new(ErrorCode::Usage, message, remedy);
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&file)
        .and_then(|opened| opened.take(document::MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        wrong(format!("{shown} cannot be read: {error}"), "name a scenario's file or folder")
    })?;
    let refused = |errors: String| wrong(format!("{shown}: {errors}"), "mend the file; nothing was run");
    let text = document::decode(&bytes).map_err(|error| refused(error.to_string()))?;
    let scenario = Scenario::parse(text).map_err(|errors| refused(errors.to_string()))?;
    if played(args, output) {
        return watched(simulated::play(scenario.seed, &scenario.options(), &called(&file))?);
    }
    let outcome = sim::run(scenario.seed, &scenario.options());
    let well = outcome.violations.is_empty() && outcome.unmet.is_empty();
    match output {
        Output::Json => print_json(&json!({
            "about": scenario.about,
            "seed": scenario.seed,
            "violations": outcome.violations,
            "unmet": outcome.unmet,
            "story": outcome.story,
        }))?,
        Output::Table => print(&scenario.log(&outcome))?,
    }
    Ok(if well { 0 } else { VIOLATION })
}

/// Finds the smallest world that breaks as this seed's does.
fn shrink(seed: u64, options: &Options, output: Output) -> Result<u8, ApiError> {
    let Some(Shrunk { scenario, violation, drawn, runs }) = sim::shrink(seed, options) else {
        match output {
            Output::Json => print_json(&json!({ "seed": seed, "scenario": null, "violations": [] }))?,
            Output::Table => {
                print(&format!("seed {seed} breaks no invariant: there is nothing to shrink\n"))?;
            }
        }
        return Ok(0);
    };
    let left = scenario.steps.len();
    match output {
        Output::Json => print_json(&json!({
            "seed": seed, "drawn": drawn, "left": left, "runs": runs,
            "scenario": scenario.to_yaml(), "violations": [violation],
        }))?,
        Output::Table => print(&format!(
            "# {left} of {drawn} faults are left, after {runs} worlds. Save this and play it: quorate sim --scenario FILE\n\
             # {} at {} ms: {}\n{}",
            violation.invariant,
            violation.at_ms,
            violation.detail,
            scenario.to_yaml()
        ))?,
    }
    Ok(VIOLATION)
}

/// Runs every seed, on all processors; the outcomes come in the order of the seeds.
fn run_all(seeds: RangeInclusive<u64>, options: &Options, output: Output) -> Vec<Outcome> {
    let (first, last) = seeds.into_inner();
    let next = AtomicU64::new(first);
    let outcomes = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let tell = output == Output::Table && std::io::stderr().is_terminal();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last || seed < first {
                        break;
                    }
                    let outcome = sim::run(seed, options);
                    // A worker that panicked took its seed with it; the others go on.
                    let mut outcomes = outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    outcomes.push(outcome);
                    if tell && outcomes.len() % 10 == 0 {
                        eprint!("\r{} of {} seeds", outcomes.len(), last - first + 1);
                    }
                }
            });
        }
    });
    if tell {
        eprint!("\r\x1b[K");
    }
    let mut outcomes = outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

fn text(report: &Report) -> String {
    let Report { seeds, steps, virtual_ms, violations, counts } = report;
    let mut text = format!(
        "{seeds} seeds, {steps} steps, {} of virtual time, {} violations\n",
        super::table::span(*virtual_ms),
        violations.len()
    );
    for (count, number) in counts {
        let _ = writeln!(text, "  {:<28}{number:>10}", count.to_string().replace('_', " "));
    }
    for violation in violations.iter().take(TOLD) {
        let _ = writeln!(
            text,
            "\nVIOLATION of {} in seed {} at step {} ({} ms): {}",
            violation.invariant, violation.seed, violation.step, violation.at_ms, violation.detail
        );
        for line in &violation.last {
            let _ = writeln!(text, "    {line}");
        }
        let _ = writeln!(text, "  again: quorate sim --seed {} --transcript", violation.seed);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_seeds_includes_both_ends() {
        assert_eq!(seeds("3..5"), Ok(3..=5));
        assert_eq!(seeds("7..=7"), Ok(7..=7));
        for bad in ["", "3", "5..3", "a..b", "-1..2"] {
            assert!(seeds(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn outcomes_come_in_the_order_of_their_seeds() {
        let options = Options { faults: 1, faults_ms: 1_000, ..Options::default() };
        let outcomes = run_all(4..=9, &options, Output::Json);
        let order: Vec<u64> = outcomes.iter().map(|outcome| outcome.seed).collect();
        assert_eq!(order, [4, 5, 6, 7, 8, 9]);
    }
}

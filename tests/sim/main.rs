//! Hundreds of seeded worlds against the real decisions: no invariant is ever broken, and the rare cases
//! were truly met. A failure names the seed that shows it again: `quorate sim --seed N`.

mod scenarios;

use std::ops::Range;

use quorate_core::sim::report::Report;
use quorate_core::sim::{Count, Options, run};

fn clean(seeds: Range<u64>) {
    let mut report = Report::default();
    for seed in seeds {
        let outcome = run(seed, &Options::default());
        if let Some(violation) = outcome.violations.first() {
            panic!(
                "seed {seed}, step {}, {} ms: {}: {}\n{}",
                violation.step,
                violation.at_ms,
                violation.invariant,
                violation.detail,
                violation.last.join("\n")
            );
        }
        report.add(outcome);
    }
    // Clean runs say nothing unless what could go wrong did come to pass.
    let rare = [
        Count::Crashes,
        Count::Reboots,
        Count::PowerLosses,
        Count::ForcedQuorums,
        Count::Restores,
        Count::WritesLost,
        Count::InventoriesTaken,
        Count::FormerMembersRefused,
        Count::GuardKills,
        Count::TwinKills,
        Count::GuardFreezes,
        Count::TwinFreezes,
        Count::Pauses,
        Count::Suspends,
        Count::WallJumps,
        Count::Isolations,
        Count::OneWayCuts,
        Count::SegmentsLost,
        Count::OldStates,
        Count::LogTailsLost,
        Count::DisksWiped,
        Count::CopiesRefused,
        Count::WritesRefused,
        Count::EnginesHung,
        Count::StartsFailed,
        Count::LateStartsRefused,
        Count::SettingsChanged,
        Count::Joins,
        Count::Departures,
        Count::Adoptions,
        Count::LeaderChanges,
        Count::LeaseStops,
        Count::Fences,
        Count::FencesFailed,
        Count::FencesLied,
        Count::Rejoins,
        Count::EndedByAcknowledgement,
        Count::EndedByFence,
        Count::EndedByReboot,
        Count::EndedBySilence,
        Count::EndedByAttestation,
        Count::MigrationsDone,
        Count::MigrationsRolledBack,
        Count::Retried,
        Count::RestartsWithoutLease,
    ];
    for what in rare {
        let times = report.counts.get(&what).copied().unwrap_or(0);
        assert!(times > 0, "{what} never happened in {} seeds", report.seeds);
    }
}

#[test]
fn seeds_0_to_74_break_no_invariant() {
    clean(0..75);
}

#[test]
fn seeds_75_to_149_break_no_invariant() {
    clean(75..150);
}

#[test]
fn seeds_150_to_224_break_no_invariant() {
    clean(150..225);
}

#[test]
fn seeds_225_to_299_break_no_invariant() {
    clean(225..300);
}

/// Worlds with a recovery that once broke something: by the decisions, by what the simulator made of a recovery, or
/// by a wrong judgement of it.
#[test]
fn what_a_recovery_once_broke_it_breaks_no_more() {
    for seed in [467, 2059, 2156, 2176, 2321, 3208, 3218, 4089, 4195, 4902, 8190, 8505, 9124, 9590] {
        let violations = run(seed, &Options::default()).violations;
        assert!(violations.is_empty(), "seed {seed}: {:?}", violations[0]);
    }
}

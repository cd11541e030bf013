//! The simulator itself: equal seeds give equal runs, and every planted bug is found by its checker.

use super::switches::Plant;
use super::{Broken, Options, run};

fn quick() -> Options {
    Options { faults_ms: 8_000, faults: 5, ..Options::default() }
}

#[test]
fn a_seed_run_twice_gives_identical_bytes() {
    let options = Options { keep_transcript: true, ..quick() };
    for seed in [3, 4] {
        let (first, second) = (run(seed, &options), run(seed, &options));
        assert!(first.transcript.len() > 100, "only {} lines", first.transcript.len());
        assert_eq!(first.transcript, second.transcript);
        assert_eq!(first, second);
    }
    assert_ne!(run(3, &options).transcript_hash, run(4, &options).transcript_hash);
}

/// What is broken shows in a log that is whole.
pub(super) fn without_disasters(broken: Broken) -> Options {
    Options { broken, disasters: false, ..Options::default() }
}

/// A planted bug is found within so many seeds, by one of its checkers.
#[track_caller]
fn finds(plant: Plant, seeds: u64, invariants: &[&str]) {
    finds_in(&without_disasters(Broken::by(plant)), seeds, invariants);
}

#[track_caller]
fn finds_in(options: &Options, seeds: u64, invariants: &[&str]) {
    let mut others = Vec::new();
    for seed in 0..seeds {
        for violation in run(seed, options).violations {
            if invariants.contains(&violation.invariant.as_str()) {
                assert_eq!(violation.seed, seed);
                assert!(!violation.last.is_empty() && !violation.detail.is_empty());
                return;
            }
            others.push(violation.invariant);
        }
    }
    panic!("not found in {seeds} seeds by {invariants:?}, only by {others:?}");
}

#[test]
fn a_plan_that_says_nothing_is_found() {
    finds(Plant::SilentPlan, 3, &["everything_that_does_not_run_says_why"]);
}

#[test]
fn a_copy_that_stops_for_nobody_is_found() {
    finds(Plant::IdlePreemption, 3, &["preemption_is_only_downward"]);
}

#[test]
fn a_replica_that_applies_something_of_its_own_is_found() {
    finds(Plant::UnequalApply, 5, &["equal_revision_means_equal_state_hash"]);
}

#[test]
fn a_claim_forgotten_without_evidence_is_found() {
    finds(
        Plant::ForgetClaimsOfLost,
        30,
        &["no_claim_ends_while_its_instance_runs", "no_exclusive_slot_runs_twice"],
    );
}

#[test]
fn silence_that_is_not_waited_for_is_found() {
    finds(Plant::ImpatientSilence, 15, &["no_claim_ends_while_its_instance_runs"]);
}

#[test]
fn a_fence_that_only_says_off_is_found() {
    finds(Plant::FenceByWord, 30, &["no_claim_ends_while_its_instance_runs"]);
}

#[test]
fn deadlines_that_nobody_enforces_are_found() {
    finds(Plant::ForgetDeadlines, 5, &["what_lost_its_lease_is_dead_by_its_deadline"]);
}

#[test]
fn a_start_without_a_lease_is_found() {
    finds(Plant::StartWithoutLease, 5, &["nothing_starts_without_a_live_lease"]);
}

#[test]
fn an_answer_before_the_commit_is_found() {
    finds(Plant::AnswerBeforeCommit, 10, &["acknowledged_commands_are_never_lost"]);
}

#[test]
fn a_migration_that_leaves_state_behind_is_found() {
    finds(Plant::KeepOldCopy, 30, &["a_migration_loses_no_state"]);
}

#[test]
fn an_operation_that_never_ends_is_found() {
    finds(Plant::DropFetches, 60, &["after_the_heal_all_placeable_work_runs"]);
}

#[test]
fn nodes_that_are_promised_more_than_they_have_are_found() {
    finds(Plant::OversizedNodes, 5, &["capacity_is_never_exceeded"]);
}

#[test]
fn a_second_copy_beside_a_forgotten_one_is_found() {
    let invariant = "no_exclusive_slot_runs_twice";
    let broken = Broken::by(Plant::ForgetRegistry).only(invariant);
    finds_in(&without_disasters(broken), 120, &[invariant]);
}

#[test]
fn a_plan_that_asks_for_what_is_refused_is_found() {
    finds(Plant::GrantInWrongEpoch, 3, &["the_plan_asks_for_what_is_possible"]);
}

#[test]
fn a_rollout_that_replaces_all_copies_at_once_is_found() {
    let invariant = "an_operation_never_breaks_a_minimum";
    let broken = Broken::by(Plant::HastyRollout).only(invariant);
    finds_in(&without_disasters(broken), 60, &[invariant]);
}

#[test]
fn a_guard_that_stops_critical_instances_is_found() {
    finds(Plant::KillCritical, 10, &["critical_keeps_running_on_a_node_that_is_cut_off"]);
}

#[test]
fn a_move_that_ends_with_two_owners_is_found() {
    let invariant = "a_migration_ends_with_one_owner";
    let broken = Broken::by(Plant::FalseAcknowledgement).only(invariant);
    finds_in(&without_disasters(broken), 30, &[invariant]);
}

#[test]
fn a_second_fence_of_one_target_is_found() {
    finds(Plant::SecondFence, 30, &["one_fence_for_each_target_at_a_time"]);
}

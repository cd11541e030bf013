//! What each rule of the safety model is there for: switched off, it lets a world break that is whole with it.
//! Most are found by drawn worlds; some guard against what is so rare that the world is a written one. Two rules
//! are covered by others behind them, and are shown together with those.

use std::sync::Arc;

use super::faults::Fault;
use super::script::{Script, Shape};
use super::switches::Rule;
use super::tests::without_disasters;
use super::{Broken, Options, Violation, run};
use crate::command::Command;
use crate::settings::SettingChange;
use crate::spec::{SpecDefaults, parse_one};

const DOUBLE_RUN: &str = "no_exclusive_slot_runs_twice";

/// A double run, or what is one as soon as another node is quick enough.
const KIN: [&str; 5] = [
    DOUBLE_RUN,
    "no_claim_ends_while_its_instance_runs",
    "nothing_starts_without_a_live_lease",
    "nothing_starts_under_a_token_that_is_not_current",
    "what_lost_its_lease_is_dead_by_its_deadline",
];

/// Worlds without these rules, drawn or written, of which one breaks in one of these ways within so many seeds.
#[track_caller]
fn breaks(rules: &[Rule], script: Option<Script>, seeds: u64, invariants: &[&str]) {
    let options = Options { script: script.map(Arc::new), ..without_disasters(Broken::without(rules)) };
    let expected = |found: &Violation| invariants.contains(&found.invariant.as_str());
    let found = (0..seeds).find_map(|seed| run(seed, &options).violations.into_iter().find(expected));
    let Some(found) = found else { panic!("{seeds} worlds without {rules:?} do not break so") };
    println!("without {rules:?}: seed {}: {}: {}", found.seed, found.invariant, found.detail);
}

/// The same, where only a double run counts.
#[track_caller]
fn doubles(rules: &[Rule], script: Option<Script>, seeds: u64) {
    let broken = Broken::without(rules).only(DOUBLE_RUN);
    let options = Options { script: script.map(Arc::new), ..without_disasters(broken) };
    let doubled = |found: &Violation| found.invariant == DOUBLE_RUN;
    let found = (0..seeds).find_map(|seed| run(seed, &options).violations.into_iter().find(doubled));
    let Some(found) = found else { panic!("nothing runs twice in {seeds} worlds without {rules:?}") };
    println!("without {rules:?}: seed {}: {}", found.seed, found.detail);
}

/// With all rules the written worlds are whole.
#[track_caller]
fn whole(script: Script, seeds: u64) {
    let options = Options { script: Some(Arc::new(script)), ..Options::default() };
    for seed in 0..seeds {
        assert_eq!(run(seed, &options).violations, [], "seed {seed}");
    }
}

#[test]
fn an_expired_lease_that_returns_without_a_committed_rejoin_is_found() {
    breaks(&[Rule::RejoinAfterExpiry], None, 30, &KIN);
}

#[test]
fn a_start_by_a_token_or_an_epoch_that_is_not_current_is_found() {
    doubles(&[Rule::CurrentToken], None, 700);
}

#[test]
fn heartbeats_answered_without_a_quorum_round_are_found() {
    doubles(&[Rule::QuorumBeforeAnswer], None, 700);
}

#[test]
fn deadlines_with_one_holder_only_are_found() {
    doubles(&[Rule::SecondHolder], None, 700);
}

#[test]
fn evidence_by_the_newer_and_laxer_terms_is_found() {
    doubles(&[Rule::StricterTerms], Some(shorter_leases()), 100);
}

/// Each node in turn is cut off while it hears late that leases change from one length to another: its State knows,
/// its guard still holds the lease by the old terms.
fn leases_changed_behind_a_slow_link(from: &str, to: &str) -> Script {
    let timeout = |value: &str| {
        let (name, value) = ("heartbeat.timeout".to_owned(), value.to_owned());
        Command::ChangeSettings(vec![SettingChange { name, value }])
    };
    let mut script = Script::of(Shape::default(), &["db", "batch", "cache", "ledger"]);
    for host in 0..3 {
        let at = 3_000 + host as u64 * 7_000;
        script = script.ask(at, timeout(from)).ask(at + 2_000, timeout(to));
        for other in (0..3).filter(|other| *other != host) {
            let slow = Fault::Slow { from: other, to: host, most_ms: 900, ms: 500 };
            script = script.fault(at + 1_990, slow);
        }
        script = script.fault(at + 2_200, Fault::Isolate { host, ms: 4_500 });
    }
    script
}

fn shorter_leases() -> Script {
    leases_changed_behind_a_slow_link("5s", "750ms")
}

fn longer_leases() -> Script {
    leases_changed_behind_a_slow_link("750ms", "5s")
}

#[test]
fn terms_that_count_before_the_guard_holds_them_are_found() {
    doubles(&[Rule::TermsHeldByGuard], Some(shorter_leases()), 100);
    whole(shorter_leases(), 10);
}

#[test]
fn terms_that_take_force_without_a_renewal_are_found() {
    breaks(&[Rule::TermsByRenewal], Some(longer_leases()), 50, &KIN);
    whole(longer_leases(), 10);
}

/// An engine hangs in the start of what was just granted, until long after the lease of its node is over.
fn start_that_comes_late() -> Script {
    let mut script = Script::of(Shape::default(), &["db"]);
    for host in 0..3 {
        let at = 3_000 + host as u64 * 7_000;
        let text = format!(
            "name: pump{host}
executor: process
priority: low
replicas: 2
exclusive: true
spec: {{command: [run]}}
"
        );
        let spec = Arc::new(parse_one(&text, &SpecDefaults::default()).unwrap());
        script = script
            .fault(at, Fault::EngineHangs { host, ms: 4_000 })
            .ask(at, Command::Deploy { spec })
            .fault(at + 300, Fault::Isolate { host, ms: 5_000 });
    }
    script
}

#[test]
fn a_start_that_passes_the_guard_by_is_found() {
    doubles(&[Rule::StartGate], Some(start_that_comes_late()), 50);
    whole(start_that_comes_late(), 10);
}

#[test]
fn waits_counted_from_the_stored_lost_entry_are_found() {
    doubles(&[Rule::CountFromOwnElection], None, 700);
}

fn put(at: u64) -> Command {
    let value = vec![u8::try_from(at % 200).unwrap_or(0)];
    Command::KvPut { key: vec![b'a'], value, ttl: None, if_revision: None }
}

/// What two voters agreed on while the third was cut off is known to one only once the other's disk is empty.
fn voter_wiped_behind_a_cut() -> Script {
    let mut script =
        Script::of(Shape::default(), &["db", "batch"]).fault(3_000, Fault::Isolate { host: 2, ms: 3_000 });
    for at in 35..58 {
        script = script.ask(at * 100, put(at));
    }
    script.fault(6_000, Fault::Isolate { host: 0, ms: 6_000 }).fault(6_000, Fault::Wipe { host: 1, ms: 300 })
}

#[test]
fn a_wiped_disk_that_comes_back_as_the_same_voter_is_found() {
    // Two logs that both call themselves committed: every claim in them is there twice.
    let kin = ["equal_revision_means_equal_state_hash", "acknowledged_commands_are_never_lost"];
    breaks(&[Rule::WipedIsNewVoter], Some(voter_wiped_behind_a_cut()), 20, &kin);
    whole(voter_wiped_behind_a_cut(), 3);
}

/// A node reboots and is let back in while what the log says of its old claims comes late to it. Its own State
/// is behind the answer to its heartbeat then, and the claims in it are of the boot before.
fn reboot_behind_a_slow_link() -> Script {
    let mut script = Script::of(Shape::default(), &["db", "batch", "cache", "ledger"]);
    for round in 0..4 {
        let at = 3_000 + round * 5_000;
        for host in 0..3 {
            let from = (host + 1) % 3;
            script = script.fault(at, Fault::Slow { from, to: host, most_ms: 700, ms: 4_000 });
            script =
                script.fault(at, Fault::Slow { from: (from + 1) % 3, to: host, most_ms: 700, ms: 4_000 });
        }
        script =
            script.fault(at + 100, Fault::Reboot { host: usize::try_from(round).unwrap_or(0) % 3, ms: 300 });
    }
    script
}

#[test]
fn a_claim_without_a_boot_and_a_start_before_the_revision_of_the_answer_are_found_together() {
    let rules = [Rule::ClaimNamesBoot, Rule::AppliedRevision];
    breaks(&rules, Some(reboot_behind_a_slow_link()), 200, &KIN);
    whole(reboot_behind_a_slow_link(), 3);
}

/// The second holder dies, word of it is slow, and then the guard stands still on a node that is cut off.
fn promise_broken_on_a_slow_link() -> Script {
    let mut script = Script::of(Shape::default(), &["db", "batch", "cache", "ledger"]);
    for host in 0..3 {
        let at = 4_000 + host as u64 * 6_000;
        for to in (0..3).filter(|to| *to != host) {
            script = script.fault(at - 10, Fault::Slow { from: host, to, most_ms: 900, ms: 600 });
        }
        script = script
            .fault(at, Fault::KillTwin { host, ms: 5_500 })
            .fault(at + 500, Fault::FreezeBoth { host, ms: 5_000 })
            .fault(at + 500, Fault::Isolate { host, ms: 5_000 });
    }
    script
}

#[test]
fn a_promise_that_is_not_taken_back_in_state_first_is_found() {
    doubles(&[Rule::PromiseInState], Some(promise_broken_on_a_slow_link()), 200);
    whole(promise_broken_on_a_slow_link(), 3);
}

/// The majority grants what the minority never hears of, and then its node processes are gone: what is critical
/// runs on. The minority goes on without them and is asked for the same again.
fn critical_granted_in_what_is_gone() -> Script {
    let text = "name: pump\nexecutor: process\npriority: critical\nexclusive: true\nspec: {command: [run]}\n";
    let spec = Arc::new(parse_one(text, &SpecDefaults::default()).unwrap());
    Script::of(Shape { hosts: 5, ..Shape::default() }, &["db"])
        .fault(3_000, Fault::ForcedQuorum { first: 0, ms: 6_000, crash: true })
        .ask(3_200, Command::Deploy { spec: spec.clone() })
        .ask(6_500, Command::Deploy { spec })
}

#[test]
fn an_exclusive_grant_before_every_inventory_is_in_is_found() {
    doubles(&[Rule::InventoriesFirst], Some(critical_granted_in_what_is_gone()), 50);
    whole(critical_granted_in_what_is_gone(), 10);
}

/// The majority writes much that the minority never hears of. One of it comes back with its old data.
fn former_member_that_has_applied_what_is_gone() -> Script {
    let mut script = Script::of(Shape { hosts: 5, ..Shape::default() }, &["db", "batch"])
        .fault(3_000, Fault::ForcedQuorum { first: 0, ms: 2_500, crash: true });
    for at in 0..60 {
        script = script.ask(3_500 + at * 25, put(at));
    }
    script
}

#[test]
fn a_former_member_that_is_taken_for_one_is_found() {
    let kin = ["equal_revision_means_equal_state_hash", "acknowledged_commands_are_never_lost", DOUBLE_RUN];
    breaks(&[Rule::FormerMembersStayOut], Some(former_member_that_has_applied_what_is_gone()), 50, &kin);
    whole(former_member_that_has_applied_what_is_gone(), 10);
}

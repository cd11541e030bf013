//! Written worlds, each beside the log that it makes: compared byte for byte, so that whatever changes what a
//! cluster does in one of them is seen and read. `QUORATE_WRITE_LOGS=1` writes the logs anew.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_core::sim::{Scenario, run};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/scenarios")
}

#[track_caller]
fn plays(name: &str) {
    let folder = folder().join(name);
    let text = fs::read_to_string(folder.join("scenario.yaml")).unwrap();
    let scenario = Scenario::parse(&text).unwrap_or_else(|errors| panic!("{name}: {errors}"));
    let outcome = run(scenario.seed, &scenario.options());
    let log = scenario.log(&outcome);
    let golden = folder.join("log");
    if std::env::var_os("QUORATE_WRITE_LOGS").is_some() {
        fs::write(&golden, &log).unwrap();
    }
    assert!(outcome.violations.is_empty() && outcome.unmet.is_empty(), "{log}");
    assert!(!scenario.expect.is_empty(), "{name} expects nothing");
    let known = fs::read_to_string(&golden).unwrap_or_default();
    let differs = log.lines().zip(known.lines()).find(|(one, two)| one != two);
    assert!(
        log == known,
        "{name} goes otherwise than its log says; the first line that differs is\n  now   {}\n  before {}\n{log}",
        differs.map_or("(one is longer)", |(now, _)| now),
        differs.map_or("", |(_, before)| before),
    );
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            plays(&stringify!($name).replace('_', "-"));
        })*

        #[test]
        fn every_scenario_is_played() {
            let mut played: Vec<String> = [$(stringify!($name)),*].map(|name| name.replace('_', "-")).into();
            let mut there: Vec<String> = fs::read_dir(folder())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            played.sort();
            there.sort();
            assert_eq!(played, there);
        }
    };
}

scenarios! {
    copied_disk
    critical_attested
    drain_during_a_partition
    engine_hangs_at_kill
    engine_hangs_at_start
    even_split_with_witness
    even_split_without_witness
    fence_device_down
    fence_races_recovery
    flapping_link
    frozen_both
    frozen_guard
    frozen_node
    heal_during_a_grant
    leader_isolated
    majority_lost
    minority_of_two
    node_fenced
    one_way_cut
    paused_guest
    restore
    rolling_restart
    segment_lost
    suspended_host
    terms_changed_while_cut_off
    transfer_during_a_cut
    two_nodes_apart
    wiped_voter
}

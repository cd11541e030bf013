//! How runs are named as units: the name alone says whose run it is, so that nothing else is ever touched.

use crate::layout::{run_name, run_names, run_of_name};
use crate::ports::RunId;

/// Finds all units of this node's.
pub(super) fn pattern(owner: &str) -> String {
    format!("{}*.service", run_names(owner))
}

/// The unit of a run.
pub(super) fn unit(owner: &str, run: &RunId) -> String {
    format!("{}.service", run_name(owner, run))
}

/// The run of a unit.
pub(super) fn run(owner: &str, unit: &str) -> Option<RunId> {
    run_of_name(owner, unit.strip_suffix(".service")?)
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::InstanceId;

    use super::*;

    #[test]
    fn runs_and_their_units_name_one_another() {
        let run_of = |slot: &str, restart| RunId {
            id: InstanceId { slot: slot.parse().unwrap(), token: "2.71".parse().unwrap() },
            restart,
        };
        for one in [run_of("web/0", 0), run_of("a-b.c/12", 3)] {
            assert_eq!(run("0a1b", &unit("0a1b", &one)), Some(one.clone()));
            assert_eq!(run("ffff", &unit("0a1b", &one)), None);
        }
        assert_eq!(unit("0a", &run_of("web/0", 1)), "quorate-0a-web.0-2.71-1.service");
        assert_eq!(run("0a", "quorate-0a-nonsense.service"), None);
    }
}

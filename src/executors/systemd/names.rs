//! How runs are named as units: the name alone says whose run it is, so that nothing else is ever touched.

use quorate_core::ids::InstanceId;

use crate::layout::{slot_folder, slot_of_folder};
use crate::ports::RunId;

/// What names of this node's units begin with.
fn opening(owner: &str) -> String {
    format!("quorate-{owner}-")
}

/// Finds all units of this node's.
pub(super) fn pattern(owner: &str) -> String {
    format!("{}*.service", opening(owner))
}

/// The unit of a run.
pub(super) fn unit(owner: &str, run: &RunId) -> String {
    format!("{}{}-{}-{}.service", opening(owner), slot_folder(&run.id.slot), run.id.token, run.restart)
}

/// The run of a unit.
pub(super) fn run(owner: &str, unit: &str) -> Option<RunId> {
    let rest = unit.strip_prefix(&opening(owner))?.strip_suffix(".service")?;
    let (rest, restart) = rest.rsplit_once('-')?;
    let (slot, token) = rest.rsplit_once('-')?;
    let id = InstanceId { slot: slot_of_folder(slot)?, token: token.parse().ok()? };
    Some(RunId { id, restart: restart.parse().ok()? })
}

#[cfg(test)]
mod tests {
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

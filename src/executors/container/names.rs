//! How a run is labelled with its engine, so that it is found again by any later process.

use std::collections::HashMap;

use quorate_core::effect::StartInstance;
use quorate_core::ids::InstanceId;

use crate::ports::RunId;

/// Whose it is.
pub(super) const OWNER: &str = "quorate.owner";
/// Its instance's slot.
const SLOT: &str = "quorate.slot";
/// Its instance's token.
const TOKEN: &str = "quorate.token";
/// Which run of the instance.
const RESTART: &str = "quorate.restart";
/// Limits of the description that the engine leaves out, by their keys.
pub(super) const UNENFORCED: &str = "quorate.unenforced";

/// What a run's container is found by.
pub(super) fn labels(owner: &str, start: &StartInstance) -> HashMap<String, String> {
    [
        (OWNER, owner.to_owned()),
        ("quorate.service", start.id.slot.service.to_string()),
        (SLOT, start.id.slot.to_string()),
        ("quorate.instance", start.id.to_string()),
        (TOKEN, start.id.token.to_string()),
        (RESTART, start.restart.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// The run that a container with these labels is.
pub(super) fn run_of(labels: &HashMap<String, String>) -> Option<RunId> {
    let id = InstanceId { slot: labels.get(SLOT)?.parse().ok()?, token: labels.get(TOKEN)?.parse().ok()? };
    Some(RunId { id, restart: labels.get(RESTART)?.parse().ok()? })
}

//! What this node is to do now, from State, what runs here and its lease; the same again until it is done.
//! Stopping needs no lease. Knows nothing of other nodes' instances, and not how anything is carried out.

mod operations;
mod slots;
#[cfg(test)]
mod tests;

use crate::effect::Effect;
use crate::lease::Lease;
use crate::observation::NodeReport;
use crate::state::State;
use crate::units::BootMs;

/// Everything this node has to do for what is committed to come true here: stops first, starts last.
/// Idempotent: an effect is repeated until the report shows it done.
pub fn reconcile(state: &State, own: &NodeReport, lease: Option<&Lease>, now: BootMs) -> Vec<Effect> {
    let mut todo = slots::stops_and_starts(state, own, lease, now);
    let mut effects = std::mem::take(&mut todo.stops);
    effects.extend(operations::fetches(state, own, lease, now));
    effects.extend(operations::fences(state, own));
    effects.extend(operations::staging_to_drop(state, own));
    effects.extend(slots::folders_to_forget(state, own));
    effects.append(&mut todo.starts);
    effects
}

//! Every wanted slot that does not run well has a line that says what it waits for, in every plan.

use super::Judgement;
use crate::ids::SlotId;
use crate::observation::{InstancePhase, Observed};
use crate::state::{Plan, State, Subject};

pub(super) fn planned(state: &State, observed: &Observed, plan: &Plan) -> Judgement {
    for (name, service) in state.services.iter() {
        for ordinal in 0..service.wanted() {
            let slot = SlotId { service: name.clone(), ordinal };
            let said = plan.waiting.get(&Subject::Slot(slot.clone())).is_some_and(|lines| !lines.is_empty());
            if !said && !runs_well(state, observed, &slot) {
                return Err(format!(
                    "{slot} does not run well at revision {} and no reason is given",
                    state.revision
                ));
            }
        }
    }
    Ok(())
}

/// Does some claim of it, as far as the leader hears, run and answer?
fn runs_well(state: &State, observed: &Observed, slot: &SlotId) -> bool {
    let claims = state.slots.get(slot).map_or(&[][..], |record| record.claims.as_slice());
    claims.iter().any(|claim| {
        let heard = observed.nodes.get(&claim.node).filter(|heard| heard.report.boot == claim.boot);
        let report = heard.and_then(|heard| heard.report.slots.get(slot));
        let instance = report.and_then(|report| report.instance.as_ref());
        instance.is_some_and(|instance| {
            instance.id.token == claim.token
                && instance.phase == InstancePhase::Running
                && instance.health.good()
        })
    })
}

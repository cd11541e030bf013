//! Work that could wait never breaks a minimum: whenever a healthy copy is told to stop for a drain, a move or
//! a rollout, at most that one copy of its service is missing. What had just died on its own nobody can know.

use std::collections::{BTreeMap, BTreeSet};

use super::{Judgement, Truth};
use crate::command::{Command, OperationStep};
use crate::detect::detect;
use crate::ids::{SlotId, Token};
use crate::observation::{InstancePhase, NodeVerdict, Observed, Verdicts};
use crate::sim::host::Host;
use crate::state::{Claim, OperationKind, Plan, ServiceRecord, State};

/// Word of an end may take this long to reach the leader and come back as a decision.
const WORD_US: u64 = 1_500_000;

/// When a process of each slot was last there.
#[derive(Default)]
pub(super) struct Minimum(BTreeMap<SlotId, u64>);

impl Minimum {
    pub(super) fn see(&mut self, truth: &Truth, now_us: u64) {
        if let Truth::Gone { process, .. } = truth
            && now_us >= process.ready_us
        {
            self.0.insert(process.slot.clone(), now_us);
        }
    }

    /// Judges a plan when it is made, by what truly runs then. `observed` is what the leader had really heard.
    pub(super) fn planned(
        &self,
        state: &State,
        observed: &Observed,
        plan: &Plan,
        hosts: &[Host],
        now_us: u64,
    ) -> Judgement {
        let copies: BTreeSet<(&SlotId, Token)> =
            plan.commands.iter().filter_map(|command| disturbed(state, command)).collect();
        if copies.is_empty() {
            return Ok(());
        }
        let stopped: BTreeSet<&SlotId> = copies.iter().map(|(slot, _)| *slot).collect();
        let heard = heard_well(state, observed, &detect(observed, state));
        for (slot, _) in copies.iter().filter(|copy| heard.contains(*copy)) {
            let wanted = state.services.get(&slot.service).map_or(0, ServiceRecord::wanted);
            let others = (0..wanted).map(|ordinal| SlotId { service: slot.service.clone(), ordinal });
            let missing: Vec<String> = others
                .filter(|other| {
                    other != *slot && (stopped.contains(other) || !self.there(other, hosts, now_us))
                })
                .map(|other| other.to_string())
                .collect();
            if slot.ordinal < wanted && !missing.is_empty() {
                return Err(format!("{slot} is to stop while {} are missing", missing.join(", ")));
            }
        }
        Ok(())
    }

    /// Does it run, or did it until so lately that the word of its end may be on its way?
    fn there(&self, slot: &SlotId, hosts: &[Host], now_us: u64) -> bool {
        runs_well(slot, hosts, now_us)
            || self.0.get(slot).is_some_and(|seen| now_us.saturating_sub(*seen) <= WORD_US)
    }
}

/// The copy that a command takes from a slot for the sake of a rollout, a move or a drain.
fn disturbed<'a>(state: &'a State, command: &'a Command) -> Option<(&'a SlotId, Token)> {
    match command {
        Command::StopClaim { slot, token, operation: Some(operation), .. } => {
            let kind = state.operations.get(operation).map(|operation| &operation.kind);
            matches!(kind, Some(OperationKind::Rollout(_))).then_some((slot, *token))
        }
        Command::Advance { operation, step: OperationStep::Switchover, .. } => {
            match &state.operations.get(operation)?.kind {
                OperationKind::Migration(moved) => Some((&moved.slot, moved.source_token)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Does a process of it run that answers its health check?
fn runs_well(slot: &SlotId, hosts: &[Host], now_us: u64) -> bool {
    let mut processes = hosts.iter().flat_map(|host| &host.processes);
    processes.any(|process| process.slot == *slot && now_us >= process.ready_us)
}

/// Claimed copies that were heard to run well, on a node that is beyond doubt and whose guard answers.
fn heard_well<'a>(
    state: &'a State,
    observed: &Observed,
    verdicts: &Verdicts,
) -> BTreeSet<(&'a SlotId, Token)> {
    let mut well = BTreeSet::new();
    for (slot, record) in state.slots.iter() {
        let heard_of = |claim: &&Claim| {
            let heard = observed.nodes.get(&claim.node)?;
            let since = observed.known_since.get(&claim.node).copied().unwrap_or_default();
            let fresh = heard.report.guard.answering && !heard.report.wants_rejoin && heard.received >= since;
            let instance = heard.report.slots.get(slot)?.instance.as_ref()?;
            let good = instance.phase == InstancePhase::Running && instance.health.good();
            (fresh && good && instance.id.token == claim.token && heard.report.boot == claim.boot)
                .then_some(())
        };
        let alive = |claim: &&Claim| verdicts.nodes.get(&claim.node) == Some(&NodeVerdict::Alive);
        let claims = record.claims.iter().filter(alive).filter(|claim| heard_of(claim).is_some());
        well.extend(claims.map(|claim| (slot, claim.token)));
    }
    well
}

//! Preemption is only downward in priority, and only where it lets the more important one run: whatever is told to
//! stop although it is wanted, and stands alone where it should, stops for a slot that fits into the room it leaves.

use std::collections::BTreeMap;

use super::Judgement;
use crate::command::Command;
use crate::ids::{NodeId, OperationId, SlotId, Token};
use crate::sim::Count;
use crate::sim::ctx::Ctx;
use crate::spec::Resources;
use crate::state::{Claim, Plan, ServiceRecord, State};

pub(super) fn planned(state: &State, plan: &Plan, ctx: &mut Ctx) -> Judgement {
    let stops = plan.commands.iter().filter_map(|command| match command {
        Command::StopClaim { slot, token, operation, .. } => Some(((slot, *token), *operation)),
        _ => None,
    });
    let stops: BTreeMap<(&SlotId, Token), Option<OperationId>> = stops.collect();
    for ((slot, token), _) in stops.iter().filter(|(_, operation)| operation.is_none()) {
        let Some((service, claim)) = yielding(state, slot, *token) else { continue };
        ctx.count(Count::Preemptions);
        let stays = |(other, claim): &(&SlotId, &Claim)| {
            claim.stop.is_none() && !stops.contains_key(&(*other, claim.token))
        };
        let kept: Vec<Resources> = state
            .claims_on(&claim.node)
            .filter(stays)
            .filter_map(|(slot, claim)| {
                Some(state.services.get(&slot.service)?.spec_of(claim.version).resources)
            })
            .collect();
        if !beneficiary(state, service, &claim.node, &kept) {
            return Err(format!("{slot} ({}) stops on {} for nobody", service.spec.priority, claim.node));
        }
    }
    Ok(())
}

/// A claim that nothing but another's need of room could end.
fn yielding<'a>(state: &'a State, slot: &SlotId, token: Token) -> Option<(&'a ServiceRecord, &'a Claim)> {
    let service = state.services.get(&slot.service)?;
    let [claim] = state.slots.get(slot)?.claims.as_slice() else { return None };
    let node = state.nodes.get(&claim.node)?;
    let wanted = slot.ordinal < service.wanted() && claim.token == token && node.raft_id == claim.raft_id;
    wanted.then_some((service, claim))
}

/// Is there a more important slot that nothing stands for and that fits beside what stays?
fn beneficiary(state: &State, victim: &ServiceRecord, node: &NodeId, kept: &[Resources]) -> bool {
    let Some(record) = state.nodes.get(node) else { return false };
    let cpu: u32 = kept.iter().map(|resources| resources.cpu.0).sum();
    let memory: u64 = kept.iter().map(|resources| resources.memory.0).sum();
    let capacity = record.facts.capacity;
    let lost = |claim: &Claim| state.nodes.get(&claim.node).is_none_or(|record| record.lost());
    state.services.iter().filter(|(_, service)| service.spec.priority > victim.spec.priority).any(
        |(name, s)| {
            let mut wanted = (0..s.wanted()).map(|ordinal| SlotId { service: name.clone(), ordinal });
            let fits = cpu + s.spec.resources.cpu.0 <= capacity.cpu.0
                && memory + s.spec.resources.memory.0 <= capacity.memory.0;
            fits && wanted.any(|slot| {
                let claims = state.slots.get(&slot).map_or(&[][..], |record| record.claims.as_slice());
                if s.exclusive { claims.is_empty() } else { claims.iter().all(lost) }
            })
        },
    )
}

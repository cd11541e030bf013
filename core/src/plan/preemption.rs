//! Room for what matters more: where a slot finds no room anywhere, copies of lower priority stop for it on the one
//! node where that costs least, and only if that is enough. The grant is `failover`'s, once they have stopped.

use std::cmp::Reverse;

use super::desk::Desk;
use super::placement::resources_of;
use crate::command::Command;
use crate::ids::{NodeId, SlotId};
use crate::spec::{Priority, Resources};
use crate::state::{Claim, Refusal, ServiceRecord};
use crate::units::{CpuMillis, MemoryMib};

/// A node where stopping these would make room.
struct Offer<'a> {
    node: NodeId,
    victims: Vec<Victim<'a>>,
}

struct Victim<'a> {
    slot: &'a SlotId,
    claim: &'a Claim,
    priority: Priority,
    resources: Resources,
}

impl Offer<'_> {
    /// What it costs, the worst first: how important they are, then how many. Nobody at all is best.
    fn cost(&self) -> (Option<Priority>, usize, &NodeId) {
        (self.victims.iter().map(|victim| victim.priority).max(), self.victims.len(), &self.node)
    }
}

/// Stops what may be stopped for a slot that no node took, or waits for what stops already; says what for. `None`
/// where no stop would help: then the refusals stand.
pub(super) fn make_room(
    desk: &mut Desk<'_>,
    slot: &SlotId,
    service: &ServiceRecord,
    refusals: &[(NodeId, Refusal)],
) -> Option<String> {
    // Room is looked at last: whoever lacks only that would take it. Nothing stops to free a port or a unit of the
    // host: whoever has it is named in the refusal, and which of the two gives way is for people to say.
    let full = refusals.iter().filter(|(_, why)| matches!(why, Refusal::Cpu(..) | Refusal::Memory(..)));
    let offers = full.filter_map(|(node, _)| offer(desk, service, node));
    let Offer { node, victims } = offers.min_by(|a, b| a.cost().cmp(&b.cost()))?;
    let stopping: Vec<String> = match victims.as_slice() {
        [] => on_their_way(desk, &node, service.spec.priority).map(|(slot, _)| slot.to_string()).collect(),
        some => some.iter().map(|victim| victim.slot.to_string()).collect(),
    };
    for victim in victims {
        if desk.decide(victim.slot) {
            desk.disturbed.insert(victim.slot.clone());
            desk.command(Command::StopClaim {
                slot: victim.slot.clone(),
                token: victim.claim.token,
                because: format!("{slot} ({}) needs its room on {node}", service.spec.priority),
                operation: None,
            });
        }
    }
    // Nobody of less importance takes it meanwhile.
    desk.room.take(slot, &node, &service.spec);
    let end = if stopping.len() == 1 { "stops" } else { "stop" };
    Some(format!("room is made on {node}: {} {end} first", stopping.join(", ")))
}

fn offer<'a>(desk: &Desk<'a>, service: &ServiceRecord, node: &NodeId) -> Option<Offer<'a>> {
    let record = desk.record(node)?;
    let coming = on_their_way(desk, node, service.spec.priority)
        .map(|(slot, claim)| resources_of(desk.state, slot, claim));
    let lacking = desk.room.lacking(node, record.facts.capacity, service.spec.resources);
    let lacking = coming.fold(lacking, less);
    let mut victims: Vec<Victim<'a>> = desk
        .state
        .claims_on(node)
        .filter(|(slot, claim)| desk.may_yield(slot, claim) && claim.boot == record.boot)
        .filter_map(|(slot, claim)| {
            let priority = desk.service(&slot.service)?.spec.priority;
            let resources = resources_of(desk.state, slot, claim);
            (priority < service.spec.priority).then_some(Victim { slot, claim, priority, resources })
        })
        .collect();
    // The least important first, of these the largest: few stop.
    victims.sort_by_key(|v| (v.priority, Reverse((v.resources.cpu, v.resources.memory)), v.slot));
    let mut left = lacking;
    let enough = (0..=victims.len()).find(|&count| {
        left = victims[..count].last().map_or(left, |victim| less(left, victim.resources));
        left == Resources::default()
    })?;
    victims.truncate(enough);
    // Whoever stops for nothing is left out, the most important first.
    for at in (0..victims.len()).rev() {
        let others = victims.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, v)| v.resources);
        if others.fold(lacking, less) == Resources::default() {
            victims.remove(at);
        }
    }
    Some(Offer { node: node.clone(), victims })
}

/// Claims on a node whose room comes free for somebody of this importance: they stop, and nobody before it in the queue
/// wants the room back.
fn on_their_way<'a>(
    desk: &Desk<'a>,
    node: &NodeId,
    priority: Priority,
) -> impl Iterator<Item = (&'a SlotId, &'a Claim)> {
    let returns = move |slot: &SlotId| {
        desk.wanted(slot) && desk.service(&slot.service).is_some_and(|s| s.spec.priority >= priority)
    };
    desk.state.claims_on(node).filter(move |(slot, claim)| desk.stops(slot, claim) && !returns(slot))
}

fn less(from: Resources, resources: Resources) -> Resources {
    Resources {
        cpu: CpuMillis(from.cpu.0.saturating_sub(resources.cpu.0)),
        memory: MemoryMib(from.memory.0.saturating_sub(resources.memory.0)),
    }
}

//! After the heal all placeable work runs and every operation ends. Judged from the processes on the hosts
//! against what the newest State wants.

use crate::ids::{NodeId, ServiceName, SlotId};
use crate::sim::ctx::Ctx;
use crate::sim::host::Host;
use crate::sim::node::Node;
use crate::sim::scene::CAPACITY;
use crate::state::{OperationKind, Refusal, ServiceRecord, State, Subject, WaitCause};

/// Is everything as wanted now? If not, what is missing.
pub(super) fn all_well(hosts: &[Host], ctx: &Ctx) -> Result<(), String> {
    if let Some(down) = hosts.iter().find(|host| !host.on || host.node.is_none() || host.node_frozen) {
        return Err(format!("{} is not up", down.name));
    }
    let nodes: Vec<&Node> = hosts.iter().filter_map(|host| host.node.as_deref()).collect();
    let leader = nodes.iter().filter(|node| node.replica.settled()).max_by_key(|node| node.state.revision);
    let Some(leader) = leader else { return Err(format!("no leader: {}", replicas(hosts))) };
    let state = &leader.state;
    if let Some(behind) = nodes.iter().find(|node| node.state.revision < state.revision) {
        let (id, at) = (behind.replica.me, behind.state.revision);
        return Err(format!("replica {id} is at {at} of {}: {}", state.revision, replicas(hosts)));
    }
    if let Some((node, _)) = state.nodes.iter().find(|(_, record)| record.lost()) {
        return Err(format!("{node} is still lost"));
    }
    let open = state.operations.iter().find(|(_, operation)| {
        operation.ended.is_none() && !waits_for_room(state, leader, hosts, &operation.kind)
    });
    if let Some((id, operation)) = open {
        let waits = leader.leading.as_ref().map(|leading| leading.plan.waiting.clone());
        return Err(format!("operation {id} has not ended: {:?}; waiting: {waits:?}", operation.kind));
    }
    for (slot, record) in state.slots.iter() {
        let wanted = state.services.get(&slot.service).is_some_and(|service| slot.ordinal < service.wanted());
        let running = running(slot, hosts);
        if !wanted && (running > 0 || !record.claims.is_empty()) {
            return Err(format!(
                "{slot} is not wanted and has {running} processes, claims {:?}",
                record.claims
            ));
        }
    }
    wanted_runs(state, leader, hosts, ctx)
}

/// Where every replica stands, for whoever has to find out why.
fn replicas(hosts: &[Host]) -> String {
    let stands = |host: &Host| {
        let log = &host.disk.log;
        let node = host.node.as_ref().map(|node| {
            let replica = &node.replica;
            format!(
                "{} {:?} follows {:?} committed {}",
                replica.me, replica.role, replica.leader, replica.commit
            )
        });
        format!("{} term {} last {} of {:?}: {node:?}", host.name, log.term, log.last(), log.members())
    };
    hosts.iter().map(stands).collect::<Vec<_>>().join("; ")
}

fn wanted_runs(state: &State, leader: &Node, hosts: &[Host], ctx: &Ctx) -> Result<(), String> {
    for (name, service) in state.services.iter() {
        if service.deleting {
            let left = state.slots.iter().filter(|(slot, _)| slot.service == *name);
            let left: Vec<_> = left.map(|(slot, record)| (slot, &record.claims)).collect();
            return Err(format!("{name} is still being deleted: {left:?}"));
        }
        for ordinal in 0..service.wanted() {
            let slot = SlotId { service: name.clone(), ordinal };
            let subject = Subject::Slot(slot.clone());
            let why =
                || leader.leading.as_ref().and_then(|leading| leading.plan.waiting.get(&subject).cloned());
            let record = state.slots.get(&slot);
            let claims = record.map_or(&[][..], |record| record.claims.as_slice());
            let [claim] = claims else {
                // What finds no room is not placeable; its line says so.
                if claims.is_empty() && no_room(state, leader, hosts, &slot) {
                    continue;
                }
                return Err(format!("{slot} has {} claims; waiting: {:?}", claims.len(), why()));
            };
            let host = hosts.iter().find(|host| host.name == claim.node);
            let runs = host.is_some_and(|host| {
                let mut processes = host.processes.iter();
                processes.any(|p| p.slot == slot && p.token == claim.token && ctx.now >= p.ready_us)
            });
            if !runs || running(&slot, hosts) != 1 {
                return Err(format!("{slot} does not run once: {claim:?}; waiting: {:?}", why()));
            }
        }
    }
    Ok(())
}

/// What an operation still has in hand may wait for room that nobody has: a copy that leaves its node, or one that
/// may not go while a sister of it has no place.
fn waits_for_room(state: &State, leader: &Node, hosts: &[Host], kind: &OperationKind) -> bool {
    let without_room = |service: &ServiceName| {
        let wanted = 0..state.services.get(service).map_or(0, ServiceRecord::wanted);
        let mut slots = wanted.map(|ordinal| SlotId { service: service.clone(), ordinal });
        slots.any(|slot| no_room(state, leader, hosts, &slot))
    };
    match kind {
        OperationKind::Drain(drain) => {
            let leaving = state.nodes.get(&drain.node).is_some_and(|record| record.leaving);
            leaving && state.claims_on(&drain.node).all(|(slot, _)| without_room(&slot.service))
        }
        OperationKind::Rollout(rollout) => without_room(&rollout.service),
        OperationKind::Migration(_) | OperationKind::Fence(_) => false,
    }
}

/// Does the planner say that no node fits, and is that so? Anti-affinity or capacity may leave a slot without a
/// place; each refusal is held against what truly runs.
fn no_room(state: &State, leader: &Node, hosts: &[Host], slot: &SlotId) -> bool {
    let waiting = leader.leading.as_ref().map(|leading| &leading.plan.waiting);
    let lines = waiting.and_then(|waiting| waiting.get(&Subject::Slot(slot.clone())));
    let fits_nowhere = |cause: &WaitCause| match cause {
        WaitCause::NoNodeFits { refusals } => {
            refusals.iter().all(|(node, refusal)| holds(state, hosts, slot, node, refusal))
        }
        _ => false,
    };
    lines.is_some_and(|lines| lines.iter().any(|line| fits_nowhere(&line.cause)))
}

fn holds(state: &State, hosts: &[Host], slot: &SlotId, node: &NodeId, refusal: &Refusal) -> bool {
    let Some(record) = state.nodes.get(node) else { return false };
    let Some(host) = hosts.iter().find(|host| host.name == *node) else { return false };
    let others = || host.processes.iter().filter(|process| process.slot != *slot);
    match refusal {
        Refusal::Witness => record.witness,
        Refusal::Cordoned => record.leaving,
        Refusal::Taken(_, by) => others().any(|process| process.slot == *by),
        Refusal::Spread(_) => others().any(|process| process.slot.service == slot.service),
        Refusal::Cpu(wanted, _) => {
            let taken: u32 = others().map(|process| process.spec.resources.cpu.0).sum();
            taken + wanted.0 > CAPACITY.cpu.0
        }
        Refusal::Memory(wanted, _) => {
            let taken: u64 = others().map(|process| process.spec.resources.memory.0).sum();
            taken + wanted.0 > CAPACITY.memory.0
        }
        _ => false,
    }
}

fn running(slot: &SlotId, hosts: &[Host]) -> usize {
    hosts.iter().flat_map(|host| &host.processes).filter(|process| &process.slot == slot).count()
}

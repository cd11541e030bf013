//! After the heal all placeable work runs and every operation ends. Judged from the processes on the hosts
//! against what the newest State wants.

use crate::ids::SlotId;
use crate::sim::ctx::Ctx;
use crate::sim::host::Host;
use crate::sim::node::Node;
use crate::state::State;

/// Is everything as wanted now? If not, what is missing.
pub(super) fn all_well(hosts: &[Host], ctx: &Ctx) -> Result<(), String> {
    if let Some(down) = hosts.iter().find(|host| !host.on || host.node.is_none() || host.node_frozen) {
        return Err(format!("{} is not up", down.name));
    }
    let nodes: Vec<&Node> = hosts.iter().filter_map(|host| host.node.as_deref()).collect();
    let leader = nodes.iter().filter(|node| node.replica.settled()).max_by_key(|node| node.state.revision);
    let Some(leader) = leader else { return Err("no leader".to_owned()) };
    let state = &leader.state;
    if let Some(behind) = nodes.iter().find(|node| node.state.revision < state.revision) {
        let (id, at) = (behind.replica.me, behind.state.revision);
        let all: Vec<String> = hosts
            .iter()
            .map(|h| {
                format!(
                    "{} term {} last {} {:?}",
                    h.name,
                    h.disk.log.term,
                    h.disk.log.last(),
                    h.node.as_ref().map(|n| (n.replica.role, n.replica.leader, n.replica.commit))
                )
            })
            .collect();
        return Err(format!(
            "replica {id} is at {at} of {}; members {:?} {all:?}",
            state.revision,
            hosts[0].disk.log.members()
        ));
    }
    if let Some((node, _)) = state.nodes.iter().find(|(_, record)| record.lost()) {
        return Err(format!("{node} is still lost"));
    }
    let open = state.operations.iter().find(|(_, operation)| operation.ended.is_none());
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

fn wanted_runs(state: &State, leader: &Node, hosts: &[Host], ctx: &Ctx) -> Result<(), String> {
    for (name, service) in state.services.iter() {
        if service.deleting {
            return Err(format!("{name} is still being deleted"));
        }
        for ordinal in 0..service.wanted() {
            let slot = SlotId { service: name.clone(), ordinal };
            let subject = crate::state::Subject::Slot(slot.clone());
            let why =
                || leader.leading.as_ref().and_then(|leading| leading.plan.waiting.get(&subject).cloned());
            let record = state.slots.get(&slot);
            let claims = record.map_or(&[][..], |record| record.claims.as_slice());
            let [claim] = claims else {
                // What finds no room is not placeable; its line says so.
                if claims.is_empty() && no_room(leader, &subject) {
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

/// Does the planner say that no node fits? Anti-affinity or capacity may leave a slot without a place.
fn no_room(leader: &Node, subject: &crate::state::Subject) -> bool {
    let lines = leader.leading.as_ref().and_then(|leading| leading.plan.waiting.get(subject));
    lines.is_some_and(|lines| {
        lines.iter().any(|line| match &line.cause {
            crate::state::WaitCause::NoNodeFits { refusals } => refusals.iter().all(|(_, refusal)| {
                matches!(
                    refusal,
                    crate::state::Refusal::Spread(_)
                        | crate::state::Refusal::Cpu(..)
                        | crate::state::Refusal::Memory(..)
                )
            }),
            _ => false,
        })
    })
}

fn running(slot: &SlotId, hosts: &[Host]) -> usize {
    hosts.iter().flat_map(|host| &host.processes).filter(|process| &process.slot == slot).count()
}

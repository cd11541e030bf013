//! Hosts that are in no cluster: those with an empty disk ask to be admitted as a new node, those with data of
//! another machine or of a node that left are given an empty disk first. The people who do that are here.

use super::Count;
use super::ctx::{Ctx, Happening, Message, Origin};
use super::disaster::{former, goes_on};
use super::host::Host;
use crate::command::{Actor, Command, NodeAdmission, Proposal};
use crate::state::{Answer, Reply, State};

/// How often somebody looks, in microseconds of true time.
pub(super) const EVERY_US: u64 = 900_000;

/// Looks after all hosts, again and again.
pub(super) fn look_after(hosts: &mut [Host], ctx: &mut Ctx) {
    ctx.after(EVERY_US, Happening::LookAfter);
    let members = hosts.iter().filter(|host| goes_on(host, ctx));
    let newest = members.filter_map(|host| host.node.as_ref().map(|node| &node.state));
    let newest = newest.max_by_key(|state| state.revision);
    // Nodes that have just begun from their disks know less than was known.
    let Some(newest) = newest.filter(|state| state.revision >= ctx.newest).cloned() else { return };
    for host in hosts.iter_mut().filter(|host| host.lives()) {
        if former(host, ctx) {
            if ctx.healed || ctx.now >= host.former_until {
                host.lose_identity(ctx);
            }
        } else if out_of_place(host, &newest) {
            host.take_empty_disk(ctx);
            ctx.tell(host.name.as_str(), format_args!("is given an empty disk: its data are of no use"));
        }
        if host.disk.raft_id.is_none() {
            ask(host, ctx);
        }
    }
}

/// Are its data of no use any more? The newest State must know it: an old one may know it not yet.
fn out_of_place(host: &Host, newest: &State) -> bool {
    let left = host
        .disk
        .raft_id
        .is_some_and(|id| newest.node_of(id).is_none() && host.disk.admitted_at <= newest.revision);
    host.disk.machine != host.machine() || left
}

/// What a host says when it comes.
pub(super) fn admission(host: &Host) -> NodeAdmission {
    NodeAdmission {
        machine: host.machine(),
        disk: host.disk.id.clone(),
        boot: host.boot_id(),
        witness: host.witness,
        weight: host.weight,
        facts: host.facts.clone(),
    }
}

/// Asks some host of the cluster to be admitted.
fn ask(host: &mut Host, ctx: &mut Ctx) {
    if !host.lives() || host.disk.raft_id.is_some() || host.disk.full(ctx.now) {
        return;
    }
    let admission = admission(host);
    let proposal = Proposal {
        request: None,
        actor: Actor::Node(host.name.clone()),
        at: host.wall(ctx.now),
        expected: None,
        command: Command::AdmitNode(admission),
    };
    let to = ctx.random.index(ctx.names.len());
    let origin = Origin::Joiner { host: host.index, disk: host.disk.number };
    ctx.send(host.index, to, Message::Ask { proposal: Box::new(proposal), origin, hops: 0 });
}

/// The cluster's answer came: its number makes the host a node, if it still has the disk that was admitted.
pub(super) fn admitted(host: &mut Host, ctx: &mut Ctx, disk: u64, answer: &Answer) {
    let Ok(Reply::Admitted(id)) = &answer.result else { return };
    if host.disk.number != disk || host.disk.raft_id.is_some() || !host.lives() {
        return;
    }
    ctx.count(Count::Joins);
    ctx.say(&host.name, format_args!("is admitted as {id}"));
    host.disk.raft_id = Some(*id);
    host.disk.admitted_at = answer.revision;
    let history = ctx.history;
    host.belong(ctx, history);
    ctx.routes.insert(*id, host.index);
    host.start_node(ctx);
}

//! What becomes of the carrying where a test broke it: each function is the plain thing unless a rule is
//! switched off or a bug is planted. Nothing here decides anything in a world that is whole.

use crate::ids::{NodeId, OperationId, Revision, SlotId, Token};
use crate::lease::{Lease, LeaseHolder, Standing};
use crate::observation::{NodeReport, Observed};
use crate::state::{Inventory, NodeRecord, NodeStanding, OperationKind, Plan, SlotRecord, State};
use crate::units::{BootMs, Millis, WallMs};

use super::ctx::Ctx;
use super::guard::Call;
use super::host::Host;
use super::node::Node;
use super::switches::{Plant, Rule};
use crate::command::Command;

/// Changes State behind apply's back.
pub(super) fn spoil(ctx: &Ctx, host: usize, state: &mut State) {
    if ctx.has(Plant::UnequalApply) && host == 1 && state.revision.0 > 60 {
        state.cluster.kv_bytes += 1;
    }
    if ctx.has(Plant::ForgetClaimsOfLost) {
        forget_claims_of_lost(state);
    }
    if ctx.has(Plant::SecondFence) {
        fence_twice(state);
    }
    if ctx.lacks(Rule::InventoriesFirst)
        && let Some(recovery) = state.cluster.recovery.as_mut()
    {
        recovery.open = false;
        change_nodes(state, |record| record.inventory = Inventory::Settled);
    }
    if ctx.lacks(Rule::FormerMembersStayOut) {
        let era = state.era();
        change_nodes(state, |record| record.era = era);
    }
    if ctx.lacks(Rule::StricterTerms) {
        let terms = state.cluster.settings.terms;
        change_nodes(state, |record| record.held = terms);
    }
}

fn change_nodes(state: &mut State, change: impl Fn(&mut NodeRecord)) {
    let nodes: Vec<NodeId> = state.nodes.keys().cloned().collect();
    for node in nodes {
        state.nodes.update(&node, &change);
    }
}

fn forget_claims_of_lost(state: &mut State) {
    let lost = |record: &NodeRecord| matches!(record.standing, NodeStanding::Lost { .. });
    let gone: Vec<NodeId> =
        state.nodes.iter().filter(|(_, record)| lost(record)).map(|(node, _)| node.clone()).collect();
    let hit = |record: &SlotRecord| record.claims.iter().any(|claim| gone.contains(&claim.node));
    let slots: Vec<SlotId> =
        state.slots.iter().filter(|(_, record)| hit(record)).map(|(slot, _)| slot.clone()).collect();
    for slot in slots {
        state.slots.update(&slot, |record| record.claims.retain(|claim| !gone.contains(&claim.node)));
    }
}

fn fence_twice(state: &mut State) {
    let running = state.operations.iter().find_map(|(id, operation)| match &operation.kind {
        OperationKind::Fence(_) if operation.ended.is_none() && id.0 < 1_000_000 => {
            Some((*id, operation.clone()))
        }
        _ => None,
    });
    if let Some((id, operation)) = running {
        state.operations.insert(OperationId(id.0 + 1_000_000), operation);
    }
}

/// What the leader believes to observe.
pub(super) fn misjudge(ctx: &Ctx, state: &State, mut observed: Observed, wall: WallMs) -> Observed {
    if ctx.has(Plant::ImpatientSilence) {
        // As if every node had been silent for long, as soon as it is lost.
        let long = Millis(60_000);
        observed.now = observed.now + long;
        let heard: Vec<(NodeId, BootMs)> = observed
            .nodes
            .iter()
            .filter(|(_, heard)| observed.now.since(heard.received).0 < 61_000)
            .map(|(node, heard)| (node.clone(), heard.received + long))
            .collect();
        for (node, received) in heard {
            if let Some(heard) = observed.nodes.get_mut(&node) {
                heard.received = received;
                heard.echo_rose = heard.echo_rose + long;
            }
        }
        let since = observed.raft.leading_since;
        observed.raft.leading_since =
            since.map(|since| if observed.now.since(since).0 < 61_000 { since + long } else { since });
        observed.known_since = observed.known_since.iter().map(|(n, at)| (n.clone(), *at + long)).collect();
    }
    if ctx.lacks(Rule::CountFromOwnElection) {
        // The entry holds the wall clock of whoever proposed it.
        let ages = state.nodes.values().filter_map(|record| match &record.standing {
            NodeStanding::Lost { at, .. } => Some(Millis(wall.0.saturating_sub(at.0))),
            NodeStanding::Alive => None,
        });
        let since = ages.max().map(|age| BootMs(observed.now.0.saturating_sub(age.0)));
        observed.raft.leading_since =
            observed.raft.leading_since.map(|own| since.map_or(own, |at| own.min(at)));
    }
    observed
}

/// What the leader plans in the end.
pub(super) fn misplan(ctx: &Ctx, state: &State, plan: &mut Plan) {
    if ctx.has(Plant::HastyRollout) {
        hurry(state, plan);
    }
    if ctx.has(Plant::IdlePreemption) {
        let claims = state.slots.iter().filter_map(|(slot, record)| Some((slot, record.claims.first()?)));
        let running = claims.into_iter().find(|(_, claim)| claim.stop.is_none());
        plan.commands.extend(running.map(|(slot, claim)| Command::StopClaim {
            slot: slot.clone(),
            token: claim.token,
            because: "planted".to_owned(),
            operation: None,
        }));
    }
    if ctx.has(Plant::SilentPlan) {
        plan.waiting.clear();
    }
    if ctx.has(Plant::GrantInWrongEpoch) {
        for command in &mut plan.commands {
            if let Command::Grant { lease_epoch, .. } = command {
                lease_epoch.0 += 1;
            }
        }
    }
}

/// Where one copy is replaced, all others of its service are.
fn hurry(state: &State, plan: &mut Plan) {
    let mut more = Vec::new();
    for command in &plan.commands {
        let Command::StopClaim { slot, because, operation: Some(operation), .. } = command else { continue };
        let others = state.slots.iter().filter(|(other, _)| other.service == slot.service && *other != slot);
        for (other, claim) in others.filter_map(|(other, record)| Some((other, record.claims.first()?))) {
            let (slot, token) = (other.clone(), claim.token);
            let (because, operation) = (because.clone(), Some(*operation));
            more.push(Command::StopClaim { slot, token, because, operation });
        }
    }
    plan.commands.extend(more);
}

/// What State says of a node's lease, to itself and to the leader that answers it.
pub(super) fn standing<'a>(ctx: &Ctx, record: &'a NodeRecord) -> Standing<'a> {
    let standing = record.lease_standing();
    if ctx.lacks(Rule::RejoinAfterExpiry) { Standing { alive: true, ..standing } } else { standing }
}

/// The lease as a node believes to hold it.
pub(super) fn lease(ctx: &Ctx, node: &Node, host: &Host, now: BootMs) -> Option<Lease> {
    let terms = node.state.cluster.settings.terms;
    if ctx.lacks(Rule::CurrentToken) {
        // As if the guard's word were enough to go on after a restart.
        let (epoch, valid_until) = (host.disk.lease_epoch?, host.run.valid_until?);
        return Some(Lease { epoch, valid_until, revision: Revision(0), terms, lost: false });
    }
    if ctx.has(Plant::StartWithoutLease) {
        let record = node.state.nodes.get(&host.name)?;
        let (epoch, valid_until) = (record.lease_epoch, now + terms.lease);
        return Some(Lease { epoch, valid_until, revision: Revision(0), terms, lost: false });
    }
    let mut lease = node.holder.lease().copied();
    if let Some(lease) = lease.as_mut().filter(|_| ctx.lacks(Rule::AppliedRevision)) {
        lease.revision = Revision(0);
    }
    match (lease, node.stretched) {
        (Some(lease), Some((_, until))) if until > lease.valid_until => {
            Some(Lease { valid_until: until, lost: false, ..lease })
        }
        _ => lease,
    }
}

/// State and report as a node's own reconcile takes them.
pub(super) fn own_side(ctx: &Ctx, node: &Node, host: &Host, report: &mut NodeReport) -> State {
    let mut state = node.state.clone();
    if ctx.lacks(Rule::CurrentToken) {
        report.slots.values_mut().for_each(|slot| slot.highest = Token::default());
    }
    if ctx.lacks(Rule::ClaimNamesBoot)
        && let Some(epoch) = state.nodes.get(&host.name).map(|record| record.lease_epoch)
    {
        let slots: Vec<SlotId> = state.claims_on(&host.name).map(|(slot, _)| slot.clone()).collect();
        for slot in slots {
            state.slots.update(&slot, |record| {
                for claim in record.claims.iter_mut().filter(|claim| claim.node == host.name) {
                    claim.boot = host.boot_id();
                    claim.lease_epoch = epoch;
                }
            });
        }
    }
    state
}

/// What a node does at the end of each slice that it should not.
pub(super) fn stray(ctx: &mut Ctx, node: &mut Node, host: &mut Host, now: BootMs) {
    if ctx.lacks(Rule::RejoinAfterExpiry) && node.holder.lease().is_some_and(|lease| lease.lost) {
        // A holder that forgot; under a new session, so that its numbers count again.
        node.session = ctx.serial();
        node.holder = LeaseHolder::new(host.boot_id(), None, None, now);
    }
    if ctx.lacks(Rule::TermsByRenewal) {
        let terms = node.state.cluster.settings.terms;
        let taken = node.stretched.map_or(0, |(number, _)| number);
        if let Some(lease) = node.holder.lease().copied()
            && terms.number > taken.max(lease.terms.number)
        {
            let sent = BootMs(lease.valid_until.0.saturating_sub(lease.terms.lease.0));
            let valid_until = sent + terms.lease;
            let (session, number) = (node.session, host.run.renewal.1 + 1);
            ctx.call(host, Call::Renew { session, number, valid_until, terms: terms.number });
            node.stretched = Some((terms.number, valid_until));
            node.dirty = true;
        }
    }
}

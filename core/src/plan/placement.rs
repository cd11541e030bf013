//! Which node takes a slot: filters that give every refusing node its reason, then a score whose field
//! order is the policy. Room is counted by what is promised (claims not ended), never by what is used.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::desk::Desk;
use crate::ids::{NodeId, ServiceName, SlotId};
use crate::observation::Heard;
use crate::spec::{Constraint, Resources, ServiceSpec, Spread};
use crate::state::{Claim, MigrationRecord, NodeRecord, OperationKind, Refusal, State};
use crate::units::{CpuMillis, MemoryMib};

/// What is promised on each node.
#[derive(Debug, Default)]
pub(super) struct Room {
    nodes: BTreeMap<NodeId, Promised>,
    /// Copies that are to come: this pass's grants and the places that migrations keep free.
    coming: BTreeMap<ServiceName, Vec<(u32, NodeId)>>,
    /// Who has, or is to have, something that only one instance on a host can have: ports, units of the host.
    alone: BTreeMap<NodeId, Vec<(SlotId, Arc<ServiceSpec>)>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Promised {
    resources: Resources,
    copies: u32,
}

/// What a claim's copy takes on its node.
pub(super) fn resources_of(state: &State, slot: &SlotId, claim: &Claim) -> Resources {
    spec_of(state, slot, claim).map_or_else(Resources::default, |spec| spec.resources)
}

/// What a claim's copy was started by.
fn spec_of<'a>(state: &'a State, slot: &SlotId, claim: &Claim) -> Option<&'a Arc<ServiceSpec>> {
    state.services.get(&slot.service).map(|service| service.spec_of(claim.version))
}

impl Room {
    /// Sums up all claims not ended, and what running migrations hold free at both ends.
    pub fn new(state: &State) -> Self {
        let mut room = Self::default();
        for (slot, record) in state.slots.iter() {
            for claim in &record.claims {
                match spec_of(state, slot, claim) {
                    Some(spec) => room.add(slot, &claim.node, spec),
                    None => room.promise(&claim.node, Resources::default()),
                }
            }
        }
        for operation in state.operations.values().filter(|operation| operation.ended.is_none()) {
            if let OperationKind::Migration(migration) = &operation.kind {
                room.hold(state, migration);
            }
        }
        room
    }

    /// A migration needs its target free until the grant, and its source free until nothing can come back.
    fn hold(&mut self, state: &State, migration: &MigrationRecord) {
        let Some(service) = state.services.get(&migration.slot.service) else { return };
        let claims = state.slots.get(&migration.slot).map_or(&[][..], |slot| slot.claims.as_slice());
        for node in [migration.target.as_ref(), Some(&migration.source)].into_iter().flatten() {
            if !claims.iter().any(|claim| claim.node == *node) {
                self.take(&migration.slot, node, &service.spec);
            }
        }
    }

    fn add(&mut self, slot: &SlotId, node: &NodeId, spec: &Arc<ServiceSpec>) {
        self.promise(node, spec.resources);
        if spec.workload.claims_of_host() {
            self.alone.entry(node.clone()).or_default().push((slot.clone(), spec.clone()));
        }
    }

    fn promise(&mut self, node: &NodeId, resources: Resources) {
        let promised = self.nodes.entry(node.clone()).or_default();
        promised.resources.cpu = CpuMillis(promised.resources.cpu.0.saturating_add(resources.cpu.0));
        promised.resources.memory = MemoryMib(promised.resources.memory.0.saturating_add(resources.memory.0));
        promised.copies += 1;
    }

    /// Counts a copy that is to come.
    pub fn take(&mut self, slot: &SlotId, node: &NodeId, spec: &Arc<ServiceSpec>) {
        self.add(slot, node, spec);
        self.coming.entry(slot.service.clone()).or_default().push((slot.ordinal, node.clone()));
    }

    /// What another slot has on a node that this one would need for itself. What a slot has there itself is no
    /// hindrance: it comes back to it, and its older claim ends before it starts again.
    fn taken(&self, slot: &SlotId, node: &NodeId, spec: &ServiceSpec) -> Option<Refusal> {
        if !spec.workload.claims_of_host() {
            return None;
        }
        let others = self.alone.get(node)?.iter().filter(|(other, _)| other != slot);
        let mut collisions = others.filter_map(|(other, theirs)| {
            spec.workload.collision(&theirs.workload).map(|what| Refusal::Taken(what, other.clone()))
        });
        collisions.next()
    }

    /// What is still free on a node, where `own` of what is promised does not count.
    fn free(&self, node: &NodeId, capacity: Resources, own: Resources) -> Resources {
        let promised = self.promised(node).resources;
        let cpu = promised.cpu.0.saturating_sub(own.cpu.0);
        let memory = promised.memory.0.saturating_sub(own.memory.0);
        Resources {
            cpu: CpuMillis(capacity.cpu.0.saturating_sub(cpu)),
            memory: MemoryMib(capacity.memory.0.saturating_sub(memory)),
        }
    }

    /// How much a node lacks to take this in.
    pub fn lacking(&self, node: &NodeId, capacity: Resources, want: Resources) -> Resources {
        let promised = self.promised(node).resources;
        let cpu = promised.cpu.0.saturating_add(want.cpu.0).saturating_sub(capacity.cpu.0);
        let memory = promised.memory.0.saturating_add(want.memory.0).saturating_sub(capacity.memory.0);
        Resources { cpu: CpuMillis(cpu), memory: MemoryMib(memory) }
    }

    fn promised(&self, node: &NodeId) -> Promised {
        self.nodes.get(node).copied().unwrap_or_default()
    }
}

/// What is to be placed, and within which bounds.
pub(super) struct Wish<'a> {
    /// Which slot.
    pub slot: &'a SlotId,
    /// What is to run there.
    pub spec: &'a ServiceSpec,
    /// Only this node will do.
    pub only: Option<&'a NodeId>,
    /// This node has it already and is to be left.
    pub leave: Option<&'a NodeId>,
    /// Where it ran last.
    pub before: Option<&'a NodeId>,
    /// Its room there is kept by the migration that asks.
    pub room_kept: bool,
    /// It only returns to where it was: a cordon does not bar it.
    pub returning: bool,
}

impl<'a> Wish<'a> {
    /// Anywhere that fits.
    pub fn anywhere(slot: &'a SlotId, spec: &'a ServiceSpec) -> Self {
        Self { slot, spec, only: None, leave: None, before: None, room_kept: false, returning: false }
    }
}

/// Why one node is better than another: the first field that differs decides, greater wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    /// The slot's state lies there.
    has_state: bool,
    /// Fewest copies of the same service on the node: a loss costs as little as can be.
    copies: Reverse<u32>,
    /// Fewest copies of the same service in the node's zone (its label `zone`).
    copies_in_zone: Reverse<u32>,
    /// The operator's preferences, summed.
    affinity: i32,
    /// It ran there before: images and caches are warm.
    ran_before: bool,
    /// The least promised afterwards, in thousandths of the scarcer of processor and memory.
    load: Reverse<u64>,
    /// The fewest copies of anything.
    all_copies: Reverse<u32>,
    /// So that equal nodes are always taken in the same order.
    id: Reverse<NodeId>,
}

/// A node that was chosen, and why, for people.
pub(super) struct Choice {
    pub node: NodeId,
    pub because: String,
}

/// The best node, or every node's reason.
pub(super) fn place(desk: &Desk<'_>, wish: &Wish<'_>) -> Result<Choice, Vec<(NodeId, Refusal)>> {
    let neighbours = Neighbours::of(desk, wish);
    let mut refusals = Vec::new();
    let mut best: Option<Score> = None;
    let mut fitting = 0;
    for (node, record) in desk.state.nodes.iter() {
        match fits(desk, wish, &neighbours, node, record) {
            Err(refusal) => refusals.push((node.clone(), refusal)),
            Ok(()) => {
                fitting += 1;
                let score = score(desk, wish, &neighbours, node, record);
                if best.as_ref().is_none_or(|other| score > *other) {
                    best = Some(score);
                }
            }
        }
    }
    best.map(|score| choice(wish, score, fitting)).ok_or(refusals)
}

fn choice(wish: &Wish<'_>, score: Score, fitting: u32) -> Choice {
    let node = score.id.0;
    let why = if wish.only.is_some() {
        format!("{node} was asked for")
    } else if score.has_state {
        format!("{node} holds its state")
    } else if fitting == 1 {
        format!("only {node} fits")
    } else if score.ran_before {
        format!("{node} ran it before")
    } else {
        format!(
            "{node} is the best of {fitting}: copies of {} there {}, promised {} % with it",
            wish.spec.name,
            score.copies.0,
            score.load.0.div_ceil(10)
        )
    };
    Choice { node, because: why }
}

/// Where the other copies of a service are or will be, by node and by zone.
struct Neighbours {
    nodes: BTreeMap<NodeId, SlotId>,
    counts: BTreeMap<NodeId, u32>,
    zones: BTreeMap<String, u32>,
}

impl Neighbours {
    fn of(desk: &Desk<'_>, wish: &Wish<'_>) -> Self {
        let mut found = Self { nodes: BTreeMap::new(), counts: BTreeMap::new(), zones: BTreeMap::new() };
        let service = &wish.slot.service;
        for (slot, record) in desk.slots_of(service).filter(|(slot, _)| *slot != wish.slot) {
            for claim in &record.claims {
                found.add(desk, slot.clone(), &claim.node);
            }
        }
        for (ordinal, node) in desk.room.coming.get(service).into_iter().flatten() {
            if *ordinal != wish.slot.ordinal {
                found.add(desk, SlotId { service: service.clone(), ordinal: *ordinal }, node);
            }
        }
        found
    }

    fn add(&mut self, desk: &Desk<'_>, slot: SlotId, node: &NodeId) {
        self.nodes.entry(node.clone()).or_insert(slot);
        *self.counts.entry(node.clone()).or_default() += 1;
        if let Some(zone) = desk.record(node).and_then(|record| record.facts.labels.get("zone")) {
            *self.zones.entry(zone.clone()).or_default() += 1;
        }
    }
}

fn fits(
    desk: &Desk<'_>,
    wish: &Wish<'_>,
    neighbours: &Neighbours,
    node: &NodeId,
    record: &NodeRecord,
) -> Result<(), Refusal> {
    if let Some(only) = wish.only.filter(|only| *only != node) {
        return Err(Refusal::NotWanted(only.clone()));
    }
    if record.witness {
        return Err(Refusal::Witness);
    }
    let (_, heard) = desk.usable(node)?;
    if (record.cordoned || record.leaving) && !wish.returning {
        return Err(Refusal::Cordoned);
    }
    if wish.leave == Some(node) {
        return Err(Refusal::Spread(wish.slot.clone()));
    }
    executor(wish.spec, record, heard)?;
    if let Some(broken) = wish.spec.placement.constraints.iter().find(|rule| !holds(rule, node, record)) {
        return Err(Refusal::Constraint(broken.to_string(), attribute(broken, node, record)));
    }
    if wish.spec.placement.spread == Spread::Require
        && let Some(slot) = neighbours.nodes.get(node)
    {
        return Err(Refusal::Spread(slot.clone()));
    }
    if let Some(refusal) = desk.room.taken(wish.slot, node, wish.spec) {
        return Err(refusal);
    }
    // Last: whoever lacks only room may have it made, see `preemption`.
    enough(desk, wish, node, record)
}

fn enough(desk: &Desk<'_>, wish: &Wish<'_>, node: &NodeId, record: &NodeRecord) -> Result<(), Refusal> {
    let want = wish.spec.resources;
    // Room that is kept is counted as promised already.
    let own = if wish.room_kept { want } else { Resources::default() };
    let free = desk.room.free(node, record.facts.capacity, own);
    if want.cpu > free.cpu {
        return Err(Refusal::Cpu(want.cpu, free.cpu));
    }
    if want.memory > free.memory {
        return Err(Refusal::Memory(want.memory, free.memory));
    }
    Ok(())
}

fn executor(spec: &ServiceSpec, record: &NodeRecord, heard: &Heard) -> Result<(), Refusal> {
    let kind = spec.workload.executor();
    let mut known = heard.report.executors.iter().chain(&record.facts.executors);
    match known.find(|fact| fact.kind == kind) {
        None => Err(Refusal::Executor(format!("no executor {kind} there"))),
        Some(fact) => match &fact.unavailable {
            None => Ok(()),
            Some(why) => {
                Err(Refusal::Executor(format!("{kind} is unavailable: {}; {}", why.why, why.remedy)))
            }
        },
    }
}

fn attribute(rule: &Constraint, node: &NodeId, record: &NodeRecord) -> Option<String> {
    match rule.attribute.as_str() {
        "node" => Some(node.to_string()),
        label => record.facts.labels.get(label).cloned(),
    }
}

fn holds(rule: &Constraint, node: &NodeId, record: &NodeRecord) -> bool {
    (attribute(rule, node, record).as_deref() == Some(rule.value.as_str())) == rule.equal
}

fn score(
    desk: &Desk<'_>,
    wish: &Wish<'_>,
    neighbours: &Neighbours,
    node: &NodeId,
    record: &NodeRecord,
) -> Score {
    let ran_before = wish.before == Some(node);
    let zone = record.facts.labels.get("zone");
    let preferences = wish.spec.placement.affinity.iter();
    Score {
        has_state: ran_before && wish.spec.state_dir.is_some(),
        copies: Reverse(neighbours.counts.get(node).copied().unwrap_or_default()),
        copies_in_zone: Reverse(
            zone.and_then(|zone| neighbours.zones.get(zone)).copied().unwrap_or_default(),
        ),
        affinity: preferences.filter(|a| holds(&a.constraint, node, record)).map(|a| a.weight).sum(),
        ran_before,
        load: Reverse(load_with(desk, wish.spec.resources, node, record)),
        all_copies: Reverse(desk.room.promised(node).copies),
        id: Reverse(node.clone()),
    }
}

fn load_with(desk: &Desk<'_>, more: Resources, node: &NodeId, record: &NodeRecord) -> u64 {
    let promised = desk.room.promised(node).resources;
    let share = |used: u64, of: u64| used.saturating_mul(1_000) / of.max(1);
    let cpu =
        share(u64::from(promised.cpu.0) + u64::from(more.cpu.0), u64::from(record.facts.capacity.cpu.0));
    let memory = share(promised.memory.0.saturating_add(more.memory.0), record.facts.capacity.memory.0);
    cpu.max(memory)
}

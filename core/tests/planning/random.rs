//! Many random histories: whatever happened, every slot that should run and does not run well says what it
//! waits for, no planner command is refused, no node is promised more than it has, and after the heal
//! everything that fits runs and every operation ends.

use std::collections::BTreeSet;

use crate::world::{World, node, slot};
use quorate_core::command::Command;
use quorate_core::ids::{OperationId, ServiceName, SlotId};
use quorate_core::observation::{ExitKind, ExitReason, FenceOutcome, Health, InstancePhase};
use quorate_core::state::{OperationKind, State, Subject, WaitCause};

/// A small generator (splitmix64), so that a seed is a history.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.next(from.len() as u64) as usize]
    }
}

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const SERVICES: [&str; 4] = ["a", "b", "c", "d"];

fn wanted(state: &State) -> Vec<SlotId> {
    let of = |(name, service): (&ServiceName, &quorate_core::state::ServiceRecord)| {
        let name = name.clone();
        (0..service.wanted())
            .map(move |ordinal| SlotId { service: name.clone(), ordinal })
            .collect::<Vec<_>>()
    };
    state.services.iter().flat_map(of).collect()
}

/// Does it run well, judged without the planner's own helpers?
fn runs_well(world: &World, slot: &SlotId) -> bool {
    let claims = world.state.slots.get(slot).map(|record| record.claims.clone()).unwrap_or_default();
    claims.iter().any(|claim| {
        let Some(heard) = world.observed.nodes.get(&claim.node) else { return false };
        let age = world.observed.now.since(heard.received);
        let instance = heard.report.slots.get(slot).and_then(|known| known.instance.as_ref());
        claim.stop.is_none()
            && !world.state.nodes.get(&claim.node).unwrap().lost()
            && age.0 < 2_500
            && heard.report.boot == claim.boot
            && !heard.report.wants_rejoin
            && instance.is_some_and(|i| {
                i.id.token == claim.token && i.phase == InstancePhase::Running && i.health.good()
            })
    })
}

fn check(world: &World, seed: u64) {
    let plan = world.plan();
    for slot in wanted(&world.state) {
        let waits = plan.waiting.contains_key(&Subject::Slot(slot.clone()));
        let record = world.state.slots.get(&slot);
        assert!(waits || runs_well(world, &slot), "seed {seed}: {slot} waits for nothing: {record:?}");
    }
    for (slot, lines) in &plan.waiting {
        for line in lines {
            if let WaitCause::Evidence { items, .. } = &line.cause {
                assert_eq!(items.len(), 5, "seed {seed}: {slot:?}");
            }
        }
    }
    for (name, record) in world.state.nodes.iter() {
        let cpu: u32 = world
            .state
            .claims_on(name)
            .map(|(slot, claim)| {
                world.state.services.get(&slot.service).unwrap().spec_of(claim.version).resources.cpu.0
            })
            .sum();
        assert!(cpu <= record.facts.capacity.cpu.0, "seed {seed}: {name} promised {cpu}");
    }
}

fn happen(world: &mut World, random: &mut Random) {
    let service = random.pick(&SERVICES);
    let name: ServiceName = service.parse().unwrap();
    let who = random.pick(&NODES[1..]);
    match random.next(20) {
        0..=3 => {
            let replicas = 1 + random.next(3);
            let priority = random.pick(&["low", "normal", "high", "critical"]);
            let state = random.pick(&["", "state: {dir: data}\n"]);
            let exclusive = random.pick(&["", "", "exclusive: true\n", "exclusive: false\n"]);
            let cpu = 1 + random.next(2);
            let text = format!(
                "name: {service}\nreplicas: {replicas}\npriority: {priority}\nresources: {{cpu: {cpu}}}\n{state}{exclusive}"
            );
            let command = world.deploy_command(&text);
            world.try_ask(command);
        }
        4 => drop(world.try_ask(Command::Scale { service: name, replicas: random.next(4) as u32 })),
        5 => drop(world.try_ask(Command::Restart { service: name })),
        6 => drop(world.try_ask(Command::StopService { service: name })),
        7 => drop(world.try_ask(Command::DeleteService { service: name })),
        8 => world.kill(who),
        9 => world.thaw(who),
        10 => world.reboot(who),
        11 => world.pass(random.next(8_000)),
        12 => {
            drop(world.try_ask(Command::Drain { node: node(who), max_in_flight: 1 + random.next(3) as u32 }));
        }
        13 => drop(world.try_ask(Command::Uncordon { node: node(who) })),
        14 => drop(world.try_ask(Command::Migrate {
            slot: slot(&format!("{service}/0")),
            to: None,
            parent: None,
        })),
        15 => drop(world.try_ask(Command::Fence { node: node(who), reason: "random".to_owned() })),
        16 if !world.up.contains(&node(who)) => {
            drop(world.try_ask(Command::AttestDead { node: node(who), reason: "it is".to_owned() }));
        }
        17 => {
            let running: Vec<OperationId> = world.state.operations.keys().copied().collect();
            if let Some(id) = running.last() {
                world.try_ask(Command::CancelOperation { operation: *id });
            }
        }
        18 => {
            world.copies = random.next(2) == 0;
            let failed = FenceOutcome::Failed { output: "no answer".to_owned() };
            let off = FenceOutcome::ProvenOff { output: "off".to_owned() };
            world.fence = [None, Some(failed), Some(off)][random.next(3) as usize].clone();
        }
        _ => trouble(world, random, who),
    }
}

/// Something is wrong with one instance on a node.
fn trouble(world: &mut World, random: &mut Random, who: &str) {
    let Some(heard) = world.observed.nodes.get(&node(who)) else { return };
    let Some((slot, _)) = heard.report.slots.iter().find(|(_, known)| known.instance.is_some()) else {
        return;
    };
    let (slot, kind) = (slot.to_string(), random.next(5));
    world.instance_on(who, &slot, |instance| {
        let exit = ExitReason { kind: ExitKind::Failed, code: Some(1), signal: None };
        match kind {
            0 => instance.health = Health::Unhealthy,
            1 => instance.health = Health::Starting,
            2 => instance.phase = InstancePhase::Exited(exit),
            3 => instance.phase = InstancePhase::StartFailed("no such file".to_owned()),
            _ => instance.phase = InstancePhase::Unknown("no answer".to_owned()),
        }
    });
}

/// Everything is repaired; what cannot be proven is attested.
fn heal(world: &mut World) {
    world.copies = true;
    world.fence = Some(FenceOutcome::ProvenOff { output: "off".to_owned() });
    world.recover_instances();
    for name in NODES {
        // A fenced host is switched on again.
        let proven = world.state.nodes.get(&node(name)).unwrap().proof().is_some();
        if proven || !world.up.contains(&node(name)) {
            world.reboot(name);
        }
    }
    for _ in 0..10 {
        world.settle();
        world.recover_instances();
        for name in NODES {
            if world.state.nodes.get(&node(name)).unwrap().proof().is_some() {
                world.reboot(name);
            }
            let drained = world.state.operations.values().any(|operation| {
                operation.ended.is_none() && matches!(&operation.kind, OperationKind::Drain(_))
            });
            if !drained {
                world.try_ask(Command::Uncordon { node: node(name) });
            }
        }
    }
}

fn healed(world: &World, seed: u64) {
    let plan = world.plan();
    // Where not all fit, moves may wait for room, or for copies that wait for room.
    let full = plan.waiting.values().flatten().any(|line| matches!(line.cause, WaitCause::NoNodeFits { .. }));
    for (id, operation) in world.state.operations.iter().filter(|(_, operation)| operation.ended.is_none()) {
        let waits = plan.waiting.get(&Subject::Operation(*id));
        let all = &plan.waiting;
        assert!(full && waits.is_some(), "seed {seed}: operation {id} never ends: {operation:?}\n{all:?}");
    }
    for slot in wanted(&world.state) {
        if !runs_well(world, &slot) {
            let lines = &plan.waiting[&Subject::Slot(slot.clone())];
            let full = lines.iter().any(|line| matches!(line.cause, WaitCause::NoNodeFits { .. }));
            assert!(full, "seed {seed}: {slot} does not run after the heal: {lines:?}");
        }
    }
}

#[test]
fn whatever_happens_every_slot_that_does_not_run_says_why_and_the_heal_brings_it_back() {
    let mut kinds = BTreeSet::new();
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut world = World::new(&NODES);
        if seed % 2 == 0 {
            NODES.iter().for_each(|name| world.fence_method(name));
        }
        if seed % 3 == 0 {
            NODES.iter().for_each(|name| world.facts(name, |facts| facts.armed = true));
        }
        for _ in 0..120 {
            happen(&mut world, &mut random);
            check(&world, seed);
            kinds.extend(world.plan().waiting.values().flatten().map(|line| kind(&line.cause)));
            if random.next(3) > 0 {
                world.step();
            }
            if random.next(2) == 0 {
                world.obey();
            }
        }
        heal(&mut world);
        healed(&world, seed);
    }
    // Green is not vacuous: every kind of waiting was met.
    let all = [
        "backoff",
        "copying",
        "evidence",
        "fencing",
        "health",
        "no node fits",
        "operation",
        "operator",
        "other",
        "starting",
        "stopping",
        "suspect",
        "throttled",
    ];
    assert_eq!(kinds, all.into_iter().collect::<BTreeSet<_>>());
}

fn kind(cause: &WaitCause) -> &'static str {
    match cause {
        WaitCause::NoNodeFits { .. } => "no node fits",
        WaitCause::Evidence { .. } => "evidence",
        WaitCause::Suspect { .. } => "suspect",
        WaitCause::Stopping { .. } => "stopping",
        WaitCause::Starting { .. } => "starting",
        WaitCause::Backoff { .. } => "backoff",
        WaitCause::Ended { .. } => "ended",
        WaitCause::Operation { .. } => "operation",
        WaitCause::Throttled { .. } => "throttled",
        WaitCause::Health { .. } => "health",
        WaitCause::Copying { .. } => "copying",
        WaitCause::Fencing { .. } => "fencing",
        WaitCause::Operator { .. } => "operator",
        WaitCause::Recovery { .. } => "recovery",
        WaitCause::Other { .. } => "other",
    }
}

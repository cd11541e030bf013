//! Any commands in any order: apply answers all of them, keeps what must hold, and comes to the same State
//! from the same log, from its stored form, and from a snapshot on the way.

use super::testkit::{Cluster, admission, asked, facts, node, planned, request, service, spec};
use crate::command::{Command, Found, OperationStep, Proposal, Recovery};
use crate::ids::{BootId, Epoch, LeaseEpoch, NodeId, OperationId, Revision, SlotId, Token};
use crate::state::{
    ClusterSettings, Evidence, MigrationPhase, NodeProof, OperationKind, RecoveryCause, SettingChange, State,
    codec,
};
use crate::units::Millis;

/// splitmix64: each number depends on the seed alone.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }
}

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const SERVICES: [&str; 3] = ["a", "b", "c"];
const SPECS: [&str; 6] = [
    "",
    "replicas: 3",
    "replicas: 2\nexclusive: true",
    "state: {dir: data}\nstop: {grace: 1s}",
    "priority: critical\nexclusive: false\nreplicas: 2",
    "priority: low",
];

fn any_slot(dice: &mut Dice, state: &State) -> SlotId {
    let known: Vec<SlotId> = state.slots.keys().cloned().collect();
    if known.is_empty() || dice.below(10) == 0 {
        return SlotId { service: service(dice.one(&SERVICES)), ordinal: dice.below(4) as u32 };
    }
    dice.one(&known)
}

/// A claim's slot, token, node and stop, or nonsense.
fn any_claim(dice: &mut Dice, state: &State) -> (SlotId, Token, String, Option<Token>) {
    let claims: Vec<_> = state
        .slots
        .iter()
        .flat_map(|(slot, record)| record.claims.iter().map(move |claim| (slot, claim)))
        .map(|(slot, claim)| {
            (slot.clone(), claim.token, claim.node.to_string(), claim.stop.as_ref().map(|stop| stop.token))
        })
        .collect();
    if claims.is_empty() || dice.below(20) == 0 {
        return (any_slot(dice, state), Token::default(), "n1".to_owned(), None);
    }
    dice.one(&claims)
}

fn epoch_of(state: &State, name: &str) -> LeaseEpoch {
    state.nodes.get(&node(name)).map_or(LeaseEpoch(0), |record| record.lease_epoch)
}

fn any_evidence(dice: &mut Dice, state: &State, name: &str, stop: Option<Token>) -> Evidence {
    let record = state.nodes.get(&node(name));
    match record.and_then(|record| record.proof()) {
        Some(proof) if dice.below(2) == 0 => return proof.as_evidence(),
        Some(NodeProof::Fenced { .. } | NodeProof::Attested { .. }) | None => {}
    }
    match dice.below(5) {
        0 | 1 => Evidence::StopAcknowledged { stop: stop.unwrap_or_default() },
        2 => Evidence::Rebooted { boot: record.map_or_else(BootId::default, |record| record.boot.clone()) },
        3 => Evidence::Silence { lease_epoch: epoch_of(state, name), waited: Millis(dice.below(60_000)) },
        _ => Evidence::Fenced { operation: OperationId(dice.below(20)) },
    }
}

fn any_step(dice: &mut Dice) -> OperationStep {
    let words = || "because".to_owned();
    match dice.below(11) {
        0 | 1 => OperationStep::Prepare { target: node(dice.one(&NODES)) },
        2 => OperationStep::Copied { pass: 1 + dice.below(3) as u32, bytes: dice.next(), digest: words() },
        3 | 4 => OperationStep::Switchover,
        5 => OperationStep::Verify,
        6 => OperationStep::RollBack { because: words() },
        7 => OperationStep::FenceAttempt {
            by: node(dice.one(&NODES)),
            attempt: 1 + dice.below(3) as u32,
            level: 0,
            method: dice.below(2) as u32,
        },
        8 => OperationStep::FenceFailed { output: words() },
        9 => OperationStep::FenceProven { output: words() },
        _ if dice.below(3) == 0 => OperationStep::Fail { because: words() },
        _ => OperationStep::Finish,
    }
}

/// What an orderly planner would do with an operation now.
fn fitting(dice: &mut Dice, cluster: &Cluster, id: OperationId) -> Option<Command> {
    let operation = cluster.state.operations.get(&id).filter(|operation| operation.ended.is_none())?;
    let copied = |pass: u32| OperationStep::Copied { pass, bytes: 9, digest: "d".to_owned() };
    let step = match &operation.kind {
        OperationKind::Migration(migration) => {
            let to =
                |name: &NodeId| Some(cluster.grant_of(&migration.slot.to_string(), name.as_str(), Some(id)));
            match migration.phase {
                MigrationPhase::Planned => OperationStep::Prepare { target: node(dice.one(&NODES)) },
                MigrationPhase::Preparing => OperationStep::Switchover,
                MigrationPhase::Copying if migration.passes == 0 => copied(1),
                MigrationPhase::Copying => OperationStep::Switchover,
                MigrationPhase::Switchover if migration.granted.is_some() => OperationStep::Verify,
                MigrationPhase::Switchover if migration.passes == 1 => copied(2),
                MigrationPhase::Switchover => return migration.target.as_ref().and_then(to),
                MigrationPhase::Verifying if dice.below(2) == 0 => OperationStep::Finish,
                MigrationPhase::Verifying => OperationStep::RollBack { because: "test".to_owned() },
                MigrationPhase::RollingBack if dice.below(2) == 0 => OperationStep::Finish,
                MigrationPhase::RollingBack if dice.below(2) == 0 => copied(migration.passes + 1),
                MigrationPhase::RollingBack => return to(&migration.source),
                MigrationPhase::Done | MigrationPhase::RolledBack => return None,
            }
        }
        OperationKind::Fence(fence) if fence.by_node.is_none() => OperationStep::FenceAttempt {
            by: node(dice.one(&NODES)),
            attempt: fence.attempt + 1,
            level: 0,
            method: fence.method,
        },
        OperationKind::Fence(_) => OperationStep::FenceProven { output: "off".to_owned() },
        OperationKind::Drain(_) | OperationKind::Rollout(_) => OperationStep::Finish,
    };
    Some(Command::Advance { operation: id, from: operation.step, step })
}

fn any_command(dice: &mut Dice, cluster: &Cluster) -> Command {
    let state = &cluster.state;
    let name = dice.one(&NODES);
    let operation = {
        let running = cluster.running();
        if running.is_empty() { OperationId(dice.below(9)) } else { dice.one(&running) }
    };
    let orderly = (dice.below(5) < 2).then(|| fitting(dice, cluster, operation)).flatten();
    if let Some(command) = orderly {
        return command;
    }
    match dice.below(43) {
        0 => {
            let mut admission = admission(name);
            if dice.below(2) == 0 {
                admission.disk.0 = format!("disk-{}", dice.below(5));
            }
            Command::AdmitNode(admission)
        }
        1 => {
            let mut facts = facts(name);
            facts.armed = dice.below(3) > 0;
            facts.terms = dice.below(4);
            Command::UpdateNode(facts)
        }
        2 => Command::MarkLost {
            node: node(name),
            lease_epoch: epoch_of(state, name),
            because: vec!["silent".to_owned()],
        },
        3..=6 => {
            let boot = BootId(dice.one(&["boot-1", "boot-2", "boot-n1"]).to_owned());
            let claims = state.nodes.get(&node(name)).map_or_else(Vec::new, |_| {
                state.claims_on(&node(name)).map(|(slot, claim)| (slot.clone(), claim.token)).collect()
            });
            let holds = if dice.below(3) == 0 { claims } else { Vec::new() };
            Command::Rejoin { node: node(name), boot, lease_epoch: epoch_of(state, name), holds }
        }
        7 => Command::Cordon { node: node(name), on: dice.below(3) == 0 },
        8 => Command::AttestDead { node: node(name), reason: "dead".to_owned() },
        9 if dice.below(8) == 0 => Command::Leave { node: node(name) },
        9 => Command::RemoveNode { node: node(name) },
        10..=12 => Command::Deploy { spec: spec(dice.one(&SERVICES), dice.one(&SPECS)) },
        13 => Command::Scale { service: service(dice.one(&SERVICES)), replicas: dice.below(5) as u32 },
        14 => Command::Restart { service: service(dice.one(&SERVICES)) },
        15 if dice.below(3) == 0 => Command::StopService { service: service(dice.one(&SERVICES)) },
        15 if dice.below(2) == 0 => Command::DeleteService { service: service(dice.one(&SERVICES)) },
        15..=22 => {
            let slot = any_slot(dice, state);
            let operation = if dice.below(3) == 0 { Some(operation) } else { None };
            cluster.grant_of(&slot.to_string(), name, operation)
        }
        23 | 24 => {
            let (slot, token, _, _) = any_claim(dice, state);
            Command::StopClaim { slot, token, because: "test".to_owned(), operation: None }
        }
        25..=28 => {
            let (slot, token, name, stop) = any_claim(dice, state);
            let evidence = any_evidence(dice, state, &name, stop);
            Command::EndClaim { slot, token, evidence }
        }
        29 => Command::Drain { node: node(name), max_in_flight: dice.below(3) as u32 },
        30 => Command::Uncordon { node: node(name) },
        31 => {
            let to = (dice.below(2) == 0).then(|| node(name));
            let parent = (dice.below(3) == 0).then_some(operation);
            Command::Migrate { slot: any_slot(dice, state), to, parent }
        }
        32 => Command::Fence { node: node(name), reason: "test".to_owned() },
        33 => Command::CancelOperation { operation },
        34..=36 => {
            let from = state.operations.get(&operation).map_or(0, |operation| operation.step);
            Command::Advance { operation, from, step: any_step(dice) }
        }
        37 => Command::KvPut {
            key: dice.one(&[b"k".to_vec(), b"l".to_vec(), Vec::new()]),
            value: vec![0; dice.below(9) as usize],
            ttl: Some(Millis(dice.below(2))),
            if_revision: None,
        },
        38 => Command::KvDelete {
            key: b"k".to_vec(),
            range_end: dice.one(&[None, Some(b"a".to_vec()), Some(b"z".to_vec())]),
        },
        39 if dice.below(40) == 0 => {
            let members = state.nodes.iter().filter(|(_, record)| !state.left_behind(record));
            let survivors = members.map(|(id, _)| id.clone()).filter(|_| dice.below(3) > 0).collect();
            Command::Recover(Recovery {
                cause: RecoveryCause::ForcedQuorum { survivors },
                above: Epoch(dice.below(3)),
                kept: Revision(dice.below(400)),
                cluster: None,
                founder: None,
                reason: "test".to_owned(),
            })
        }
        39..=41 => any_inventory(dice, state, name),
        _ => {
            let profile = dice.one(&["default", "lan", "fast", "wrong"]);
            let change = SettingChange { name: "timing.profile".to_owned(), value: profile.to_owned() };
            Command::ChangeSettings(vec![change])
        }
    }
}

/// What a node may tell: its claims, some of them running, and what nobody claimed.
fn any_inventory(dice: &mut Dice, state: &State, name: &str) -> Command {
    let mut found: Vec<Found> = Vec::new();
    let id = node(name);
    for (slot, token) in state.claims_on(&id).map(|(slot, claim)| (slot.clone(), claim.token)) {
        found.retain(|other| other.slot != slot);
        let digest = any_digest(dice, state, &slot);
        let runs = (dice.below(2) == 0).then_some((token, digest));
        let highest = if dice.below(4) == 0 { state.token() } else { token };
        found.push(Found { slot, highest, runs });
    }
    let slot = any_slot(dice, state);
    if found.iter().all(|other| other.slot != slot) {
        let revision = Revision(dice.below(state.revision.0 + 40));
        let token = Token { epoch: Epoch(1 + dice.below(2)), revision };
        let digest = any_digest(dice, state, &slot);
        found.push(Found { slot, highest: token, runs: Some((token, digest)) });
    }
    let highest = found.iter().map(|found| found.highest).max().unwrap_or_default();
    let boot = state.nodes.get(&id).map_or_else(BootId::default, |record| record.boot.clone());
    let recovery = state.recovering().map_or(Revision(1), |recovery| recovery.begun);
    Command::TakeInventory { node: id, boot, recovery, highest, found }
}

fn any_digest(dice: &mut Dice, state: &State, slot: &SlotId) -> u64 {
    let service = state.services.get(&slot.service).filter(|_| dice.below(5) > 0);
    service.map_or(7, |service| service.spec.run_digest())
}

fn any_proposal(dice: &mut Dice, cluster: &Cluster) -> Proposal {
    let command = any_command(dice, cluster);
    let mut proposal = if dice.below(2) == 0 { asked(command) } else { planned(command) };
    if dice.below(4) == 0 {
        proposal.request = Some(request(dice.one(&["one", "two"]), dice.below(60)));
    }
    proposal.expected = (dice.below(10) == 0).then(|| Revision(dice.below(300)));
    proposal
}

/// Counts what happened, so that a green run is known to have seen something.
#[derive(Default, Debug)]
struct Seen {
    accepted: u32,
    grants: u32,
    ended: u32,
    flips: u32,
    fenced: u32,
    recoveries: u32,
    adopted: u32,
    settled: u32,
}

#[test]
fn any_commands_in_any_order_are_answered_and_keep_what_must_hold() {
    let mut seen = Seen::default();
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let mut cluster = Cluster::of(&NODES[..3]);
        let mut other = cluster.state.clone();
        for _ in 0..500 {
            let entry: Vec<Proposal> =
                (0..dice.below(4)).map(|_| any_proposal(&mut dice, &cluster)).collect();
            let one_by_one = match &entry[..] {
                [proposal] => vec![cluster.propose(proposal.clone())],
                _ => cluster.entry(&entry).answers,
            };
            let stored: Vec<Vec<u8>> = entry.iter().map(codec::encode_proposal).collect();
            let (answers, _) = other.apply_entry(cluster.state.revision, &stored);
            let read: Vec<_> = answers.iter().map(|bytes| codec::decode_answer(bytes).unwrap()).collect();
            assert_eq!(read, one_by_one, "seed {seed}");
            assert_eq!(other.hash(), cluster.state.hash(), "seed {seed}");
            seen.accepted += read.iter().filter(|answer| answer.result.is_ok()).count() as u32;
            if dice.below(50) == 0 {
                let bytes = codec::encode_state(&other);
                other = codec::decode_state(&bytes).unwrap();
                assert_eq!(other, cluster.state, "seed {seed}");
                assert_eq!(codec::encode_state(&other), bytes, "seed {seed}");
            }
        }
        for event in &cluster.events {
            seen.count(event);
        }
    }
    assert!(
        seen.recoveries > 5 && seen.adopted > 5 && seen.settled > 5,
        "too few recoveries happened: {seen:?}"
    );
    assert!(
        seen.accepted > 5_000 && seen.grants > 500 && seen.ended > 200 && seen.flips > 1 && seen.fenced > 5,
        "too little happened: {seen:?}"
    );
}

impl Seen {
    fn count(&mut self, event: &crate::event::Event) {
        use crate::event::Event;
        match event {
            Event::Granted { .. } => self.grants += 1,
            Event::ClaimEnded { .. } => self.ended += 1,
            Event::Recovered { .. } => self.recoveries += 1,
            Event::InventoryTaken { adopted, .. } => self.adopted += adopted,
            Event::RecoveryOver => self.settled += 1,
            Event::OperationEnded { what, well: true, .. } if what.starts_with("move") => self.flips += 1,
            Event::OperationEnded { what, well: true, .. } if what.starts_with("fencing") => self.fenced += 1,
            _ => {}
        }
    }
}

#[test]
fn damaged_proposals_never_panic_and_are_answered_alike_everywhere() {
    let mut dice = Dice(7);
    let cluster = Cluster::of(&NODES[..3]);
    let (mut one, mut two) = (cluster.state.clone(), cluster.state.clone());
    let mut refused = 0;
    for _ in 0..5_000 {
        let mut bytes = codec::encode_proposal(&any_proposal(&mut dice, &cluster));
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << dice.below(8);
        }
        bytes.truncate(dice.below(bytes.len() as u64 * 4) as usize + 1);
        let revision = Revision(one.revision.0 + 1);
        let (answers, applied) = one.apply_entry(revision, &[&bytes]);
        assert_eq!(two.apply_entry(revision, &[&bytes]).0, answers);
        refused += applied.answers.iter().filter(|answer| answer.result.is_err()).count();
    }
    assert_eq!(one.hash(), two.hash());
    assert_eq!(one.check(), Vec::<String>::new());
    assert!(refused > 1_000);
}

#[test]
fn a_second_bootstrap_is_refused_and_the_same_one_changes_nothing() {
    let mut cluster = Cluster::of(&["n1"]);
    let bootstrap = |id: &str| Command::Bootstrap {
        cluster: crate::ids::ClusterId(id.to_owned()),
        name: String::new(),
        settings: ClusterSettings::default(),
    };
    assert!(cluster.refused(bootstrap("other")).contains("cluster c already"));
    assert_eq!(cluster.ok(bootstrap("c")), crate::state::Reply::Unchanged);
}

//! One node, n1, with one service: what it does for each state of claim, instance and lease.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reconcile;
use crate::command::NodeFacts;
use crate::effect::{Effect, Isolation, StartInstance, StopInstance};
use crate::ids::{
    BootId, DiskId, Epoch, InstanceId, LeaseEpoch, MachineId, NodeId, OperationId, RaftId, Revision,
    ServiceName, SlotId, Token, Version,
};
use crate::lease::Lease;
use crate::observation::{
    ExitKind, ExitReason, GuardReport, Health, InstancePhase, InstanceReport, InstanceUsage, NodeReport,
    NodeUsage, SlotReport, TransferOutcome, TransferReport,
};
use crate::spec::{Resources, ServiceSpec, SpecDefaults, parse_one};
use crate::state::{
    Claim, EndedClaim, Evidence, Inventory, MigrationPhase, MigrationRecord, NodeRecord, NodeStanding,
    Operation, OperationKind, ServiceRecord, SlotRecord, State, StopOrder, TimingProfile, VersionRecord,
};
use crate::units::{BootMs, Millis, WallMs};

const NOW: BootMs = BootMs(100_000);

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn slot() -> SlotId {
    "db/0".parse().unwrap()
}

fn token(revision: u64) -> Token {
    Token { epoch: Epoch(0), revision: Revision(revision) }
}

fn exit(kind: ExitKind) -> InstancePhase {
    InstancePhase::Exited(ExitReason { kind, code: None, signal: None })
}

/// State, the node's report and its lease, all agreeing at revision 20.
struct Case {
    state: State,
    own: NodeReport,
    lease: Option<Lease>,
}

impl Case {
    fn new(more: &str) -> Self {
        let text = format!("name: db\nstate: {{dir: data}}\nspec: {{command: [run]}}\n{more}");
        let spec = Arc::new(parse_one(&text, &SpecDefaults::default()).unwrap());
        let mut state = State::empty();
        state.revision = Revision(20);
        state.cluster.next_operation = 10;
        for (number, name) in [(1, "n1"), (2, "n2")] {
            state.nodes.insert(node(name), node_record(name, number));
        }
        state.services.insert(ServiceName::new("db").unwrap(), service_record(spec));
        let terms = state.cluster.settings.terms;
        let lease = Lease {
            epoch: LeaseEpoch(3),
            valid_until: NOW + Millis(2_000),
            revision: Revision(15),
            terms,
            lost: false,
        };
        Self { state, own: report(), lease: Some(lease) }
    }

    /// A claim of this node with token 0.10.
    fn claimed(mut self) -> Self {
        self.claim(|_| {});
        self
    }

    fn claim(&mut self, change: impl FnOnce(&mut Claim)) {
        let mut claim = Claim {
            token: token(10),
            node: node("n1"),
            raft_id: RaftId(1),
            machine: MachineId("n1".to_owned()),
            boot: BootId("boot".to_owned()),
            lease_epoch: LeaseEpoch(3),
            version: Version(1),
            granted_at: WallMs(0),
            because: String::new(),
            operation: None,
            since: Revision(10),
            stop: None,
            grace: Millis(10_000),
            critical: false,
        };
        change(&mut claim);
        let mut record = self.state.slots.get(&slot()).cloned().unwrap_or_default();
        record.claims.push(claim);
        record.changed = Revision(12);
        self.state.slots.insert(slot(), record);
    }

    fn stop_ordered(mut self) -> Self {
        let order = StopOrder { token: token(12), because: "scaled down".to_owned() };
        self.state.slots.update(&slot(), |record| record.claims[0].stop = Some(order));
        self
    }

    fn instance(mut self, revision: u64, phase: InstancePhase) -> Self {
        let instance = InstanceReport {
            id: InstanceId { slot: slot(), token: token(revision) },
            spec: 0,
            phase,
            pid: Some(77),
            started_at: WallMs(0),
            since: Millis(5_000),
            ran: Millis(100),
            restarts: 0,
            health: Health::Unchecked,
            health_detail: String::new(),
            usage: InstanceUsage::default(),
            last_exit: None,
            unenforced: Vec::new(),
            armed: false,
        };
        let report = SlotReport { highest: token(revision), instance: Some(instance) };
        self.own.slots.insert(slot(), report);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut InstanceReport)) -> Self {
        change(self.own.slots.get_mut(&slot()).unwrap().instance.as_mut().unwrap());
        self
    }

    fn migrating(mut self, phase: MigrationPhase, passes: u32, me: &str) -> Self {
        let other = if me == "n1" { "n2" } else { "n1" };
        let migration = MigrationRecord {
            slot: slot(),
            source: node(other),
            source_token: token(10),
            wanted_target: None,
            target: Some(node(me)),
            parent: None,
            phase,
            passes,
            bytes: 0,
            granted: None,
            rollback: None,
        };
        let operation = Operation {
            kind: OperationKind::Migration(migration),
            step: 1,
            by: String::new(),
            reason: String::new(),
            begun_at: WallMs(0),
            cancelling: false,
            ended: None,
            history: Vec::new(),
            changed: Revision(11),
        };
        self.state.operations.insert(OperationId(4), operation);
        self
    }

    fn effects(&self) -> Vec<Effect> {
        reconcile(&self.state, &self.own, self.lease.as_ref(), NOW)
    }

    fn start(&self) -> Option<StartInstance> {
        self.effects().into_iter().find_map(|effect| match effect {
            Effect::Start(start) => Some(start),
            _ => None,
        })
    }

    fn stop(&self) -> Option<StopInstance> {
        self.effects().into_iter().find_map(|effect| match effect {
            Effect::Stop(stop) => Some(stop),
            _ => None,
        })
    }

    fn fetch(&self) -> Option<(u32, String)> {
        self.effects().into_iter().find_map(|effect| match effect {
            Effect::Fetch(fetch) => Some((fetch.pass, fetch.from.to_string())),
            _ => None,
        })
    }
}

fn node_record(name: &str, number: u64) -> NodeRecord {
    NodeRecord {
        raft_id: RaftId(number),
        machine: MachineId(name.to_owned()),
        disk: DiskId(name.to_owned()),
        era: Epoch(1),
        boot: BootId("boot".to_owned()),
        lease_epoch: LeaseEpoch(3),
        standing: NodeStanding::Alive,
        inventory: Inventory::Settled,
        cordoned: false,
        leaving: false,
        witness: false,
        weight: 1,
        facts: NodeFacts {
            node: node(name),
            endpoints: Vec::new(),
            api: String::new(),
            http: String::new(),
            labels: BTreeMap::new(),
            capacity: Resources::default(),
            executors: Vec::new(),
            fencing: Vec::new(),
            armed: true,
            unarmed: None,
            silence_counts: true,
            terms: 1,
            release: String::new(),
        },
        held: TimingProfile::Default.timings().0,
        admitted_at: WallMs(0),
        changed: Revision(1),
    }
}

fn service_record(spec: Arc<ServiceSpec>) -> ServiceRecord {
    let version = VersionRecord {
        version: Version(1),
        spec: spec.clone(),
        at: WallMs(0),
        by: String::new(),
        cause: "deploy".to_owned(),
    };
    ServiceRecord {
        spec,
        version: Version(1),
        exclusive: true,
        exclusive_since: Revision(5),
        stopped: false,
        deleting: false,
        versions: vec![version],
        changed: Revision(5),
    }
}

fn report() -> NodeReport {
    NodeReport {
        node: node("n1"),
        boot: BootId("boot".to_owned()),
        lease_epoch: LeaseEpoch(3),
        wants_rejoin: false,
        heartbeat: 1,
        echo: 1,
        revision: Revision(20),
        pid: 1,
        guard: GuardReport { armed: true, answering: true, ..GuardReport::default() },
        usage: NodeUsage::default(),
        executors: Vec::new(),
        slots: BTreeMap::new(),
        transfers: Vec::new(),
        fencing: Default::default(),
    }
}

#[test]
fn a_granted_slot_starts_once_and_under_its_claims_token() {
    let case = Case::new("").claimed();
    let start = case.start().unwrap();
    assert_eq!((start.id.token, start.restart, start.state_from), (token(10), 0, None));
    assert_eq!(start.isolation, Isolation::Stop { grace: Millis(10_000) });
    let case = case.instance(10, InstancePhase::Running);
    assert_eq!(case.effects(), []);
}

#[test]
fn nothing_starts_without_a_live_lease_of_the_claims_epoch() {
    let mut case = Case::new("").claimed();
    assert!(case.start().is_some());
    let lease = case.lease.unwrap();
    for bad in [
        None,
        Some(Lease { valid_until: NOW, ..lease }),
        Some(Lease { lost: true, ..lease }),
        Some(Lease { epoch: LeaseEpoch(2), ..lease }),
        Some(Lease { revision: Revision(21), ..lease }),
    ] {
        case.lease = bad;
        assert_eq!(case.effects(), [], "started under {bad:?}");
    }
}

#[test]
fn nothing_starts_while_state_promises_two_holders_and_only_one_holds() {
    let mut case = Case::new("").claimed();
    case.own.guard.armed = false;
    assert_eq!(case.effects(), []);
    case.state.nodes.update(&node("n1"), |record| record.facts.armed = false);
    assert!(case.start().is_some());
}

#[test]
fn nothing_starts_for_another_boot_disk_or_node() {
    let changes: [fn(&mut Claim); 4] = [
        |claim| claim.boot = BootId("older".to_owned()),
        |claim| claim.raft_id = RaftId(9),
        |claim| claim.node = node("n2"),
        |claim| claim.lease_epoch = LeaseEpoch(2),
    ];
    for change in changes {
        let mut case = Case::new("");
        case.claim(change);
        assert_eq!(case.effects(), []);
    }
}

#[test]
fn a_claim_below_the_highest_token_seen_here_never_starts() {
    let mut case = Case::new("").claimed();
    case.own.slots.insert(slot(), SlotReport { highest: token(11), instance: None });
    assert_eq!(case.effects(), []);
    case.own.slots.insert(slot(), SlotReport { highest: token(10), instance: None });
    assert!(case.start().is_some());
}

#[test]
fn a_stop_order_is_repeated_until_token_and_emptiness_acknowledge_it() {
    let case = Case::new("stop: {grace: 3s}").claimed().stop_ordered().instance(10, InstancePhase::Running);
    let stop = case.stop().unwrap();
    assert_eq!((stop.token, stop.grace, stop.signal), (token(12), Millis(3_000), 15));
    // Gone by itself is not enough: the token must be raised.
    let case = case.instance(10, exit(ExitKind::Completed));
    assert_eq!(case.stop().unwrap().token, token(12));
    let mut case = case;
    case.own.slots.insert(slot(), SlotReport { highest: token(12), instance: None });
    assert_eq!(case.effects(), []);
}

#[test]
fn a_claim_of_a_wiped_disk_is_acknowledged_by_the_disk_that_came_after_it() {
    let mut case = Case::new("");
    case.claim(|claim| claim.raft_id = RaftId(9));
    assert_eq!(case.effects(), [], "it is not this disk's to run");
    let mut case = case.stop_ordered();
    assert_eq!(case.stop().unwrap().token, token(12));
    case.own.slots.insert(slot(), SlotReport { highest: token(12), instance: None });
    assert_eq!(case.effects(), []);
}

#[test]
fn stopping_needs_no_lease() {
    let mut case = Case::new("").claimed().stop_ordered().instance(10, InstancePhase::Running);
    case.lease = None;
    assert!(case.stop().is_some());
}

#[test]
fn an_instance_that_no_claim_covers_is_stopped_with_a_token_that_voids_no_later_grant() {
    let mut case = Case::new("").instance(8, InstancePhase::Running);
    case.state.slots.insert(slot(), SlotRecord { changed: Revision(12), ..SlotRecord::default() });
    assert_eq!(case.stop().unwrap().token, token(12));
    // Regranted to this very node meanwhile: the old copy goes first, the new claim's token stays usable.
    let mut case = Case::new("").claimed().instance(8, InstancePhase::Running);
    assert!(case.stop().unwrap().token >= token(10));
    assert!(case.start().is_none());
    // A record that is gone altogether.
    case.state.slots.remove(&slot());
    assert_eq!(case.stop().unwrap().token, token(20));
}

#[test]
fn an_instance_from_beyond_this_replicas_state_is_left_alone() {
    let case = Case::new("").instance(21, InstancePhase::Running);
    assert_eq!(case.effects(), []);
}

#[test]
fn a_state_of_before_the_nodes_admission_stops_and_forgets_nothing_of_what_is_there() {
    let mut case = Case::new("").instance(8, InstancePhase::Running);
    assert!(case.stop().is_some());
    case.state.nodes.remove(&node("n1"));
    assert_eq!(case.effects(), []);
    case.own.slots.insert(slot(), SlotReport { highest: token(12), instance: None });
    case.state.services.remove(&ServiceName::new("db").unwrap());
    assert_eq!(case.effects(), []);
}

#[test]
fn a_new_claim_waits_until_the_older_one_of_its_slot_ended() {
    let mut case = Case::new("").claimed().stop_ordered();
    case.claim(|claim| claim.token = token(14));
    case.own.slots.insert(slot(), SlotReport { highest: token(12), instance: None });
    assert_eq!(case.effects(), []);
    case.state.slots.update(&slot(), |record| record.claims.remove(0));
    assert_eq!(case.start().unwrap().id.token, token(14));
}

#[test]
fn an_exit_is_followed_by_a_start_after_its_backoff() {
    let text = "restart: {policy: always, backoff: 1s..60s}";
    let after = |restarts, since, ran| {
        let case = Case::new(text).claimed().instance(10, exit(ExitKind::Failed));
        let case = case.with(|i| (i.restarts, i.since, i.ran) = (restarts, Millis(since), Millis(ran)));
        case.start().map(|start| start.restart)
    };
    assert_eq!(after(0, 999, 0), None);
    assert_eq!(after(0, 1_000, 0), Some(1));
    assert_eq!(after(3, 7_999, 0), None);
    assert_eq!(after(3, 8_000, 0), Some(4));
    assert_eq!(after(40, 59_999, 0), None);
    assert_eq!(after(40, 60_000, 0), Some(41));
    assert_eq!(after(40, 1_000, 60_000), Some(41), "a long run did not start the back-off anew");
}

#[test]
fn restarts_follow_the_policy_but_ends_by_our_own_hand_are_always_repaired() {
    let starts = |policy: &str, kind| {
        let case = Case::new(&format!("restart: {{policy: {policy}, backoff: 1s..2s}}"));
        case.claimed().instance(10, exit(kind)).start().is_some()
    };
    assert!(starts("always", ExitKind::Completed));
    assert!(!starts("on_failure", ExitKind::Completed));
    assert!(starts("on_failure", ExitKind::OutOfMemory));
    assert!(!starts("never", ExitKind::Failed));
    assert!(starts("never", ExitKind::LeaseExpired));
}

#[test]
fn an_unhealthy_instance_is_started_anew_in_place() {
    let case = Case::new("").claimed().instance(10, InstancePhase::Running);
    let case = case.with(|i| i.health = Health::Unhealthy);
    assert_eq!(case.start().unwrap().restart, 1);
    let never = Case::new("restart: {policy: never}").claimed().instance(10, InstancePhase::Running);
    assert_eq!(never.with(|i| i.health = Health::Unhealthy).effects(), []);
}

#[test]
fn only_a_crashed_critical_instance_restarts_in_place_without_a_lease() {
    let without_lease = |more: &str, phase| {
        let mut case = Case::new(more).claimed().instance(10, phase);
        case.lease = None;
        case.start()
    };
    let crashed = exit(ExitKind::Signaled);
    assert_eq!(without_lease("priority: critical", crashed.clone()).unwrap().restart, 1);
    assert_eq!(without_lease("priority: high", crashed.clone()), None);
    let late = exit(ExitKind::LeaseExpired);
    assert_eq!(without_lease("priority: critical", late), None, "killed before it ever ran");
    let kept = "exclusive: false\non_isolation: keep";
    assert_eq!(without_lease(kept, crashed).unwrap().isolation, Isolation::Keep);
    // What never ran is a start, not a restart.
    let failed = InstancePhase::StartFailed("no such file".to_owned());
    assert_eq!(without_lease("priority: critical", failed), None);
}

#[test]
fn the_target_copies_while_the_source_runs_and_again_once_it_has_stopped() {
    let copying = Case::new("").migrating(MigrationPhase::Copying, 0, "n1");
    let mut copying = copying;
    copying.claim(|claim| claim.node = node("n2"));
    assert_eq!(copying.fetch(), Some((1, "n2".to_owned())));
    let lease = copying.lease.take();
    assert_eq!(copying.fetch(), None, "copied by a State that may be old");
    copying.lease = lease.map(|lease| Lease { revision: Revision(21), ..lease });
    assert_eq!(copying.fetch(), None, "copied by a State older than the lease");
    copying.lease = lease;
    let done = TransferReport {
        operation: OperationId(4),
        pass: 1,
        bytes_done: 1,
        bytes_total: 1,
        outcome: Some(TransferOutcome::Complete { digest: String::new() }),
    };
    copying.own.transfers.push(done);
    assert_eq!(copying.effects(), []);

    let mut flip = Case::new("").migrating(MigrationPhase::Switchover, 1, "n1");
    flip.claim(|claim| claim.node = node("n2"));
    assert_eq!(flip.effects(), [], "copied the rest while the source may still write");
    flip.state.slots.update(&slot(), |record| record.claims.clear());
    assert_eq!(flip.fetch(), Some((2, "n2".to_owned())));
}

#[test]
fn the_target_starts_from_the_state_that_was_copied() {
    let mut case = Case::new("").migrating(MigrationPhase::Switchover, 2, "n1");
    case.claim(|claim| claim.operation = Some(OperationId(4)));
    assert_eq!(case.start().unwrap().state_from, Some(OperationId(4)));
}

#[test]
fn a_source_that_gets_its_slot_back_fetches_state_only_if_the_target_ran() {
    let mut case = Case::new("").migrating(MigrationPhase::RollingBack, 2, "n2");
    case.state.slots.insert(slot(), SlotRecord::default());
    assert_eq!(case.fetch(), None);
    let ended = EndedClaim {
        token: token(14),
        node: node("n2"),
        raft_id: RaftId(2),
        evidence: Evidence::StopAcknowledged { stop: token(15) },
        revision: Revision(16),
    };
    case.state.slots.update(&slot(), |record| record.last_ended = Some(ended));
    case.state.operations.update(&OperationId(4), |operation| {
        let OperationKind::Migration(migration) = &mut operation.kind else { unreachable!() };
        migration.granted = Some(token(14));
    });
    assert_eq!(case.fetch(), Some((3, "n2".to_owned())));
    case.claim(|claim| claim.operation = Some(OperationId(4)));
    assert_eq!(case.start().unwrap().state_from, None, "its own state is in place");
}

#[test]
fn leftovers_of_forgotten_operations_and_services_are_cleared_away() {
    let transfer = |operation| TransferReport {
        operation: OperationId(operation),
        pass: 1,
        bytes_done: 0,
        bytes_total: 0,
        outcome: None,
    };
    let mut case = Case::new("");
    case.own.transfers = vec![transfer(3), transfer(10)];
    case.own.slots.insert(slot(), SlotReport { highest: token(12), instance: None });
    assert_eq!(case.effects(), [Effect::DropStaging { operation: OperationId(3) }]);
    case.own.transfers.clear();
    case.state.services.remove(&ServiceName::new("db").unwrap());
    assert_eq!(case.effects(), [Effect::Forget { slot: slot() }]);
}

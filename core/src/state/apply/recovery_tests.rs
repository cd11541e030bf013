//! What a recovery does to State, told as transcripts: who is waited for, what becomes a claim again.

use super::testkit::{Cluster, admission, facts, node, service, slot, spec};
use crate::command::{Command, Found, NodeAdmission, Recovery};
use crate::event::Event;
use crate::ids::{BootId, ClusterId, DiskId, Epoch, MachineId, Revision, Token};
use crate::state::{Evidence, Inventory, RecoveryCause, Reply, State};
use crate::units::WallMs;

fn forced(survivors: &[&str]) -> Command {
    Command::Recover(Recovery {
        cause: RecoveryCause::ForcedQuorum { survivors: survivors.iter().map(|name| node(name)).collect() },
        above: Epoch(0),
        kept: Revision(1_000_000),
        cluster: None,
        founder: None,
        reason: "three racks burnt".to_owned(),
    })
}

fn restored(founder: NodeAdmission) -> Command {
    Command::Recover(Recovery {
        cause: RecoveryCause::Restored { saved_at: WallMs(1) },
        above: Epoch(0),
        kept: Revision(1_000_000),
        cluster: Some(ClusterId("d".to_owned())),
        founder: Some(founder),
        reason: "all disks lost".to_owned(),
    })
}

fn found(at: &str, highest: Token, runs: Option<(Token, &str)>) -> Found {
    let service = at.split('/').next().unwrap();
    let runs = runs.map(|(token, more)| (token, spec(service, more).run_digest()));
    Found { slot: slot(at), highest, runs }
}

/// The same host with a new disk.
fn anew(name: &str) -> NodeAdmission {
    NodeAdmission { disk: DiskId(format!("anew-{name}")), ..admission(name) }
}

impl Cluster {
    /// What was left behind joins anew first.
    fn inventory(&mut self, name: &str, found: Vec<Found>) -> Reply {
        if self.state.left_behind(self.state.nodes.get(&node(name)).unwrap()) {
            self.ok(Command::AdmitNode(anew(name)));
        }
        let record = self.state.nodes.get(&node(name)).unwrap();
        let boot = record.boot.clone();
        let recovery = self.state.cluster.recovery.as_ref().unwrap().begun;
        let highest = found.iter().map(|found| found.highest).max().unwrap_or_default();
        self.ok(Command::TakeInventory { node: node(name), boot, recovery, highest, found })
    }

    /// Heard, with claims of all it runs, and let back in.
    fn back(&mut self, name: &str, found: Vec<Found>) {
        let holds: Vec<_> = found.iter().filter_map(|one| Some((one.slot.clone(), one.runs?.0))).collect();
        self.inventory(name, found);
        let boot = self.state.nodes.get(&node(name)).unwrap().boot.clone();
        self.rejoin(name, &boot.0, holds).unwrap();
    }

    fn open(&self) -> Vec<String> {
        self.state.unsettled().map(|(node, _)| node.to_string()).collect()
    }
}

#[test]
fn nothing_exclusive_is_granted_before_every_node_is_heard_or_proven_dead() {
    let mut c = Cluster::of(&["n1", "n2", "n3"]);
    c.deploy("db", "");
    c.deploy("web", "replicas: 3");
    let before = c.state.token();
    c.ok(forced(&["n1"]));
    assert!(c.state.token() > before && c.state.cluster.epoch == Epoch(2));
    assert!(c.state.nodes.values().all(|node| node.lost() && !node.lease_standing().alive));
    c.back("n1", Vec::new());
    let grant = c.grant_of("db/0", "n1", None);
    assert!(c.refused(grant.clone()).contains("what runs on n2 is not known"));
    // What is not exclusive does not wait.
    c.grant("web/0", "n1");
    c.back("n2", Vec::new());
    assert!(c.refused(grant.clone()).contains("what runs on n3 is not known"));
    assert!(c.refused(Command::RemoveNode { node: node("n3") }).contains("is not known"));
    c.ok(Command::AttestDead { node: node("n3"), reason: "burnt".to_owned() });
    assert!(c.open().is_empty());
    assert!(c.events.iter().any(|event| matches!(event, Event::RecoveryOver)));
    assert_eq!(c.token(grant).epoch, Epoch(2));
}

#[test]
fn a_recovery_needs_a_reason_and_names_what_may_be_gone() {
    let mut c = Cluster::of(&["n1"]);
    let Command::Recover(recovery) = forced(&["n1"]) else { unreachable!() };
    assert!(c.refused(Command::Recover(Recovery { reason: " ".to_owned(), ..recovery })).contains("reason"));
    let last = c.state.revision;
    c.ok(forced(&["n1"]));
    let event = c.state.events.back().unwrap();
    assert_eq!(
        event.text(),
        format!(
            "the cluster was recovered without its majority and goes on in epoch 2: acknowledged writes after \
             revision {last} may be gone: three racks burnt"
        )
    );
    assert_eq!(event.by.as_deref(), Some("alice (cli@n1)"));
}

#[test]
fn a_copy_granted_in_what_is_gone_is_adopted_and_can_be_proven_over_later() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    c.ok(forced(&["n1"]));
    // Its revision is far beyond what the recovered log holds.
    let lost: Token = "1.900".parse().unwrap();
    c.back("n1", Vec::new());
    c.back("n2", vec![found("db/0", lost, Some((lost, "")))]);
    let claims = c.claims("db/0");
    let [claim] = claims.as_slice() else { panic!("{claims:?}") };
    assert_eq!((claim.token, claim.node.as_str(), claim.stop.clone()), (lost, "n2", None));
    let grant = c.grant_of("db/0", "n1", None);
    assert!(c.refused(grant).contains("still claimed by n2"));
    c.lose("n2");
    c.ok(Command::AttestDead { node: node("n2"), reason: "burnt too".to_owned() });
    let revision = c.state.revision;
    c.end("db/0", lost, Evidence::Attested { revision }).unwrap();
    assert!(c.grant("db/0", "n1") > lost);
}

#[test]
fn a_claim_under_which_nothing_runs_is_not_started_again() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    let old = c.grant("db/0", "n1");
    c.ok(forced(&["n1", "n2"]));
    c.back("n1", vec![found("db/0", old, None)]);
    let stop = c.claims("db/0")[0].stop.clone().expect("it is told to stop");
    assert!(stop.token > old);
    // n2 runs it by a grant that is gone.
    let lost: Token = "1.900".parse().unwrap();
    c.back("n2", vec![found("db/0", lost, Some((lost, "")))]);
    c.acknowledge("db/0", old);
    assert_eq!(c.claims("db/0").iter().map(|claim| claim.token).collect::<Vec<_>>(), [lost]);
    assert!(!c.events.iter().any(|event| matches!(event, Event::RanTwice { .. })));
}

#[test]
fn a_claim_whose_token_its_node_has_outgrown_ends_at_once() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    c.grant("db/0", "n1");
    c.ok(forced(&["n1", "n2"]));
    c.back("n1", vec![found("db/0", "1.800".parse().unwrap(), None)]);
    assert!(c.claims("db/0").is_empty());
}

#[test]
fn a_deleted_service_is_forgotten_when_an_inventory_ends_its_last_claim() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    c.grant("db/0", "n1");
    c.ok(Command::DeleteService { service: service("db") });
    c.ok(forced(&["n1", "n2"]));
    c.back("n1", vec![found("db/0", "1.800".parse().unwrap(), None)]);
    assert!(c.state.services.is_empty() && c.state.slots.is_empty());
    assert!(c.events.iter().any(|event| matches!(event, Event::ServiceDeleted(_))));
}

#[test]
fn two_nodes_that_run_one_exclusive_slot_raise_an_alarm_and_the_newest_grant_goes_on() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    let old = c.grant("db/0", "n1");
    c.ok(forced(&["n1"]));
    c.back("n1", vec![found("db/0", old, Some((old, "")))]);
    let lost: Token = "1.900".parse().unwrap();
    c.inventory("n2", vec![found("db/0", lost, Some((lost, "")))]);
    let claims = c.claims("db/0");
    assert_eq!(
        claims.iter().map(|c| (c.node.as_str(), c.stop.is_some())).collect::<Vec<_>>(),
        [("n1", true), ("n2", false)]
    );
    let twice = c.events.iter().find(|event| matches!(event, Event::RanTwice { .. }));
    let Some(Event::RanTwice { keeps, stops, .. }) = twice else { panic!("{:?}", c.events) };
    assert_eq!((keeps, stops.as_slice()), (&(node("n2"), lost), &[(node("n1"), old)][..]));
    // An alarm of what was found, none of an impossible State.
    assert!(!c.events.iter().any(|event| matches!(event, Event::Alarm(_))));
}

#[test]
fn a_copy_of_an_unknown_spec_is_claimed_so_that_nothing_starts_beside_it_and_told_to_stop() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    c.ok(forced(&["n1"]));
    c.back("n1", Vec::new());
    let lost: Token = "1.900".parse().unwrap();
    c.inventory("n2", vec![found("db/0", lost, Some((lost, "stop: {grace: 1s}")))]);
    let claims = c.claims("db/0");
    let [claim] = claims.as_slice() else { panic!("{claims:?}") };
    assert!(claim.stop.is_some() && claim.critical);
    assert!(c.rejoin("n2", "boot-n2", vec![(slot("db/0"), lost)]).is_ok());
}

#[test]
fn a_copy_of_a_version_before_the_newest_runs_on_and_is_rolled_out_later() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    let old = c.grant("db/0", "n1");
    c.deploy("db", "stop: {grace: 1s}");
    let under_way = c.running();
    c.ok(forced(&["n1"]));
    c.back("n1", vec![found("db/0", old, Some((old, "")))]);
    assert_eq!(c.running(), under_way, "one rollout is enough");
    assert_eq!(c.claims("db/0")[0].version.0, 1);
}

#[test]
fn a_restore_founds_on_a_new_disk_and_a_wiped_node_keeps_what_it_runs() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    let old = c.grant("db/0", "n2");
    let snapshot = c.state.clone();
    let disk = |name: &str| NodeAdmission { disk: DiskId(format!("new-{name}")), ..admission(name) };
    let elsewhere = NodeAdmission { machine: MachineId("x".to_owned()), ..disk("n1") };
    assert!(c.refused(restored(elsewhere)).contains("was another host"));
    let Reply::Admitted(first) = c.ok(restored(disk("n1"))) else { panic!("not admitted") };
    assert!(snapshot.node_of(first).is_none(), "a new disk is a new voter");
    assert_eq!(c.state.cluster.id, ClusterId("d".to_owned()));
    c.back("n1", Vec::new());
    let Reply::Admitted(_) = c.ok(Command::AdmitNode(disk("n2"))) else { panic!("not admitted") };
    assert_eq!(c.state.nodes.get(&node("n2")).unwrap().inventory, Inventory::Unheard);
    assert!(!c.state.nodes.get(&node("n2")).unwrap().lease_standing().alive);
    c.back("n2", vec![found("db/0", old, Some((old, "")))]);
    let claims = c.claims("db/0");
    let [claim] = claims.as_slice() else { panic!("{claims:?}") };
    assert_eq!((claim.token, claim.raft_id), (old, c.state.nodes.get(&node("n2")).unwrap().raft_id));
    assert!(claim.stop.is_none() && c.open().is_empty());
}

#[test]
fn a_host_that_was_not_heard_since_a_restore_cannot_be_replaced_by_another_unproven() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.ok(restored(NodeAdmission { disk: DiskId("new".to_owned()), ..admission("n1") }));
    let other = NodeAdmission {
        disk: DiskId("other".to_owned()),
        machine: MachineId("other".to_owned()),
        ..admission("n2")
    };
    assert!(c.refused(Command::AdmitNode(other.clone())).contains("old host of n2"));
    c.ok(Command::AttestDead { node: node("n2"), reason: "scrapped".to_owned() });
    c.ok(Command::AdmitNode(other));
}

#[test]
fn tokens_of_a_history_that_is_gone_are_outgrown_even_after_a_second_restore() {
    let mut c = Cluster::of(&["n1"]);
    c.deploy("db", "");
    let snapshot = c.state.clone();
    c.ok(forced(&["n1"]));
    c.back("n1", Vec::new());
    let first = c.grant("db/0", "n1");
    // The same snapshot once more: what follows must not be below what guards have seen.
    c.state = State { revision: Revision(snapshot.revision.0), ..snapshot };
    c.ok(forced(&["n1"]));
    assert!(c.state.token() <= first || c.state.cluster.epoch == first.epoch);
    let seen = Token { epoch: first.epoch, revision: Revision(first.revision.0 + 50) };
    c.back("n1", vec![found("db/0", seen, None)]);
    assert!(c.grant("db/0", "n1") > seen);
    assert!(c.events.iter().any(|event| matches!(event, Event::EpochRaised { .. })));
}

#[test]
fn an_inventory_counts_once_and_only_for_the_recovery_it_was_taken_for() {
    let mut c = Cluster::of(&["n1"]);
    let take = |recovery: u64| Command::TakeInventory {
        node: node("n1"),
        boot: BootId("boot-n1".to_owned()),
        recovery: Revision(recovery),
        highest: Token::default(),
        found: Vec::new(),
    };
    assert!(c.refused(take(1)).contains("no recovery"));
    c.ok(forced(&["n1"]));
    let begun = c.state.cluster.recovery.as_ref().unwrap().begun;
    assert!(c.refused(take(begun.0 - 1)).contains("no recovery"));
    assert!(c.rejoin("n1", "boot-n1", Vec::new()).is_err(), "its inventory comes first");
    assert_eq!(c.ok(take(begun.0)), Reply::Accepted);
    assert_eq!(c.ok(take(begun.0)), Reply::Unchanged);
}

#[test]
fn a_node_that_the_cluster_went_on_without_is_refused_until_it_joins_on_a_new_disk() {
    let mut c = Cluster::of(&["n1", "n2", "n3"]);
    c.ok(forced(&["n1", "n2"]));
    let (recovery, epoch) = (c.state.cluster.recovery.as_ref().unwrap().begun, Epoch(2));
    let eras = |c: &Cluster| c.state.nodes.values().map(|record| record.era).collect::<Vec<_>>();
    assert_eq!(eras(&c), [epoch, epoch, Epoch(1)]);
    let record = c.state.nodes.get(&node("n3")).unwrap().clone();
    let inventory = Command::TakeInventory {
        node: node("n3"),
        boot: record.boot.clone(),
        recovery,
        highest: Token::default(),
        found: Vec::new(),
    };
    let rejoin = Command::Rejoin {
        node: node("n3"),
        boot: record.boot.clone(),
        lease_epoch: record.lease_epoch,
        holds: Vec::new(),
    };
    for command in [inventory, rejoin, Command::AdmitNode(admission("n3")), Command::UpdateNode(facts("n3"))]
    {
        let said = c.refused(command);
        assert!(said.contains("of epoch 1") && said.contains("join again with a new token"), "{said}");
    }
    c.ok(Command::AttestDead { node: node("n3"), reason: "burnt".to_owned() });
    assert!(c.refused(Command::AdmitNode(admission("n3"))).contains("join again"), "nor after that");
    c.ok(Command::AdmitNode(anew("n3")));
    assert!(eras(&c).iter().all(|era| *era == epoch));
}

#[test]
fn an_epoch_is_above_all_that_anybody_has_agreed_to_and_only_members_survive() {
    let mut c = Cluster::of(&["n1", "n2"]);
    let Command::Recover(recovery) = forced(&["n1"]) else { unreachable!() };
    c.ok(Command::Recover(Recovery { above: Epoch(6), ..recovery }));
    assert_eq!((c.state.era(), c.state.cluster.epoch), (Epoch(7), Epoch(7)));
    assert!(c.refused(forced(&["n1", "n2"])).contains("the data of n2 are of epoch 1"));
    assert!(c.refused(forced(&[])).contains("nobody would go on"));
}

#[test]
fn nobody_is_fenced_for_what_was_asked_before_a_recovery() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.ok(Command::Fence { node: node("n2"), reason: "maintenance".to_owned() });
    assert_eq!(c.running().len(), 1);
    c.ok(forced(&["n1", "n2"]));
    assert_eq!(c.running(), []);
    c.back("n2", Vec::new());
}

#[test]
fn a_node_that_was_leaving_and_joins_anew_is_not_cordoned_for_good() {
    let mut c = Cluster::of(&["n1", "n2", "n3"]);
    c.deploy("web", "");
    c.grant("web/0", "n2");
    c.ok(Command::Leave { node: node("n2") });
    c.ok(Command::Drain { node: node("n2"), max_in_flight: 1 });
    c.ok(Command::Cordon { node: node("n3"), on: true });
    c.ok(forced(&["n1"]));
    for (name, cordoned) in [("n2", false), ("n3", true)] {
        c.ok(Command::AdmitNode(anew(name)));
        let record = c.state.nodes.get(&node(name)).unwrap();
        assert_eq!((record.cordoned, record.leaving), (cordoned, false), "{name}");
    }
    assert_eq!(c.running(), [], "nor drained any more");
}

//! The rules of apply, one sentence each.

use super::testkit::{Cluster, admission, asked, facts, node, planned, service, slot, spec};
use crate::command::{Command, OperationStep};
use crate::event::Event;
use crate::ids::{BootId, DiskId, LeaseEpoch, OperationId, RaftId, Revision, Version};
use crate::state::{
    Evidence, FencePhase, MigrationPhase, OperationKind, OperationResult, Rejection, Reply, SettingChange,
    State, codec,
};
use crate::units::Millis;

#[test]
fn an_exclusive_slot_is_never_granted_twice() {
    let mut c = Cluster::of(&["n1", "n2", "n3"]);
    c.deploy("db", "");
    let token = c.grant("db/0", "n1");
    let again = c.grant_of("db/0", "n2", None);
    assert!(c.refused(again.clone()).contains("still claimed by n1"));
    c.stop("db/0", token);
    assert!(c.refused(again.clone()).contains("still claimed by n1"));
    c.lose("n1");
    assert!(c.refused(again.clone()).contains("still claimed by n1"));
    c.acknowledge("db/0", token);
    let new = c.token(again);
    assert!(new > token);
}

#[test]
fn two_grants_of_a_slot_in_one_entry_make_one_claim() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("web", "exclusive: false");
    let grants = [planned(c.grant_of("web/0", "n1", None)), planned(c.grant_of("web/0", "n2", None))];
    let answers = c.entry(&grants).answers;
    assert!(answers[0].result.is_ok() && answers[1].result.is_err());
    assert_eq!(c.claims("web/0").len(), 1);
}

#[test]
fn a_grant_needs_a_living_node_in_its_very_boot_and_lease_epoch() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    let stale = c.grant_of("db/0", "n1", None);
    c.lose("n1");
    assert!(c.refused(stale.clone()).contains("not alive"));
    c.rejoin("n1", "boot-n1", Vec::new()).unwrap();
    assert!(c.refused(stale).contains("not alive"));
    c.ok(Command::Cordon { node: node("n1"), on: true });
    let cordoned = c.grant_of("db/0", "n1", None);
    assert!(c.refused(cordoned).contains("cordoned"));
    let unwanted = c.grant_of("db/1", "n2", None);
    assert!(c.refused(unwanted).contains("not wanted"));
    let mut witness = admission("w");
    witness.witness = true;
    c.ok(Command::AdmitNode(witness));
    let hosted = c.grant_of("db/0", "w", None);
    assert!(c.refused(hosted).contains("witness"));
}

#[test]
fn copies_that_are_not_exclusive_are_replaced_as_soon_as_their_node_is_lost() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("web", "exclusive: false");
    c.grant("web/0", "n1");
    let elsewhere = c.grant_of("web/0", "n2", None);
    assert!(c.refused(elsewhere.clone()).contains("still claimed"));
    c.lose("n1");
    c.token(elsewhere);
    assert_eq!(c.claims("web/0").len(), 2);
}

#[test]
fn a_stop_ends_a_claim_only_when_its_own_token_is_acknowledged() {
    let mut c = Cluster::of(&["n1"]);
    c.deploy("db", "");
    let token = c.grant("db/0", "n1");
    let early = c.end("db/0", token, Evidence::StopAcknowledged { stop: token });
    assert!(early.unwrap_err().to_string().contains("not told to stop"));
    let stop = c.stop("db/0", token);
    assert!(stop > token);
    let lower = c.end("db/0", token, Evidence::StopAcknowledged { stop: token });
    assert!(lower.unwrap_err().to_string().contains("acknowledged"));
    assert_eq!(c.stop("db/0", token), stop, "a repeated stop keeps its token");
    c.end("db/0", token, Evidence::StopAcknowledged { stop }).unwrap();
    assert_eq!(c.state.slots.get(&slot("db/0")).unwrap().last_ended.as_ref().unwrap().token, token);
}

#[test]
fn silence_is_evidence_only_while_armed_lost_waited_and_not_critical() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "stop: {grace: 10s}");
    c.deploy("key", "priority: critical");
    let token = c.grant("db/0", "n1");
    let critical = c.grant("key/0", "n1");
    let needed = c.state.cluster.settings.terms.silence_wait(Millis(10_000));
    let silence = |epoch: u64, waited: Millis| Evidence::Silence { lease_epoch: LeaseEpoch(epoch), waited };
    assert!(c.end("db/0", token, silence(1, needed)).is_err(), "the node is alive");
    c.lose("n1");
    assert!(c.end("db/0", token, silence(2, needed)).is_err(), "judged in another epoch");
    assert!(c.end("db/0", token, silence(1, Millis(needed.0 - 1))).is_err(), "not long enough");
    assert!(c.end("key/0", critical, silence(1, Millis(u64::MAX))).is_err(), "critical keeps running");
    let mut unarmed = facts("n1");
    unarmed.armed = false;
    c.ok(Command::UpdateNode(unarmed));
    assert!(c.end("db/0", token, silence(1, needed)).is_err(), "not armed");
    c.ok(Command::UpdateNode(facts("n1")));
    let off = SettingChange { name: "split_brain.autonomous_shutdown".to_owned(), value: "off".to_owned() };
    c.ok(Command::ChangeSettings(vec![off]));
    assert!(c.end("db/0", token, silence(1, needed)).is_err(), "switched off");
    let on = SettingChange { name: "split_brain.autonomous_shutdown".to_owned(), value: "on".to_owned() };
    c.ok(Command::ChangeSettings(vec![on]));
    c.end("db/0", token, silence(1, needed)).unwrap();
}

#[test]
fn shorter_terms_do_not_shorten_the_wait_for_a_node_that_may_hold_the_longer() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "stop: {grace: 1s}");
    let token = c.grant("db/0", "n1");
    let long = c.state.cluster.settings.terms.silence_wait(Millis(1_000));
    c.lose("n1");
    c.ok(Command::ChangeSettings(vec![SettingChange {
        name: "timing.profile".to_owned(),
        value: "lan".to_owned(),
    }]));
    let short = c.state.cluster.settings.terms.silence_wait(Millis(1_000));
    assert!(short < long);
    let silence = |waited| Evidence::Silence { lease_epoch: LeaseEpoch(1), waited };
    assert!(c.end("db/0", token, silence(short)).is_err());
    c.end("db/0", token, silence(long)).unwrap();

    let mut caught_up = facts("n2");
    caught_up.terms = c.state.cluster.settings.terms.number;
    c.ok(Command::UpdateNode(caught_up));
    let held = c.state.nodes.get(&node("n2")).unwrap().held;
    assert_eq!(held, c.state.cluster.settings.terms, "a node that holds the new terms is judged by them");
}

#[test]
fn a_rejoin_in_the_same_boot_does_not_shorten_the_wait_for_a_guard_that_may_hold_the_longer_terms() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "stop: {grace: 1s}");
    let token = c.grant("db/0", "n1");
    let long = c.state.cluster.settings.terms;
    c.lose("n1");
    let lan = SettingChange { name: "timing.profile".to_owned(), value: "lan".to_owned() };
    c.ok(Command::ChangeSettings(vec![lan]));
    c.rejoin("n1", "boot-n1", vec![(slot("db/0"), token)]).unwrap();
    c.lose("n1");
    let short = c.state.cluster.settings.terms.silence_wait(Millis(1_000));
    let silence = |waited| Evidence::Silence { lease_epoch: LeaseEpoch(2), waited };
    assert!(c.end("db/0", token, silence(short)).is_err(), "no guard said that it holds the shorter");
    c.end("db/0", token, silence(long.silence_wait(Millis(1_000)))).unwrap();
    c.rejoin("n1", "another", Vec::new()).unwrap();
    let held = c.state.nodes.get(&node("n1")).unwrap().held;
    assert_eq!(held, c.state.cluster.settings.terms, "no lease outlives its boot");
}

#[test]
fn a_proof_ends_claims_made_before_it_and_falls_with_the_rejoin() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    let token = c.grant("db/0", "n1");
    let attest = Command::AttestDead { node: node("n1"), reason: "burnt".to_owned() };
    assert!(c.refused(attest.clone()).contains("alive"));
    c.lose("n1");
    let silent = Command::AttestDead { node: node("n1"), reason: " ".to_owned() };
    assert!(c.refused(silent).contains("needs a reason"));
    c.ok(attest);
    let revision = c.state.nodes.get(&node("n1")).unwrap().proof().unwrap().revision();
    let wrong = Evidence::Attested { revision: Revision(revision.0 - 1) };
    assert!(c.end("db/0", token, wrong).is_err());
    c.rejoin("n1", "boot-n1", vec![(slot("db/0"), token)]).unwrap();
    assert!(c.end("db/0", token, Evidence::Attested { revision }).is_err(), "the word fell");
    c.lose("n1");
    c.ok(Command::AttestDead { node: node("n1"), reason: "truly".to_owned() });
    let revision = c.state.nodes.get(&node("n1")).unwrap().proof().unwrap().revision();
    c.end("db/0", token, Evidence::Attested { revision }).unwrap();
}

#[test]
fn a_reboot_is_evidence_only_on_the_same_machine_in_another_boot() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    let token = c.grant("db/0", "n1");
    let rebooted = |boot: &str| Evidence::Rebooted { boot: BootId(boot.to_owned()) };
    assert!(c.end("db/0", token, rebooted("boot-n1")).is_err());
    assert!(c.end("db/0", token, rebooted("boot-2")).is_err(), "not known to be back");
    c.rejoin("n1", "boot-2", Vec::new()).unwrap();
    assert_eq!(c.claims("db/0")[0].lease_epoch, LeaseEpoch(1), "not carried over");
    c.end("db/0", token, rebooted("boot-2")).unwrap();
}

#[test]
fn a_node_that_runs_what_is_not_its_own_is_not_let_back_in() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("web", "exclusive: false");
    let token = c.grant("web/0", "n1");
    c.lose("n1");
    let stale = "1.1".parse().unwrap();
    assert!(c.rejoin("n1", "boot-n1", vec![(slot("web/0"), stale)]).is_err());
    assert!(c.rejoin("n1", "boot-2", vec![(slot("web/0"), token)]).is_err(), "of another boot");
    c.rejoin("n1", "boot-n1", vec![(slot("web/0"), token)]).unwrap();
    assert_eq!(c.claims("web/0")[0].lease_epoch, LeaseEpoch(2), "adopted");
    assert!(c.events.contains(&Event::NodeRejoined { node: node("n1"), adopted: 1 }));
}

#[test]
fn a_wiped_disk_is_a_new_voter_and_a_copied_one_is_refused() {
    let mut c = Cluster::of(&["n1", "n2"]);
    let mut wiped = admission("n1");
    wiped.disk = DiskId("new".to_owned());
    assert!(c.refused(Command::AdmitNode(wiped.clone())).contains("alive with another data directory"));
    c.lose("n1");
    assert_eq!(c.ok(Command::AdmitNode(wiped)), Reply::Admitted(RaftId(3)));
    assert_eq!(c.state.nodes.get(&node("n1")).unwrap().lease_epoch, LeaseEpoch(2));
    c.deploy("db", "");
    let token = c.grant("db/0", "n1");
    c.lose("n1");
    let mut other_host = admission("n1");
    (other_host.disk.0, other_host.machine.0) = ("third".to_owned(), "other".to_owned());
    assert!(c.refused(Command::AdmitNode(other_host.clone())).contains("old host of n1"));
    c.ok(Command::AttestDead { node: node("n1"), reason: "scrapped".to_owned() });
    let revision = c.state.revision;
    c.end("db/0", token, Evidence::Attested { revision }).unwrap();
    c.ok(Command::AdmitNode(other_host));
    let mut copied = admission("n3");
    copied.disk = DiskId("disk-n2".to_owned());
    assert!(c.refused(Command::AdmitNode(copied)).contains("copy"));
    let mut moved = admission("n2");
    moved.machine.0 = "elsewhere".to_owned();
    assert!(c.refused(Command::AdmitNode(moved)).contains("another machine"));
    assert_eq!(c.ok(Command::AdmitNode(admission("n2"))), Reply::Admitted(RaftId(2)));
}

#[test]
fn what_changed_since_the_caller_looked_is_refused_as_stale() {
    let mut c = Cluster::of(&["n1"]);
    c.deploy("db", "");
    let seen = c.state.revision;
    c.ok(Command::Scale { service: service("db"), replicas: 2 });
    let mut stop = asked(Command::StopService { service: service("db") });
    stop.expected = Some(seen);
    assert!(matches!(c.propose(stop.clone()).result, Err(Rejection::Stale { .. })));
    stop.expected = Some(c.state.revision);
    c.propose(stop).result.unwrap();
}

#[test]
fn exclusive_is_settled_at_the_first_deploy_and_turning_it_on_waits_for_surplus_copies() {
    let mut c = Cluster::of(&["n1", "n2", "n3"]);
    c.deploy("web", "replicas: 2");
    assert!(!c.state.services.get(&service("web")).unwrap().exclusive);
    c.ok(Command::Scale { service: service("web"), replicas: 1 });
    assert!(!c.state.services.get(&service("web")).unwrap().exclusive, "scaling never changes it");
    c.grant("web/0", "n1");
    c.lose("n1");
    let second = c.grant("web/0", "n2");
    c.deploy("web", "replicas: 2\nexclusive: true");
    let other = c.grant_of("web/1", "n3", None);
    assert!(c.refused(other.clone()).contains("became exclusive"));
    c.stop("web/0", second);
    c.acknowledge("web/0", second);
    c.token(other);
}

#[test]
fn a_rollout_begins_when_what_runs_changes_and_ends_when_no_older_copy_is_left() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("web", "replicas: 2");
    let token = c.grant("web/0", "n1");
    c.deploy("web", "replicas: 2\nlabels: {team: a}");
    assert_eq!(c.running(), vec![], "labels touch nothing that runs");
    let rollout = c.began(Command::Deploy { spec: spec("web", "replicas: 2\npriority: high") });
    assert!(c.advance(rollout, OperationStep::Finish).unwrap_err().to_string().contains("older copy"));
    let second = c.began(Command::Restart { service: service("web") });
    assert!(matches!(c.operation(rollout).ended.as_ref().unwrap().result, OperationResult::Released(_)));
    c.stop("web/0", token);
    c.acknowledge("web/0", token);
    let grant = c.grant("web/0", "n2");
    assert_eq!(c.claims("web/0")[0].version, Version(3));
    c.advance(second, OperationStep::Finish).unwrap();
    assert!(c.claims("web/0")[0].token == grant && c.running().is_empty());
}

#[test]
fn cancelling_a_rollout_goes_back_and_leaves_copies_not_yet_replaced_alone() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("web", "replicas: 2");
    let (old, kept) = (c.grant("web/0", "n1"), c.grant("web/1", "n2"));
    let rollout = c.began(Command::Deploy { spec: spec("web", "replicas: 2\npriority: high") });
    c.stop("web/0", old);
    c.acknowledge("web/0", old);
    c.grant("web/0", "n1");
    let back = c.began(Command::CancelOperation { operation: rollout });
    let OperationKind::Rollout(record) = &c.operation(back).kind else { panic!("no rollout") };
    assert_eq!((record.version, record.total), (Version(3), 1));
    assert_eq!(c.claims("web/1")[0].version, Version(3), "it runs as wanted already");
    assert_eq!(c.claims("web/1")[0].token, kept);
}

#[test]
fn a_deleted_service_is_forgotten_with_its_last_claim() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    let token = c.grant("db/0", "n1");
    c.ok(Command::DeleteService { service: service("db") });
    assert!(c.refused(Command::Deploy { spec: spec("db", "") }).contains("being deleted"));
    let grant = c.grant_of("db/0", "n2", None);
    assert!(c.refused(grant).contains("not wanted"));
    c.stop("db/0", token);
    assert!(c.state.services.contains_key(&service("db")));
    c.acknowledge("db/0", token);
    assert!(c.state.services.is_empty() && c.state.slots.is_empty());
    c.deploy("db", "");
    c.ok(Command::DeleteService { service: service("db") });
    assert!(c.state.services.is_empty(), "nothing ran");
}

#[test]
fn a_grace_above_the_limit_is_refused() {
    let mut c = Cluster::of(&["n1"]);
    let long = Command::Deploy { spec: spec("db", "stop: {grace: 10m}") };
    assert!(c.refused(long).contains("stop.max_grace"));
    let many = Command::Scale { service: service("db"), replicas: 4_000_000_000 };
    assert!(c.refused(many.clone()).contains("no service"));
    c.deploy("db", "");
    assert!(c.refused(many).contains("limit"));
}

/// Takes a migration of a service with state to the moment its source is told to stop.
fn switched_over(c: &mut Cluster) -> (OperationId, crate::ids::Token) {
    c.deploy("db", "state: {dir: data}");
    let source = c.grant("db/0", "n1");
    let id = c.began(Command::Migrate { slot: slot("db/0"), to: Some(node("n2")), parent: None });
    assert!(c.advance(id, OperationStep::Switchover).is_err(), "no target yet");
    c.advance(id, OperationStep::Prepare { target: node("n2") }).unwrap();
    assert_eq!(c.migration(id).phase, MigrationPhase::Copying);
    assert!(c.advance(id, OperationStep::Switchover).is_err(), "nothing copied yet");
    c.advance(id, copied(1)).unwrap();
    c.advance(id, OperationStep::Switchover).unwrap();
    (id, source)
}

fn copied(pass: u32) -> OperationStep {
    OperationStep::Copied { pass, bytes: 100, digest: "d".to_owned() }
}

#[test]
fn a_migration_flips_at_one_grant_after_the_confirmed_stop_and_the_last_copy() {
    let mut c = Cluster::of(&["n1", "n2"]);
    let (id, source) = switched_over(&mut c);
    assert!(c.advance(id, copied(2)).is_err(), "the source still runs");
    c.acknowledge("db/0", source);
    let early = c.grant_of("db/0", "n2", Some(id));
    assert!(c.refused(early.clone()).contains("not copied since its stop"));
    let elsewhere = c.grant_of("db/0", "n1", None);
    assert!(c.refused(elsewhere).contains("moves db/0"));
    c.advance(id, copied(2)).unwrap();
    let token = c.token(early);
    assert_eq!(c.migration(id).granted, Some(token));
    c.advance(id, OperationStep::Verify).unwrap();
    c.advance(id, OperationStep::Finish).unwrap();
    assert_eq!(c.operation(id).ended.as_ref().unwrap().result, OperationResult::Done);
    assert_eq!(c.claims("db/0").len(), 1);
}

#[test]
fn a_migration_rolls_back_by_a_new_grant_to_the_source() {
    let mut c = Cluster::of(&["n1", "n2"]);
    let (id, source) = switched_over(&mut c);
    c.acknowledge("db/0", source);
    c.advance(id, copied(2)).unwrap();
    let grant = c.grant_of("db/0", "n2", Some(id));
    let target = c.token(grant);
    c.advance(id, OperationStep::Verify).unwrap();
    c.advance(id, OperationStep::RollBack { because: "unhealthy".to_owned() }).unwrap();
    assert!(c.claims("db/0")[0].stop.is_some(), "the target is told to stop");
    assert!(c.advance(id, copied(3)).is_err(), "the target still runs");
    c.acknowledge("db/0", target);
    c.advance(id, copied(3)).unwrap();
    assert!(c.advance(id, OperationStep::Finish).is_err(), "not given back yet");
    c.ok(Command::Cordon { node: node("n1"), on: true });
    let back = c.grant_of("db/0", "n1", Some(id));
    let back = c.token(back);
    assert!(back > target);
    c.advance(id, OperationStep::Finish).unwrap();
    let ended = c.operation(id).ended.clone().unwrap().result;
    assert_eq!(ended, OperationResult::RolledBack("unhealthy".to_owned()));
}

#[test]
fn a_step_is_taken_once() {
    let mut c = Cluster::of(&["n1", "n2"]);
    let (id, _) = switched_over(&mut c);
    let again = Command::Advance { operation: id, from: 2, step: OperationStep::Switchover };
    assert!(c.refused(again).contains("not at 2 any more"));
}

#[test]
fn uncordon_cancels_a_drain_and_the_moves_that_have_not_flipped() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    c.deploy("web", "");
    let source = c.grant("db/0", "n1");
    c.grant("web/0", "n1");
    let drain = c.began(Command::Drain { node: node("n1"), max_in_flight: 2 });
    assert!(c.state.nodes.get(&node("n1")).unwrap().cordoned);
    let early = c.began(Command::Migrate { slot: slot("web/0"), to: None, parent: Some(drain) });
    let late = c.began(Command::Migrate { slot: slot("db/0"), to: None, parent: Some(drain) });
    c.advance(late, OperationStep::Prepare { target: node("n2") }).unwrap();
    c.advance(late, OperationStep::Switchover).unwrap();
    assert!(c.advance(drain, OperationStep::Finish).is_err(), "still holds copies");
    c.ok(Command::Uncordon { node: node("n1") });
    assert_eq!(c.operation(early).ended.as_ref().unwrap().result, OperationResult::Cancelled);
    assert!(c.operation(late).cancelling && c.operation(late).ended.is_none());
    assert!(!c.state.nodes.get(&node("n1")).unwrap().cordoned);
    c.acknowledge("db/0", source);
    c.advance(late, OperationStep::RollBack { because: "cancelled".to_owned() }).unwrap();
    let back = c.grant_of("db/0", "n1", Some(late));
    c.token(back);
    c.advance(late, OperationStep::Finish).unwrap();
    assert_eq!(c.operation(drain).ended.as_ref().unwrap().result, OperationResult::Cancelled);
}

#[test]
fn fencing_never_races_itself_and_proves_only_a_node_lost_in_its_epoch() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    let token = c.grant("db/0", "n1");
    let fence = Command::Fence { node: node("n1"), reason: "stuck".to_owned() };
    let id = c.began(fence.clone());
    assert!(c.refused(fence).contains("fences n1 already"));
    let attempt = OperationStep::FenceAttempt { by: node("n2"), attempt: 1, level: 0, method: 0 };
    assert!(c.advance(id, attempt.clone()).is_err(), "not lost yet");
    c.lose("n1");
    c.advance(id, attempt).unwrap();
    assert!(c.rejoin("n1", "boot-n1", vec![]).unwrap_err().to_string().contains("operator's word"));
    c.advance(id, OperationStep::FenceProven { output: "off".to_owned() }).unwrap();
    let OperationKind::Fence(record) = &c.operation(id).kind else { panic!("no fence") };
    assert_eq!(record.phase, FencePhase::Proven);
    c.end("db/0", token, Evidence::Fenced { operation: id }).unwrap();
}

#[test]
fn a_node_with_two_supplies_is_off_when_both_are() {
    let mut c = Cluster::of(&["n1", "n2"]);
    let mut two = facts("n1");
    let method = two.fencing[0][0].clone();
    two.fencing[0].push(method);
    c.ok(Command::UpdateNode(two));
    c.lose("n1");
    let id = c.began(Command::Fence { node: node("n1"), reason: String::new() });
    let attempt = |attempt, method| OperationStep::FenceAttempt { by: node("n2"), attempt, level: 0, method };
    let proven = OperationStep::FenceProven { output: "off".to_owned() };
    c.advance(id, attempt(1, 0)).unwrap();
    c.advance(id, proven.clone()).unwrap();
    assert!(c.state.nodes.get(&node("n1")).unwrap().proof().is_none());
    c.advance(id, attempt(2, 1)).unwrap();
    c.advance(id, proven).unwrap();
    assert!(c.state.nodes.get(&node("n1")).unwrap().proof().is_some());
}

#[test]
fn a_fencing_by_itself_is_released_when_the_node_answers_again() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.lose("n1");
    let fence = planned(Command::Fence { node: node("n1"), reason: "lost".to_owned() });
    let Ok(Reply::Began(id)) = c.propose(fence).result else { panic!("not begun") };
    c.rejoin("n1", "boot-n1", Vec::new()).unwrap();
    assert!(matches!(c.operation(id).ended.as_ref().unwrap().result, OperationResult::Released(_)));
}

#[test]
fn a_node_is_removed_only_when_it_holds_nothing() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "");
    let token = c.grant("db/0", "n1");
    assert!(c.refused(Command::RemoveNode { node: node("n1") }).contains("not leaving"));
    c.ok(Command::Leave { node: node("n1") });
    assert!(c.refused(Command::Leave { node: node("n2") }).contains("no other node"));
    assert!(c.refused(Command::RemoveNode { node: node("n1") }).contains("still holds db/0"));
    c.stop("db/0", token);
    c.acknowledge("db/0", token);
    c.ok(Command::RemoveNode { node: node("n1") });
    assert!(!c.state.nodes.contains_key(&node("n1")));
}

#[test]
fn keys_are_put_conditionally_counted_and_expired_only_if_unchanged() {
    let mut c = Cluster::of(&["n1"]);
    let put = |value: &[u8], if_revision: Option<u64>| Command::KvPut {
        key: b"k".to_vec(),
        value: value.to_vec(),
        ttl: Some(Millis(1_000)),
        if_revision: if_revision.map(Revision),
    };
    assert!(c.refused(put(b"a", Some(9))).contains("no key"));
    c.ok(put(b"a", Some(0)));
    let first = c.state.revision;
    assert!(c.refused(put(b"b", Some(0))).contains("changed at"));
    c.ok(put(b"bb", Some(first.0)));
    assert_eq!(c.state.cluster.kv_bytes, 3);
    let expire = |revision| Command::KvExpire { keys: vec![(b"k".to_vec(), revision)] };
    assert_eq!(c.ok(expire(first)), Reply::Unchanged);
    let now = c.state.revision;
    let second = c.state.kv.get(&b"k".to_vec()).unwrap().modified;
    assert!(second < now);
    assert_eq!(c.ok(expire(second)), Reply::Removed(1));
    assert_eq!(c.state.cluster.kv_bytes, 0);
}

#[test]
fn the_quota_and_the_size_of_a_value_are_kept() {
    let mut c = Cluster::of(&["n1"]);
    let set = |name: &str, value: &str| SettingChange { name: name.to_owned(), value: value.to_owned() };
    c.ok(Command::ChangeSettings(vec![set("kv.quota_mib", "1"), set("kv.max_value_kib", "600")]));
    let put = |key: &str, kib: usize| Command::KvPut {
        key: key.as_bytes().to_vec(),
        value: vec![0; kib * 1024 - key.len()],
        ttl: None,
        if_revision: None,
    };
    assert!(c.refused(put("a", 601)).contains("kv.max_value_kib"));
    c.ok(put("a", 600));
    assert!(c.refused(put("b", 600)).contains("kv.quota_mib"));
    c.ok(put("a", 500));
    c.ok(put("b", 500));
    let all = Command::KvDelete { key: b"a".to_vec(), range_end: Some(b"c".to_vec()) };
    assert_eq!(c.ok(all), Reply::Removed(2));
    let turned = Command::KvDelete { key: b"b".to_vec(), range_end: Some(b"a".to_vec()) };
    assert_eq!(c.ok(turned), Reply::Unchanged);
}

#[test]
fn nothing_but_a_bootstrap_comes_before_the_bootstrap() {
    let answers = State::empty().apply(Revision(1), &[asked(Command::AdmitNode(admission("n1")))]).answers;
    assert!(answers[0].result.as_ref().unwrap_err().to_string().contains("no cluster yet"));
}

#[test]
fn an_entry_that_was_applied_already_changes_nothing() {
    let mut c = Cluster::of(&["n1"]);
    let before = c.state.clone();
    let again = c.state.apply(c.state.revision, &[asked(Command::Deploy { spec: spec("db", "") })]);
    assert!(again.answers[0].result.is_err());
    assert_eq!(before, c.state);
}

#[test]
fn unreadable_proposals_are_answered_and_change_nothing() {
    let mut c = Cluster::of(&["n1"]);
    let good = codec::encode_proposal(&asked(Command::Deploy { spec: spec("db", "") }));
    let newer = [&[9], &good[1..]].concat();
    let longer = [&good[..], &[0]].concat();
    let entry = [Vec::new(), newer, good[..good.len() - 1].to_vec(), longer, good];
    let (answers, applied) = c.state.apply_entry(Revision(c.state.revision.0 + 1), &entry);
    let refused: Vec<bool> = applied.answers.iter().map(|answer| answer.result.is_err()).collect();
    assert_eq!(refused, [true, true, true, true, false]);
    assert_eq!(codec::decode_answer(&answers[4]).unwrap(), applied.answers[4]);
    assert!(matches!(applied.answers[1].result, Err(Rejection::Unreadable { format: 9 })));
}

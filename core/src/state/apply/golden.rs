//! The stored form, byte for byte: what this release writes every later one must read. A change here is a
//! new format, never an edit of this one.

use std::fmt::Write;

use super::testkit::{Cluster, admission, asked, facts, node, planned, request, service, slot, spec};
use crate::command::{Command, OperationStep, Proposal};
use crate::ids::{BootId, ClusterId, LeaseEpoch, OperationId, Revision, Token, Version};
use crate::state::{
    Answer, ClusterSettings, Evidence, Rejection, Reply, SettingChange, SettingsError, codec,
};
use crate::units::Millis;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn advance(step: OperationStep) -> Command {
    Command::Advance { operation: OperationId(7), from: 2, step }
}

fn end(evidence: Evidence) -> Command {
    Command::EndClaim { slot: slot("db/0"), token: Token::default(), evidence }
}

fn about_nodes() -> Vec<Command> {
    let n1 = node("n1");
    vec![
        Command::Bootstrap {
            cluster: ClusterId("c".to_owned()),
            name: "name".to_owned(),
            settings: ClusterSettings::default(),
        },
        Command::ChangeSettings(vec![SettingChange { name: "a".to_owned(), value: "b".to_owned() }]),
        Command::AdmitNode(admission("n1")),
        Command::UpdateNode(facts("n1")),
        Command::MarkLost { node: n1.clone(), lease_epoch: LeaseEpoch(3), because: vec!["w".to_owned()] },
        Command::Rejoin {
            node: n1.clone(),
            boot: BootId("b".to_owned()),
            lease_epoch: LeaseEpoch(3),
            holds: vec![(slot("db/0"), Token::default())],
        },
        Command::Cordon { node: n1.clone(), on: true },
        Command::AttestDead { node: n1.clone(), reason: "w".to_owned() },
        Command::Leave { node: n1.clone() },
        Command::RemoveNode { node: n1.clone() },
        Command::Drain { node: n1.clone(), max_in_flight: 2 },
        Command::Uncordon { node: n1.clone() },
        Command::Fence { node: n1, reason: "w".to_owned() },
    ]
}

fn about_services() -> Vec<Command> {
    let full = "replicas: 2\npriority: high\nlabels: {a: b}\nstate: {dir: data}\nresources: {cpu: 0.2, memory_mib: 64}\n\
                placement: {constraints: [\"zone == a\"], spread: require}\n\
                health: {http: {port: 80, path: /h}}\nstop: {signal: SIGINT, grace: 5s}";
    let db = service("db");
    vec![
        Command::Deploy { spec: spec("db", full) },
        Command::Scale { service: db.clone(), replicas: 3 },
        Command::Restart { service: db.clone() },
        Command::StopService { service: db.clone() },
        Command::DeleteService { service: db },
        Command::Grant {
            slot: slot("db/0"),
            node: node("n1"),
            boot: BootId("b".to_owned()),
            lease_epoch: LeaseEpoch(3),
            version: Version(4),
            operation: Some(OperationId(7)),
            because: "w".to_owned(),
        },
        Command::StopClaim {
            slot: slot("db/0"),
            token: Token::default(),
            because: "w".to_owned(),
            operation: None,
        },
        end(Evidence::StopAcknowledged { stop: Token::default() }),
        end(Evidence::Fenced { operation: OperationId(7) }),
        end(Evidence::Rebooted { boot: BootId("b".to_owned()) }),
        end(Evidence::Silence { lease_epoch: LeaseEpoch(3), waited: Millis(300) }),
        end(Evidence::Attested { revision: Revision(9) }),
    ]
}

fn about_operations_and_keys() -> Vec<Command> {
    let w = || "w".to_owned();
    vec![
        Command::Migrate { slot: slot("db/0"), to: Some(node("n2")), parent: Some(OperationId(7)) },
        Command::CancelOperation { operation: OperationId(7) },
        advance(OperationStep::Prepare { target: node("n2") }),
        advance(OperationStep::Copied { pass: 1, bytes: 300, digest: w() }),
        advance(OperationStep::Switchover),
        advance(OperationStep::Verify),
        advance(OperationStep::RollBack { because: w() }),
        advance(OperationStep::FenceAttempt { by: node("n2"), attempt: 1, level: 2, method: 3 }),
        advance(OperationStep::FenceFailed { output: w() }),
        advance(OperationStep::FenceProven { output: w() }),
        advance(OperationStep::Finish),
        advance(OperationStep::Fail { because: w() }),
        Command::KvPut {
            key: b"k".to_vec(),
            value: b"v".to_vec(),
            ttl: Some(Millis(1)),
            if_revision: Some(Revision(2)),
        },
        Command::KvDelete { key: b"k".to_vec(), range_end: Some(b"l".to_vec()) },
        Command::KvExpire { keys: vec![(b"k".to_vec(), Revision(2))] },
    ]
}

#[test]
fn proposals_keep_their_stored_form() {
    let mut whole = String::new();
    let mut line = |proposal: &Proposal| {
        let bytes = codec::encode_proposal(proposal);
        assert_eq!(&codec::decode_proposal(&bytes).unwrap(), proposal);
        let name = format!("{:?}", proposal.command);
        let name = name.split([' ', '(']).next().unwrap_or_default();
        writeln!(whole, "{name} {}", hex(&bytes)).unwrap();
    };
    let commands = [about_nodes(), about_services(), about_operations_and_keys()].concat();
    for command in commands {
        line(&planned(command));
    }
    let mut by_hand = asked(Command::Leave { node: node("n1") });
    by_hand.request = Some(request("client", 3));
    by_hand.expected = Some(Revision(300));
    line(&by_hand);
    insta::assert_snapshot!(whole);
}

#[test]
fn answers_keep_their_stored_form() {
    let (w, revision) = (|| "w".to_owned(), Revision(300));
    let results = [
        Ok(Reply::Accepted),
        Ok(Reply::Unchanged),
        Ok(Reply::Admitted(crate::ids::RaftId(2))),
        Ok(Reply::Began(OperationId(7))),
        Ok(Reply::Token(Token::default())),
        Ok(Reply::Removed(4)),
        Err(Rejection::NotFound { what: w(), name: w() }),
        Err(Rejection::Stale { what: w(), changed: Revision(2), expected: Revision(1) }),
        Err(Rejection::Refused { because: w(), remedy: w() }),
        Err(Rejection::Limit { what: w(), limit: 5, remedy: w() }),
        Err(Rejection::Settings(SettingsError::Unknown { name: w(), nearest: w() })),
        Err(Rejection::Settings(SettingsError::Value { name: w(), value: w(), expected: w() })),
        Err(Rejection::Settings(SettingsError::Inequality(w()))),
        Err(Rejection::Unreadable { format: 2 }),
    ];
    let mut whole = String::new();
    for result in results {
        let answer = Answer { revision, result };
        let bytes = codec::encode_answer(&answer);
        assert_eq!(codec::decode_answer(&bytes).unwrap(), answer);
        writeln!(whole, "{}", hex(&bytes)).unwrap();
    }
    insta::assert_snapshot!(whole);
}

#[test]
fn state_keeps_its_stored_form() {
    let mut c = Cluster::of(&["n1", "n2"]);
    c.deploy("db", "state: {dir: data}");
    let token = c.grant("db/0", "n1");
    let id = c.began(Command::Migrate { slot: slot("db/0"), to: None, parent: None });
    c.advance(id, OperationStep::Prepare { target: node("n2") }).unwrap();
    c.stop("db/0", token);
    c.began(Command::Drain { node: node("n1"), max_in_flight: 2 });
    c.lose("n2");
    c.began(Command::Fence { node: node("n2"), reason: "w".to_owned() });
    let mut put = asked(Command::KvPut { key: vec![1], value: vec![2], ttl: None, if_revision: None });
    put.request = Some(request("client", 3));
    c.propose(put).result.unwrap();
    let bytes = codec::encode_state(&c.state);
    let back = codec::decode_state(&bytes).unwrap();
    assert_eq!((&back, back.hash()), (&c.state, c.state.hash()));
    insta::assert_snapshot!(format!("{:016x}\n{}", c.state.hash(), hex(&bytes)));
}

//! A State to try commands on: each call is one entry, and the answers read like a transcript.

use std::sync::Arc;

use super::Applied;
use crate::command::{Actor, Command, NodeAdmission, NodeFacts, OperationStep, Proposal};
use crate::event::Event;
use crate::fence::FenceMethod;
use crate::ids::{
    BootId, ClientId, ClusterId, DiskId, LeaseEpoch, MachineId, NodeId, OperationId, RequestId, Revision,
    ServiceName, SlotId, Token,
};
use crate::spec::{Resources, ServiceSpec, SpecDefaults, parse_one};
use crate::state::{
    Answer, Claim, ClusterSettings, Evidence, Operation, OperationKind, Rejection, Reply, State,
};
use crate::units::WallMs;

pub(super) fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(super) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub(super) fn slot(text: &str) -> SlotId {
    text.parse().unwrap()
}

/// A spec in the words of its YAML, the name and a command added.
pub(super) fn spec(name: &str, more: &str) -> Arc<ServiceSpec> {
    let text = format!("name: {name}\nexecutor: process\nspec: {{command: [run]}}\n{more}\n");
    Arc::new(parse_one(&text, &SpecDefaults::default()).unwrap())
}

pub(super) fn facts(name: &str) -> NodeFacts {
    let off = FenceMethod { attempts: 1, ..FenceMethod::of_program("off") };
    NodeFacts {
        node: node(name),
        endpoints: Vec::new(),
        api: String::new(),
        http: String::new(),
        labels: Default::default(),
        capacity: Resources::default(),
        executors: Vec::new(),
        fencing: vec![vec![off]],
        armed: true,
        unarmed: None,
        silence_counts: true,
        terms: 1,
        release: "1".to_owned(),
    }
}

pub(super) fn admission(name: &str) -> NodeAdmission {
    NodeAdmission {
        machine: MachineId(format!("machine-{name}")),
        disk: DiskId(format!("disk-{name}")),
        boot: BootId(format!("boot-{name}")),
        witness: false,
        weight: 1,
        facts: facts(name),
    }
}

pub(super) fn planned(command: Command) -> Proposal {
    Proposal { request: None, actor: Actor::Planner, at: WallMs(1_000), expected: None, command }
}

pub(super) fn asked(command: Command) -> Proposal {
    let actor = Actor::Operator { name: "alice".to_owned(), from: "cli@n1".to_owned() };
    Proposal { actor, ..planned(command) }
}

pub(super) fn request(client: &str, sequence: u64) -> RequestId {
    RequestId { client: ClientId(client.to_owned()), sequence, settled: 0 }
}

/// A cluster with its log so far.
pub(super) struct Cluster {
    pub(super) state: State,
    pub(super) events: Vec<Event>,
}

impl Cluster {
    /// Bootstrapped, with these nodes.
    pub(super) fn of(nodes: &[&str]) -> Self {
        let mut cluster = Self { state: State::empty(), events: Vec::new() };
        let id = ClusterId("c".to_owned());
        let settings = ClusterSettings::default();
        cluster.ok(Command::Bootstrap { cluster: id, name: "test".to_owned(), settings });
        for name in nodes {
            cluster.ok(Command::AdmitNode(admission(name)));
        }
        cluster
    }

    /// One entry.
    pub(super) fn entry(&mut self, proposals: &[Proposal]) -> Applied {
        let applied = self.state.apply(Revision(self.state.revision.0 + 1), proposals);
        self.events.extend(applied.events.iter().map(|record| record.event.clone()));
        assert_eq!(self.state.check(), Vec::<String>::new());
        applied
    }

    /// One proposal as an entry of its own; a refusal must leave everything but answers untouched.
    pub(super) fn propose(&mut self, proposal: Proposal) -> Answer {
        let before = self.state.clone();
        let answer = self.entry(&[proposal]).answers.remove(0);
        if answer.result.is_err() {
            let unchanged =
                State { revision: self.state.revision, clients: self.state.clients.clone(), ..before };
            assert_eq!(unchanged, self.state);
        }
        answer
    }

    pub(super) fn try_to(&mut self, command: Command) -> Result<Reply, Rejection> {
        self.propose(asked(command)).result
    }

    pub(super) fn ok(&mut self, command: Command) -> Reply {
        let shown = format!("{command:?}");
        self.try_to(command).unwrap_or_else(|rejection| panic!("{shown}: {rejection}"))
    }

    pub(super) fn refused(&mut self, command: Command) -> String {
        let shown = format!("{command:?}");
        match self.try_to(command) {
            Ok(reply) => panic!("{shown}: {reply:?}"),
            Err(rejection) => rejection.to_string(),
        }
    }

    pub(super) fn deploy(&mut self, name: &str, more: &str) -> Reply {
        self.ok(Command::Deploy { spec: spec(name, more) })
    }

    pub(super) fn grant_of(&self, at: &str, to: &str, operation: Option<OperationId>) -> Command {
        let (slot, node) = (slot(at), node(to));
        let version = self.state.services.get(&slot.service).map_or_else(Default::default, |s| s.version);
        let record = self.state.nodes.get(&node);
        Command::Grant {
            slot,
            boot: record.map_or_else(BootId::default, |record| record.boot.clone()),
            lease_epoch: record.map_or(LeaseEpoch(0), |record| record.lease_epoch),
            node,
            version,
            operation,
            because: "test".to_owned(),
        }
    }

    pub(super) fn grant(&mut self, at: &str, to: &str) -> Token {
        let grant = self.grant_of(at, to, None);
        self.token(grant)
    }

    pub(super) fn token(&mut self, command: Command) -> Token {
        match self.ok(command) {
            Reply::Token(token) => token,
            other => panic!("no token but {other:?}"),
        }
    }

    pub(super) fn began(&mut self, command: Command) -> OperationId {
        match self.ok(command) {
            Reply::Began(operation) => operation,
            other => panic!("no operation but {other:?}"),
        }
    }

    pub(super) fn stop(&mut self, at: &str, token: Token) -> Token {
        let because = "test".to_owned();
        self.token(Command::StopClaim { slot: slot(at), token, because, operation: None })
    }

    pub(super) fn end(&mut self, at: &str, token: Token, evidence: Evidence) -> Result<Reply, Rejection> {
        self.try_to(Command::EndClaim { slot: slot(at), token, evidence })
    }

    pub(super) fn acknowledge(&mut self, at: &str, token: Token) {
        let stop = self.claims(at).iter().find(|c| c.token == token).unwrap().stop.clone().unwrap().token;
        self.end(at, token, Evidence::StopAcknowledged { stop }).unwrap();
    }

    pub(super) fn lose(&mut self, name: &str) -> LeaseEpoch {
        let lease_epoch = self.state.nodes.get(&node(name)).unwrap().lease_epoch;
        self.ok(Command::MarkLost { node: node(name), lease_epoch, because: vec!["silent".to_owned()] });
        lease_epoch
    }

    pub(super) fn rejoin(
        &mut self,
        name: &str,
        boot: &str,
        holds: Vec<(SlotId, Token)>,
    ) -> Result<Reply, Rejection> {
        let lease_epoch = self.state.nodes.get(&node(name)).unwrap().lease_epoch;
        self.try_to(Command::Rejoin { node: node(name), boot: BootId(boot.to_owned()), lease_epoch, holds })
    }

    pub(super) fn advance(
        &mut self,
        operation: OperationId,
        step: OperationStep,
    ) -> Result<Reply, Rejection> {
        let from = self.state.operations.get(&operation).unwrap().step;
        self.try_to(Command::Advance { operation, from, step })
    }

    pub(super) fn claims(&self, at: &str) -> Vec<Claim> {
        self.state.slots.get(&slot(at)).map_or_else(Vec::new, |record| record.claims.clone())
    }

    pub(super) fn operation(&self, id: OperationId) -> &Operation {
        self.state.operations.get(&id).unwrap()
    }

    pub(super) fn running(&self) -> Vec<OperationId> {
        let all = self.state.operations.iter();
        all.filter(|(_, operation)| operation.ended.is_none()).map(|(id, _)| *id).collect()
    }

    pub(super) fn migration(&self, id: OperationId) -> crate::state::MigrationRecord {
        match &self.operation(id).kind {
            OperationKind::Migration(migration) => migration.clone(),
            other => panic!("no migration but {other:?}"),
        }
    }
}

//! A small world for tests: State changed only by `apply`, nodes that obey it at once, and a clock that is
//! turned by hand. Plans are made by the real `detect` and `plan`; a refused planner command fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_core::command::{Actor, Command, NodeAdmission, NodeFacts, Proposal, Recovery};
use quorate_core::detect::detect;
use quorate_core::fence::FenceMethod;
use quorate_core::ids::{
    BootId, ClusterId, DiskId, Epoch, InstanceId, LeaseEpoch, MachineId, NodeId, OperationId, RaftId,
    Revision, SlotId,
};
use quorate_core::observation::{
    ExecutorFact, FenceOutcome, FenceReport, GuardReport, Health, Heard, InstancePhase, InstanceReport,
    InstanceUsage, MissingTool, NodeReport, NodeUsage, Observed, RaftObserved, SlotReport, TransferOutcome,
    TransferReport, Unavailable,
};
use quorate_core::plan::plan;
use quorate_core::reach::{KnownRow, LinkReport, Reach, Row};
use quorate_core::settings::{ClusterSettings, SettingChange};
use quorate_core::spec::{ExecutorKind, Resources, SpecDefaults, parse_one};
use quorate_core::state::{
    Answer, Claim, FencePhase, Inventory, MigrationPhase, MigrationRecord, OperationKind, OperationResult,
    Plan, RecoveryCause, State, Subject, WaitCause,
};
use quorate_core::units::{BootMs, CpuMillis, MemoryMib, Millis, WallMs};

pub fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub fn slot(text: &str) -> SlotId {
    text.parse().unwrap()
}

/// The world.
pub struct World {
    pub state: State,
    pub observed: Observed,
    /// Nodes whose process runs and reaches the leader.
    pub up: BTreeSet<NodeId>,
    /// What the fence devices do; `None` while they hang.
    pub fence: Option<FenceOutcome>,
    /// What nodes lack for fencing.
    pub missing: BTreeMap<NodeId, Vec<MissingTool>>,
    /// What a method says when it gives the power back.
    pub switch_on: Option<FenceOutcome>,
    /// Do copies of state arrive?
    pub copies: bool,
    /// Nodes where instances start but never get healthy.
    pub sick: BTreeSet<NodeId>,
    /// Every command that a plan made, in order.
    pub log: Vec<Command>,
}

impl World {
    /// A cluster of these nodes, all heard and obedient; the first leads.
    pub fn new(names: &[&str]) -> Self {
        let me = node(names[0]);
        let observed = Observed {
            me: me.clone(),
            now: BootMs(100_000),
            nodes: imbl::OrdMap::new(),
            known_since: imbl::OrdMap::new(),
            reach: Reach::default(),
            raft: RaftObserved {
                leading: true,
                leading_since: Some(BootMs(50_000)),
                leader: Some(me),
                quorum_ack_age: Some(Millis(10)),
                ..RaftObserved::default()
            },
        };
        let mut world = Self {
            state: State::empty(),
            observed,
            up: BTreeSet::new(),
            fence: Some(FenceOutcome::ProvenOff { output: "off".to_owned() }),
            missing: BTreeMap::new(),
            switch_on: Some(FenceOutcome::SwitchedOn { output: "on".to_owned() }),
            copies: true,
            sick: BTreeSet::new(),
            log: Vec::new(),
        };
        let settings = ClusterSettings::default();
        let bootstrap =
            Command::Bootstrap { cluster: ClusterId("c".to_owned()), name: "test".to_owned(), settings };
        world.ask(bootstrap);
        for name in names {
            world.admit(name, |_| {});
        }
        world
    }

    pub fn admit(&mut self, name: &str, change: impl FnOnce(&mut NodeAdmission)) {
        let facts = NodeFacts {
            node: node(name),
            endpoints: Vec::new(),
            api: String::new(),
            http: String::new(),
            labels: BTreeMap::new(),
            capacity: Resources { cpu: CpuMillis(4_000), memory: MemoryMib(4_096) },
            executors: vec![process()],
            fencing: Vec::new(),
            armed: false,
            unarmed: None,
            silence_counts: true,
            terms: self.state.cluster.settings.terms.number,
            release: "0.1.0".to_owned(),
        };
        let mut admission = NodeAdmission {
            machine: MachineId(name.to_owned()),
            disk: DiskId(format!("disk of {name}")),
            boot: BootId(format!("{name}:1")),
            witness: false,
            weight: 1,
            facts,
        };
        change(&mut admission);
        self.ask(Command::AdmitNode(admission));
        self.up.insert(node(name));
        let id = self.state.nodes.get(&node(name)).unwrap().raft_id;
        self.observed.raft.voters.push(id);
        self.observed.raft.lag.insert(id, 0);
        self.obey();
    }

    /// Changes what a node said of itself.
    pub fn facts(&mut self, name: &str, change: impl FnOnce(&mut NodeFacts)) {
        let mut facts = self.state.nodes.get(&node(name)).unwrap().facts.clone();
        change(&mut facts);
        self.ask(Command::UpdateNode(facts));
    }

    pub fn fence_method(&mut self, name: &str) {
        let method = FenceMethod::of_program("off");
        self.facts(name, |facts| facts.fencing = vec![vec![method]]);
    }

    pub fn set(&mut self, name: &str, value: &str) {
        let change = SettingChange { name: name.to_owned(), value: value.to_owned() };
        self.ask(Command::ChangeSettings(vec![change]));
    }

    /// Applies a command of an operator that has to be accepted.
    pub fn ask(&mut self, command: Command) -> Answer {
        let answer = self.try_ask(command.clone());
        assert!(answer.result.is_ok(), "{command:?}: {:?}", answer.result);
        answer
    }

    pub fn try_ask(&mut self, command: Command) -> Answer {
        let actor = Actor::Operator { name: "ann".to_owned(), from: "test".to_owned() };
        self.apply(vec![(actor, command)]).remove(0)
    }

    fn apply(&mut self, commands: Vec<(Actor, Command)>) -> Vec<Answer> {
        let proposals: Vec<Proposal> = commands
            .into_iter()
            .map(|(actor, command)| Proposal { request: None, actor, at: WallMs(0), expected: None, command })
            .collect();
        let revision = Revision(self.state.revision.0 + 1);
        let answers = self.state.apply(revision, &proposals).answers;
        assert_eq!(self.state.check(), Vec::<String>::new());
        answers
    }

    pub fn deploy(&mut self, text: &str) {
        let command = self.deploy_command(text);
        self.ask(command);
    }

    pub fn deploy_command(&self, text: &str) -> Command {
        self.deploy_whole(&format!("spec: {{command: [run]}}\n{text}"))
    }

    /// The deployment of a service whose description says what it runs.
    pub fn deploy_whole(&self, text: &str) -> Command {
        let spec = parse_one(text, &SpecDefaults::default()).unwrap_or_else(|errors| panic!("{errors}"));
        Command::Deploy { spec: Arc::new(spec) }
    }

    /// A node has this executor from now on, or has it and cannot use it because of this.
    pub fn executor(&mut self, name: &str, kind: ExecutorKind, unavailable: Option<Unavailable>) {
        let fact = ExecutorFact { kind, version: "1".to_owned(), capabilities: Vec::new(), unavailable };
        self.reports(name, |report| {
            report.executors.retain(|known| known.kind != kind);
            report.executors.push(fact);
        });
    }

    pub fn plan(&self) -> Plan {
        plan(&self.state, &self.observed, &detect(&self.observed, &self.state))
    }

    /// One plan, applied in one entry: what it proposed.
    pub fn step(&mut self) -> Vec<Command> {
        let commands = self.plan().commands;
        if commands.is_empty() {
            return commands;
        }
        let proposals = commands.iter().map(|command| (Actor::Planner, command.clone())).collect();
        for (answer, command) in self.apply(proposals).iter().zip(&commands) {
            // The end of a service's last claim, in the same entry, may have ended its operation.
            let over = answer.result.as_ref().is_err_and(|why| why.to_string().contains("was deleted"));
            assert!(answer.result.is_ok() || over, "{command:?}: {:?}", answer.result);
        }
        self.log.extend(commands.iter().cloned());
        commands
    }

    /// Plans and obeys until nothing is left to propose.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            self.obey();
            if self.step().is_empty() {
                return;
            }
        }
        panic!(
            "the plan never came to rest; its last commands: {:?}",
            self.log.split_off(self.log.len() - 6)
        );
    }

    /// Time passes; nodes that are up go on sending heartbeats.
    pub fn pass(&mut self, ms: u64) {
        self.observed.now = self.observed.now + Millis(ms);
        self.obey();
    }

    /// A node tells whom it reaches.
    pub fn tell(&mut self, from: &str, links: Vec<LinkReport>) {
        let row = Row {
            from: node(from),
            boot: BootId(format!("{from}:1")),
            made: self.observed.now,
            links,
            arbiters: Vec::new(),
            leader: None,
            term: 1,
            lease_left: Millis(0),
        };
        let known = KnownRow { at: self.observed.now, calm: row.calm(), row: row.into() };
        self.observed.reach.rows.insert(node(from), known);
    }

    /// The node's process and host are gone.
    pub fn kill(&mut self, name: &str) {
        self.up.remove(&node(name));
    }

    /// Time passes until a node that is down is committed lost.
    pub fn lose(&mut self, name: &str) {
        self.kill(name);
        let lease = self.state.cluster.settings.terms.lease;
        self.pass(lease.0);
        self.step();
        assert!(self.state.nodes.get(&node(name)).unwrap().lost(), "{name} is not lost");
    }

    /// The host comes back in a new boot with nothing running.
    pub fn reboot(&mut self, name: &str) {
        let id = node(name);
        self.up.insert(id.clone());
        let old = self.observed.nodes.get(&id).map(|heard| heard.report.boot.0.clone()).unwrap_or_default();
        self.hear(&id, |report| {
            report.boot = BootId(format!("{old}+"));
            report.slots.clear();
        });
    }

    /// The node is heard again in the same boot, with all that it ran.
    pub fn thaw(&mut self, name: &str) {
        self.up.insert(node(name));
        self.obey();
    }

    fn hear(&mut self, id: &NodeId, change: impl FnOnce(&mut NodeReport)) {
        let now = self.observed.now;
        let mut report = match self.observed.nodes.get(id) {
            Some(heard) => heard.report.clone(),
            None => empty_report(id, self.state.nodes.get(id).unwrap().boot.clone()),
        };
        change(&mut report);
        let heard = Heard { received: now, answered: Some(now), echo_rose: now, report };
        self.observed.nodes.insert(id.clone(), heard);
        if !self.observed.known_since.contains_key(id) {
            self.observed.known_since.insert(id.clone(), now);
        }
    }

    /// Every node that is up does what State says, and reports it.
    pub fn obey(&mut self) {
        self.observed.raft.applied = self.state.revision;
        for id in self.up.clone() {
            let mut next = None;
            self.hear(&id, |report| next = Some(report.clone()));
            let mut report = next.unwrap();
            self.obedient(&id, &mut report);
            self.hear(&id, |old| *old = report);
        }
    }

    fn obedient(&self, id: &NodeId, report: &mut NodeReport) {
        let Some(record) = self.state.nodes.get(id) else { return };
        report.revision = self.state.revision;
        report.heartbeat += 1;
        report.echo = report.heartbeat - 1;
        report.lease_epoch = record.lease_epoch;
        report.wants_rejoin = record.lost() || record.boot != report.boot || !record.settled();
        let claims: Vec<(&SlotId, &Claim)> =
            self.state.claims_on(id).filter(|(_, claim)| claim.boot == report.boot).collect();
        for (slot, known) in &mut report.slots {
            if record.inventory == Inventory::Unheard {
                break;
            }
            let token = known.instance.as_ref().map(|instance| instance.id.token);
            if let Some(token) = token.filter(|t| !claims.iter().any(|(s, c)| s == &slot && c.token == *t)) {
                *known = SlotReport { highest: token.max(self.state.token()), instance: None };
            }
        }
        for (slot, claim) in claims {
            match &claim.stop {
                Some(stop) => {
                    let gone = SlotReport { highest: stop.token, instance: None };
                    report.slots.insert(slot.clone(), gone);
                }
                None if report.wants_rejoin => {}
                None => {
                    let instance = self.instance(id, slot, claim);
                    let running = SlotReport { highest: claim.token, instance: Some(instance) };
                    report
                        .slots
                        .entry(slot.clone())
                        .and_modify(|known| {
                            if known.highest < claim.token {
                                *known = running.clone();
                            }
                        })
                        .or_insert(running);
                }
            }
        }
        self.operate(id, report);
    }

    fn operate(&self, id: &NodeId, report: &mut NodeReport) {
        report.fencing.missing = self.missing.get(id).cloned().unwrap_or_default();
        for (operation, record) in self.state.operations.iter().filter(|(_, record)| record.ended.is_none()) {
            match &record.kind {
                OperationKind::Fence(fence) if fence.by_node.as_ref() == Some(id) => {
                    let outcome = match fence.phase {
                        FencePhase::Proven => self.switch_on.clone(),
                        _ => self.fence.clone(),
                    };
                    let (operation, attempt) = (*operation, fence.attempt);
                    report.fencing.deeds = vec![FenceReport { operation, attempt, outcome }];
                }
                OperationKind::Migration(migration) if self.copies => {
                    let target = migration.target.as_ref() == Some(id);
                    let pass = match migration.phase {
                        MigrationPhase::Copying if target => 1,
                        MigrationPhase::Switchover if target => 2,
                        MigrationPhase::RollingBack if migration.source == *id => 3,
                        _ => continue,
                    };
                    report.transfers.push(TransferReport {
                        operation: *operation,
                        pass,
                        bytes_done: 10,
                        bytes_total: 10,
                        outcome: Some(TransferOutcome::Complete { digest: "d".to_owned() }),
                    });
                }
                _ => {}
            }
        }
    }

    fn instance(&self, id: &NodeId, slot: &SlotId, claim: &Claim) -> InstanceReport {
        let sick = self.sick.contains(id);
        InstanceReport {
            id: InstanceId { slot: slot.clone(), token: claim.token },
            spec: self.digest(slot, claim),
            phase: InstancePhase::Running,
            pid: Some(7),
            started_at: WallMs(0),
            since: Millis(1_000),
            ran: Millis(0),
            restarts: 0,
            health: if sick { Health::Unhealthy } else { Health::Healthy },
            health_detail: if sick { "status 500" } else { "status 200" }.to_owned(),
            usage: InstanceUsage::default(),
            last_exit: None,
            unenforced: Vec::new(),
            armed: false,
        }
    }

    fn digest(&self, slot: &SlotId, claim: &Claim) -> u64 {
        self.state.services.get(&slot.service).unwrap().spec_of(claim.version).run_digest()
    }

    /// The cluster goes on from an earlier State, and all of its nodes with it.
    pub fn recover(&mut self, from: &State) {
        let survivors = from.nodes.keys().cloned().collect();
        self.recover_with(from, survivors);
    }

    /// The cluster goes on from an earlier State with the data of these nodes alone.
    pub fn recover_with(&mut self, from: &State, survivors: Vec<NodeId>) {
        self.state = from.clone();
        self.ask(Command::Recover(Recovery {
            cause: RecoveryCause::ForcedQuorum { survivors },
            above: Epoch(0),
            kept: Revision(1_000_000),
            cluster: None,
            founder: None,
            reason: "test".to_owned(),
        }));
    }

    /// Changes what a node says of itself with its heartbeats from now on.
    pub fn reports(&mut self, name: &str, change: impl FnOnce(&mut NodeReport)) {
        self.hear(&node(name), change);
    }

    /// Changes what a node reports of one instance.
    pub fn instance_on(&mut self, name: &str, of: &str, change: impl FnOnce(&mut InstanceReport)) {
        let (id, of) = (node(name), slot(of));
        self.hear(&id, |report| change(report.slots.get_mut(&of).unwrap().instance.as_mut().unwrap()));
    }

    /// Whatever a current claim covers runs well from now on.
    pub fn recover_instances(&mut self) {
        for id in self.up.clone() {
            self.hear(&id, |report| {
                for instance in report.slots.values_mut().filter_map(|known| known.instance.as_mut()) {
                    (instance.phase, instance.health) = (InstancePhase::Running, Health::Healthy);
                }
            });
        }
    }

    /// Where a slot runs: nodes with an unstopped claim, joined by commas.
    pub fn at(&self, text: &str) -> String {
        let claims =
            self.state.slots.get(&slot(text)).map(|record| record.claims.clone()).unwrap_or_default();
        let nodes: Vec<String> =
            claims.iter().filter(|c| c.stop.is_none()).map(|claim| claim.node.to_string()).collect();
        nodes.join(",")
    }

    pub fn claim(&self, text: &str) -> &Claim {
        &self.state.slots.get(&slot(text)).unwrap().claims[0]
    }

    /// What a slot waits for now.
    pub fn waits(&self, text: &str) -> Vec<WaitCause> {
        let waiting = self.plan().waiting;
        let lines = waiting.get(&Subject::Slot(slot(text))).cloned().unwrap_or_default();
        lines.into_iter().map(|line| line.cause).collect()
    }

    pub fn migration(&self, id: u64) -> &MigrationRecord {
        match &self.state.operations.get(&OperationId(id)).unwrap().kind {
            OperationKind::Migration(migration) => migration,
            other => panic!("{other:?} is no migration"),
        }
    }

    pub fn result(&self, id: u64) -> Option<&OperationResult> {
        self.state.operations.get(&OperationId(id)).unwrap().ended.as_ref().map(|end| &end.result)
    }

    pub fn raft_id(&self, name: &str) -> RaftId {
        self.state.nodes.get(&node(name)).unwrap().raft_id
    }
}

fn process() -> ExecutorFact {
    ExecutorFact {
        kind: ExecutorKind::Process,
        version: "6.1".to_owned(),
        capabilities: Vec::new(),
        unavailable: None,
    }
}

fn empty_report(id: &NodeId, boot: BootId) -> NodeReport {
    NodeReport {
        node: id.clone(),
        boot,
        lease_epoch: LeaseEpoch(1),
        wants_rejoin: false,
        heartbeat: 1,
        echo: 0,
        revision: Revision(0),
        pid: 1,
        guard: GuardReport { answering: true, ..GuardReport::default() },
        usage: NodeUsage::default(),
        executors: vec![process()],
        slots: BTreeMap::new(),
        transfers: Vec::new(),
        fencing: Default::default(),
    }
}

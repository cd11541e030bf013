//! The world: true time, the queue of what is to happen, all hosts and what connects them. Moves everything
//! and judges nothing; what truly happened goes to the checkers as it happens.

use std::collections::BTreeMap;
use std::fmt::{Arguments, Write as _};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::faults::{self, Fault};
use super::guard::{self, Call};
use super::host::{Host, Process};
use super::invariants::{Checkers, Truth};
use super::log::{Entry, LogMessage};
use super::network::Network;
use super::operator::Operator;
use super::random::Random;
use super::scene::{self, Behaviour, Device};
use super::{Count, Options, Outcome, Plant, Violation};
use crate::command::Proposal;
use crate::event::EventRecord;
use crate::ids::{NodeId, OperationId, RaftId, ServiceName, SlotId};
use crate::lease::LeaseAnswer;
use crate::observation::{ExitKind, FenceOutcome, NodeReport, Observed};
use crate::state::{Answer, NodeStanding, Plan, Rejection, State};
use crate::units::{BootMs, Millis};

/// Lines kept for a violation.
const LAST_LINES: usize = 60;
/// True microseconds between two slices of a host's life, at least and at most.
const SLICE_US: (u64, u64) = (12_000, 28_000);

/// What hosts send one another.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Log { from: RaftId, message: LogMessage },
    Beat { session: u64, report: Arc<NodeReport> },
    Answer { session: u64, answer: LeaseAnswer },
    Ask { proposal: Box<Proposal>, origin: Origin, hops: u32 },
    FetchAsk { operation: OperationId, pass: u32, slot: SlotId },
    FetchGive { operation: OperationId, pass: u32, content: u64 },
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Nobody,
    Client(usize),
}

/// What is to happen at a moment.
#[derive(Debug)]
pub(super) enum Happening {
    Slice { host: usize },
    Deliver { from: usize, to: usize, message: Message },
    Call { host: usize, boots: u64, call: Call },
    Spawn { host: usize, boots: u64, slot: SlotId, serial: u64 },
    End { host: usize, serial: u64, kind: ExitKind },
    Fence { by: usize, session: u64, target: usize, operation: OperationId, attempt: u32, quorate: bool },
    FenceRead { by: usize, session: u64, target: usize, operation: OperationId, attempt: u32 },
    PowerOn { host: usize },
    StartNode { host: usize },
    StartGuard { host: usize },
    ThawNode { host: usize },
    ThawGuard { host: usize },
    Fault(Fault),
    Operate,
    AskAgain { ask: usize },
    Answered { ask: usize, answer: Answer },
    Heal,
    TidyUp,
    Inspect,
}

/// Everything but the hosts.
pub(super) struct Ctx {
    /// True time in microseconds.
    pub(super) now: u64,
    pub(super) random: Random,
    pub(super) steps: u64,
    pub(super) counts: BTreeMap<Count, u64>,
    pub(super) network: Network,
    pub(super) healed: bool,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    serials: u64,
    names: BTreeMap<NodeId, usize>,
    routes: BTreeMap<RaftId, usize>,
    behaviours: BTreeMap<ServiceName, Behaviour>,
    devices: Vec<Device>,
    truth: Vec<Truth>,
    plant: Option<Plant>,
    lines: std::collections::VecDeque<String>,
    kept: Option<Vec<String>>,
    hash: u64,
}

impl Ctx {
    pub(super) fn plant(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    pub(super) fn count(&mut self, what: Count) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    pub(super) fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    /// May things still go wrong?
    pub(super) fn faulty(&self) -> bool {
        !self.healed
    }

    pub(super) fn after(&mut self, delay_us: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + delay_us, self.sequence), happening);
    }

    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        let [first, second] = self.network.delays(from, to, self.now, &mut self.random);
        if let Some(delay) = second {
            self.after(delay, Happening::Deliver { from, to, message: message.clone() });
        }
        match first {
            Some(delay) => self.after(delay, Happening::Deliver { from, to, message }),
            None => self.count(Count::MessagesLost),
        }
    }

    /// A node speaks to its own guard: in order mostly, sometimes late or twice.
    pub(super) fn call(&mut self, host: &Host, call: Call) {
        let late = if self.random.percent(5) { self.random.below(60_000) } else { 0 };
        let delay = self.random.between(300, 4_000) + late;
        if self.faulty() && self.random.percent(3) {
            let again = Happening::Call { host: host.index, boots: host.boots, call: call.clone() };
            let delay = delay + self.random.below(150_000);
            self.after(delay, again);
        }
        self.after(delay, Happening::Call { host: host.index, boots: host.boots, call });
    }

    pub(super) fn reply(&mut self, origin: Origin, answer: Answer) {
        let Origin::Client(ask) = origin else { return };
        let lost = self.faulty() && self.random.percent(8);
        if !lost {
            let delay = self.random.between(500, 20_000);
            self.after(delay, Happening::Answered { ask, answer });
        }
    }

    pub(super) fn host_of(&self, id: RaftId) -> Option<usize> {
        self.routes.get(&id).copied()
    }

    pub(super) fn host_named(&self, node: &NodeId) -> Option<usize> {
        self.names.get(node).copied()
    }

    /// The names of all nodes.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.names.keys().cloned().collect()
    }

    pub(super) fn behaviour(&self, service: &ServiceName) -> Behaviour {
        self.behaviours.get(service).copied().unwrap_or_default()
    }

    pub(super) fn fence_device(&self, target: usize) -> Device {
        self.devices.get(target).copied().unwrap_or_default()
    }

    /// Adds a line to the transcript.
    pub(super) fn note(&mut self, what: Arguments<'_>) {
        let mut line = String::new();
        let (s, us) = (self.now / 1_000_000, self.now % 1_000_000);
        // Writing to a string cannot fail.
        let _ = write!(line, "{s:>4}.{us:06} {what}");
        self.hash = xxh3_64_with_seed(line.as_bytes(), self.hash);
        if let Some(kept) = &mut self.kept {
            kept.push(line.clone());
        }
        self.lines.push_back(line);
        if self.lines.len() > LAST_LINES {
            self.lines.pop_front();
        }
    }

    // What truly happens, for the checkers.

    pub(super) fn spawned(&mut self, host: usize, process: Process) {
        self.note(format_args!(
            "host {host} runs {}@{} restart {}",
            process.slot, process.token, process.restart
        ));
        self.truth.push(Truth::Spawned { host, process });
    }

    pub(super) fn gone(&mut self, host: usize, process: &Process) {
        self.note(format_args!("host {host} ends {}@{}", process.slot, process.token));
    }

    pub(super) fn fetched(&mut self, from: usize, to: usize, operation: OperationId) {
        self.truth.push(Truth::Fetched { from, to, operation });
    }

    pub(super) fn moved_in(&mut self, host: usize, slot: &SlotId, operation: OperationId, content: u64) {
        self.truth.push(Truth::MovedIn { host, slot: slot.clone(), operation, content });
    }

    pub(super) fn beat_sent(&mut self, host: usize, session: u64, heartbeat: u64, at: BootMs) {
        self.truth.push(Truth::BeatSent { host, session, heartbeat, at });
    }

    pub(super) fn applied(&mut self, host: usize, state: &State, entry: &Entry, events: &[Arc<EventRecord>]) {
        let (revision, hash) = (state.revision, state.hash());
        let entry = entry.clone();
        self.truth.push(Truth::Applied { host, revision, hash, entry, events: events.to_vec() });
    }

    pub(super) fn refused(&mut self, proposal: &Proposal, why: &Rejection) {
        self.count(Count::PlansRefused);
        self.note(format_args!("refused to the planner: {:?}: {why}", proposal.command));
        self.truth.push(Truth::Refused(Box::new(proposal.clone()), why.to_string()));
    }

    pub(super) fn planned(&mut self, state: &State, observed: &Observed, plan: &Plan) {
        let seen = Box::new((state.clone(), observed.clone(), plan.clone()));
        self.truth.push(Truth::Planned(seen));
    }

    // Planted bugs that are none of a host's own.

    /// Changes State behind apply's back, where a bug is planted that does.
    pub(super) fn spoil(&self, host: usize, state: &mut State) {
        if self.plant(Plant::UnequalApply) && host == 1 && state.revision.0 > 60 {
            state.cluster.kv_bytes += 1;
        }
        if self.plant(Plant::ForgetClaimsOfLost) {
            let lost = |node: &NodeId| {
                state
                    .nodes
                    .get(node)
                    .is_some_and(|record| matches!(record.standing, NodeStanding::Lost { .. }))
            };
            let hit = |(slot, record): (&SlotId, &crate::state::SlotRecord)| {
                record.claims.iter().any(|claim| lost(&claim.node)).then(|| slot.clone())
            };
            let slots: Vec<SlotId> = state.slots.iter().filter_map(hit).collect();
            let gone: Vec<NodeId> = state.nodes.keys().filter(|node| lost(node)).cloned().collect();
            for slot in slots {
                state.slots.update(&slot, |record| {
                    record.claims.retain(|claim| !gone.contains(&claim.node));
                });
            }
        }
    }

    /// Shifts the leader's view of time, where a bug is planted that does.
    pub(super) fn misjudge(&self, mut observed: Observed) -> Observed {
        if self.plant(Plant::ImpatientSilence) {
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
            observed.raft.leading_since = observed
                .raft
                .leading_since
                .map(|since| if observed.now.since(since).0 < 61_000 { since + long } else { since });
            observed.known_since =
                observed.known_since.iter().map(|(n, at)| (n.clone(), *at + long)).collect();
        }
        observed
    }
}

/// A seeded world.
pub(super) struct World {
    pub(super) hosts: Vec<Host>,
    pub(super) ctx: Ctx,
    operator: Operator,
    checkers: Checkers,
    seed: u64,
    options: Options,
    violations: Vec<Violation>,
    /// Nothing more can happen that matters.
    over: bool,
    heal_us: u64,
    end_us: u64,
}

impl World {
    pub(super) fn new(seed: u64, options: &Options) -> Self {
        let mut random = Random::new(seed);
        let scene = scene::draw(options, &mut random);
        let names = scene.hosts.iter().map(|host| (host.name.clone(), host.index)).collect();
        let routes = scene.hosts.iter().map(|host| (host.disk.raft_id, host.index)).collect();
        let ctx = Ctx {
            now: 0,
            random,
            steps: 0,
            counts: BTreeMap::new(),
            network: Network::new(scene.hosts.len()),
            healed: false,
            queue: BTreeMap::new(),
            sequence: 0,
            serials: 0,
            names,
            routes,
            behaviours: scene.behaviours,
            devices: scene.devices,
            truth: Vec::new(),
            plant: options.plant,
            lines: std::collections::VecDeque::new(),
            kept: options.keep_transcript.then(Vec::new),
            hash: 0,
        };
        let heal_us = options.faults_ms * 1_000;
        let mut world = Self {
            checkers: Checkers::new(&scene.hosts),
            operator: Operator::new(scene.services),
            hosts: scene.hosts,
            ctx,
            seed,
            options: options.clone(),
            violations: Vec::new(),
            over: false,
            heal_us,
            end_us: heal_us + options.heal_ms * 1_000,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for host in &mut self.hosts {
            host.start_node(&mut self.ctx);
            let at = self.ctx.random.below(SLICE_US.1);
            self.ctx.after(at, Happening::Slice { host: host.index });
        }
        faults::schedule(&mut self.ctx, self.hosts.len(), self.heal_us, self.options.faults);
        self.ctx.after(400_000, Happening::Operate);
        self.ctx.after(self.heal_us, Happening::Heal);
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Outcome {
        while !self.over && self.violations.is_empty() && self.step() {}
        let ctx = self.ctx;
        Outcome {
            seed: self.seed,
            steps: ctx.steps,
            virtual_ms: ctx.now / 1_000,
            violations: self.violations,
            counts: ctx.counts,
            transcript_hash: format!("{:016x}", ctx.hash),
            transcript: ctx.kept.unwrap_or_default(),
        }
    }

    fn step(&mut self) -> bool {
        let Some(((at, _), happening)) = self.ctx.queue.pop_first() else { return false };
        self.ctx.now = at;
        self.ctx.steps += 1;
        self.happen(happening);
        let truth = std::mem::take(&mut self.ctx.truth);
        for one in &truth {
            if let Err((invariant, detail)) = self.checkers.see(one, &self.hosts, &mut self.ctx) {
                self.violated(invariant, detail);
            }
        }
        true
    }

    /// The first breach ends the run; what follows from it says nothing new.
    fn violated(&mut self, invariant: &'static str, detail: String) {
        if !self.violations.is_empty() {
            return;
        }
        self.ctx.note(format_args!("VIOLATION of {invariant}: {detail}"));
        self.violations.push(Violation {
            seed: self.seed,
            invariant: invariant.to_owned(),
            step: self.ctx.steps,
            at_ms: self.ctx.now / 1_000,
            detail,
            last: self.ctx.lines.iter().cloned().collect(),
        });
    }

    fn happen(&mut self, happening: Happening) {
        let ctx = &mut self.ctx;
        match happening {
            Happening::Slice { host } => {
                let host = &mut self.hosts[host];
                slice(host, ctx);
                let next = ctx.random.between(SLICE_US.0, SLICE_US.1);
                ctx.after(next, Happening::Slice { host: host.index });
                if let Err((invariant, detail)) = self.checkers.scan(host, ctx) {
                    self.violated(invariant, detail);
                }
            }
            Happening::Deliver { from, to, message } => deliver(&mut self.hosts[to], ctx, from, message),
            Happening::Call { host, boots, call } => {
                let host = &mut self.hosts[host];
                if host.boots != boots || !host.on || !host.guard_alive {
                    return;
                }
                if host.guard_frozen {
                    // It waits in the socket until the guard is thawed.
                    let later = Happening::Call { host: host.index, boots, call };
                    ctx.after(25_000, later);
                    return;
                }
                guard::call(host, ctx, call);
            }
            Happening::Spawn { host, boots, slot, serial } => {
                let host = &mut self.hosts[host];
                if host.boots != boots || !host.on {
                    return;
                }
                if host.guard_frozen {
                    ctx.after(25_000, Happening::Spawn { host: host.index, boots, slot, serial });
                    return;
                }
                guard::spawn(host, ctx, &slot, serial);
            }
            Happening::End { host, serial, kind } => guard::end(&mut self.hosts[host], ctx, serial, kind),
            Happening::Fence { by, session, target, operation, attempt, quorate } => {
                self.fence(by, session, target, operation, attempt, quorate);
            }
            Happening::FenceRead { by, session, target, operation, attempt } => {
                self.read_fence(by, session, target, operation, attempt);
            }
            Happening::PowerOn { host } => self.hosts[host].power_on(ctx),
            Happening::StartNode { host } => self.hosts[host].start_node(ctx),
            Happening::StartGuard { host } => {
                let host = &mut self.hosts[host];
                host.guard_alive |= host.on;
                if ctx.plant(Plant::ForgetRegistry) {
                    host.run.registry.clear();
                }
            }
            Happening::ThawNode { host } => thaw(&mut self.hosts[host], ctx),
            Happening::ThawGuard { host } => self.hosts[host].guard_frozen = false,
            Happening::Fault(fault) => {
                if ctx.faulty() {
                    faults::strike(&mut self.hosts, ctx, fault);
                }
            }
            Happening::Operate => self.operator.act(&self.hosts, ctx),
            Happening::AskAgain { ask } => self.operator.ask(ask, &mut self.hosts, ctx),
            Happening::Answered { ask, answer } => {
                if let Some(answered) = self.operator.answered(ask, answer, ctx) {
                    ctx.truth.push(answered);
                }
            }
            Happening::Heal => self.heal(),
            Happening::TidyUp => self.operator.tidy_up(ctx),
            Happening::Inspect => self.inspect(),
        }
    }

    fn fence(
        &mut self,
        by: usize,
        session: u64,
        target: usize,
        operation: OperationId,
        attempt: u32,
        quorate: bool,
    ) {
        let ctx = &mut self.ctx;
        let device = ctx.fence_device(target);
        let lies = ctx.plant(Plant::FenceByWord);
        // The deed is done by a program of that host: it dies with it.
        if !self.hosts[by].on {
            return;
        }
        let outcome = if !quorate {
            Some(FenceOutcome::Withheld { why: "no quorum round".to_owned() })
        } else if device.fails && ctx.faulty() {
            ctx.count(Count::FencesFailed);
            Some(FenceOutcome::Failed { output: "the device does not answer".to_owned() })
        } else if lies {
            Some(FenceOutcome::ProvenOff { output: "off".to_owned() })
        } else {
            None
        };
        if let Some(outcome) = outcome {
            if let Some(node) = self.hosts[by].node.as_mut().filter(|node| node.session == session) {
                node.fenced(operation, attempt, outcome);
            }
            return;
        }
        ctx.count(Count::Fences);
        self.hosts[target].power_off(ctx);
        let back = ctx.random.between(2_500, 9_000) * 1_000;
        ctx.after(back, Happening::PowerOn { host: target });
        let read = ctx.random.between(100, 800) * 1_000;
        ctx.after(read, Happening::FenceRead { by, session, target, operation, attempt });
    }

    /// The power state is read back: off only if it is.
    fn read_fence(&mut self, by: usize, session: u64, target: usize, operation: OperationId, attempt: u32) {
        let off = !self.hosts[target].on;
        let outcome = if off {
            FenceOutcome::ProvenOff { output: "off".to_owned() }
        } else {
            FenceOutcome::Failed { output: "on".to_owned() }
        };
        if let Some(node) = self.hosts[by].node.as_mut().filter(|node| node.session == session) {
            node.fenced(operation, attempt, outcome);
        }
    }

    /// Everything that was broken is repaired; from now on only time may pass.
    fn heal(&mut self) {
        let ctx = &mut self.ctx;
        ctx.note(format_args!("everything is healed"));
        ctx.healed = true;
        ctx.network.heal();
        for host in &mut self.hosts {
            host.guard_frozen = false;
            host.guard_alive |= host.on;
            thaw(host, ctx);
            if !host.on {
                host.power_on(ctx);
            }
            host.start_node(ctx);
        }
        self.operator.give_up();
        ctx.after(2_000_000, Happening::TidyUp);
        ctx.after(3_000_000, Happening::Inspect);
    }

    /// Is everything as it should be by now?
    fn inspect(&mut self) {
        let verdict = self.operator.settled().and_then(|()| self.checkers.all_well(&self.hosts, &self.ctx));
        match verdict {
            Ok(()) => {
                let last = self.checkers.at_the_end(&self.hosts, self.operator.asks());
                if let Err((invariant, detail)) = last {
                    self.violated(invariant, detail);
                }
                self.over = true;
            }
            Err(why) if self.ctx.now >= self.end_us => {
                self.violated("after_the_heal_all_placeable_work_runs", why);
                self.over = true;
            }
            Err(_) => self.ctx.after(500_000, Happening::Inspect),
        }
    }
}

fn slice(host: &mut Host, ctx: &mut Ctx) {
    guard::tick(host, ctx);
    if host.node_frozen {
        return;
    }
    if let Some(mut node) = host.node.take() {
        node.tick(host, ctx);
        host.node = Some(node);
    }
}

fn deliver(host: &mut Host, ctx: &mut Ctx, from: usize, message: Message) {
    if host.node_frozen {
        host.held.push((from, message));
        return;
    }
    if let Some(mut node) = host.node.take() {
        if let Message::Answer { session, answer } = &message
            && *session == node.session
        {
            ctx.truth.push(Truth::AnswerCame { host: host.index, session: *session, answer: *answer });
        }
        node.receive(host, ctx, from, message);
        host.node = Some(node);
    }
}

/// A thawed process finds what came meanwhile, all at once.
fn thaw(host: &mut Host, ctx: &mut Ctx) {
    if !host.node_frozen {
        return;
    }
    host.node_frozen = false;
    ctx.note(format_args!("{} node process goes on", host.name));
    for (from, message) in std::mem::take(&mut host.held) {
        let delay = ctx.random.below(5_000);
        ctx.after(delay, Happening::Deliver { from, to: host.index, message });
    }
}

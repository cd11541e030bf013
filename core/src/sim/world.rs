//! The world: all hosts and what happens to them, in the order of true time. Moves everything and judges
//! nothing; what truly happened goes to the checkers as it happens.

use std::collections::{BTreeMap, VecDeque};

use super::ctx::{Ctx, Happening, Message};
use super::faults;
use super::guard;
use super::host::Host;
use super::invariants::{Checkers, Truth};
use super::network::Network;
use super::operator::Operator;
use super::random::Random;
use super::scene;
use super::{Count, Options, Outcome, Plant, Violation};
use crate::ids::OperationId;
use crate::observation::FenceOutcome;

/// True microseconds between two slices of a host's life, at least and at most.
const SLICE_US: (u64, u64) = (12_000, 28_000);

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
            lines: VecDeque::new(),
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

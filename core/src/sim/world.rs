//! The world: all hosts and what happens to them, in the order of true time. Moves everything and judges
//! nothing; what truly happened goes to the checkers as it happens.

use std::collections::{BTreeMap, VecDeque};

use super::ctx::{Ctx, Fencing, Happening, History, Message};
use super::faults;
use super::guard;
use super::host::{Holder, Host};
use super::invariants::{Checkers, Truth};
use super::look;
use super::network::Network;
use super::operator::Operator;
use super::random::Random;
use super::scenario::said;
use super::scene::{self, DeviceFault};
use super::script::{Deed, Step};
use super::story;
use super::strike::strike;
use super::switches::Plant;
use super::{Count, Options, Outcome, Violation, disaster, join, scenario};
use crate::ids::Revision;
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
    unmet: Vec<String>,
    /// What is done in it, drawn or written.
    steps: Vec<Step>,
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
        let routes = scene.hosts.iter().filter_map(|host| Some((host.disk.raft_id?, host.index))).collect();
        let calm = options.script.is_some() || !options.chance;
        let ctx = Ctx {
            now: 0,
            random,
            steps: 0,
            counts: BTreeMap::new(),
            network: Network::new(scene.hosts.len(), calm),
            healed: false,
            queue: BTreeMap::new(),
            sequence: 0,
            serials: 0,
            names,
            routes,
            behaviours: scene.behaviours,
            devices: scene.devices,
            newest: Revision(0),
            history: History::FIRST,
            histories: vec![History::FIRST; scene.hosts.len()],
            truth: Vec::new(),
            broken: options.broken.clone(),
            calm,
            lines: VecDeque::new(),
            kept: options.keep_transcript.then(Vec::new),
            story: options.story.then(Vec::new),
            shown: options.shown || !options.expect.is_empty(),
            hash: 0,
        };
        let heal_us = options.faults_ms * 1_000;
        let mut world = Self {
            checkers: Checkers::new(&scene.hosts, options.broken.judged_by()),
            operator: Operator::new(scene.services, options.script.is_none() && options.operators),
            hosts: scene.hosts,
            ctx,
            seed,
            options: options.clone(),
            violations: Vec::new(),
            unmet: Vec::new(),
            steps: Vec::new(),
            over: false,
            heal_us,
            end_us: heal_us + options.heal_ms * 1_000,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        story::opening(&mut self.ctx, &self.hosts, self.operator.services());
        for host in &mut self.hosts {
            host.start_node(&mut self.ctx);
            let at = self.ctx.random.below(SLICE_US.1);
            self.ctx.after(at, Happening::Slice { host: host.index });
        }
        let steps = match (&self.options.script, &self.options.instead) {
            (Some(script), _) => script.steps.clone(),
            (None, instead) => {
                // Drawn even where others come in their place: what chance does afterwards stays the same.
                let (hosts, until_us) = (self.hosts.len(), self.heal_us);
                let mut drawn = faults::draw_all(&mut self.ctx.random, hosts, until_us, self.options.faults);
                if self.options.disasters {
                    drawn.extend(faults::draw_disasters(self.seed, hosts, until_us));
                }
                instead.as_ref().map_or(drawn, |steps| steps.to_vec())
            }
        };
        for step in &steps {
            self.ctx.after(step.at_us, Happening::Step(step.deed.clone()));
        }
        self.steps = steps;
        if self.ctx.shown {
            self.ctx.after(look::PROBE_US, Happening::Probe);
        }
        let mut moments: Vec<u64> = self.options.expect.iter().map(|expected| expected.at_us).collect();
        moments.dedup();
        for at_us in moments {
            self.ctx.after(at_us, Happening::Expect);
        }
        self.ctx.after(400_000, Happening::Operate);
        self.ctx.after(join::EVERY_US, Happening::LookAfter);
        self.ctx.after(self.heal_us, Happening::Heal);
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Outcome {
        while self.goes_on() && self.step() {}
        self.outcome()
    }

    /// What is done in it, drawn or written.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Has it not come to its end?
    pub(super) fn goes_on(&self) -> bool {
        !self.over && self.violations.is_empty()
    }

    /// True time of what happens next, in microseconds.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.ctx.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// What it came to.
    pub(super) fn outcome(self) -> Outcome {
        let ctx = self.ctx;
        Outcome {
            seed: self.seed,
            steps: ctx.steps,
            virtual_ms: ctx.now / 1_000,
            violations: self.violations,
            counts: ctx.counts,
            transcript_hash: format!("{:016x}", ctx.hash),
            transcript: ctx.kept.unwrap_or_default(),
            story: ctx.story.unwrap_or_default(),
            unmet: self.unmet,
        }
    }

    pub(super) fn step(&mut self) -> bool {
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
        self.ctx.tell("VIOLATED", format_args!("{}: {detail}", invariant.replace('_', " ")));
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
                if host.paused.is_none() {
                    slice(host, ctx);
                }
                let next = ctx.random.between(SLICE_US.0, SLICE_US.1);
                ctx.after(next, Happening::Slice { host: host.index });
                if let Err((invariant, detail)) = self.checkers.scan(host, ctx) {
                    self.violated(invariant, detail);
                }
            }
            Happening::Deliver { from, history, to, message } => {
                deliver(&mut self.hosts[to], ctx, (from, history), message);
            }
            Happening::Call { host, boots, call } => {
                let host = &mut self.hosts[host];
                if host.boots != boots || !host.on || !host.guard.alive {
                    return;
                }
                if host.guard.frozen || host.paused.is_some() {
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
                if host.paused.is_some() {
                    ctx.after(25_000, Happening::Spawn { host: host.index, boots, slot, serial });
                    return;
                }
                guard::spawn(host, ctx, &slot, serial);
            }
            Happening::End { host, serial, kind } => guard::end(&mut self.hosts[host], ctx, serial, kind),
            Happening::Fence(deed) => self.fence(deed),
            Happening::FencePower(deed) => self.fence_power(deed),
            Happening::FenceRead(deed) => self.read_fence(deed),
            Happening::PowerOn { host } => self.hosts[host].power_on(ctx),
            Happening::StartNode { host } => self.hosts[host].start_node(ctx),
            Happening::StartGuard { host } => {
                let host = &mut self.hosts[host];
                host.guard.alive |= host.on;
                if ctx.has(Plant::ForgetRegistry) {
                    host.run.registry.clear();
                }
            }
            Happening::StartTwin { host } => {
                let on = self.hosts[host].on;
                if let Some(twin) = &mut self.hosts[host].twin {
                    twin.alive |= on;
                }
            }
            Happening::ThawNode { host } => self.hosts[host].thaw_node(ctx),
            Happening::ThawGuard { host } => self.hosts[host].guard.frozen = false,
            Happening::ThawTwin { host } => {
                if let Some(twin) = &mut self.hosts[host].twin {
                    twin.frozen = false;
                }
            }
            Happening::Resume { host } => resume(&mut self.hosts[host], ctx),
            Happening::LookAfter => join::look_after(&mut self.hosts, ctx),
            Happening::Admitted { host, disk, answer } => {
                join::admitted(&mut self.hosts[host], ctx, disk, &answer);
            }
            Happening::Step(Deed::Fault(fault)) => {
                if !ctx.healed {
                    ctx.tell("fault", format_args!("{}", said(&fault).1));
                    strike(&mut self.hosts, ctx, fault);
                }
            }
            Happening::Force { survivors, ms, crash } => {
                if !ctx.healed {
                    disaster::force_quorum(&mut self.hosts, ctx, &survivors, ms, crash);
                }
            }
            Happening::Probe => look::probe(&mut self.hosts, ctx),
            Happening::Expect => {
                story::runs(ctx, &self.hosts);
                let unmet = scenario::judge(&self.options.expect, &self.hosts, ctx);
                self.unmet.extend(unmet);
            }
            Happening::Step(Deed::Ask(command)) => self.operator.begin(ctx, *command, None),
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

    /// A program on a host goes about fencing another: it dies and stands still with its host.
    fn fence(&mut self, deed: Fencing) {
        let ctx = &mut self.ctx;
        let by = &self.hosts[deed.by];
        if !by.on {
            return;
        }
        if by.paused.is_some() {
            ctx.after(25_000, Happening::Fence(deed));
            return;
        }
        let device = ctx.fence_device(deed.target);
        if !deed.quorate {
            return self.fenced(deed, FenceOutcome::Withheld { why: "no quorum round".to_owned() });
        }
        if let Some(why) = by.node.as_ref().and_then(|node| node.last_look(by, ctx, &deed)) {
            return self.fenced(deed, FenceOutcome::Withheld { why });
        }
        if ctx.has(Plant::FenceByWord) {
            return self.fenced(deed, FenceOutcome::ProvenOff { output: "off".to_owned() });
        }
        if ctx.healed {
            return self.fence_power(deed);
        }
        match device.fault {
            DeviceFault::None => self.fence_power(deed),
            DeviceFault::Fails => {
                ctx.count(Count::FencesFailed);
                self.fenced(deed, FenceOutcome::Failed { output: "the device does not answer".to_owned() });
            }
            DeviceFault::Lies => {
                // It says that it did, and did nothing: the read-back finds it out.
                ctx.count(Count::FencesLied);
                let read = ctx.random.between(100, 800) * 1_000;
                ctx.after(read, Happening::FenceRead(deed));
            }
            DeviceFault::TimesOut => {
                // Given up by those who asked; some devices do the deed all the same, later.
                ctx.count(Count::FencesFailed);
                if ctx.random.percent(50) {
                    let late = ctx.random.between(500, 6_000) * 1_000;
                    ctx.after(late, Happening::FencePower(Fencing { session: 0, ..deed }));
                }
                self.fenced(deed, FenceOutcome::Failed { output: "no answer in time".to_owned() });
            }
        }
    }

    /// The target loses power, and boots again some time later.
    fn fence_power(&mut self, deed: Fencing) {
        let ctx = &mut self.ctx;
        ctx.count(Count::Fences);
        self.hosts[deed.target].power_off(ctx);
        let back = ctx.random.between(2_500, 9_000) * 1_000;
        ctx.after(back, Happening::PowerOn { host: deed.target });
        let read = ctx.random.between(100, 800) * 1_000;
        ctx.after(read, Happening::FenceRead(deed));
    }

    /// The power state is read back: off only if it is.
    fn read_fence(&mut self, deed: Fencing) {
        if self.hosts[deed.by].paused.is_some() {
            self.ctx.after(25_000, Happening::FenceRead(deed));
            return;
        }
        let off = !self.hosts[deed.target].on;
        let outcome = if off {
            FenceOutcome::ProvenOff { output: "off".to_owned() }
        } else {
            FenceOutcome::Failed { output: "on".to_owned() }
        };
        self.fenced(deed, outcome);
    }

    fn fenced(&mut self, deed: Fencing, outcome: FenceOutcome) {
        let node = self.hosts[deed.by].node.as_mut();
        if let Some(node) = node.filter(|node| node.session == deed.session) {
            story::fenced(&mut self.ctx, deed.by, deed.target, &outcome);
            node.fenced(deed.operation, deed.attempt, outcome);
        }
    }

    /// Everything that was broken is repaired; from now on only time may pass.
    fn heal(&mut self) {
        let ctx = &mut self.ctx;
        ctx.note(format_args!("everything is healed"));
        ctx.tell("healed", format_args!("every fault is over"));
        ctx.healed = true;
        ctx.network.heal();
        for host in &mut self.hosts {
            resume(host, ctx);
            host.guard = Holder { alive: host.on, frozen: false };
            host.twin = host.twin.map(|_| host.guard);
            host.thaw_node(ctx);
            host.disk.full_until = 0;
            (host.engine_fails_until, host.engine_hangs_until) = (0, 0);
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
                self.ctx.tell("whole", format_args!("all wanted work runs and every operation has ended"));
                story::runs(&mut self.ctx, &self.hosts);
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
    host.disk.log.full = host.disk.full(ctx.now);
    if let Some(mut node) = host.node.take() {
        node.tick(host, ctx);
        host.node = Some(node);
    }
    if host.disk.log.failed {
        // A node that cannot write ends, and is started again and again.
        ctx.count(Count::WritesRefused);
        host.end_node(ctx);
        ctx.after(500_000, Happening::StartNode { host: host.index });
    }
}

/// A host goes on; whoever holds the deadlines looks at the clock before anything else happens.
fn resume(host: &mut Host, ctx: &mut Ctx) {
    if host.paused.is_some() {
        host.resume(ctx);
        guard::tick(host, ctx);
    }
}

fn deliver(host: &mut Host, ctx: &mut Ctx, (from, history): (usize, History), message: Message) {
    if host.node_frozen || host.paused.is_some() {
        host.held.push((from, history, message));
        return;
    }
    if !disaster::takes(host, ctx, (from, history), &message) {
        return;
    }
    if let Some(mut node) = host.node.take() {
        if let Message::Answer { session, answer, .. } = &message
            && *session == node.session
        {
            ctx.truth.push(Truth::AnswerCame { host: host.index, session: *session, answer: *answer });
        }
        node.receive(host, ctx, from, message);
        host.node = Some(node);
    }
}

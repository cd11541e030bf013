//! One simulated host: its drifting clocks, its disk, what its guard keeps for this boot, the processes that
//! truly run, the two holders of deadlines, and a node process that may be gone or frozen. Power, boots and
//! pauses; nothing of what a node decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Count;
use super::ctx::{Ctx, Happening, History, Message};
use super::disk::Disk;
use super::log::LogDisk;
use super::node::Node;
use super::switches::Rule;
use crate::command::NodeFacts;
use crate::effect::Isolation;
use crate::ids::{BootId, MachineId, NodeId, RaftId, SlotId, Token};
use crate::observation::{ExitKind, ExitReason, InstancePhase};
use crate::spec::ServiceSpec;
use crate::units::{BootMs, Millis, WallMs};

/// A process that truly exists on a host, whatever anybody believes.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) serial: u64,
    pub(super) slot: SlotId,
    pub(super) token: Token,
    pub(super) restart: u32,
    pub(super) isolation: Isolation,
    pub(super) spec: Arc<ServiceSpec>,
    /// True time of its beginning, in microseconds.
    pub(super) from_us: u64,
    /// True time from which its health check answers.
    pub(super) ready_us: u64,
    /// What its state folder held when it began.
    pub(super) found: u64,
    pub(super) ignores_stop: bool,
}

/// What the guard keeps of one slot for this boot.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    pub(super) token: Token,
    pub(super) restart: u32,
    pub(super) isolation: Isolation,
    pub(super) phase: InstancePhase,
    pub(super) serial: u64,
    /// When it began or, once ended, when it ended.
    pub(super) since: BootMs,
    pub(super) ran: Millis,
    pub(super) spec: Arc<ServiceSpec>,
    /// What of it runs, as it is reported.
    pub(super) digest: u64,
    /// It ran under this token already.
    pub(super) has_run: bool,
    /// Killed then, and why.
    pub(super) kill_at: Option<(BootMs, ExitKind)>,
    /// It was asked or killed for this reason.
    pub(super) doomed: Option<ExitKind>,
    pub(super) killed: bool,
    pub(super) last_exit: Option<ExitReason>,
}

/// What both holders keep, and what dies with the boot.
#[derive(Debug, Default)]
pub(super) struct RunFolder {
    pub(super) registry: BTreeMap<SlotId, Registered>,
    pub(super) valid_until: Option<BootMs>,
    /// The number of the terms by which that lease was given.
    pub(super) terms: u64,
    /// Node session and number of the newest renewal.
    pub(super) renewal: (u64, u64),
    /// The lease whose end was told of.
    pub(super) told: Option<BootMs>,
}

/// One of the processes that hold the deadlines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub(super) alive: bool,
    pub(super) frozen: bool,
}

impl Holder {
    pub(super) const FRESH: Self = Self { alive: true, frozen: false };

    pub(super) fn acts(self) -> bool {
        self.alive && !self.frozen
    }
}

/// Everything of a host stands still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    since_us: u64,
    /// Its clock goes on meanwhile, as in a suspend; else it stops, as of a paused guest.
    counts: bool,
}

/// No lease of these worlds is longer, with the longest grace and what a kill takes.
const LONGEST_LEASE: Millis = Millis(6_000);

/// A host.
pub(super) struct Host {
    pub(super) index: usize,
    pub(super) name: NodeId,
    /// How fast its clock runs beyond true time, in parts per million.
    pub(super) drift_ppm: i64,
    /// How far its wall clock is off, in milliseconds.
    pub(super) wall_off_ms: i64,
    pub(super) boots: u64,
    booted_us: u64,
    /// Time of this boot that its clock did not count.
    uncounted_us: u64,
    pub(super) paused: Option<Pause>,
    /// Until then, by its own clock, a lease may hold that stood still with it.
    still_until: BootMs,
    /// Since when, in true microseconds, somebody held its deadlines without a break.
    pub(super) held_since_us: Option<u64>,
    pub(super) on: bool,
    pub(super) disk: Disk,
    /// How many disks it has had.
    disks: u64,
    pub(super) run: RunFolder,
    pub(super) processes: Vec<Process>,
    pub(super) guard: Holder,
    /// The second holder, where there is one.
    pub(super) twin: Option<Holder>,
    pub(super) node: Option<Box<Node>>,
    pub(super) node_frozen: bool,
    /// What came for the node while it was frozen or its host paused.
    pub(super) held: Vec<(usize, History, Message)>,
    /// Until this true time, in microseconds, nobody sees that its data are of a history that is over.
    pub(super) former_until: u64,
    /// What its engine does not do before this true time, in microseconds.
    pub(super) engine_hangs_until: u64,
    /// It fails every start until then.
    pub(super) engine_fails_until: u64,
    /// What it says of itself.
    pub(super) facts: NodeFacts,
    pub(super) witness: bool,
    pub(super) weight: u32,
}

impl Host {
    pub(super) fn new(index: usize, drift_ppm: i64, disk: Disk, facts: NodeFacts) -> Self {
        Self {
            index,
            name: facts.node.clone(),
            drift_ppm,
            wall_off_ms: 0,
            boots: 1,
            booted_us: 0,
            uncounted_us: 0,
            paused: None,
            still_until: BootMs(0),
            held_since_us: None,
            on: true,
            disk,
            disks: 1,
            run: RunFolder::default(),
            processes: Vec::new(),
            guard: Holder::FRESH,
            twin: facts.armed.then_some(Holder::FRESH),
            node: None,
            node_frozen: false,
            held: Vec::new(),
            former_until: 0,
            engine_hangs_until: 0,
            engine_fails_until: 0,
            facts,
            witness: false,
            weight: 1,
        }
    }

    pub(super) fn boot_id(&self) -> BootId {
        boot_id(self.index, self.boots)
    }

    pub(super) fn machine(&self) -> MachineId {
        machine_id(self.index)
    }

    /// This host's own clock at a true time.
    pub(super) fn clock(&self, now_us: u64) -> BootMs {
        let standing = match self.paused {
            Some(Pause { since_us, counts: false }) => now_us.saturating_sub(since_us),
            _ => 0,
        };
        let since = i128::from(now_us.saturating_sub(self.booted_us + self.uncounted_us + standing));
        let own = since * i128::from(1_000_000 + self.drift_ppm) / 1_000_000_000;
        BootMs(5_000 + u64::try_from(own).unwrap_or(0))
    }

    /// What people there believe the time to be.
    pub(super) fn wall(&self, now_us: u64) -> WallMs {
        WallMs((3_600_000 + now_us / 1_000).saturating_add_signed(self.wall_off_ms))
    }

    /// May it hold a lease that stood still with its clock?
    pub(super) fn stood_still(&self, now_us: u64) -> bool {
        self.clock(now_us) < self.still_until
    }

    /// Does it do anything at all?
    pub(super) fn lives(&self) -> bool {
        self.on && self.paused.is_none()
    }

    /// Can its guard act now?
    pub(super) fn guard_acts(&self) -> bool {
        self.lives() && self.guard.acts()
    }

    /// Do both holders answer?
    pub(super) fn armed(&self) -> bool {
        self.guard_acts() && self.twin.is_some_and(Holder::acts)
    }

    /// Is there anybody who could hold the deadlines now?
    pub(super) fn holders_act(&self) -> bool {
        self.lives() && (self.guard.acts() || self.twin.is_some_and(Holder::acts))
    }

    /// Does anybody hold the deadlines now?
    pub(super) fn deadlines_held(&self, ctx: &Ctx) -> bool {
        let twin = self.twin.is_some_and(Holder::acts) && !ctx.lacks(Rule::SecondHolder);
        self.lives() && (twin || self.guard.acts())
    }

    pub(super) fn process(&self, serial: u64) -> Option<&Process> {
        self.processes.iter().find(|process| process.serial == serial)
    }

    /// Are these its own data, and do they stand for that member?
    pub(super) fn holds(&self, member: RaftId) -> bool {
        self.disk.machine == self.machine() && self.disk.raft_id == Some(member)
    }

    /// Does its engine hang?
    pub(super) fn engine_hangs(&self, now_us: u64) -> bool {
        now_us < self.engine_hangs_until
    }

    /// Everything stops at once.
    pub(super) fn power_off(&mut self, ctx: &mut Ctx) {
        if !self.on {
            return;
        }
        ctx.say(&self.name, format_args!("loses power"));
        self.on = false;
        self.paused = None;
        for process in std::mem::take(&mut self.processes) {
            self.disk.keep_state(&process, ctx.now);
            ctx.gone(self.index, process, None);
        }
        self.run = RunFolder::default();
        self.end_node(ctx);
        self.guard = Holder { alive: false, frozen: false };
        self.twin = self.twin.map(|_| Holder { alive: false, frozen: false });
        (self.engine_fails_until, self.engine_hangs_until) = (0, 0);
    }

    /// A new boot, with nothing running.
    pub(super) fn power_on(&mut self, ctx: &mut Ctx) {
        if self.on {
            return;
        }
        self.on = true;
        self.boots += 1;
        self.booted_us = ctx.now;
        self.uncounted_us = 0;
        self.still_until = BootMs(0);
        self.guard = Holder::FRESH;
        self.twin = self.twin.map(|_| Holder::FRESH);
        ctx.say(&self.name, format_args!("boots as {}", self.boot_id()));
        self.start_node(ctx);
    }

    /// An empty disk takes the place of the one it had.
    pub(super) fn take_empty_disk(&mut self, ctx: &mut Ctx) {
        ctx.note(format_args!("{} has an empty disk", self.name));
        self.end_node(ctx);
        self.disks += 1;
        self.disk = Disk::new(self.index, self.disks, None, LogDisk::default());
        // The registry lies elsewhere: a token that was accepted for what runs still counts.
        let running = self.run.registry.iter().filter(|(_, known)| known.phase.may_run());
        self.disk.highest = running.map(|(slot, known)| (slot.clone(), known.token)).collect();
        self.belong(ctx, History::NONE);
    }

    /// Its disk is of that history from now on.
    pub(super) fn belong(&mut self, ctx: &mut Ctx, history: History) {
        ctx.histories[self.index] = history;
    }

    /// Its people take identity and log from its disk, so that it joins anew; what runs there goes on.
    pub(super) fn lose_identity(&mut self, ctx: &mut Ctx) {
        if self.disk.machine != self.machine() {
            return self.take_empty_disk(ctx);
        }
        ctx.note(format_args!("{} is to join anew", self.name));
        self.end_node(ctx);
        self.disks += 1;
        self.disk = self.disk.without_identity(self.index, self.disks);
        self.belong(ctx, History::NONE);
    }

    /// Everything on it stands still.
    pub(super) fn pause(&mut self, ctx: &mut Ctx, counts: bool) {
        if self.lives() {
            ctx.say(&self.name, format_args!("stands still"));
            self.paused = Some(Pause { since_us: ctx.now, counts });
        }
    }

    /// It goes on where it stood.
    pub(super) fn resume(&mut self, ctx: &mut Ctx) {
        let Some(pause) = self.paused.take() else { return };
        if !pause.counts {
            self.uncounted_us += ctx.now.saturating_sub(pause.since_us);
            self.still_until = self.clock(ctx.now) + LONGEST_LEASE;
        }
        self.held_since_us = None;
        ctx.say(&self.name, format_args!("goes on"));
        self.take_in_held(ctx);
    }

    /// The node process dies; unsynced log is lost.
    pub(super) fn end_node(&mut self, ctx: &mut Ctx) {
        if self.node.take().is_some() {
            ctx.say(&self.name, format_args!("node process ends"));
        }
        let before = self.disk.log.last();
        self.disk.log.crash();
        if self.disk.log.last() < before {
            ctx.count(Count::LogTailsLost);
        }
        self.node_frozen = false;
        self.held.clear();
    }

    /// Starts the node process, unless its data are of another machine or not of any cluster yet.
    pub(super) fn start_node(&mut self, ctx: &mut Ctx) {
        if !self.lives() || self.node.is_some() {
            return;
        }
        if self.disk.machine != self.machine() {
            ctx.count(Count::CopiesRefused);
            ctx.say(&self.name, format_args!("refuses the data of {}", self.disk.machine));
            return;
        }
        let Some(node) = Node::start(self, ctx) else { return };
        ctx.say(&self.name, format_args!("node process starts at revision {}", node.state.revision));
        self.node = Some(Box::new(node));
    }

    /// A thawed process finds what came meanwhile, all at once.
    pub(super) fn thaw_node(&mut self, ctx: &mut Ctx) {
        if !self.node_frozen {
            return;
        }
        self.node_frozen = false;
        ctx.say(&self.name, format_args!("node process goes on"));
        self.take_in_held(ctx);
    }

    fn take_in_held(&mut self, ctx: &mut Ctx) {
        for (from, history, message) in std::mem::take(&mut self.held) {
            let delay = ctx.random.below(5_000);
            ctx.after(delay, Happening::Deliver { from, history, to: self.index, message });
        }
    }
}

pub(super) fn boot_id(host: usize, boots: u64) -> BootId {
    BootId(format!("boot-{host}-{boots}"))
}

pub(super) fn machine_id(host: usize) -> MachineId {
    MachineId(format!("machine-{host}"))
}

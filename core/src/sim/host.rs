//! One simulated host: its drifting clock, its disk, what its guard keeps for this boot, the processes that
//! truly run, and a node process that may be gone or frozen. Power and boots; nothing of what a node decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ctx::{Ctx, Message};
use super::log::LogDisk;
use super::node::Node;
use crate::command::NodeFacts;
use crate::effect::Isolation;
use crate::ids::{BootId, LeaseEpoch, NodeId, OperationId, RaftId, SlotId, Token};
use crate::observation::{ExitKind, ExitReason, InstancePhase};
use crate::spec::ServiceSpec;
use crate::state::State;
use crate::units::{BootMs, Millis};

/// What survives a reboot.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) raft_id: RaftId,
    pub(super) log: LogDisk,
    /// An applied State, not the newest: what a restarted node begins with.
    pub(super) snapshot: State,
    pub(super) lease_epoch: Option<LeaseEpoch>,
    /// The guard's highest token by slot.
    pub(super) highest: BTreeMap<SlotId, Token>,
    /// Slots whose folder was dropped: only their token is kept.
    pub(super) forgotten: BTreeSet<SlotId>,
    /// How much each slot's state folder has grown to.
    pub(super) folders: BTreeMap<SlotId, u64>,
    /// Copies fetched for an operation.
    pub(super) staging: BTreeMap<OperationId, u64>,
}

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
    /// Killed then, and why.
    pub(super) kill_at: Option<(BootMs, ExitKind)>,
    /// It was asked or killed for this reason.
    pub(super) doomed: Option<ExitKind>,
    pub(super) killed: bool,
    pub(super) last_exit: Option<ExitReason>,
}

/// The part of the guard that dies with the boot.
#[derive(Debug, Default)]
pub(super) struct RunFolder {
    pub(super) registry: BTreeMap<SlotId, Registered>,
    pub(super) valid_until: Option<BootMs>,
    /// Node session and number of the newest renewal.
    pub(super) renewal: (u64, u64),
}

/// A host.
pub(super) struct Host {
    pub(super) index: usize,
    pub(super) name: NodeId,
    /// How fast its clock runs beyond true time, in parts per million.
    pub(super) drift_ppm: i64,
    pub(super) boots: u64,
    booted_us: u64,
    pub(super) on: bool,
    pub(super) disk: Disk,
    pub(super) run: RunFolder,
    pub(super) processes: Vec<Process>,
    pub(super) guard_alive: bool,
    pub(super) guard_frozen: bool,
    /// A second holder enforces deadlines too.
    pub(super) armed: bool,
    pub(super) node: Option<Box<Node>>,
    pub(super) node_frozen: bool,
    /// What came for the node while it was frozen.
    pub(super) held: Vec<(usize, Message)>,
    /// What it says of itself.
    pub(super) facts: NodeFacts,
}

impl Host {
    pub(super) fn new(index: usize, drift_ppm: i64, disk: Disk, facts: NodeFacts) -> Self {
        Self {
            index,
            name: facts.node.clone(),
            drift_ppm,
            boots: 1,
            booted_us: 0,
            on: true,
            disk,
            run: RunFolder::default(),
            processes: Vec::new(),
            guard_alive: true,
            guard_frozen: false,
            armed: facts.armed,
            node: None,
            node_frozen: false,
            held: Vec::new(),
            facts,
        }
    }

    pub(super) fn boot_id(&self) -> BootId {
        boot_id(self.index, self.boots)
    }

    /// This host's own clock at a true time.
    pub(super) fn clock(&self, now_us: u64) -> BootMs {
        let since = i128::from(now_us.saturating_sub(self.booted_us));
        let own = since * i128::from(1_000_000 + self.drift_ppm) / 1_000_000_000;
        BootMs(5_000 + u64::try_from(own).unwrap_or(0))
    }

    /// Can its guard act now?
    pub(super) fn guard_acts(&self) -> bool {
        self.on && self.guard_alive && !self.guard_frozen
    }

    /// Does anybody hold the deadlines now?
    pub(super) fn deadlines_held(&self) -> bool {
        self.on && (self.armed || self.guard_acts())
    }

    pub(super) fn process(&self, serial: u64) -> Option<&Process> {
        self.processes.iter().find(|process| process.serial == serial)
    }

    /// Everything stops at once.
    pub(super) fn power_off(&mut self, ctx: &mut Ctx) {
        if !self.on {
            return;
        }
        ctx.note(format_args!("{} loses power", self.name));
        self.on = false;
        for process in std::mem::take(&mut self.processes) {
            keep_state(&mut self.disk, &process, ctx.now);
            ctx.gone(self.index, &process);
        }
        self.run = RunFolder::default();
        self.end_node(ctx);
        self.guard_alive = false;
        (self.node_frozen, self.guard_frozen) = (false, false);
    }

    /// A new boot, with nothing running.
    pub(super) fn power_on(&mut self, ctx: &mut Ctx) {
        if self.on {
            return;
        }
        self.on = true;
        self.boots += 1;
        self.booted_us = ctx.now;
        self.guard_alive = true;
        ctx.note(format_args!("{} boots as {}", self.name, self.boot_id()));
        self.start_node(ctx);
    }

    /// The node process dies; unsynced log is lost.
    pub(super) fn end_node(&mut self, ctx: &mut Ctx) {
        if self.node.take().is_some() {
            ctx.note(format_args!("{} node process ends", self.name));
        }
        self.disk.log.crash();
        self.node_frozen = false;
        self.held.clear();
    }

    pub(super) fn start_node(&mut self, ctx: &mut Ctx) {
        if self.on && self.node.is_none() {
            let node = Node::start(self, ctx);
            ctx.note(format_args!("{} node process starts at revision {}", self.name, node.state.revision));
            self.node = Some(Box::new(node));
        }
    }
}

pub(super) fn boot_id(host: usize, boots: u64) -> BootId {
    BootId(format!("boot-{host}-{boots}"))
}

/// What a process wrote until now is in its folder.
pub(super) fn keep_state(disk: &mut Disk, process: &Process, now_us: u64) {
    if process.spec.state_dir.is_some() {
        disk.folders.insert(process.slot.clone(), written(process, now_us));
    }
}

/// A running process adds one to its state every ten milliseconds.
pub(super) fn written(process: &Process, now_us: u64) -> u64 {
    process.found + 1 + now_us.saturating_sub(process.from_us) / 10_000
}

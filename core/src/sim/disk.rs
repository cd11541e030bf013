//! What survives a reboot on a simulated host: the log, an applied State, tokens, folders; and what becomes of
//! it when the disk is wiped. Knows no process but what it wrote.

use std::collections::{BTreeMap, BTreeSet};

use super::host::{Process, machine_id};
use super::log::LogDisk;
use crate::ids::{DiskId, Epoch, LeaseEpoch, MachineId, OperationId, RaftId, Revision, SlotId, Token};
use crate::state::State;

/// A data directory.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) id: DiskId,
    /// The machine it belongs to.
    pub(super) machine: MachineId,
    /// Which one it is, of those its machine had.
    pub(super) number: u64,
    /// Its number in Raft, once it was admitted.
    pub(super) raft_id: Option<RaftId>,
    /// Where that was committed.
    pub(super) admitted_at: Revision,
    /// The latest epoch that its node has agreed to.
    pub(super) agreed: Epoch,
    pub(super) log: LogDisk,
    /// An applied State, not the newest: what a restarted node begins with.
    pub(super) snapshot: State,
    /// The one before.
    pub(super) older: State,
    pub(super) lease_epoch: Option<LeaseEpoch>,
    /// The guard's highest token by slot.
    pub(super) highest: BTreeMap<SlotId, Token>,
    /// Slots whose folder was dropped: only their token is kept.
    pub(super) forgotten: BTreeSet<SlotId>,
    /// How much each slot's state folder has grown to.
    pub(super) folders: BTreeMap<SlotId, u64>,
    /// Copies fetched for an operation.
    pub(super) staging: BTreeMap<OperationId, u64>,
    /// Nothing can be written before this true time, in microseconds.
    pub(super) full_until: u64,
}

impl Disk {
    pub(super) fn new(host: usize, number: u64, raft_id: Option<RaftId>, log: LogDisk) -> Self {
        Self {
            id: DiskId(format!("disk-{host}-{number}")),
            machine: machine_id(host),
            number,
            raft_id,
            admitted_at: Revision(0),
            agreed: Epoch(1),
            log,
            snapshot: State::empty(),
            older: State::empty(),
            lease_epoch: None,
            highest: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            folders: BTreeMap::new(),
            staging: BTreeMap::new(),
            full_until: 0,
        }
    }

    /// What joins anew: nothing of the cluster's, and all that the guard and the services have here.
    pub(super) fn without_identity(&self, host: usize, number: u64) -> Self {
        let mut disk = Self::new(host, number, None, LogDisk::default());
        disk.highest.clone_from(&self.highest);
        disk.forgotten.clone_from(&self.forgotten);
        disk.folders.clone_from(&self.folders);
        disk.staging.clone_from(&self.staging);
        disk.full_until = self.full_until;
        disk
    }

    pub(super) fn full(&self, now_us: u64) -> bool {
        now_us < self.full_until
    }

    /// Keeps an applied State for restarts.
    pub(super) fn keep_snapshot(&mut self, state: &State) {
        self.older = std::mem::replace(&mut self.snapshot, state.clone());
    }

    /// A recovery left this State; nothing from before it is here any more.
    pub(super) fn begin_with(&mut self, state: &State) {
        (self.snapshot, self.older) = (state.clone(), state.clone());
    }

    /// What a process wrote until now is in its folder.
    pub(super) fn keep_state(&mut self, process: &Process, now_us: u64) {
        if process.spec.state_dir.is_some() {
            self.folders.insert(process.slot.clone(), written(process, now_us));
        }
    }
}

/// A running process adds one to its state every ten milliseconds.
pub(super) fn written(process: &Process, now_us: u64) -> u64 {
    process.found + 1 + now_us.saturating_sub(process.from_us) / 10_000
}

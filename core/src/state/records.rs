//! The records of State, one struct for each thing the cluster agrees on. Plain data; what may change
//! them is `apply`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::{NodeFacts, OperationStep, RecoveryCause};
use crate::evidence::{Evidence, NodeProof};
use crate::ids::{
    BootId, DiskId, Epoch, LeaseEpoch, MachineId, NodeId, OperationId, RaftId, Revision, ServiceName, SlotId,
    Token, Version,
};
use crate::lease::LeaseTerms;
use crate::spec::ServiceSpec;
use crate::units::{Millis, WallMs};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its number in Raft.
    pub raft_id: RaftId,
    /// Its host.
    pub machine: MachineId,
    /// Its data directory.
    pub disk: DiskId,
    /// The recovery that those data have been through or were begun after, by the epoch it began. What is of
    /// an earlier one may hold promises that the cluster knows nothing of, or lack some that it made.
    pub era: Epoch,
    /// The boot it was admitted or let back in.
    pub boot: BootId,
    /// Raised by each rejoin.
    pub lease_epoch: LeaseEpoch,
    /// Alive or lost.
    pub standing: NodeStanding,
    /// Are its claims known to be all that it may run?
    pub inventory: Inventory,
    /// Nothing new is placed there.
    pub cordoned: bool,
    /// To be forgotten once it holds nothing.
    pub leaving: bool,
    /// Votes, hosts nothing.
    pub witness: bool,
    /// The heaviest healthy voter leads.
    pub weight: u32,
    /// What it says of itself.
    pub facts: NodeFacts,
    /// The longest terms it may still hold a lease by: evidence from silence waits by these.
    pub held: LeaseTerms,
    /// When it was admitted, for people.
    pub admitted_at: WallMs,
    /// The revision that last changed this record.
    pub changed: Revision,
}

/// What the cluster has committed about a node's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeStanding {
    /// It may hold a lease.
    Alive,
    /// A committed verdict: not answered until it rejoins.
    Lost {
        /// The revision of the verdict.
        revision: Revision,
        /// For people.
        at: WallMs,
        /// The detector's reasons.
        because: Vec<String>,
        /// What proves that it cannot act, if something does.
        proof: Option<NodeProof>,
    },
}

/// Does the cluster know what runs on a node? A recovery forgets it for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inventory {
    /// Its claims are all there is, or something proves that it runs nothing.
    Settled,
    /// Since a recovery it has not told what runs there: it may be more, or less, than its claims.
    Unheard,
    /// Its claims were made anew from what it told; what they do not cover it stops before it is let in.
    Taken,
}

impl NodeRecord {
    /// Is it lost?
    pub fn lost(&self) -> bool {
        matches!(self.standing, NodeStanding::Lost { .. })
    }

    /// Do its claims tell what may run there?
    pub fn settled(&self) -> bool {
        self.inventory == Inventory::Settled
    }

    /// What its lease depends on.
    pub fn lease_standing(&self) -> crate::lease::Standing<'_> {
        crate::lease::Standing {
            alive: !self.lost() && self.settled(),
            boot: &self.boot,
            lease_epoch: self.lease_epoch,
            armed: self.facts.armed,
        }
    }

    /// What proves that it cannot act.
    pub fn proof(&self) -> Option<&NodeProof> {
        match &self.standing {
            NodeStanding::Alive => None,
            NodeStanding::Lost { proof, .. } => proof.as_ref(),
        }
    }
}

/// The last time that the cluster went on from less than it once had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryRecord {
    /// How.
    pub cause: RecoveryCause,
    /// The epoch that began with it.
    pub epoch: Epoch,
    /// The last revision that is surely there; whatever came after it may be gone, or be another.
    pub kept: Revision,
    /// The revision that began it.
    pub begun: Revision,
    /// When, for people.
    pub at: WallMs,
    /// Who did it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Has not every node been heard, or been proven to run nothing? Nothing exclusive is granted meanwhile.
    pub open: bool,
}

impl RecoveryRecord {
    /// What was done, in a few words.
    pub fn what(&self) -> String {
        self.cause.to_string()
    }
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// What is wanted.
    pub spec: Arc<ServiceSpec>,
    /// Raised by each deploy that changes what runs and by each restart; claims of older ones are replaced.
    pub version: Version,
    /// Settled at the first deploy.
    pub exclusive: bool,
    /// The revision since which it is exclusive; 0 while it is not. Claims made before may be several.
    pub exclusive_since: Revision,
    /// Kept with nothing running.
    pub stopped: bool,
    /// Forgotten once its claims ended.
    pub deleting: bool,
    /// Recent deployments, newest first, bounded; the running versions' specs are always kept.
    pub versions: Vec<VersionRecord>,
    /// The revision that last changed this record.
    pub changed: Revision,
}

/// One deployment of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Which.
    pub version: Version,
    /// What was wanted then.
    pub spec: Arc<ServiceSpec>,
    /// When, for people.
    pub at: WallMs,
    /// By whom.
    pub by: String,
    /// `deploy`, `restart`, `scale`.
    pub cause: String,
}

impl ServiceRecord {
    /// How many slots are wanted now.
    pub fn wanted(&self) -> u32 {
        if self.stopped || self.deleting { 0 } else { self.spec.replicas }
    }

    /// The spec of one of its versions; that of the newest if it was forgotten.
    pub fn spec_of(&self, version: Version) -> &Arc<ServiceSpec> {
        self.versions.iter().find(|v| v.version == version).map_or(&self.spec, |v| &v.spec)
    }
}

/// A slot: one wanted copy and everything that may run for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotRecord {
    /// Claims not yet ended, oldest first. At most one if the service is exclusive, but for one that
    /// became exclusive while it had more.
    pub claims: Vec<Claim>,
    /// The claim that ended last, with what proved it.
    pub last_ended: Option<EndedClaim>,
    /// The revision that last changed this record.
    pub changed: Revision,
}

/// A node's right to run one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Made by its grant.
    pub token: Token,
    /// Whose.
    pub node: NodeId,
    /// That node's disk.
    pub raft_id: RaftId,
    /// That node's host.
    pub machine: MachineId,
    /// In which of its boots.
    pub boot: BootId,
    /// In which of its lease epochs it was granted or adopted.
    pub lease_epoch: LeaseEpoch,
    /// Of which deployment.
    pub version: Version,
    /// When, for people.
    pub granted_at: WallMs,
    /// Why there.
    pub because: String,
    /// The operation that made it, if one did: its state comes from that one's staging folder.
    pub operation: Option<OperationId>,
    /// The revision that made it: its grant's or, after a recovery, that of the inventory it was found in.
    pub since: Revision,
    /// Told to stop?
    pub stop: Option<StopOrder>,
    /// For evidence by the stricter: the longest grace and the least tame isolation the node may still
    /// act by.
    pub grace: Millis,
    /// Critical under any terms the node may still act by?
    pub critical: bool,
}

/// An order to end a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// The stop's own token, higher than the claim's.
    pub token: Token,
    /// For people.
    pub because: String,
}

/// A claim that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedClaim {
    /// Its token.
    pub token: Token,
    /// Whose it was.
    pub node: NodeId,
    /// With which disk: another one under the same name holds nothing of it.
    pub raft_id: RaftId,
    /// What proved its end.
    pub evidence: Evidence,
    /// When in the log.
    pub revision: Revision,
}

/// A long work, journalled: it survives a leader change at any point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What it does.
    pub kind: OperationKind,
    /// Raised by each advance, so that no step is ever taken twice.
    pub step: u32,
    /// Who asked.
    pub by: String,
    /// For people.
    pub reason: String,
    /// When, for people.
    pub begun_at: WallMs,
    /// Asked to stop and undo?
    pub cancelling: bool,
    /// How it ended, when it did.
    pub ended: Option<OperationEnd>,
    /// What happened, in order, bounded.
    pub history: Vec<OperationNote>,
    /// The revision that last changed this record.
    pub changed: Revision,
}

/// One line of an operation's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationNote {
    /// When, for people.
    pub at: WallMs,
    /// What was done.
    pub step: OperationStep,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationEnd {
    /// When, for people.
    pub at: WallMs,
    /// Which way.
    pub result: OperationResult,
}

/// Which way an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationResult {
    /// As asked.
    Done,
    /// Undone, with the reason.
    RolledBack(String),
    /// Not done, nothing left half-way.
    Failed(String),
    /// Cancelled by an operator.
    Cancelled,
    /// Not needed any more, such as fencing a node that answered again.
    Released(String),
}

/// Kinds of operation with their own progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationKind {
    /// Empties a node.
    Drain(DrainRecord),
    /// Moves a slot.
    Migration(MigrationRecord),
    /// Replaces a service's copies by a newer version's. Done when no older claim is left.
    Rollout(RolloutRecord),
    /// Proves a node off.
    Fence(FenceRecord),
}

/// A drain. Its moves are migrations that name it as their parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRecord {
    /// Which node.
    pub node: NodeId,
    /// Moves at a time.
    pub max_in_flight: u32,
    /// Claims it had at the beginning.
    pub total: u32,
    /// Was it cordoned already? Then undo leaves it so.
    pub was_cordoned: bool,
}

/// The pass of copying while the source still runs.
pub const PASS_RUNNING: u32 = 1;
/// The pass that copies the rest once the source has stopped.
pub const PASS_STOPPED: u32 = 2;
/// The pass that copies back to the source what the target wrote.
pub const PASS_BACK: u32 = 3;

/// A migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationRecord {
    /// Which slot.
    pub slot: SlotId,
    /// From where.
    pub source: NodeId,
    /// The claim it moves.
    pub source_token: Token,
    /// Asked for by name?
    pub wanted_target: Option<NodeId>,
    /// To where, once chosen.
    pub target: Option<NodeId>,
    /// The drain it belongs to.
    pub parent: Option<OperationId>,
    /// How far it is.
    pub phase: MigrationPhase,
    /// Passes of copying that are complete.
    pub passes: u32,
    /// Bytes of all complete passes.
    pub bytes: u64,
    /// The claim at the target, once granted; after a roll-back, that at the source.
    pub granted: Option<Token>,
    /// Why it is rolled back, once it is.
    pub rollback: Option<String>,
}

impl MigrationRecord {
    /// Whom the slot is to go to next: the target until it runs there, the source while it is given back,
    /// nobody before the source was told to stop.
    pub fn heir(&self) -> Option<&NodeId> {
        match self.phase {
            MigrationPhase::Switchover => self.target.as_ref(),
            MigrationPhase::RollingBack => Some(&self.source),
            MigrationPhase::Planned
            | MigrationPhase::Preparing
            | MigrationPhase::Copying
            | MigrationPhase::Verifying
            | MigrationPhase::Done
            | MigrationPhase::RolledBack => None,
        }
    }

    /// Who copies state to itself now, and in which pass.
    pub fn copying(&self) -> Option<(&NodeId, u32)> {
        match self.phase {
            MigrationPhase::Copying => self.target.as_ref().map(|target| (target, PASS_RUNNING)),
            MigrationPhase::Switchover | MigrationPhase::RollingBack => self.heir().map(|heir| {
                (heir, if self.phase == MigrationPhase::Switchover { PASS_STOPPED } else { PASS_BACK })
            }),
            MigrationPhase::Planned
            | MigrationPhase::Preparing
            | MigrationPhase::Verifying
            | MigrationPhase::Done
            | MigrationPhase::RolledBack => None,
        }
    }
}

/// Phases of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationPhase {
    /// Asked for; a target is looked for.
    Planned,
    /// A target is chosen.
    Preparing,
    /// State is copied while the source still runs.
    Copying,
    /// The source is told to stop; then the rest is copied and the target granted.
    Switchover,
    /// The new copy's health is watched.
    Verifying,
    /// Done.
    Done,
    /// Being given back to the source.
    RollingBack,
    /// Given back.
    RolledBack,
}

impl MigrationPhase {
    /// Its name for people and JSON.
    pub fn name(self) -> &'static str {
        match self {
            MigrationPhase::Planned => "planned",
            MigrationPhase::Preparing => "preparing",
            MigrationPhase::Copying => "copying",
            MigrationPhase::Switchover => "switchover",
            MigrationPhase::Verifying => "verifying",
            MigrationPhase::Done => "done",
            MigrationPhase::RollingBack => "rolling back",
            MigrationPhase::RolledBack => "rolled back",
        }
    }
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// Of which service.
    pub service: ServiceName,
    /// To which version.
    pub version: Version,
    /// Claims to replace at the beginning.
    pub total: u32,
}

/// A fencing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRecord {
    /// Whom.
    pub node: NodeId,
    /// Judged in this lease epoch: a rejoin ends it.
    pub lease_epoch: LeaseEpoch,
    /// An operator asked for it: that the target is heard does not call it off.
    pub forced: bool,
    /// How far it is.
    pub phase: FencePhase,
    /// Who does the current attempt.
    pub by_node: Option<NodeId>,
    /// Counted over all levels; 0 before the first.
    pub attempt: u32,
    /// The current level.
    pub level: u32,
    /// The current method of the level; with no attempt under way, the one to do next. Counted once more
    /// after the proof, for what switches the node on again.
    pub method: u32,
    /// What was last said.
    pub output: String,
}

/// Phases of a fencing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FencePhase {
    /// Asked for.
    Requested,
    /// A method is at it.
    Running,
    /// Read back as off; under way still while it is switched on again.
    Proven,
    /// Nothing proved it.
    Failed,
    /// Not needed any more.
    Released,
}

impl FencePhase {
    /// Its name for people and JSON.
    pub fn name(self) -> &'static str {
        match self {
            FencePhase::Requested => "requested",
            FencePhase::Running => "running",
            FencePhase::Proven => "proven",
            FencePhase::Failed => "failed",
            FencePhase::Released => "released",
        }
    }
}

/// A key of the key-value store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvRecord {
    /// Its value.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
    /// The revision that made it.
    pub created: Revision,
    /// The revision that last changed it.
    pub modified: Revision,
    /// Changes since it was made, from 1.
    pub version: u64,
    /// Gone this long after `modified` unless put again.
    pub ttl: Option<Millis>,
}

/// What a client was last answered, so that its retries are answered alike.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClientRecord {
    /// Bounded to the newest.
    pub answers: Answers,
    /// Up to here it said that it will not ask again; what comes of that later is not done.
    pub settled: u64,
    /// The revision of its newest request; the clients longest silent are forgotten first.
    pub last: Revision,
}

/// Remembered answers by request number, in order. Most clients have one or none: a list is the smallest thing that
/// holds it, and there is one for each of thousands of clients.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Answers(Vec<(u64, super::Answer)>);

impl Answers {
    fn place(&self, sequence: u64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&sequence, |(known, _)| *known)
    }

    /// What a request was answered.
    pub fn get(&self, sequence: u64) -> Option<&super::Answer> {
        self.place(sequence).ok().map(|at| &self.0[at].1)
    }

    /// The numbers of the requests, in order.
    pub fn sequences(&self) -> impl ExactSizeIterator<Item = u64> {
        self.0.iter().map(|(sequence, _)| *sequence)
    }

    /// Adds an answer; forgets those up to `settled`, and of more than `most` the oldest.
    pub(super) fn remember(&mut self, sequence: u64, answer: super::Answer, settled: u64, most: usize) {
        self.0.retain(|(known, _)| *known > settled);
        match self.place(sequence) {
            Ok(at) => self.0[at].1 = answer,
            Err(at) => self.0.insert(at, (sequence, answer)),
        }
        self.0.drain(..self.0.len().saturating_sub(most));
    }
}

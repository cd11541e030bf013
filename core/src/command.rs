//! What may be asked of the cluster: the only things that ever enter the log. Operators, `detect` and
//! `plan` make them; `apply` accepts or refuses them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::fence::FenceLevels;
use crate::ids::{
    BootId, ClusterId, DiskId, Endpoint, Epoch, LeaseEpoch, MachineId, NodeId, OperationId, RequestId,
    Revision, ServiceName, SlotId, Token, Version,
};
use crate::observation::{ExecutorFact, Unavailable};
use crate::settings::{ClusterSettings, SettingChange};
use crate::spec::{Resources, ServiceSpec};
use crate::units::{Millis, WallMs};

/// One command with who asks for it. The unit that is proposed, remembered and answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// For clients: repeats of it get the first answer again.
    pub request: Option<RequestId>,
    /// Who asks.
    pub actor: Actor,
    /// The proposer's wall clock, for people only.
    pub at: WallMs,
    /// Refused with `stale_revision` if what it concerns changed after this revision.
    pub expected: Option<Revision>,
    /// What is asked.
    pub command: Command,
}

/// Who asks for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// The leader's own planner or detector.
    Planner,
    /// A node, about itself.
    Node(NodeId),
    /// A person or a program.
    Operator {
        /// As the caller says, checked where it can be.
        name: String,
        /// Such as `cli@n1` or `cockpit@n2`.
        from: String,
    },
}

/// Everything that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes the cluster; the first command in every log.
    Bootstrap {
        /// Its id, drawn by the bootstrapping node.
        cluster: ClusterId,
        /// Its name for people.
        name: String,
        /// What the bootstrapping node's file seeds.
        settings: ClusterSettings,
    },
    /// Goes on from less than the cluster once had, in a higher epoch. Never proposed: it is applied to State
    /// on the disk, before any node starts from it.
    Recover(Recovery),
    /// Changes cluster settings, all or none.
    ChangeSettings(Vec<SettingChange>),

    /// Admits a node or, for a known identity, renews what it said of itself. Answered with its number.
    AdmitNode(NodeAdmission),
    /// A node changes what it said of itself (addresses, capacity, fence methods, executors, armed).
    UpdateNode(NodeFacts),
    /// After a recovery: what a node told that it runs, of which its claims are made anew.
    TakeInventory {
        /// Which node.
        node: NodeId,
        /// The boot it is in now.
        boot: BootId,
        /// The recovery, by the revision that began it; refused for any other.
        recovery: Revision,
        /// The highest token that any of its slots ever accepted.
        highest: Token,
        /// Every slot in which something runs or that the node has a claim of.
        found: Vec<Found>,
    },
    /// Commits that a node is lost.
    MarkLost {
        /// Which one.
        node: NodeId,
        /// Judged in this lease epoch; refused in any other.
        lease_epoch: LeaseEpoch,
        /// The detector's reasons.
        because: Vec<String>,
    },
    /// Lets a node that expired, was lost, or rebooted back in, with a new lease epoch.
    Rejoin {
        /// Which one.
        node: NodeId,
        /// The boot it is in now.
        boot: BootId,
        /// The epoch it left; refused in any other.
        lease_epoch: LeaseEpoch,
        /// Slots that it holds an instance of, with the instance's token: what is adopted.
        holds: Vec<(SlotId, Token)>,
    },
    /// Nothing new is placed there, or it is again.
    Cordon {
        /// Which one.
        node: NodeId,
        /// On or off.
        on: bool,
    },
    /// An operator's word that a node is dead.
    AttestDead {
        /// Which one.
        node: NodeId,
        /// Why the operator is sure.
        reason: String,
    },
    /// A node is to leave for good: drained first, then forgotten.
    Leave {
        /// Which one.
        node: NodeId,
    },
    /// Forgets a node that holds no claim any more.
    RemoveNode {
        /// Which one.
        node: NodeId,
    },

    /// Makes or changes a service.
    Deploy {
        /// What is wanted.
        spec: Arc<ServiceSpec>,
    },
    /// Changes only the number of copies.
    Scale {
        /// Of which service.
        service: ServiceName,
        /// To how many.
        replicas: u32,
    },
    /// Replaces all running copies by new ones of the same spec, in the manner of a rollout.
    Restart {
        /// Of which service.
        service: ServiceName,
    },
    /// Keeps the service with nothing running.
    StopService {
        /// Which one.
        service: ServiceName,
    },
    /// Forgets the service once its claims ended.
    DeleteService {
        /// Which one.
        service: ServiceName,
    },

    /// Gives a slot to a node: makes a claim with a new token.
    Grant {
        /// Which slot.
        slot: SlotId,
        /// To which node.
        node: NodeId,
        /// In which of its boots.
        boot: BootId,
        /// In which of its lease epochs.
        lease_epoch: LeaseEpoch,
        /// Of which deployment.
        version: Version,
        /// For which operation, if it is part of one.
        operation: Option<OperationId>,
        /// The planner's reason, for people.
        because: String,
    },
    /// Orders the end of a claim: the node is to stop it and to acknowledge.
    StopClaim {
        /// Whose.
        slot: SlotId,
        /// Which claim.
        token: Token,
        /// For people.
        because: String,
        /// For which operation, if it is part of one.
        operation: Option<OperationId>,
    },
    /// Ends a claim, with what proves that nothing runs under it any more.
    EndClaim {
        /// Whose.
        slot: SlotId,
        /// Which claim.
        token: Token,
        /// The proof.
        evidence: Evidence,
    },

    /// Begins a drain.
    Drain {
        /// Of which node.
        node: NodeId,
        /// Moves at a time.
        max_in_flight: u32,
    },
    /// Ends the cordon of a node and cancels its drain.
    Uncordon {
        /// Which one.
        node: NodeId,
    },
    /// Begins a migration.
    Migrate {
        /// Of which slot.
        slot: SlotId,
        /// Where to; the planner chooses when it is open.
        to: Option<NodeId>,
        /// The drain it belongs to.
        parent: Option<OperationId>,
    },
    /// Begins fencing a node.
    Fence {
        /// Which one.
        node: NodeId,
        /// For people.
        reason: String,
    },
    /// Asks an operation to stop and undo.
    CancelOperation {
        /// Which one.
        operation: OperationId,
    },
    /// Takes an operation one step on. Refused when it is not at `from` any more.
    Advance {
        /// Which one.
        operation: OperationId,
        /// The step the planner saw it at; a counter that each advance raises.
        from: u32,
        /// What happens.
        step: OperationStep,
    },

    /// Key-value: sets a key.
    KvPut {
        /// Which key.
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
        /// Its new value.
        #[serde(with = "serde_bytes")]
        value: Vec<u8>,
        /// Gone this long after the put unless put again.
        ttl: Option<Millis>,
        /// Refused unless the key was last changed at this revision; 0 means it must not exist.
        /// Puts that share a revision count as one change: the last of them wins.
        if_revision: Option<Revision>,
    },
    /// Key-value: removes a key, or all in a range.
    KvDelete {
        /// The key, or the range's first.
        key: Vec<u8>,
        /// The range's end, itself not included; `None` means just the key.
        range_end: Option<Vec<u8>>,
    },
    /// Key-value: removes keys whose time ran out, each only if unchanged since.
    KvExpire {
        /// Key and the revision of the put that set its time.
        keys: Vec<(Vec<u8>, Revision)>,
    },
}

/// How a cluster goes on from less than it once had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// From what.
    pub cause: RecoveryCause,
    /// The latest epoch that anybody who goes on has agreed to; the new one is above it.
    pub above: Epoch,
    /// The last revision that is surely there; whatever came after it may be gone, or be another.
    pub kept: Revision,
    /// Its new id, if it gets one: members of the old one are strangers then.
    pub cluster: Option<ClusterId>,
    /// The node it goes on from, if that comes with a new disk. Answered with its number.
    pub founder: Option<NodeAdmission>,
    /// Why, for those who read it later.
    pub reason: String,
}

/// How a cluster went on from less than it once had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoveryCause {
    /// From a saved snapshot.
    Restored {
        /// When it was saved, for people.
        saved_at: WallMs,
    },
    /// Some of the voters went on without the majority.
    ForcedQuorum {
        /// Which nodes: they go on with their data. All others have to join anew.
        survivors: Vec<NodeId>,
    },
}

impl std::fmt::Display for RecoveryCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecoveryCause::Restored { .. } => f.pad("restored from a snapshot"),
            RecoveryCause::ForcedQuorum { .. } => f.pad("recovered without its majority"),
        }
    }
}

/// What a node told of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which slot.
    pub slot: SlotId,
    /// The highest token it ever accepted there.
    pub highest: Token,
    /// What may run there: its token and [`ServiceSpec::run_digest`].
    pub runs: Option<(Token, u64)>,
}

/// What a node says of itself when it comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAdmission {
    /// The host.
    pub machine: MachineId,
    /// The data directory; a new one under a known name is a new voter.
    pub disk: DiskId,
    /// The boot it is in.
    pub boot: BootId,
    /// A witness votes and hosts nothing.
    pub witness: bool,
    /// The heaviest healthy voter leads.
    pub weight: u32,
    /// All that may change later.
    pub facts: NodeFacts,
}

/// What a node says of itself and may change while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its name.
    pub node: NodeId,
    /// Its addresses for other nodes, by segment.
    pub endpoints: Vec<Endpoint>,
    /// Its API address.
    pub api: String,
    /// Its HTTP address.
    pub http: String,
    /// Labels for placement.
    pub labels: std::collections::BTreeMap<String, String>,
    /// What placement may give away in all.
    pub capacity: Resources,
    /// What it can run.
    pub executors: Vec<ExecutorFact>,
    /// How it can be fenced, level by level; the methods of a level all have to succeed.
    pub fencing: FenceLevels,
    /// Are deadlines held by two holders?
    pub armed: bool,
    /// Why they are not, while they are not.
    pub unarmed: Option<Unavailable>,
    /// Does silence count as evidence here?
    pub silence_counts: bool,
    /// The number of the lease terms that its guard holds; 0 before its first lease.
    pub terms: u64,
    /// The release it runs.
    pub release: String,
}

/// One step of an operation, as the planner saw it completed or due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationStep {
    /// Migration: the target was chosen; copying begins (or is skipped where there is no state).
    Prepare {
        /// The target.
        target: NodeId,
    },
    /// Migration: a pass of copying is complete.
    Copied {
        /// Which pass.
        pass: u32,
        /// How many bytes.
        bytes: u64,
        /// Over names and contents.
        digest: String,
    },
    /// Migration: ownership moves now; the source is told to stop.
    Switchover,
    /// Migration: the new copy runs at the target; its health is watched.
    Verify,
    /// Migration: give it back to the source.
    RollBack {
        /// Why.
        because: String,
    },
    /// Fencing: this node does attempt number `attempt` with this method.
    FenceAttempt {
        /// Who does the deed.
        by: NodeId,
        /// Counted over all levels.
        attempt: u32,
        /// Which level, from 0.
        level: u32,
        /// Which method of the level, from 0.
        method: u32,
    },
    /// The last attempt did not prove it; for people.
    FenceFailed {
        /// What was said.
        output: String,
    },
    /// Fencing: proven off.
    FenceProven {
        /// What was said.
        output: String,
    },
    /// Fencing: proven off, and this node switches it on again by this method of the proven level.
    PowerOn {
        /// Who does it.
        by: NodeId,
        /// Counted on from the attempts to take its power.
        attempt: u32,
        /// Which method of the level, from 0.
        method: u32,
    },
    /// Fencing: this method gave the power back.
    PoweredOn {
        /// What was said.
        output: String,
    },
    /// Done.
    Finish,
    /// Ended without success, nothing left half-way.
    Fail {
        /// Why.
        because: String,
    },
}

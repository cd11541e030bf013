//! What the cluster agrees on. [`State`] is changed by [`State::apply`] alone, on every node alike, in log
//! order; everything else reads it. Knows no clock, no node of its own and nothing observed.

pub mod codec;

mod apply;
mod invariants;
mod margin;
mod records;
mod table;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use crate::command::RecoveryCause;
pub use crate::evidence::{Evidence, NodeProof};
pub use crate::settings::{ClusterSettings, RaftTiming, SettingChange, SettingsError, TimingProfile};
pub use apply::{Applied, KvChange, limits};
pub use records::{
    Answers, Claim, ClientRecord, DrainRecord, EndedClaim, FencePhase, FenceRecord, Inventory, KvRecord,
    MigrationPhase, MigrationRecord, NodeRecord, NodeStanding, Operation, OperationEnd, OperationKind,
    OperationNote, OperationResult, PASS_BACK, PASS_RUNNING, PASS_STOPPED, RecoveryRecord, RolloutRecord,
    ServiceRecord, SlotRecord, StopOrder, VersionRecord,
};
pub use table::Table;
pub use words::{JOIN_ANEW, left_behind};

use crate::event::EventRecord;
use crate::ids::{
    ClientId, ClusterId, Epoch, NodeId, OperationId, RaftId, Revision, ServiceName, SlotId, Token,
};

/// The replicated truth. Cheap to clone: every table is persistent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The applied log index.
    pub revision: Revision,
    /// What there is one of.
    pub cluster: ClusterRecord,
    /// All nodes ever admitted and not removed.
    pub nodes: Table<NodeId, NodeRecord>,
    /// All services.
    pub services: Table<ServiceName, ServiceRecord>,
    /// All slots that are wanted or claimed, or were claimed while their service lives.
    pub slots: Table<SlotId, SlotRecord>,
    /// Running and recent operations.
    pub operations: Table<OperationId, Operation>,
    /// The key-value store.
    pub kv: Table<Vec<u8>, KvRecord>,
    /// Remembered answers.
    pub clients: Table<ClientId, ClientRecord>,
    /// Recent events, oldest first, bounded.
    pub events: imbl::Vector<Arc<EventRecord>>,
}

/// What there is one of in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Its id; empty before the bootstrap.
    pub id: ClusterId,
    /// Its name for people.
    pub name: String,
    /// Raised by restore and forced quorum.
    pub epoch: Epoch,
    /// The last of those, if there was one.
    pub recovery: Option<RecoveryRecord>,
    /// Settings in force.
    pub settings: ClusterSettings,
    /// The revision that last changed them.
    pub settings_changed: Revision,
    /// The next number for a node.
    pub next_raft_id: u64,
    /// The next number for an operation.
    pub next_operation: u64,
    /// Bytes of all keys and values.
    pub kv_bytes: u64,
}

/// What a command is answered with; remembered for its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The revision it was decided at.
    pub revision: Revision,
    /// Accepted, or why not.
    pub result: Result<Reply, Rejection>,
}

/// What an accepted command gives back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing more.
    Accepted,
    /// Nothing changed: it was so already.
    Unchanged,
    /// The node's number in Raft.
    Admitted(RaftId),
    /// The operation that does it.
    Began(OperationId),
    /// The token of the grant or stop order.
    Token(Token),
    /// How many keys were removed.
    Removed(u64),
}

/// Why a command was refused. State did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Rejection {
    /// The thing it is about does not exist.
    #[error("no {what} {name:?}")]
    NotFound {
        /// `node`, `service`, ...
        what: String,
        /// Its name.
        name: String,
    },
    /// What it is about changed since the caller looked.
    #[error(
        "{what} changed at revision {changed}, after the revision {expected} this was decided on; look again"
    )]
    Stale {
        /// What changed.
        what: String,
        /// When.
        changed: Revision,
        /// What the caller saw.
        expected: Revision,
    },
    /// A rule forbids it.
    #[error("{because}; {remedy}")]
    Refused {
        /// The rule in words.
        because: String,
        /// What to do.
        remedy: String,
    },
    /// A limit is reached.
    #[error("{what} would exceed the limit of {limit}; {remedy}")]
    Limit {
        /// What grows.
        what: String,
        /// How far it may.
        limit: u64,
        /// What to do.
        remedy: String,
    },
    /// Settings that do not fit.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An entry that this release cannot read; it changed nothing anywhere.
    #[error(
        "entry of format {format} is not known to this release; use the one that wrote it, or a later one"
    )]
    Unreadable {
        /// Its format.
        format: u32,
    },
}

/// What `plan` hands over: commands to propose in this order, what is waited for, and who should vote.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The revision it was made on.
    pub revision: Revision,
    /// To be proposed, in order.
    pub commands: Vec<crate::command::Command>,
    /// What waits for what, by subject.
    pub waiting: BTreeMap<Subject, Vec<Waiting>>,
    /// What Raft's membership should be, when it should change: one step at a time.
    pub membership: Option<MembershipStep>,
}

/// What commands would lead to, worked out by the planner that would carry them out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Preview {
    /// The revision it was made on.
    pub revision: Revision,
    /// What would be done, in order, in words.
    pub actions: Vec<String>,
    /// What would wait, and for what, in words.
    pub waiting: Vec<String>,
    /// What happens by itself if nothing is asked for, soonest first; then what would still wait.
    pub otherwise: Vec<Foreseen>,
    /// The copies that lose their node at once.
    pub loses: Vec<Loses>,
    /// What is left of the quorum, in words, where a node goes.
    pub quorum: Option<String>,
    /// The first command that would be refused, if one would.
    pub rejected: Option<Rejection>,
}

/// One thing that will happen by itself, or that waits for something other than time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreseen {
    /// After how long; `None` for what no time ends.
    pub after: Option<crate::units::Millis>,
    /// What, and why.
    pub what: String,
}

/// A copy whose node is taken from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loses {
    /// Which.
    pub slot: SlotId,
    /// How important it is.
    pub priority: crate::spec::Priority,
    /// May no second one run?
    pub exclusive: bool,
    /// Does it keep state on that node?
    pub state: bool,
    /// Where it starts instead, if anywhere.
    pub to: Option<NodeId>,
    /// Why there, or why nowhere.
    pub because: String,
}

/// One step of Raft's membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembershipStep {
    /// A node is to receive the log.
    AddLearner(RaftId),
    /// These are to vote.
    SetVoters(Vec<RaftId>),
    /// A node is to be forgotten by Raft.
    Remove(RaftId),
    /// Another is to lead.
    TransferTo(RaftId),
}

/// Whom a waiting line is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// A node.
    Node(NodeId),
    /// A slot.
    Slot(SlotId),
    /// An operation.
    Operation(OperationId),
}

/// One thing that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// For what.
    pub cause: WaitCause,
    /// How long from the plan's making until it ends by itself, if it does.
    pub left: Option<crate::units::Millis>,
}

/// What something waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitCause {
    /// No node can take the slot; each with its reason.
    NoNodeFits {
        /// Every node with why not.
        refusals: Vec<(NodeId, Refusal)>,
    },
    /// An older claim has not ended: what would end it, ticked.
    Evidence {
        /// Its node.
        node: NodeId,
        /// Its token.
        token: Token,
        /// Where it would start then, if somewhere.
        then: Option<NodeId>,
        /// All kinds with where they stand.
        items: Vec<EvidenceItem>,
    },
    /// A node is suspect; it is lost when this has passed.
    Suspect {
        /// Which one.
        node: NodeId,
        /// Why.
        because: Vec<String>,
    },
    /// The copy is told to stop and has not acknowledged yet.
    Stopping {
        /// Where.
        node: NodeId,
        /// Why.
        because: String,
    },
    /// Granted, not running yet.
    Starting {
        /// Where.
        node: NodeId,
    },
    /// An exit; the next start in place comes after this.
    Backoff {
        /// Where.
        node: NodeId,
        /// How the last run ended.
        detail: String,
    },
    /// It ended and its policy says to leave it.
    Ended {
        /// How.
        detail: String,
    },
    /// An operation holds it.
    Operation {
        /// Which one.
        operation: OperationId,
        /// Doing what.
        detail: String,
    },
    /// Since a recovery some nodes were not heard: an exclusive copy may run there.
    Recovery {
        /// What was done, and in which epoch it goes on.
        detail: String,
        /// Which nodes, each with what it lacks.
        unheard: Vec<(NodeId, String)>,
    },
    /// As many moves as allowed are under way, or a minimum of healthy copies must stay.
    Throttled {
        /// Which limit.
        detail: String,
    },
    /// Not healthy yet.
    Health {
        /// Where.
        node: NodeId,
        /// What the probe said.
        detail: String,
    },
    /// State is being copied.
    Copying {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A fencing is under way, waits or failed.
    Fencing {
        /// Which operation.
        operation: Option<OperationId>,
        /// Is a deed under way, so that nothing stands in its way?
        under_way: bool,
        /// Where it stands, and the remedy.
        detail: String,
    },
    /// An operator must decide.
    Operator {
        /// What, and how.
        detail: String,
    },
    /// Something else, in words.
    Other {
        /// Which.
        detail: String,
    },
}

/// Why a node cannot take a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It is lost, suspect or holds no lease.
    NotAlive(String),
    /// Cordoned, draining or leaving.
    Cordoned,
    /// A witness hosts nothing.
    Witness,
    /// The executor is not there.
    Executor(String),
    /// Too little processor time: wanted, free.
    Cpu(crate::units::CpuMillis, crate::units::CpuMillis),
    /// Too little memory: wanted, free.
    Memory(crate::units::MemoryMib, crate::units::MemoryMib),
    /// A constraint does not hold; the node's value, if it has one.
    Constraint(String, Option<String>),
    /// `spread: require` and it has a copy already.
    Spread(SlotId),
    /// Not the node that was asked for.
    NotWanted(NodeId),
    /// Another instance has what only one on a host can have: a port, or a unit of the host.
    Taken(String, SlotId),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Refusal::NotAlive(why) => why.clone(),
            Refusal::Cordoned => "cordoned".to_owned(),
            Refusal::Witness => "a witness hosts nothing".to_owned(),
            Refusal::Executor(why) => why.clone(),
            Refusal::Cpu(wanted, free) => format!("cpu: {wanted} wanted, {free} free"),
            Refusal::Memory(wanted, free) => format!("memory: {wanted} wanted, {free} free"),
            Refusal::Constraint(rule, Some(value)) => format!("{rule} does not hold: it is {value}"),
            Refusal::Constraint(rule, None) => format!("{rule} does not hold: it has no such label"),
            Refusal::Spread(slot) => format!("{slot} is there already"),
            Refusal::NotWanted(node) => format!("{node} was asked for"),
            Refusal::Taken(what, slot) => format!("{what} is taken there by {slot}"),
        };
        f.pad(&text)
    }
}

/// One line of the evidence list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceItem {
    /// As [`Evidence::kind`].
    pub kind: String,
    /// Does it hold?
    pub holds: bool,
    /// In words.
    pub detail: String,
    /// When it will hold by itself, if it will.
    pub left: Option<crate::units::Millis>,
}

impl State {
    /// Before the bootstrap: nothing.
    pub fn empty() -> Self {
        Self {
            revision: Revision(0),
            cluster: ClusterRecord::default(),
            nodes: Table::new(),
            services: Table::new(),
            slots: Table::new(),
            operations: Table::new(),
            kv: Table::new(),
            clients: Table::new(),
            events: imbl::Vector::new(),
        }
    }

    /// The token a grant or stop order made by the current entry gets.
    pub fn token(&self) -> Token {
        Token { epoch: self.cluster.epoch, revision: self.revision }
    }

    /// The recovery that is not over: some nodes were not heard since.
    pub fn recovering(&self) -> Option<&RecoveryRecord> {
        self.cluster.recovery.as_ref().filter(|recovery| recovery.open)
    }

    /// The epoch that the last recovery began; the first where there was none. Unlike the epoch of tokens,
    /// nothing else raises it.
    pub fn era(&self) -> Epoch {
        self.cluster.recovery.as_ref().map_or(Epoch(1), |recovery| recovery.epoch)
    }

    /// Did a recovery go on without this node's data? Until it has joined anew, on a new disk, it is no
    /// member: it gets no log, has no vote and is not let back in.
    pub fn left_behind(&self, record: &NodeRecord) -> bool {
        record.era < self.era()
    }

    /// Nodes of which nobody knows what they run, since a recovery.
    pub fn unsettled(&self) -> impl Iterator<Item = (&NodeId, &NodeRecord)> {
        self.nodes.iter().filter(|(_, record)| self.recovering().is_some() && !record.settled())
    }

    /// All claims on one node, by slot.
    pub fn claims_on<'a>(&'a self, node: &NodeId) -> impl Iterator<Item = (&'a SlotId, &'a Claim)> {
        self.slots
            .iter()
            .flat_map(|(id, slot)| slot.claims.iter().map(move |claim| (id, claim)))
            .filter(move |(_, claim)| claim.node == *node)
    }

    /// The node with this number in Raft.
    pub fn node_of(&self, raft_id: RaftId) -> Option<(&NodeId, &NodeRecord)> {
        self.nodes.iter().find(|(_, record)| record.raft_id == raft_id)
    }

    /// Equal for equal States, kept up to date by every change.
    pub fn hash(&self) -> u64 {
        [
            self.nodes.hash(),
            self.services.hash(),
            self.slots.hash(),
            self.operations.hash(),
            self.kv.hash(),
            self.clients.hash(),
            table::hash_of(&self.cluster),
            self.revision.0,
        ]
        .iter()
        .enumerate()
        .fold(0, |sum, (at, hash)| sum ^ hash.rotate_left(at as u32 * 7))
    }
}

//! What happened: made by `apply` alone, for people and to wake those who reconcile. Nothing is ever
//! decided from an event; a lost or repeated one is harmless.

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::ids::{NodeId, OperationId, Revision, ServiceName, SlotId, Token, Version};
use crate::units::WallMs;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Notice,
    /// Something waits or is less safe than it should be.
    Warning,
    /// Something wanted does not run, or could not decide.
    Critical,
}

/// An event with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// The revision that made it.
    pub revision: Revision,
    /// The proposer's wall clock, for people.
    pub at: WallMs,
    /// The operator who asked for it, if one did.
    pub by: Option<String>,
    /// What happened.
    pub event: Event,
}

/// Everything that can happen to State. Key-value changes are not kept here: they have their own watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The cluster was made.
    Bootstrapped,
    /// Settings changed; `name = value` each.
    SettingsChanged(Vec<String>),
    /// A node was admitted.
    NodeAdmitted(NodeId),
    /// A known name came with a new disk: the old voter is removed.
    NodeReplaced(NodeId),
    /// A node changed what it says of itself.
    NodeUpdated(NodeId),
    /// A node was committed lost.
    NodeLost {
        /// Which one.
        node: NodeId,
        /// Why.
        because: Vec<String>,
    },
    /// A node was let back in.
    NodeRejoined {
        /// Which one.
        node: NodeId,
        /// Instances adopted without a restart.
        adopted: u32,
    },
    /// A node was cordoned or uncordoned.
    NodeCordoned {
        /// Which one.
        node: NodeId,
        /// On or off.
        on: bool,
    },
    /// An operator attested that a node is dead.
    NodeAttested {
        /// Which one.
        node: NodeId,
        /// Why the operator is sure.
        reason: String,
    },
    /// A node is leaving.
    NodeLeaving(NodeId),
    /// A node was forgotten.
    NodeRemoved(NodeId),
    /// A service was deployed or changed.
    ServiceDeployed {
        /// Which one.
        service: ServiceName,
        /// Its version now.
        version: Version,
        /// `deploy`, `scale`, `restart`.
        cause: String,
    },
    /// A service was stopped.
    ServiceStopped(ServiceName),
    /// A service is being deleted.
    ServiceDeleting(ServiceName),
    /// A service was forgotten.
    ServiceDeleted(ServiceName),
    /// A slot was granted.
    Granted {
        /// Which.
        slot: SlotId,
        /// To whom.
        node: NodeId,
        /// With which token.
        token: Token,
        /// Why there.
        because: String,
    },
    /// A claim was told to stop.
    StopOrdered {
        /// Whose.
        slot: SlotId,
        /// Where.
        node: NodeId,
        /// Why.
        because: String,
    },
    /// A claim ended.
    ClaimEnded {
        /// Whose.
        slot: SlotId,
        /// Where.
        node: NodeId,
        /// What proved it.
        evidence: Evidence,
    },
    /// An operation began.
    OperationBegan {
        /// Which.
        operation: OperationId,
        /// In words.
        what: String,
    },
    /// An operation moved on.
    OperationAdvanced {
        /// Which.
        operation: OperationId,
        /// In words.
        what: String,
    },
    /// An operation ended.
    OperationEnded {
        /// Which.
        operation: OperationId,
        /// In words.
        what: String,
        /// As asked?
        well: bool,
    },
    /// An impossible state was met; this node stops acting on it.
    Alarm(String),
}

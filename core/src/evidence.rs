//! What lets an exclusive slot be granted again: the five kinds of evidence, as entries in State.

use serde::{Deserialize, Serialize};

use crate::ids::{BootId, LeaseEpoch, NodeId, OperationId, Revision, Token};
use crate::units::Millis;

/// Proof that nothing runs under a claim. Silence alone is never one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// Its node raised the slot's token to the stop's and saw the cgroup or process group empty.
    StopAcknowledged {
        /// The stop's token, as the node reported it as its highest.
        stop: Token,
    },
    /// The node was fenced, with the power state read back as off, and is unheard since.
    Fenced {
        /// The operation that did it.
        operation: OperationId,
    },
    /// The host is back in a new boot and its executors report nothing of the claim.
    Rebooted {
        /// The boot it is in now.
        boot: BootId,
    },
    /// The guarded deadline has passed, twice held, by the stricter terms.
    Silence {
        /// The node was lost in this lease epoch.
        lease_epoch: LeaseEpoch,
        /// How long the leader waited.
        waited: Millis,
    },
    /// An operator attested that the node is dead.
    Attested {
        /// The revision of the attestation.
        revision: Revision,
    },
}

impl Evidence {
    /// Its name in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Evidence::StopAcknowledged { .. } => "stop_acknowledged",
            Evidence::Fenced { .. } => "fenced",
            Evidence::Rebooted { .. } => "rebooted",
            Evidence::Silence { .. } => "silence",
            Evidence::Attested { .. } => "attested",
        }
    }

    /// For people.
    pub fn words(&self) -> String {
        match self {
            Evidence::StopAcknowledged { stop } => format!("its node acknowledged the stop {stop}"),
            Evidence::Fenced { operation } => format!("its node was fenced by operation {operation}"),
            Evidence::Rebooted { .. } => "its host is back in a new boot and runs nothing of it".to_owned(),
            Evidence::Silence { waited, .. } => {
                format!("silent for {}, past its guarded deadline", waited.human())
            }
            Evidence::Attested { revision } => {
                format!("an operator attested at revision {revision} that its node is dead")
            }
        }
    }
}

/// Proof that a node cannot act, standing until it rejoins. It ends claims made before it, none later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeProof {
    /// A fence device read off.
    Fenced {
        /// By which operation.
        operation: OperationId,
        /// When in the log.
        revision: Revision,
    },
    /// An operator's word.
    Attested {
        /// Whose.
        by: String,
        /// Why.
        reason: String,
        /// When in the log.
        revision: Revision,
    },
}

impl NodeProof {
    /// When in the log it was given.
    pub fn revision(&self) -> Revision {
        match self {
            NodeProof::Fenced { revision, .. } | NodeProof::Attested { revision, .. } => *revision,
        }
    }

    /// As evidence for one claim on that node.
    pub fn as_evidence(&self) -> Evidence {
        match self {
            NodeProof::Fenced { operation, .. } => Evidence::Fenced { operation: *operation },
            NodeProof::Attested { revision, .. } => Evidence::Attested { revision: *revision },
        }
    }

    /// The node it is about, in words.
    pub fn describe(&self, node: &NodeId) -> String {
        match self {
            NodeProof::Fenced { operation, .. } => format!("{node} fenced by operation {operation}"),
            NodeProof::Attested { by, reason, .. } => format!("{by} attests that {node} is dead: {reason}"),
        }
    }
}

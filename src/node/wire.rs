//! What nodes say to one another beside Raft, and its encoding: one version byte, then postcard. A
//! message of an unknown version or form is an error, never a panic.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::command::NodeAdmission;
use quorate_core::ids::{
    BootId, ClusterId, DiskId, Endpoint, Epoch, MachineId, NodeId, OperationId, RaftId, Revision, SlotId,
};
use quorate_core::lease::LeaseAnswer;
use quorate_core::observation::NodeReport;
use quorate_core::reach::Row;
use quorate_core::state::{ClusterSettings, Rejection, Subject, Waiting};
use quorate_core::units::Millis;
use serde::de::{DeserializeOwned, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The version of everything in this file.
const VERSION: u8 = 1;
/// No message is larger; what is claims more than it can be.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another release wrote it.
    #[error("message of version {0} is not known to this release; upgrade this node")]
    Version(u8),
    /// It is empty, cut off or damaged.
    #[error("message cannot be read: {0}")]
    Damaged(String),
}

/// A message as bytes.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Plain data into memory: postcard cannot fail on it. An empty message would be refused as damaged.
    postcard::to_extend(message, vec![VERSION]).unwrap_or_default()
}

/// Bytes as a message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match bytes.split_first() {
        None => Err(WireError::Damaged("it is empty".to_owned())),
        Some((&VERSION, body)) => {
            postcard::from_bytes(body).map_err(|error| WireError::Damaged(error.to_string()))
        }
        Some((&version, _)) => Err(WireError::Version(version)),
    }
}

/// Who opens a heartbeat stream: its first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub node: NodeId,
    /// Its number.
    pub raft_id: RaftId,
    /// Its data directory.
    pub disk: DiskId,
    /// Its host.
    pub machine: MachineId,
    /// Its boot.
    pub boot: BootId,
    /// Drawn by each process, so that two with one identity are told apart.
    pub process: u64,
}

/// From a node to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up {
    /// First.
    Hello(Box<Hello>),
    /// Then, again and again.
    Beat(Box<NodeReport>),
    /// Whom it reaches, whenever it was made anew.
    Row(Arc<Row>),
}

/// From the leader to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// A lease.
    Answer(LeaseAnswer),
    /// What the leader knows of the others, whether a lease is given or not.
    News(Box<News>),
    /// Not the leader, or not this node: the stream ends.
    Refused(String),
}

/// What the leader passes on: only what changed since the last of the same stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct News {
    /// What the leader has applied.
    pub revision: Revision,
    /// Reports that changed.
    pub reports: Vec<NodeReport>,
    /// How long ago each node was last heard, and last answered.
    pub ages: Vec<(NodeId, Millis, Option<Millis>)>,
    /// The leader's waiting report, if it changed.
    pub waiting: Option<BTreeMap<Subject, Vec<Waiting>>>,
    /// How long ago a quorum acknowledged the leader.
    pub quorum_ack_age: Option<Millis>,
    /// Who reaches whom: rows that the node was not told, with their ages.
    pub rows: Vec<(Arc<Row>, Millis)>,
}

/// A node asks to be admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The cluster it means to join.
    pub cluster: ClusterId,
    /// What it says of itself.
    pub admission: NodeAdmission,
}

/// What an admitted node needs to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Its number.
    pub raft_id: RaftId,
    /// The members of Raft, to reach them before their log is here.
    pub members: Vec<(RaftId, Vec<Endpoint>)>,
    /// The settings in force.
    pub settings: ClusterSettings,
    /// What whoever lets it join should know.
    pub warning: Option<String>,
    /// The epoch the cluster is in.
    pub epoch: Epoch,
}

/// What a node asks of the leader on behalf of its callers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayAsk {
    /// To propose.
    Propose {
        /// Repeated in the answer.
        id: u64,
        /// In order, each as the log will hold it.
        #[serde(deserialize_with = "few")]
        proposals: Vec<Bytes>,
    },
    /// To make a quorum round that begins now.
    Read {
        /// Repeated in the answer.
        id: u64,
    },
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayAnswer {
    /// Of the proposals, in their order.
    Proposed {
        /// As asked.
        id: u64,
        /// One for each.
        answers: Forwarded,
    },
    /// Of the round.
    Read {
        /// As asked.
        id: u64,
        /// What was committed when it began.
        index: Result<u64, Refusal>,
    },
}

/// Proposals in one call. A list may claim more than its bytes could ever hold: it is refused while it is read.
pub const MAX_FORWARDED: usize = 4_096;

fn few<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Bytes>, D::Error> {
    struct Few;
    impl<'de> Visitor<'de> for Few {
        type Value = Vec<Bytes>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX_FORWARDED} proposals")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some(item) = items.next_element()? {
                if found.len() == MAX_FORWARDED {
                    return Err(A::Error::invalid_length(found.len() + 1, &self));
                }
                found.push(item);
            }
            Ok(found)
        }
    }
    from.deserialize_seq(Few)
}

/// What became of each of them.
pub type Forwarded = Vec<Result<Bytes, Refusal>>;

/// Why a node did not do what another asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It does not lead; who does, if it knows.
    NotLeader(Option<RaftId>),
    /// It leads, but without a quorum. Nothing was appended.
    NoQuorum(String),
    /// It may have been appended.
    Unknown(String),
    /// Larger than a log entry may be.
    TooLarge(u64),
    /// It is stopping.
    Stopping,
    /// A rule forbids it.
    Refused {
        /// The rule.
        because: String,
        /// What to do.
        remedy: String,
    },
    /// The log refused it.
    Rejected(Rejection),
}

/// Asks for a slot's state folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskState {
    /// For which operation.
    pub operation: OperationId,
    /// Whose state.
    pub slot: SlotId,
    /// The folder inside the instance's own.
    pub state_dir: String,
}

/// A piece of a state folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatePiece {
    /// First: how much is to come.
    Total {
        /// Files and folders.
        entries: u64,
        /// Bytes of all files.
        bytes: u64,
    },
    /// A folder, by its path within the state folder.
    Folder {
        /// Its path.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// A file begins.
    File {
        /// Its path.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// A symbolic link that stays inside the folder.
    Link {
        /// Its path.
        path: String,
        /// What it points to.
        to: String,
    },
    /// More of the current file.
    Bytes(Vec<u8>),
    /// Last: the digest over names and contents.
    End {
        /// Hexadecimal SHA-256.
        digest: String,
    },
}

/// Asks for a slot's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskOutput {
    /// Whose.
    pub slot: SlotId,
    /// So many of the last lines; 0 for all that is kept.
    pub tail: u32,
    /// Then what comes.
    pub follow: bool,
}

/// A piece of output, or why there is no more.
pub type OutputPiece = Result<Vec<u8>, String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        assert!(matches!(decode::<Up>(&[]), Err(WireError::Damaged(_))));
        assert_eq!(decode::<Up>(&[9, 1, 2]), Err(WireError::Version(9)));
        let mut bytes = encode(&Down::Refused("not the leader".to_owned()));
        assert_eq!(decode::<Down>(&bytes), Ok(Down::Refused("not the leader".to_owned())));
        for cut in 1..bytes.len() {
            assert!(decode::<Down>(&bytes[..cut]).is_err());
        }
        for at in 1..bytes.len() {
            bytes[at] = 0xff;
            let _never_panics = decode::<Down>(&bytes);
        }
    }

    #[test]
    fn more_proposals_than_one_call_may_carry_are_refused_while_they_are_read() {
        let ask = |count| {
            let asked = RelayAsk::Propose { id: 3, proposals: vec![Bytes::new(); count] };
            (encode(&asked), asked)
        };
        let (bytes, asked) = ask(MAX_FORWARDED);
        assert_eq!(decode::<RelayAsk>(&bytes), Ok(asked));
        let refused = decode::<RelayAsk>(&ask(MAX_FORWARDED + 1).0);
        assert!(matches!(refused, Err(WireError::Damaged(_))), "{refused:?}");
    }
}

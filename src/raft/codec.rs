//! The bytes of raft on disk and between nodes: our own versioned shapes, converted here from and to
//! the library's types. One version byte leads every message; unknown versions are refused by name.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use openraft::vote::RaftLeaderId;
use quorate_core::ids::Endpoint;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::types::{
    Entry, LogId, Member, Membership, Payload, Proposals, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};

/// The version written. Each later one must go on reading this one.
pub const VERSION: u8 = 1;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Nothing there.
    #[error("{what} is empty")]
    Empty {
        /// What was expected.
        what: &'static str,
    },
    /// Written by a release that this one does not know.
    #[error("{what} has version {version}, this release reads up to {VERSION}; upgrade this node")]
    Version {
        /// What was expected.
        what: &'static str,
        /// The version found.
        version: u8,
    },
    /// Damaged, or something else altogether.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// What was expected.
        what: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

/// A shape that has a place on disk or on the wire.
pub trait Wire: Serialize + DeserializeOwned {
    /// Its name in errors.
    const WHAT: &'static str;

    /// The version byte and the value.
    fn encode(&self) -> Bytes {
        let out = vec![VERSION];
        // Serialising into a growing vector fails only for types that these shapes do not contain.
        postcard::to_extend(self, out).map(Bytes::from).unwrap_or_default()
    }

    /// Reads what `encode` wrote.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let what = Self::WHAT;
        match bytes.split_first() {
            None => Err(CodecError::Empty { what }),
            Some((&VERSION, rest)) => postcard::from_bytes(rest)
                .map_err(|error| CodecError::Damaged { what, reason: error.to_string() }),
            Some((&version, _)) => Err(CodecError::Version { what, version }),
        }
    }
}

macro_rules! wire {
    ($($name:ty = $what:literal),* $(,)?) => {
        $(impl Wire for $name { const WHAT: &'static str = $what; })*
    };
}

wire!(
    VoteV1 = "a vote",
    Option<LogIdV1> = "a log position",
    EntryV1 = "a log entry",
    AppendV1 = "an append",
    AppendAnswerV1 = "an answer to an append",
    AskVoteV1 = "a request for a vote",
    VoteAnswerV1 = "an answer to a request for a vote",
    TransferV1 = "a transfer of leadership",
    TransferAnswerV1 = "an answer to a transfer of leadership",
    SnapshotHeadV1 = "a snapshot's head",
    SnapshotMetaV1 = "a snapshot's description",
    IdentityV1 = "the identity of a raft folder",
);

/// A log position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogIdV1 {
    pub term: u64,
    pub index: u64,
}

/// A vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteV1 {
    pub term: u64,
    pub node: u64,
    pub committed: bool,
}

/// Voters and learners; two sets of voters while one is exchanged for the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipV1 {
    pub voters: Vec<Vec<u64>>,
    pub nodes: Vec<(u64, Vec<Endpoint>)>,
}

/// What an entry carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayloadV1 {
    Blank,
    Proposals(Vec<Bytes>),
    Membership(MembershipV1),
}

/// A log entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryV1 {
    pub id: LogIdV1,
    pub payload: PayloadV1,
}

/// A leader's message: entries, or none as its sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendV1 {
    pub vote: VoteV1,
    pub previous: Option<LogIdV1>,
    pub committed: Option<LogIdV1>,
    pub entries: Vec<EntryV1>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendAnswerV1 {
    Success,
    Partial(Option<LogIdV1>),
    Conflict,
    HigherVote(VoteV1),
}

/// A candidate's question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskVoteV1 {
    pub vote: VoteV1,
    pub last: Option<LogIdV1>,
    pub transfer: bool,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteAnswerV1 {
    pub vote: VoteV1,
    pub granted: bool,
    pub last: Option<LogIdV1>,
}

/// A leader's request that `to` take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferV1 {
    pub from: VoteV1,
    pub to: u64,
    pub last: Option<LogIdV1>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferAnswerV1 {
    Accepted,
    VoteChanged { expected: VoteV1, actual: VoteV1 },
    NotFlushed { expected: Option<LogIdV1>, actual: Option<LogIdV1> },
}

/// What a snapshot covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMetaV1 {
    pub last: Option<LogIdV1>,
    pub membership_at: Option<LogIdV1>,
    pub membership: MembershipV1,
}

/// What goes ahead of a snapshot's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeadV1 {
    pub vote: VoteV1,
    pub meta: SnapshotMetaV1,
    pub length: u64,
    pub hash: u64,
}

/// Whose data a folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityV1 {
    pub cluster: String,
    pub node: u64,
}

impl From<&LogId> for LogIdV1 {
    fn from(id: &LogId) -> Self {
        Self { term: id.committed_leader_id().term, index: id.index() }
    }
}

impl From<LogIdV1> for LogId {
    fn from(id: LogIdV1) -> Self {
        LogId::new_term_index(id.term, id.index)
    }
}

/// A position that may be missing, outward.
pub fn position(id: Option<&LogId>) -> Option<LogIdV1> {
    id.map(LogIdV1::from)
}

/// A position that may be missing, inward.
pub fn log_id(id: Option<LogIdV1>) -> Option<LogId> {
    id.map(LogId::from)
}

impl From<&Vote> for VoteV1 {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<VoteV1> for Vote {
    fn from(vote: VoteV1) -> Self {
        let leader_id = RaftLeaderId::new(vote.term, vote.node);
        Vote { leader_id, committed: vote.committed }
    }
}

impl From<&Membership> for MembershipV1 {
    fn from(membership: &Membership) -> Self {
        let voters = membership.get_joint_config().iter().map(|set| set.iter().copied().collect());
        let nodes = membership.nodes().map(|(id, member)| (*id, member.endpoints.clone()));
        Self { voters: voters.collect(), nodes: nodes.collect() }
    }
}

impl TryFrom<MembershipV1> for Membership {
    type Error = CodecError;
    fn try_from(membership: MembershipV1) -> Result<Self, CodecError> {
        if membership.voters.is_empty() && membership.nodes.is_empty() {
            return Ok(Membership::default());
        }
        let voters = membership.voters.into_iter().map(|set| set.into_iter().collect()).collect();
        let nodes: std::collections::BTreeMap<u64, Member> =
            membership.nodes.into_iter().map(|(id, endpoints)| (id, Member { endpoints })).collect();
        Membership::new(voters, nodes)
            .map_err(|error| CodecError::Damaged { what: "a membership", reason: error.to_string() })
    }
}

impl From<&Entry> for EntryV1 {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            Payload::Blank => PayloadV1::Blank,
            Payload::Normal(proposals) => PayloadV1::Proposals(proposals.0.clone()),
            Payload::Membership(membership) => PayloadV1::Membership(membership.into()),
        };
        Self { id: (&entry.log_id).into(), payload }
    }
}

impl EntryV1 {
    /// The entry as raft takes it.
    pub fn into_entry(self) -> Result<Entry, CodecError> {
        let payload = match self.payload {
            PayloadV1::Blank => Payload::Blank,
            PayloadV1::Proposals(proposals) => Payload::Normal(Proposals(proposals)),
            PayloadV1::Membership(membership) => Payload::Membership(membership.try_into()?),
        };
        Ok(Entry { log_id: self.id.into(), payload })
    }
}

impl From<&AppendEntriesRequest<TypeConfig>> for AppendV1 {
    fn from(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        Self {
            vote: (&request.vote).into(),
            previous: position(request.prev_log_id.as_ref()),
            committed: position(request.leader_commit.as_ref()),
            entries: request.entries.iter().map(EntryV1::from).collect(),
        }
    }
}

impl TryFrom<AppendV1> for AppendEntriesRequest<TypeConfig> {
    type Error = CodecError;
    fn try_from(append: AppendV1) -> Result<Self, CodecError> {
        Ok(Self {
            vote: append.vote.into(),
            prev_log_id: log_id(append.previous),
            leader_commit: log_id(append.committed),
            entries: append.entries.into_iter().map(EntryV1::into_entry).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&AppendEntriesResponse<TypeConfig>> for AppendAnswerV1 {
    fn from(answer: &AppendEntriesResponse<TypeConfig>) -> Self {
        match answer {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(upto) => Self::Partial(position(upto.as_ref())),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<AppendAnswerV1> for AppendEntriesResponse<TypeConfig> {
    fn from(answer: AppendAnswerV1) -> Self {
        match answer {
            AppendAnswerV1::Success => Self::Success,
            AppendAnswerV1::Partial(upto) => Self::PartialSuccess(log_id(upto)),
            AppendAnswerV1::Conflict => Self::Conflict,
            AppendAnswerV1::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<&VoteRequest<TypeConfig>> for AskVoteV1 {
    fn from(ask: &VoteRequest<TypeConfig>) -> Self {
        Self {
            vote: (&ask.vote).into(),
            last: position(ask.last_log_id.as_ref()),
            transfer: ask.leadership_transfer,
        }
    }
}

impl From<AskVoteV1> for VoteRequest<TypeConfig> {
    fn from(ask: AskVoteV1) -> Self {
        Self { vote: ask.vote.into(), last_log_id: log_id(ask.last), leadership_transfer: ask.transfer }
    }
}

impl From<&VoteResponse<TypeConfig>> for VoteAnswerV1 {
    fn from(answer: &VoteResponse<TypeConfig>) -> Self {
        let last = position(answer.last_log_id.as_ref());
        Self { vote: (&answer.vote).into(), granted: answer.vote_granted, last }
    }
}

impl From<VoteAnswerV1> for VoteResponse<TypeConfig> {
    fn from(answer: VoteAnswerV1) -> Self {
        Self { vote: answer.vote.into(), vote_granted: answer.granted, last_log_id: log_id(answer.last) }
    }
}

impl From<&TransferLeaderRequest<TypeConfig>> for TransferV1 {
    fn from(request: &TransferLeaderRequest<TypeConfig>) -> Self {
        let last = position(request.last_log_id());
        Self { from: request.from_leader().into(), to: *request.to_node_id(), last }
    }
}

impl From<TransferV1> for TransferLeaderRequest<TypeConfig> {
    fn from(transfer: TransferV1) -> Self {
        Self::new(transfer.from.into(), transfer.to, log_id(transfer.last))
    }
}

impl From<&TransferLeaderResponse<TypeConfig>> for TransferAnswerV1 {
    fn from(answer: &TransferLeaderResponse<TypeConfig>) -> Self {
        use openraft::raft::TransferLeaderError::{LogNotFlushed, VoteChanged};
        match answer {
            Ok(()) => Self::Accepted,
            Err(VoteChanged { expected, actual }) => {
                Self::VoteChanged { expected: expected.into(), actual: actual.into() }
            }
            Err(LogNotFlushed { expected, actual }) => {
                Self::NotFlushed { expected: position(expected.as_ref()), actual: position(actual.as_ref()) }
            }
        }
    }
}

impl From<TransferAnswerV1> for TransferLeaderResponse<TypeConfig> {
    fn from(answer: TransferAnswerV1) -> Self {
        use openraft::raft::TransferLeaderError::{LogNotFlushed, VoteChanged};
        match answer {
            TransferAnswerV1::Accepted => Ok(()),
            TransferAnswerV1::VoteChanged { expected, actual } => {
                Err(VoteChanged { expected: expected.into(), actual: actual.into() })
            }
            TransferAnswerV1::NotFlushed { expected, actual } => {
                Err(LogNotFlushed { expected: log_id(expected), actual: log_id(actual) })
            }
        }
    }
}

impl From<&SnapshotMeta> for SnapshotMetaV1 {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last: position(meta.last_log_id.as_ref()),
            membership_at: position(meta.last_membership.log_id().as_ref()),
            membership: meta.last_membership.membership().into(),
        }
    }
}

impl TryFrom<SnapshotMetaV1> for SnapshotMeta {
    type Error = CodecError;
    fn try_from(meta: SnapshotMetaV1) -> Result<Self, CodecError> {
        let membership = StoredMembership::new(log_id(meta.membership_at), meta.membership.try_into()?);
        Ok(SnapshotMeta { last_log_id: log_id(meta.last), last_membership: membership })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::ids::Segment;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn membership() -> MembershipV1 {
        let segment = Segment::new("lan").unwrap();
        let endpoint = Endpoint { segment, host: "10.0.0.1".to_owned(), port: 7000 };
        MembershipV1 { voters: vec![vec![1, 2]], nodes: vec![(1, vec![endpoint]), (2, vec![])] }
    }

    /// Golden bytes: what a release wrote, later ones must read.
    #[test]
    fn version_1_is_written_and_read_as_it_always_was() {
        let id = LogIdV1 { term: 3, index: 300 };
        let vote = VoteV1 { term: 3, node: 2, committed: true };
        let entries = [
            (PayloadV1::Blank, "0103ac0200"),
            (PayloadV1::Proposals(vec![Bytes::from_static(b"ab"), Bytes::new()]), "0103ac02010202616200"),
            (PayloadV1::Membership(membership()), "0103ac02020102010202010103"),
        ];
        for (payload, golden) in entries {
            let entry = EntryV1 { id, payload };
            let written = entry.encode();
            assert!(hex(&written).starts_with(golden), "{} is not {golden}", hex(&written));
            assert_eq!(EntryV1::decode(&written).unwrap(), entry);
            let there = entry.clone().into_entry().unwrap();
            assert_eq!(EntryV1::from(&there), entry);
        }
        assert_eq!(hex(&vote.encode()), "01030201");
        let append = AppendV1 { vote, previous: Some(id), committed: None, entries: vec![] };
        assert_eq!(hex(&append.encode()), "010302010103ac020000");
        assert_eq!(hex(&AppendAnswerV1::HigherVote(vote).encode()), "0103030201");
        let meta = SnapshotMetaV1 { last: Some(id), membership_at: None, membership: membership() };
        let golden = "010103ac02000102010202010103";
        assert!(hex(&meta.encode()).starts_with(golden), "{}", hex(&meta.encode()));
    }

    #[test]
    fn unknown_versions_and_damage_are_named() {
        let vote = VoteV1 { term: 1, node: 1, committed: false };
        let mut bytes = vote.encode().to_vec();
        bytes[0] = 2;
        let said = VoteV1::decode(&bytes).unwrap_err().to_string();
        assert!(said.contains("a vote has version 2"), "{said}");
        assert!(matches!(VoteV1::decode(&[]), Err(CodecError::Empty { .. })));
        assert!(matches!(EntryV1::decode(&[VERSION, 0xff]), Err(CodecError::Damaged { .. })));
    }
}

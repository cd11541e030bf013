//! The types raft is told to work with. Nothing here is ever serialised: see `codec` for that.

use std::fmt;

use bytes::Bytes;
use openraft::alias;
use quorate_core::ids::Endpoint;

/// One log entry's worth of proposals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposals(pub Vec<Bytes>);

impl fmt::Display for Proposals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.0.iter().map(Bytes::len).sum();
        write!(f, "{} proposals of {bytes} bytes", self.0.len())
    }
}

/// The answers to one log entry's proposals, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers(pub Vec<Bytes>);

/// What membership knows of a node: where it is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Tried in this order.
    pub endpoints: Vec<Endpoint>,
}

openraft::declare_raft_types!(
    /// Raft as this cluster uses it: one leader a term, opaque batches of proposals.
    pub TypeConfig:
        D = Proposals,
        R = Answers,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

/// A log position.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// A vote, given or won.
pub type Vote = alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = alias::EntryOf<TypeConfig>;
/// What an entry carries.
pub type Payload = openraft::EntryPayload<Proposals, u64, Member>;
/// Voters and learners.
pub type Membership = openraft::Membership<u64, Member>;
/// Voters and learners, and the entry that made them so.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot with its bytes.
pub type Snapshot = alias::SnapshotOf<TypeConfig, Bytes>;
/// The library's handle.
pub type Raft = openraft::Raft<TypeConfig, super::machine::Machine>;

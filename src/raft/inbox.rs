//! Takes in raft's messages from peers. Whether the sender may speak at all was checked before.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::raft::{AppendEntriesRequest, TransferLeaderResponse};
use quorate_core::ids::ClusterId;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{
    AppendAnswerV1, AppendV1, AskVoteV1, SnapshotHeadV1, TransferAnswerV1, TransferV1, VoteAnswerV1, VoteV1,
    Wire,
};
use super::status::Marks;
use super::types::{Raft, Snapshot, TypeConfig};
use crate::ports::{InboxError, PeerCall, PeerInbox};

/// The boot-time clock, in milliseconds.
pub fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Hands messages to raft, and remembers when a leader was last heard.
pub struct Inbox {
    id: u64,
    cluster: ClusterId,
    raft: Raft,
    marks: Arc<Marks>,
}

impl Inbox {
    /// The inbox of node `id`, which notes each accepted append in `marks`.
    pub fn new(id: u64, cluster: ClusterId, raft: Raft, marks: Arc<Marks>) -> Self {
        Self { id, cluster, raft, marks }
    }
}

fn unreadable(error: impl ToString) -> InboxError {
    InboxError::Unreadable(error.to_string())
}

fn stopped(error: impl ToString) -> InboxError {
    InboxError::Stopped(error.to_string())
}

async fn ask(raft: Raft, call: PeerCall, message: Bytes) -> Result<Bytes, InboxError> {
    match call {
        PeerCall::Vote | PeerCall::PreVote => {
            let ask = AskVoteV1::decode(&message).map_err(unreadable)?.into();
            let answer = match call {
                PeerCall::PreVote => raft.pre_vote(ask).await,
                PeerCall::Vote | PeerCall::Transfer | PeerCall::Confirm => raft.vote(ask).await,
            };
            Ok(VoteAnswerV1::from(&answer.map_err(stopped)?).encode())
        }
        PeerCall::Transfer => {
            let transfer = TransferV1::decode(&message).map_err(unreadable)?.into();
            let answer: TransferLeaderResponse<TypeConfig> =
                raft.handle_transfer_leader(transfer).await.map_err(stopped)?;
            Ok(TransferAnswerV1::from(&answer).encode())
        }
        PeerCall::Confirm => {
            let vote = raft.with_raft_state(|state| VoteV1::from(state.vote_ref())).await.map_err(stopped)?;
            Ok(vote.encode())
        }
    }
}

impl PeerInbox for Inbox {
    fn id(&self) -> u64 {
        self.id
    }

    fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    fn append(&self, message: Bytes) -> BoxFuture<'static, Result<Bytes, InboxError>> {
        let (raft, marks, arrived) = (self.raft.clone(), self.marks.clone(), boot_ms());
        Box::pin(async move {
            let append = AppendV1::decode(&message).map_err(unreadable)?;
            let request = AppendEntriesRequest::try_from(append).map_err(unreadable)?;
            let answer = AppendAnswerV1::from(&raft.append_entries(request).await.map_err(stopped)?);
            if !matches!(answer, AppendAnswerV1::HigherVote(_)) {
                marks.hear(arrived, boot_ms());
            }
            Ok(answer.encode())
        })
    }

    fn call(&self, call: PeerCall, message: Bytes) -> BoxFuture<'static, Result<Bytes, InboxError>> {
        Box::pin(ask(self.raft.clone(), call, message))
    }

    fn snapshot(&self, head: Bytes, body: Bytes) -> BoxFuture<'static, Result<Bytes, InboxError>> {
        let raft = self.raft.clone();
        Box::pin(async move {
            let head = SnapshotHeadV1::decode(&head).map_err(unreadable)?;
            if head.length != body.len() as u64 || head.hash != xxh3_64(&body) {
                return Err(unreadable("the snapshot was damaged on its way"));
            }
            let meta = head.meta.try_into().map_err(unreadable)?;
            let snapshot = Snapshot { meta, snapshot: body };
            let answer = raft.install_full_snapshot(head.vote.into(), snapshot).await.map_err(stopped)?;
            Ok(VoteV1::from(&answer.vote).encode())
        })
    }
}

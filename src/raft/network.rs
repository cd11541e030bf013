//! Sends raft's messages over the links that it is handed. Does not know how a link is made of.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, future};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{
    AppendAnswerV1, AppendV1, AskVoteV1, CodecError, SnapshotHeadV1, TransferAnswerV1, TransferV1,
    VoteAnswerV1, VoteV1, Wire,
};
use super::inbox::boot_ms;
use super::notices;
use super::status::Marks;
use super::types::{LogId, Member, Snapshot, TypeConfig, Vote};
use crate::ports::{PeerCall, PeerError, PeerLink, PeerNet};

/// How many appends travel to one peer before the first of them is answered.
const PIPELINE: usize = 8;

/// How long an append without entries may wait for some; timers round it up.
const HOLD: Duration = Duration::from_millis(1);

/// How long each kind of message may take.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// An append, a slow disk at the other end included.
    pub append: Duration,
    /// A vote, a transfer, a confirmation.
    pub call: Duration,
    /// A snapshot that makes no progress.
    pub snapshot: Duration,
}

/// Keeps a leader that no quorum acknowledges silent for a while, again and again: while it is heard,
/// those who could elect another will not. The library does so for its heartbeats alone.
#[derive(Clone)]
pub struct Gate {
    marks: Arc<Marks>,
    /// Silence begins so long after the last sign of a quorum.
    after_ms: u64,
    /// And lasts so long, as do the times between.
    slot_ms: u64,
}

impl Gate {
    /// For elections that take at most `election_max_ms` to begin.
    pub fn new(marks: Arc<Marks>, election_max_ms: u64) -> Self {
        Self { marks, after_ms: election_max_ms * 3, slot_ms: election_max_ms * 4 }
    }

    fn closed(&self) -> bool {
        let last = self.marks.last_authority();
        let over = boot_ms().saturating_sub(last).checked_sub(self.after_ms);
        last > 0 && over.is_some_and(|over| (over / self.slot_ms.max(1)).is_multiple_of(2))
    }
}

/// Makes a [`Peer`] for each node that raft wants to talk to, and remembers the links.
#[derive(Clone)]
pub struct Peers {
    net: Arc<dyn PeerNet>,
    waits: Waits,
    gate: Gate,
    links: Arc<Mutex<BTreeMap<u64, Arc<dyn PeerLink>>>>,
    hurry: Arc<Notify>,
}

impl Peers {
    /// Uses `net` to reach them.
    pub fn new(net: Arc<dyn PeerNet>, waits: Waits, gate: Gate) -> Self {
        Self { net, waits, gate, links: Arc::default(), hurry: Arc::default() }
    }

    /// Has what is held back go out at once: somebody waits to see it elsewhere.
    pub fn hurry(&self) {
        self.hurry.notify_waiters();
    }

    /// The link to a peer that is reached at these endpoints.
    pub fn link(&self, peer: u64, member: &Member) -> Arc<dyn PeerLink> {
        let link = self.net.link(peer, &member.endpoints);
        self.links.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, link.clone());
        link
    }

    /// The link to a peer as last made, or a new one.
    pub fn known(&self, peer: u64, member: &Member) -> Arc<dyn PeerLink> {
        let known = self.links.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned();
        known.unwrap_or_else(|| self.link(peer, member))
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        let (link, gate, hurry) = (self.link(target, node), self.gate.clone(), self.hurry.clone());
        Peer { target, link, waits: self.waits, gate, hurry }
    }
}

/// The way to one peer, as raft uses it.
pub struct Peer {
    target: u64,
    link: Arc<dyn PeerLink>,
    waits: Waits,
    gate: Gate,
    hurry: Arc<Notify>,
}

fn unreachable(error: &PeerError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn unreadable(error: &CodecError) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

/// Sends appends; apart from [`Peer`] so that a stream can own it.
struct Sender {
    target: u64,
    link: Arc<dyn PeerLink>,
    within: Duration,
    gate: Gate,
}

impl Sender {
    /// A request on its way: sent when this returns, answered when the future is done.
    fn submit(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
    ) -> impl Future<Output = Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>>> + Send + use<>
    {
        let reason = "this leader has no quorum and keeps silent, so that others may elect one";
        let answer = if self.gate.closed() {
            let silent = PeerError::Unreachable { peer: self.target, reason: reason.to_owned() };
            Box::pin(future::ready(Err(silent)))
        } else {
            self.link.append(AppendV1::from(request).encode(), self.within)
        };
        async move {
            let bytes = answer.await.map_err(|error| unreachable(&error))?;
            AppendAnswerV1::decode(&bytes).map(Into::into).map_err(|error| unreadable(&error))
        }
    }
}

fn ends(request: &AppendEntriesRequest<TypeConfig>) -> (Option<LogId>, Option<LogId>) {
    let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
    (request.prev_log_id, last)
}

type AppendItem = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

impl Peer {
    fn sender(&self) -> Sender {
        let (link, gate) = (self.link.clone(), self.gate.clone());
        Sender { target: self.target, link, within: self.waits.append, gate }
    }

    async fn ask<A: Wire>(&self, call: PeerCall, message: Bytes) -> Result<A, RPCError<TypeConfig>> {
        let bytes =
            self.link.call(call, message, self.waits.call).await.map_err(|error| unreachable(&error))?;
        A::decode(&bytes).map_err(|error| unreadable(&error))
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.sender().submit(&rpc).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendItem>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let sender = self.sender();
        let hurry = self.hurry.clone();
        let answers = notices::held_back(input, hurry, HOLD).map(move |request| {
            let (previous, last) = ends(&request);
            let answer = sender.submit(&request);
            async move { answer.await.map(|answer| answer.into_stream_result(previous, last)) }
        });
        // Whatever follows a refusal was built on what was refused.
        let until_refused = answers.buffered(PIPELINE).scan(false, |refused, item: AppendItem| {
            let give = (!*refused).then_some(());
            *refused = !matches!(item, Ok(Ok(_)));
            future::ready(give.map(|()| item))
        });
        let stream: BoxStream<'s, AppendItem> = Box::pin(until_refused);
        Box::pin(future::ready(Ok(stream)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.gate.marks.campaign(boot_ms());
        self.ask::<VoteAnswerV1>(PeerCall::Vote, AskVoteV1::from(&rpc).encode()).await.map(Into::into)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask::<VoteAnswerV1>(PeerCall::PreVote, AskVoteV1::from(&rpc).encode()).await.map(Into::into)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let body = snapshot.snapshot;
        let head = SnapshotHeadV1 {
            vote: (&vote).into(),
            meta: (&snapshot.meta).into(),
            length: body.len() as u64,
            hash: xxh3_64(&body),
        };
        let sending = self.link.snapshot(head.encode(), body, self.waits.snapshot);
        let bytes = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = sending => answer.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?,
        };
        let vote =
            VoteV1::decode(&bytes).map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        Ok(SnapshotResponse::new(vote.into()))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask::<TransferAnswerV1>(PeerCall::Transfer, TransferV1::from(&req).encode())
            .await
            .map(Into::into)
    }
}

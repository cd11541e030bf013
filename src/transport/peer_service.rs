//! The server's end of raft's messages: refuses what is meant for another cluster or node, and
//! delivers the rest in order.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::epoch::Epochs;
use super::link::{CLUSTER_KEY, MAX_MESSAGE, TO_KEY};
use super::proto::peer_server::{Peer, PeerServer};
use super::proto::{CallAnswer, CallKind, CallRequest, Chunk, Frame};
use crate::ports::{InboxError, PeerCall, PeerInbox};

/// Messages of one stream that wait for their answer.
const PENDING: usize = 256;
/// The largest snapshot taken in.
const MAX_SNAPSHOT: usize = 1024 * 1024 * 1024;

/// The service that delivers to `inbox`, for [`super::serve`].
pub fn peer_service(inbox: Arc<dyn PeerInbox>, epochs: Epochs) -> PeerServer<impl Peer> {
    PeerServer::new(Delivery { inbox, epochs, snapshots: Semaphore::new(1) })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// How long a snapshot may stop on its way.
const SNAPSHOT_STALL: Duration = Duration::from_secs(15);

struct Delivery {
    inbox: Arc<dyn PeerInbox>,
    epochs: Epochs,
    snapshots: Semaphore,
}

/// The next piece of a snapshot, from a sender that goes on sending.
async fn next(chunks: &mut Streaming<Chunk>) -> Result<Option<Chunk>, Status> {
    match timeout(SNAPSHOT_STALL, chunks.message()).await {
        Ok(chunk) => chunk,
        Err(_) => Err(Status::deadline_exceeded("the snapshot stopped coming")),
    }
}

fn refusal(error: InboxError) -> Status {
    match error {
        InboxError::Unreadable(_) => Status::invalid_argument(error.to_string()),
        InboxError::Stopped(_) => Status::unavailable(error.to_string()),
    }
}

impl Delivery {
    /// An address may have passed to another node since the sender learnt it.
    fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let named = |key| metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (cluster, to) = (named(CLUSTER_KEY), named(TO_KEY));
        if cluster != self.inbox.cluster().0 {
            let mine = self.inbox.cluster();
            return Err(Status::failed_precondition(format!("this is cluster {mine}, not {cluster:?}")));
        }
        if to.parse() != Ok(self.inbox.id()) {
            let mine = self.inbox.id();
            return Err(Status::failed_precondition(format!("this is node {mine}, not {to:?}")));
        }
        self.epochs.check(metadata)
    }
}

#[tonic::async_trait]
impl Peer for Delivery {
    type StreamStream = ReceiverStream<Result<Frame, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        self.check(request.metadata())?;
        let (out, outbound) = mpsc::channel(PENDING);
        let (epochs, opened) = (self.epochs.clone(), self.epochs.now());
        let holds = move || epochs.holds(opened);
        tokio::spawn(deliver(self.inbox.clone(), holds, request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(outbound)))
    }

    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallAnswer>, Status> {
        self.check(request.metadata())?;
        let request = request.into_inner();
        let call = match CallKind::try_from(request.kind) {
            Ok(CallKind::Vote) => PeerCall::Vote,
            Ok(CallKind::PreVote) => PeerCall::PreVote,
            Ok(CallKind::Transfer) => PeerCall::Transfer,
            Ok(CallKind::Confirm) => PeerCall::Confirm,
            Ok(CallKind::Unspecified) | Err(_) => {
                return Err(Status::unimplemented(format!("question {} is not known here", request.kind)));
            }
        };
        let body = self.inbox.call(call, request.body).await.map_err(refusal)?;
        Ok(Response::new(CallAnswer { body }))
    }

    async fn snapshot(&self, request: Request<Streaming<Chunk>>) -> Result<Response<CallAnswer>, Status> {
        self.check(request.metadata())?;
        let mut chunks = request.into_inner();
        // Each may take much memory, and one that is not the newest is of no use.
        let _only = self.snapshots.acquire().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let first =
            next(&mut chunks).await?.ok_or_else(|| Status::invalid_argument("the snapshot is empty"))?;
        let mut body = BytesMut::from(first.body.as_ref());
        while let Some(chunk) = next(&mut chunks).await? {
            if body.len() + chunk.body.len() > MAX_SNAPSHOT {
                return Err(Status::resource_exhausted(format!(
                    "a snapshot has at most {MAX_SNAPSHOT} bytes"
                )));
            }
            body.extend_from_slice(&chunk.body);
        }
        let body = self.inbox.snapshot(first.head, body.freeze()).await.map_err(refusal)?;
        Ok(Response::new(CallAnswer { body }))
    }
}

type Delivered = Pin<Box<dyn Future<Output = (u64, Result<Bytes, InboxError>)> + Send>>;

/// Delivers in the order of arrival, answers in the order of completion; until this node is in another epoch than
/// the stream was opened in.
async fn deliver(
    inbox: Arc<dyn PeerInbox>,
    holds: impl Fn() -> bool,
    mut inbound: Streaming<Frame>,
    out: mpsc::Sender<Result<Frame, Status>>,
) {
    let mut pending: FuturesUnordered<Delivered> = FuturesUnordered::new();
    loop {
        let (id, outcome) = tokio::select! {
            Some(done) = pending.next(), if !pending.is_empty() => done,
            frame = inbound.message(), if pending.len() < PENDING => {
                let Ok(Some(Frame { id, body, error: _, kind })) = frame else { return };
                if !holds() {
                    return;
                }
                let answer: BoxFuture<'static, Result<Bytes, InboxError>> = match CallKind::try_from(kind) {
                    Ok(CallKind::Confirm) => inbox.call(PeerCall::Confirm, body),
                    _ => inbox.append(body),
                };
                let mut answer: Delivered = Box::pin(answer.map(move |outcome| (id, outcome)));
                // The first poll hands it over: only after that may the next one be read.
                match futures::poll!(&mut answer) {
                    std::task::Poll::Ready(done) => done,
                    std::task::Poll::Pending => {
                        pending.push(answer);
                        continue;
                    }
                }
            }
        };
        let frame = match outcome {
            Ok(body) => Frame { id, body, error: String::new(), kind: 0 },
            Err(error) => Frame { id, body: Bytes::new(), error: error.to_string(), kind: 0 },
        };
        if out.send(Ok(frame)).await.is_err() {
            return;
        }
    }
}

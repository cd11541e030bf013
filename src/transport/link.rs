//! The one persistent stream to a peer, and the questions and snapshots beside it. A stream that
//! breaks or is stuck is left, so that the next message finds another segment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use quorate_core::ids::{Endpoint, Epoch};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::dial::{Dialer, Lane};
use super::proto::peer_client::PeerClient;
use super::proto::{CallKind, CallRequest, Chunk, Frame};
use crate::ports::{PeerCall, PeerError, PeerLink, PeerNet};

/// Messages that wait for the stream, and those on it that wait for an answer.
const QUEUE: usize = 256;
const OPEN_WITHIN: Duration = Duration::from_secs(3);
/// After a failure everything fails at once for so long, instead of dialling for each message.
const REST: Duration = Duration::from_millis(20);
/// A peer that answers pings and nothing else for so many times the allowed silence is stuck.
const STUCK: u32 = 5;
const CHUNK: usize = 256 * 1024;
/// Messages are at most a little larger than one log read.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Metadata that names whom a call is meant for.
pub const CLUSTER_KEY: &str = "quorate-cluster";
/// The raft id it is meant for.
pub const TO_KEY: &str = "quorate-to";
/// The raft id it comes from.
pub const FROM_KEY: &str = "quorate-from";

type Answer = oneshot::Sender<Result<Bytes, PeerError>>;

struct Job {
    kind: CallKind,
    message: Bytes,
    answer: Answer,
}

/// The way to one peer.
pub struct Link {
    peer: u64,
    dialer: Dialer,
    jobs: mpsc::Sender<Job>,
    /// Set when a question on the stream was not answered, until anything is.
    stuck: Arc<AtomicBool>,
}

impl PeerNet for Dialer {
    fn link(&self, peer: u64, endpoints: &[Endpoint]) -> Arc<dyn PeerLink> {
        self.set(peer, endpoints);
        self.shared_link(peer)
    }
}

fn failure(dialer: &Dialer, peer: u64, status: &Status) -> PeerError {
    dialer.inner().epochs.note(status);
    let reason = status.message().to_owned();
    match status.code() {
        Code::Unauthenticated | Code::FailedPrecondition | Code::PermissionDenied | Code::InvalidArgument => {
            PeerError::Refused { peer, reason }
        }
        _ => PeerError::Unreachable { peer, reason: format!("{}: {reason}", status.code()) },
    }
}

fn addressed<T>(dialer: &Dialer, peer: u64, message: T) -> Result<Request<T>, PeerError> {
    let inner = dialer.inner();
    inner.epochs.may_send().map_err(|reason| PeerError::Refused { peer, reason })?;
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    let cluster = inner.cluster.0.parse().map_err(|_| PeerError::Refused {
        peer,
        reason: format!("cluster id {:?} cannot be sent", inner.cluster.0),
    })?;
    metadata.insert(CLUSTER_KEY, cluster);
    metadata.insert(TO_KEY, peer.into());
    metadata.insert(FROM_KEY, inner.me.into());
    Ok(request)
}

impl Link {
    /// Starts the stream's task, which connects with the first message and ends with the link.
    pub(super) fn start(dialer: Dialer, peer: u64) -> Arc<Self> {
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let stuck = Arc::new(AtomicBool::new(false));
        tokio::spawn(run(dialer.clone(), peer, inbox, stuck.clone()));
        Arc::new(Self { peer, dialer, jobs, stuck })
    }

    fn client(&self, lane: Lane) -> PeerClient<super::PeerChannel> {
        PeerClient::new(self.dialer.channel(self.peer, lane))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    fn on_stream(
        &self,
        kind: CallKind,
        message: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, PeerError>> + Send + use<> {
        let (answer, outcome) = oneshot::channel();
        let sent = self.jobs.try_send(Job { kind, message, answer });
        let peer = self.peer;
        async move {
            if let Err(error) = sent {
                return Err(PeerError::Unreachable { peer, reason: format!("its stream has {error}") });
            }
            match tokio::time::timeout(within, outcome).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(PeerError::Unreachable { peer, reason: "its stream has ended".to_owned() }),
                Err(_) => Err(timed_out(peer, within)),
            }
        }
    }
}

impl PeerLink for Link {
    fn append(&self, message: Bytes, within: Duration) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        Box::pin(self.on_stream(CallKind::Unspecified, message, within))
    }

    fn call(
        &self,
        call: PeerCall,
        message: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        // The most frequent question goes with the appends, and beside them only where those are stuck.
        if call == PeerCall::Confirm && !self.stuck.load(Ordering::Relaxed) {
            let (answer, stuck) = (self.on_stream(CallKind::Confirm, message, within), self.stuck.clone());
            return Box::pin(async move {
                let answer = answer.await;
                stuck.fetch_or(matches!(answer, Err(PeerError::TimedOut { .. })), Ordering::Relaxed);
                answer
            });
        }
        let (peer, dialer, mut client) = (self.peer, self.dialer.clone(), self.client(Lane::Raft));
        let kind = match call {
            PeerCall::Vote => CallKind::Vote,
            PeerCall::PreVote => CallKind::PreVote,
            PeerCall::Transfer => CallKind::Transfer,
            PeerCall::Confirm => CallKind::Confirm,
        };
        Box::pin(async move {
            let request = addressed(&dialer, peer, CallRequest { kind: kind.into(), body: message })?;
            match tokio::time::timeout(within, client.call(request)).await {
                Ok(Ok(answer)) => {
                    dialer.answered(peer, Lane::Raft);
                    Ok(answer.into_inner().body)
                }
                Ok(Err(status)) => Err(failure(&dialer, peer, &status)),
                Err(_) => {
                    dialer.unanswered(peer, Lane::Raft);
                    Err(timed_out(peer, within))
                }
            }
        })
    }

    fn snapshot(
        &self,
        head: Bytes,
        body: Bytes,
        stall: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (peer, dialer, mut client) = (self.peer, self.dialer.clone(), self.client(Lane::Snapshot));
        Box::pin(async move {
            let (chunks, outbound) = mpsc::channel(4);
            let feed = feed(head, body, chunks, stall);
            let request = addressed(&dialer, peer, ReceiverStream::new(outbound))?;
            let answer = client.snapshot(request);
            tokio::pin!(answer, feed);
            let answer = tokio::select! {
                answer = &mut answer => answer,
                fed = &mut feed => {
                    if !fed {
                        dialer.reset(peer, Lane::Snapshot);
                        return Err(timed_out(peer, stall));
                    }
                    // All is sent: what remains is that the peer installs it.
                    match tokio::time::timeout(stall * 6, &mut answer).await {
                        Ok(answer) => answer,
                        Err(_) => return Err(timed_out(peer, stall * 6)),
                    }
                }
            };
            answer.map(|answer| answer.into_inner().body).map_err(|status| failure(&dialer, peer, &status))
        })
    }
}

/// Sends the chunks as fast as they are taken; false when none was for `stall`.
async fn feed(head: Bytes, body: Bytes, chunks: mpsc::Sender<Chunk>, stall: Duration) -> bool {
    let (mut head, mut rest) = (Some(head), body);
    while head.is_some() || !rest.is_empty() {
        let body = rest.split_to(rest.len().min(CHUNK));
        let chunk = Chunk { head: head.take().unwrap_or_default(), body };
        match tokio::time::timeout(stall, chunks.send(chunk)).await {
            Ok(Ok(())) => {}
            // The call has ended, and says why itself.
            Ok(Err(_)) => return true,
            Err(_) => return false,
        }
    }
    true
}

fn timed_out(peer: u64, within: Duration) -> PeerError {
    PeerError::TimedOut { peer, within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX) }
}

async fn run(dialer: Dialer, peer: u64, mut jobs: mpsc::Receiver<Job>, stuck: Arc<AtomicBool>) {
    while let Some(first) = jobs.recv().await {
        let opened = dialer.inner().epochs.now();
        let failed = match open(&dialer, peer).await {
            Ok((out, inbound)) => {
                let pending = BTreeMap::new();
                let mut session = Session { peer, opened, out, pending, next: 0, stuck: &stuck };
                session.send(first);
                let ended = session.run(inbound, &mut jobs, &dialer).await;
                session.fail(&ended);
                ended
            }
            Err(error) => {
                drop(first.answer.send(Err(error.clone())));
                error
            }
        };
        dialer.reset(peer, Lane::Raft);
        tracing::debug!(peer, error = %failed, "the stream to a peer has ended");
        let rest = tokio::time::sleep(REST);
        tokio::pin!(rest);
        loop {
            tokio::select! {
                () = &mut rest => break,
                job = jobs.recv() => match job {
                    Some(job) => drop(job.answer.send(Err(failed.clone()))),
                    None => return,
                }
            }
        }
    }
}

type Open = (mpsc::Sender<Frame>, Streaming<Frame>);

async fn open(dialer: &Dialer, peer: u64) -> Result<Open, PeerError> {
    let mut client = PeerClient::new(dialer.channel(peer, Lane::Raft))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let (out, outbound) = mpsc::channel(QUEUE);
    let request = addressed(dialer, peer, ReceiverStream::new(outbound))?;
    match tokio::time::timeout(OPEN_WITHIN, client.stream(request)).await {
        Ok(Ok(answer)) => Ok((out, answer.into_inner())),
        Ok(Err(status)) => Err(failure(dialer, peer, &status)),
        Err(_) => Err(timed_out(peer, OPEN_WITHIN)),
    }
}

struct Session<'a> {
    peer: u64,
    /// The epoch it was opened in; it ends with that.
    opened: Epoch,
    out: mpsc::Sender<Frame>,
    /// Sent and not answered, with when they were sent.
    pending: BTreeMap<u64, (Answer, Instant)>,
    next: u64,
    stuck: &'a AtomicBool,
}

impl Session<'_> {
    fn send(&mut self, job: Job) {
        if job.answer.is_closed() {
            return;
        }
        if self.pending.len() >= QUEUE {
            let reason = "too many messages wait for it".to_owned();
            return drop(job.answer.send(Err(PeerError::Unreachable { peer: self.peer, reason })));
        }
        let id = self.next;
        self.next += 1;
        match self.out.try_send(Frame { id, body: job.message, error: String::new(), kind: job.kind.into() })
        {
            Ok(()) => drop(self.pending.insert(id, (job.answer, Instant::now()))),
            Err(error) => {
                let reason = format!("its stream has {error}");
                drop(job.answer.send(Err(PeerError::Unreachable { peer: self.peer, reason })));
            }
        }
    }

    fn take(&mut self, frame: Frame) {
        let Some((answer, _)) = self.pending.remove(&frame.id) else { return };
        let outcome = if frame.error.is_empty() {
            Ok(frame.body)
        } else {
            Err(PeerError::Refused { peer: self.peer, reason: frame.error })
        };
        // Whoever no longer waits needs no answer.
        drop(answer.send(outcome));
    }

    fn fail(&mut self, error: &PeerError) {
        for (_, (answer, _)) in std::mem::take(&mut self.pending) {
            drop(answer.send(Err(error.clone())));
        }
    }

    /// Until the stream breaks, is silent for too long while an answer is due, or nobody needs it.
    async fn run(
        &mut self,
        mut inbound: Streaming<Frame>,
        jobs: &mut mpsc::Receiver<Job>,
        dialer: &Dialer,
    ) -> PeerError {
        let (peer, silence) = (self.peer, dialer.inner().silence * STUCK);
        let (epochs, opened) = (&dialer.inner().epochs, self.opened);
        let mut heard = Instant::now();
        let mut check = tokio::time::interval(silence / 4);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                frame = inbound.message() => match frame {
                    Ok(Some(frame)) => {
                        heard = Instant::now();
                        self.stuck.store(false, Ordering::Relaxed);
                        self.take(frame);
                    }
                    Ok(None) => {
                        return PeerError::Unreachable { peer, reason: "it closed its stream".to_owned() };
                    }
                    Err(status) => return failure(dialer, peer, &status),
                },
                job = jobs.recv() => match job {
                    Some(job) if epochs.holds(opened) => self.send(job),
                    Some(_) => {
                        let reason = "this node is in another epoch now".to_owned();
                        return PeerError::Unreachable { peer, reason };
                    }
                    None => {
                        return PeerError::Unreachable { peer, reason: "its link was dropped".to_owned() };
                    }
                },
                now = check.tick() => {
                    let oldest = self.pending.values().next().map(|(_, sent)| *sent);
                    if oldest.is_some_and(|sent| now.duration_since(sent.max(heard)) > silence) {
                        return timed_out(peer, silence);
                    }
                }
            }
        }
    }
}

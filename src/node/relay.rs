//! The one stream to whoever leads elsewhere, over which the callers of this node propose and read. What waits goes
//! together. What was sent and not answered when the stream ends is unknown. Does not know what a proposal means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::cluster_proto::Packet;
use super::inner::Inner;
use super::peers::{CallError, failed, pack, relay_to};
use super::propose;
use super::wire::{Forwarded, MAX_FORWARDED, Refusal, RelayAnswer, RelayAsk, decode};
use crate::raft::{DEPTH, Entrance, Gathered, gather, goes_beside};
use crate::transport::Lane;

/// Callers that wait to be sent.
const QUEUE: usize = 16 * 1024;
/// Bytes of one batch, beside its last proposal.
const BATCH_BYTES: usize = 128 * 1024;
/// How long the leader may take to take the stream.
const OPEN_WITHIN: Duration = Duration::from_secs(1);
/// After a failure all are turned away at once for so long, unless another leads before.
const REST: Duration = Duration::from_millis(20);
/// What one node asks of the leader at once; whoever sends more is not read for a while.
const UNDER_WAY: usize = 64;

type Tell<T> = oneshot::Sender<Result<T, Refusal>>;

struct Write {
    proposal: Bytes,
    tell: Tell<Bytes>,
}

/// Where callers enter.
pub(super) struct Relay {
    writes: Entrance<Write>,
    reads: mpsc::Sender<Tell<u64>>,
}

/// The other end of a [`Relay`].
pub(super) struct Errands {
    writes: Gathered<Write>,
    reads: mpsc::Receiver<Tell<u64>>,
}

/// Both ends.
pub(super) fn relay() -> (Relay, Errands) {
    let ((writes, from_writers), (reads, from_readers)) = (gather(QUEUE), mpsc::channel(QUEUE));
    (Relay { writes, reads }, Errands { writes: from_writers, reads: from_readers })
}

impl Relay {
    /// Has the leader propose it.
    pub(super) async fn propose(&self, proposal: Bytes) -> Result<Bytes, Refusal> {
        let (tell, told) = oneshot::channel();
        self.writes.send(Write { proposal, tell }).await.map_err(|_| Refusal::Stopping)?;
        told.await.unwrap_or(Err(Refusal::Stopping))
    }

    /// A quorum round of the leader that begins after this call.
    pub(super) async fn read_index(&self) -> Result<u64, Refusal> {
        let (tell, told) = oneshot::channel();
        self.reads.send(tell).await.map_err(|_| Refusal::Stopping)?;
        told.await.unwrap_or(Err(Refusal::Stopping))
    }
}

/// Carries errands to whoever leads until the node ends. On the runtime of the callers: no thread more on their way.
pub(super) async fn run(inner: Arc<Inner>, mut errands: Errands) {
    let (mut standing, me) = (inner.raft.standing(), inner.raft_id.0);
    loop {
        standing.borrow_and_update();
        if let Some(leader) = inner.raft.leader_elsewhere() {
            match open(&inner, leader).await {
                Ok((out, answers)) => {
                    let mut session = Session { out, next: 0, writes: BTreeMap::new(), reads: None };
                    let why = session.run(&inner, leader, answers, &mut errands).await;
                    session.fail(&why);
                }
                Err(error) => tracing::debug!(leader, %error, "no stream to the leader"),
            }
        }
        let elsewhere = async {
            drop(timeout(REST, standing.changed()).await);
            standing.wait_for(|standing| standing.leader.is_some_and(|leader| leader != me)).await.is_ok()
        };
        if !errands.turn_away(elsewhere).await {
            return;
        }
    }
}

impl Errands {
    /// Tells all who come meanwhile to look anew. False when the node ends.
    async fn turn_away(&mut self, meanwhile: impl Future<Output = bool>) -> bool {
        tokio::pin!(meanwhile);
        loop {
            tokio::select! {
                biased;
                write = self.writes.first() => match write {
                    Some(write) => drop(write.tell.send(Err(Refusal::NotLeader(None)))),
                    None => return false,
                },
                read = self.reads.recv() => match read {
                    Some(tell) => drop(tell.send(Err(Refusal::NotLeader(None)))),
                    None => return false,
                },
                on = &mut meanwhile => return on,
            }
        }
    }

    /// All proposals that wait, beginning with this one, as far as they go together.
    fn batch(&mut self, first: Write) -> Vec<Write> {
        let (mut bytes, mut batch) = (first.proposal.len(), vec![first]);
        while bytes < BATCH_BYTES && batch.len() < MAX_FORWARDED {
            let Some(next) = self.writes.more() else { break };
            bytes += next.proposal.len();
            batch.push(next);
        }
        self.writes.goes(batch.len());
        batch
    }
}

async fn open(inner: &Inner, leader: u64) -> Result<(mpsc::Sender<Packet>, Streaming<Packet>), CallError> {
    let name = format!("raft id {leader}");
    let (out, packets) = mpsc::channel(DEPTH + 1);
    match timeout(OPEN_WITHIN, relay_to(&inner.dialer, leader).relay(ReceiverStream::new(packets))).await {
        Ok(Ok(answer)) => Ok((out, answer.into_inner())),
        Ok(Err(status)) => Err(failed(&name, &status)),
        Err(_) => {
            // Another segment may answer.
            inner.dialer.reset(leader, Lane::Relay);
            Err(CallError::Unanswered { address: name, why: "it did not answer in time".to_owned() })
        }
    }
}

struct Session {
    out: mpsc::Sender<Packet>,
    next: u64,
    /// Sent and not answered.
    writes: BTreeMap<u64, Vec<Tell<Bytes>>>,
    /// One round at a time: who comes later must have one that begins later.
    reads: Option<(u64, Vec<Tell<u64>>)>,
}

impl Session {
    /// Until the stream ends, another leads, or nobody needs it; says why.
    async fn run(
        &mut self,
        inner: &Inner,
        leader: u64,
        mut answers: Streaming<Packet>,
        errands: &mut Errands,
    ) -> String {
        let mut standing = inner.raft.standing();
        let moved = standing.wait_for(|standing| standing.leader != Some(leader));
        tokio::pin!(moved);
        let mut readers = Vec::new();
        loop {
            let sent = tokio::select! {
                packet = answers.message() => match packet {
                    Ok(Some(packet)) => self.take(&packet),
                    Ok(None) => Err("the leader ended the stream".to_owned()),
                    Err(status) => Err(failed("the leader", &status).to_string()),
                },
                write = errands.writes.first(), if self.room() => match write {
                    Some(first) => self.propose(errands.batch(first)),
                    None => Err("the node ends".to_owned()),
                },
                count = errands.reads.recv_many(&mut readers, QUEUE), if self.reads.is_none() => match count {
                    0 => Err("the node ends".to_owned()),
                    _ => self.read(std::mem::take(&mut readers)),
                },
                _ = &mut moved => Err("the leader changed".to_owned()),
            };
            if let Err(why) = sent {
                return why;
            }
        }
    }

    fn send(&mut self, ask: &RelayAsk) -> Result<(), String> {
        // There is room for all that may be under way.
        self.out.try_send(pack(ask)).map_err(|_| "the stream to the leader is closed".to_owned())
    }

    /// May another batch of proposals go?
    fn room(&self) -> bool {
        self.writes.len() < DEPTH && self.writes.values().all(|tells| goes_beside(tells.len()))
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn propose(&mut self, batch: Vec<Write>) -> Result<(), String> {
        let id = self.number();
        let (proposals, tells) = batch.into_iter().map(|write| (write.proposal, write.tell)).unzip();
        self.writes.insert(id, tells);
        self.send(&RelayAsk::Propose { id, proposals })
    }

    fn read(&mut self, readers: Vec<Tell<u64>>) -> Result<(), String> {
        let id = self.number();
        self.reads = Some((id, readers));
        self.send(&RelayAsk::Read { id })
    }

    fn take(&mut self, packet: &Packet) -> Result<(), String> {
        // Whoever gave up meanwhile needs no answer.
        match decode(&packet.body).map_err(|error| format!("the leader's answer cannot be read: {error}"))? {
            RelayAnswer::Proposed { id, answers } => {
                let tells = self.writes.remove(&id).unwrap_or_default();
                let missing =
                    std::iter::repeat_with(|| Err(Refusal::Unknown("it was not answered".to_owned())));
                for (tell, answer) in tells.into_iter().zip(answers.into_iter().chain(missing)) {
                    drop(tell.send(answer));
                }
            }
            RelayAnswer::Read { id, index } => {
                if let Some((_, readers)) = self.reads.take_if(|(sent, _)| *sent == id) {
                    for tell in readers {
                        drop(tell.send(index.clone()));
                    }
                }
            }
        }
        Ok(())
    }

    /// What was sent may have been acted on; a read changes nothing.
    fn fail(self, why: &str) {
        for tell in self.writes.into_values().flatten() {
            drop(tell.send(Err(Refusal::Unknown(why.to_owned()))));
        }
        for tell in self.reads.into_iter().flat_map(|(_, readers)| readers) {
            drop(tell.send(Err(Refusal::NotLeader(None))));
        }
    }
}

/// The leader's end of one node's stream, until either leaves.
pub(super) async fn serve(
    inner: Arc<Inner>,
    mut asks: Streaming<Packet>,
    answers: mpsc::Sender<Result<Packet, Status>>,
) {
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    while let Some(Ok(packet)) = asks.next().await {
        let Ok(ask) = decode::<RelayAsk>(&packet.body) else { return };
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let (inner, answers) = (inner.clone(), answers.clone());
        tokio::spawn(async move {
            let answer = match ask {
                RelayAsk::Propose { id, proposals } => {
                    RelayAnswer::Proposed { id, answers: propose_all(&inner, proposals).await }
                }
                RelayAsk::Read { id } => {
                    RelayAnswer::Read { id, index: propose::read_index_here(&inner).await }
                }
            };
            // Whoever is gone needs no answer.
            drop(answers.send(Ok(pack(&answer))).await);
            drop(place);
        });
    }
}

/// Proposes together what may be proposed, and gives every answer in its place.
async fn propose_all(inner: &Inner, proposals: Vec<Bytes>) -> Forwarded {
    let vetted: Vec<Result<(), Refusal>> =
        proposals.iter().map(|proposal| propose::vet(inner, proposal)).collect();
    let good: Vec<Bytes> =
        proposals.into_iter().zip(&vetted).filter(|(_, vet)| vet.is_ok()).map(|(one, _)| one).collect();
    if good.is_empty() {
        return vetted.into_iter().filter_map(|vet| vet.err().map(Err)).collect();
    }
    let outcome = inner.raft.propose_all(good).await.map(Vec::into_iter);
    let mut outcome = outcome.map_err(|error| propose::refusal(inner, error));
    let mut next = || match &mut outcome {
        Ok(answers) => answers.next().ok_or_else(|| Refusal::Unknown("it was not answered".to_owned())),
        Err(refusal) => Err(refusal.clone()),
    };
    vetted.into_iter().map(|vet| vet.and_then(|()| next())).collect()
}

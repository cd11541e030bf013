//! Packs the proposals of many callers into few log entries: while one that carries many is on its way, everything
//! that arrives waits and goes together in the next. Does not know what a proposal is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::gather::{DEPTH, Entrance, Gathered, gather, goes_beside};
use super::handle::{ProposeError, Shared};
use super::types::Proposals;

/// The largest proposal, and the most that several proposed together may have.
pub const MAX_PROPOSAL_BYTES: usize = 1024 * 1024;
/// The largest entry made of several.
const MAX_ENTRY_BYTES: usize = 128 * 1024;
const MAX_ENTRY_PROPOSALS: usize = 1024;
/// Proposals waiting, in number and bytes.
const QUEUE: usize = 8 * 1024;
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// How often a leader that no quorum has acknowledged yet is asked again.
const RETRY: Duration = Duration::from_millis(5);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const GIVEN_UP: u8 = 2;

type Outcome = Result<Vec<Bytes>, ProposeError>;

struct Job {
    /// They go together in one entry.
    proposals: Vec<Bytes>,
    bytes: usize,
    state: Arc<AtomicU8>,
    answer: oneshot::Sender<Outcome>,
    /// Given back when the job is done.
    _room: OwnedSemaphorePermit,
}

/// Where proposals enter.
#[derive(Clone)]
pub struct Proposer {
    jobs: Entrance<Job>,
    room: Arc<Semaphore>,
    within: Duration,
}

/// The other end of a [`Proposer`].
pub struct Queue(Gathered<Job>);

/// A queue for proposals that are given up after `within`.
pub fn queue(within: Duration) -> (Proposer, Queue) {
    let (jobs, inbox) = gather(QUEUE);
    (Proposer { jobs, room: Arc::new(Semaphore::new(QUEUE_BYTES)), within }, Queue(inbox))
}

impl Proposer {
    /// Has `proposals` appended in one entry and applied, and gives their answers in the same order.
    pub async fn propose(&self, proposals: Vec<Bytes>) -> Outcome {
        let bytes = proposals.iter().map(Bytes::len).sum();
        if bytes > MAX_PROPOSAL_BYTES {
            return Err(ProposeError::TooLarge { bytes, limit: MAX_PROPOSAL_BYTES });
        }
        let state = Arc::new(AtomicU8::new(WAITING));
        match tokio::time::timeout(self.within, self.send(proposals, bytes, state.clone())).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let given_up =
                    state.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok();
                Err(if given_up { ProposeError::NoQuorum } else { ProposeError::Unknown })
            }
        }
    }

    async fn send(&self, proposals: Vec<Bytes>, bytes: usize, state: Arc<AtomicU8>) -> Outcome {
        let cost = u32::try_from(bytes.max(64)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(cost).await;
        let room = room.map_err(|_| ProposeError::Shutdown)?;
        let (answer, outcome) = oneshot::channel();
        let taken = state.clone();
        let job = Job { proposals, bytes, state, answer, _room: room };
        self.jobs.send(job).await.map_err(|_| ProposeError::Shutdown)?;
        outcome.await.unwrap_or_else(|_| {
            // Raft is gone: what was not taken up was not appended.
            let untouched = taken.load(Ordering::Acquire) != TAKEN;
            Err(if untouched { ProposeError::Shutdown } else { ProposeError::Unknown })
        })
    }
}

/// Runs until every [`Proposer`] is gone.
pub async fn run(shared: Arc<Shared>, mut queue: Queue) {
    let depth = Arc::new(Semaphore::new(DEPTH));
    loop {
        let Ok(slot) = depth.clone().acquire_owned().await else { return };
        let Some(first) = queue.0.first().await else { return };
        let batch = collect(first, &mut queue.0);
        queue.0.goes(batch.len());
        if batch.is_empty() {
            continue;
        }
        let count = batch.iter().map(|job| job.proposals.len()).sum();
        let shared = shared.clone();
        let writing = async move {
            write(&shared, batch).await;
            drop(slot);
        };
        if goes_beside(count) {
            tokio::spawn(writing);
        } else {
            writing.await;
        }
    }
}

/// Everything that waits, up to one entry's size, without those that were given up.
fn collect(first: Job, queue: &mut Gathered<Job>) -> Vec<Job> {
    let mut batch = Vec::new();
    let (mut bytes, mut count) = (0, 0);
    let mut next = Some(first);
    while let Some(job) = next {
        let wanted = !job.answer.is_closed()
            && job.state.compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if wanted {
            (bytes, count) = (bytes + job.bytes, count + job.proposals.len());
            batch.push(job);
        }
        let room = bytes < MAX_ENTRY_BYTES && count < MAX_ENTRY_PROPOSALS;
        next = if room { queue.more() } else { None };
    }
    batch
}

async fn write(shared: &Shared, mut batch: Vec<Job>) {
    let counts: Vec<usize> = batch.iter().map(|job| job.proposals.len()).collect();
    let proposals = Proposals(batch.iter_mut().flat_map(|job| std::mem::take(&mut job.proposals)).collect());
    let outcome = append(shared, proposals).await;
    match outcome {
        Ok(answers) => {
            let mut answers = answers.into_iter();
            for (job, count) in batch.into_iter().zip(counts) {
                let own: Vec<Bytes> = answers.by_ref().take(count).collect();
                // Whoever no longer waits needs no answer.
                drop(job.answer.send(if own.len() == count { Ok(own) } else { Err(ProposeError::Unknown) }));
            }
        }
        Err(error) => {
            for job in batch {
                drop(job.answer.send(Err(error.clone())));
            }
        }
    }
}

async fn append(shared: &Shared, proposals: Proposals) -> Result<Vec<Bytes>, ProposeError> {
    let patience = Instant::now() + shared.timing.lost_after();
    loop {
        let error = match shared.raft.client_write(proposals.clone()).await {
            Ok(done) => return Ok(done.data.0),
            Err(error) => error,
        };
        match error {
            RaftError::Fatal(_) => return Err(ProposeError::Unknown),
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => return Err(ProposeError::Unknown),
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => match forward.reason {
                // It leads, but no quorum has acknowledged it yet, or no longer does: not appended.
                ForwardReason::LeaseExpired if Instant::now() < patience && !shared.lost() => {
                    tokio::time::sleep(RETRY).await;
                }
                ForwardReason::LeaseExpired => return Err(ProposeError::NoQuorum),
                ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
                    return Err(shared.not_leader(forward.leader_id).into());
                }
            },
            RaftError::APIError(
                error
                @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)),
            ) => {
                tracing::error!(%error, "a proposal was answered as if it were a change of membership");
                return Err(ProposeError::Unknown);
            }
        }
    }
}

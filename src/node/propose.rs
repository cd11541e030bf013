//! The way of a proposal to whoever leads: appended here, or forwarded with others that wait. What was
//! certainly not appended is tried again until a leader is found or patience ends; what may have been is
//! `unknown`, unless its request id makes a second try harmless.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::command::{Command, Proposal};
use quorate_core::plan;
use quorate_core::state::{Answer, State, codec};
use quorate_core::units::Millis;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::inner::Inner;
use super::peers::{CallError, failed, member, pack};
use super::wire::{self, Forward, Forwarded, Refusal};
use crate::ports::SubmitError;
use crate::raft::{MAX_PROPOSAL_BYTES, ProposeError, ReadError};

/// Without a leader that has a quorum, a caller hears so within this.
const NO_LEADER: Duration = Duration::from_millis(900);
/// Between two looks for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Proposals forwarded in one call.
const BATCH: usize = 256;
/// Calls under way at once.
const DEPTH: usize = 4;

struct Waiting {
    proposal: Bytes,
    within: Duration,
    leader: u64,
    tell: oneshot::Sender<Result<Bytes, Refusal>>,
}

/// Gathers what is to be forwarded.
pub(super) struct Forwarder(mpsc::Sender<Waiting>);

/// The forwarder's other end.
pub(super) struct Forwards(mpsc::Receiver<Waiting>);

/// Both ends.
pub(super) fn forwarder() -> (Forwarder, Forwards) {
    let (send, receive) = mpsc::channel(16 * 1024);
    (Forwarder(send), Forwards(receive))
}

/// Forwards in batches until the node ends.
pub(super) async fn forward(inner: Arc<Inner>, mut forwards: Forwards) {
    let depth = Arc::new(tokio::sync::Semaphore::new(DEPTH));
    let mut batch = Vec::new();
    while let Ok(permit) = depth.clone().acquire_owned().await {
        if forwards.0.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        let leader = batch.last().map_or(0, |waiting| waiting.leader);
        // What was meant for another leader looks anew.
        for waiting in batch.extract_if(.., |waiting| waiting.leader != leader) {
            drop(waiting.tell.send(Err(Refusal::NotLeader(None))));
        }
        let (inner, batch) = (inner.clone(), std::mem::take(&mut batch));
        tokio::spawn(async move {
            forward_batch(&inner, leader, batch).await;
            drop(permit);
        });
    }
}

async fn forward_batch(inner: &Inner, leader: u64, batch: Vec<Waiting>) {
    let within = batch.iter().map(|waiting| waiting.within).max().unwrap_or_default();
    let proposals = batch.iter().map(|waiting| waiting.proposal.to_vec()).collect();
    let message = Forward { proposals, within: Millis(within.as_millis() as u64) };
    let outcome = call(inner, leader, &message, within).await;
    let mut answers = match outcome {
        Ok(answers) if answers.len() == batch.len() => answers,
        Ok(_) => vec![Err(Refusal::Unknown("the leader's answer cannot be read".to_owned())); batch.len()],
        Err(refusal) => vec![Err(refusal); batch.len()],
    };
    for (waiting, answer) in batch.into_iter().zip(answers.drain(..)) {
        // Whoever gave up meanwhile needs no answer.
        drop(waiting.tell.send(answer.map(Bytes::from)));
    }
}

async fn call(inner: &Inner, leader: u64, message: &Forward, within: Duration) -> Result<Forwarded, Refusal> {
    let name = format!("raft id {leader}");
    match timeout(within, member(&inner.dialer, leader).forward(pack(message))).await {
        Err(_) => Err(Refusal::Unknown(format!("{name} did not answer in time"))),
        Ok(Ok(answer)) => {
            wire::decode(&answer.into_inner().body).map_err(|error| Refusal::Unknown(error.to_string()))
        }
        Ok(Err(status)) => Err(match failed(&name, &status) {
            error @ CallError::Unanswered { .. } => Refusal::Unknown(error.to_string()),
            // It cannot have been appended there; the next leader may be known soon.
            CallError::Unreachable { .. } => Refusal::NotLeader(None),
            error @ CallError::Denied { .. } => Refusal::Refused {
                because: error.to_string(),
                remedy: "check that all nodes have the same cluster secret".to_owned(),
            },
        }),
    }
}

/// Proposes here, on the leader.
pub(super) async fn propose_here(inner: &Inner, proposal: Bytes) -> Result<Bytes, Refusal> {
    vet(inner, &proposal)?;
    inner.raft.propose(proposal).await.map_err(|error| match error {
        ProposeError::NotLeader { leader } => Refusal::NotLeader(leader.map(quorate_core::ids::RaftId)),
        ProposeError::NoQuorum => Refusal::NoQuorum(quorum_words(inner)),
        ProposeError::Unknown => Refusal::Unknown("no quorum acknowledged it in time".to_owned()),
        ProposeError::TooLarge { limit, .. } => Refusal::TooLarge(limit as u64),
        ProposeError::Shutdown => Refusal::Stopping,
    })
}

/// What only the leader's ears can refuse.
fn vet(inner: &Inner, proposal: &Bytes) -> Result<(), Refusal> {
    // What cannot be read is refused by all alike, once it is committed.
    let Ok(proposal) = codec::decode_proposal(proposal) else { return Ok(()) };
    if matches!(proposal.command, Command::Recover(_)) {
        return Err(Refusal::Refused {
            because: "a recovery is no proposal".to_owned(),
            remedy: "stop the node, then use quorate raft recover or quorate snapshot restore".to_owned(),
        });
    }
    let Command::AttestDead { node, .. } = &proposal.command else { return Ok(()) };
    let state = inner.state();
    let observed = inner.observed(&state, inner.now());
    if !inner.leads() {
        return Ok(());
    }
    plan::attest_check(&observed, &state, node).map_err(Refusal::Rejected)
}

/// Where this node stands, for those who are refused.
pub(super) fn quorum_words(inner: &Inner) -> String {
    let (now, status) = (inner.now(), inner.status.borrow());
    let heard = match status.leader_heard {
        Some(at) => format!("last heard from a leader {} ago", now.since(at)),
        None => "no leader was heard".to_owned(),
    };
    format!(
        "{} of {} voters decide, {heard} on {}",
        status.voters.len() / 2 + 1,
        status.voters.len(),
        inner.me()
    )
}

/// Proposes through whoever leads.
pub(super) async fn submit(
    inner: &Inner,
    proposal: &Proposal,
    within: Duration,
) -> Result<Answer, SubmitError> {
    let bytes = Bytes::from(codec::encode_proposal(proposal));
    if bytes.len() > MAX_PROPOSAL_BYTES {
        return Err(SubmitError::TooLarge { limit: MAX_PROPOSAL_BYTES });
    }
    let began = Instant::now();
    let (deadline, patience) = (began + within, began + within.min(NO_LEADER));
    let mut maybe = None;
    loop {
        let unknown = |why: String| SubmitError::Unknown { why, request: proposal.request.clone() };
        let refusal = match timeout_at(deadline, once(inner, bytes.clone(), deadline)).await {
            Err(_) => return Err(unknown(format!("no answer within {} ms", within.as_millis()))),
            Ok(Ok(answer)) => {
                return codec::decode_answer(&answer).map_err(|error| unknown(error.to_string()));
            }
            Ok(Err(refusal)) => refusal,
        };
        match refusal {
            Refusal::NotLeader(_) => {}
            Refusal::NoQuorum(why) if Instant::now() >= patience => {
                return Err(maybe.map_or(SubmitError::NoQuorum { why }, unknown));
            }
            Refusal::NoQuorum(_) => {}
            // A request id makes it safe: the first of the two that is applied answers both.
            Refusal::Unknown(why) if proposal.request.is_some() => maybe = Some(why),
            Refusal::Unknown(why) => return Err(unknown(why)),
            Refusal::TooLarge(limit) => return Err(SubmitError::TooLarge { limit: limit as usize }),
            Refusal::Stopping if *inner.stopping.borrow() => return Err(SubmitError::Stopping),
            Refusal::Stopping => {}
            Refusal::Refused { because, remedy } => return Err(SubmitError::Refused { because, remedy }),
            Refusal::Rejected(rejection) => {
                let revision = inner.state().revision;
                return Ok(Answer { revision, result: Err(rejection) });
            }
        }
        let now = Instant::now();
        if now >= patience && (maybe.is_none() || now >= deadline) {
            let why = quorum_words(inner);
            return Err(maybe.map_or(SubmitError::NoQuorum { why }, unknown));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn once(inner: &Inner, proposal: Bytes, deadline: Instant) -> Result<Bytes, Refusal> {
    let leader = match propose_here(inner, proposal.clone()).await {
        Err(Refusal::NotLeader(Some(leader))) if leader != inner.raft_id => leader.0,
        outcome => return outcome,
    };
    let (tell, told) = oneshot::channel();
    let within = deadline.saturating_duration_since(Instant::now());
    let waiting = Waiting { proposal, within, leader, tell };
    inner.forwarder.0.send(waiting).await.map_err(|_| Refusal::Stopping)?;
    told.await.unwrap_or(Err(Refusal::Stopping))
}

/// State as of a quorum round that began after this call.
pub(super) async fn linearizable(inner: &Inner, within: Duration) -> Result<Arc<State>, SubmitError> {
    let began = Instant::now();
    let (deadline, patience) = (began + within, began + within.min(NO_LEADER));
    loop {
        let round = timeout_at(deadline, read_index(inner, deadline)).await;
        match round {
            Ok(Ok(index)) => return applied(inner, index, deadline).await,
            Ok(Err(Refusal::Stopping)) if *inner.stopping.borrow() => return Err(SubmitError::Stopping),
            Ok(Err(Refusal::Refused { because, remedy })) => {
                return Err(SubmitError::Refused { because, remedy });
            }
            Ok(Err(_)) if Instant::now() < patience => tokio::time::sleep(LOOK_AGAIN).await,
            // A read changes nothing: without an answer there was none.
            Ok(Err(_)) | Err(_) => return Err(SubmitError::NoQuorum { why: quorum_words(inner) }),
        }
    }
}

async fn applied(inner: &Inner, index: u64, deadline: Instant) -> Result<Arc<State>, SubmitError> {
    let mut status = inner.status.clone();
    let reached = timeout_at(deadline, status.wait_for(|status| status.applied >= index)).await;
    match reached {
        Ok(Ok(_)) => Ok(inner.state()),
        Ok(Err(_)) => Err(SubmitError::Stopping),
        Err(_) => {
            let why = format!("{} has not caught up to entry {index}", inner.me());
            Err(SubmitError::NoQuorum { why })
        }
    }
}

/// A quorum round by whoever leads.
pub(super) async fn read_index(inner: &Inner, deadline: Instant) -> Result<u64, Refusal> {
    let leader = match inner.raft.read_index().await {
        Ok(index) => return Ok(index),
        Err(ReadError::NotLeader { leader: Some(leader) }) if leader != inner.raft_id.0 => leader,
        Err(ReadError::NotLeader { .. }) => return Err(Refusal::NotLeader(None)),
        Err(ReadError::NoQuorum) => return Err(Refusal::NoQuorum(quorum_words(inner))),
        Err(ReadError::Shutdown) => return Err(Refusal::Stopping),
    };
    // The lane to a member belongs to Raft's runtime; this may be called on any.
    let dialer = inner.dialer.clone();
    let asked = inner
        .raft
        .runtime()
        .spawn(async move { timeout_at(deadline, member(&dialer, leader).read_index(pack(&()))).await });
    match asked.await {
        Ok(Ok(Ok(answer))) => {
            let answer: Result<Result<u64, Refusal>, _> = wire::decode(&answer.into_inner().body);
            answer.unwrap_or_else(|error| Err(Refusal::Unknown(error.to_string())))
        }
        Ok(Ok(Err(status))) => {
            tracing::debug!(leader, %status, "no quorum round");
            Err(Refusal::NotLeader(None))
        }
        Ok(Err(_)) | Err(_) => Err(Refusal::NotLeader(None)),
    }
}

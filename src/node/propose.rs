//! The way of a proposal to whoever leads: appended here, or relayed with others that wait. What was
//! certainly not appended is tried again until a leader is found or patience ends; what may have been is
//! `unknown`, unless its request id makes a second try harmless.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::command::{Command, Proposal};
use quorate_core::ids::RaftId;
use quorate_core::plan;
use quorate_core::state::{Answer, JOIN_ANEW, State, codec};
use tokio::time::{Instant, timeout, timeout_at};

use super::inner::Inner;
use super::wire::Refusal;
use crate::ports::SubmitError;
use crate::raft::{MAX_PROPOSAL_BYTES, ProposeError, ReadError};

/// Without a leader that has a quorum, a caller hears so within this.
const NO_LEADER: Duration = Duration::from_millis(750);
/// And within this if none has been there for longer than a lease: none is expected in a moment.
const LONG_GONE: Duration = Duration::from_millis(200);
/// Between two looks for a leader, unless another leads before.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Proposes here, on the leader, what another node or the planner asks for.
pub(super) async fn propose_here(inner: &Inner, proposal: Bytes) -> Result<Bytes, Refusal> {
    vet(inner, &proposal)?;
    append(inner, proposal).await
}

async fn append(inner: &Inner, proposal: Bytes) -> Result<Bytes, Refusal> {
    inner.raft.propose(proposal).await.map_err(|error| refusal(inner, error))
}

/// As other nodes are told.
pub(super) fn refusal(inner: &Inner, error: ProposeError) -> Refusal {
    match error {
        ProposeError::NotLeader { leader } => Refusal::NotLeader(leader.map(RaftId)),
        ProposeError::NoQuorum => Refusal::NoQuorum(quorum_words(inner)),
        ProposeError::Unknown => Refusal::Unknown("no quorum acknowledged it in time".to_owned()),
        ProposeError::TooLarge { limit, .. } => Refusal::TooLarge(limit as u64),
        ProposeError::Shutdown => Refusal::Stopping,
    }
}

/// What only the leader's ears can refuse.
pub(super) fn vet(inner: &Inner, proposal: &Bytes) -> Result<(), Refusal> {
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
    if let Some(ahead) = inner.epochs.ahead() {
        let mine = inner.epochs.now();
        return format!(
            "the cluster went on without {} in epoch {ahead}, and its data is of epoch {mine}; {JOIN_ANEW}",
            inner.me()
        );
    }
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

/// How long a leader is looked for.
fn patience(inner: &Inner) -> Duration {
    let lease = inner.state().cluster.settings.terms.lease;
    let heard = inner.status.borrow().leader_heard;
    let gone = heard.is_some_and(|at| inner.now().since(at) > lease);
    if gone { LONG_GONE } else { NO_LEADER }
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
    let (deadline, patience) = (began + within, began + within.min(patience(inner)));
    let (mut maybe, mut standing) = (None, inner.raft.standing());
    loop {
        standing.borrow_and_update();
        let unknown = |why: String| SubmitError::Unknown { why, request: proposal.request.clone() };
        let refusal = match timeout_at(deadline, once(inner, bytes.clone())).await {
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
        drop(timeout(LOOK_AGAIN, standing.changed()).await);
    }
}

async fn once(inner: &Inner, proposal: Bytes) -> Result<Bytes, Refusal> {
    match inner.raft.leader_elsewhere() {
        Some(_) => inner.relay.propose(proposal).await,
        None => propose_here(inner, proposal).await,
    }
}

/// State as of a quorum round that began after this call.
pub(super) async fn linearizable(inner: &Inner, within: Duration) -> Result<Arc<State>, SubmitError> {
    let began = Instant::now();
    let (deadline, patience) = (began + within, began + within.min(patience(inner)));
    loop {
        let round = timeout_at(deadline, read_index(inner)).await;
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
async fn read_index(inner: &Inner) -> Result<u64, Refusal> {
    match inner.raft.leader_elsewhere() {
        Some(_) => inner.relay.read_index().await,
        None => read_index_here(inner).await,
    }
}

/// A quorum round by this node.
pub(super) async fn read_index_here(inner: &Inner) -> Result<u64, Refusal> {
    inner.raft.read_index().await.map_err(|error| match error {
        ReadError::NotLeader { leader } => Refusal::NotLeader(leader.map(RaftId)),
        ReadError::NoQuorum => Refusal::NoQuorum(quorum_words(inner)),
        ReadError::Shutdown => Refusal::Stopping,
    })
}

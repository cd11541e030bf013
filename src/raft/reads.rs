//! Quorum rounds: is this node still the leader, as of a moment after the question came? The
//! library's own quorum clock credits a message with the acknowledgement of an earlier one that ends
//! at the same entry, so the voters are asked directly, one round for all who wait.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::LinearizerOption;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::Linearizer;
use tokio::sync::{mpsc, oneshot};

use super::codec::{VoteV1, Wire};
use super::handle::{ReadError, Shared};
use super::inbox::boot_ms;
use super::status::RaftRole;
use super::types::{StoredMembership, TypeConfig};
use crate::ports::PeerCall;

type Outcome = Result<u64, ReadError>;
/// Who waits for a round.
pub type Waiter = oneshot::Sender<Outcome>;

/// As leader, a round is made at least this often, so that the age of the last one means something.
const IDLE_ROUND: Duration = Duration::from_millis(250);
/// How long applying may take once the round is through.
const APPLY_WITHIN: Duration = Duration::from_secs(10);

/// Answers waiters in rounds until every sender is gone.
pub async fn run(shared: Arc<Shared>, mut waiting: mpsc::Receiver<Waiter>) {
    let mut waiters = Vec::new();
    loop {
        let idle = tokio::time::timeout(IDLE_ROUND, waiting.recv_many(&mut waiters, usize::MAX >> 1)).await;
        match idle {
            Ok(0) => return,
            Ok(_) => {}
            Err(_) if shared.status.borrow().role == RaftRole::Leader => {}
            Err(_) => continue,
        }
        match round(&shared).await {
            Ok(read) => {
                shared.rounds.notify_one();
                if !waiters.is_empty() {
                    // Those who read elsewhere wait until it is applied there.
                    shared.peers.hurry();
                }
                tokio::spawn(finish(shared.clone(), read, std::mem::take(&mut waiters)));
            }
            Err(error) => answer(std::mem::take(&mut waiters), &Err(error)),
        }
    }
}

fn answer(waiters: Vec<Waiter>, outcome: &Outcome) {
    for waiter in waiters {
        // Whoever no longer waits needs no answer.
        drop(waiter.send(outcome.clone()));
    }
}

async fn finish(shared: Arc<Shared>, read: Linearizer<TypeConfig>, waiters: Vec<Waiter>) {
    let index = read.read_log_id().index();
    let outcome = match read.try_await_ready(&shared.raft, Some(APPLY_WITHIN)).await {
        Ok(Ok(_)) => Ok(index),
        Ok(Err(_)) => Err(ReadError::NoQuorum),
        Err(_) => Err(ReadError::Shutdown),
    };
    answer(waiters, &outcome);
}

/// One round. The order matters: the vote first, then what is to be read, then the voters, then the
/// vote again. A leader elected in between shows in one of the last two.
async fn round(shared: &Shared) -> Result<Linearizer<TypeConfig>, ReadError> {
    let began = boot_ms();
    let (vote, membership) = standing(shared).await?;
    if vote.node != shared.id {
        return Err(shared.not_leader(vote.committed.then_some(vote.node)).into());
    }
    let read = shared.raft.get_read_linearizer(LinearizerOption::new(None, false)).await;
    let read = read.map_err(|error| match error {
        RaftError::Fatal(_) => ReadError::Shutdown,
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
            shared.not_leader(forward.leader_id).into()
        }
        RaftError::APIError(_) => ReadError::NoQuorum,
    })?;
    confirm(shared, vote, &membership).await?;
    let (after, _) = standing(shared).await?;
    if after.term != vote.term || after.node != vote.node {
        return Err(shared.not_leader(None).into());
    }
    shared.marks.ack(vote.term, began);
    Ok(read)
}

async fn standing(shared: &Shared) -> Result<(VoteV1, Arc<StoredMembership>), ReadError> {
    let state = shared.raft.with_raft_state(|state| {
        (VoteV1::from(state.vote_ref()), state.membership_state.effective().clone())
    });
    state.await.map_err(|_| ReadError::Shutdown)
}

/// Asks the voters until a majority of each set says that it knows of no newer term.
async fn confirm(shared: &Shared, vote: VoteV1, membership: &StoredMembership) -> Result<(), ReadError> {
    let mut agreed = BTreeSet::from([shared.id]);
    let message = vote.encode();
    let mut asked: FuturesUnordered<_> = membership
        .voter_ids()
        .filter(|id| *id != shared.id)
        .filter_map(|id| membership.get_node(&id).map(|member| (id, shared.peers.known(id, member))))
        .map(|(id, link)| {
            let answer = link.call(PeerCall::Confirm, message.clone(), shared.timing.call());
            async move { (id, answer.await) }
        })
        .collect();
    loop {
        if is_quorum(membership, &agreed) {
            return Ok(());
        }
        match asked.next().await {
            None => return Err(ReadError::NoQuorum),
            Some((id, Ok(bytes))) => match VoteV1::decode(&bytes) {
                Ok(theirs) if theirs.term > vote.term => return Err(shared.not_leader(None).into()),
                Ok(_) => {
                    agreed.insert(id);
                }
                Err(error) => tracing::warn!(peer = id, %error, "a voter's answer cannot be read"),
            },
            Some((id, Err(error))) => tracing::debug!(peer = id, %error, "a voter did not answer a round"),
        }
    }
}

/// A majority of every set of voters.
pub fn is_quorum(membership: &StoredMembership, agreed: &BTreeSet<u64>) -> bool {
    membership.get_joint_config().iter().all(|voters| voters.intersection(agreed).count() * 2 > voters.len())
}

//! Changes of membership and leadership. Does not decide who should be a member.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardReason, InitializeError, RaftError};
use quorate_core::ids::Endpoint;

use super::handle::{ChangeError, RaftHandle, Shared};
use super::status::RaftRole;
use super::types::{Member, TypeConfig};

/// How long a change may take before its outcome is called unknown.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);

type WriteError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

fn refused(shared: &Shared, error: WriteError) -> ChangeError {
    match error {
        RaftError::Fatal(_) => ChangeError::Shutdown,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ChangeError::Unknown,
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => match forward.reason {
            ForwardReason::LeaseExpired => ChangeError::NoQuorum,
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
                shared.not_leader(forward.leader_id).into()
            }
        },
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
                ChangeError::Busy
            }
            error => ChangeError::Refused { reason: error.to_string() },
        },
        RaftError::APIError(ClientWriteError::PreconditionFailed(error)) => {
            ChangeError::Refused { reason: error.to_string() }
        }
    }
}

impl RaftHandle {
    /// Runs on raft's runtime, where timers are, and gives up after a while.
    async fn change<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let task = self.runtime.spawn(async move {
            tokio::time::timeout(CHANGE_WITHIN, work).await.unwrap_or(Err(ChangeError::Unknown))
        });
        task.await.unwrap_or(Err(ChangeError::Unknown))
    }

    async fn write(&self, changes: ChangeMembers<u64, Member>, keep: bool) -> Result<(), ChangeError> {
        let shared = self.shared.clone();
        self.change(async move {
            let done = shared.raft.change_membership(changes, keep).await;
            done.map(|_| ()).map_err(|error| refused(&shared, error))
        })
        .await
    }

    /// Makes this node the one voter of a new cluster. On a node that is already a member of one it
    /// changes nothing and succeeds.
    pub async fn bootstrap(&self, endpoints: Vec<Endpoint>) -> Result<(), ChangeError> {
        let shared = self.shared.clone();
        self.change(async move {
            let members = BTreeMap::from([(shared.id, Member { endpoints })]);
            match shared.raft.initialize(members).await {
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
                Err(RaftError::Fatal(_)) => Err(ChangeError::Shutdown),
                Err(RaftError::APIError(error)) => Err(ChangeError::Refused { reason: error.to_string() }),
            }
        })
        .await
    }

    /// Adds a node that gets the log and has no vote. Does not wait until it has caught up: see
    /// the status' `lag`.
    pub async fn add_learner(&self, id: u64, endpoints: Vec<Endpoint>) -> Result<(), ChangeError> {
        let shared = self.shared.clone();
        self.change(async move {
            let done = shared.raft.add_learner(id, Member { endpoints }, false).await;
            done.map(|_| ()).map_err(|error| refused(&shared, error))
        })
        .await
    }

    /// Has a member reached elsewhere from now on.
    pub async fn set_endpoints(&self, id: u64, endpoints: Vec<Endpoint>) -> Result<(), ChangeError> {
        if !self.shared.status.borrow().endpoints.contains_key(&id) {
            return Err(ChangeError::Refused { reason: format!("node {id} is not a member; add it first") });
        }
        self.write(ChangeMembers::SetNodes(BTreeMap::from([(id, Member { endpoints })])), true).await
    }

    /// Makes exactly these members the voters; those that were become learners.
    pub async fn change_voters(&self, voters: BTreeSet<u64>) -> Result<(), ChangeError> {
        self.write(ChangeMembers::ReplaceAllVoters(voters), true).await
    }

    /// Removes a member, its vote first.
    pub async fn remove(&self, id: u64) -> Result<(), ChangeError> {
        let (voter, member) = {
            let status = self.shared.status.borrow();
            (status.voters.contains(&id), status.endpoints.contains_key(&id))
        };
        if voter {
            return self.write(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false).await;
        }
        if !member {
            return Ok(());
        }
        self.write(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false).await
    }

    /// Hands leadership to a voter; done when that one leads.
    pub async fn transfer_leader(&self, id: u64) -> Result<(), ChangeError> {
        let shared = self.shared.clone();
        let mut status = self.status();
        {
            let now = status.borrow();
            if now.role != RaftRole::Leader {
                return Err(shared.not_leader(now.leader).into());
            }
            if !now.voters.contains(&id) {
                return Err(ChangeError::Refused {
                    reason: format!("node {id} is no voter; make it one first"),
                });
            }
        }
        let within = shared.timing.lost_after() * 2;
        self.change(async move {
            shared.raft.trigger().transfer_leader(id).await.map_err(|_| ChangeError::Shutdown)?;
            let led = status.wait_for(|status| status.leader == Some(id) && status.term > 0);
            match tokio::time::timeout(within, led).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(ChangeError::Shutdown),
                Err(_) => Err(ChangeError::Unknown),
            }
        })
        .await
    }

    /// Takes a snapshot now, and lets the log before it be removed.
    pub async fn trigger_snapshot(&self) -> Result<(), ChangeError> {
        self.shared.raft.trigger().snapshot().await.map_err(|_| ChangeError::Shutdown)
    }
}

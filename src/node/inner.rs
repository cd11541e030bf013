//! What the parts of a running node share. Each field has one writer; locks are held for moments and
//! never across an await.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_core::command::NodeFacts;
use quorate_core::ids::{BootId, NodeId, RaftId};
use quorate_core::lease::{Lease, LeaseGranter, LeaseHolder};
use quorate_core::observation::{NodeReport, Observed, RaftObserved};
use quorate_core::state::State;
use quorate_core::units::BootMs;
use quorate_core::view::ClusterView;
use tokio::sync::{Notify, mpsc, watch};

use super::answer::Ask;
use super::effects::Works;
use super::identity::Identity;
use super::machine::KvLog;
use super::options::NodeOptions;
use super::peers::Addresses;
use super::reach;
use super::relay::Relay;
use super::sightings::Sightings;
use crate::host;
use crate::raft::{RaftHandle, RaftRole, RaftStatus};
use crate::transport::{Datagrams, Dialer, Epochs};

/// A running node's parts.
pub(super) struct Inner {
    pub(super) options: NodeOptions,
    pub(super) identity: Identity,
    /// The epoch it is in; whoever is behind is refused.
    pub(super) epochs: Epochs,
    pub(super) raft_id: RaftId,
    /// What this node says of itself, but for what changes while it runs.
    pub(super) facts: NodeFacts,
    pub(super) boot: BootId,
    /// Drawn by this process.
    pub(super) process: u64,
    pub(super) secret: String,
    pub(super) raft: RaftHandle,
    pub(super) status: watch::Receiver<RaftStatus>,
    pub(super) states: watch::Receiver<Arc<State>>,
    pub(super) kv: Arc<KvLog>,
    pub(super) views: watch::Sender<Arc<ClusterView>>,
    pub(super) sightings: Mutex<Sightings>,
    /// Who reaches whom.
    pub(super) reach: Mutex<reach::Known>,
    pub(super) holder: Mutex<LeaseHolder>,
    /// As leader: whom it may answer. Made anew with each leadership.
    pub(super) granter: Mutex<LeaseGranter>,
    /// The number of the terms that the guard holds.
    pub(super) terms: AtomicU64,
    /// When this node began to lead in its present term, if it does: term and moment.
    pub(super) leading: Mutex<Option<(u64, BootMs)>>,
    /// Whom it follows in which term, and since when.
    pub(super) following: Mutex<Option<(u64, u64, BootMs)>>,
    pub(super) works: Works,
    pub(super) dialer: Dialer,
    /// Without them a link that works one way reads as one that is down.
    pub(super) datagrams: Option<Datagrams>,
    pub(super) addresses: Addresses,
    pub(super) relay: Relay,
    pub(super) asks: mpsc::Sender<Ask>,
    /// Something was seen: decide anew.
    pub(super) wake: Notify,
    /// Something of this node changed that the leader should hear of before the next beat.
    pub(super) hurry: Notify,
    /// Set when the node is to end.
    pub(super) stopping: watch::Sender<bool>,
}

/// A lock whose holder panicked still guards plain data.
pub(super) fn hold<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(|broken| broken.into_inner())
}

impl Inner {
    pub(super) fn me(&self) -> &NodeId {
        &self.identity.node
    }

    pub(super) fn state(&self) -> Arc<State> {
        self.states.borrow().clone()
    }

    pub(super) fn lease(&self) -> Option<Lease> {
        hold(&self.holder).lease().copied()
    }

    /// Does this node lead, as far as it knows?
    pub(super) fn leads(&self) -> bool {
        self.status.borrow().role == RaftRole::Leader
    }

    /// Raft as decisions see it.
    pub(super) fn raft_observed(&self, state: &State, now: BootMs) -> RaftObserved {
        let status = self.status.borrow();
        let leading = status.role == RaftRole::Leader;
        let acked =
            if leading { status.quorum_ack_age(now) } else { hold(&self.sightings).leader_acked(now) };
        let since = hold(&self.leading).filter(|(term, _)| leading && *term == status.term);
        let followed = status.leader.filter(|_| !leading).map(|leader| (status.term, leader));
        let followed_since = {
            let mut following = hold(&self.following);
            if following.map(|(term, leader, _)| (term, leader)) != followed {
                *following = followed.map(|(term, leader)| (term, leader, now));
            }
            following.map(|(.., at)| at)
        };
        RaftObserved {
            leading,
            leading_since: since.map(|(_, at)| at),
            followed_since,
            leader: status.leader.and_then(|id| state.node_of(RaftId(id))).map(|(node, _)| node.clone()),
            term: status.term,
            applied: state.revision,
            quorum_ack_age: acked,
            voters: status.voters.iter().copied().map(RaftId).collect(),
            learners: status.learners.iter().copied().map(RaftId).collect(),
            lag: status.lag.iter().map(|(id, lag)| (RaftId(*id), *lag)).collect(),
        }
    }

    /// This node's next heartbeat, sent now.
    pub(super) fn beat(&self) -> NodeReport {
        let state = self.state();
        let own = state.nodes.get(self.me()).map(|record| record.lease_standing());
        let beat = hold(&self.holder).beat(own, self.now());
        NodeReport { heartbeat: beat.heartbeat, echo: beat.echo, ..self.report(&state) }
    }

    /// What this node says of itself as of now, between heartbeats.
    pub(super) fn report(&self, state: &State) -> NodeReport {
        let own = state.nodes.get(self.me()).map(|record| record.lease_standing());
        let wants_rejoin = hold(&self.holder).wants_rejoin(own);
        let seen = self.works.seen();
        NodeReport {
            node: self.me().clone(),
            boot: self.boot.clone(),
            lease_epoch: own.map_or_else(Default::default, |own| own.lease_epoch),
            wants_rejoin,
            heartbeat: 0,
            echo: 0,
            revision: state.revision,
            pid: std::process::id(),
            guard: seen.guard,
            usage: seen.usage,
            executors: seen.executors,
            slots: seen.slots,
            transfers: seen.transfers,
            fencing: seen.fencing,
        }
    }

    /// What this node knows at this moment.
    pub(super) fn observed(&self, state: &State, now: BootMs) -> Observed {
        let reach = hold(&self.reach).reach();
        // Before the sightings are held, which it looks at too.
        let raft = self.raft_observed(state, now);
        hold(&self.sightings).observed(self.me(), now, reach, raft)
    }

    pub(super) fn now(&self) -> BootMs {
        host::boot_now()
    }
}

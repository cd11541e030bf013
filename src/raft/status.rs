//! Raft as this node sees it, published on every change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftMetrics;
use openraft::{LogIdOptionExt, ServerState};
use quorate_core::ids::Endpoint;
use quorate_core::units::{BootMs, Millis};
use tokio::sync::watch;

use super::types::{Raft, TypeConfig};

/// What a node is in raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RaftRole {
    /// Won the last election it knows of. Says nothing of a quorum: see [`RaftStatus::quorum_acked`].
    Leader,
    /// A voter that follows.
    Follower,
    /// A voter that asks for votes.
    Candidate,
    /// Gets the log but has no vote.
    #[default]
    Learner,
    /// Ended, on request or by an error that [`RaftStatus::stopped`] names.
    Stopped,
}

impl RaftRole {
    /// Its name in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        }
    }
}

/// Raft as this node sees it. Log positions are 0 before the first entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RaftStatus {
    /// This node.
    pub id: u64,
    /// What it is.
    pub role: RaftRole,
    /// Its term.
    pub term: u64,
    /// Whom it takes for the leader; an old belief where nothing was heard for long.
    pub leader: Option<u64>,
    /// When a leader was last heard (as leader: when a quorum last acknowledged it).
    pub leader_heard: Option<BootMs>,
    /// As leader: when the last round began that a quorum acknowledged.
    pub quorum_acked: Option<BootMs>,
    /// The last entry of its log.
    pub last_log: u64,
    /// The last entry known to be committed.
    pub committed: u64,
    /// The last entry applied.
    pub applied: u64,
    /// The last entry that a snapshot covers.
    pub snapshot: u64,
    /// The last entry removed from the log's front.
    pub purged: u64,
    /// The voters of the newest membership, both sets while one is exchanged for the other.
    pub voters: BTreeSet<u64>,
    /// Members without a vote.
    pub learners: BTreeSet<u64>,
    /// Is a set of voters being exchanged for another?
    pub changing: bool,
    /// Where each member is reached.
    pub endpoints: BTreeMap<u64, Vec<Endpoint>>,
    /// As leader: entries that each other member still lacks; nothing known reads as all of them.
    pub lag: BTreeMap<u64, u64>,
    /// Why raft has stopped, if it has.
    pub stopped: Option<String>,
}

impl RaftStatus {
    /// As leader: the age of the last quorum acknowledgement.
    pub fn quorum_ack_age(&self, now: BootMs) -> Option<Millis> {
        self.quorum_acked.map(|at| now.since(at))
    }

    /// Is this node a member at all?
    pub fn is_member(&self) -> bool {
        self.voters.contains(&self.id) || self.learners.contains(&self.id)
    }
}

/// What of it decides who does what: all but positions and moments, which change all the time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RaftStanding {
    /// What this node is.
    pub role: RaftRole,
    /// Its term.
    pub term: u64,
    /// Whom it takes for the leader.
    pub leader: Option<u64>,
    /// Is a set of voters being exchanged for another?
    pub changing: bool,
    /// The voters.
    pub voters: BTreeSet<u64>,
    /// Members without a vote.
    pub learners: BTreeSet<u64>,
}

impl RaftStanding {
    fn of(status: &RaftStatus) -> Self {
        let RaftStatus { role, term, leader, changing, voters, learners, .. } = status;
        let (voters, learners) = (voters.clone(), learners.clone());
        Self { role: *role, term: *term, leader: *leader, changing: *changing, voters, learners }
    }
}

/// What this adapter measures itself, beside the library's metrics. Zero means never.
#[derive(Debug, Default)]
pub struct Marks {
    /// When a leader was last heard.
    pub heard: AtomicU64,
    /// When the last append came that was accepted: its sender leads since then at least.
    pub kept: AtomicU64,
    /// When the last round began that a quorum acknowledged, and its term.
    pub acked: AtomicU64,
    /// The term of that round.
    pub acked_term: AtomicU64,
    /// When this node last asked for votes.
    pub asked: AtomicU64,
}

impl Marks {
    /// When a leader was last heard, this node included.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// An append that came at `arrived` was accepted.
    pub fn hear(&self, arrived: u64, now: u64) {
        self.kept.store(arrived, Ordering::Relaxed);
        self.heard.store(now, Ordering::Relaxed);
    }

    /// When the last append came that was accepted.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// When this node, as leader of `term`, was last acknowledged.
    pub fn acked(&self, term: u64) -> Option<u64> {
        let at = self.acked.load(Ordering::Relaxed);
        (at > 0 && self.acked_term.load(Ordering::Relaxed) == term).then_some(at)
    }

    /// Notes that this node asks for votes.
    pub fn campaign(&self, at: u64) {
        self.asked.fetch_max(at, Ordering::Relaxed);
    }

    /// When this node last had a quorum's word, or a leader's, or may have got it by an election.
    pub fn last_authority(&self) -> u64 {
        self.heard().max(self.asked.load(Ordering::Relaxed))
    }

    /// Notes a round that began at `at`.
    pub fn ack(&self, term: u64, at: u64) {
        self.acked.store(at, Ordering::Relaxed);
        self.acked_term.store(term, Ordering::Relaxed);
        self.heard.fetch_max(at, Ordering::Relaxed);
    }
}

fn role(metrics: &RaftMetrics<TypeConfig>) -> RaftRole {
    match (&metrics.running_state, metrics.state) {
        (Err(_), _) | (Ok(()), ServerState::Shutdown) => RaftRole::Stopped,
        (Ok(()), ServerState::Leader) => RaftRole::Leader,
        (Ok(()), ServerState::Follower) => RaftRole::Follower,
        (Ok(()), ServerState::Candidate) => RaftRole::Candidate,
        (Ok(()), ServerState::Learner) => RaftRole::Learner,
    }
}

/// The status that these metrics and marks add up to.
pub fn read(metrics: &RaftMetrics<TypeConfig>, marks: &Marks) -> RaftStatus {
    let role = role(metrics);
    let leading = role == RaftRole::Leader;
    let membership = &metrics.membership_config;
    let last_log = metrics.last_log_index.unwrap_or(0);
    let lag = metrics.replication.iter().flatten().map(|(id, matched)| {
        let matched = matched.as_ref().map_or(0, |id| id.index);
        (*id, last_log.saturating_sub(matched))
    });
    let heard = marks.heard();
    RaftStatus {
        id: metrics.id,
        role,
        term: metrics.current_term,
        leader: metrics.current_leader,
        leader_heard: (heard > 0).then_some(BootMs(heard)),
        quorum_acked: if leading { marks.acked(metrics.current_term).map(BootMs) } else { None },
        last_log,
        committed: metrics.local_committed.index().unwrap_or(0),
        applied: metrics.last_applied.index().unwrap_or(0),
        snapshot: metrics.snapshot.index().unwrap_or(0),
        purged: metrics.purged.index().unwrap_or(0),
        voters: membership.voter_ids().collect(),
        learners: membership.membership().learner_ids().collect(),
        changing: membership.get_joint_config().len() > 1,
        endpoints: membership.nodes().map(|(id, member)| (*id, member.endpoints.clone())).collect(),
        lag: if leading { lag.filter(|(id, _)| *id != metrics.id).collect() } else { BTreeMap::new() },
        stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
    }
}

/// Publishes every change until raft or everyone who listens is gone.
pub async fn publish(
    raft: Raft,
    marks: Arc<Marks>,
    to: watch::Sender<RaftStatus>,
    standing: watch::Sender<RaftStanding>,
    round: Arc<tokio::sync::Notify>,
) {
    let mut metrics = raft.metrics();
    loop {
        let status = read(&metrics.borrow_watched(), &marks);
        let stopped = status.stopped.is_some();
        let now = RaftStanding::of(&status);
        to.send_if_modified(|last| {
            let changed = *last != status;
            *last = status;
            changed
        });
        // After the status: whoever is woken by the one reads the other.
        standing.send_if_modified(|last| {
            let changed = *last != now;
            *last = now;
            changed
        });
        if stopped {
            return;
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = round.notified() => {}
        }
    }
}

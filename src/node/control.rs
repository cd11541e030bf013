//! The loop of a node: whatever changed, look at State and what is seen, decide, and act. The leader's plan
//! is proposed, every node reconciles what is its own, and the view follows. Only wiring; every decision
//! is core's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_core::command::{Actor, Command, Proposal};
use quorate_core::detect::detect;
use quorate_core::ids::RaftId;
use quorate_core::lease::LeaseGranter;
use quorate_core::observation::{Observed, Verdicts};
use quorate_core::plan::{self, TtlClock};
use quorate_core::reconcile::reconcile;
use quorate_core::state::{MembershipStep, State};
use quorate_core::units::{BootMs, Millis};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::inner::{Inner, hold};
use super::{announce, effects, propose, roads, show};
use crate::executors::Instances;
use crate::host;
use crate::raft::RaftRole;

/// Two passes are at least this far apart, so that a burst of entries costs few passes.
const GAP: Duration = Duration::from_millis(10);
/// A pass is made at least this often, since time alone changes decisions.
const AT_LEAST: Duration = Duration::from_millis(250);
/// How long a planned command may take.
const WITHIN: Duration = Duration::from_secs(5);

/// What the loop remembers from pass to pass.
struct Loop {
    inner: Arc<Inner>,
    ttl: TtlClock,
    planning: Arc<AtomicBool>,
    changing: Arc<AtomicBool>,
    expiring: Arc<AtomicBool>,
    /// The last pass: a long gap before the next means that this process did not run.
    last_pass: Option<BootMs>,
    /// What the last pass decided on.
    seen: [u64; 5],
    /// Keys with a time are looked through at most so often.
    expired: Option<Instant>,
    show: show::Show,
    announce: announce::Announce,
    roads: roads::Roads,
}

/// Decides until the node ends.
pub(super) async fn run(inner: Arc<Inner>) {
    let (mut states, mut standing) = (inner.states.clone(), inner.raft.standing());
    let mut stopping = inner.stopping.subscribe();
    let mut this = Loop {
        inner: inner.clone(),
        ttl: TtlClock::default(),
        planning: Arc::default(),
        changing: Arc::default(),
        expiring: Arc::default(),
        last_pass: None,
        seen: [0; 5],
        expired: None,
        show: show::Show::new(inner.clone()),
        announce: announce::Announce::new(inner.clone()),
        roads: roads::Roads::new(inner.clone()),
    };
    let mut changes = inner.works.instances.as_ref().map(Instances::changes);
    loop {
        let began = Instant::now();
        this.pass();
        tokio::select! {
            changed = other_than_keys(&mut states, this.seen) => if !changed { return },
            changed = standing.changed() => if changed.is_err() { return },
            () = inner.wake.notified() => {}
            () = any_change(changes.as_mut()) => inner.hurry.notify_one(),
            () = sleep_until(began + this.patience()) => {}
            _ = stopping.changed() => return,
        }
        // What else changes within the gap is seen by the same pass. Where all is quiet it is long over.
        if began.elapsed() < GAP {
            sleep_until(began + GAP).await;
        }
    }
}

/// What of State decisions rest on, as a number: all but keys, answers and events.
fn essence(state: &State) -> [u64; 5] {
    let settings = state.cluster.settings_changed.0;
    [state.nodes.hash(), state.services.hash(), state.slots.hash(), state.operations.hash(), settings]
}

/// Waits until more changed than keys: a busy key-value store costs no passes. False when State ended.
async fn other_than_keys(states: &mut watch::Receiver<Arc<State>>, seen: [u64; 5]) -> bool {
    states.wait_for(|state| essence(state) != seen).await.is_ok()
}

/// Waits until something changed among what runs here; for ever where nothing can.
async fn any_change(changes: Option<&mut watch::Receiver<u64>>) {
    let Some(changes) = changes else { return std::future::pending().await };
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Loop {
    /// Until the next pass at the latest: a lease's end is noticed as it comes.
    fn patience(&self) -> Duration {
        let now = self.inner.now();
        let left = self.inner.lease().filter(|lease| lease.live(now)).map(|lease| lease.left(now).0 + 1);
        let left = left.map_or(AT_LEAST, |left| AT_LEAST.min(Duration::from_millis(left)));
        self.show.due().map_or(left, |due| left.min(due))
    }

    fn pass(&mut self) {
        let inner = self.inner.clone();
        let (now, state) = (inner.now(), inner.state());
        self.seen = essence(&state);
        hold(&inner.holder).expire(now);
        self.lead(now, state.cluster.settings.terms.lease);
        let own = inner.report(&state);
        {
            let mut sightings = hold(&inner.sightings);
            sightings.own(own.clone(), now);
            sightings.know(inner.me(), &state, now);
        }
        let observed = inner.observed(&state, now);
        let verdicts = detect(&observed, &state);
        if inner.leads() {
            self.plan(&state, &observed, &verdicts, now);
        }
        self.enter_epoch(&state);
        self.roads.pass(&state);
        effects::carry_out(&inner, reconcile(&state, &own, inner.lease().as_ref(), now));
        self.announce.pass(&state, &own);
        self.show.pass(&state, &observed, &verdicts, now);
    }

    /// Notices the beginning of a leadership: what an earlier one remembered does not count any more.
    /// Nor does, after a pause of its own that alone could make others seem lost, what it did not hear.
    fn lead(&mut self, now: BootMs, lease: Millis) {
        let paused = self.last_pass.replace(now).is_some_and(|last| now.since(last).0 >= lease.0 / 4 * 3);
        let status = self.inner.status.borrow();
        let mut leading = hold(&self.inner.leading);
        if status.role != RaftRole::Leader {
            *leading = None;
        } else if leading.is_none_or(|(term, _)| term != status.term) {
            *leading = Some((status.term, now));
            *hold(&self.inner.granter) = LeaseGranter::default();
            self.ttl = TtlClock::default();
            tracing::info!(term = status.term, "this node leads");
        } else if paused {
            *leading = Some((status.term, now));
            tracing::warn!("this node did not run for a while: it listens anew before it judges anyone");
        }
    }

    /// State on this disk has been through that recovery: nothing of before it is listened to any more.
    fn enter_epoch(&self, state: &State) {
        if let Err(error) = self.inner.epochs.enter(state.era()) {
            tracing::error!(%error, epoch = state.era().0, "the epoch cannot be kept");
        }
    }

    fn plan(&mut self, state: &State, observed: &Observed, verdicts: &Verdicts, now: BootMs) {
        let inner = self.inner.clone();
        let plan = plan::plan(state, observed, verdicts);
        hold(&inner.sightings).set_waiting(plan.waiting.clone(), now);
        // Until the first entry of its own term is applied, a leader's State may lack what is committed.
        let ready = inner.status.borrow().quorum_acked.is_some();
        if !ready || state.cluster.id.0.is_empty() {
            return;
        }
        if !plan.commands.is_empty() && !self.planning.swap(true, Ordering::Relaxed) {
            self.propose(plan.commands.clone(), self.planning.clone());
        }
        self.expire(state, now);
        if let Some(step) = plan.membership.clone()
            && !self.changing.swap(true, Ordering::Relaxed)
        {
            self.change(step, state);
        }
    }

    /// Removes keys whose time ran out; looking through them all takes time where there are many.
    fn expire(&mut self, state: &State, now: BootMs) {
        let recent = self.expired.is_some_and(|last| last.elapsed() < AT_LEAST);
        if recent || self.expiring.load(Ordering::Relaxed) {
            return;
        }
        self.expired = Some(Instant::now());
        if let Some(command) = plan::kv_expiry(state, &mut self.ttl, now) {
            self.expiring.store(true, Ordering::Relaxed);
            self.propose(vec![command], self.expiring.clone());
        }
    }

    /// Proposes commands in their order, all at once, and frees `busy` when all are decided.
    fn propose(&self, commands: Vec<Command>, busy: Arc<AtomicBool>) {
        let inner = self.inner.clone();
        for command in &commands {
            if let Command::MarkLost { node, lease_epoch, .. } = command {
                // From here on it is not answered: nothing may renew what is about to be judged.
                hold(&inner.granter).close(node, *lease_epoch);
            }
        }
        tokio::spawn(async move {
            let proposals = commands.into_iter().map(|command| propose_one(&inner, command));
            if !futures::future::join_all(proposals).await.contains(&true) {
                // What the log refuses whole is not asked for again at once.
                tokio::time::sleep(AT_LEAST).await;
            }
            busy.store(false, Ordering::Relaxed);
            inner.wake.notify_one();
        });
    }

    fn change(&self, step: MembershipStep, state: &State) {
        let (inner, busy) = (self.inner.clone(), self.changing.clone());
        let endpoints = |id: RaftId| {
            state.node_of(id).map(|(_, record)| record.facts.endpoints.clone()).unwrap_or_default()
        };
        let endpoints = match &step {
            MembershipStep::AddLearner(id) => endpoints(*id),
            MembershipStep::SetVoters(_) | MembershipStep::Remove(_) | MembershipStep::TransferTo(_) => {
                Vec::new()
            }
        };
        tracing::info!(?step, "membership");
        tokio::spawn(async move {
            let done = match &step {
                MembershipStep::AddLearner(id) => inner.raft.add_learner(id.0, endpoints).await,
                MembershipStep::SetVoters(ids) => {
                    inner.raft.change_voters(ids.iter().map(|id| id.0).collect()).await
                }
                MembershipStep::Remove(id) => inner.raft.remove(id.0).await,
                MembershipStep::TransferTo(id) => inner.raft.transfer_leader(id.0).await,
            };
            if let Err(error) = done {
                tracing::warn!(?step, %error, "membership not changed");
                // What cannot be changed now is not asked for again at once.
                tokio::time::sleep(AT_LEAST).await;
            }
            busy.store(false, Ordering::Relaxed);
            inner.wake.notify_one();
        });
    }
}

/// Proposes one planned command here; a leader that was deposed meanwhile leaves it to the next. Was it
/// accepted?
async fn propose_one(inner: &Inner, command: Command) -> bool {
    let lost = match &command {
        Command::MarkLost { node, .. } => Some(node.clone()),
        _ => None,
    };
    let proposal =
        Proposal { request: None, actor: Actor::Planner, at: host::wall_now(), expected: None, command };
    let bytes = quorate_core::state::codec::encode_proposal(&proposal).into();
    let answer = match tokio::time::timeout(WITHIN, propose::propose_here(inner, bytes)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(refusal)) => {
            tracing::debug!(?refusal, command = ?proposal.command, "not proposed");
            return false;
        }
        Err(_) => {
            tracing::debug!(command = ?proposal.command, "undecided");
            return false;
        }
    };
    match quorate_core::state::codec::decode_answer(&answer) {
        Ok(answer) => {
            if let Err(rejection) = &answer.result {
                if let Some(node) = lost {
                    hold(&inner.granter).reopen(&node);
                }
                tracing::warn!(%rejection, command = ?proposal.command, "planned command rejected");
            }
            answer.result.is_ok()
        }
        Err(error) => {
            tracing::error!(%error, "the answer to a planned command cannot be read");
            false
        }
    }
}

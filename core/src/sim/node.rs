//! The node process of a simulated host: its replica, its State, its lease, its reconcile loop. Everything it
//! decides is decided by the same functions as in the real node; only the carrying is simulated.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Count;
use super::broken;
use super::ctx::{Ctx, Fencing, Happening, Message, Origin};
use super::disk::written;
use super::guard::{self, Call};
use super::host::Host;
use super::lead::Leading;
use super::log::{LogMessage, Payload, Replica};
use super::look::Sights;
use super::switches::{Plant, Rule};
use crate::command::{Actor, Command, Proposal};
use crate::effect::{Effect, FenceDeed, FenceNode, FetchState};
use crate::ids::{LeaseEpoch, NodeId, RaftId, Revision, SlotId};
use crate::lease::LeaseHolder;
use crate::observation::{
    FenceOutcome, FenceReport, FencingReport, GuardReport, NodeReport, NodeUsage, SlotReport,
    TransferOutcome, TransferReport,
};
use crate::reconcile::reconcile;
use crate::state::{Answer, State};
use crate::units::{BootMs, Millis};

/// Reconciled at least this often, woken or not.
const RECONCILE_EVERY: Millis = Millis(200);
/// A copy without an answer by then has failed.
const FETCH_TIMEOUT: Millis = Millis(2_000);
/// An applied State is kept for restarts this often.
const SNAPSHOT_EVERY: u64 = 40;

/// A node process.
pub(super) struct Node {
    /// Unique among all processes of the run; also its pid.
    pub(super) session: u64,
    pub(super) replica: Replica,
    pub(super) state: State,
    pub(super) holder: LeaseHolder,
    /// What the guard last said; nothing is told before the first time.
    pub(super) inventory: Option<BTreeMap<SlotId, SlotReport>>,
    pub(super) transfers: Vec<TransferReport>,
    pub(super) fencing: Vec<FenceReport>,
    pub(super) leading: Option<Leading>,
    /// As leader: to be appended with the next entry.
    pub(super) pending: Vec<(Proposal, Origin)>,
    /// As leader: who waits for the answers of an entry, by index, with its term.
    pub(super) waiting: BTreeMap<u64, (u64, Vec<Origin>)>,
    /// When each node was first seen with its disk and in its lease epoch.
    pub(super) known_since: BTreeMap<NodeId, ((RaftId, LeaseEpoch), BootMs)>,
    fetch_begun: BTreeMap<(u64, u32), BootMs>,
    next_beat: BootMs,
    beaten: BootMs,
    pub(super) dirty: bool,
    reconciled: BootMs,
    facts_asked: BootMs,
    /// A member of a later history spoke: this node has no part in any quorum any more.
    pub(super) aside: bool,
    /// The number of the terms that the guard said it holds.
    terms_held: u64,
    /// What it sees beside what it decides by.
    pub(super) sights: Sights,
    /// Where a test switched a rule off: the lease as new terms alone stretched it, with their number.
    pub(super) stretched: Option<(u64, BootMs)>,
}

impl Node {
    /// A process starts from what lies on the disk, if that belongs to a cluster.
    pub(super) fn start(host: &Host, ctx: &mut Ctx) -> Option<Self> {
        let raft_id = host.disk.raft_id?;
        let now = host.clock(ctx.now);
        let state = host.disk.snapshot.clone();
        let mut replica = Replica::new(raft_id, state.cluster.settings.raft, now, &mut ctx.random);
        replica.gentle = ctx.calm;
        replica.commit = state.revision.0.max(host.disk.log.begun);
        let guarded = host.run.valid_until;
        let holder = LeaseHolder::new(host.boot_id(), host.disk.lease_epoch, guarded, now);
        let session = ctx.serial();
        if !host.processes.is_empty() {
            ctx.count(Count::Adoptions);
        }
        Some(Self {
            session,
            replica,
            state,
            holder,
            inventory: None,
            transfers: Vec::new(),
            fencing: Vec::new(),
            leading: None,
            pending: Vec::new(),
            waiting: BTreeMap::new(),
            known_since: BTreeMap::new(),
            fetch_begun: BTreeMap::new(),
            next_beat: now,
            beaten: now,
            dirty: true,
            reconciled: now,
            facts_asked: BootMs(0),
            aside: false,
            terms_held: 0,
            sights: Sights::default(),
            stretched: None,
        })
    }

    /// A slice of its life.
    pub(super) fn tick(&mut self, host: &mut Host, ctx: &mut Ctx) {
        let now = host.clock(ctx.now);
        if !self.aside {
            self.replica.tick(&mut host.disk.log, now, &mut ctx.random);
        }
        let changed = self.take_inventory(host, ctx);
        self.apply(host, ctx, now);
        self.expire(now);
        self.give_up_fetches(now);
        // A process that has just begun learns its cluster's interval only with its State. In drawn worlds it is
        // slow to go by it, which costs it a lease now and then.
        let interval = self.state.cluster.settings.terms.heartbeat;
        let soon = if ctx.calm { self.beaten + interval } else { self.next_beat };
        let due = now >= self.next_beat.min(soon) || changed;
        if due && self.inventory.is_some() {
            self.beat(host, ctx, now);
        }
        if self.dirty || now.since(self.reconciled) >= RECONCILE_EVERY {
            self.reconcile(host, ctx, now);
        }
        self.tell_facts(host, ctx, now);
        self.lead(host, ctx, now);
        self.apply(host, ctx, now);
        self.flush(host, ctx);
        broken::stray(ctx, self, host, now);
    }

    fn expire(&mut self, now: BootMs) {
        let live = self.holder.lease().is_some_and(|lease| !lease.lost);
        self.holder.expire(now);
        if live && self.holder.lease().is_some_and(|lease| lease.lost) {
            self.dirty = true;
        }
    }

    /// Asks the guard what runs; true if anything changed that others should hear of at once.
    fn take_inventory(&mut self, host: &Host, ctx: &Ctx) -> bool {
        if !host.guard_acts() {
            return false;
        }
        self.terms_held = if ctx.lacks(Rule::TermsHeldByGuard) {
            self.state.cluster.settings.terms.number
        } else {
            host.run.terms
        };
        let fresh = guard::inventory(host, ctx);
        let same = |(one, two): ((&SlotId, &SlotReport), (&SlotId, &SlotReport))| {
            let told = |report: &SlotReport| report.instance.as_ref().map(|i| (i.health, i.id.token));
            let phase =
                |report: &SlotReport| report.instance.as_ref().map(|i| std::mem::discriminant(&i.phase));
            one.0 == two.0
                && one.1.highest == two.1.highest
                && told(one.1) == told(two.1)
                && phase(one.1) == phase(two.1)
        };
        let changed = self
            .inventory
            .as_ref()
            .is_none_or(|known| known.len() != fresh.len() || !known.iter().zip(&fresh).all(same));
        self.inventory = Some(fresh);
        self.dirty |= changed;
        changed
    }

    /// Applies everything that is decided.
    pub(super) fn apply(&mut self, host: &mut Host, ctx: &mut Ctx, now: BootMs) {
        let before = self.state.revision;
        while self.state.revision.0 < self.replica.commit {
            let index = self.state.revision.0 + 1;
            let Some(entry) = host.disk.log.entry(index).cloned() else { return };
            let proposals: &[Proposal] = match &entry.payload {
                Payload::Proposals(proposals) | Payload::Anew(_, proposals) => proposals,
                Payload::Empty | Payload::Members(_) => &[],
            };
            let applied = self.state.apply(Revision(index), proposals);
            broken::spoil(ctx, host.index, &mut self.state);
            ctx.applied(host.index, &self.state, &entry, &applied.events);
            self.answer(ctx, index, entry.term, &applied.answers);
            if let Some(leading) = &mut self.leading {
                for (proposal, answer) in proposals.iter().zip(&applied.answers) {
                    if let (Actor::Planner, Err(why)) = (&proposal.actor, &answer.result) {
                        ctx.refused(proposal, why);
                    }
                }
                leading.decided(index, proposals, &applied.answers);
            }
            if matches!(entry.payload, Payload::Anew(..)) {
                host.disk.begin_with(&self.state);
            } else if index.is_multiple_of(SNAPSHOT_EVERY) && host.disk.log.begun < index {
                host.disk.keep_snapshot(&self.state);
            }
            self.dirty = true;
        }
        // Who joined in a later epoch, or was told of it, is in it from then on.
        host.disk.agreed = host.disk.agreed.max(self.state.era());
        if self.state.revision == before && !self.known_since.is_empty() {
            return;
        }
        for (node, record) in self.state.nodes.iter() {
            let present = (record.raft_id, record.lease_epoch);
            if self.known_since.get(node).is_none_or(|(known, _)| *known != present) {
                self.known_since.insert(node.clone(), (present, now));
            }
        }
    }

    fn answer(&mut self, ctx: &mut Ctx, index: u64, term: u64, answers: &[Answer]) {
        let Some((proposed, origins)) = self.waiting.remove(&index) else { return };
        if proposed != term {
            return;
        }
        for (origin, answer) in origins.into_iter().zip(answers) {
            ctx.reply(origin, answer.clone());
        }
    }

    /// The report that goes with a heartbeat, and feeds this node's own reconcile.
    pub(super) fn report(&self, host: &Host, beat: crate::lease::Beat) -> NodeReport {
        let acts = host.guard_acts();
        NodeReport {
            node: host.name.clone(),
            boot: host.boot_id(),
            lease_epoch: beat.lease_epoch,
            wants_rejoin: beat.wants_rejoin,
            heartbeat: beat.heartbeat,
            echo: beat.echo,
            revision: self.state.revision,
            pid: u32::try_from(self.session).unwrap_or(u32::MAX),
            guard: GuardReport {
                pid: 1,
                twin_pid: u32::from(host.twin.is_some()) * 2,
                answering: acts,
                armed: host.armed(),
                unarmed: None,
            },
            usage: NodeUsage::default(),
            executors: host.facts.executors.clone(),
            slots: self.inventory.clone().unwrap_or_default(),
            transfers: self.transfers.clone(),
            fencing: FencingReport { deeds: self.fencing.clone(), ..FencingReport::default() },
        }
    }

    fn beat(&mut self, host: &Host, ctx: &mut Ctx, now: BootMs) {
        let terms = self.state.cluster.settings.terms;
        self.next_beat = now + terms.heartbeat;
        self.beaten = now;
        let Some(leader) = self.replica.leader.and_then(|id| ctx.host_of(id)) else { return };
        let own = self.state.nodes.get(&host.name).map(|record| broken::standing(ctx, record));
        let beat = self.holder.beat(own, now);
        ctx.beat_sent(host, self.session, beat.heartbeat, now);
        let report = Arc::new(self.report(host, beat));
        ctx.send(host.index, leader, Message::Beat { session: self.session, report });
    }

    /// Makes what is committed come true here.
    fn reconcile(&mut self, host: &mut Host, ctx: &mut Ctx, now: BootMs) {
        if self.inventory.is_none() {
            return;
        }
        self.dirty = false;
        self.reconciled = now;
        let own = self.state.nodes.get(&host.name).map(|record| broken::standing(ctx, record));
        let beat = crate::lease::Beat {
            heartbeat: 0,
            echo: 0,
            lease_epoch: own.map_or_else(Default::default, |own| own.lease_epoch),
            wants_rejoin: self.holder.wants_rejoin(own),
        };
        let mut report = self.report(host, beat);
        let lease = broken::lease(ctx, self, host, now);
        let state = broken::own_side(ctx, self, host, &mut report);
        for effect in reconcile(&state, &report, lease.as_ref(), now) {
            self.perform(host, ctx, effect, now);
        }
    }

    fn perform(&mut self, host: &mut Host, ctx: &mut Ctx, effect: Effect, now: BootMs) {
        match effect {
            Effect::Start(start) => ctx.call(host, Call::Start(start)),
            Effect::Stop(stop) => ctx.call(host, Call::Stop(stop)),
            Effect::Renew { .. } => {}
            Effect::Forget { slot } => ctx.call(host, Call::Forget(slot)),
            Effect::Fetch(fetch) => self.fetch(host, ctx, &fetch, now),
            Effect::DropStaging { operation } => {
                host.disk.staging.remove(&operation);
                self.transfers.retain(|transfer| transfer.operation != operation);
                self.dirty = true;
            }
            Effect::Fence(fence) => self.fence(host, ctx, &fence),
        }
    }

    fn fetch(&mut self, host: &Host, ctx: &mut Ctx, fetch: &FetchState, now: BootMs) {
        let FetchState { operation, pass, slot, from, .. } = fetch;
        if ctx.has(Plant::DropFetches) {
            return;
        }
        self.transfers.push(TransferReport {
            operation: *operation,
            pass: *pass,
            bytes_done: 0,
            bytes_total: 100,
            outcome: None,
        });
        self.fetch_begun.insert((operation.0, *pass), now);
        if let Some(from) = ctx.host_named(from) {
            let ask = Message::FetchAsk { operation: *operation, pass: *pass, slot: slot.clone() };
            ctx.send(host.index, from, ask);
        }
    }

    fn give_up_fetches(&mut self, now: BootMs) {
        let late = |begun: &BootMs| now.since(*begun) >= FETCH_TIMEOUT;
        for transfer in self.transfers.iter_mut().filter(|transfer| transfer.outcome.is_none()) {
            let begun = self.fetch_begun.get(&(transfer.operation.0, transfer.pass));
            if begun.is_none_or(late) {
                transfer.outcome = Some(TransferOutcome::Failed("no answer from the source".to_owned()));
                self.dirty = true;
            }
        }
    }

    fn fence(&mut self, host: &Host, ctx: &mut Ctx, fence: &FenceNode) {
        let FenceNode { operation, attempt, target, deed, .. } = fence;
        self.fencing.push(FenceReport { operation: *operation, attempt: *attempt, outcome: None });
        let Some(target) = ctx.host_named(target) else { return };
        if *deed == FenceDeed::On {
            ctx.count(Count::SwitchedOn);
            ctx.after(200_000, Happening::PowerOn { host: target });
            let outcome = FenceOutcome::SwitchedOn { output: "on".to_owned() };
            return self.fenced(*operation, *attempt, outcome);
        }
        ctx.count(Count::FenceAttempts);
        let device = ctx.fence_device(target);
        // Right before the deed a quorum must still stand behind this leader.
        let now = host.clock(ctx.now);
        let quorate = self.quorate(now);
        let begins = ctx.random.between(50, device.slow_ms.max(60)) * 1_000;
        let (by, session) = (host.index, self.session);
        let deed = Fencing { by, session, target, operation: *operation, attempt: *attempt, quorate };
        ctx.after(begins, Happening::Fence(deed));
    }

    /// Does a quorum stand behind it at this moment? Who does not lead asks the leader.
    fn quorate(&self, now: BootMs) -> bool {
        let fresh = |age: Millis| age < Millis(300);
        let follows = self.replica.leader.is_some() && fresh(now.since(self.replica.heard));
        let leased = self.holder.lease().is_some_and(|lease| lease.live(now));
        self.replica.quorum_age(now).map_or(!self.replica.leads() && follows && leased, fresh)
    }

    /// The fence device came to an end.
    pub(super) fn fenced(&mut self, operation: crate::ids::OperationId, attempt: u32, outcome: FenceOutcome) {
        let mut deeds = self.fencing.iter_mut();
        if let Some(deed) = deeds.find(|deed| deed.operation == operation && deed.attempt == attempt) {
            deed.outcome = Some(outcome);
            self.next_beat = BootMs(0);
        }
    }

    /// Says anew what State has wrong of this node.
    fn tell_facts(&mut self, host: &mut Host, ctx: &mut Ctx, now: BootMs) {
        host.facts.terms = self.terms_held;
        host.facts.armed = host.armed();
        let differs = self.state.nodes.get(&host.name).is_some_and(|record| record.facts != host.facts);
        if !differs || now.since(self.facts_asked) < Millis(700) {
            return;
        }
        self.facts_asked = now;
        let proposal = Proposal {
            request: None,
            actor: Actor::Node(host.name.clone()),
            at: host.wall(ctx.now),
            expected: None,
            command: Command::UpdateNode(host.facts.clone()),
        };
        if let Some(leader) = self.replica.leader.and_then(|id| ctx.host_of(id)) {
            ctx.send(
                host.index,
                leader,
                Message::Ask { proposal: Box::new(proposal), origin: Origin::Nobody, hops: 1 },
            );
        }
    }

    /// A message for this process.
    pub(super) fn receive(&mut self, host: &mut Host, ctx: &mut Ctx, sender: usize, message: Message) {
        let now = host.clock(ctx.now);
        match message {
            Message::Log { from, to, message } => {
                // What was meant for the disk that was here before.
                if to != self.replica.me {
                    return;
                }
                let log = &mut host.disk.log;
                self.replica.receive(log, from, message, now, &mut ctx.random);
                self.apply(host, ctx, now);
                self.send_log(host, ctx, Some((from, sender)));
            }
            // That it came was the news.
            Message::Refused => {}
            Message::Beat { session, report } => self.heard(host, ctx, sender, session, &report, now),
            Message::Answer { session, answer, word } => {
                if session != self.session {
                    return;
                }
                if let Some(word) = word {
                    self.sights.take_word(word, now);
                }
                let own = self.state.nodes.get(&host.name).map(|record| broken::standing(ctx, record));
                let taken = self.holder.answered(&answer, own, now);
                if let Some(renewal) = taken {
                    // The guard is not told of a lease whose epoch cannot be kept.
                    if host.disk.lease_epoch != Some(renewal.epoch) && host.disk.full(ctx.now) {
                        ctx.count(Count::WritesRefused);
                        return;
                    }
                    host.disk.lease_epoch = Some(renewal.epoch);
                    let (number, valid_until) = (renewal.number, renewal.valid_until);
                    let terms = answer.terms.number;
                    ctx.call(host, Call::Renew { session, number, valid_until, terms });
                    self.dirty = true;
                }
            }
            Message::Ask { proposal, origin, hops } => self.asked(host, ctx, proposal, origin, hops),
            Message::FetchAsk { operation, pass, slot } => {
                let running = host.processes.iter().find(|process| process.slot == slot);
                let stored = host.disk.folders.get(&slot).copied();
                // What was staged here and never started from is still the newest.
                let staged = host.disk.staging.get(&operation).copied();
                let own = running.map(|process| written(process, ctx.now)).or(staged).or(stored);
                let content = own.unwrap_or(0);
                ctx.fetched(host.index, sender, operation);
                ctx.send(host.index, sender, Message::FetchGive { operation, pass, content });
            }
            Message::FetchGive { operation, pass, content } => {
                let mut transfers = self.transfers.iter_mut();
                let ours = transfers.find(|t| t.operation == operation && t.pass == pass);
                let Some(transfer) = ours.filter(|transfer| transfer.outcome.is_none()) else { return };
                if host.disk.full(ctx.now) {
                    ctx.count(Count::WritesRefused);
                    transfer.outcome = Some(TransferOutcome::Failed("no space left".to_owned()));
                    return;
                }
                transfer.bytes_done = 100;
                transfer.outcome = Some(TransferOutcome::Complete { digest: format!("{content:x}") });
                if !ctx.has(Plant::KeepOldCopy) || pass == 1 {
                    host.disk.staging.insert(operation, content);
                }
                self.next_beat = BootMs(0);
            }
        }
    }

    fn asked(&mut self, host: &Host, ctx: &mut Ctx, proposal: Box<Proposal>, origin: Origin, hops: u32) {
        if self.replica.leads() {
            self.pending.push((*proposal, origin));
        } else if hops < 2
            && let Some(leader) = self.replica.leader.and_then(|id| ctx.host_of(id))
        {
            ctx.send(host.index, leader, Message::Ask { proposal, origin, hops: hops + 1 });
        }
    }

    pub(super) fn flush(&mut self, host: &Host, ctx: &mut Ctx) {
        self.send_log(host, ctx, None);
    }

    /// Sends what the replica has to say. An answer goes back to where its question came from.
    fn send_log(&mut self, host: &Host, ctx: &mut Ctx, asked: Option<(RaftId, usize)>) {
        for (to, message) in std::mem::take(&mut self.replica.outbox) {
            let back = asked.filter(|(id, _)| *id == to).map(|(_, at)| at);
            if let Some(at) = back.or_else(|| ctx.host_of(to)) {
                let message: LogMessage = message;
                ctx.send(host.index, at, Message::Log { from: self.replica.me, to, message });
            }
        }
    }
}

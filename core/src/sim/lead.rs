//! What a simulated node does while it leads: takes heartbeats, answers them after a quorum round, detects,
//! plans and proposes. The decisions are `detect`'s, `plan`'s and the lease granter's; none is made here.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use super::Count;
use super::broken;
use super::ctx::{Ctx, Fencing, Message, Origin};
use super::host::Host;
use super::log::{Members, Payload};
use super::look::Word;
use super::node::Node;
use super::switches::{Plant, Rule};
use crate::command::{Actor, Command, Proposal};
use crate::detect::detect;
use crate::ids::NodeId;
use crate::lease::{Asked, LeaseGranter};
use crate::observation::{Heard, NodeReport, Observed, RaftObserved};
use crate::plan::{TtlClock, kv_expiry, plan};
use crate::reach::Reach;
use crate::state::{Answer, MembershipStep, OperationKind, Plan};
use crate::units::{BootMs, Millis};

/// Planned at least this often, and at most that often.
const PLAN_EVERY: Millis = Millis(120);
const PLAN_AT_MOST_EVERY: Millis = Millis(30);
/// Proposals of clients in one entry.
const ENTRY: usize = 4;

/// A leader's soft memory; made anew with each leadership.
pub(super) struct Leading {
    term: u64,
    heard: OrdMap<NodeId, Heard>,
    sessions: BTreeMap<NodeId, u64>,
    granter: LeaseGranter,
    /// The entry that holds the last plan, undecided.
    in_flight: Option<u64>,
    ttl: TtlClock,
    pub(super) planned: Option<BootMs>,
    news: bool,
    pub(super) plan: Plan,
}

impl Leading {
    fn new(term: u64) -> Self {
        Self {
            term,
            heard: OrdMap::new(),
            sessions: BTreeMap::new(),
            granter: LeaseGranter::default(),
            in_flight: None,
            ttl: TtlClock::default(),
            planned: None,
            news: true,
            plan: Plan::default(),
        }
    }

    /// An entry was applied.
    pub(super) fn decided(&mut self, index: u64, proposals: &[Proposal], answers: &[Answer]) {
        self.news = true;
        if self.in_flight == Some(index) {
            self.in_flight = None;
        }
        for (proposal, answer) in proposals.iter().zip(answers) {
            if let (Command::MarkLost { node, .. }, Err(_)) = (&proposal.command, &answer.result) {
                self.granter.reopen(node);
            }
        }
    }
}

impl Node {
    /// A heartbeat came.
    pub(super) fn heard(
        &mut self,
        host: &mut Host,
        ctx: &mut Ctx,
        from: usize,
        session: u64,
        report: &NodeReport,
        now: BootMs,
    ) {
        if !self.replica.leads() {
            return;
        }
        let round = self.replica.next_round();
        let leading = self.leading(host);
        let before = leading.heard.get(&report.node);
        let same = leading.sessions.get(&report.node) == Some(&session);
        if before.is_some_and(|heard| same && heard.report.heartbeat >= report.heartbeat) {
            return;
        }
        // Sessions are numbered in the order of their starts: an older process speaks from the past.
        if leading.sessions.get(&report.node).is_some_and(|known| *known > session) {
            return;
        }
        let rose =
            before.filter(|heard| same && heard.report.echo >= report.echo).map(|heard| heard.echo_rose);
        let answered = before.and_then(|heard| heard.answered);
        let heard = Heard { received: now, answered, echo_rose: rose.unwrap_or(now), report: report.clone() };
        leading.news |= before.is_none_or(|heard| heard.report.slots != report.slots)
            || !report.transfers.is_empty()
            || !report.fencing.deeds.is_empty()
            || report.wants_rejoin;
        leading.sessions.insert(report.node.clone(), session);
        leading.heard.insert(report.node.clone(), heard);
        let asked = Asked {
            node: report.node.clone(),
            boot: report.boot.clone(),
            lease_epoch: report.lease_epoch,
            wants_rejoin: report.wants_rejoin,
            heartbeat: report.heartbeat,
            armed: report.guard.armed || ctx.lacks(Rule::PromiseInState),
        };
        leading.granter.heard(asked, round);
        debug_assert!(ctx.host_named(&report.node) == Some(from));
    }

    fn leading(&mut self, host: &Host) -> &mut Leading {
        let term = host.disk.log.term;
        if self.leading.as_ref().is_none_or(|leading| leading.term != term) {
            self.leading = Some(Leading::new(term));
        }
        self.leading.get_or_insert_with(|| Leading::new(term))
    }

    /// A leader's turn; a follower drops what it had.
    pub(super) fn lead(&mut self, host: &mut Host, ctx: &mut Ctx, now: BootMs) {
        if !self.replica.leads() {
            if self.leading.take().is_some() {
                ctx.count(Count::LeadershipsLost);
                ctx.tell(host.name.as_str(), format_args!("leads no more"));
            }
            self.waiting.clear();
            self.pending.clear();
            return;
        }
        if self.leading.as_ref().is_none_or(|leading| leading.term != host.disk.log.term) {
            ctx.count(Count::LeaderChanges);
            ctx.say(&host.name, format_args!("leads term {}", host.disk.log.term));
        }
        self.leading(host);
        self.append_pending(host, ctx, now);
        self.answer_heartbeats(host, ctx, now);
        self.plan(host, ctx, now);
    }

    fn append_pending(&mut self, host: &mut Host, ctx: &mut Ctx, now: BootMs) {
        while !self.pending.is_empty() {
            let batch: Vec<_> = self.pending.drain(..self.pending.len().min(ENTRY)).collect();
            let (proposals, origins): (Vec<Proposal>, Vec<Origin>) = batch.into_iter().unzip();
            let payload = Payload::Proposals(proposals.into());
            let Some(index) = self.replica.propose(&mut host.disk.log, payload, now) else { return };
            if ctx.has(Plant::AnswerBeforeCommit) {
                let result = Ok(crate::state::Reply::Accepted);
                let revision = crate::ids::Revision(index);
                for origin in origins {
                    ctx.reply(origin, Answer { revision, result: result.clone() });
                }
                continue;
            }
            self.waiting.insert(index, (host.disk.log.term, origins));
        }
    }

    fn answer_heartbeats(&mut self, host: &mut Host, ctx: &mut Ctx, now: BootMs) {
        let Some(leading) = self.leading.as_mut() else { return };
        if !leading.granter.waiting() {
            return;
        }
        let at_once = ctx.lacks(Rule::QuorumBeforeAnswer);
        let over = if at_once { u64::MAX } else { self.replica.round_over() };
        if self.replica.settled() || at_once {
            let terms = self.state.cluster.settings.terms;
            let nodes = &self.state.nodes;
            let standing = |node: &NodeId| nodes.get(node).map(|record| broken::standing(ctx, record));
            let answers = leading.granter.answers(over, self.state.revision, terms, standing);
            let word = (ctx.shown && !answers.is_empty()).then(|| {
                let (heard, waiting) = (leading.heard.clone(), Arc::new(leading.plan.waiting.clone()));
                Arc::new(Word { at: now, heard, waiting, quorum_age: self.replica.quorum_age(now) })
            });
            for (node, answer) in answers {
                let (Some(to), Some(session)) = (ctx.host_named(&node), leading.sessions.get(&node)) else {
                    continue;
                };
                if let Some(heard) = leading.heard.get_mut(&node) {
                    heard.answered = Some(now);
                }
                ctx.send(host.index, to, Message::Answer { session: *session, answer, word: word.clone() });
            }
        }
        if leading.granter.waiting() {
            self.replica.hurry(&host.disk.log, now);
        }
    }

    /// What this leader knows at this moment.
    pub(super) fn observed(&self, host: &Host, now: BootMs) -> Observed {
        let members = host.disk.log.members();
        let leader = self.replica.leader.and_then(|id| self.state.node_of(id)).map(|(node, _)| node.clone());
        let raft = RaftObserved {
            leading: self.replica.leads(),
            leading_since: self.replica.leads().then_some(self.replica.since),
            leader,
            followed_since: None,
            term: host.disk.log.term,
            applied: self.state.revision,
            quorum_ack_age: self.replica.quorum_age(now),
            voters: members.voters.iter().copied().collect(),
            learners: members.learners.iter().copied().collect(),
            lag: self.replica.lag(&host.disk.log),
        };
        let heard = self.leading.as_ref().map(|leading| leading.heard.clone()).unwrap_or_default();
        let known_since = self.known_since.iter().map(|(node, (_, at))| (node.clone(), *at)).collect();
        Observed { me: host.name.clone(), now, nodes: heard, known_since, reach: Reach::default(), raft }
    }

    /// Right before a deed: why it is not to be done any more, as the real node looks once more.
    pub(super) fn last_look(&self, host: &Host, ctx: &Ctx, deed: &Fencing) -> Option<String> {
        let known = self.state.operations.get(&deed.operation)?;
        let OperationKind::Fence(fence) = &known.kind else { return None };
        // In drawn worlds it looks too early, and strikes who has just come back.
        if self.session != deed.session || !ctx.calm {
            return None;
        }
        if known.cancelling {
            return Some(format!("operation {} is cancelled", deed.operation));
        }
        let target = self.state.nodes.keys().find(|name| ctx.host_named(name) == Some(deed.target))?;
        let record = self.state.nodes.get(target)?;
        if !record.lost() || record.lease_epoch != fence.lease_epoch {
            return Some(format!("{target} is not lost any more"));
        }
        let heard = self.leading.as_ref()?.heard.get(target)?;
        let heartbeat = self.state.cluster.settings.terms.heartbeat;
        let answers = host.clock(ctx.now).since(heard.received).0 * 2 < heartbeat.0 * 5;
        (answers && !fence.forced).then(|| format!("{target} answers again"))
    }

    fn plan(&mut self, host: &mut Host, ctx: &mut Ctx, now: BootMs) {
        let Some(leading) = self.leading.as_ref() else { return };
        let due = match leading.planned {
            None => true,
            Some(at) if leading.news => now.since(at) >= PLAN_AT_MOST_EVERY,
            Some(at) => now.since(at) >= PLAN_EVERY,
        };
        if !due || leading.in_flight.is_some() || !self.replica.settled() {
            return;
        }
        let seen = self.observed(host, now);
        let observed = broken::misjudge(ctx, &self.state, seen.clone(), host.wall(ctx.now));
        let verdicts = detect(&observed, &self.state);
        let mut made = plan(&self.state, &observed, &verdicts);
        broken::misplan(ctx, &self.state, &mut made);
        ctx.planned(&self.state, seen, &made);
        let Some(leading) = self.leading.as_mut() else { return };
        leading.planned = Some(now);
        leading.news = false;
        made.commands.extend(kv_expiry(&self.state, &mut leading.ttl, now));
        for command in &made.commands {
            if let Command::MarkLost { node, lease_epoch, .. } = command {
                leading.granter.close(node, *lease_epoch);
            }
        }
        leading.plan = made;
        self.propose_plan(host, ctx, now);
    }

    fn propose_plan(&mut self, host: &mut Host, ctx: &mut Ctx, now: BootMs) {
        let Some(leading) = self.leading.as_mut() else { return };
        let propose = |command: &Command| Proposal {
            request: None,
            actor: Actor::Planner,
            at: host.wall(ctx.now),
            expected: None,
            command: command.clone(),
        };
        let proposals: Vec<Proposal> = leading.plan.commands.iter().map(propose).collect();
        let step = leading.plan.membership.clone();
        if !proposals.is_empty() {
            let payload = Payload::Proposals(proposals.into());
            leading.in_flight = self.replica.propose(&mut host.disk.log, payload, now);
        }
        if let Some(step) = step {
            self.change_members(host, &step, now);
        }
    }

    fn change_members(&mut self, host: &mut Host, step: &MembershipStep, now: BootMs) {
        let current = host.disk.log.members();
        let mut members = Members { old: Default::default(), ..(*current).clone() };
        match step {
            MembershipStep::AddLearner(id) => {
                members.learners.insert(*id);
            }
            MembershipStep::SetVoters(voters) => {
                let dropped: Vec<_> =
                    members.voters.iter().filter(|id| !voters.contains(id)).copied().collect();
                members.learners.extend(dropped);
                members.voters = voters.iter().copied().collect();
                members.learners.retain(|id| !voters.contains(id));
            }
            MembershipStep::Remove(id) => {
                members.voters.remove(id);
                members.learners.remove(id);
            }
            MembershipStep::TransferTo(id) => {
                self.replica.transfer(&host.disk.log, *id);
                return;
            }
        }
        self.replica.change(&mut host.disk.log, members, now);
    }
}

//! What is left of a log goes on as another one: a forced quorum, a restore, and the members of before that come
//! back. Here are the operators who do that, by the rules of the commands they use, and the refusals between
//! members of different histories. What it means is decided by `apply` and `plan`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Count;
use super::ctx::{Ctx, Happening, History, Message};
use super::disk::Disk;
use super::host::Host;
use super::join::admission;
use super::log::{Entry, LogDisk, Members, Payload};
use super::strike::cut;
use super::switches::Rule;
use crate::command::{Actor, Command, Proposal, Recovery, RecoveryCause};
use crate::event::EventRecord;
use crate::ids::{ClusterId, Epoch, RaftId, Revision};
use crate::state::{Reply, State};
use crate::units::WallMs;

/// A minority is cut off for at most this long before the others are gone.
const LAG_MS: u64 = 2_500;

/// Are its data of the history that goes on?
pub(super) fn goes_on(host: &Host, ctx: &Ctx) -> bool {
    ctx.histories[host.index] == ctx.history
}

/// Are they of one that is over?
pub(super) fn former(host: &Host, ctx: &Ctx) -> bool {
    let own = ctx.histories[host.index];
    own != History::NONE && own != ctx.history && !ctx.lacks(Rule::FormerMembersStayOut)
}

/// Does a node take in what somebody of that history says? Members of two histories have nothing to say to one
/// another, but that the one is over; who hears so stands aside, and nothing more.
pub(super) fn takes(host: &mut Host, ctx: &mut Ctx, sender: (usize, History), message: &Message) -> bool {
    let ((from, theirs), mine) = (sender, ctx.histories[host.index]);
    let Some(node) = host.node.as_mut() else { return false };
    if theirs == mine {
        return !node.aside;
    }
    if theirs == History::NONE {
        // Clients, and hosts that ask to be admitted.
        return matches!(message, Message::Ask { .. });
    }
    if ctx.lacks(Rule::FormerMembersStayOut) {
        if theirs > mine {
            host.belong(ctx, theirs);
        }
        return true;
    }
    ctx.count(Count::FormerMembersRefused);
    if theirs.cluster != mine.cluster {
        return false;
    }
    if theirs < mine {
        ctx.send(host.index, from, Message::Refused);
    } else if !node.aside {
        node.aside = true;
        node.replica.stand_aside();
        ctx.count(Count::StoodAside);
        ctx.note(format_args!("{} stands aside: the cluster went on without it", host.name));
    }
    false
}

/// A minority of the voters falls behind; soon the others are gone, and it goes on alone.
pub(super) fn lose_majority(hosts: &mut [Host], ctx: &mut Ctx, first: usize, ms: u64, crash: bool) {
    let members = hosts.iter().filter(|host| goes_on(host, ctx));
    let Some(newest) = members.max_by_key(|host| host.disk.log.position()) else { return };
    let voters = newest.disk.log.members().voters.clone();
    let votes = |host: &&Host| goes_on(host, ctx) && voters.iter().any(|id| host.holds(*id));
    let mut able: Vec<usize> = hosts.iter().filter(votes).map(|host| host.index).collect();
    able.sort_by_key(|host| (*host + hosts.len() - first % hosts.len()) % hosts.len());
    able.truncate(voters.len().saturating_sub(1) / 2);
    if able.is_empty() {
        return;
    }
    let lag = ms.min(LAG_MS);
    for survivor in &able {
        for other in (0..hosts.len()).filter(|other| !able.contains(other)) {
            cut(ctx, *survivor, other, lag);
            cut(ctx, other, *survivor, lag);
        }
    }
    ctx.after(lag * 1_000, Happening::Force { survivors: able, ms, crash });
}

/// All but the survivors are gone, and those go on from the longest of their logs.
pub(super) fn force_quorum(hosts: &mut [Host], ctx: &mut Ctx, survivors: &[usize], ms: u64, crash: bool) {
    let able = |host: &Host| {
        let runs = host.lives() && host.node.is_some() && !host.node_frozen && !host.disk.full(ctx.now);
        runs && goes_on(host, ctx)
    };
    let furthest = survivors.iter().copied().max_by_key(|at| hosts[*at].disk.log.position());
    let Some(first) = furthest.filter(|_| survivors.iter().all(|at| able(&hosts[*at]))) else { return };
    let lost: Vec<usize> =
        (0..hosts.len()).filter(|at| !survivors.contains(at) && goes_on(&hosts[*at], ctx)).collect();
    lost.iter().for_each(|at| be_gone(&mut hosts[*at], ctx, crash));
    // What some survivor knows to be committed.
    let known = survivors.iter().filter_map(|at| hosts[*at].node.as_ref()).map(|node| node.replica.commit);
    let kept = Revision(known.max().unwrap_or_default());
    hosts[first].end_node(ctx);
    let Some(fork) = Fork::forced(hosts, survivors, first, kept) else {
        // The command refuses, and so everybody comes back as they were.
        hosts[first].start_node(ctx);
        lost.iter().for_each(|at| come_back(&hosts[*at], ctx, ms));
        return;
    };
    ctx.count(Count::ForcedQuorums);
    ctx.note(format_args!("{survivors:?} go on without {lost:?} from revision {}", fork.kept));
    ctx.history = History { number: ctx.history.number + 1, ..ctx.history };
    let history = ctx.history;
    for at in survivors {
        hosts[*at].disk.agreed = fork.epoch;
        hosts[*at].belong(ctx, history);
    }
    forget_after(ctx, &fork);
    fork.begin(&mut hosts[first], ctx);
    scatter(hosts, ctx, &lost, ms);
    hosts[first].start_node(ctx);
}

/// All nodes are gone, and one begins a cluster of its own with what was saved once.
pub(super) fn restore(hosts: &mut [Host], ctx: &mut Ctx, founder: usize, ms: u64, crash: bool) {
    let host = &hosts[founder];
    if !host.lives() || host.disk.full(ctx.now) || host.disk.machine != host.machine() {
        return;
    }
    let whole = |(state, log): &(&State, &LogDisk)| !state.nodes.is_empty() && state.revision.0 <= log.last();
    let members = hosts.iter().filter(|host| goes_on(host, ctx)).map(|host| &host.disk);
    let saved = members.flat_map(|disk| [(&disk.snapshot, &disk.log), (&disk.older, &disk.log)]);
    let mut saved: Vec<(&State, &LogDisk)> = saved.filter(whole).collect();
    if saved.is_empty() {
        return;
    }
    let (state, log) = saved.swap_remove(ctx.random.index(saved.len()));
    let (state, log) = (state.clone(), log.clone());
    let lost: Vec<usize> =
        (0..hosts.len()).filter(|at| *at != founder && goes_on(&hosts[*at], ctx)).collect();
    lost.iter().for_each(|at| be_gone(&mut hosts[*at], ctx, crash));
    let agreed = hosts[founder].disk.agreed;
    hosts[founder].lose_identity(ctx);
    let cluster = ctx.history.cluster + 1;
    let Some(fork) = Fork::restored(&hosts[founder], &state, agreed, cluster) else { return };
    let Some(raft_id) = fork.voters.first().copied() else { return };
    ctx.count(Count::Restores);
    ctx.note(format_args!("{} restores revision {}", hosts[founder].name, fork.kept));
    let disk = &mut hosts[founder].disk;
    (disk.raft_id, disk.admitted_at, disk.agreed) = (Some(raft_id), Revision(fork.at), fork.epoch);
    (disk.log, disk.snapshot) = (log, state);
    let history = History { cluster, number: ctx.history.number + 1 };
    ctx.history = history;
    ctx.routes.insert(raft_id, founder);
    hosts[founder].belong(ctx, history);
    forget_after(ctx, &fork);
    fork.begin(&mut hosts[founder], ctx);
    scatter(hosts, ctx, &lost, ms);
    hosts[founder].start_node(ctx);
}

/// Where a log goes on from, and as whose.
struct Fork {
    /// Up to here surely nothing is missing.
    kept: Revision,
    /// Where the recovery itself lies.
    at: u64,
    voters: BTreeSet<RaftId>,
    recovery: Proposal,
    epoch: Epoch,
}

impl Fork {
    /// As `quorate raft recover` would; nothing where it refuses.
    fn forced(hosts: &[Host], survivors: &[usize], first: usize, kept: Revision) -> Option<Self> {
        let disk = &hosts[first].disk;
        let voters: Option<BTreeSet<RaftId>> = survivors.iter().map(|at| hosts[*at].disk.raft_id).collect();
        let voters = voters.filter(|ids| ids.is_subset(&disk.log.members().voters))?;
        let longest = survivors.iter().all(|at| hosts[*at].disk.log.position() <= disk.log.position());
        if !longest || disk.snapshot.revision.0 > disk.log.last() {
            return None;
        }
        let names = survivors.iter().map(|at| hosts[*at].name.clone()).collect();
        let above = survivors.iter().map(|at| hosts[*at].disk.agreed).max()?;
        let recovery = Recovery {
            cause: RecoveryCause::ForcedQuorum { survivors: names },
            above,
            kept: kept.min(Revision(disk.log.last())),
            cluster: None,
            founder: None,
            reason: "the others are gone".to_owned(),
        };
        Self::of(&at_the_end(disk, |_, _, _| {}), recovery, |_| Some(voters))
    }

    /// As `quorate snapshot restore` would.
    fn restored(founder: &Host, saved: &State, above: Epoch, cluster: u32) -> Option<Self> {
        let recovery = Recovery {
            cause: RecoveryCause::Restored { saved_at: WallMs(0) },
            above,
            kept: saved.revision,
            cluster: Some(ClusterId(format!("sim-{cluster}"))),
            founder: Some(admission(founder)),
            reason: "all disks are lost".to_owned(),
        };
        Self::of(saved, recovery, |reply| match reply {
            Reply::Admitted(id) => Some(BTreeSet::from([*id])),
            _ => None,
        })
    }

    fn of(
        state: &State,
        recovery: Recovery,
        voters: impl FnOnce(&Reply) -> Option<BTreeSet<RaftId>>,
    ) -> Option<Self> {
        let (kept, at) = (recovery.kept, state.revision.0 + 1);
        let recovery = Proposal {
            request: None,
            actor: Actor::Operator { name: "op".to_owned(), from: "sim".to_owned() },
            at: WallMs(0),
            expected: None,
            command: Command::Recover(recovery),
        };
        let mut after = state.clone();
        let applied = after.apply(Revision(at), std::slice::from_ref(&recovery));
        let reply = applied.answers.into_iter().next()?.result.ok()?;
        Some(Self { kept, at, voters: voters(&reply)?, recovery, epoch: after.era() })
    }

    /// The disk begins with what the recovery leaves. No node ever stands between what is kept and the recovery.
    fn begin(&self, host: &mut Host, ctx: &mut Ctx) {
        let members = Members { voters: self.voters.clone(), ..Members::default() };
        host.disk.log.begin_anew(self.at - 1, members, self.recovery.clone());
        let (index, kept) = (host.index, self.kept);
        let state = at_the_end(&host.disk, |state, entry, events| {
            if state.revision > kept {
                ctx.applied(index, state, entry, events);
            }
        });
        host.disk.begin_with(&state);
    }
}

/// State at the end of a log, with what was never known to be committed.
fn at_the_end(disk: &Disk, mut seen: impl FnMut(&State, &Entry, &[Arc<EventRecord>])) -> State {
    let mut state = disk.snapshot.clone();
    while let Some(entry) = disk.log.entry(state.revision.0 + 1) {
        let proposals: &[Proposal] = match &entry.payload {
            Payload::Proposals(proposals) | Payload::Anew(_, proposals) => proposals,
            Payload::Empty | Payload::Members(_) => &[],
        };
        let applied = state.apply(Revision(state.revision.0 + 1), proposals);
        seen(&state, entry, &applied.events);
    }
    state
}

/// The host loses power or, where only its node process crashes, what runs there goes on under its guard.
fn be_gone(host: &mut Host, ctx: &mut Ctx, crash: bool) {
    if crash { host.end_node(ctx) } else { host.power_off(ctx) }
}

fn come_back(host: &Host, ctx: &mut Ctx, ms: u64) {
    let host = host.index;
    ctx.after(ms * 1_000, Happening::PowerOn { host });
    ctx.after(ms * 1_000 + 1, Happening::StartNode { host });
}

/// Whoever waits for the answer to what is gone has lost the connection.
fn forget_after(ctx: &mut Ctx, fork: &Fork) {
    let kept = fork.kept;
    // Raised at once by the recovery itself: only a State that knows of it tells who is a member. What was never
    // known to be committed is nothing to tell of.
    ctx.newest = Revision(fork.at.saturating_sub(1));
    ctx.queue.retain(|_, happening| match happening {
        Happening::Answered { answer, .. } | Happening::Admitted { answer, .. } => answer.revision <= kept,
        _ => true,
    });
    ctx.forked(kept, Revision(fork.at));
}

/// Those that are left behind come back: some with the data they had, until somebody sees that, and never so many
/// that they were a quorum of their own; that is what the operator is told. The others join anew at once.
fn scatter(hosts: &mut [Host], ctx: &mut Ctx, lost: &[usize], ms: u64) {
    // What was being admitted is not.
    for host in hosts.iter_mut().filter(|host| host.disk.raft_id.is_none()) {
        host.lose_identity(ctx);
    }
    let mut kept: Vec<usize> = Vec::new();
    for at in lost.iter().copied() {
        let mut together = kept.clone();
        together.push(at);
        let there = |id: RaftId| together.iter().any(|at| hosts[*at].disk.raft_id == Some(id));
        let quorum = together.iter().any(|at| hosts[*at].disk.log.members().quorum(there));
        if !quorum && ctx.random.percent(60) {
            ctx.count(Count::FormerMembersBack);
            let seen = ctx.random.between(500, 4_000);
            hosts[at].former_until = ctx.now + (ms + seen) * 1_000;
            kept = together;
        } else {
            hosts[at].lose_identity(ctx);
        }
        come_back(&hosts[at], ctx, ms);
    }
}

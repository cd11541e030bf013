//! A model of Raft as cruel as Raft permits: real terms, votes and quorums over the lossy network, tails that
//! are lost or committed late, lagging followers, joint membership changes, read-index rounds, transfers.
//! Knows entries and terms; not what entries mean. Logs are never compacted: a run is short.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::random::Random;
use crate::command::Proposal;
use crate::ids::RaftId;
use crate::settings::RaftTiming;
use crate::units::{BootMs, Millis};

/// One entry of the log.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) term: u64,
    pub(super) payload: Payload,
}

/// What an entry carries.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    /// The first entry of a leader's term.
    Empty,
    Proposals(Arc<[Proposal]>),
    Members(Arc<Members>),
    /// A recovery begins a log of its own with these members.
    Anew(Arc<Members>, Arc<[Proposal]>),
}

/// Who votes and who only listens. While `old` is set, both sets of voters must agree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Members {
    pub(super) voters: BTreeSet<RaftId>,
    pub(super) old: BTreeSet<RaftId>,
    pub(super) learners: BTreeSet<RaftId>,
}

impl Members {
    pub(super) fn quorum(&self, has: impl Fn(RaftId) -> bool) -> bool {
        let most = |set: &BTreeSet<RaftId>| set.iter().filter(|id| has(**id)).count() * 2 > set.len();
        most(&self.voters) && (self.old.is_empty() || most(&self.old))
    }

    pub(super) fn votes(&self, id: RaftId) -> bool {
        self.voters.contains(&id) || self.old.contains(&id)
    }

    pub(super) fn all(&self) -> BTreeSet<RaftId> {
        self.voters.iter().chain(&self.old).chain(&self.learners).copied().collect()
    }
}

/// What survives a crash. Entries beyond `synced` do not.
#[derive(Debug, Clone, Default)]
pub(super) struct LogDisk {
    pub(super) term: u64,
    vote: Option<RaftId>,
    pub(super) entries: Vec<Entry>,
    /// Every membership in the log with its index.
    members: Vec<(u64, Arc<Members>)>,
    /// Where a recovery began it anew last; 0 if none did. What lies before is handed over and applied in one: in
    /// truth it is a snapshot, and decided.
    pub(super) begun: u64,
    synced: u64,
    /// Nothing can be written.
    pub(super) full: bool,
    /// Something could not be: the process must not go on.
    pub(super) failed: bool,
}

impl LogDisk {
    /// A log that all hosts begin with.
    pub(super) fn seeded(members: Members, proposals: Vec<Proposal>) -> Self {
        let mut disk = Self { term: 1, ..Self::default() };
        disk.push(Payload::Members(Arc::new(members)));
        disk.push(Payload::Proposals(proposals.into()));
        disk.synced = disk.last();
        disk
    }

    pub(super) fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn last_term(&self) -> u64 {
        self.term_at(self.last())
    }

    /// The entry of an index, from 1.
    pub(super) fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    pub(super) fn members(&self) -> Arc<Members> {
        self.members.last().map(|(_, members)| members.clone()).unwrap_or_default()
    }

    /// May it campaign? A voter of the newest membership, or of the newest that is known to be committed: while the
    /// change that leaves it out is not, its log may be needed to end that change.
    fn campaigns(&self, me: RaftId, commit: u64) -> bool {
        let committed = self.members.iter().rev().find(|(index, _)| *index <= commit);
        self.members().votes(me) || committed.is_some_and(|(_, members)| members.votes(me))
    }

    /// What was written and never synced is gone.
    pub(super) fn crash(&mut self) {
        self.truncate(self.synced);
        self.failed = false;
    }

    /// Goes on from its first `length` entries as the log of these members alone, in a term of its own.
    pub(super) fn begin_anew(&mut self, length: u64, members: Members, recovery: Proposal) {
        self.truncate(length);
        (self.term, self.vote) = (self.term + 1, None);
        self.push(Payload::Anew(Arc::new(members), Arc::from([recovery])));
        self.synced = self.last();
    }

    /// How far it goes.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.last_term(), self.last())
    }

    /// May something be written? If not, the process has failed.
    fn writable(&mut self) -> bool {
        self.failed |= self.full;
        !self.full
    }

    fn term_at(&self, index: u64) -> u64 {
        self.entry(index).map_or(0, |entry| entry.term)
    }

    fn push(&mut self, payload: Payload) -> u64 {
        self.take(Entry { term: self.term, payload });
        self.last()
    }

    fn take(&mut self, entry: Entry) {
        if let Payload::Members(members) | Payload::Anew(members, _) = &entry.payload {
            self.members.push((self.last() + 1, members.clone()));
        }
        if matches!(entry.payload, Payload::Anew(..)) {
            self.begun = self.last() + 1;
        }
        self.entries.push(entry);
    }

    fn truncate(&mut self, length: u64) {
        self.entries.truncate(usize::try_from(length).unwrap_or(0));
        self.members.retain(|(index, _)| *index <= length);
        if self.begun > length {
            let begun = self.entries.iter().rposition(|entry| matches!(entry.payload, Payload::Anew(..)));
            self.begun = begun.map_or(0, |at| at as u64 + 1);
        }
        self.synced = self.synced.min(length);
    }
}

/// What replicas tell one another.
#[derive(Debug, Clone)]
pub(super) enum LogMessage {
    Vote {
        term: u64,
        last: u64,
        last_term: u64,
        forced: bool,
    },
    Voted {
        term: u64,
        granted: bool,
    },
    /// Would it be voted for? Nothing is written, and no term rises.
    Sound {
        term: u64,
        last: u64,
        last_term: u64,
    },
    /// It would.
    Sounded {
        term: u64,
    },
    Append {
        term: u64,
        before: u64,
        before_term: u64,
        entries: Vec<Entry>,
        commit: u64,
        round: u64,
    },
    Appended {
        term: u64,
        fits: bool,
        matched: u64,
        round: u64,
    },
    /// Campaign at once.
    TakeOver {
        term: u64,
    },
}

impl LogMessage {
    /// Does taking it in write to a disk of this term?
    fn writes(&self, current: u64) -> bool {
        match self {
            LogMessage::Vote { term, .. } => *term >= current,
            LogMessage::Append { term, entries, .. } => *term > current || !entries.is_empty(),
            LogMessage::Voted { term, .. }
            | LogMessage::Appended { term, .. }
            | LogMessage::TakeOver { term } => *term > current,
            LogMessage::Sound { .. } | LogMessage::Sounded { .. } => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Follower,
    Candidate,
    Leader,
}

#[derive(Debug, Clone, Copy, Default)]
struct Peer {
    next: u64,
    matched: u64,
    round: u64,
}

/// One node process's part in the log, from its start. Lost with it.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) me: RaftId,
    pub(super) role: Role,
    pub(super) leader: Option<RaftId>,
    pub(super) commit: u64,
    /// When it became leader.
    pub(super) since: BootMs,
    pub(super) outbox: Vec<(RaftId, LogMessage)>,
    /// Asks before it campaigns, as the real engine does; the cruel one of drawn worlds does not.
    pub(super) gentle: bool,
    pub(super) timing: RaftTiming,
    pub(super) heard: BootMs,
    timeout: Millis,
    pub(super) votes: BTreeSet<RaftId>,
    peers: BTreeMap<RaftId, Peer>,
    round: u64,
    over: u64,
    sent: VecDeque<(u64, BootMs)>,
    next_round: BootMs,
    first: u64,
}

/// Entries in one message.
const BATCH: usize = 64;
/// Rounds whose time of sending is remembered.
const ROUNDS: usize = 256;

impl Replica {
    pub(super) fn new(me: RaftId, timing: RaftTiming, now: BootMs, random: &mut Random) -> Self {
        let mut replica = Self {
            me,
            role: Role::Follower,
            leader: None,
            commit: 0,
            since: now,
            outbox: Vec::new(),
            gentle: false,
            timing,
            heard: now,
            timeout: Millis(0),
            votes: BTreeSet::new(),
            peers: BTreeMap::new(),
            round: 0,
            over: 0,
            sent: VecDeque::new(),
            next_round: now,
            first: 0,
        };
        replica.draw_timeout(random);
        replica
    }

    pub(super) fn draw_timeout(&mut self, random: &mut Random) {
        let RaftTiming { election_min, election_max, .. } = self.timing;
        self.timeout = Millis(random.between(election_min.0, election_max.0));
    }

    pub(super) fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// Has the first entry of its own term been committed? Only then does a leader know all that is decided.
    pub(super) fn settled(&self) -> bool {
        self.leads() && self.commit >= self.first
    }

    /// The first round that begins after now.
    pub(super) fn next_round(&self) -> u64 {
        self.round + 1
    }

    /// The newest round that a quorum acknowledged.
    pub(super) fn round_over(&self) -> u64 {
        self.over
    }

    /// How long ago the newest acknowledged round was sent.
    pub(super) fn quorum_age(&self, now: BootMs) -> Option<Millis> {
        let newest = self.sent.iter().rev().find(|(round, _)| *round <= self.over)?;
        self.leads().then(|| now.since(newest.1))
    }

    /// Entries each member still lacks.
    pub(super) fn lag(&self, disk: &LogDisk) -> BTreeMap<RaftId, u64> {
        self.peers.iter().map(|(id, peer)| (*id, disk.last().saturating_sub(peer.matched))).collect()
    }

    pub(super) fn tick(&mut self, disk: &mut LogDisk, now: BootMs, random: &mut Random) {
        if disk.last() > disk.synced && disk.writable() {
            disk.synced = disk.last();
        }
        if self.leads() {
            if now >= self.next_round {
                self.begin_round(disk, now);
            }
            self.advance(disk, now);
        } else if disk.campaigns(self.me, self.commit) && now.since(self.heard) >= self.timeout {
            if self.gentle { self.sound(disk, now, random) } else { self.campaign(disk, now, random, false) }
        }
    }

    /// Has no part in any quorum any more.
    pub(super) fn stand_aside(&mut self) {
        (self.role, self.leader) = (Role::Follower, None);
        self.outbox.clear();
    }

    /// Begins a round now, for those who wait for one.
    pub(super) fn hurry(&mut self, disk: &LogDisk, now: BootMs) {
        if self.leads() && self.round == self.over {
            self.begin_round(disk, now);
        }
    }

    /// Appends as leader; the index where it will be decided.
    pub(super) fn propose(&mut self, disk: &mut LogDisk, payload: Payload, now: BootMs) -> Option<u64> {
        if !self.leads() || !disk.writable() {
            return None;
        }
        let index = disk.push(payload);
        self.begin_round(disk, now);
        Some(index)
    }

    /// Begins to change the membership; one change at a time.
    pub(super) fn change(&mut self, disk: &mut LogDisk, members: Members, now: BootMs) {
        let pending = disk.members.last().is_some_and(|(index, current)| {
            *index > self.commit || !current.old.is_empty() || **current == members
        });
        if self.settled() && !pending && !members.voters.is_empty() {
            let current = disk.members();
            let old = if current.voters == members.voters { BTreeSet::new() } else { current.voters.clone() };
            self.propose(disk, Payload::Members(Arc::new(Members { old, ..members })), now);
        }
    }

    pub(super) fn transfer(&mut self, disk: &LogDisk, to: RaftId) {
        let ready = self.peers.get(&to).is_some_and(|peer| peer.matched == disk.last());
        if self.leads() && ready && disk.members().voters.contains(&to) {
            self.outbox.push((to, LogMessage::TakeOver { term: disk.term }));
        }
    }

    pub(super) fn campaign(&mut self, disk: &mut LogDisk, now: BootMs, random: &mut Random, forced: bool) {
        if !disk.writable() {
            return;
        }
        disk.term += 1;
        disk.vote = Some(self.me);
        self.role = Role::Candidate;
        self.leader = None;
        self.votes = BTreeSet::from([self.me]);
        self.heard = now;
        self.draw_timeout(random);
        let ask = LogMessage::Vote {
            term: disk.term,
            last: disk.last(),
            last_term: disk.term_at(disk.last()),
            forced,
        };
        for id in disk.members().all().into_iter().filter(|id| *id != self.me) {
            self.outbox.push((id, ask.clone()));
        }
        self.count_votes(disk, now);
    }

    fn count_votes(&mut self, disk: &mut LogDisk, now: BootMs) {
        if self.role != Role::Candidate || !disk.members().quorum(|id| self.votes.contains(&id)) {
            return;
        }
        self.role = Role::Leader;
        self.leader = Some(self.me);
        self.since = now;
        self.peers.clear();
        self.sent.clear();
        (self.round, self.over) = (0, 0);
        self.first = disk.push(Payload::Empty);
        self.begin_round(disk, now);
    }

    fn step_down(&mut self, disk: &mut LogDisk, term: u64) {
        if term > disk.term {
            disk.term = term;
            disk.vote = None;
        }
        self.role = Role::Follower;
    }

    fn begin_round(&mut self, disk: &LogDisk, now: BootMs) {
        self.round += 1;
        self.next_round = now + self.timing.heartbeat;
        self.sent.push_back((self.round, now));
        if self.sent.len() > ROUNDS {
            self.sent.pop_front();
        }
        let members = disk.members().all();
        self.peers.retain(|id, _| members.contains(id));
        for id in members.into_iter().filter(|id| *id != self.me) {
            let fresh = Peer { next: disk.last(), ..Peer::default() };
            let next = self.peers.entry(id).or_insert(fresh).next.max(1);
            let from = usize::try_from(next - 1).unwrap_or(0).min(disk.entries.len());
            let anew = usize::try_from(disk.begun).unwrap_or(0).saturating_sub(from);
            let entries: Vec<Entry> = disk.entries[from..].iter().take(BATCH.max(anew)).cloned().collect();
            let append = LogMessage::Append {
                term: disk.term,
                before: next - 1,
                before_term: disk.term_at(next - 1),
                entries,
                commit: self.commit,
                round: self.round,
            };
            self.outbox.push((id, append));
        }
        self.count_round(disk);
    }

    fn count_round(&mut self, disk: &LogDisk) {
        let members = disk.members();
        let acknowledged = |round: u64| {
            members.quorum(|id| id == self.me || self.peers.get(&id).is_some_and(|p| p.round >= round))
        };
        let mut rounds: Vec<u64> = self.peers.values().map(|peer| peer.round).collect();
        rounds.push(self.round);
        rounds.sort_unstable();
        if let Some(over) = rounds.into_iter().rev().find(|round| acknowledged(*round)) {
            self.over = self.over.max(over);
        }
    }

    fn advance(&mut self, disk: &mut LogDisk, now: BootMs) {
        let members = disk.members();
        let held = |id: RaftId, index: u64| {
            if id == self.me {
                disk.synced >= index
            } else {
                self.peers.get(&id).is_some_and(|p| p.matched >= index)
            }
        };
        let decided = (self.commit + 1..=disk.last())
            .rev()
            .find(|index| disk.term_at(*index) == disk.term && members.quorum(|id| held(id, *index)));
        let Some(decided) = decided else { return };
        self.commit = decided;
        let at = disk.members.last().map_or(0, |(index, _)| *index);
        if at > self.commit {
            return;
        }
        if !members.old.is_empty() {
            let next = Members { old: BTreeSet::new(), ..(*members).clone() };
            self.propose(disk, Payload::Members(Arc::new(next)), now);
        } else if !members.voters.contains(&self.me) {
            self.role = Role::Follower;
        }
    }

    pub(super) fn receive(
        &mut self,
        disk: &mut LogDisk,
        from: RaftId,
        message: LogMessage,
        now: BootMs,
        random: &mut Random,
    ) {
        if message.writes(disk.term) && !disk.writable() {
            return;
        }
        match message {
            LogMessage::Vote { term, last, last_term, forced } => {
                self.asked_for_vote(disk, from, (term, last, last_term, forced), now);
            }
            LogMessage::Voted { term, granted } => {
                if term > disk.term {
                    self.step_down(disk, term);
                } else if term == disk.term && granted {
                    self.votes.insert(from);
                    self.count_votes(disk, now);
                }
            }
            LogMessage::Append { term, before, before_term, entries, commit, round } => {
                if term < disk.term {
                    let refusal = LogMessage::Appended { term: disk.term, fits: false, matched: 0, round: 0 };
                    self.outbox.push((from, refusal));
                    return;
                }
                self.step_down(disk, term);
                self.leader = Some(from);
                self.heard = now;
                let fits = before <= disk.last() && disk.term_at(before) == before_term;
                let matched = if fits {
                    self.store(disk, before, entries)
                } else {
                    disk.last().min(before.saturating_sub(1))
                };
                if fits {
                    let begun = Some(disk.begun).filter(|begun| *begun <= matched).unwrap_or_default();
                    self.commit = self.commit.max(commit.min(matched)).max(begun);
                }
                self.outbox.push((from, LogMessage::Appended { term, fits, matched, round }));
            }
            LogMessage::Appended { term, fits, matched, round } => {
                if term > disk.term {
                    self.step_down(disk, term);
                } else if term == disk.term && self.leads() {
                    self.appended(disk, from, fits, matched, round);
                    self.advance(disk, now);
                }
            }
            LogMessage::Sound { term, last, last_term } => {
                self.sounded_out(disk, from, (term, last, last_term), now);
            }
            LogMessage::Sounded { term } => self.sounded(disk, from, term, now, random),
            LogMessage::TakeOver { term } => {
                if term == disk.term && !self.leads() && disk.members().voters.contains(&self.me) {
                    self.campaign(disk, now, random, true);
                }
            }
        }
    }

    fn asked_for_vote(&mut self, disk: &mut LogDisk, from: RaftId, ask: (u64, u64, u64, bool), now: BootMs) {
        let (term, last, last_term, forced) = ask;
        // A member that hears a leader does not help to unseat it, unless that leader handed over.
        if !forced && self.content(now) {
            return;
        }
        if term > disk.term {
            self.step_down(disk, term);
            self.leader = None;
        }
        let newer = (last_term, last) >= (disk.term_at(disk.last()), disk.last());
        let granted = term == disk.term && newer && disk.vote.is_none_or(|vote| vote == from);
        if granted {
            disk.vote = Some(from);
            self.heard = now;
        }
        self.outbox.push((from, LogMessage::Voted { term: disk.term, granted }));
    }

    fn store(&mut self, disk: &mut LogDisk, before: u64, entries: Vec<Entry>) -> u64 {
        let mut at = before;
        for entry in entries {
            at += 1;
            if disk.entry(at).is_some_and(|own| own.term != entry.term) {
                disk.truncate(at - 1);
            }
            if disk.last() < at {
                disk.take(entry);
            }
        }
        disk.synced = disk.last();
        at
    }

    fn appended(&mut self, disk: &LogDisk, from: RaftId, fits: bool, matched: u64, round: u64) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.round = peer.round.max(round);
        if fits {
            peer.matched = peer.matched.max(matched);
            peer.next = peer.matched + 1;
        } else {
            peer.next = peer.next.min(matched + 1).max(peer.matched + 1);
        }
        self.count_round(disk);
    }
}

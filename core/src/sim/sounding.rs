//! Asking before campaigning, as the real engine does: a replica that was cut off unseats no leader by its return.
//! Only the written worlds have it; in drawn ones the log stays as cruel as Raft permits.

use std::collections::BTreeSet;

use super::log::{LogDisk, LogMessage, Replica, Role};
use super::random::Random;
use crate::ids::RaftId;
use crate::units::BootMs;

impl Replica {
    /// Finds out whether a campaign could be won.
    pub(super) fn sound(&mut self, disk: &mut LogDisk, now: BootMs, random: &mut Random) {
        self.leader = None;
        self.votes = BTreeSet::from([self.me]);
        self.heard = now;
        self.draw_timeout(random);
        let (term, last, last_term) = (disk.term + 1, disk.last(), disk.last_term());
        for id in disk.members().all().into_iter().filter(|id| *id != self.me) {
            self.outbox.push((id, LogMessage::Sound { term, last, last_term }));
        }
        self.count_soundings(disk, now, random);
    }

    fn count_soundings(&mut self, disk: &mut LogDisk, now: BootMs, random: &mut Random) {
        if disk.members().quorum(|id| self.votes.contains(&id)) {
            self.campaign(disk, now, random, false);
        }
    }

    /// Does it hear a leader, or lead with a quorum?
    pub(super) fn content(&self, now: BootMs) -> bool {
        let heard = self.leader.is_some() && now.since(self.heard) < self.timing.election_min;
        heard || self.leads() && self.quorum_age(now).is_some_and(|age| age < self.timing.election_min)
    }

    /// Somebody asks whether it would be voted for.
    pub(super) fn sounded_out(&mut self, disk: &LogDisk, from: RaftId, ask: (u64, u64, u64), now: BootMs) {
        let (term, last, last_term) = ask;
        let newer = (last_term, last) >= (disk.last_term(), disk.last());
        if term > disk.term && newer && !self.content(now) {
            self.outbox.push((from, LogMessage::Sounded { term }));
        }
    }

    /// Somebody would vote for it.
    pub(super) fn sounded(
        &mut self,
        disk: &mut LogDisk,
        from: RaftId,
        term: u64,
        now: BootMs,
        random: &mut Random,
    ) {
        if term == disk.term + 1 && self.role == Role::Follower && self.leader.is_none() {
            self.votes.insert(from);
            self.count_soundings(disk, now, random);
        }
    }
}

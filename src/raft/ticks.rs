//! Lets the library's clock rest while nothing can come of it. It ticks five times in each heartbeat and wakes a core each
//! time, though a follower that has just heard its leader elects nobody, and a leader only has its heartbeats to send.
//! Moves no election: the clock runs again before the earliest that there could be.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::inbox::boot_ms;
use super::node::RaftTiming;
use super::status::{Marks, RaftRole, RaftStanding};
use super::types::Raft;

/// The library's clock, which runs whenever nobody holds it.
struct Clock<'a>(&'a Raft);

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        self.0.runtime_config().tick(true);
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Sends a sign of life.
    Beat,
    /// The clock may rest for so long.
    Rest(Duration),
    /// The clock runs.
    Tick,
}

/// `kept` is when the last append came that was accepted, `beat` when this node sent its last sign of life.
fn next(standing: &RaftStanding, kept: u64, beat: u64, now: u64, timing: &RaftTiming) -> Next {
    match standing.role {
        // The standing changes much more often than signs of life are due.
        RaftRole::Leader => match (beat + timing.heartbeat_ms).checked_sub(now) {
            Some(left) if left > 0 => Next::Rest(Duration::from_millis(left)),
            _ => Next::Beat,
        },
        RaftRole::Follower if standing.leader.is_some() && kept > 0 => {
            // It takes up to one tick to run again, which is less than half of a heartbeat.
            let until = (kept + timing.election_min_ms).saturating_sub(timing.heartbeat_ms / 2);
            match until.checked_sub(now) {
                Some(left) if left > 0 => Next::Rest(Duration::from_millis(left)),
                _ => Next::Tick,
            }
        }
        RaftRole::Follower | RaftRole::Candidate | RaftRole::Learner | RaftRole::Stopped => Next::Tick,
    }
}

/// Sees to the clock until raft ends.
pub async fn run(
    raft: Raft,
    timing: RaftTiming,
    marks: Arc<Marks>,
    mut standing: watch::Receiver<RaftStanding>,
) {
    let clock = Clock(&raft);
    let heartbeat = Duration::from_millis(timing.heartbeat_ms);
    let mut beat = 0;
    loop {
        let now = boot_ms();
        let next = next(&standing.borrow_and_update(), marks.kept(), beat, now, &timing);
        clock.0.runtime_config().tick(next == Next::Tick);
        let wait = match next {
            Next::Beat => {
                if raft.trigger().heartbeat().await.is_err() {
                    return;
                }
                beat = now;
                heartbeat
            }
            Next::Tick => heartbeat,
            Next::Rest(left) => left,
        };
        if let Ok(Err(_)) = timeout(wait, standing.changed()).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_rests_only_while_a_leader_was_just_heard_and_runs_before_anyone_may_be_elected() {
        let timing = RaftTiming { heartbeat_ms: 50, election_min_ms: 150, election_max_ms: 250 };
        let at = |role, leader, kept, now| {
            next(&RaftStanding { role, leader, ..RaftStanding::default() }, kept, 0, now, &timing)
        };
        let follower = |kept, now| at(RaftRole::Follower, Some(2), kept, now);
        assert_eq!(follower(1_000, 1_000), Next::Rest(Duration::from_millis(125)));
        assert_eq!(follower(1_000, 1_124), Next::Rest(Duration::from_millis(1)));
        assert_eq!(follower(1_000, 1_125), Next::Tick);
        assert_eq!(follower(1_000, 9_000), Next::Tick);
        assert_eq!(follower(0, 10), Next::Tick, "never heard");
        assert_eq!(at(RaftRole::Follower, None, 1_000, 1_000), Next::Tick);
        assert_eq!(at(RaftRole::Candidate, Some(2), 1_000, 1_000), Next::Tick);
        assert_eq!(at(RaftRole::Learner, Some(2), 1_000, 1_000), Next::Tick);
    }

    #[test]
    fn a_leader_gives_one_sign_of_life_in_each_heartbeat_however_often_it_is_asked() {
        let timing = RaftTiming { heartbeat_ms: 50, election_min_ms: 150, election_max_ms: 250 };
        let leads = RaftStanding { role: RaftRole::Leader, leader: Some(1), ..RaftStanding::default() };
        let after = |beat| next(&leads, 0, beat, 1_000, &timing);
        assert_eq!(after(0), Next::Beat, "just elected");
        assert_eq!(after(1_000), Next::Rest(Duration::from_millis(50)));
        assert_eq!(after(951), Next::Rest(Duration::from_millis(1)));
        assert_eq!(after(950), Next::Beat);
    }
}

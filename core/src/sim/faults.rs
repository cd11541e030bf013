//! What can go wrong, and how a seed draws it: every fault that the safety model names. Knows no host; how a
//! fault comes true stands in `strike`.

use serde::{Deserialize, Serialize};

use super::network::SEGMENTS;
use super::random::Random;
use super::script::{Deed, Step};

/// One thing that goes wrong. Hosts are counted from 0, lengths are in milliseconds of true time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "host, from, to, ms and the like say what they are")]
pub enum Fault {
    /// The node process is killed; another starts later.
    Crash { host: usize, ms: u64 },
    /// The node process is killed and started at once.
    Restart { host: usize },
    /// The same, and it begins with an older State.
    RestartOld { host: usize },
    /// The guard is killed; another adopts what runs.
    KillGuard { host: usize, ms: u64 },
    /// The second holder is killed; another takes over.
    KillTwin { host: usize, ms: u64 },
    /// The host loses power and boots again.
    Reboot { host: usize, ms: u64 },
    /// All hosts do, at once.
    PowerLoss { ms: u64 },
    /// The node process is stopped and goes on later.
    FreezeNode { host: usize, ms: u64 },
    /// The guard is stopped and goes on later.
    FreezeGuard { host: usize, ms: u64 },
    /// The second holder is.
    FreezeTwin { host: usize, ms: u64 },
    /// Node and guard are; the second holder, where there is one, is not.
    FreezeBoth { host: usize, ms: u64 },
    /// Node, guard and second holder are: nobody holds the deadlines.
    FreezeAll { host: usize, ms: u64 },
    /// The whole host stands still and its clock with it, as of a paused guest.
    Pause { host: usize, ms: u64 },
    /// The whole host stands still while its clock counts on.
    Suspend { host: usize, ms: u64 },
    /// The host's wall clock jumps by this much.
    WallJump { host: usize, by_ms: i64 },
    /// Nothing of the host reaches others, nor theirs it.
    Isolate { host: usize, ms: u64 },
    /// One direction of one pair.
    OneWay { from: usize, to: usize, ms: u64 },
    /// Both directions of one pair.
    Pair { from: usize, to: usize, ms: u64 },
    /// Hosts below `first` and the others do not hear one another.
    Split { first: usize, ms: u64 },
    /// Nobody hears this host, which hears all.
    Mute { host: usize, ms: u64 },
    /// It hears nobody, and all hear it.
    Deaf { host: usize, ms: u64 },
    /// One segment of the network carries nothing.
    LoseSegment { segment: usize, ms: u64 },
    /// Messages of one direction come late, by at most so much.
    Slow { from: usize, to: usize, most_ms: u64, ms: u64 },
    /// Many messages are lost.
    Lossy { percent: u64, ms: u64 },
    /// The leader hands over.
    Transfer { to: usize },
    /// Whoever leads crashes.
    CrashLeader { ms: u64 },
    /// Whoever leads is frozen.
    FreezeLeader { ms: u64 },
    /// Whoever leads is cut off.
    IsolateLeader { ms: u64 },
    /// A node process crashes while it is cut off: two faults that matter together.
    IsolateAndCrash { host: usize, ms: u64 },
    /// So do these: nobody stops what the cut-off host runs but its second holder.
    IsolateAndFreeze { host: usize, ms: u64 },
    /// The host is switched off and comes back with an empty disk.
    Wipe { host: usize, ms: u64 },
    /// Its data directory is emptied under it; what runs goes on.
    WipeRunning { host: usize },
    /// A host comes back with a copy of another's disk.
    CopyDisk { from: usize, to: usize, ms: u64 },
    /// Nothing can be written to its disk.
    DiskFull { host: usize, ms: u64 },
    /// Its engine fails every start.
    EngineFails { host: usize, ms: u64 },
    /// Its engine hangs in every call: starts come late, stops do not arrive, nothing is told.
    EngineHangs { host: usize, ms: u64 },
    /// A minority from `first` on is cut off for a while; then all others are gone, with their hosts or, in a
    /// `crash`, their node processes alone, and the minority goes on by an operator's word. The others come back
    /// after `ms`, some of them with the data they had.
    ForcedQuorum { first: usize, ms: u64, crash: bool },
    /// All nodes are gone, in the same ways, and a saved State is restored on this host. So do the others come back.
    Restore { host: usize, ms: u64, crash: bool },
}

/// The faults of a seed, and when they come.
pub(super) fn draw_all(random: &mut Random, hosts: usize, until_us: u64, count: u32) -> Vec<Step> {
    let mut at = 0;
    let one = |_| {
        // Trouble comes in company: every third fault follows soon upon the one before.
        at = if at > 0 && random.percent(33) {
            at + random.below(1_500_000)
        } else {
            random.between(1_500_000.min(until_us), until_us)
        };
        Step { at_us: at, deed: Deed::Fault(draw(random, hosts)) }
    };
    (0..count).map(one).collect()
}

/// In some worlds the log itself is lost, in part. Drawn from a stream of its own, so that all others stay what they
/// are.
pub(super) fn draw_disasters(seed: u64, hosts: usize, until_us: u64) -> Vec<Step> {
    let mut random = Random::new(!seed);
    let count = random.below(6).saturating_sub(3);
    let one = |_| {
        let at_us = random.between(3_000_000.min(until_us), until_us);
        let (host, ms) = (random.index(hosts), random.between(300, 5_000));
        let crash = random.percent(50);
        let fault = if random.percent(60) {
            Fault::ForcedQuorum { first: host, ms, crash }
        } else {
            Fault::Restore { host, ms, crash }
        };
        Step { at_us, deed: Deed::Fault(fault) }
    };
    (0..count).map(one).collect()
}

fn draw(random: &mut Random, hosts: usize) -> Fault {
    let host = random.index(hosts);
    let other = (host + 1 + random.index(hosts.saturating_sub(1).max(1))) % hosts;
    let (from, to) = (host, other);
    let ms = match random.below(3) {
        0 => random.between(30, 600),
        1 => random.between(600, 2_500),
        _ => random.between(2_500, 9_000),
    };
    let short = ms.min(2_500);
    match random.below(46) {
        0 => Fault::Crash { host, ms },
        1 => Fault::KillGuard { host, ms: short },
        2 | 3 => Fault::Reboot { host, ms: ms.max(300) },
        4 | 5 => Fault::FreezeNode { host, ms },
        6 => Fault::FreezeGuard { host, ms },
        7 => Fault::FreezeBoth { host, ms },
        8 | 9 => Fault::Isolate { host, ms },
        10 => Fault::OneWay { from, to, ms },
        11 => Fault::Pair { from, to, ms },
        12 => Fault::Split { first: 1 + random.index(hosts.saturating_sub(1).max(1)), ms },
        13 => Fault::Mute { host, ms },
        14 => Fault::Deaf { host, ms },
        15 => Fault::Slow { from, to, most_ms: 600, ms },
        16 => Fault::Lossy { percent: random.between(5, 40), ms },
        17 => Fault::Transfer { to: host },
        18 => Fault::CrashLeader { ms },
        19 => Fault::FreezeLeader { ms },
        20 => Fault::IsolateLeader { ms },
        21 => Fault::IsolateAndCrash { host, ms },
        22 => Fault::Restart { host },
        23 => Fault::RestartOld { host },
        24 => Fault::KillTwin { host, ms: short },
        25 => Fault::FreezeTwin { host, ms },
        26 => Fault::FreezeAll { host, ms },
        27 | 28 => Fault::Pause { host, ms },
        29 | 30 => Fault::Suspend { host, ms },
        31 => {
            Fault::WallJump { host, by_ms: i64::try_from(random.below(7_200_000)).unwrap_or(0) - 3_600_000 }
        }
        32 | 33 => Fault::LoseSegment { segment: random.index(SEGMENTS), ms },
        34 | 35 => Fault::IsolateAndFreeze { host, ms },
        36 | 37 => Fault::Wipe { host, ms: short },
        38 => Fault::WipeRunning { host },
        39 => Fault::CopyDisk { from, to, ms: short },
        40 | 41 => Fault::DiskFull { host, ms },
        42 => Fault::EngineFails { host, ms },
        43 | 44 => Fault::EngineHangs { host, ms },
        _ => Fault::PowerLoss { ms: ms.max(300) },
    }
}

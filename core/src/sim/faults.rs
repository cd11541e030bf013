//! What goes wrong, and when: drawn from the seed before the run, struck on hosts and network during it.

use super::Count;
use super::ctx::{Ctx, Happening};
use super::host::Host;

/// One thing that goes wrong. Lengths are in milliseconds of true time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The node process is killed; another starts later.
    Crash { host: usize, ms: u64 },
    /// The node process is killed and started at once.
    Restart { host: usize },
    /// The guard is killed; another adopts what runs.
    KillGuard { host: usize, ms: u64 },
    /// The host loses power and boots again.
    Reboot { host: usize, ms: u64 },
    /// The node process is stopped and goes on later.
    FreezeNode { host: usize, ms: u64 },
    /// The guard is stopped and goes on later.
    FreezeGuard { host: usize, ms: u64 },
    /// Both are; a second holder, where there is one, is not.
    FreezeBoth { host: usize, ms: u64 },
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
    /// Messages of one direction come late.
    Slow { from: usize, to: usize, ms: u64 },
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
}

/// Puts the seed's faults into the queue.
pub(super) fn schedule(ctx: &mut Ctx, hosts: usize, until_us: u64, count: u32) {
    for _ in 0..count {
        let at = ctx.random.between(1_500_000.min(until_us), until_us);
        let fault = draw(ctx, hosts);
        ctx.after(at, Happening::Fault(fault));
    }
}

fn draw(ctx: &mut Ctx, hosts: usize) -> Fault {
    let random = &mut ctx.random;
    let host = random.index(hosts);
    let other = (host + 1 + random.index(hosts.saturating_sub(1).max(1))) % hosts;
    let (from, to) = (host, other);
    let ms = match random.below(3) {
        0 => random.between(30, 600),
        1 => random.between(600, 2_500),
        _ => random.between(2_500, 9_000),
    };
    match random.below(24) {
        0 => Fault::Crash { host, ms },
        1 => Fault::KillGuard { host, ms: ms.min(2_500) },
        2 | 3 => Fault::Reboot { host, ms: ms.max(300) },
        4 | 5 => Fault::FreezeNode { host, ms },
        6 => Fault::FreezeGuard { host, ms: ms.min(2_500) },
        7 => Fault::FreezeBoth { host, ms },
        8 | 9 => Fault::Isolate { host, ms },
        10 => Fault::OneWay { from, to, ms },
        11 => Fault::Pair { from, to, ms },
        12 => Fault::Split { first: 1 + random.index(hosts.saturating_sub(1).max(1)), ms },
        13 => Fault::Mute { host, ms },
        14 => Fault::Deaf { host, ms },
        15 => Fault::Slow { from, to, ms },
        16 => Fault::Lossy { percent: random.between(5, 40), ms },
        17 => Fault::Transfer { to: host },
        18 => Fault::CrashLeader { ms },
        19 => Fault::FreezeLeader { ms },
        20 => Fault::IsolateLeader { ms },
        21 => Fault::IsolateAndCrash { host, ms },
        _ => Fault::Restart { host },
    }
}

/// Whoever leads the newest term.
fn leader(hosts: &[Host]) -> Option<usize> {
    let leads = |host: &&Host| host.node.as_ref().is_some_and(|node| node.replica.leads());
    hosts.iter().filter(leads).max_by_key(|host| host.disk.log.term).map(|host| host.index)
}

/// Lets a fault come true.
pub(super) fn strike(hosts: &mut [Host], ctx: &mut Ctx, fault: Fault) {
    ctx.note(format_args!("fault: {fault:?}"));
    match fault {
        Fault::Crash { host, ms } => crash(&mut hosts[host], ctx, ms),
        Fault::Restart { host } => crash(&mut hosts[host], ctx, 3),
        Fault::KillGuard { host, ms } => {
            ctx.count(Count::GuardKills);
            hosts[host].guard_alive = false;
            hosts[host].guard_frozen = false;
            ctx.after(ms * 1_000, Happening::StartGuard { host });
        }
        Fault::Reboot { host, ms } => {
            ctx.count(Count::Reboots);
            hosts[host].power_off(ctx);
            ctx.after(ms * 1_000, Happening::PowerOn { host });
        }
        Fault::FreezeNode { host, ms } => freeze_node(&mut hosts[host], ctx, ms),
        Fault::FreezeGuard { host, ms } => freeze_guard(&mut hosts[host], ctx, ms),
        Fault::FreezeBoth { host, ms } => {
            freeze_node(&mut hosts[host], ctx, ms);
            freeze_guard(&mut hosts[host], ctx, ms);
        }
        Fault::Isolate { host, ms } => isolate(ctx, hosts.len(), host, ms),
        Fault::OneWay { from, to, ms } => {
            ctx.count(Count::OneWayCuts);
            cut(ctx, from, to, ms);
        }
        Fault::Pair { from, to, ms } => {
            ctx.count(Count::Cuts);
            cut(ctx, from, to, ms);
            cut(ctx, to, from, ms);
        }
        Fault::Split { first, ms } => {
            ctx.count(Count::Cuts);
            for from in 0..first {
                for to in first..hosts.len() {
                    cut(ctx, from, to, ms);
                    cut(ctx, to, from, ms);
                }
            }
        }
        Fault::Mute { host, ms } => {
            ctx.count(Count::OneWayCuts);
            others(hosts.len(), host).for_each(|other| cut(ctx, host, other, ms));
        }
        Fault::Deaf { host, ms } => {
            ctx.count(Count::OneWayCuts);
            others(hosts.len(), host).for_each(|other| cut(ctx, other, host, ms));
        }
        Fault::Slow { from, to, ms } => {
            let until = ctx.now + ms * 1_000;
            ctx.network.slow(from, to, until, 600);
        }
        Fault::Lossy { percent, ms } => {
            let until = ctx.now + ms * 1_000;
            ctx.network.lossy(until, percent);
        }
        Fault::Transfer { to } => transfer(hosts, ctx, to),
        Fault::CrashLeader { ms } => {
            if let Some(host) = leader(hosts) {
                crash(&mut hosts[host], ctx, ms);
            }
        }
        Fault::FreezeLeader { ms } => {
            if let Some(host) = leader(hosts) {
                freeze_node(&mut hosts[host], ctx, ms);
            }
        }
        Fault::IsolateLeader { ms } => {
            if let Some(host) = leader(hosts) {
                isolate(ctx, hosts.len(), host, ms);
            }
        }
        Fault::IsolateAndCrash { host, ms } => {
            isolate(ctx, hosts.len(), host, ms);
            let up = ctx.random.between(1, ms);
            crash(&mut hosts[host], ctx, up);
        }
    }
}

fn others(hosts: usize, host: usize) -> impl Iterator<Item = usize> {
    (0..hosts).filter(move |other| *other != host)
}

fn cut(ctx: &mut Ctx, from: usize, to: usize, ms: u64) {
    let until = ctx.now + ms * 1_000;
    ctx.network.cut(from, to, until);
}

fn isolate(ctx: &mut Ctx, hosts: usize, host: usize, ms: u64) {
    ctx.count(Count::Isolations);
    for other in others(hosts, host) {
        cut(ctx, host, other, ms);
        cut(ctx, other, host, ms);
    }
}

fn crash(host: &mut Host, ctx: &mut Ctx, ms: u64) {
    if host.node.is_none() {
        return;
    }
    ctx.count(Count::Crashes);
    let before = host.disk.log.last();
    host.end_node(ctx);
    if host.disk.log.last() < before {
        ctx.count(Count::LogTailsLost);
    }
    ctx.after(ms * 1_000, Happening::StartNode { host: host.index });
}

fn freeze_node(host: &mut Host, ctx: &mut Ctx, ms: u64) {
    if host.node.is_some() && !host.node_frozen {
        ctx.count(Count::Freezes);
        host.node_frozen = true;
        ctx.after(ms * 1_000, Happening::ThawNode { host: host.index });
    }
}

fn freeze_guard(host: &mut Host, ctx: &mut Ctx, ms: u64) {
    if host.guard_acts() {
        ctx.count(Count::Freezes);
        host.guard_frozen = true;
        ctx.after(ms * 1_000, Happening::ThawGuard { host: host.index });
    }
}

fn transfer(hosts: &mut [Host], ctx: &mut Ctx, to: usize) {
    let raft_id = hosts[to].disk.raft_id;
    let Some(leader) = leader(hosts) else { return };
    let host = &mut hosts[leader];
    if host.node_frozen {
        return;
    }
    if let Some(mut node) = host.node.take() {
        node.replica.transfer(&host.disk.log, raft_id);
        node.flush(host, ctx);
        host.node = Some(node);
    }
}

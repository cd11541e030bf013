//! How a fault comes true on hosts and network. Draws nothing that matters: what is struck was drawn before.

use super::Count;
use super::ctx::{Ctx, Happening};
use super::disaster::{goes_on, lose_majority, restore};
use super::faults::Fault;
use super::host::{Holder, Host};
use super::switches::Rule;

/// Whoever leads the newest term.
fn leader(hosts: &[Host], ctx: &Ctx) -> Option<usize> {
    let leads =
        |host: &&Host| goes_on(host, ctx) && host.node.as_ref().is_some_and(|node| node.replica.leads());
    hosts.iter().filter(leads).max_by_key(|host| host.disk.log.term).map(|host| host.index)
}

/// Lets a fault come true.
pub(super) fn strike(hosts: &mut [Host], ctx: &mut Ctx, fault: Fault) {
    ctx.note(format_args!("fault: {fault:?}"));
    match fault {
        Fault::Crash { host, ms } => crash(&mut hosts[host], ctx, ms),
        Fault::Restart { host } => crash(&mut hosts[host], ctx, 3),
        Fault::RestartOld { host } => {
            let host = &mut hosts[host];
            ctx.count(Count::OldStates);
            host.disk.snapshot = host.disk.older.clone();
            crash(host, ctx, 3);
        }
        Fault::KillGuard { host, ms } => {
            ctx.count(Count::GuardKills);
            hosts[host].guard = Holder { alive: false, frozen: false };
            ctx.after(ms * 1_000, Happening::StartGuard { host });
        }
        Fault::KillTwin { host, ms } => {
            if let Some(twin) = hosts[host].twin.as_mut() {
                ctx.count(Count::TwinKills);
                *twin = Holder { alive: false, frozen: false };
                ctx.after(ms * 1_000, Happening::StartTwin { host });
            }
        }
        Fault::Reboot { host, ms } => reboot(&mut hosts[host], ctx, ms),
        Fault::PowerLoss { ms } => {
            ctx.count(Count::PowerLosses);
            hosts.iter_mut().for_each(|host| reboot(host, ctx, ms));
        }
        Fault::FreezeNode { host, ms } => freeze_node(&mut hosts[host], ctx, ms),
        Fault::FreezeGuard { host, ms } => freeze_guard(&mut hosts[host], ctx, ms),
        Fault::FreezeTwin { host, ms } => freeze_twin(&mut hosts[host], ctx, ms),
        Fault::FreezeBoth { host, ms } => {
            freeze_node(&mut hosts[host], ctx, ms);
            freeze_guard(&mut hosts[host], ctx, ms);
        }
        Fault::FreezeAll { host, ms } => {
            freeze_node(&mut hosts[host], ctx, ms);
            freeze_guard(&mut hosts[host], ctx, ms);
            freeze_twin(&mut hosts[host], ctx, ms);
        }
        Fault::Pause { host, ms } => pause(&mut hosts[host], ctx, ms, false),
        Fault::Suspend { host, ms } => pause(&mut hosts[host], ctx, ms, true),
        Fault::WallJump { host, by_ms } => {
            ctx.count(Count::WallJumps);
            hosts[host].wall_off_ms += by_ms;
        }
        Fault::DiskFull { host, ms } => {
            ctx.count(Count::DisksFull);
            let disk = &mut hosts[host].disk;
            disk.full_until = disk.full_until.max(ctx.now + ms * 1_000);
        }
        Fault::EngineFails { host, ms } => {
            ctx.count(Count::EnginesFailed);
            hosts[host].engine_fails_until = ctx.now + ms * 1_000;
        }
        Fault::EngineHangs { host, ms } => {
            ctx.count(Count::EnginesHung);
            hosts[host].engine_hangs_until = ctx.now + ms * 1_000;
        }
        Fault::Wipe { host, ms } => {
            if may_wipe(hosts, ctx, host) {
                hosts[host].power_off(ctx);
                wipe(&mut hosts[host], ctx);
                ctx.after(ms * 1_000, Happening::PowerOn { host });
            }
        }
        Fault::WipeRunning { host } => {
            if may_wipe(hosts, ctx, host) {
                wipe(&mut hosts[host], ctx);
                ctx.after(100_000, Happening::StartNode { host });
            }
        }
        Fault::CopyDisk { from, to, ms } => {
            // A copy that comes back to its own machine is no copy but an older disk, and a voter that forgot what it
            // acknowledged is beyond Raft.
            let own = hosts[from].disk.machine == hosts[to].machine();
            if from != to && !own && may_wipe(hosts, ctx, to) {
                ctx.count(Count::DisksCopied);
                let (copy, history) = (hosts[from].disk.clone(), ctx.histories[from]);
                hosts[to].power_off(ctx);
                wipe(&mut hosts[to], ctx);
                hosts[to].disk = copy;
                hosts[to].belong(ctx, history);
                ctx.after(ms * 1_000, Happening::PowerOn { host: to });
            }
        }
        Fault::ForcedQuorum { first, ms, crash } => lose_majority(hosts, ctx, first, ms, crash),
        Fault::Restore { host, ms, crash } => restore(hosts, ctx, host, ms, crash),
        Fault::Transfer { to } => transfer(hosts, ctx, to),
        Fault::CrashLeader { ms } => {
            if let Some(host) = leader(hosts, ctx) {
                crash(&mut hosts[host], ctx, ms);
            }
        }
        Fault::FreezeLeader { ms } => {
            if let Some(host) = leader(hosts, ctx) {
                freeze_node(&mut hosts[host], ctx, ms);
            }
        }
        Fault::IsolateLeader { ms } => {
            if let Some(host) = leader(hosts, ctx) {
                isolate(ctx, hosts.len(), host, ms);
            }
        }
        Fault::IsolateAndCrash { host, ms } => {
            isolate(ctx, hosts.len(), host, ms);
            let up = ctx.random.between(1, ms);
            crash(&mut hosts[host], ctx, up);
        }
        Fault::IsolateAndFreeze { host, ms } => {
            isolate(ctx, hosts.len(), host, ms);
            freeze_node(&mut hosts[host], ctx, ms);
            freeze_guard(&mut hosts[host], ctx, ms);
        }
        Fault::Isolate { host, ms } => isolate(ctx, hosts.len(), host, ms),
        Fault::OneWay { .. }
        | Fault::Pair { .. }
        | Fault::Split { .. }
        | Fault::Mute { .. }
        | Fault::Deaf { .. }
        | Fault::LoseSegment { .. }
        | Fault::Slow { .. }
        | Fault::Lossy { .. } => network(hosts.len(), ctx, fault),
    }
}

fn network(hosts: usize, ctx: &mut Ctx, fault: Fault) {
    match fault {
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
                for to in first..hosts {
                    cut(ctx, from, to, ms);
                    cut(ctx, to, from, ms);
                }
            }
        }
        Fault::Mute { host, ms } => {
            ctx.count(Count::OneWayCuts);
            others(hosts, host).for_each(|other| cut(ctx, host, other, ms));
        }
        Fault::Deaf { host, ms } => {
            ctx.count(Count::OneWayCuts);
            others(hosts, host).for_each(|other| cut(ctx, other, host, ms));
        }
        Fault::LoseSegment { segment, ms } => {
            ctx.count(Count::SegmentsLost);
            let until = ctx.now + ms * 1_000;
            ctx.network.lose_segment(segment, until);
        }
        Fault::Slow { from, to, most_ms, ms } => {
            let until = ctx.now + ms * 1_000;
            ctx.network.slow(from, to, until, most_ms);
        }
        Fault::Lossy { percent, ms } => {
            let until = ctx.now + ms * 1_000;
            ctx.network.lossy(until, percent);
        }
        _ => {}
    }
}

fn others(hosts: usize, host: usize) -> impl Iterator<Item = usize> {
    (0..hosts).filter(move |other| *other != host)
}

pub(super) fn cut(ctx: &mut Ctx, from: usize, to: usize, ms: u64) {
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
    host.end_node(ctx);
    ctx.after(ms * 1_000, Happening::StartNode { host: host.index });
}

fn reboot(host: &mut Host, ctx: &mut Ctx, ms: u64) {
    ctx.count(Count::Reboots);
    host.power_off(ctx);
    ctx.after(ms * 1_000, Happening::PowerOn { host: host.index });
}

fn pause(host: &mut Host, ctx: &mut Ctx, ms: u64, counts: bool) {
    if host.lives() {
        ctx.count(if counts { Count::Suspends } else { Count::Pauses });
        host.pause(ctx, counts);
        ctx.after(ms * 1_000, Happening::Resume { host: host.index });
    }
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
        ctx.count(Count::GuardFreezes);
        host.guard.frozen = true;
        ctx.after(ms * 1_000, Happening::ThawGuard { host: host.index });
    }
}

fn freeze_twin(host: &mut Host, ctx: &mut Ctx, ms: u64) {
    if let Some(twin) = host.twin.as_mut().filter(|twin| twin.acts()) {
        ctx.count(Count::TwinFreezes);
        twin.frozen = true;
        ctx.after(ms * 1_000, Happening::ThawTwin { host: host.index });
    }
}

/// May this disk go? Only while a majority of every set of voters keeps its own: with more gone at once the
/// log itself is gone, and that is a matter of disaster recovery.
fn may_wipe(hosts: &[Host], ctx: &Ctx, host: usize) -> bool {
    let members = || hosts.iter().filter(|host| goes_on(host, ctx));
    let newest = members().max_by_key(|host| (host.disk.log.last_term(), host.disk.log.last()));
    let Some(others) = newest.map(|host| host.disk.log.members()) else { return false };
    let own = hosts[host].disk.raft_id.filter(|_| goes_on(&hosts[host], ctx));
    others.quorum(|id| Some(id) != own && members().any(|host| host.holds(id)))
}

/// The disk is empty: whoever comes back with it is somebody else.
fn wipe(host: &mut Host, ctx: &mut Ctx) {
    ctx.count(Count::DisksWiped);
    let old = host.disk.raft_id.filter(|_| host.disk.machine == host.machine());
    host.take_empty_disk(ctx);
    if ctx.lacks(Rule::WipedIsNewVoter) {
        host.disk.raft_id = old;
        let history = ctx.history;
        host.belong(ctx, history);
    } else if let Some(old) = old.filter(|old| ctx.host_of(*old) == Some(host.index)) {
        // After a restore its number may be another's.
        ctx.routes.remove(&old);
    }
}

fn transfer(hosts: &mut [Host], ctx: &mut Ctx, to: usize) {
    let Some(raft_id) = hosts[to].disk.raft_id else { return };
    let Some(leader) = leader(hosts, ctx) else { return };
    let host = &mut hosts[leader];
    if host.node_frozen || !host.lives() {
        return;
    }
    if let Some(mut node) = host.node.take() {
        node.replica.transfer(&host.disk.log, raft_id);
        node.flush(host, ctx);
        host.node = Some(node);
    }
}

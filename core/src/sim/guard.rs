//! The guard of a simulated host: refuses stale tokens and late starts, holds every deadline with nobody's
//! help, adopts what runs after its own death. The twin holder enforces deadlines while the guard cannot.

use super::ctx::{Ctx, Happening};
use super::host::{Host, Process, Registered, keep_state};
use super::{Count, Plant};
use crate::effect::{Isolation, StartInstance, StopInstance};
use crate::ids::{InstanceId, OperationId, SlotId, Token};
use crate::observation::{
    ExitKind, ExitReason, Health, InstancePhase, InstanceReport, InstanceUsage, SlotReport,
};
use crate::units::{BootMs, Millis, WallMs};
use std::collections::BTreeMap;

/// What a node asks of the guard.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Renew { session: u64, number: u64, valid_until: BootMs },
    Start(StartInstance),
    Stop(StopInstance),
    Forget(SlotId),
}

/// A call that reached the guard.
pub(super) fn call(host: &mut Host, ctx: &mut Ctx, call: Call) {
    match call {
        Call::Renew { session, number, valid_until } => {
            let order = (session, number);
            if order > host.run.renewal {
                host.run.renewal = order;
                host.run.valid_until = host.run.valid_until.max(Some(valid_until));
            }
        }
        Call::Start(start) => accept(host, ctx, &start),
        Call::Stop(stop) => order_stop(host, ctx, &stop),
        Call::Forget(slot) => {
            if host.run.registry.get(&slot).is_none_or(|known| !known.phase.may_run()) {
                host.run.registry.remove(&slot);
                host.disk.folders.remove(&slot);
                host.disk.forgotten.insert(slot);
            }
        }
    }
}

/// Is the deadline over for instances of this kind?
fn late(host: &Host, now: BootMs, isolation: Isolation, restart: u32) -> bool {
    let expired = host.run.valid_until.is_none_or(|end| now >= end);
    expired && !(isolation == Isolation::Keep && restart > 0)
}

fn accept(host: &mut Host, ctx: &mut Ctx, start: &StartInstance) {
    let now = host.clock(ctx.now);
    let InstanceId { slot, token } = start.id.clone();
    let highest = host.disk.highest.get(&slot).copied().unwrap_or_default();
    if token < highest && !ctx.plant(Plant::AcceptStaleTokens) {
        ctx.count(Count::StaleTokensRefused);
        return;
    }
    let blind = ctx.plant(Plant::StartWithoutLease);
    if late(host, now, start.isolation, start.restart) && !blind {
        ctx.count(Count::LateStartsRefused);
        return;
    }
    let before = host.run.registry.get(&slot).cloned();
    if let Some(known) = &before {
        let same = known.token == token;
        if same && known.restart >= start.restart {
            return;
        }
        if known.phase.may_run() {
            // Started anew because it is unhealthy: the old run goes first, a later call starts the new one.
            if same && start.restart > known.restart {
                doom(host, ctx, &slot, ExitKind::Unhealthy, now, Millis(0));
            }
            return;
        }
    }
    host.disk.highest.insert(slot.clone(), token.max(highest));
    host.disk.forgotten.remove(&slot);
    if let Some(operation) = start.state_from {
        move_state_in(host, ctx, operation, &slot);
    }
    let serial = ctx.serial();
    let entry = Registered {
        token,
        restart: start.restart,
        isolation: start.isolation,
        phase: InstancePhase::Starting,
        serial,
        since: now,
        ran: Millis(0),
        spec: start.spec.clone(),
        kill_at: None,
        doomed: None,
        killed: false,
        last_exit: before.filter(|known| known.token == token).and_then(|known| match known.phase {
            InstancePhase::Exited(reason) => Some(reason),
            _ => known.last_exit,
        }),
    };
    host.run.registry.insert(slot.clone(), entry);
    let delay = ctx.random.between(1, 40) * 1_000;
    ctx.after(delay, Happening::Spawn { host: host.index, boots: host.boots, slot, serial });
}

/// The staged copy becomes the state; done once, however often it is asked.
fn move_state_in(host: &mut Host, ctx: &mut Ctx, operation: OperationId, slot: &SlotId) {
    if let Some(content) = host.disk.staging.remove(&operation) {
        host.disk.folders.insert(slot.clone(), content);
        ctx.moved_in(host.index, slot, operation, content);
    }
}

/// The engine is done starting: the process exists unless it was called off or is too late.
pub(super) fn spawn(host: &mut Host, ctx: &mut Ctx, slot: &SlotId, serial: u64) {
    let now = host.clock(ctx.now);
    let Some(known) = host.run.registry.get(slot) else { return };
    if known.serial != serial || known.phase != InstancePhase::Starting {
        return;
    }
    let (token, restart, isolation, spec) = (known.token, known.restart, known.isolation, known.spec.clone());
    let called_off = known.doomed;
    let blind = ctx.plant(Plant::StartWithoutLease);
    let dead = host.deadlines_held() && late(host, now, isolation, restart) && !blind;
    if called_off.is_some() || dead || !host.guard_alive {
        ctx.count(Count::LateStartsRefused);
        if let Some(known) = host.run.registry.get_mut(slot) {
            known.phase = InstancePhase::StartFailed("called off before it ran".to_owned());
            known.since = now;
        }
        return;
    }
    let behaviour = ctx.behaviour(&slot.service);
    let process = Process {
        serial,
        slot: slot.clone(),
        token,
        restart,
        isolation,
        from_us: ctx.now,
        ready_us: ctx.now + behaviour.ready_ms * 1_000,
        found: host.disk.folders.get(slot).copied().unwrap_or(0),
        ignores_stop: behaviour.ignores_stop,
        spec,
    };
    if let Some(known) = host.run.registry.get_mut(slot) {
        known.phase = InstancePhase::Running;
        known.since = now;
    }
    if behaviour.crash_ms > 0 && ctx.faulty() {
        let at = ctx.random.between(behaviour.crash_ms / 2, behaviour.crash_ms * 2) * 1_000;
        let end = Happening::End { host: host.index, serial, kind: ExitKind::Failed };
        ctx.after(at, end);
    }
    host.processes.push(process.clone());
    ctx.spawned(host.index, process);
}

fn order_stop(host: &mut Host, ctx: &mut Ctx, stop: &StopInstance) {
    let now = host.clock(ctx.now);
    let highest = host.disk.highest.get(&stop.slot).copied().unwrap_or_default();
    if stop.token < highest {
        ctx.count(Count::StaleTokensRefused);
        return;
    }
    host.disk.highest.insert(stop.slot.clone(), stop.token);
    host.disk.forgotten.remove(&stop.slot);
    doom(host, ctx, &stop.slot, ExitKind::Stopped, now, stop.grace);
}

/// Asks an instance to end, and has it killed after the grace.
fn doom(host: &mut Host, ctx: &mut Ctx, slot: &SlotId, kind: ExitKind, now: BootMs, grace: Millis) {
    let Some(known) = host.run.registry.get_mut(slot) else { return };
    if !known.phase.may_run() || known.doomed.is_some() {
        return;
    }
    known.doomed = Some(kind);
    let (serial, starting) = (known.serial, known.phase == InstancePhase::Starting);
    if starting {
        // The pending spawn sees it; nothing exists yet.
        return;
    }
    known.phase = InstancePhase::Stopping;
    known.kill_at = Some((now + grace, kind));
    let service = slot.service.clone();
    let ignores = host.process(serial).is_some_and(|process| process.ignores_stop);
    if !ignores && grace > Millis(0) {
        let term = ctx.behaviour(&service).stop_ms.max(1) * 1_000;
        let after = ctx.random.between(term / 2, term);
        ctx.after(after, Happening::End { host: host.index, serial, kind });
    }
}

/// A process is gone.
pub(super) fn end(host: &mut Host, ctx: &mut Ctx, serial: u64, kind: ExitKind) {
    let Some(at) = host.processes.iter().position(|process| process.serial == serial) else { return };
    let process = host.processes.remove(at);
    keep_state(&mut host.disk, &process, ctx.now);
    let now = host.clock(ctx.now);
    // How it ended is known only to a guard that was there.
    let kind = if host.guard_acts() { kind } else { ExitKind::Lost };
    let ran = Millis(ctx.now.saturating_sub(process.from_us) / 1_000);
    let slot = process.slot.clone();
    if host.run.registry.get(&slot).is_some_and(|known| known.serial == serial) {
        let doomed = host.run.registry.get(&slot).and_then(|known| known.doomed);
        finish(host, &slot, doomed.unwrap_or(kind), now, ran);
    }
    ctx.gone(host.index, &process);
}

fn finish(host: &mut Host, slot: &SlotId, kind: ExitKind, now: BootMs, ran: Millis) {
    let Some(known) = host.run.registry.get_mut(slot) else { return };
    known.phase = InstancePhase::Exited(ExitReason { kind, code: None, signal: None });
    known.since = now;
    known.ran = ran;
    known.kill_at = None;
}

/// Enforces stops and deadlines; called every few milliseconds.
pub(super) fn tick(host: &mut Host, ctx: &mut Ctx) {
    if !host.on {
        return;
    }
    let now = host.clock(ctx.now);
    let acts = host.guard_acts();
    let forgets = ctx.plant(Plant::ForgetDeadlines);
    if host.deadlines_held() && !forgets {
        enforce_deadlines(host, ctx, now);
    }
    let held = host.deadlines_held();
    let kills: Vec<(u64, ExitKind, SlotId)> = host
        .run
        .registry
        .iter()
        .filter(|(_, known)| known.phase.may_run() && !known.killed)
        .filter_map(|(slot, known)| {
            let asked = known.kill_at.filter(|(at, _)| acts && now >= *at).map(|(_, kind)| kind);
            // The twin kills whatever is past its lease, however far the guard had come with it.
            let over = held && !forgets && deadline(host, known.isolation).is_some_and(|end| now >= end);
            let kind = asked.or_else(|| over.then_some(ExitKind::LeaseExpired))?;
            (known.phase != InstancePhase::Starting).then(|| (known.serial, kind, slot.clone()))
        })
        .collect();
    for (serial, kind, slot) in kills {
        if let Some(known) = host.run.registry.get_mut(&slot) {
            known.killed = true;
        }
        let takes = ctx.random.between(1, 60) * 1_000;
        let kind = if kind == ExitKind::Stopped { ExitKind::Killed } else { kind };
        ctx.after(takes, Happening::End { host: host.index, serial, kind });
    }
}

/// When an instance of this kind is dead at the latest.
fn deadline(host: &Host, isolation: Isolation) -> Option<BootMs> {
    let end = host.run.valid_until?;
    match isolation {
        Isolation::Keep => None,
        Isolation::Kill => Some(end),
        Isolation::Stop { grace } => Some(end + grace),
    }
}

fn enforce_deadlines(host: &mut Host, ctx: &mut Ctx, now: BootMs) {
    let Some(end) = host.run.valid_until.filter(|end| now >= *end) else { return };
    let over: Vec<(SlotId, Millis)> = host
        .run
        .registry
        .iter()
        .filter(|(_, known)| known.phase.may_run() && known.phase != InstancePhase::Starting)
        .filter_map(|(slot, known)| match known.isolation {
            Isolation::Keep => None,
            Isolation::Kill => Some((slot.clone(), Millis(0))),
            Isolation::Stop { grace } => Some((slot.clone(), grace)),
        })
        .collect();
    for (slot, grace) in over {
        let Some(known) = host.run.registry.get_mut(&slot) else { continue };
        let deadline = (end + grace, ExitKind::LeaseExpired);
        match known.kill_at {
            // A stop under way may not outlast the deadline.
            Some((at, _)) if at <= deadline.0 => {}
            Some(_) => known.kill_at = Some(deadline),
            None => {
                ctx.count(Count::LeaseStops);
                doom(host, ctx, &slot, ExitKind::LeaseExpired, now, now.until(end + grace));
            }
        }
    }
}

/// Every slot as the guard knows it.
pub(super) fn inventory(host: &Host, ctx: &Ctx) -> BTreeMap<SlotId, SlotReport> {
    let now = host.clock(ctx.now);
    let report = |(slot, highest): (&SlotId, &Token)| {
        let known = host.run.registry.get(slot);
        let instance = known.map(|known| InstanceReport {
            id: InstanceId { slot: slot.clone(), token: known.token },
            spec: known.spec.run_digest(),
            phase: known.phase.clone(),
            pid: Some(1),
            started_at: WallMs(0),
            since: now.since(known.since),
            ran: known.ran,
            restarts: known.restart,
            health: health(host, ctx, known),
            health_detail: String::new(),
            usage: InstanceUsage::default(),
            last_exit: known.last_exit.clone(),
            unenforced: Vec::new(),
            armed: host.guard_acts() && host.armed,
        });
        // A slot that was forgotten keeps only its token, which nobody needs to hear of.
        (!host.disk.forgotten.contains(slot))
            .then(|| (slot.clone(), SlotReport { highest: *highest, instance }))
    };
    host.disk.highest.iter().filter_map(report).collect()
}

fn health(host: &Host, ctx: &Ctx, known: &Registered) -> Health {
    if known.spec.health.is_none() {
        return Health::Unchecked;
    }
    match host.process(known.serial) {
        Some(process) if ctx.now >= process.ready_us => Health::Healthy,
        Some(_) | None => Health::Starting,
    }
}

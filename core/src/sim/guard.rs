//! The guard of a simulated host: refuses stale tokens and late starts, holds every deadline with nobody's
//! help, adopts what runs after its own death. The twin holder enforces deadlines while the guard cannot. An
//! engine between them and the processes may fail or hang at any call.

use super::Count;
use super::ctx::{Ctx, Happening};
use super::host::{Host, Process, Registered};
use super::switches::{Plant, Rule};
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
    Renew { session: u64, number: u64, valid_until: BootMs, terms: u64 },
    Start(StartInstance),
    Stop(StopInstance),
    Forget(SlotId),
}

/// A call that reached the guard.
pub(super) fn call(host: &mut Host, ctx: &mut Ctx, call: Call) {
    match call {
        Call::Renew { session, number, valid_until, terms } => {
            let order = (session, number);
            if order > host.run.renewal {
                host.run.renewal = order;
                host.run.valid_until = Some(valid_until);
                host.run.terms = terms;
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

/// Is the deadline over for instances of this kind? Those that are kept start without a lease only in place:
/// after a run under the same token.
fn late(host: &Host, now: BootMs, isolation: Isolation, has_run: bool) -> bool {
    let expired = host.run.valid_until.is_none_or(|end| now >= end);
    expired && !(isolation == Isolation::Keep && has_run)
}

fn accept(host: &mut Host, ctx: &mut Ctx, start: &StartInstance) {
    let now = host.clock(ctx.now);
    let InstanceId { slot, token } = start.id.clone();
    let highest = host.disk.highest.get(&slot).copied().unwrap_or_default();
    if token < highest && !ctx.lacks(Rule::CurrentToken) {
        ctx.count(Count::StaleTokensRefused);
        return;
    }
    // A token that cannot be kept is not accepted.
    if token > highest && host.disk.full(ctx.now) {
        ctx.count(Count::WritesRefused);
        return;
    }
    let blind = ctx.has(Plant::StartWithoutLease) || ctx.lacks(Rule::StartGate);
    let before = host.run.registry.get(&slot).cloned();
    let has_run = before.as_ref().is_some_and(|known| known.token == token && known.has_run);
    if late(host, now, start.isolation, has_run) && !blind {
        ctx.count(Count::LateStartsRefused);
        ctx.tell(
            host.name.as_str(),
            format_args!("a start of {slot} comes after the deadline and is refused"),
        );
        return;
    }
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
        move_state_in(host, ctx, operation, &start.id);
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
        digest: start.spec.run_digest(),
        has_run,
        kill_at: None,
        doomed: None,
        killed: false,
        last_exit: before.filter(|known| known.token == token).and_then(|known| match known.phase {
            InstancePhase::Exited(reason) => Some(reason),
            _ => known.last_exit,
        }),
    };
    host.run.registry.insert(slot.clone(), entry);
    let delay = engine_delay(host, ctx, &slot);
    ctx.after(delay, Happening::Spawn { host: host.index, boots: host.boots, slot, serial });
}

/// How long the engine takes for a start: longer while it hangs, and then it comes when nobody expects it.
fn engine_delay(host: &Host, ctx: &mut Ctx, slot: &SlotId) -> u64 {
    let behaviour = ctx.behaviour(&slot.service);
    let most = if ctx.faulty() { behaviour.start_ms.max(2) } else { 40 };
    let usual = ctx.random.between(1, most) * 1_000;
    if host.engine_hangs(ctx.now) { host.engine_hangs_until - ctx.now + usual } else { usual }
}

/// The staged copy becomes the state; done once, however often it is asked.
fn move_state_in(host: &mut Host, ctx: &mut Ctx, operation: OperationId, id: &InstanceId) {
    if let Some(content) = host.disk.staging.remove(&operation) {
        host.disk.folders.insert(id.slot.clone(), content);
        ctx.moved_in(host.index, id, operation, content);
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
    let behaviour = ctx.behaviour(&slot.service);
    if !behaviour.by_engine && !host.guard.acts() {
        if host.guard.alive {
            // It waits for the guard, whose child it will be.
            let again = Happening::Spawn { host: host.index, boots: host.boots, slot: slot.clone(), serial };
            ctx.after(25_000, again);
        } else {
            failed(host, slot, now, "its guard died before it ran");
        }
        return;
    }
    let blind = ctx.has(Plant::StartWithoutLease) || ctx.lacks(Rule::StartGate);
    // What comes past its deadline finds its cgroup frozen by whoever holds that.
    let dead = host.deadlines_held(ctx) && late(host, now, isolation, known.has_run) && !blind;
    if known.doomed.is_some() || dead {
        ctx.count(Count::LateStartsRefused);
        ctx.tell(host.name.as_str(), format_args!("a late start of {slot} is called off before it runs"));
        failed(host, slot, now, "called off before it ran");
        return;
    }
    if ctx.now < host.engine_fails_until {
        ctx.count(Count::StartsFailed);
        ctx.tell(host.name.as_str(), format_args!("the engine fails to start {slot}"));
        failed(host, slot, now, "the engine failed");
        return;
    }
    let process = Process {
        serial,
        slot: slot.clone(),
        token,
        restart,
        isolation,
        from_us: ctx.now,
        ready_us: ctx.now + if spec.health.is_some() { behaviour.ready_ms * 1_000 } else { 0 },
        found: host.disk.folders.get(slot).copied().unwrap_or(0),
        ignores_stop: behaviour.ignores_stop,
        spec,
    };
    if let Some(known) = host.run.registry.get_mut(slot) {
        known.phase = InstancePhase::Running;
        known.has_run = true;
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

fn failed(host: &mut Host, slot: &SlotId, now: BootMs, why: &str) {
    if let Some(known) = host.run.registry.get_mut(slot) {
        known.phase = InstancePhase::StartFailed(why.to_owned());
        known.since = now;
    }
}

fn order_stop(host: &mut Host, ctx: &mut Ctx, stop: &StopInstance) {
    let now = host.clock(ctx.now);
    let highest = host.disk.highest.get(&stop.slot).copied().unwrap_or_default();
    // In truth nothing is left of a slot that was forgotten, so that any stop of it is taken. Its token is kept here
    // against starts that come late, which a real guard's one session never brings.
    let forgotten = host.disk.forgotten.contains(&stop.slot);
    if stop.token < highest && !forgotten {
        ctx.count(Count::StaleTokensRefused);
        return;
    }
    if (stop.token > highest || forgotten) && host.disk.full(ctx.now) {
        ctx.count(Count::WritesRefused);
        return;
    }
    host.disk.highest.insert(stop.slot.clone(), stop.token.max(highest));
    host.disk.forgotten.remove(&stop.slot);
    if ctx.has(Plant::FalseAcknowledgement) {
        host.run.registry.remove(&stop.slot);
        return;
    }
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
    // A stop that hangs in the engine never reaches the process: only the kill at the end of its grace does.
    let ignores = ignores || host.engine_hangs(ctx.now);
    if !ignores && grace > Millis(0) {
        let term = ctx.behaviour(&service).stop_ms.max(1) * 1_000;
        let after = ctx.random.between(term / 2, term);
        ctx.after(after, Happening::End { host: host.index, serial, kind });
    }
}

/// A process is gone.
pub(super) fn end(host: &mut Host, ctx: &mut Ctx, serial: u64, kind: ExitKind) {
    let Some(at) = host.processes.iter().position(|process| process.serial == serial) else { return };
    if host.paused.is_some() {
        ctx.after(25_000, Happening::End { host: host.index, serial, kind });
        return;
    }
    let process = host.processes.remove(at);
    host.disk.keep_state(&process, ctx.now);
    let now = host.clock(ctx.now);
    // How it ended is known only to a guard that was there.
    let kind = if host.guard_acts() { kind } else { ExitKind::Lost };
    let ran = Millis(ctx.now.saturating_sub(process.from_us) / 1_000);
    let slot = process.slot.clone();
    let mut end = kind;
    if host.run.registry.get(&slot).is_some_and(|known| known.serial == serial) {
        let doomed = host.run.registry.get(&slot).and_then(|known| known.doomed);
        end = doomed.unwrap_or(kind);
        finish(host, &slot, end, now, ran);
    }
    ctx.gone(host.index, process, Some(end));
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
    if !host.lives() {
        return;
    }
    let now = host.clock(ctx.now);
    let acts = host.guard_acts();
    let forgets = ctx.has(Plant::ForgetDeadlines);
    let held = host.deadlines_held(ctx);
    // As it truly is, whatever a test switched off.
    host.held_since_us = if host.holders_act() { host.held_since_us.or(Some(ctx.now)) } else { None };
    let spares = !ctx.has(Plant::KillCritical);
    if held && !forgets {
        enforce_deadlines(host, ctx, now);
    }
    let kills: Vec<(u64, ExitKind, SlotId)> = host
        .run
        .registry
        .iter()
        .filter(|(_, known)| known.phase.may_run() && !known.killed)
        .filter_map(|(slot, known)| {
            let asked = known.kill_at.filter(|(at, _)| acts && now >= *at).map(|(_, kind)| kind);
            // The twin kills whatever is past its lease, however far the guard had come with it.
            let over =
                held && !forgets && deadline(host, known.isolation, spares).is_some_and(|end| now >= end);
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
fn deadline(host: &Host, isolation: Isolation, spares: bool) -> Option<BootMs> {
    let end = host.run.valid_until?;
    match isolation {
        Isolation::Keep => (!spares).then_some(end),
        Isolation::Kill => Some(end),
        Isolation::Stop { grace } => Some(end + grace),
    }
}

fn enforce_deadlines(host: &mut Host, ctx: &mut Ctx, now: BootMs) {
    let Some(end) = host.run.valid_until.filter(|end| now >= *end) else { return };
    if host.run.told.replace(end) != Some(end) {
        tell_of_end(host, ctx, now.since(end));
    }
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
    // What has not begun to run by then never does, even if another lease comes before its engine is done.
    let gate = !ctx.lacks(Rule::StartGate) && !ctx.has(Plant::StartWithoutLease);
    let pending = host.run.registry.values_mut().filter(|known| known.phase == InstancePhase::Starting);
    for known in pending.filter(|known| gate && known.isolation != Isolation::Keep) {
        known.doomed.get_or_insert(ExitKind::LeaseExpired);
    }
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

/// Says what becomes of what runs, now that the lease is over.
fn tell_of_end(host: &Host, ctx: &mut Ctx, ago: Millis) {
    if ctx.story.is_none() {
        return;
    }
    let running = host.run.registry.iter().filter(|(_, known)| known.phase.may_run());
    let fate = |(slot, known): (&SlotId, &Registered)| match known.isolation {
        _ if known.phase == InstancePhase::Starting => format!("{slot} is not to start any more"),
        Isolation::Keep => format!("{slot} keeps running"),
        Isolation::Kill => format!("{slot} is killed"),
        Isolation::Stop { grace } if grace <= ago => format!("{slot} is killed, its grace is over too"),
        Isolation::Stop { grace } => format!("{slot} stops within {grace}"),
    };
    let fates: Vec<String> = running.map(fate).collect();
    let fates = if fates.is_empty() { "nothing runs here".to_owned() } else { fates.join(", ") };
    let holder = if host.guard.acts() { "guard" } else { "second holder" };
    ctx.tell(host.name.as_str(), format_args!("the lease ran out, says the {holder}: {fates}"));
}

/// Every slot as the guard knows it.
pub(super) fn inventory(host: &Host, ctx: &Ctx) -> BTreeMap<SlotId, SlotReport> {
    let now = host.clock(ctx.now);
    let hangs = host.engine_hangs(ctx.now);
    let report = |(slot, highest): (&SlotId, &Token)| {
        let known = host.run.registry.get(slot);
        let phase = |known: &Registered| match &known.phase {
            InstancePhase::Running if hangs => {
                InstancePhase::Unknown("the engine does not answer".to_owned())
            }
            phase => phase.clone(),
        };
        let instance = known.map(|known| InstanceReport {
            id: InstanceId { slot: slot.clone(), token: known.token },
            spec: known.digest,
            phase: phase(known),
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
            armed: host.armed(),
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

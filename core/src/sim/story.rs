//! What happened in a world as an operator would tell it: faults, who leads, what was decided on what evidence,
//! what truly runs where. A line for each thing worth knowing, none for the rest.

use std::fmt::{self, Arguments};
use std::sync::Arc;

use serde::Serialize;

use super::ctx::Ctx;
use super::host::{Host, Process};
use super::scenario::name;
use crate::event::{Event, EventRecord};
use crate::ids::Revision;
use crate::observation::{ExitKind, ExitReason, FenceOutcome};
use crate::spec::ServiceSpec;
use crate::units::Millis;

/// A run tells no more than this; what comes after is not kept.
const MOST: usize = 20_000;

/// What stands in the log that all hosts begin with.
const AT_FIRST: Revision = Revision(2);

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// True time in milliseconds.
    pub at_ms: u64,
    /// A node, or `fault`, `operator`, `decided`, `runs`, `expect`.
    pub who: String,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ms) = (self.at_ms / 1_000, self.at_ms % 1_000);
        write!(f, "{s:>4}.{ms:03}  {:<8}  {}", self.who, self.what)
    }
}

impl Ctx {
    /// Adds a line to the story, if one is told.
    pub(super) fn tell(&mut self, who: &str, what: Arguments<'_>) {
        let at_ms = self.now / 1_000;
        if let Some(story) = self.story.as_mut().filter(|story| story.len() < MOST) {
            story.push(Told { at_ms, who: who.to_owned(), what: what.to_string() });
        }
    }

    /// Adds a line about somebody to transcript and story.
    pub(super) fn say(&mut self, who: &impl fmt::Display, what: Arguments<'_>) {
        self.note(format_args!("{who} {what}"));
        // How a world comes up is not worth a line.
        if self.now > 0 && self.story.is_some() {
            self.tell(&who.to_string(), what);
        }
    }
}

/// What was decided: once, by whoever applies it first.
pub(super) fn decided(ctx: &mut Ctx, record: &EventRecord) {
    if ctx.story.is_none() || record.revision <= AT_FIRST {
        return;
    }
    let text = record.text();
    match &record.event {
        // Made of what stands in the first line already, or said by those who ask.
        Event::NodeUpdated(_) | Event::ServiceDeployed { .. } => {}
        // A move shows in what starts and ends.
        Event::OperationAdvanced { what, .. } if what.starts_with("move of ") => {}
        Event::OperationBegan { operation, .. }
        | Event::OperationAdvanced { operation, .. }
        | Event::OperationEnded { operation, .. } => {
            ctx.tell("decided", format_args!("operation {operation}: {text}"));
        }
        _ => ctx.tell("decided", format_args!("{text}")),
    }
}

pub(super) fn spawned(ctx: &mut Ctx, host: usize, process: &Process) {
    let Process { slot, token, restart, .. } = process;
    match restart {
        0 => ctx.tell(&name(host), format_args!("{slot} runs under token {token}")),
        _ => {
            ctx.tell(
                &name(host),
                format_args!("{slot} runs again in place, restart {restart} under {token}"),
            );
        }
    }
}

pub(super) fn gone(ctx: &mut Ctx, host: usize, process: &Process, end: Option<ExitKind>) {
    let slot = &process.slot;
    match end {
        None => ctx.tell(&name(host), format_args!("{slot} is gone with its host")),
        Some(ExitKind::LeaseExpired) => {
            ctx.tell(&name(host), format_args!("{slot} has ended, as the lease ran out"));
        }
        Some(kind) => {
            let reason = ExitReason { kind, code: None, signal: None };
            ctx.tell(&name(host), format_args!("{slot} has ended: {reason}"));
        }
    }
}

/// What the device said to whoever asked it.
pub(super) fn fenced(ctx: &mut Ctx, by: usize, target: usize, outcome: &FenceOutcome) {
    let said = match outcome {
        FenceOutcome::ProvenOff { .. } => "is read back as off".to_owned(),
        FenceOutcome::Failed { output } => format!("is not proven off: {output}"),
        FenceOutcome::SwitchedOn { .. } => "is switched on again".to_owned(),
        FenceOutcome::Withheld { why } => format!("is not touched: {why}"),
    };
    ctx.tell(&name(by), format_args!("fencing: {} {said}", name(target)));
}

/// Who runs what at this moment, by the hosts themselves.
pub(super) fn runs(ctx: &mut Ctx, hosts: &[Host]) {
    if ctx.story.is_none() {
        return;
    }
    let of = |host: &Host| {
        let mut slots: Vec<String> = host.processes.iter().map(|process| process.slot.to_string()).collect();
        slots.sort();
        let power = if host.on { "-" } else { "off" };
        let name = if host.paused.is_some() {
            format!("{} (stands still)", host.name)
        } else {
            host.name.to_string()
        };
        let slots = if slots.is_empty() { power.to_owned() } else { slots.join(" ") };
        format!("{name}: {slots}")
    };
    let line = hosts.iter().map(of).collect::<Vec<_>>().join("; ");
    ctx.tell("runs", format_args!("{line}"));
}

/// What the world is made of.
pub(super) fn opening(ctx: &mut Ctx, hosts: &[Host], services: &[Arc<ServiceSpec>]) {
    for host in hosts {
        let mut words = Vec::new();
        if host.witness {
            words.push("a witness".to_owned());
        }
        words.push(if host.twin.is_some() { "armed" } else { "not armed" }.to_owned());
        if !host.facts.silence_counts {
            words.push("its silence proves nothing".to_owned());
        }
        words.push(
            if host.facts.fencing.is_empty() { "no fence device" } else { "a fence device" }.to_owned(),
        );
        if host.drift_ppm != 0 {
            words.push(format!("clock off by {} ppm", host.drift_ppm));
        }
        ctx.tell(host.name.as_str(), format_args!("{}", words.join(", ")));
    }
    for spec in services {
        ctx.tell("service", format_args!("{}", service(spec)));
    }
}

fn service(spec: &ServiceSpec) -> String {
    let exclusive = if spec.exclusive == Some(true) { "exclusive" } else { "may run twice" };
    let copies = if spec.replicas == 1 { "1 copy".to_owned() } else { format!("{} copies", spec.replicas) };
    let keeps = if spec.keep_on_isolation { ", kept on isolation" } else { "" };
    let grace = match spec.stop.grace {
        Millis(0) => "no grace".to_owned(),
        grace => format!("grace {grace}"),
    };
    format!("{}: {}, {exclusive}, {copies}, {grace}{keeps}", spec.name, spec.priority)
}

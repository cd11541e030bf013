//! Copies as rows: one for each claim, one for each wanted slot that nothing stands in for, and one for
//! whatever still runs without a claim.

use std::sync::Arc;

use super::model::{ExitView, InstanceState, InstanceView, Why};
use super::sight::Sight;
use super::words;
use crate::ids::{InstanceId, NodeId, SlotId};
use crate::observation::{ExitReason, Health, InstancePhase, InstanceReport, InstanceUsage};
use crate::spec::Priority;
use crate::state::{Claim, ServiceRecord, SlotRecord, WaitCause, Waiting};

/// All rows of one slot.
pub(super) fn of_slot(sight: &Sight<'_>, slot: &SlotId, record: &SlotRecord) -> Vec<InstanceView> {
    let Some(service) = sight.service(slot) else { return Vec::new() };
    let waiting = sight.wait_of_slot(slot);
    let mut rows: Vec<InstanceView> =
        record.claims.iter().map(|claim| of_claim(sight, slot, claim, service, &waiting)).collect();
    let stands = |claim: &Claim| service.exclusive || (claim.stop.is_none() && !sight.gone(claim));
    if slot.ordinal < service.wanted() && !record.claims.iter().any(stands) {
        rows.push(waiting_row(sight, slot, record, service, &waiting));
    }
    rows
}

fn of_claim(
    sight: &Sight<'_>,
    slot: &SlotId,
    claim: &Claim,
    service: &ServiceRecord,
    waiting: &[Waiting],
) -> InstanceView {
    let report = sight.instance(slot, claim);
    let state = state_of(sight, claim, report);
    let well = state == InstanceState::Running && report.is_none_or(|report| report.health.good());
    let waiting = if well { &[][..] } else { waiting };
    let id = InstanceId { slot: slot.clone(), token: claim.token };
    let row = InstanceView {
        id: Some(id.to_string()),
        node: Some(claim.node.clone()),
        state,
        token: Some(claim.token.to_string()),
        version: claim.version,
        observed: sight.seen(&claim.node),
        waiting: words::rows(waiting),
        why: Arc::new(why(sight, slot, claim, state, waiting)),
        ..blank(slot, service)
    };
    match report {
        Some(report) => reported(row, report),
        None => row,
    }
}

/// What its guard says of it.
fn reported(row: InstanceView, report: &InstanceReport) -> InstanceView {
    let exit = match &report.phase {
        InstancePhase::Exited(end) => Some(end),
        InstancePhase::Starting
        | InstancePhase::Running
        | InstancePhase::Stopping
        | InstancePhase::StartFailed(_)
        | InstancePhase::Unknown(_) => report.last_exit.as_ref(),
    };
    InstanceView {
        health: report.health,
        health_detail: report.health_detail.clone(),
        pid: report.pid,
        started_at: Some(report.started_at),
        restarts: report.restarts,
        exit: exit.map(exit_view),
        usage: report.usage,
        armed: report.armed,
        unenforced: report.unenforced.clone(),
        ..row
    }
}

fn exit_view(end: &ExitReason) -> ExitView {
    use crate::observation::ExitKind;
    let kind = match end.kind {
        ExitKind::Completed => "completed",
        ExitKind::Failed => "failed",
        ExitKind::Signaled => "signaled",
        ExitKind::Stopped => "stopped",
        ExitKind::Killed => "killed",
        ExitKind::OutOfMemory => "out_of_memory",
        ExitKind::LeaseExpired => "lease_expired",
        ExitKind::Unhealthy => "unhealthy",
        ExitKind::Lost => "lost",
    };
    ExitView {
        kind: kind.to_owned(),
        code: end.code,
        signal: end.signal,
        oom: end.kind == ExitKind::OutOfMemory,
    }
}

fn state_of(sight: &Sight<'_>, claim: &Claim, report: Option<&InstanceReport>) -> InstanceState {
    if sight.gone(claim) {
        return if sight.proven(claim) { InstanceState::Stopped } else { InstanceState::RunningUnconfirmed };
    }
    let Some(report) = report else {
        return if claim.stop.is_some() { InstanceState::Stopping } else { InstanceState::Starting };
    };
    if report.phase.may_run() && !sight.guarded(&claim.node) {
        return InstanceState::Unknown;
    }
    match &report.phase {
        InstancePhase::Exited(_) | InstancePhase::StartFailed(_) if claim.stop.is_some() => {
            InstanceState::Stopped
        }
        _ if claim.stop.is_some() => InstanceState::Stopping,
        InstancePhase::Starting => InstanceState::Starting,
        InstancePhase::Running => InstanceState::Running,
        InstancePhase::Stopping => InstanceState::Stopping,
        InstancePhase::Exited(_) | InstancePhase::StartFailed(_) => InstanceState::Failed,
        InstancePhase::Unknown(_) => InstanceState::Unknown,
    }
}

fn waiting_row(
    sight: &Sight<'_>,
    slot: &SlotId,
    record: &SlotRecord,
    service: &ServiceRecord,
    waiting: &[Waiting],
) -> InstanceView {
    let mut because: Vec<String> = waiting.iter().map(|waiting| words::cause(&waiting.cause)).collect();
    if because.is_empty() {
        because.push(if sight.leader_word_fresh() {
            "the leader has not looked at it yet".to_owned()
        } else {
            "no leader is heard here, and only a leader grants".to_owned()
        });
    }
    let verdict = format!("{slot} waits: {}", because[0]);
    because.extend(ended(record));
    let why = Why {
        subject: slot.to_string(),
        verdict,
        because,
        evidence: words::checklist(waiting),
        next: waiting.iter().filter_map(words::next).collect(),
    };
    InstanceView {
        waiting: words::rows(waiting),
        observed: sight.leader_word_fresh(),
        why: Arc::new(why),
        ..blank(slot, service)
    }
}

fn blank(slot: &SlotId, service: &ServiceRecord) -> InstanceView {
    InstanceView {
        slot: slot.to_string(),
        id: None,
        service: slot.service.clone(),
        priority: service.spec.priority,
        node: None,
        state: InstanceState::Waiting,
        health: Health::Unchecked,
        health_detail: String::new(),
        armed: false,
        token: None,
        pid: None,
        started_at: None,
        restarts: 0,
        exit: None,
        usage: InstanceUsage::default(),
        version: service.version,
        waiting: Vec::new(),
        unenforced: Vec::new(),
        observed: true,
        why: Arc::new(Why {
            subject: slot.to_string(),
            verdict: String::new(),
            because: Vec::new(),
            evidence: Vec::new(),
            next: Vec::new(),
        }),
    }
}

fn ended(record: &SlotRecord) -> Option<String> {
    let ended = record.last_ended.as_ref()?;
    Some(format!(
        "its claim before, {} on {}, has ended: {}",
        ended.token,
        ended.node,
        ended.evidence.words()
    ))
}

fn why(sight: &Sight<'_>, slot: &SlotId, claim: &Claim, state: InstanceState, waiting: &[Waiting]) -> Why {
    let node = &claim.node;
    let mut because: Vec<String> = waiting.iter().map(|waiting| words::cause(&waiting.cause)).collect();
    if let Some(stop) = &claim.stop {
        because.push(format!("it was told to stop: {}", stop.because));
    }
    let operation = claim.operation.map(|id| format!(" by operation {id}")).unwrap_or_default();
    let placed = if claim.because.is_empty() { String::new() } else { format!(": {}", claim.because) };
    because.push(format!("{node} was granted it with token {}{operation}{placed}", claim.token));
    because.extend(sight.moved_by(slot).map(|id| format!("operation {id} moves it")));
    because.extend(sight.state.slots.get(slot).and_then(ended));
    if !sight.seen(node) && !sight.gone(claim) {
        because.push(format!("{node} is not heard here: this is what it last said"));
    }
    Why {
        subject: InstanceId { slot: slot.clone(), token: claim.token }.to_string(),
        verdict: verdict(sight, slot, claim, state),
        because,
        evidence: words::checklist(waiting),
        next: waiting.iter().filter_map(words::next).collect(),
    }
}

fn verdict(sight: &Sight<'_>, slot: &SlotId, claim: &Claim, state: InstanceState) -> String {
    let node = &claim.node;
    match state {
        InstanceState::Waiting => format!("{slot} waits"),
        InstanceState::Starting => format!("{slot} starts on {node}"),
        InstanceState::Running => {
            let health = sight.instance(slot, claim).map_or(Health::Unchecked, |report| report.health);
            let health = match health {
                Health::Unchecked => "it has no health check",
                Health::Starting => "its health is not known yet",
                Health::Healthy => "it is healthy",
                Health::Unhealthy => "it is UNHEALTHY",
            };
            format!("{slot} runs on {node}; {health}")
        }
        InstanceState::RunningUnconfirmed => {
            let exclusive = sight.service(slot).is_some_and(|service| service.exclusive);
            let silence = sight
                .wait_of_slot(slot)
                .iter()
                .any(|waiting| waiting.left.is_some() && matches!(waiting.cause, WaitCause::Evidence { .. }));
            let then = match (exclusive, silence) {
                (false, _) => "replaced elsewhere meanwhile",
                (true, true) => "free to start elsewhere once its guarded deadline has passed",
                (true, false) => "blocked until fenced or confirmed",
            };
            format!("{slot} is RUNNING-UNCONFIRMED on {node}: {then}")
        }
        InstanceState::Stopping => format!("{slot} stops on {node}"),
        InstanceState::Stopped => {
            format!("{slot} does not run on {node} any more; its claim is being closed")
        }
        InstanceState::Failed => match sight.instance(slot, claim).map(|report| &report.phase) {
            Some(InstancePhase::Exited(end)) => format!("{slot} on {node} {end}"),
            Some(InstancePhase::StartFailed(why)) => format!("{slot} could not be started on {node}: {why}"),
            _ => format!("{slot} failed on {node}"),
        },
        InstanceState::Unknown if !sight.guarded(node) => format!(
            "the guard of {node} does not answer: {slot} ran there, and is ended at its deadline unless that answers"
        ),
        InstanceState::Unknown => format!("{node} cannot tell whether {slot} runs"),
    }
}

/// What still runs on a node that is heard, under no claim that stands: its node is stopping it.
pub(super) fn strays(sight: &Sight<'_>) -> Vec<InstanceView> {
    let mut rows = Vec::new();
    for (node, heard) in &sight.look.observed.nodes {
        // An old report tells nothing of now: what ended such a claim knew better.
        if sight.look.observed.now.since(heard.received) > sight.lease_span() {
            continue;
        }
        for (slot, known) in &heard.report.slots {
            let Some(report) = known.instance.as_ref().filter(|report| report.phase.may_run()) else {
                continue;
            };
            let claims = sight.state.slots.get(slot).map_or(&[][..], |record| &record.claims);
            if !claims.iter().any(|claim| claim.token == report.id.token) {
                rows.push(stray(sight, node, slot, report));
            }
        }
    }
    rows
}

fn stray(sight: &Sight<'_>, node: &NodeId, slot: &SlotId, report: &InstanceReport) -> InstanceView {
    let why = Why {
        subject: report.id.to_string(),
        verdict: format!("{slot} still runs on {node} under a token that is void; {node} stops it"),
        because: vec![format!("claim {} has ended or was never known here", report.id.token)],
        evidence: Vec::new(),
        next: Vec::new(),
    };
    let row = InstanceView {
        slot: slot.to_string(),
        id: Some(report.id.to_string()),
        service: slot.service.clone(),
        priority: sight.service(slot).map_or(Priority::Normal, |service| service.spec.priority),
        node: Some(node.clone()),
        state: InstanceState::Stopping,
        health: report.health,
        health_detail: String::new(),
        armed: false,
        token: Some(report.id.token.to_string()),
        pid: report.pid,
        started_at: None,
        restarts: 0,
        exit: None,
        usage: report.usage,
        version: sight.service(slot).map_or_else(Default::default, |service| service.version),
        waiting: Vec::new(),
        unenforced: Vec::new(),
        observed: sight.seen(node),
        why: Arc::new(why),
    };
    reported(row, report)
}

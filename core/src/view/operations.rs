//! Operations as rows: how far, how fast, what blocks them, when they end at the latest.

use super::model::{BlockedView, NoteView, OperationKindView, OperationView};
use super::sight::Sight;
use super::words;
use crate::ids::{OperationId, SlotId};
use crate::observation::TransferReport;
use crate::spec::ServiceSpec;
use crate::state::{
    FencePhase, FenceRecord, MigrationPhase, MigrationRecord, Operation, OperationKind, RolloutRecord,
    Subject, WaitCause,
};
use crate::units::{Millis, WallMs};

pub(super) fn operation(sight: &Sight<'_>, id: OperationId, operation: &Operation) -> OperationView {
    let running = operation.ended.is_none();
    let blank = OperationView {
        id,
        kind: OperationKindView::Drain,
        target: String::new(),
        to: None,
        parent: operation.kind.parent(),
        phase: if operation.cancelling { "cancelling".to_owned() } else { "running".to_owned() },
        done: 0,
        total: 0,
        bytes: 0,
        bytes_total: 0,
        rate: 0,
        eta_ms: None,
        worst_case_end: None,
        blocked: blocked(sight, id, operation),
        result: operation.ended.as_ref().map(|end| end.result.words()),
        by: operation.by.clone(),
        begun_at: operation.begun_at,
        ended_at: operation.ended.as_ref().map(|end| end.at),
        cancellable: running && !operation.cancelling && cancellable(&operation.kind),
        reason: operation.reason.clone(),
        history: operation
            .history
            .iter()
            .map(|note| NoteView { at: note.at, text: note.step.words() })
            .collect(),
        fence: None,
    };
    let mut row = match &operation.kind {
        OperationKind::Drain(drain) => {
            let left = u64::from(sight.given(&drain.node).claims);
            let total = u64::from(drain.total).max(left);
            let worst = worst_drain(sight, operation, drain.max_in_flight, &drain.node);
            OperationView {
                target: drain.node.to_string(),
                done: if running { total - left } else { u64::from(drain.total) },
                total,
                worst_case_end: running.then_some(worst),
                ..blank
            }
        }
        OperationKind::Migration(migration) => migration_row(sight, id, operation, migration, blank),
        OperationKind::Rollout(rollout) => rollout_row(sight, rollout, running, blank),
        OperationKind::Fence(fence) => fence_row(sight, operation, fence, blank),
    };
    if !running {
        row.phase = "ended".to_owned();
        (row.eta_ms, row.worst_case_end) = (None, None);
    } else if row.eta_ms.is_none() && row.done > 0 && row.total > row.done {
        let each = sight.wall_age(operation.begun_at).0 / row.done;
        row.eta_ms = Some(each.saturating_mul(row.total - row.done));
    }
    row
}

fn cancellable(kind: &OperationKind) -> bool {
    match kind {
        OperationKind::Migration(migration) => migration.phase != MigrationPhase::RollingBack,
        OperationKind::Drain(_) | OperationKind::Rollout(_) | OperationKind::Fence(_) => true,
    }
}

/// What holds it up: its own lines of the report, and those of a drain's moves.
fn blocked(sight: &Sight<'_>, id: OperationId, operation: &Operation) -> Vec<BlockedView> {
    if operation.ended.is_some() {
        return Vec::new();
    }
    let what = match &operation.kind {
        OperationKind::Drain(drain) => drain.node.to_string(),
        OperationKind::Migration(migration) => migration.slot.to_string(),
        OperationKind::Rollout(rollout) => rollout.service.to_string(),
        OperationKind::Fence(fence) => fence.node.to_string(),
    };
    let waiting = sight.waiting(&Subject::Operation(id));
    let mut blocked: Vec<BlockedView> = waiting
        .iter()
        .filter(|waiting| !matches!(waiting.cause, WaitCause::Fencing { under_way: true, .. }))
        .map(|waiting| BlockedView { what: what.clone(), why: words::cause(&waiting.cause) })
        .collect();
    if let OperationKind::Drain(drain) = &operation.kind {
        let slots: Vec<&SlotId> = sight.state.claims_on(&drain.node).map(|(slot, _)| slot).take(50).collect();
        for slot in slots {
            blocked.extend(
                sight
                    .wait_of_slot(slot)
                    .iter()
                    .map(|waiting| BlockedView { what: slot.to_string(), why: words::cause(&waiting.cause) }),
            );
        }
    }
    blocked
}

fn migration_row(
    sight: &Sight<'_>,
    id: OperationId,
    operation: &Operation,
    migration: &MigrationRecord,
    blank: OperationView,
) -> OperationView {
    let copy = transfer(sight, id, migration);
    let (done, total) = copy.map_or((0, 0), |copy| (copy.bytes_done, copy.bytes_total));
    let since = operation.history.last().map_or(operation.begun_at, |note| note.at);
    let elapsed = sight.wall_age(since).0;
    let rate = done.saturating_mul(1_000).checked_div(elapsed).unwrap_or(0);
    let eta = (rate > 0 && total > done).then(|| (total - done).saturating_mul(1_000) / rate);
    OperationView {
        kind: OperationKindView::Migration,
        target: migration.slot.to_string(),
        to: migration.target.clone().or_else(|| migration.wanted_target.clone()),
        phase: migration.phase.name().to_owned(),
        done: match migration.phase {
            MigrationPhase::Planned => 0,
            MigrationPhase::Preparing => 1,
            MigrationPhase::Copying => 2,
            MigrationPhase::Switchover => 3,
            MigrationPhase::Verifying | MigrationPhase::RollingBack => 4,
            MigrationPhase::Done | MigrationPhase::RolledBack => 5,
        },
        total: 5,
        bytes: migration.bytes.saturating_add(done),
        bytes_total: migration.bytes.saturating_add(total),
        rate,
        eta_ms: eta,
        worst_case_end: Some(WallMs(operation.begun_at.0.saturating_add(worst_move(sight, migration).0))),
        ..blank
    }
}

/// The copy under way, as the node that fetches it reports.
fn transfer<'a>(
    sight: &Sight<'a>,
    id: OperationId,
    migration: &MigrationRecord,
) -> Option<&'a TransferReport> {
    let (fetches, _) = migration.copying()?;
    let heard = sight.heard(fetches)?;
    heard
        .report
        .transfers
        .iter()
        .find(|copy| copy.operation == id && copy.pass == migration.passes + 1 && copy.outcome.is_none())
}

fn rollout_row(
    sight: &Sight<'_>,
    rollout: &RolloutRecord,
    running: bool,
    blank: OperationView,
) -> OperationView {
    let first = SlotId { service: rollout.service.clone(), ordinal: 0 };
    let last = SlotId { service: rollout.service.clone(), ordinal: u32::MAX };
    let older = sight
        .state
        .slots
        .range(first..=last)
        .flat_map(|(_, slot)| &slot.claims)
        .filter(|claim| claim.version < rollout.version)
        .count() as u64;
    let total = u64::from(rollout.total).max(older);
    OperationView {
        kind: OperationKindView::Rollout,
        target: rollout.service.to_string(),
        done: if running { total - older } else { total },
        total,
        ..blank
    }
}

fn fence_row(
    sight: &Sight<'_>,
    operation: &Operation,
    fence: &FenceRecord,
    blank: OperationView,
) -> OperationView {
    let levels = sight.state.nodes.get(&fence.node).map_or(&[][..], |record| &record.facts.fencing);
    let longest: u64 = levels.iter().flatten().map(|method| method.longest().0).sum();
    // All methods of one level have to prove it: those before the current one have.
    let total = levels.get(fence.level as usize).map_or(1, |level| level.len().max(1) as u64);
    let done = if fence.phase == FencePhase::Proven { total } else { u64::from(fence.method).min(total) };
    OperationView {
        kind: OperationKindView::Fence,
        target: fence.node.to_string(),
        to: fence.by_node.clone(),
        phase: fence.phase.name().to_owned(),
        done,
        total,
        worst_case_end: Some(WallMs(operation.begun_at.0.saturating_add(longest))),
        fence: Some(super::fencing::run(sight, operation, fence)),
        ..blank
    }
}

/// Stop, start and judge at the target, then all of it once more on the way back.
fn worst_move(sight: &Sight<'_>, migration: &MigrationRecord) -> Millis {
    let spec = sight.service(&migration.slot).map(|service| &service.spec);
    spec.map_or(Millis(0), |spec| Millis(worst_one_way(spec).0.saturating_mul(2)))
}

fn worst_one_way(spec: &ServiceSpec) -> Millis {
    const MARGIN: Millis = Millis(10_000);
    let judged = spec.health.as_ref().map_or(Millis(0), |check| {
        Millis(check.start_period.0 + u64::from(check.failures) * (check.interval.0 + check.timeout.0))
    });
    spec.stop.grace + judged + MARGIN
}

fn worst_drain(sight: &Sight<'_>, operation: &Operation, lanes: u32, node: &crate::ids::NodeId) -> WallMs {
    let spans = sight.state.claims_on(node).filter_map(|(slot, _)| sight.service(slot));
    let all: u64 = spans.map(|service| worst_one_way(&service.spec).0 * 2).fold(0, u64::saturating_add);
    let start = sight.look.at.max(operation.begun_at);
    WallMs(start.0.saturating_add(all / u64::from(lanes.max(1))))
}

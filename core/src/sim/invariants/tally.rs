//! Counts what was committed, so that a clean run is seen to have met the rare cases.

use std::sync::Arc;

use crate::event::{Event, EventRecord};
use crate::evidence::Evidence;
use crate::sim::Count;
use crate::sim::ctx::Ctx;

pub(super) fn count(ctx: &mut Ctx, events: &[Arc<EventRecord>]) {
    for record in events {
        ctx.note(format_args!("commit {}: {:?}", record.revision, record.event));
        let what = match &record.event {
            Event::Granted { .. } => Count::Grants,
            Event::InventoryTaken { .. } => Count::InventoriesTaken,
            Event::NodeLost { .. } => Count::Losses,
            Event::NodeRejoined { .. } => Count::Rejoins,
            Event::NodeRemoved(_) => Count::Departures,
            Event::SettingsChanged(_) => Count::SettingsChanged,
            Event::ClaimEnded { evidence, .. } => match evidence {
                Evidence::StopAcknowledged { .. } => Count::EndedByAcknowledgement,
                Evidence::Fenced { .. } => Count::EndedByFence,
                Evidence::Rebooted { .. } => Count::EndedByReboot,
                Evidence::Silence { .. } => Count::EndedBySilence,
                Evidence::Attested { .. } => Count::EndedByAttestation,
            },
            Event::OperationEnded { what, well, .. } if what.contains("migrat") || what.contains("move") => {
                if *well {
                    Count::MigrationsDone
                } else {
                    Count::MigrationsRolledBack
                }
            }
            Event::OperationEnded { .. } => Count::OperationsEnded,
            _ => continue,
        };
        ctx.count(what);
    }
}

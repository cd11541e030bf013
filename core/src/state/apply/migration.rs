//! Migrations: their beginning and their record. Their steps stand in `advance`.

use super::{Entry, Outcome, not_found, refused};
use crate::ids::{NodeId, OperationId, SlotId};
use crate::state::{Claim, MigrationPhase, MigrationRecord, OperationKind, Rejection, Reply};

impl Entry<'_> {
    pub(super) fn migrate(
        &mut self,
        slot: &SlotId,
        to: Option<&NodeId>,
        parent: Option<OperationId>,
    ) -> Outcome {
        let service = self.service(&slot.service)?;
        if slot.ordinal >= service.wanted() {
            return Err(refused(format!("{slot} is not wanted"), "deploy or scale the service first"));
        }
        if let Some((running, _)) = self.migration_of(slot) {
            return Err(refused(
                format!("operation {running} moves {slot} already"),
                format!("wait for it, or cancel operation {running}"),
            ));
        }
        let record = self.state.slots.get(slot).ok_or_else(|| not_found("slot", slot))?;
        let standing = || record.claims.iter().rev().filter(|claim| claim.stop.is_none());
        let alive = |claim: &&Claim| self.state.nodes.get(&claim.node).is_some_and(|node| !node.lost());
        // A claim left on a lost node is nothing that can be moved while another copy runs.
        let Some(claim) = standing().find(alive).or_else(|| standing().next()) else {
            return Err(refused(format!("{slot} runs nowhere"), "it starts as soon as a node fits"));
        };
        if self.node(&claim.node)?.lost() {
            return Err(refused(
                format!("{}, which runs {slot}, is lost", claim.node),
                format!("fence {}, or attest that it is dead", claim.node),
            ));
        }
        if let Some(to) = to {
            self.check_target(slot, &claim.node, to)?;
        }
        if let Some(parent) = parent {
            let drain = self.under_way(parent)?;
            if drain.cancelling
                || !matches!(&drain.kind, OperationKind::Drain(drain) if drain.node == claim.node)
            {
                return Err(refused(
                    format!("operation {parent} does not drain {}", claim.node),
                    "look again",
                ));
            }
        }
        let migration = MigrationRecord {
            slot: slot.clone(),
            source: claim.node.clone(),
            source_token: claim.token,
            wanted_target: to.cloned(),
            target: None,
            parent,
            phase: MigrationPhase::Planned,
            passes: 0,
            bytes: 0,
            granted: None,
            rollback: None,
        };
        self.begin(OperationKind::Migration(migration), String::new()).map(Reply::Began)
    }

    /// Could this node take the slot from that one, as far as is committed?
    pub(super) fn check_target(&self, slot: &SlotId, source: &NodeId, to: &NodeId) -> Result<(), Rejection> {
        let target = self.node(to)?;
        let no = |because: String| Err(refused(because, "choose another node"));
        if to == source {
            return no(format!("{slot} runs on {to} already"));
        }
        if target.witness {
            return no(format!("{to} is a witness and hosts nothing"));
        }
        if target.lost() {
            return no(format!("{to} is lost"));
        }
        if target.cordoned {
            return no(format!("{to} is cordoned"));
        }
        Ok(())
    }

    /// The migration that moves a slot now.
    pub(super) fn migration_of(&self, slot: &SlotId) -> Option<(OperationId, &MigrationRecord)> {
        self.state.operations.iter().find_map(|(id, operation)| match &operation.kind {
            OperationKind::Migration(migration) if operation.ended.is_none() && &migration.slot == slot => {
                Some((*id, migration))
            }
            OperationKind::Migration(_)
            | OperationKind::Drain(_)
            | OperationKind::Rollout(_)
            | OperationKind::Fence(_) => None,
        })
    }

    pub(super) fn change_migration(&mut self, id: OperationId, change: impl FnOnce(&mut MigrationRecord)) {
        self.change_operation(id, |operation| {
            if let OperationKind::Migration(migration) = &mut operation.kind {
                change(migration);
            }
        });
    }
}

//! What must be true of every State. Cheap enough to run after each entry for what it touched, and as a
//! whole in the simulator and on request. Repairs nothing: it only says what is wrong.

use std::collections::BTreeSet;

use super::{Claim, OperationKind, State};
use crate::ids::SlotId;

impl State {
    /// Everything that must never be so, in words; empty when all is well.
    pub fn check(&self) -> Vec<String> {
        let mut wrong: Vec<String> = self.slots.keys().flat_map(|slot| self.check_slot(slot)).collect();
        wrong.extend(self.check_nodes());
        wrong.extend(self.check_operations());
        let bytes: u64 = self.kv.iter().map(|(key, record)| (key.len() + record.value.len()) as u64).sum();
        if bytes != self.cluster.kv_bytes {
            wrong.push(format!("keys and values take {bytes} bytes, counted {}", self.cluster.kv_bytes));
        }
        wrong
    }

    /// What must never be so of one slot.
    pub fn check_slot(&self, id: &SlotId) -> Vec<String> {
        let Some(slot) = self.slots.get(id) else { return Vec::new() };
        let mut wrong = Vec::new();
        let service = self.services.get(&id.service);
        if service.is_none() {
            wrong.push(format!("slot {id} has no service"));
        }
        for claim in &slot.claims {
            if claim.token > self.token() {
                wrong.push(format!("claim {id}@{} is of a later revision", claim.token));
            }
            if claim.stop.as_ref().is_some_and(|stop| stop.token <= claim.token) {
                wrong.push(format!("the stop of {id}@{} is not above it", claim.token));
            }
            if !self.nodes.contains_key(&claim.node) {
                wrong.push(format!("claim {id}@{} is of unknown node {}", claim.token, claim.node));
            }
        }
        if !slot.claims.is_sorted_by(|one, two| one.token < two.token) {
            wrong.push(format!("claims of {id} are not in the order of their tokens"));
        }
        // Claims made before the service became exclusive may still be several, and so may those that were
        // found after a recovery.
        let epoch = self.cluster.recovery.as_ref().map_or(self.cluster.epoch, |recovery| recovery.epoch);
        let since = service.filter(|service| service.exclusive).map(|service| service.exclusive_since);
        let doubled = since.is_some_and(|since| {
            let granted_now = |claim: &Claim| {
                claim.token.epoch >= epoch && claim.token.revision == claim.since && claim.since > since
            };
            slot.claims.len() > 1 && slot.claims.iter().any(granted_now)
        });
        if doubled {
            let claims: Vec<String> =
                slot.claims.iter().map(|claim| format!("{} on {}", claim.token, claim.node)).collect();
            wrong.push(format!("exclusive slot {id} has {} claims: {}", claims.len(), claims.join(", ")));
        }
        wrong
    }

    fn check_nodes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let (mut numbers, mut disks) = (BTreeSet::new(), BTreeSet::new());
        for (id, node) in self.nodes.iter() {
            if !numbers.insert(node.raft_id) {
                wrong.push(format!("node {id} shares the number {} with another", node.raft_id));
            }
            if !disks.insert(&node.disk) {
                wrong.push(format!("node {id} shares its disk with another"));
            }
            if node.raft_id.0 >= self.cluster.next_raft_id {
                wrong.push(format!("node {id} has the number {} that is still to come", node.raft_id));
            }
        }
        wrong
    }

    fn check_operations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let (mut slots, mut fenced) = (BTreeSet::new(), BTreeSet::new());
        for (id, operation) in self.operations.iter().filter(|(_, operation)| operation.ended.is_none()) {
            let first = match &operation.kind {
                OperationKind::Migration(migration) => slots.insert(&migration.slot),
                OperationKind::Fence(fence) => fenced.insert(&fence.node),
                OperationKind::Drain(_) | OperationKind::Rollout(_) => true,
            };
            if !first {
                wrong.push(format!(
                    "operation {id} ({}) runs beside another of the same",
                    operation.kind.words()
                ));
            }
        }
        wrong
    }
}

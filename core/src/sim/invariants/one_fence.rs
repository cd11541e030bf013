//! Fencing never races itself: at most one running fence operation for each target.

use std::collections::BTreeSet;

use super::Judgement;
use crate::state::{OperationKind, State};

pub(super) fn planned(state: &State) -> Judgement {
    let mut targets = BTreeSet::new();
    for (id, operation) in state.operations.iter().filter(|(_, operation)| operation.ended.is_none()) {
        if let OperationKind::Fence(fence) = &operation.kind
            && !targets.insert(&fence.node)
        {
            return Err(format!("operation {id} fences {} beside another", fence.node));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LeaseEpoch, NodeId, OperationId, Revision};
    use crate::state::{FencePhase, FenceRecord, Operation};
    use crate::units::WallMs;

    fn fence(node: &str) -> Operation {
        let record = FenceRecord {
            node: NodeId::new(node).unwrap(),
            lease_epoch: LeaseEpoch(1),
            forced: false,
            phase: FencePhase::Running,
            by_node: None,
            attempt: 1,
            level: 0,
            method: 0,
            output: String::new(),
        };
        Operation {
            kind: OperationKind::Fence(record),
            step: 1,
            by: String::new(),
            reason: String::new(),
            begun_at: WallMs(0),
            cancelling: false,
            ended: None,
            history: Vec::new(),
            changed: Revision(1),
        }
    }

    #[test]
    fn two_fences_of_one_target_are_seen() {
        let mut state = State::empty();
        state.operations.insert(OperationId(1), fence("n1"));
        state.operations.insert(OperationId(2), fence("n2"));
        assert_eq!(planned(&state), Ok(()));
        state.operations.insert(OperationId(3), fence("n1"));
        assert!(planned(&state).is_err());
    }
}

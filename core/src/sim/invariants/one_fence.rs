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

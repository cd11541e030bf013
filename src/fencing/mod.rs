//! Fencing a node by its methods: the deed, then reading the state back. Knows nothing of quorum, leases
//! or claims; who may ask was decided before.

mod exec;

use quorate_core::effect::FenceMethod;
use quorate_core::ids::NodeId;
use quorate_core::observation::FenceOutcome;

/// Does the deed by one method and reads the state back. Nothing but a read-back of `off` is proof.
pub async fn fence(target: &NodeId, method: &FenceMethod) -> FenceOutcome {
    match method {
        FenceMethod::Exec { command, timeout, .. } => {
            exec::fence(target, command, std::time::Duration::from_millis(timeout.0)).await
        }
    }
}

//! What a node is to do, as `reconcile` makes it: each effect realises a committed decision, carries the
//! token it acts under, and may be given any number of times. Drivers do these and nothing else.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fence::FenceMethod;
use crate::ids::{InstanceId, NodeId, OperationId, SlotId, Token, Version};
use crate::spec::ServiceSpec;
use crate::units::{BootMs, Millis};

/// One thing to be done on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Start an instance, or start it again in place after an exit.
    Start(StartInstance),
    /// End whatever runs of a slot and raise its highest token to `token`, even if nothing runs.
    /// Done when the slot reports that token and no instance.
    Stop(StopInstance),
    /// Tell the guard how long the lease lasts now.
    Renew {
        /// Rises with each renewal; the guard drops older ones.
        number: u64,
        /// The lease's end; each instance's deadline is this plus its own grace.
        valid_until: BootMs,
    },
    /// Remove the folder of an instance that is gone for good.
    Forget {
        /// Whose folder.
        slot: SlotId,
    },
    /// Fetch a slot's state folder from another node into this operation's staging folder.
    Fetch(FetchState),
    /// Drop an operation's staging folder.
    DropStaging {
        /// Whose.
        operation: OperationId,
    },
    /// Fence a node by one of its methods.
    Fence(FenceNode),
}

/// Starts one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartInstance {
    /// Which one; its token is the claim's.
    pub id: InstanceId,
    /// What to run.
    pub spec: Arc<ServiceSpec>,
    /// Which deployment of it.
    pub version: Version,
    /// 0 for the first start under this token, then counting restarts in place.
    pub restart: u32,
    /// What the guard does with it when the lease runs out.
    pub isolation: Isolation,
    /// Where this node is reached by others, for the instance's environment.
    pub host: String,
    /// Move this operation's staging folder into place as the state before starting.
    pub state_from: Option<OperationId>,
}

/// What the guard does with an instance when the lease runs out, asking nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// Leave it running.
    Keep,
    /// Kill it at the expiry.
    Kill,
    /// Ask it to stop at the expiry, kill it this much later.
    Stop {
        /// From the expiry to the kill.
        grace: Millis,
    },
}

/// Ends one slot's instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopInstance {
    /// Whose.
    pub slot: SlotId,
    /// The token of the stop; everything lower is void afterwards.
    pub token: Token,
    /// The signal that asks.
    pub signal: i32,
    /// Killed this long after the signal; 0 kills at once.
    pub grace: Millis,
    /// For people: why.
    pub because: String,
}

/// Copies a state folder here. The other node gives what it staged for this operation, if it never started
/// from it; else its instance's own folder. So a copy back never brings an empty folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchState {
    /// For which operation.
    pub operation: OperationId,
    /// Which pass.
    pub pass: u32,
    /// Whose state.
    pub slot: SlotId,
    /// Where it is now.
    pub from: NodeId,
    /// The folder inside the instance's own.
    pub state_dir: String,
}

/// Fences a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceNode {
    /// For which operation.
    pub operation: OperationId,
    /// Which attempt, counted over all levels.
    pub attempt: u32,
    /// Whom.
    pub target: NodeId,
    /// How.
    pub method: FenceMethod,
    /// Take its power, or give it back.
    pub deed: FenceDeed,
}

/// What is done to a node that is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FenceDeed {
    /// Off, and read back.
    Off,
    /// On again, once it was proven off.
    On,
}

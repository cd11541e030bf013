//! What the leader should ask of the cluster next, and what everything else waits for. One pure pass over
//! State and what was observed; the commands go out in order, and the next pass sees what became of them.
//! Proposes nothing itself, and remembers nothing but what [`TtlClock`] is handed in for.

mod desk;
mod drain;
mod evidence;
mod failover;
mod fencing;
mod foresee;
mod kv;
mod leadership;
mod membership;
mod migration;
mod nodes;
mod placement;
mod preemption;
mod preview;
mod recovery;
mod rollback;
mod rollout;
mod slots;
mod waiting;

pub use evidence::checklist;
pub use kv::{TtlClock, kv_expiry};
pub use nodes::{attest_check, heard_by};
pub use preview::preview;

use crate::observation::{Observed, Verdicts};
use crate::state::{Plan, State};
use desk::Desk;

/// The next commands, the waiting report and the next step of Raft's membership.
pub fn plan(state: &State, observed: &Observed, verdicts: &Verdicts) -> Plan {
    let mut desk = Desk::new(state, observed, verdicts);
    // Before the rejoins: they make a node's proof void.
    evidence::plan(&mut desk);
    nodes::plan(&mut desk);
    fencing::plan(&mut desk);
    migration::plan(&mut desk);
    drain::plan(&mut desk);
    slots::plan(&mut desk);
    rollout::plan(&mut desk);
    failover::plan(&mut desk);
    membership::plan(&mut desk);
    waiting::plan(&mut desk);
    desk.plan
}

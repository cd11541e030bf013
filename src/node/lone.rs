//! Fencing without a quorum: the one deed that the survivor of two may do on its operator's word. It changes
//! no State, since nothing can; what was done stands in this node's audit file, and what to do next is said.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::fence::{FenceLevels, FenceMethod};
use quorate_core::ids::NodeId;
use quorate_core::observation::FenceOutcome;
use quorate_core::plan::heard_by;
use serde_json::json;
use tokio::time::sleep;

use super::inner::Inner;
use super::{audit, propose};
use crate::host;
use crate::ports::{LoneFence, LoneFenced, SubmitError};

/// How long a quorum is looked for before it is believed gone.
const QUORUM_WITHIN: Duration = Duration::from_secs(2);

/// Fences a node that this one does not reach either. Refused where a quorum could do it.
pub(super) async fn fence(inner: &Arc<Inner>, order: LoneFence) -> Result<LoneFenced, SubmitError> {
    let levels = allowed(inner, &order).await?;
    let inner = inner.clone();
    // Once begun it goes on to its end, whether or not the caller waits.
    let done = tokio::spawn(async move { deed(&inner, &order, &levels).await }).await;
    done.unwrap_or_else(|error| Err(SubmitError::Unknown { why: error.to_string(), request: None }))
}

fn refused(because: String, remedy: String) -> SubmitError {
    SubmitError::Refused { because, remedy }
}

async fn allowed(inner: &Arc<Inner>, order: &LoneFence) -> Result<FenceLevels, SubmitError> {
    let node = &order.node;
    if order.confirm != node.as_str() {
        let remedy = format!("type it out: --confirm {node}");
        return Err(refused(format!("{:?} is not the name of the node to fence", order.confirm), remedy));
    }
    if node == inner.me() {
        return Err(refused(format!("{node} cannot fence itself"), "ask another node".to_owned()));
    }
    let state = inner.state();
    let Some(record) = state.nodes.get(node) else {
        return Err(refused(format!("no node {node:?}"), "see quorate nodes --local".to_owned()));
    };
    if record.facts.fencing.is_empty() {
        let remedy = "switch it off by hand".to_owned();
        return Err(refused(format!("{node} has no fence method"), remedy));
    }
    if propose::linearizable(inner, QUORUM_WITHIN).await.is_ok() {
        let remedy = format!("quorate fence {node} --reason WHY");
        return Err(refused("this side has a quorum".to_owned(), remedy));
    }
    let observed = inner.observed(&state, inner.now());
    if let Some(by) = heard_by(&observed, &state, node) {
        let remedy = format!("it is not gone: look at {node}, or stop it there");
        return Err(refused(format!("{by} hears {node}"), remedy));
    }
    Ok(record.facts.fencing.clone())
}

async fn deed(
    inner: &Arc<Inner>,
    order: &LoneFence,
    levels: &FenceLevels,
) -> Result<LoneFenced, SubmitError> {
    let node = &order.node;
    note(inner, order, "begun", &[])?;
    tracing::warn!(target = %node, by = order.by, reason = order.reason, "fencing without a quorum");
    let mut said = Vec::new();
    let mut proven = false;
    for level in levels {
        if all_off(node, level, &mut said).await {
            proven = true;
            break;
        }
    }
    tracing::warn!(target = %node, proven, ?said, "fencing without a quorum ended");
    note(inner, order, if proven { "proven_off" } else { "failed" }, &said)?;
    Ok(LoneFenced { proven, said, next: next(inner.me(), node, proven) })
}

/// All methods of a level have to succeed, each within its attempts.
async fn all_off(node: &NodeId, level: &[FenceMethod], said: &mut Vec<String>) -> bool {
    for method in level {
        let mut off = false;
        for _ in 0..method.attempts.max(1) {
            sleep(Duration::from_millis(method.delay.0)).await;
            match crate::fencing::off(node, method).await {
                FenceOutcome::ProvenOff { output } => {
                    said.push(output);
                    off = true;
                    break;
                }
                FenceOutcome::Failed { output }
                | FenceOutcome::SwitchedOn { output }
                | FenceOutcome::Withheld { why: output } => said.push(output),
            }
        }
        if !off {
            return false;
        }
    }
    true
}

fn next(me: &NodeId, node: &NodeId, proven: bool) -> String {
    if proven {
        format!(
            "{node} was read back as off: leave it off, then let this side go on without it: quorate raft \
             recover --survivors {me}"
        )
    } else {
        format!("{node} is not proven off: switch it off by hand and look at it before anything else")
    }
}

fn note(inner: &Inner, order: &LoneFence, what: &str, said: &[String]) -> Result<(), SubmitError> {
    let state = inner.state();
    let record = json!({
        "at_ms": host::wall_now().0,
        "action": "fence_without_quorum",
        "outcome": what,
        "node": order.node,
        "by": order.by,
        "from": order.from,
        "reason": order.reason,
        "epoch": state.cluster.epoch,
        "revision": state.revision,
        "said": said,
    });
    audit::append(&inner.options.data_dir, &record).map_err(|error| {
        refused(format!("it cannot be audited: {error:#}"), "make room on this node's disk first".to_owned())
    })
}

//! A survivor's part in a forced quorum: on its operator's word it leaves the epoch it is in for a later one, which
//! another survivor begins from the longest log. From then on it has no part in any quorum of before.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::inner::Inner;
use super::{audit, propose};
use crate::host;
use crate::ports::{Agreement, SubmitError};

/// How long a quorum is looked for before it is believed gone.
const QUORUM_WITHIN: Duration = Duration::from_secs(2);

fn refused(because: String, remedy: impl Into<String>) -> SubmitError {
    SubmitError::Refused { because, remedy: remedy.into() }
}

/// Agrees, or says what speaks against it. Once it is on the disk it is not taken back.
pub(super) async fn agree(inner: &Arc<Inner>, agreement: Agreement) -> Result<(), SubmitError> {
    allowed(inner, &agreement)?;
    if propose::linearizable(inner, QUORUM_WITHIN).await.is_ok() {
        return Err(refused(
            format!("{} reaches a quorum: nothing is to be recovered", inner.me()),
            "start the node that was stopped: it catches up by itself",
        ));
    }
    let inner = inner.clone();
    // Once begun it goes on to its end, whether or not the caller waits.
    let done = tokio::task::spawn_blocking(move || enter(&inner, &agreement)).await;
    done.unwrap_or_else(|error| Err(SubmitError::Unknown { why: error.to_string(), request: None }))
}

fn allowed(inner: &Inner, agreement: &Agreement) -> Result<(), SubmitError> {
    let (state, me) = (inner.state(), inner.me());
    let name = &state.cluster.name;
    if agreement.confirm != *name {
        let remedy = format!("if it is the one you mean: --confirm {name}");
        return Err(refused(format!("{me} is of cluster {name:?}, not {:?}", agreement.confirm), remedy));
    }
    if agreement.reason.trim().is_empty() {
        return Err(refused("a recovery needs a reason".to_owned(), "say why with --reason"));
    }
    if !agreement.survivors.contains(me) {
        return Err(refused(format!("{me} is not among the survivors"), "name it too"));
    }
    let mine = inner.epochs.now();
    if agreement.epoch <= mine {
        let because = format!("{me} has agreed to epoch {mine} already, and this is {}", agreement.epoch);
        return Err(refused(because, "look again: quorate raft recover takes the next one"));
    }
    not_further(inner, agreement)
}

/// Nobody's end of the log is lost without need.
fn not_further(inner: &Inner, agreement: &Agreement) -> Result<(), SubmitError> {
    let (me, first) = (inner.me(), &agreement.begun_by);
    if inner.raft.last_log() > agreement.last {
        return Err(refused(
            format!("the log of {me} is longer than that of {first}: going on from there would lose its end"),
            format!("run it on the data of {me}, with {me} stopped and {first} running"),
        ));
    }
    Ok(())
}

fn enter(inner: &Inner, agreement: &Agreement) -> Result<(), SubmitError> {
    let Agreement { reason, epoch, begun_by, last, survivors, by, from, .. } = agreement;
    let record = json!({
        "at_ms": host::wall_now().0,
        "action": "agree_to_recovery",
        "by": by,
        "from": from,
        "reason": reason,
        "epoch": epoch,
        "begun_by": begun_by,
        "survivors": survivors,
        "last": {"term": last.0, "index": last.1},
    });
    let no_room = |what: String| refused(what, "make room on this node's disk first");
    audit::append(&inner.options.data_dir, &record)
        .map_err(|error| no_room(format!("it cannot be audited: {error:#}")))?;
    tracing::warn!(by, reason, epoch = epoch.0, begun_by = %begun_by, "going on without the lost majority");
    inner.epochs.enter(*epoch).map_err(|error| no_room(format!("the epoch cannot be kept: {error}")))?;
    // What came in meanwhile, from those that are left behind now.
    not_further(inner, agreement)
}

//! A datagram beside each ping: it needs no answer, so it shows that a way is open in its direction where pings only
//! show that it is not open in both. It never makes a link good or bad, it only tells more of a bad one.

use std::sync::Arc;

use quorate_core::ids::{BootId, ClusterId, NodeId, RaftId, Segment};
use quorate_core::units::BootMs;
use serde::{Deserialize, Serialize};

use super::super::inner::{Inner, hold};
use super::super::wire::decode;
use crate::transport::Datagrams;

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Whisper {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub from: NodeId,
    /// Its number.
    pub raft_id: RaftId,
    /// In which boot of its host.
    pub boot: BootId,
    /// When, on its clock: an old one that comes again tells nothing.
    pub at: BootMs,
    /// Whom it means.
    pub to: RaftId,
    /// Over which segment it was sent.
    pub segment: Segment,
}

/// Listens until the node ends.
pub(super) async fn listen(inner: Arc<Inner>, datagrams: Datagrams) {
    let mut stopping = inner.stopping.subscribe();
    loop {
        let body = tokio::select! {
            body = datagrams.receive() => body,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match body {
            Ok(body) => take(&inner, &body),
            Err(error) => tracing::debug!(%error, "no datagram"),
        }
    }
}

fn take(inner: &Inner, body: &[u8]) {
    let Ok(Whisper { cluster, from, raft_id, boot, at, to, segment }) = decode::<Whisper>(body) else {
        return;
    };
    let state = inner.state();
    let Some(record) = state.nodes.get(&from) else { return };
    // Its present boot is known from what came over connections.
    let present = record.raft_id == raft_id && record.boot == boot;
    if cluster == inner.identity.cluster && to == inner.raft_id && present {
        hold(&inner.reach).whispered(&from, &segment, (boot, at), inner.now());
    }
}

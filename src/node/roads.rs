//! Keeps true where nodes are reached: this node's dial table, Raft's own record of the addresses, and the
//! timing that Raft starts with next time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_core::ids::{Endpoint, RaftId};
use quorate_core::state::{RaftTiming, State};

use super::identity;
use super::inner::Inner;

/// Between two changes of an address that did not succeed.
const RETRY: Duration = Duration::from_secs(1);

/// What was set already.
pub(super) struct Roads {
    inner: Arc<Inner>,
    members: BTreeMap<u64, Vec<Endpoint>>,
    timing: Option<RaftTiming>,
    busy: Arc<AtomicBool>,
}

impl Roads {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, members: BTreeMap::new(), timing: None, busy: Arc::default() }
    }

    pub(super) fn pass(&mut self, state: &State) {
        let members = self.inner.status.borrow().endpoints.clone();
        if members != self.members {
            for gone in self.members.keys().filter(|id| !members.contains_key(id)) {
                self.inner.dialer.forget(*gone);
            }
            for (id, endpoints) in &members {
                self.inner.dialer.set(*id, endpoints);
            }
            self.members = members;
        }
        self.move_member(state);
        self.keep_timing(state);
    }

    /// As leader: a node that listens elsewhere now is reached there.
    fn move_member(&self, state: &State) {
        if !self.inner.leads() || self.inner.status.borrow().changing {
            return;
        }
        let moved = self.members.iter().find_map(|(id, endpoints)| {
            let (_, record) = state.node_of(RaftId(*id))?;
            let now = &record.facts.endpoints;
            (now != endpoints && !now.is_empty()).then(|| (*id, now.clone()))
        });
        let Some((id, endpoints)) = moved else { return };
        if self.busy.swap(true, Ordering::Relaxed) {
            return;
        }
        let (inner, busy) = (self.inner.clone(), self.busy.clone());
        tokio::spawn(async move {
            if let Err(error) = inner.raft.set_endpoints(id, endpoints).await {
                tracing::warn!(raft_id = id, %error, "address not changed");
                tokio::time::sleep(RETRY).await;
            }
            busy.store(false, Ordering::Relaxed);
        });
    }

    fn keep_timing(&mut self, state: &State) {
        let timing = state.cluster.settings.raft;
        if state.cluster.id.0.is_empty() || self.timing == Some(timing) {
            return;
        }
        self.timing = Some(timing);
        let root = self.inner.options.data_dir.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = identity::keep_raft_timing(&root, timing) {
                tracing::warn!("{error:#}");
            }
        });
    }
}

//! Publishes the view: made only while somebody looks, at most some ten a second, and only sent when it
//! changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use quorate_core::ids::NodeId;
use quorate_core::observation::{Observed, RaftObserved, Verdicts};
use quorate_core::reach::Reach;
use quorate_core::state::State;
use quorate_core::units::{BootMs, Millis};
use quorate_core::view::{ClusterKind, ClusterView, Look, view};
use tokio::time::Instant;

use super::inner::{Inner, hold};
use crate::host;

/// Two views are at least this far apart.
const GAP: Duration = Duration::from_millis(100);

/// The publisher.
pub(super) struct Show {
    inner: Arc<Inner>,
    last: Option<Instant>,
    /// A view was put off.
    owed: bool,
}

impl Show {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, last: None, owed: false }
    }

    /// Until a view that was put off is due.
    pub(super) fn due(&self) -> Option<Duration> {
        self.last.filter(|_| self.owed).map(|last| GAP.saturating_sub(last.elapsed()))
    }

    pub(super) fn pass(&mut self, state: &State, observed: &Observed, verdicts: &Verdicts, now: BootMs) {
        let watched = self.inner.views.receiver_count() > 0;
        self.owed = watched && self.last.is_some_and(|last| last.elapsed() < GAP);
        if !watched || self.owed {
            return;
        }
        self.last = Some(Instant::now());
        let next = look(&self.inner, state, observed, verdicts, now);
        self.inner.views.send_if_modified(|last| {
            let changed = **last != next;
            if changed {
                *last = Arc::new(next);
            }
            changed
        });
    }
}

/// What there is to see before anything is known.
pub(super) fn first(me: &NodeId, kind: ClusterKind) -> ClusterView {
    let observed = Observed {
        me: me.clone(),
        now: host::boot_now(),
        nodes: OrdMap::new(),
        known_since: OrdMap::new(),
        reach: Reach::default(),
        raft: RaftObserved::default(),
    };
    view(&Look {
        state: &State::empty(),
        observed: &observed,
        verdicts: &Verdicts::default(),
        waiting: &BTreeMap::new(),
        waiting_age: Millis(0),
        lease: None,
        at: host::wall_now(),
        kind,
        previous: None,
    })
}

/// Everything there is to see from here at this moment.
pub(super) fn look(
    inner: &Inner,
    state: &State,
    observed: &Observed,
    verdicts: &Verdicts,
    now: BootMs,
) -> ClusterView {
    let (waiting, heard) = {
        let sightings = hold(&inner.sightings);
        (sightings.waiting.clone(), sightings.leader_word)
    };
    let waiting_age =
        if inner.leads() { Millis(0) } else { heard.map_or(now.since(BootMs(0)), |at| now.since(at)) };
    let previous = inner.views.borrow().clone();
    view(&Look {
        state,
        observed,
        verdicts,
        waiting: &waiting.waiting,
        waiting_age,
        lease: inner.lease().as_ref(),
        at: host::wall_now(),
        kind: inner.options.kind,
        previous: Some(&previous),
    })
}

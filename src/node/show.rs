//! Publishes the view: made only while somebody looks, at most some ten a second, and only sent when it
//! changed.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use quorate_core::event::Level;
use quorate_core::ids::{Epoch, Revision};
use quorate_core::observation::{Observed, Verdicts};
use quorate_core::state::{Plan, State};
use quorate_core::units::{BootMs, WallMs};
use quorate_core::view::{ClusterSummary, ClusterView, LinksView, Standing, Verdict};
use tokio::time::Instant;

use super::identity::Identity;
use super::inner::Inner;
use super::options::NodeOptions;

/// Two views are at least this far apart.
const GAP: Duration = Duration::from_millis(100);

/// What there is to see before the first look.
pub(super) fn starting(identity: &Identity, options: &NodeOptions, at: WallMs) -> ClusterView {
    let sentence = "this node is starting; nothing is known yet".to_owned();
    ClusterView {
        me: identity.node.clone(),
        revision: Revision(0),
        at,
        cluster: ClusterSummary {
            id: identity.cluster.clone(),
            name: options.cluster_name.clone(),
            epoch: Epoch(0),
            kind: options.kind,
        },
        standing: Standing {
            quorum: false,
            voters_heard: 0,
            voters: 0,
            voters_needed: 0,
            voters_spare: 0,
            leader: None,
            accepting_proposals: false,
            quorum_ack_age_ms: None,
            term: 0,
            lease_left_ms: 0,
            data_age_ms: 0,
            sentence: sentence.clone(),
        },
        verdict: Verdict { level: Level::Warning, word: "starting".to_owned(), sentence },
        countdowns: Vec::new(),
        nodes: OrdMap::new(),
        services: OrdMap::new(),
        instances: OrdMap::new(),
        operations: OrdMap::new(),
        events: Vec::new(),
        links: LinksView::default(),
    }
}

/// The publisher.
pub(super) struct Show {
    inner: Arc<Inner>,
    last: Option<Instant>,
}

impl Show {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, last: None }
    }

    pub(super) fn pass(
        &mut self,
        state: &State,
        observed: &Observed,
        verdicts: &Verdicts,
        plan: Option<&Plan>,
        now: BootMs,
    ) {
        let watched = self.inner.views.receiver_count() > 0;
        if !watched || self.last.is_some_and(|last| last.elapsed() < GAP) {
            return;
        }
        self.last = Some(Instant::now());
        let _ = (state, observed, verdicts, plan, now);
    }
}

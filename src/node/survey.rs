//! What a node measures by itself: the load of its host.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::inner::{Inner, hold};
use crate::probes::HostProbe;

/// Between two looks at the host's load.
const LOAD_EVERY: Duration = Duration::from_secs(2);

/// Samples the host's load until the node ends.
pub(super) async fn usage(inner: Arc<Inner>, mut probe: HostProbe) {
    let mut every = interval(LOAD_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*inner.stopping.borrow() {
        every.tick().await;
        match probe.sample() {
            Ok(usage) => *hold(&inner.works.usage) = usage,
            Err(error) => tracing::warn!("{error:#}"),
        }
    }
}

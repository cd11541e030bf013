//! What a node sees to by itself: the load of its host, and that memory it no longer needs goes back there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::inner::{Inner, hold};
use crate::host;
use crate::probes::HostProbe;

/// Between two looks at the host's load.
const LOAD_EVERY: Duration = Duration::from_secs(2);
/// Between two times that freed memory is given back: a start, a snapshot or a copy needs much for a moment.
const MEMORY_EVERY: Duration = Duration::from_secs(30);

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

/// Gives freed memory back until the node ends.
pub(super) async fn memory(inner: Arc<Inner>) {
    let mut stopping = inner.stopping.subscribe();
    while timeout(MEMORY_EVERY, stopping.wait_for(|stopping| *stopping)).await.is_err() {
        // It takes the allocator's locks for some milliseconds: on no thread that others wait for.
        drop(tokio::task::spawn_blocking(host::give_memory_back).await);
    }
}

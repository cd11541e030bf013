//! What a node measures by itself: the load of its host, and the ways to the other nodes on every segment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use quorate_core::ids::{Endpoint, NodeId, Segment};
use quorate_core::observation::LinkReport;
use quorate_core::units::BootMs;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::inner::{Inner, hold};
use super::peers::{address, pack};
use crate::probes::HostProbe;

/// Between two looks at the host's load.
const LOAD_EVERY: Duration = Duration::from_secs(2);
/// Between two probes of a way.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A probe that takes longer is lost.
const PROBE_WITHIN: Duration = Duration::from_millis(800);
/// Probes that loss is counted over.
const WINDOW: usize = 100;

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

#[derive(Default)]
struct Way {
    results: VecDeque<bool>,
    last_good: Option<BootMs>,
    rtt_us: Option<u32>,
}

/// Probes every other node on every segment until the node ends.
pub(super) async fn links(inner: Arc<Inner>) {
    let mut ways: BTreeMap<(NodeId, Segment), Way> = BTreeMap::new();
    let mut every = interval(PROBE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*inner.stopping.borrow() {
        every.tick().await;
        let state = inner.state();
        let others = state.nodes.iter().filter(|(node, _)| *node != inner.me());
        let targets: Vec<(NodeId, Endpoint)> = others
            .flat_map(|(node, record)| record.facts.endpoints.iter().map(|e| (node.clone(), e.clone())))
            .collect();
        ways.retain(|(node, segment), _| targets.iter().any(|(n, e)| n == node && &e.segment == segment));
        let probes = targets.into_iter().map(|(node, endpoint)| {
            let inner = inner.clone();
            async move {
                let rtt = probe(&inner, &address(&endpoint)).await;
                ((node, endpoint.segment), rtt)
            }
        });
        for (key, rtt) in futures::future::join_all(probes).await {
            let way = ways.entry(key).or_default();
            way.results.push_back(rtt.is_some());
            if way.results.len() > WINDOW {
                way.results.pop_front();
            }
            way.rtt_us = rtt;
            if rtt.is_some() {
                way.last_good = Some(inner.now());
            }
        }
        let now = inner.now();
        *hold(&inner.works.links) =
            ways.iter().map(|((to, segment), way)| way.report(to, segment, now)).collect();
    }
}

impl Way {
    fn report(&self, to: &NodeId, segment: &Segment, now: BootMs) -> LinkReport {
        let lost = self.results.iter().filter(|ok| !**ok).count();
        LinkReport {
            to: to.clone(),
            segment: segment.clone(),
            ok: self.results.back().copied().unwrap_or(false),
            rtt_us: self.rtt_us,
            loss_percent: (lost * 100 / self.results.len().max(1)) as u8,
            last_good: self.last_good.map(|at| now.since(at)),
        }
    }
}

/// The round trip to an address, in microseconds.
async fn probe(inner: &Inner, address: &str) -> Option<u32> {
    let mut client = inner.addresses.cluster(address).ok()?;
    let began = Instant::now();
    let answer = timeout(PROBE_WITHIN, client.probe(pack(&()))).await;
    matches!(answer, Ok(Ok(_))).then(|| u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX))
}

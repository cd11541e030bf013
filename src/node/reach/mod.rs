//! Which ways to the other nodes are open: every node is probed on every segment over a connection of its own,
//! arbiters beside them, and each probe carries what its sender knows of all the others. Judges nothing.

mod answer;
mod arbiter;
mod known;
mod probe;
mod whisper;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::ids::{Endpoint, NodeId, RaftId, Segment};
use quorate_core::state::State;
use quorate_core::units::Millis;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

pub(super) use answer::answer;
pub(super) use known::Known;

use super::inner::{Inner, hold};

/// Probes are never nearer together than this, nor further apart than the next.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(500);
/// Many ways share so much time each: what probing costs has a limit.
const EACH: Duration = Duration::from_millis(10);

/// One way: to whom, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    node: NodeId,
    raft_id: RaftId,
    endpoint: Endpoint,
}

/// Probes until the node ends.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut tasks: BTreeMap<Target, JoinHandle<()>> = BTreeMap::new();
    for arbiter in &inner.options.config.arbiters {
        tokio::spawn(arbiter::run(inner.clone(), arbiter.clone()));
    }
    if let Some(datagrams) = inner.datagrams.clone() {
        tokio::spawn(whisper::listen(inner.clone(), datagrams));
    }
    let mut due = Instant::now();
    while !*inner.stopping.borrow() {
        let interval = interval(&inner);
        sleep_until(due).await;
        let late = due.elapsed();
        due = Instant::now() + interval;
        let state = inner.state();
        let targets = targets(&inner, &state);
        tasks.retain(|target, task| {
            let wanted = targets.contains(target);
            if !wanted {
                task.abort();
            }
            wanted
        });
        for target in targets {
            tasks
                .entry(target)
                .or_insert_with_key(|target| tokio::spawn(probe::run(inner.clone(), target.clone())));
        }
        keep(&inner, &state, late);
    }
    for task in tasks.into_values() {
        task.abort();
    }
}

/// From one probe of a way to the next.
fn interval(inner: &Inner) -> Duration {
    let heartbeat = Duration::from_millis(inner.state().cluster.settings.terms.heartbeat.0);
    let ways = u32::try_from(hold(&inner.reach).ways()).unwrap_or(u32::MAX);
    (heartbeat / 2).clamp(SHORTEST, LONGEST).max(EACH * ways)
}

/// Every other node on every segment that it shares with this one; on all of its own where they share none.
fn targets(inner: &Inner, state: &State) -> Vec<Target> {
    let own: Vec<&Segment> = inner.facts.endpoints.iter().map(|endpoint| &endpoint.segment).collect();
    let others = state.nodes.iter().filter(|(node, _)| *node != inner.me());
    let of = |(node, record): (&NodeId, &quorate_core::state::NodeRecord)| {
        let all = &record.facts.endpoints;
        let shared = all.iter().any(|endpoint| own.contains(&&endpoint.segment));
        let taken = all.iter().filter(|endpoint| !shared || own.contains(&&endpoint.segment));
        let target = |endpoint: &Endpoint| Target {
            node: node.clone(),
            raft_id: record.raft_id,
            endpoint: endpoint.clone(),
        };
        taken.map(target).collect::<Vec<_>>()
    };
    others.flat_map(of).collect()
}

/// Forgets who is gone, notes how late this node runs, and makes its own row anew when that is due.
fn keep(inner: &Inner, state: &State, late: Duration) {
    let now = inner.now();
    let terms = state.cluster.settings.terms;
    let (leader, term) = {
        let status = inner.status.borrow();
        let leader = status.leader.and_then(|id| state.node_of(RaftId(id))).map(|(node, _)| node.clone());
        (leader, status.term)
    };
    let lease_left = inner.lease().map_or(Millis(0), |lease| lease.left(now));
    let mut known = hold(&inner.reach);
    known.retain(|node| state.nodes.contains_key(node));
    known.late(Millis(late.as_millis() as u64), now, terms);
    let about = known::About { from: inner.me(), boot: &inner.boot, leader, term, lease_left };
    if known.make_row(about, now, terms) {
        drop(known);
        inner.wake.notify_one();
    }
}

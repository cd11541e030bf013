//! How long the cluster cannot write after its leader is killed: from the kill to the first put that another node
//! acknowledges. Kills and restarts the nodes of a demo of its own, round after round.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::ours::{Cluster, Keys};
use crate::api::proto::PutRequest;

/// How long a round may take to show a leader that all follow.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// Without an acknowledged put after so long the round has failed.
const WRITES_WITHIN: Duration = Duration::from_secs(30);
/// Followers that are at most so many entries behind have caught up.
const BEHIND: u64 = 100;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    profile: String,
    rounds: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Each round, in their order.
    took_ms: Vec<f64>,
}

impl Report {
    fn new(profile: &str, took: &[Duration]) -> Self {
        let in_ms = |took: &Duration| (took.as_secs_f64() * 10_000.0).round() / 10.0;
        let took_ms: Vec<f64> = took.iter().map(in_ms).collect();
        let mut sorted = took_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
            sorted.get(index).copied().unwrap_or_default()
        };
        let (p50_ms, p99_ms, max_ms) = (at(0.5), at(0.99), at(1.0));
        Self { profile: profile.to_owned(), rounds: took.len(), p50_ms, p99_ms, max_ms, took_ms }
    }

    pub(super) fn text(&self) -> String {
        format!(
            "from the kill of the leader to the next committed write, profile {}, {} rounds\n\
             p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms\n",
            self.profile, self.rounds, self.p50_ms, self.p99_ms, self.max_ms
        )
    }
}

/// Kills so many leaders, one after the other.
pub(super) async fn measure(profile: &str, rounds: usize) -> anyhow::Result<Report> {
    let cluster = Cluster::start(profile).await?;
    let mut took = Vec::new();
    for round in 1..=rounds {
        let leader = whole(&cluster).await?;
        eprintln!("round {round} of {rounds}: {leader} is killed");
        took.push(fail(&cluster, &leader).await?);
        cluster.restart(&leader).await?;
    }
    Ok(Report::new(profile, &took))
}

/// Waits until every node follows one leader and has caught up with it; says who leads.
async fn whole(cluster: &Cluster) -> anyhow::Result<String> {
    let until = Instant::now() + WHOLE_WITHIN;
    loop {
        let mut seen = Vec::new();
        for endpoint in cluster.endpoints() {
            // A node that does not answer is not whole.
            seen.extend(cluster.raft_status(endpoint).await.ok());
        }
        let last = seen.iter().map(|status| status.committed).max().unwrap_or_default();
        if let Some(leader) = seen.first().map(|status| status.leader.clone())
            && !leader.is_empty()
            && seen.len() == cluster.endpoints().len()
            && seen.iter().all(|status| status.leader == leader && status.applied + BEHIND >= last)
            && seen.iter().all(|status| status.voters.len() == seen.len())
        {
            return Ok(leader);
        }
        if Instant::now() > until {
            bail!("the nodes did not agree on a leader within {} s", WHOLE_WITHIN.as_secs());
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn fail(cluster: &Cluster, leader: &str) -> anyhow::Result<Duration> {
    let nodes = cluster.nodes()?;
    let killed =
        nodes.iter().find(|node| node.name == leader).context("the leader is no node of the demo")?;
    let pid = i32::try_from(killed.pid).ok().and_then(Pid::from_raw).context("the leader has no process")?;
    let mut others = Vec::new();
    for node in nodes.iter().filter(|node| node.name != leader) {
        let mut keys = cluster.keys(&node.endpoint).await?;
        // A connection that was used is one that need not be made.
        keys.put(put(&node.name, 0)).await.context("a put before the kill failed")?;
        others.push((node.name.clone(), keys));
    }
    let killed = Instant::now();
    kill_process(pid, Signal::KILL).context("cannot kill the leader")?;
    let mut writers = JoinSet::new();
    for (name, keys) in others {
        writers.spawn(write(name, keys));
    }
    let first = timeout(WRITES_WITHIN, writers.join_next()).await;
    let first = first.with_context(|| format!("no write within {} s", WRITES_WITHIN.as_secs()))?;
    first.context("there is no other node")??;
    Ok(killed.elapsed())
}

/// Tries until one is acknowledged.
async fn write(name: String, mut keys: Keys) {
    for n in 1.. {
        if keys.put(put(&name, n)).await.is_ok() {
            return;
        }
    }
}

fn put(name: &str, n: u64) -> PutRequest {
    let (key, value) = (format!("bench/{name}").into_bytes().into(), n.to_string().into_bytes().into());
    PutRequest { key, value, ..PutRequest::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_rounds_in_order_of_their_length() {
        let took: Vec<Duration> = [300, 100, 200].map(Duration::from_millis).to_vec();
        let report = Report::new("lan", &took);
        assert_eq!((report.rounds, report.p50_ms, report.max_ms), (3, 200.0, 300.0));
        assert_eq!(report.took_ms, [300.0, 100.0, 200.0]);
        assert!(report.text().contains("p50 200 ms, p99 300 ms"));
    }
}

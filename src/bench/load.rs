//! The load: so many clients, each with one call under way, until the time is over. Knows no server.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// What a client calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    /// A durable put.
    Put,
    /// A linearizable read.
    Get,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Call::Put => "put",
            Call::Get => "get",
        })
    }
}

/// One round of load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) call: Call,
    pub(super) clients: usize,
    /// Bytes of each value.
    pub(super) size: usize,
    pub(super) time: Duration,
}

/// What a round found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Calls answered well.
    pub(super) done: u64,
    /// Calls answered by an error.
    pub(super) errors: u64,
    /// From the first call to the last answer.
    pub(super) took: Duration,
    /// How long each took, sorted, in microseconds.
    latencies_us: Vec<u32>,
}

impl Found {
    pub(super) fn ops_s(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// The latency that this share of the calls did not exceed.
    pub(super) fn quantile_us(&self, share: f64) -> u32 {
        let last = self.latencies_us.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies_us.get(at).copied().unwrap_or_default()
    }
}

/// Keys are spread over so many, so that no two clients fight for one and reads find something.
pub(super) const KEYS: u64 = 1_024;

/// The n-th key of a client.
pub(super) fn key(client: usize, n: u64) -> Vec<u8> {
    format!("bench/{:04}", (client as u64 * 7 + n) % KEYS).into_bytes()
}

/// Runs a round: `call` makes one call for a client, given its number and how many it made before.
pub(super) async fn run<C, F, T>(round: Round, connections: Vec<C>, call: T) -> anyhow::Result<Found>
where
    C: Clone + Send + 'static,
    F: Future<Output = bool> + Send,
    T: Fn(C, usize, u64) -> F + Clone + Send + 'static,
{
    let begin = Instant::now();
    let end = begin + round.time;
    let mut clients = JoinSet::new();
    for client in 0..round.clients {
        let call = call.clone();
        let connection = connections[client % connections.len()].clone();
        clients.spawn(async move {
            let (mut latencies, mut errors) = (Vec::new(), 0u64);
            for n in 0.. {
                let sent = Instant::now();
                if sent >= end {
                    break;
                }
                if call(connection.clone(), client, n).await {
                    latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                } else {
                    errors += 1;
                }
            }
            (latencies, errors)
        });
    }
    let (mut latencies_us, mut errors) = (Vec::new(), 0);
    while let Some(client) = clients.join_next().await {
        let (of_client, failed) = client?;
        latencies_us.extend(of_client);
        errors += failed;
    }
    latencies_us.sort_unstable();
    Ok(Found { done: latencies_us.len() as u64, errors, took: begin.elapsed(), latencies_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_round_counts_answers_and_errors_apart() {
        let round = Round { call: Call::Put, clients: 3, size: 1, time: Duration::from_millis(30) };
        let found = run(round, vec![()], |(), client, _| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            client != 2
        })
        .await
        .unwrap();
        assert!(found.done > 0 && found.errors > 0, "{found:?}");
        assert!(found.quantile_us(0.5) >= 1_000);
        assert!(found.quantile_us(0.99) >= found.quantile_us(0.5));
    }
}

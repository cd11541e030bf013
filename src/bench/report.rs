//! What was measured, as a table and as JSON. The median of the rounds is told.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::load::{Call, Found, Round};

/// Whose round it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Ours,
    Peer,
}

/// Everything that was found.
pub(super) struct Report {
    size: usize,
    with_peer: bool,
    found: BTreeMap<(Call, usize, Side), Vec<Found>>,
}

/// One line: the median round of one load.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    call: String,
    clients: usize,
    ops_s: f64,
    p50_us: u32,
    p99_us: u32,
    errors: u64,
    /// To the peer's, over the medians; above 1 is faster.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

impl Report {
    pub(super) fn new(size: usize, with_peer: bool) -> Self {
        Self { size, with_peer, found: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, side: Side, round: Round, found: Found) {
        self.found.entry((round.call, round.clients, side)).or_default().push(found);
    }

    fn row(&self, call: Call, clients: usize, side: Side) -> Option<Row> {
        let mut rounds: Vec<&Found> = self.found.get(&(call, clients, side))?.iter().collect();
        rounds.sort_by(|a, b| a.ops_s().total_cmp(&b.ops_s()));
        let median = rounds.get(rounds.len() / 2)?;
        Some(Row {
            call: call.to_string(),
            clients,
            ops_s: (median.ops_s() * 10.0).round() / 10.0,
            p50_us: median.quantile_us(0.5),
            p99_us: median.quantile_us(0.99),
            errors: rounds.iter().map(|round| round.errors).sum(),
            ratio: None,
        })
    }

    fn rows(&self, side: Side) -> Vec<Row> {
        let loads = self.found.keys().filter(|(_, _, of)| *of == side);
        loads.filter_map(|&(call, clients, side)| self.row(call, clients, side)).collect()
    }

    /// Ours, with the ratio to the peer's.
    fn ours(&self) -> Vec<Row> {
        let peers = self.rows(Side::Peer);
        let mut rows = self.rows(Side::Ours);
        for row in &mut rows {
            let peer = peers.iter().find(|peer| peer.call == row.call && peer.clients == row.clients);
            row.ratio = peer.map(|peer| (row.ops_s / peer.ops_s.max(f64::EPSILON) * 100.0).round() / 100.0);
        }
        rows
    }

    pub(super) fn text(&self) -> String {
        let mut text =
            format!("{} byte values, 3 nodes on loopback, every put durable on a majority\n", self.size);
        let heading = format!(
            "{:<10}{:<6}{:>8}{:>12}{:>10}{:>10}{:>8}{:>8}",
            "", "CALL", "CLIENTS", "OPS/S", "P50 ms", "P99 ms", "ERRORS", "RATIO"
        );
        let _ = writeln!(text, "{heading}");
        let sides = [("quorate", self.ours()), ("etcd", self.rows(Side::Peer))];
        for (name, rows) in sides {
            for row in rows {
                let ratio = row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
                let _ = writeln!(
                    text,
                    "{name:<10}{:<6}{:>8}{:>12.0}{:>10.2}{:>10.2}{:>8}{:>8}",
                    row.call,
                    row.clients,
                    row.ops_s,
                    f64::from(row.p50_us) / 1_000.0,
                    f64::from(row.p99_us) / 1_000.0,
                    row.errors,
                    ratio
                );
            }
        }
        text
    }
}

impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Peer {
            name: &'static str,
            rows: Vec<Row>,
        }
        #[derive(Serialize)]
        struct Whole {
            size: usize,
            rows: Vec<Row>,
            peer: Option<Peer>,
        }
        let peer = self.with_peer.then(|| Peer { name: "etcd", rows: self.rows(Side::Peer) });
        Whole { size: self.size, rows: self.ours(), peer }.serialize(serializer)
    }
}

//! The reachability matrix: what the rows of all nodes say of each pair on each segment. Only the cells that do
//! not work are kept, so that a quiet cluster costs nothing. Names no trouble yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{NodeId, Segment};
use crate::observation::Observed;
use crate::reach::{KnownRow, LinkReport};
use crate::state::State;
use crate::units::{BootMs, Millis};

/// A node by its place in the matrix.
pub(super) type At = usize;

/// What is known of a pair on one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pair {
    /// Probes come back.
    Joined,
    /// What the first sends reaches the second, and nothing comes back.
    OneWay(At, At),
    /// Nothing passes.
    Cut,
    /// Nobody who is heard knows.
    Unknown,
}

/// A cell that does not work, with how old its row is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bad<'a> {
    pub link: &'a LinkReport,
    age: Millis,
}

impl Bad<'_> {
    /// For how long it has not worked.
    pub fn since(&self) -> Millis {
        self.link.since + self.age
    }

    /// Did anything come in from there after probes stopped coming back?
    fn hears(&self, patience: Millis) -> bool {
        self.link.heard.is_some_and(|heard| heard < self.link.since && heard <= patience)
    }
}

/// The matrix of one observer at one moment.
pub(super) struct Matrix<'a> {
    pub nodes: Vec<&'a NodeId>,
    segments: Vec<BTreeSet<&'a Segment>>,
    rows: Vec<Option<&'a KnownRow>>,
    bad: BTreeMap<(At, At), Vec<Bad<'a>>>,
    patience: Millis,
    now: BootMs,
}

impl<'a> Matrix<'a> {
    /// Of the rows that are not older than `patience`.
    pub fn new(observed: &'a Observed, state: &'a State, patience: Millis) -> Self {
        let nodes: Vec<&NodeId> = state.nodes.keys().collect();
        let places: BTreeMap<&NodeId, At> = nodes.iter().enumerate().map(|(at, node)| (*node, at)).collect();
        let segments = state.nodes.values().map(|record| {
            record.facts.endpoints.iter().map(|endpoint| &endpoint.segment).collect::<BTreeSet<_>>()
        });
        let fresh = |row: &&KnownRow| observed.now.since(row.at) <= patience;
        let rows: Vec<Option<&KnownRow>> =
            nodes.iter().map(|node| observed.reach.rows.get(*node).filter(fresh)).collect();
        let mut bad: BTreeMap<(At, At), Vec<Bad<'_>>> = BTreeMap::new();
        for (from, row) in rows.iter().enumerate() {
            let Some(row) = row.filter(|row| !row.calm) else { continue };
            let age = observed.now.since(row.at);
            for link in row.row.links.iter().filter(|link| !link.ok) {
                if let Some(to) = places.get(&link.to) {
                    bad.entry((from, *to)).or_default().push(Bad { link, age });
                }
            }
        }
        Self { segments: segments.collect(), nodes, rows, bad, patience, now: observed.now }
    }

    /// The place of a node.
    pub fn place(&self, node: &NodeId) -> Option<At> {
        self.nodes.iter().position(|other| *other == node)
    }

    /// Is this node's own word known and recent?
    pub fn speaks(&self, node: At) -> bool {
        self.rows[node].is_some()
    }

    /// The recent row of a node.
    pub fn row(&self, node: At) -> Option<&'a KnownRow> {
        self.rows[node]
    }

    /// How old a recent row is.
    pub fn row_age(&self, node: At) -> Millis {
        self.rows[node].map_or(Millis(0), |row| self.now.since(row.at))
    }

    /// The segments that join two nodes by their addresses; where they share none, all of both.
    pub fn common(&self, a: At, b: At) -> Vec<&'a Segment> {
        let shared: Vec<&Segment> = self.segments[a].intersection(&self.segments[b]).copied().collect();
        if shared.is_empty() { self.segments[a].union(&self.segments[b]).copied().collect() } else { shared }
    }

    /// All segments.
    pub fn all_segments(&self) -> BTreeSet<&'a Segment> {
        self.segments.iter().flatten().copied().collect()
    }

    /// Has a node an address there?
    pub fn on(&self, node: At, segment: &Segment) -> bool {
        self.segments[node].contains(segment)
    }

    /// The cells of one node towards another that do not work.
    pub fn bad(&self, from: At, to: At) -> &[Bad<'a>] {
        self.bad.get(&(from, to)).map_or(&[], Vec::as_slice)
    }

    fn bad_on(&self, from: At, to: At, segment: &Segment) -> Option<&Bad<'a>> {
        self.bad(from, to).iter().find(|bad| &bad.link.segment == segment)
    }

    /// Pairs of which some cell does not work, each once, the smaller place first.
    pub fn broken(&self) -> BTreeSet<(At, At)> {
        self.bad.keys().map(|(from, to)| (*from.min(to), *from.max(to))).collect()
    }

    /// What both ends say of one segment between them.
    pub fn pair(&self, a: At, b: At, segment: &Segment) -> Pair {
        let (ab, ba) = (self.bad_on(a, b, segment), self.bad_on(b, a, segment));
        match (self.speaks(a), ab, self.speaks(b), ba) {
            (false, _, false, _) => Pair::Unknown,
            (_, None, _, None) => Pair::Joined,
            // One end may be a moment ahead of the other.
            (true, None, _, Some(bad)) | (_, Some(bad), true, None) if bad.since() < self.patience => {
                Pair::Joined
            }
            (true, None, _, Some(_)) => Pair::OneWay(a, b),
            (_, Some(_), true, None) => Pair::OneWay(b, a),
            (_, ab, _, ba) => {
                let hears = |bad: Option<&Bad<'_>>| bad.is_some_and(|bad| bad.hears(self.patience));
                match (hears(ab), hears(ba)) {
                    (true, false) => Pair::OneWay(b, a),
                    (false, true) => Pair::OneWay(a, b),
                    (true, true) | (false, false) => Pair::Cut,
                }
            }
        }
    }

    /// Does one hear the other, which it does not reach?
    pub fn hears(&self, one: At, other: At) -> bool {
        let heard = |segment: &Segment| self.pair(one, other, segment) == Pair::OneWay(other, one);
        !self.bad(one, other).is_empty() && self.common(one, other).into_iter().any(heard)
    }

    /// Do the two reach one another over any segment?
    pub fn joined(&self, a: At, b: At) -> bool {
        if self.bad(a, b).is_empty() && self.bad(b, a).is_empty() {
            return self.speaks(a) || self.speaks(b);
        }
        self.common(a, b).into_iter().any(|segment| self.pair(a, b, segment) == Pair::Joined)
    }

    /// Everybody whom one node reaches, itself included, by way of others too; only among `within`, over
    /// links of which `joined` holds.
    pub fn reached(&self, from: At, within: &BTreeSet<At>, joined: impl Fn(At, At) -> bool) -> BTreeSet<At> {
        let (mut found, mut left) = (BTreeSet::from([from]), within.clone());
        left.remove(&from);
        let mut edge = vec![from];
        while let Some(at) = edge.pop() {
            let next: Vec<At> = left.iter().copied().filter(|other| joined(at, *other)).collect();
            for other in next {
                left.remove(&other);
                found.insert(other);
                edge.push(other);
            }
        }
        found
    }

    /// For how long nothing has passed between two, by whoever says so latest.
    pub fn cut_since(&self, a: At, b: At) -> Millis {
        let of = |from, to| self.bad(from, to).iter().map(Bad::since).min();
        [of(a, b), of(b, a)].into_iter().flatten().max().unwrap_or_default()
    }

    /// The names of some places.
    pub fn names(&self, places: impl IntoIterator<Item = At>) -> Vec<NodeId> {
        places.into_iter().map(|at| self.nodes[at].clone()).collect()
    }
}

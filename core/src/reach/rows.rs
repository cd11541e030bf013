//! The newest row of every node, from wherever it came: with heartbeats, by the leader, by any neighbour.
//! A row that comes round again is known by its own clock, so that no echo keeps a dead node's word young.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use super::{KnownRow, Reach, Row};
use crate::ids::NodeId;
use crate::units::{BootMs, Millis};

/// The rows that one node knows.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    known: OrdMap<NodeId, KnownRow>,
    numbers: BTreeMap<NodeId, u64>,
    number: u64,
}

/// What one neighbour has been told already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told(u64);

impl Rows {
    /// Takes a row in if it is newer than what is known. `direct` says that its own node sent it; `patience`
    /// is how long a known row stands against one of another boot that somebody passed on.
    pub fn take(&mut self, row: Row, age: Millis, direct: bool, now: BootMs, patience: Millis) -> bool {
        let at = BootMs(now.0.saturating_sub(age.0));
        if let Some(known) = self.known.get(&row.from) {
            let newer = if known.row.boot == row.boot {
                row.made > known.row.made
            } else {
                direct || now.since(known.at) > patience && at > known.at
            };
            if !newer {
                return false;
            }
        }
        self.number += 1;
        self.numbers.insert(row.from.clone(), self.number);
        let known = KnownRow { at, calm: row.calm(), row: Arc::new(row) };
        self.known.insert(known.row.from.clone(), known);
        true
    }

    /// Rows that a neighbour has not been told, with their ages; its own it knows itself.
    pub fn news(&self, told: &mut Told, to: &NodeId, now: BootMs) -> Vec<(Arc<Row>, Millis)> {
        let since = std::mem::replace(told, Told(self.number)).0;
        let fresh = |node: &NodeId| self.numbers.get(node).is_some_and(|number| *number > since);
        let rows = self.known.iter().filter(|(node, _)| *node != to && fresh(node));
        rows.map(|(_, known)| (known.row.clone(), now.since(known.at))).collect()
    }

    /// How many nodes it knows a row of.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Does it know none?
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The row of a node.
    pub fn row(&self, node: &NodeId) -> Option<Arc<Row>> {
        self.known.get(node).map(|known| known.row.clone())
    }

    /// Only the rows of these nodes are kept.
    pub fn retain(&mut self, keep: impl Fn(&NodeId) -> bool) {
        let gone: Vec<NodeId> = self.known.keys().filter(|node| !keep(node)).cloned().collect();
        for node in gone {
            self.known.remove(&node);
            self.numbers.remove(&node);
        }
    }

    /// The value that judgements are made on.
    pub fn reach(&self, stall: Millis) -> Reach {
        Reach { rows: self.known.clone(), stall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BootId;

    fn row(from: &str, boot: &str, made: u64) -> Row {
        Row {
            from: NodeId::new(from).unwrap(),
            boot: BootId(boot.to_owned()),
            made: BootMs(made),
            links: Vec::new(),
            arbiters: Vec::new(),
            leader: None,
            term: 1,
            lease_left: Millis(0),
        }
    }

    const PATIENCE: Millis = Millis(2_500);

    #[test]
    fn an_echo_of_a_known_row_does_not_make_it_young_again() {
        let mut rows = Rows::default();
        assert!(rows.take(row("n2", "a", 100), Millis(5), true, BootMs(1_000), PATIENCE));
        assert!(!rows.take(row("n2", "a", 100), Millis(0), false, BootMs(9_000), PATIENCE));
        assert_eq!(rows.reach(Millis(0)).rows[&NodeId::new("n2").unwrap()].at, BootMs(995));
        assert!(rows.take(row("n2", "a", 101), Millis(0), false, BootMs(9_000), PATIENCE));
    }

    #[test]
    fn a_new_boot_counts_at_once_from_its_node_and_after_a_silence_from_others() {
        let mut rows = Rows::default();
        rows.take(row("n2", "old", 100), Millis(0), true, BootMs(1_000), PATIENCE);
        assert!(!rows.take(row("n2", "new", 1), Millis(0), false, BootMs(2_000), PATIENCE));
        assert!(rows.take(row("n2", "new", 1), Millis(0), true, BootMs(2_000), PATIENCE));
        assert!(!rows.take(row("n2", "old", 200), Millis(900), false, BootMs(2_100), PATIENCE));
        assert!(rows.take(row("n2", "newer", 1), Millis(10), false, BootMs(9_000), PATIENCE));
    }

    #[test]
    fn a_neighbour_is_told_each_row_once_and_never_its_own() {
        let mut rows = Rows::default();
        for name in ["n1", "n2", "n3"] {
            rows.take(row(name, "a", 1), Millis(0), true, BootMs(10), PATIENCE);
        }
        let (mut told, to) = (Told::default(), NodeId::new("n2").unwrap());
        let names = |news: Vec<(Arc<Row>, Millis)>| -> Vec<String> {
            news.iter().map(|(row, _)| row.from.to_string()).collect()
        };
        assert_eq!(names(rows.news(&mut told, &to, BootMs(10))), ["n1", "n3"]);
        assert!(rows.news(&mut told, &to, BootMs(10)).is_empty());
        rows.take(row("n3", "a", 2), Millis(0), true, BootMs(11), PATIENCE);
        assert_eq!(names(rows.news(&mut told, &to, BootMs(12))), ["n3"]);
        rows.retain(|node| node.as_str() != "n3");
        assert!(
            rows.news(&mut Told::default(), &to, BootMs(12)).iter().all(|(row, _)| row.from.as_str() == "n1")
        );
    }
}

//! The newest part of the log in memory: what the journal has and the tree does not have yet. Knows neither.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use bytes::Bytes;

use super::disk::{Change, Slot};

/// Changes in their order, and the records that they leave.
#[derive(Debug)]
struct Part {
    changes: Vec<Change>,
    /// The lowest index that was written or cut here: from it on, what is older does not count.
    floor: u64,
    records: BTreeMap<u64, Bytes>,
}

impl Part {
    fn new() -> Self {
        Self { changes: Vec::new(), floor: u64::MAX, records: BTreeMap::new() }
    }

    fn add(&mut self, change: &Change) {
        match change {
            Change::Put(index, record) => {
                self.floor = self.floor.min(*index);
                self.records.insert(*index, record.clone());
            }
            Change::Truncate(from) => {
                self.floor = self.floor.min(*from);
                self.records.split_off(from);
            }
            Change::Purge(upto) => self.records = self.records.split_off(&(upto + 1)),
            Change::Set(..) => {}
        }
        self.changes.push(change.clone());
    }
}

/// One part for each file of the journal: the last is being written, those before it are on their way to the tree.
#[derive(Debug)]
pub struct Tail(VecDeque<Part>);

impl Tail {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(VecDeque::from([Part::new()]))
    }

    /// Takes in what was just written.
    pub fn add(&mut self, changes: &[Change]) {
        let Some(last) = self.0.back_mut() else { return };
        changes.iter().for_each(|change| last.add(change));
    }

    /// Begins a new part; gives what the one before it has for the tree, or nothing if it is empty.
    pub fn turn(&mut self) -> Option<Vec<Change>> {
        let changes = self.0.back().map(|part| &part.changes).filter(|changes| !changes.is_empty())?;
        // Said anew with almost every entry: only the last counts.
        let committed = |change: &Change| matches!(change, Change::Set(Slot::Committed, _));
        let last = changes.iter().rposition(committed);
        let kept = changes.iter().enumerate().filter(|(at, change)| Some(*at) == last || !committed(change));
        let changes = kept.map(|(_, change)| change.clone()).collect();
        self.0.push_back(Part::new());
        Some(changes)
    }

    /// The oldest part is in the tree by now.
    pub fn moved(&mut self) {
        self.0.pop_front();
    }

    /// Parts that are not yet in the tree, beside the one being written.
    pub fn moving(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    /// The indices that only the tree has.
    pub fn below(&self) -> u64 {
        self.0.iter().map(|part| part.floor).min().unwrap_or(u64::MAX)
    }

    /// The records of these indices that are here, in order.
    pub fn records(&self, wanted: RangeInclusive<u64>) -> Vec<Bytes> {
        let mut found = Vec::new();
        let mut end = u64::MAX;
        // From the newest part to the oldest; each covers what no newer one does.
        for part in self.0.iter().rev() {
            let (first, last) = (*wanted.start().max(&part.floor), *wanted.end().min(&end.saturating_sub(1)));
            if first <= last {
                found.push(
                    part.records.range(first..=last).map(|(_, record)| record.clone()).collect::<Vec<_>>(),
                );
            }
            end = end.min(part.floor);
        }
        found.into_iter().rev().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: u64, text: &'static str) -> Change {
        Change::Put(index, Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn of_what_is_committed_only_the_last_word_goes_to_the_tree() {
        let mut tail = Tail::new();
        let set = |slot, text: &'static str| Change::Set(slot, Bytes::from_static(text.as_bytes()));
        let (vote, other) = (set(Slot::Vote, "v"), set(Slot::Vote, "w"));
        let committed = |text| set(Slot::Committed, text);
        tail.add(&[committed("1"), vote.clone(), put(2, "b"), committed("2"), other.clone(), put(3, "c")]);
        assert_eq!(tail.turn(), Some(vec![vote, put(2, "b"), committed("2"), other, put(3, "c")]));
    }

    #[test]
    fn the_newest_part_that_knows_of_an_index_decides() {
        let mut tail = Tail::new();
        assert_eq!(tail.below(), u64::MAX);
        tail.add(&[put(5, "a5"), put(6, "a6"), put(7, "a7")]);
        assert_eq!(tail.turn().map(|changes| changes.len()), Some(3));
        assert_eq!(tail.turn(), None);
        tail.add(&[Change::Truncate(6), put(6, "b6")]);
        assert_eq!((tail.below(), tail.moving()), (5, 1));
        assert_eq!(tail.records(0..=u64::MAX), ["a5", "b6"]);
        assert_eq!(tail.records(6..=9), ["b6"]);
        tail.moved();
        assert_eq!((tail.below(), tail.records(0..=9)), (6, vec![Bytes::from("b6")]));
        tail.add(&[put(7, "b7"), Change::Purge(6)]);
        assert_eq!(tail.records(0..=9), ["b7"]);
    }
}

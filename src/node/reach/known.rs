//! What this node knows of who reaches whom: its own ways, everybody's rows, and how late it runs itself.
//! Does no IO; holds plain values for those who do.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::ids::{BootId, NodeId, Segment};
use quorate_core::lease::LeaseTerms;
use quorate_core::reach::{LinkFault, LinkReport, Reach, Row, Rows, Told, Way};
use quorate_core::units::{BootMs, Millis};

/// In a larger cluster nodes tell one another of themselves only; the leader tells the rest.
const TELL_OF_ALL: usize = 16;

/// Everything known.
#[derive(Debug, Default)]
pub(in crate::node) struct Known {
    ways: BTreeMap<(NodeId, Segment), Way>,
    arbiters: BTreeMap<String, Way>,
    /// When the newest datagram over each way was sent, on its sender's clock.
    whispers: BTreeMap<(NodeId, Segment), (BootId, BootMs)>,
    rows: Rows,
    /// When this node's own row was last made, and what in it mattered.
    made: Option<(BootMs, Vec<bool>)>,
    /// How late its timers were, and when.
    late: Vec<(BootMs, Millis)>,
}

/// What a row says beside its links.
pub(super) struct About<'a> {
    pub from: &'a NodeId,
    pub boot: &'a BootId,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub lease_left: Millis,
}

/// What became of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing new.
    None,
    /// It works again.
    Mended,
    /// It works no more; does another way to the same node?
    Broke {
        /// Then what travels on this one is better off there.
        elsewhere: bool,
    },
}

impl Known {
    /// How many ways are probed.
    pub fn ways(&self) -> usize {
        self.ways.len()
    }

    fn way(&mut self, node: &NodeId, segment: &Segment, now: BootMs) -> &mut Way {
        self.ways.entry((node.clone(), segment.clone())).or_insert_with(|| Way::new(now))
    }

    /// A probe came back.
    pub(super) fn good(&mut self, node: &NodeId, segment: &Segment, now: BootMs, rtt_us: u32) -> Turn {
        if self.way(node, segment, now).good(now, rtt_us) { Turn::Mended } else { Turn::None }
    }

    /// A probe did not come back; one answered within `recent` counts as working.
    pub(super) fn missed(
        &mut self,
        node: &NodeId,
        segment: &Segment,
        now: BootMs,
        fault: LinkFault,
        recent: Millis,
    ) -> Turn {
        if !self.way(node, segment, now).missed(now, fault) {
            return Turn::None;
        }
        let others = self.ways.iter().filter(|((to, over), way)| to == node && over != segment && way.ok());
        let answered = |report: LinkReport| report.last_good.is_some_and(|age| age <= recent);
        let mut others = others.map(|((to, over), way)| way.report(to, over, now));
        Turn::Broke { elsewhere: others.any(answered) }
    }

    /// Something came in from a node over a segment.
    pub(super) fn heard(&mut self, node: &NodeId, segment: &Segment, now: BootMs) {
        // What is not probed is not judged: nothing is kept for it.
        if let Some(way) = self.ways.get_mut(&(node.clone(), segment.clone())) {
            way.heard(now);
        }
    }

    /// A datagram came in that needs no answer; one no newer than the last tells nothing.
    pub(super) fn whispered(
        &mut self,
        node: &NodeId,
        segment: &Segment,
        (boot, at): (BootId, BootMs),
        now: BootMs,
    ) {
        let key = (node.clone(), segment.clone());
        let newer = self.whispers.get(&key).is_none_or(|(before, last)| *before != boot || *last < at);
        if newer && self.ways.contains_key(&key) {
            self.whispers.insert(key, (boot, at));
            self.heard(node, segment, now);
        }
    }

    /// The usual round trip of a way.
    pub(super) fn rtt_us(&self, node: &NodeId, segment: &Segment) -> Option<u32> {
        self.ways.get(&(node.clone(), segment.clone())).and_then(Way::rtt_us)
    }

    /// A way is not probed any more.
    pub(super) fn forget(&mut self, node: &NodeId, segment: &Segment) {
        let key = (node.clone(), segment.clone());
        self.ways.remove(&key);
        self.whispers.remove(&key);
    }

    /// An arbiter was probed.
    pub(super) fn arbiter(&mut self, name: &str, now: BootMs, outcome: Result<u32, LinkFault>) {
        let way = self.arbiters.entry(name.to_owned()).or_insert_with(|| Way::new(now));
        match outcome {
            Ok(rtt_us) => drop(way.good(now, rtt_us)),
            Err(fault) => drop(way.missed(now, fault)),
        }
    }

    /// Takes in the rows that somebody tells.
    pub fn take(&mut self, from: &NodeId, rows: Vec<(Arc<Row>, Millis)>, now: BootMs, terms: LeaseTerms) {
        for (row, age) in rows {
            let direct = row.from == *from;
            self.rows.take(Arc::unwrap_or_clone(row), age, direct, now, terms.lease);
        }
    }

    /// What a neighbour has not been told: of everybody, or in a large cluster of this node only.
    pub(super) fn news(
        &self,
        told: &mut Told,
        me: &NodeId,
        to: &NodeId,
        now: BootMs,
    ) -> Vec<(Arc<Row>, Millis)> {
        let mut news = self.rows.news(told, to, now);
        if self.rows.len() > TELL_OF_ALL {
            news.retain(|(row, _)| row.from == *me);
        }
        news
    }

    /// What the leader passes on: of everybody.
    pub fn all_news(&self, told: &mut Told, to: &NodeId, now: BootMs) -> Vec<(Arc<Row>, Millis)> {
        self.rows.news(told, to, now)
    }

    /// This node's own row, if it is newer than `after`.
    pub fn own_row(&self, me: &NodeId, after: BootMs) -> Option<Arc<Row>> {
        self.rows.row(me).filter(|row| row.made > after)
    }

    /// Only these nodes are kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&NodeId) -> bool) {
        self.ways.retain(|(node, _), _| keep(node));
        self.rows.retain(keep);
    }

    /// How late a timer of this node was. What is usual on a busy host is no stall.
    pub(super) fn late(&mut self, late: Millis, now: BootMs, terms: LeaseTerms) {
        self.late.retain(|(at, _)| now.since(*at) <= terms.lease);
        if late.0 > terms.heartbeat.0 / 4 {
            self.late.push((now, late.min(terms.lease)));
        }
    }

    /// Makes this node's own row anew if something in it turned or it is a heartbeat old. True if something
    /// turned.
    pub(super) fn make_row(&mut self, about: About<'_>, now: BootMs, terms: LeaseTerms) -> bool {
        let tried = self.ways.iter().filter(|(_, way)| way.tried());
        let pattern: Vec<bool> = tried.clone().map(|(_, way)| way.ok()).collect();
        let turned = self.made.as_ref().is_none_or(|(_, before)| *before != pattern);
        let old = self.made.as_ref().is_none_or(|(at, _)| now.since(*at) >= terms.heartbeat);
        if !turned && !old {
            return false;
        }
        let row = Row {
            from: about.from.clone(),
            boot: about.boot.clone(),
            made: now,
            links: tried.map(|((to, segment), way)| way.report(to, segment, now)).collect(),
            arbiters: self.arbiters.iter().map(|(name, way)| way.arbiter(name, now)).collect(),
            leader: about.leader,
            term: about.term,
            lease_left: about.lease_left,
        };
        self.rows.take(row, Millis(0), true, now, terms.lease);
        self.made = Some((now, pattern));
        turned
    }

    /// The value that judgements are made on.
    pub fn reach(&self) -> Reach {
        let stall = self.late.iter().map(|(_, late)| *late).max().unwrap_or_default();
        self.rows.reach(stall)
    }
}

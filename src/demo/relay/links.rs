//! What is wrong with which way between two nodes: cut, late, lossy; by direction and by segment. Does not
//! know how bytes are carried.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// One direction between two nodes on one segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Way {
    /// Who sends.
    pub from: String,
    /// Who should receive it.
    pub to: String,
    /// Over which network.
    pub segment: String,
}

/// What happens to whatever is sent one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fault {
    /// Nothing arrives.
    pub cut: bool,
    /// Everything arrives so much later.
    pub delay_ms: u32,
    /// And by up to so much more or less.
    pub jitter_ms: u32,
    /// How much of it has to be sent again.
    pub loss_percent: u8,
}

/// Which ways are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, Args)]
pub struct Scope {
    /// The nodes on one side
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
    /// The nodes on the other side [default: all that are not named]
    #[arg(long, value_name = "NODE", num_args = 1.., value_delimiter = ',')]
    #[serde(default)]
    pub from: Vec<String>,
    /// Only what NODE sends; what it is sent still arrives
    #[arg(long)]
    #[serde(default)]
    pub one_way: bool,
    /// Only on this network of the demo
    #[arg(long, value_name = "SEGMENT")]
    #[serde(default)]
    pub segment: Option<String>,
}

/// Why a scope means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::demo) enum NoSuchWay {
    /// A name of no node.
    #[error("the demo has no node {0}")]
    Node(String),
    /// A name of no network.
    #[error("the demo has no segment {0}")]
    Segment(String),
    /// Nothing lies between.
    #[error("there is no way between these nodes")]
    Nothing,
}

/// All ways of a demo and what is wrong with them.
#[derive(Debug)]
pub(in crate::demo) struct Links {
    nodes: Vec<String>,
    segments: Vec<String>,
    ways: BTreeMap<Way, watch::Sender<Fault>>,
}

impl Links {
    /// Between all these nodes on all these networks; nothing is wrong.
    pub(in crate::demo) fn new(nodes: &[String], segments: &[&str]) -> Self {
        let segments: Vec<String> = segments.iter().map(|&segment| segment.to_owned()).collect();
        let mut ways = BTreeMap::new();
        for (from, to) in pairs(nodes, nodes) {
            for segment in &segments {
                let way = Way { from: from.clone(), to: to.clone(), segment: segment.clone() };
                ways.insert(way, watch::Sender::default());
            }
        }
        Self { nodes: nodes.to_vec(), segments, ways }
    }

    /// Tells what becomes of one way.
    pub(super) fn watch(&self, way: &Way) -> Option<watch::Receiver<Fault>> {
        self.ways.get(way).map(watch::Sender::subscribe)
    }

    /// The networks.
    pub(in crate::demo) fn segments(&self) -> &[String] {
        &self.segments
    }

    /// Every way with something wrong.
    pub(in crate::demo) fn faults(&self) -> Vec<(Way, Fault)> {
        let all = self.ways.iter().map(|(way, fault)| (way.clone(), *fault.borrow()));
        all.filter(|(_, fault)| *fault != Fault::default()).collect()
    }

    /// Changes what is wrong within a scope.
    pub(in crate::demo) fn change(
        &self,
        scope: &Scope,
        change: impl Fn(&mut Fault),
    ) -> Result<(), NoSuchWay> {
        for way in self.within(scope)? {
            if let Some(fault) = self.ways.get(&way) {
                fault.send_if_modified(|fault| {
                    let before = *fault;
                    change(fault);
                    *fault != before
                });
            }
        }
        Ok(())
    }

    fn within(&self, scope: &Scope) -> Result<BTreeSet<Way>, NoSuchWay> {
        let mut named = scope.nodes.iter().chain(&scope.from);
        if let Some(unknown) = named.find(|node| !self.nodes.contains(node)) {
            return Err(NoSuchWay::Node(unknown.clone()));
        }
        if let Some(unknown) = scope.segment.as_ref().filter(|segment| !self.segments.contains(segment)) {
            return Err(NoSuchWay::Segment(unknown.clone()));
        }
        let mut others: Vec<String> =
            self.nodes.iter().filter(|node| !scope.nodes.contains(node)).cloned().collect();
        if !scope.from.is_empty() {
            others.clone_from(&scope.from);
        } else if others.is_empty() {
            // All of them are named: each is cut from each.
            others.clone_from(&self.nodes);
        }
        let mut found = BTreeSet::new();
        for (one, other) in pairs(&scope.nodes, &others) {
            let segments =
                self.segments.iter().filter(|s| scope.segment.as_ref().is_none_or(|only| only == *s));
            for segment in segments {
                let way = |from: &String, to: &String| Way {
                    from: from.clone(),
                    to: to.clone(),
                    segment: segment.clone(),
                };
                found.insert(way(one, other));
                if !scope.one_way {
                    found.insert(way(other, one));
                }
            }
        }
        if found.is_empty() { Err(NoSuchWay::Nothing) } else { Ok(found) }
    }
}

fn pairs<'a>(ones: &'a [String], others: &'a [String]) -> impl Iterator<Item = (&'a String, &'a String)> {
    ones.iter().flat_map(move |one| others.iter().filter(move |other| *other != one).map(move |o| (one, o)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(count: usize) -> Links {
        let nodes: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
        Links::new(&nodes, &["a", "b"])
    }

    fn scope(nodes: &[&str], from: &[&str], one_way: bool, segment: Option<&str>) -> Scope {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Scope { nodes: owned(nodes), from: owned(from), one_way, segment: segment.map(str::to_owned) }
    }

    fn cut(links: &Links, scope: &Scope) -> Vec<String> {
        links.change(scope, |fault| fault.cut = true).unwrap();
        let words = |(way, _): (Way, Fault)| format!("{}>{}/{}", way.from, way.to, way.segment);
        links.faults().into_iter().map(words).collect()
    }

    #[test]
    fn a_cut_is_from_all_others_both_ways_on_all_segments_unless_it_says_less() {
        assert_eq!(
            cut(&links(3), &scope(&["n1"], &[], false, Some("a"))),
            ["n1>n2/a", "n1>n3/a", "n2>n1/a", "n3>n1/a"]
        );
        assert_eq!(cut(&links(3), &scope(&["n1"], &["n2"], false, None)).len(), 4);
        assert_eq!(cut(&links(3), &scope(&["n1"], &["n2"], true, None)), ["n1>n2/a", "n1>n2/b"]);
        assert_eq!(cut(&links(5), &scope(&["n4", "n5"], &[], false, None)).len(), 2 * 3 * 2 * 2);
        assert_eq!(cut(&links(3), &scope(&["n1", "n2", "n3"], &[], false, Some("b"))).len(), 6);
    }

    #[test]
    fn nodes_cut_off_together_still_reach_each_other() {
        let ways = cut(&links(5), &scope(&["n4", "n5"], &[], false, None));
        assert!(!ways.iter().any(|way| way.starts_with("n4>n5") || way.starts_with("n5>n4")), "{ways:?}");
    }

    #[test]
    fn what_a_change_leaves_alone_stays_and_a_heal_ends_everything() {
        let links = links(3);
        let all = scope(&["n1", "n2", "n3"], &[], false, None);
        links.change(&all, |fault| fault.delay_ms = 20).unwrap();
        links.change(&scope(&["n1"], &[], false, None), |fault| fault.cut = true).unwrap();
        assert!(links.faults().iter().all(|(_, fault)| fault.delay_ms == 20));
        links.change(&all, |fault| *fault = Fault::default()).unwrap();
        assert_eq!(links.faults(), []);
    }

    #[test]
    fn a_scope_that_means_nothing_says_why() {
        let links = links(3);
        let error = |scope: Scope| links.change(&scope, |_| {}).unwrap_err();
        assert_eq!(error(scope(&["n9"], &[], false, None)), NoSuchWay::Node("n9".to_owned()));
        assert_eq!(error(scope(&["n1"], &[], false, Some("c"))), NoSuchWay::Segment("c".to_owned()));
        assert_eq!(error(scope(&["n1"], &["n1"], false, None)), NoSuchWay::Nothing);
        assert_eq!(self::links(1).change(&scope(&["n1"], &[], false, None), |_| {}), Err(NoSuchWay::Nothing));
    }
}

//! What a detector makes of the matrix: the kinds of trouble with their names, and the sides of a split. Plain
//! words for screens and scripts; nothing is decided by them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, Segment};
use crate::units::Millis;

/// Kinds of trouble, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkVerdictKind {
    /// The observer reaches nobody: it suspects itself first.
    SelfIsolated,
    /// Two sides, and nothing passes between them.
    CleanPartition,
    /// Some reach one another only by way of others.
    PartialPartition,
    /// Nobody reaches the node, or it is committed lost.
    NodeDown,
    /// A detector doubts it.
    NodeSuspect,
    /// One network does not join all whom it should; others do.
    SegmentDown,
    /// One of two hears the other, who does not hear it.
    OneWayLink,
    /// Nothing passes between two on one network that joins both to others.
    LinkDown,
    /// It breaks and mends again and again.
    Flapping,
}

impl LinkVerdictKind {
    /// All of them, the worst first.
    pub const ALL: [LinkVerdictKind; 9] = [
        LinkVerdictKind::SelfIsolated,
        LinkVerdictKind::CleanPartition,
        LinkVerdictKind::PartialPartition,
        LinkVerdictKind::NodeDown,
        LinkVerdictKind::NodeSuspect,
        LinkVerdictKind::SegmentDown,
        LinkVerdictKind::OneWayLink,
        LinkVerdictKind::LinkDown,
        LinkVerdictKind::Flapping,
    ];

    /// Its name in output.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkVerdictKind::SelfIsolated => "self_isolated",
            LinkVerdictKind::CleanPartition => "clean_partition",
            LinkVerdictKind::PartialPartition => "partial_partition",
            LinkVerdictKind::NodeDown => "node_down",
            LinkVerdictKind::NodeSuspect => "node_suspect",
            LinkVerdictKind::SegmentDown => "segment_down",
            LinkVerdictKind::OneWayLink => "one_way_link",
            LinkVerdictKind::LinkDown => "link_down",
            LinkVerdictKind::Flapping => "flapping",
        }
    }
}

impl fmt::Display for LinkVerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One judgement, with what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkVerdict {
    /// Which kind.
    pub kind: LinkVerdictKind,
    /// Which network, if it is about one.
    pub segment: Option<Segment>,
    /// Who is on which side of it.
    pub sides: Vec<Vec<NodeId>>,
    /// What it rests on, in sentences.
    pub evidence: Vec<String>,
    /// Whose own probes say so.
    pub accusers: Vec<NodeId>,
    /// For how long.
    pub since: Millis,
}

/// A part of the cluster whose nodes reach one another, as one observer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Who is there.
    pub nodes: Vec<NodeId>,
    /// How many of them vote.
    pub voters: u32,
    /// Are these a majority of all voters?
    pub majority: bool,
    /// Is the observer there?
    pub mine: bool,
    /// Does anyone whom the observer reaches see it, or is it only inferred that these are together?
    pub observed: bool,
}

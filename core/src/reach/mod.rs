//! Who reaches whom, as plain facts: one way to another node, one node's row of the reachability matrix, and
//! the rows that a node knows. Judges nobody, and does not know how a probe is made.

mod rows;
mod verdict;
mod way;

use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::ids::{BootId, NodeId, Segment};
use crate::units::{BootMs, Millis};

pub use rows::{Rows, Told};
pub use verdict::{LinkVerdict, LinkVerdictKind, Side};
pub use way::{LOST_IN_A_ROW, Way};

/// One cell of the reachability matrix, as the reporting node sees it. Ages count from when its row was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// To whom.
    pub to: NodeId,
    /// Over which segment.
    pub segment: Segment,
    /// Do probes come back? Two in a row that do not make it false.
    pub ok: bool,
    /// Why the last probe did not come back, if it did not.
    pub fault: Option<LinkFault>,
    /// The last round trip, in microseconds.
    pub rtt_us: Option<u32>,
    /// Probes lost of the last hundred.
    pub loss_percent: u8,
    /// Probes lost in a row.
    pub misses: u32,
    /// How long ago a probe last came back.
    pub last_good: Option<Millis>,
    /// How long ago anything of that node came in over that segment, a probe of its own included.
    pub heard: Option<Millis>,
    /// For how long it has been as it is.
    pub since: Millis,
    /// How long ago it changed, newest first, a few.
    pub changes: Vec<Millis>,
}

/// Why a probe did not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkFault {
    /// Nothing came back.
    Silent,
    /// The host said that nobody listens there.
    Refused,
    /// The way there said that there is no way.
    NoRoute,
    /// Somebody else answered, or the secret is wrong.
    Denied,
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LinkFault::Silent => "silent",
            LinkFault::Refused => "refused",
            LinkFault::NoRoute => "no route",
            LinkFault::Denied => "denied",
        })
    }
}

/// Something that is no node but should always answer, such as a gateway: it tells a node that is cut off
/// from one whose peers are gone. It never votes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArbiterReport {
    /// Its name.
    pub name: String,
    /// Does it answer?
    pub ok: bool,
    /// The last round trip, in microseconds.
    pub rtt_us: Option<u32>,
    /// Probes lost of the last hundred.
    pub loss_percent: u8,
    /// Probes lost in a row.
    pub misses: u32,
    /// How long ago it last answered.
    pub last_good: Option<Millis>,
    /// For how long it has been as it is.
    pub since: Millis,
}

/// One node's row of the reachability matrix, with where it stands in Raft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Whose.
    pub from: NodeId,
    /// In which boot of its host.
    pub boot: BootId,
    /// When it was made, on its node's clock: of two in one boot the later one holds.
    pub made: BootMs,
    /// To every other node, on every segment.
    pub links: Vec<LinkReport>,
    /// To every arbiter.
    pub arbiters: Vec<ArbiterReport>,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    /// Raft's term there.
    pub term: u64,
    /// What is left of its lease.
    pub lease_left: Millis,
}

impl Row {
    /// Is there nothing in it to judge: everything works, and did for a while?
    pub fn calm(&self) -> bool {
        self.links.iter().all(|link| link.ok && link.changes.is_empty())
    }
}

/// A row with its age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRow {
    /// When it was made, at the latest, on the observer's clock.
    pub at: BootMs,
    /// Nothing in it to judge?
    pub calm: bool,
    /// What it says.
    pub row: Arc<Row>,
}

/// What one node knows of who reaches whom.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reach {
    /// The newest row of every node, its own included.
    pub rows: OrdMap<NodeId, KnownRow>,
    /// By how much the observer's own timers were late of late: it grants others so much more time.
    pub stall: Millis,
}

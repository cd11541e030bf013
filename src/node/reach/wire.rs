//! What travels with probes.

use std::sync::Arc;

use quorate_core::ids::{ClusterId, NodeId, RaftId, Segment};
use quorate_core::reach::Row;
use quorate_core::units::Millis;
use serde::{Deserialize, Serialize};

/// From the one who probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ping {
    /// First: who probes whom, over which segment.
    Hello {
        /// Its cluster.
        cluster: ClusterId,
        /// Its name.
        from: NodeId,
        /// Its number.
        raft_id: RaftId,
        /// Whom it means.
        to: RaftId,
        /// The segment of the address that it dialled.
        segment: Segment,
    },
    /// Then, again and again.
    Ping {
        /// Rises by one.
        number: u64,
        /// Rows that the other has not been told, with their ages.
        rows: Vec<(Arc<Row>, Millis)>,
    },
}

/// From the one who is probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Pong {
    /// To the ping of that number.
    Pong {
        /// Which.
        number: u64,
        /// Rows that the other has not been told, with their ages.
        rows: Vec<(Arc<Row>, Millis)>,
    },
    /// It is somebody else; the stream ends.
    Refused(String),
}

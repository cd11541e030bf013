//! The few turns of phrase that evidence is told in.

use super::matrix::{At, Matrix};
use crate::ids::NodeId;
use crate::units::Millis;

/// Pairs that are named one by one; more are counted.
const NAMED: usize = 3;

/// A length of time with one decimal.
pub(super) fn since(length: Millis) -> String {
    format!("{}.{} s", length.0 / 1_000, length.0 % 1_000 / 100)
}

/// `n1`, `n1 and n2`, `n1 n2 n3`.
pub(super) fn group(nodes: &[NodeId]) -> String {
    match nodes {
        [one, other] => format!("{one} and {other}"),
        nodes => nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" "),
    }
}

/// The link between two.
pub(super) fn them(one: &NodeId, other: &NodeId) -> String {
    format!("{one} and {other}")
}

/// Pairs, the first few by name.
pub(super) fn pairs(matrix: &Matrix<'_>, pairs: &[(At, At)]) -> String {
    let named = pairs.iter().take(NAMED).map(|(a, b)| them(matrix.nodes[*a], matrix.nodes[*b]));
    let named = named.collect::<Vec<_>>().join(", ");
    match pairs.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more pairs"),
    }
}

//! From the matrix to named trouble on the links among those whom the observer reaches: a network that does not
//! join everybody, single links, links that work one way, and those that cannot make up their mind.

use std::collections::{BTreeMap, BTreeSet};

use super::matrix::{At, Matrix, Pair};
use super::words::{group, pairs, since, them};
use crate::ids::{NodeId, Segment};
use crate::reach::{LinkVerdict, LinkVerdictKind};
use crate::units::Millis;

/// Changes within the remembered minute that make a link flap.
const FLAPS: usize = 4;

/// Verdicts on the links among `mine`, and between them and whoever else is heard.
pub(super) fn judge(matrix: &Matrix<'_>, mine: &BTreeSet<At>) -> Vec<LinkVerdict> {
    let mut found = Vec::new();
    found.extend(partial(matrix, mine));
    let mut split = BTreeMap::new();
    for segment in matrix.all_segments() {
        let parts = parts(matrix, mine, segment);
        found.extend(segment_down(matrix, segment, &parts));
        split.insert(segment, parts);
    }
    found.extend(single(matrix, mine, &split));
    found.extend(flapping(matrix));
    found
}

/// Some reach one another only by way of others.
fn partial(matrix: &Matrix<'_>, mine: &BTreeSet<At>) -> Option<LinkVerdict> {
    let apart: Vec<(At, At)> = matrix
        .broken()
        .into_iter()
        .filter(|(a, b)| mine.contains(a) && mine.contains(b) && !matrix.joined(*a, *b))
        .collect();
    if apart.is_empty() {
        return None;
    }
    let sides = two_sides(&apart);
    let torn: BTreeSet<At> = apart.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let bridges: Vec<NodeId> = matrix.names(mine.iter().copied().filter(|at| !torn.contains(at)));
    let lasted = apart.iter().map(|(a, b)| matrix.cut_since(*a, *b)).max().unwrap_or_default();
    let mut evidence =
        vec![format!("nothing passes between {} for {}", pairs(matrix, &apart), since(lasted))];
    evidence.push(match bridges.as_slice() {
        [] => "each of them is reached by way of others".to_owned(),
        some => format!("{} reach{} both sides", group(some), if some.len() == 1 { "es" } else { "" }),
    });
    let accusers = accusers(matrix, apart.iter().copied());
    Some(LinkVerdict {
        kind: LinkVerdictKind::PartialPartition,
        segment: None,
        sides: sides.into_iter().map(|side| matrix.names(side)).collect(),
        evidence,
        accusers,
        since: lasted,
    })
}

/// Those who do not reach one another, put on two sides as well as it can be done.
fn two_sides(apart: &[(At, At)]) -> [BTreeSet<At>; 2] {
    let mut sides = [BTreeSet::new(), BTreeSet::new()];
    for (a, b) in apart {
        let (one, other) = if sides[1].contains(a) || sides[0].contains(b) { (b, a) } else { (a, b) };
        for (side, node) in [(0, one), (1, other)] {
            if !sides[1 - side].contains(node) {
                sides[side].insert(*node);
            }
        }
    }
    sides
}

/// The parts into which one segment falls among those who have an address there.
fn parts(matrix: &Matrix<'_>, mine: &BTreeSet<At>, segment: &Segment) -> Vec<BTreeSet<At>> {
    let mut left: BTreeSet<At> = mine.iter().copied().filter(|at| matrix.on(*at, segment)).collect();
    let whole = |a, b| {
        matrix.pair(a, b, segment) != Pair::Cut && !matches!(matrix.pair(a, b, segment), Pair::OneWay(..))
    };
    let mut parts = Vec::new();
    while let Some(first) = left.first().copied() {
        let part = matrix.reached(first, &left, whole);
        left.retain(|at| !part.contains(at));
        parts.push(part);
    }
    parts.sort_by_key(|part: &BTreeSet<At>| (std::cmp::Reverse(part.len()), part.first().copied()));
    parts
}

fn segment_down(matrix: &Matrix<'_>, segment: &Segment, parts: &[BTreeSet<At>]) -> Option<LinkVerdict> {
    let across = |(a, b): &(At, At)| {
        let part = |at: &At| parts.iter().position(|part| part.contains(at));
        matches!((part(a), part(b)), (Some(one), Some(other)) if one != other)
    };
    let torn: Vec<(At, At)> = matrix.broken().into_iter().filter(across).collect();
    let elsewhere = torn.iter().any(|(a, b)| matrix.joined(*a, *b));
    if parts.len() < 2 || !elsewhere {
        return None;
    }
    let lasted = torn.iter().map(|(a, b)| cut_on(matrix, *a, *b, segment)).min().unwrap_or_default();
    let others: Vec<&str> =
        matrix.all_segments().into_iter().filter(|other| *other != segment).map(Segment::as_str).collect();
    let names: Vec<Vec<NodeId>> = parts.iter().map(|part| matrix.names(part.iter().copied())).collect();
    let alone = parts.iter().all(|part| part.len() == 1);
    let what = if alone {
        format!("{segment} joins nobody for {}", since(lasted))
    } else {
        let groups: Vec<String> = names.iter().map(|names| group(names)).collect();
        format!("{segment} does not join {} for {}", groups.join(" and "), since(lasted))
    };
    let evidence = vec![
        what,
        format!("all reach one another over {}: a degraded path, nothing moves", others.join(", ")),
    ];
    let accusers = accusers(matrix, torn);
    let kind = LinkVerdictKind::SegmentDown;
    Some(LinkVerdict {
        kind,
        segment: Some(segment.clone()),
        sides: names,
        evidence,
        accusers,
        since: lasted,
    })
}

fn cut_on(matrix: &Matrix<'_>, a: At, b: At, segment: &Segment) -> Millis {
    let of = |from, to| {
        matrix.bad(from, to).iter().filter(|bad| &bad.link.segment == segment).map(|bad| bad.since()).max()
    };
    of(a, b).max(of(b, a)).unwrap_or_default()
}

/// Single links: those that work one way only, and those that are down although their segment is not.
fn single(
    matrix: &Matrix<'_>,
    mine: &BTreeSet<At>,
    split: &BTreeMap<&Segment, Vec<BTreeSet<At>>>,
) -> Vec<LinkVerdict> {
    let mut deaf: BTreeMap<(&Segment, At), Vec<At>> = BTreeMap::new();
    let mut down: Vec<(At, At, &Segment)> = Vec::new();
    for (a, b) in matrix.broken() {
        let both_mine = mine.contains(&a) && mine.contains(&b);
        for segment in matrix.common(a, b) {
            match matrix.pair(a, b, segment) {
                Pair::OneWay(from, to) => deaf.entry((segment, from)).or_default().push(to),
                Pair::Cut if both_mine && together(split, segment, a, b) && matrix.joined(a, b) => {
                    down.push((a, b, segment));
                }
                Pair::Cut | Pair::Joined | Pair::Unknown => {}
            }
        }
    }
    let one_way = deaf.into_iter().map(|((segment, from), to)| {
        let lasted = to.iter().map(|to| cut_on(matrix, from, *to, segment)).max().unwrap_or_default();
        let (speaker, hearers) = (matrix.nodes[from].clone(), matrix.names(to.iter().copied()));
        LinkVerdict {
            kind: LinkVerdictKind::OneWayLink,
            segment: Some(segment.clone()),
            evidence: vec![format!(
                "over {segment} {} hear{} {speaker}, which hears no answer, for {}",
                group(&hearers),
                if hearers.len() == 1 { "s" } else { "" },
                since(lasted)
            )],
            accusers: accusers(matrix, to.iter().map(|to| (from, *to))),
            sides: vec![vec![speaker], hearers],
            since: lasted,
        }
    });
    let down = down.into_iter().map(|(a, b, segment)| {
        let lasted = cut_on(matrix, a, b, segment);
        let over = |other: &&Segment| *other != segment && matrix.pair(a, b, other) == Pair::Joined;
        let others: Vec<&str> = matrix.common(a, b).into_iter().filter(over).map(Segment::as_str).collect();
        let (one, other) = (matrix.nodes[a], matrix.nodes[b]);
        LinkVerdict {
            kind: LinkVerdictKind::LinkDown,
            segment: Some(segment.clone()),
            sides: vec![vec![one.clone()], vec![other.clone()]],
            evidence: vec![
                format!("nothing passes between {one} and {other} over {segment} for {}", since(lasted)),
                format!("they reach one another over {}", others.join(", ")),
            ],
            accusers: accusers(matrix, [(a, b)]),
            since: lasted,
        }
    });
    one_way.chain(down).collect()
}

fn together(split: &BTreeMap<&Segment, Vec<BTreeSet<At>>>, segment: &Segment, a: At, b: At) -> bool {
    split.get(segment).is_some_and(|parts| parts.iter().any(|part| part.contains(&a) && part.contains(&b)))
}

/// Those of the two ends whose own probes do not come back.
fn accusers(matrix: &Matrix<'_>, between: impl IntoIterator<Item = (At, At)>) -> Vec<NodeId> {
    let says = |(a, b): (At, At)| {
        [(a, b), (b, a)]
            .into_iter()
            .filter(|(from, to)| !matrix.bad(*from, *to).is_empty())
            .map(|(from, _)| from)
    };
    let found: BTreeSet<At> = between.into_iter().flat_map(says).collect();
    matrix.names(found)
}

/// What both ends say of a link that changes often.
#[derive(Default)]
struct Flaps {
    changes: usize,
    within: Millis,
    by: BTreeSet<At>,
}

fn flapping(matrix: &Matrix<'_>) -> Vec<LinkVerdict> {
    let mut found: BTreeMap<(At, At, &Segment), Flaps> = BTreeMap::new();
    for from in 0..matrix.nodes.len() {
        let Some(row) = matrix.row(from).filter(|row| !row.calm) else { continue };
        for link in row.row.links.iter().filter(|link| link.changes.len() >= FLAPS) {
            let Some(to) = matrix.place(&link.to) else { continue };
            let flaps = found.entry((from.min(to), from.max(to), &link.segment)).or_default();
            let oldest = link.changes.last().copied().unwrap_or_default() + matrix.row_age(from);
            flaps.changes = flaps.changes.max(link.changes.len());
            flaps.within = flaps.within.max(oldest);
            flaps.by.insert(from);
        }
    }
    let verdict = |((a, b, segment), flaps): (_, Flaps)| {
        let (one, other): (&NodeId, &NodeId) = (matrix.nodes[a], matrix.nodes[b]);
        let (Flaps { changes, within, by }, segment): (_, &Segment) = (flaps, segment);
        LinkVerdict {
            kind: LinkVerdictKind::Flapping,
            segment: Some(segment.clone()),
            evidence: vec![format!(
                "{} over {segment} changed {changes} times within {}",
                them(one, other),
                since(within)
            )],
            sides: vec![vec![one.clone()], vec![other.clone()]],
            accusers: matrix.names(by),
            since: within,
        }
    };
    found.into_iter().map(verdict).collect()
}

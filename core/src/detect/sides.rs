//! Who is with whom: the observer's own side by what its rows show, and what is to be thought of everybody
//! else. A node that hears nobody suspects itself first.

use std::collections::BTreeSet;

use super::matrix::{At, Matrix};
use super::words::{group, since};
use crate::ids::NodeId;
use crate::observation::{NodeVerdict, Observed};
use crate::reach::{LinkFault, LinkVerdict, LinkVerdictKind, Side};
use crate::state::{NodeRecord, State};
use crate::units::Millis;

/// Those who fell silent within this time of one another fell silent together.
const TOGETHER: Millis = Millis(2_000);

/// What the observer makes of those whom nobody on its side reaches.
#[derive(Default)]
pub(super) struct Split {
    /// Whom it reaches, itself included.
    pub mine: BTreeSet<At>,
    /// Groups that fell silent together, each of two or more, or all others of a lonely observer.
    pub others: Vec<BTreeSet<At>>,
    /// Nodes that nobody reaches, each by itself.
    pub down: Vec<At>,
    /// Nodes that are heard and not reached: they run, but nothing arrives there.
    pub deaf: Vec<At>,
    /// Does the observer suspect itself?
    pub doubt: bool,
}

/// Sorts everybody.
pub(super) fn split(matrix: &Matrix<'_>, observed: &Observed, state: &State) -> Option<Split> {
    let me = matrix.place(&observed.me)?;
    matrix.row(me)?;
    let all: BTreeSet<At> = (0..matrix.nodes.len()).collect();
    let mine = matrix.reached(me, &all, |a, b| matrix.joined(a, b));
    let gone: BTreeSet<At> = all.difference(&mine).copied().collect();
    if gone.is_empty() {
        return Some(Split { mine, ..Split::default() });
    }
    let answered = matrix.row(me).is_some_and(|row| row.row.arbiters.iter().any(|arbiter| arbiter.ok));
    let turned_away = gone.iter().any(|at| refused(matrix, &mine, *at));
    if mine.len() == 1 && !turned_away && !answered {
        return Some(Split { mine, others: vec![gone], doubt: true, ..Split::default() });
    }
    let (mut down, mut silent, mut deaf) = (Vec::new(), Vec::new(), Vec::new());
    for at in gone {
        let proven = state.nodes.get(matrix.nodes[at]).and_then(NodeRecord::proof).is_some();
        if proven || refused(matrix, &mine, at) {
            down.push(at);
        } else if mine.iter().any(|to| matrix.hears(*to, at)) {
            deaf.push(at);
        } else {
            silent.push(at);
        }
    }
    silent.sort_by_key(|at| (silence(matrix, &mine, *at), *at));
    let mut groups: Vec<BTreeSet<At>> = Vec::new();
    let mut last = None;
    for at in silent {
        let lasted = silence(matrix, &mine, at);
        match groups.last_mut() {
            Some(group) if last.is_some_and(|last| lasted - last <= TOGETHER) => drop(group.insert(at)),
            Some(_) | None => groups.push(BTreeSet::from([at])),
        }
        last = Some(lasted);
    }
    let (others, single): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.len() > 1);
    down.extend(single.into_iter().flatten());
    down.sort_unstable();
    Some(Split { mine, others, down, deaf, doubt: false })
}

/// Does the host say itself that nothing listens there? Then it is not cut off.
fn refused(matrix: &Matrix<'_>, mine: &BTreeSet<At>, at: At) -> bool {
    let says = |from: &At| matrix.bad(*from, at).iter().any(|bad| bad.link.fault == Some(LinkFault::Refused));
    mine.iter().any(says)
}

/// For how long nobody on this side reaches a node.
fn silence(matrix: &Matrix<'_>, mine: &BTreeSet<At>, at: At) -> Millis {
    mine.iter()
        .map(|from| matrix.cut_since(*from, at))
        .filter(|lasted| lasted.0 > 0)
        .min()
        .unwrap_or_default()
}

/// The split in words.
pub(super) fn judge(matrix: &Matrix<'_>, observed: &Observed, split: &Split) -> Vec<LinkVerdict> {
    let mut found = Vec::new();
    let me = &observed.me;
    let own = matrix.names(split.mine.iter().copied());
    for other in &split.others {
        let names = matrix.names(other.iter().copied());
        let lasted = other.iter().map(|at| silence(matrix, &split.mine, *at)).min().unwrap_or_default();
        let (bad, all) = count(matrix, &split.mine, other);
        let mut evidence = Vec::new();
        let kind = if split.doubt {
            let own = split.mine.first().copied();
            let heard = matrix
                .names(other.iter().copied().filter(|at| own.is_some_and(|own| matrix.hears(own, *at))));
            evidence.push(match heard.as_slice() {
                [] => format!("{me} hears nobody for {}, so it may be {me} that is cut off", since(lasted)),
                some => format!("{me} hears {}, but nobody answers it for {}", group(some), since(lasted)),
            });
            LinkVerdictKind::SelfIsolated
        } else {
            evidence.push(format!(
                "nothing passes between {} and {} for {}",
                group(&own),
                group(&names),
                since(lasted)
            ));
            LinkVerdictKind::CleanPartition
        };
        evidence.push(format!("{bad} of {all} links from this side are down"));
        evidence.extend(arbiters(matrix, me));
        let mut sides = vec![own.clone(), names];
        if other.len() > split.mine.len() {
            sides.reverse();
        }
        let accusers = accusers(matrix, &split.mine, other);
        found.push(LinkVerdict { kind, segment: None, sides, evidence, accusers, since: lasted });
    }
    for at in &split.down {
        found.push(down(matrix, me, split, *at));
    }
    found
}

fn down(matrix: &Matrix<'_>, me: &NodeId, split: &Split, at: At) -> LinkVerdict {
    let node = matrix.nodes[at];
    let lasted = silence(matrix, &split.mine, at);
    let mut evidence = vec![if refused(matrix, &split.mine, at) {
        format!(
            "the host of {node} answers that nothing listens there, for {}: its node does not run",
            since(lasted)
        )
    } else {
        format!("{node} is silent to everybody here for {}: dead, frozen or cut off", since(lasted))
    }];
    if split.mine.len() == 1 {
        evidence.extend(arbiters(matrix, me));
    }
    let others = (0..matrix.nodes.len()).filter(|other| *other != at);
    LinkVerdict {
        kind: LinkVerdictKind::NodeDown,
        segment: None,
        sides: vec![matrix.names(others), vec![node.clone()]],
        evidence,
        accusers: accusers(matrix, &split.mine, &BTreeSet::from([at])),
        since: lasted,
    }
}

/// How many links from one group to another are down, of how many.
fn count(matrix: &Matrix<'_>, from: &BTreeSet<At>, to: &BTreeSet<At>) -> (usize, usize) {
    let pairs =
        || from.iter().filter(|at| matrix.speaks(**at)).flat_map(|a| to.iter().map(move |b| (*a, *b)));
    (
        pairs().map(|(a, b)| matrix.bad(a, b).len()).sum(),
        pairs().map(|(a, b)| matrix.common(a, b).len()).sum(),
    )
}

fn accusers(matrix: &Matrix<'_>, from: &BTreeSet<At>, to: &BTreeSet<At>) -> Vec<NodeId> {
    let says = |at: &At| to.iter().any(|other| !matrix.bad(*at, *other).is_empty());
    matrix.names(from.iter().copied().filter(says))
}

fn arbiters(matrix: &Matrix<'_>, me: &NodeId) -> Vec<String> {
    let row = matrix.place(me).and_then(|at| matrix.row(at));
    let arbiters = row.map_or(&[][..], |row| &row.row.arbiters);
    let word = |ok: bool| if ok { "answers" } else { "does not answer" };
    arbiters.iter().map(|arbiter| format!("{} {} {me}", arbiter.name, word(arbiter.ok))).collect()
}

/// Doubts about nodes that the matrix alone does not explain.
pub(super) fn doubts(
    observed: &Observed,
    state: &State,
    matrix: &Matrix<'_>,
    split: Option<&Split>,
    verdict: impl Fn(&NodeId) -> NodeVerdict,
) -> Vec<LinkVerdict> {
    let told = |node: &NodeId| {
        let at = matrix.place(node);
        split.is_some_and(|split| {
            at.is_some_and(|at| {
                split.down.contains(&at) || split.others.iter().any(|side| side.contains(&at))
            })
        })
    };
    let mut found = Vec::new();
    for node in state.nodes.keys().filter(|node| **node != observed.me && !told(node)) {
        let (kind, evidence) = match verdict(node) {
            NodeVerdict::Alive => continue,
            NodeVerdict::Suspect { because, .. } => (LinkVerdictKind::NodeSuspect, because),
            NodeVerdict::Lost { because } => (LinkVerdictKind::NodeDown, because),
        };
        let at = matrix.place(node);
        let accuses = |from: &At| at.is_some_and(|at| !matrix.bad(*from, at).is_empty());
        let others = state.nodes.keys().filter(|other| *other != node).cloned().collect();
        found.push(LinkVerdict {
            kind,
            segment: None,
            sides: vec![others, vec![node.clone()]],
            evidence,
            accusers: matrix.names((0..matrix.nodes.len()).filter(accuses)),
            since: observed.nodes.get(node).map_or(Millis(0), |heard| observed.now.since(heard.received)),
        });
    }
    found
}

/// The sides for people: who is where and where the majority is.
pub(super) fn sides(
    observed: &Observed,
    state: &State,
    matrix: &Matrix<'_>,
    split: Option<&Split>,
) -> Vec<Side> {
    let votes = |node: &NodeId| {
        state.nodes.get(node).is_some_and(|record| observed.raft.voters.contains(&record.raft_id))
    };
    let all = observed.raft.voters.len();
    let side = |nodes: Vec<NodeId>, mine: bool, observed: bool| {
        let voters = nodes.iter().filter(|node| votes(node)).count();
        Side { voters: voters as u32, majority: voters * 2 > all, mine, observed, nodes }
    };
    let Some(split) = split else {
        return vec![side(state.nodes.keys().cloned().collect(), true, false)];
    };
    let mut sides = vec![side(matrix.names(split.mine.iter().copied()), true, true)];
    let speaks = |at: &At| matrix.speaks(*at);
    sides.extend(
        split
            .others
            .iter()
            .map(|other| side(matrix.names(other.iter().copied()), false, other.iter().any(speaks))),
    );
    let single = split.down.iter().chain(&split.deaf);
    sides.extend(single.map(|at| side(matrix.names([*at]), false, speaks(at))));
    sides.sort_by_key(|side| {
        (std::cmp::Reverse(side.majority), std::cmp::Reverse(side.voters), side.nodes.clone())
    });
    sides
}

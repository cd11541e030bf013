//! Who reaches whom as rows, what the detector makes of it, and the sides of a split. Ages of what works are told
//! roughly, so that a quiet cluster has nothing new to show.

use std::cmp::Reverse;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::model::Standing;
use super::sight::Sight;
use crate::ids::NodeId;
use crate::reach::{KnownRow, LinkFault, LinkReport};
use crate::units::Millis;

/// No screen shows more cells; those that work and are not the viewer's own go first.
const LIMIT: usize = 4_096;

/// Who reaches whom.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinksView {
    /// All segments.
    pub segments: Vec<String>,
    /// All pairs, as each node last told of itself.
    pub rows: Vec<LinkRow>,
    /// Working pairs left out, where there are too many to show.
    pub left_out: u64,
    /// What is no node but should always answer, as each node last told.
    pub arbiters: Vec<ArbiterRow>,
    /// Who is with whom, the side with the majority first; one side where nothing is split.
    pub sides: Vec<SideView>,
    /// What the detector makes of them, the worst first.
    pub verdicts: Vec<LinkVerdict>,
}

/// One directed pair on one segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// From whom.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// Over which segment.
    pub segment: String,
    /// Do probes come back?
    pub ok: bool,
    /// Why the last one did not: `silent`, `refused`, `no_route`, `denied`.
    pub fault: Option<LinkFault>,
    /// Round trip.
    pub rtt_ms: Option<Rtt>,
    /// Percent lost of the last hundred.
    pub loss: u8,
    /// Lost in a row.
    pub misses: u32,
    /// How long ago one last came back.
    pub last_good_ms: Option<u64>,
    /// How long ago anything came in from there, if probes do not come back.
    pub heard_ms: Option<u64>,
    /// For how long probes have not come back.
    pub down_ms: Option<u64>,
    /// How long ago it broke or mended, newest first.
    pub changes_ms: Vec<u64>,
    /// How old this word is.
    pub age_ms: u64,
    /// Seen from here, or passed on?
    pub observed: bool,
}

/// One arbiter as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArbiterRow {
    /// From whom.
    pub from: NodeId,
    /// Its name.
    pub name: String,
    /// Does it answer?
    pub ok: bool,
    /// Round trip.
    pub rtt_ms: Option<Rtt>,
    /// Percent lost of the last hundred.
    pub loss: u8,
    /// How long ago it last answered.
    pub last_good_ms: Option<u64>,
    /// How old this word is.
    pub age_ms: u64,
    /// Seen from here, or passed on?
    pub observed: bool,
}

/// Nodes that reach one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideView {
    /// `A`, `B`, ...
    pub name: String,
    /// Who is there.
    pub nodes: Vec<NodeId>,
    /// How many of them vote.
    pub voters: u32,
    /// Of how many.
    pub voters_total: u32,
    /// Are these enough to decide?
    pub quorum: bool,
    /// Whom those there take for the leader, as far as they were heard.
    pub leader: Option<NodeId>,
    /// Raft's term there, as far as they were heard.
    pub term: Option<u64>,
    /// Is the viewer there?
    pub mine: bool,
    /// Seen, or inferred?
    pub observed: bool,
    /// How long ago any of them was last heard of here.
    pub heard_ms: Option<u64>,
}

/// What a detector makes of the links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkVerdict {
    /// `node_down`, `self_isolated`, ...
    pub kind: String,
    /// The segment it is about, if it is about one.
    pub segment: Option<String>,
    /// Who is on which side.
    pub sides: Vec<Vec<NodeId>>,
    /// What it rests on.
    pub evidence: Vec<String>,
    /// Who says so.
    pub accusers: Vec<NodeId>,
    /// For how long.
    pub since_ms: u64,
}

/// A round trip in microseconds, in JSON a number of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rtt(pub u32);

impl Serialize for Rtt {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(f64::from(self.0) / 1_000.0)
    }
}

impl<'de> Deserialize<'de> for Rtt {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let ms = f64::deserialize(from)?;
        Ok(Rtt((ms * 1_000.0).round().clamp(0.0, f64::from(u32::MAX)) as u32))
    }
}

pub(super) fn links(sight: &Sight<'_>, standing: &Standing) -> LinksView {
    let reach = &sight.look.observed.reach;
    let mut rows: Vec<LinkRow> = reach.rows.values().flat_map(|known| cells(sight, known)).collect();
    let mut segments: Vec<String> = rows.iter().map(|row| row.segment.clone()).collect();
    segments.sort();
    segments.dedup();
    let all = rows.len();
    if all > LIMIT {
        rows.sort_by_key(|row| (row.ok, !row.observed));
        rows.truncate(LIMIT);
        rows.sort_by(|a, b| (&a.from, &a.to, &a.segment).cmp(&(&b.from, &b.to, &b.segment)));
    }
    LinksView {
        segments,
        left_out: (all - rows.len()) as u64,
        rows,
        arbiters: reach.rows.values().flat_map(|known| arbiters(sight, known)).collect(),
        sides: sides(sight, standing),
        verdicts: verdicts(sight),
    }
}

/// Whole seconds: enough for what works.
fn roughly(length: Millis) -> u64 {
    length.0 / 1_000 * 1_000
}

fn cells<'a>(sight: &'a Sight<'_>, known: &'a KnownRow) -> impl Iterator<Item = LinkRow> + 'a {
    let age = sight.look.observed.now.since(known.at);
    let mine = known.row.from == *sight.me();
    known.row.links.iter().map(move |link| {
        let LinkReport { to, segment, ok, fault, rtt_us, loss_percent, misses, .. } = link;
        let since = |at: &Millis| (*at + age).0;
        let good = link.last_good.map(|at| if *ok { roughly(at + age) } else { since(&at) });
        LinkRow {
            from: known.row.from.clone(),
            to: to.clone(),
            segment: segment.to_string(),
            ok: *ok,
            fault: *fault,
            rtt_ms: rtt_us.map(Rtt),
            loss: *loss_percent,
            misses: *misses,
            last_good_ms: good,
            heard_ms: link.heard.as_ref().filter(|_| !ok).map(since),
            down_ms: (!ok).then(|| since(&link.since)),
            changes_ms: link.changes.iter().map(since).collect(),
            age_ms: roughly(age),
            observed: mine,
        }
    })
}

fn arbiters<'a>(sight: &'a Sight<'_>, known: &'a KnownRow) -> impl Iterator<Item = ArbiterRow> + 'a {
    let age = sight.look.observed.now.since(known.at);
    known.row.arbiters.iter().map(move |arbiter| ArbiterRow {
        from: known.row.from.clone(),
        name: arbiter.name.clone(),
        ok: arbiter.ok,
        rtt_ms: arbiter.rtt_us.map(Rtt),
        loss: arbiter.loss_percent,
        last_good_ms: arbiter.last_good.map(|at| roughly(at + age)),
        age_ms: roughly(age),
        observed: known.row.from == *sight.me(),
    })
}

/// `A`, `B`, .. `Z`, then numbers.
fn name(at: usize) -> String {
    let letter = u8::try_from(at).ok().filter(|at| *at < 26).map(|at| char::from(b'A' + at));
    letter.map_or_else(|| (at + 1).to_string(), |letter| letter.to_string())
}

fn sides(sight: &Sight<'_>, standing: &Standing) -> Vec<SideView> {
    let rows = &sight.look.observed.reach.rows;
    let mut sides: Vec<SideView> = Vec::new();
    for (at, side) in sight.look.verdicts.sides.iter().enumerate() {
        let known = || side.nodes.iter().filter_map(|node| rows.get(node));
        let newest = known().max_by_key(|known| (known.row.term, known.at));
        let heard = known().map(|known| known.at).max();
        let (leader, term) = if side.mine {
            (standing.leader.clone(), Some(standing.term))
        } else {
            (newest.and_then(|known| known.row.leader.clone()), newest.map(|known| known.row.term))
        };
        sides.push(SideView {
            name: name(at),
            nodes: side.nodes.clone(),
            voters: side.voters,
            voters_total: standing.voters,
            quorum: if side.mine { standing.quorum } else { side.majority },
            // An old belief in somebody on another side is none.
            leader: leader.filter(|leader| side.nodes.contains(leader)),
            term,
            mine: side.mine,
            observed: side.observed,
            heard_ms: heard.filter(|_| !side.mine).map(|at| sight.look.observed.now.since(at).0),
        });
    }
    sides.sort_by_key(|side| (Reverse(side.quorum), Reverse(side.voters)));
    for (at, side) in sides.iter_mut().enumerate() {
        side.name = name(at);
    }
    sides
}

fn verdicts(sight: &Sight<'_>) -> Vec<LinkVerdict> {
    let found = sight.look.verdicts.links.iter().map(|verdict| LinkVerdict {
        kind: verdict.kind.to_string(),
        segment: verdict.segment.as_ref().map(ToString::to_string),
        sides: verdict.sides.clone(),
        evidence: verdict.evidence.clone(),
        accusers: verdict.accusers.clone(),
        since_ms: verdict.since.0,
    });
    found.collect()
}

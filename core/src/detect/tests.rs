//! Pictures of a matrix and what is to be made of them. A row tells whom its node reaches on one segment: `+`
//! works, `x` silent for 10 s, `X` silent for a minute, `n` silent since this moment, `r` refused, `<` hears but
//! is not answered, `~` works again and again, `.` itself. A row of `?` is one that nobody has heard of late.

use std::collections::BTreeMap;

use imbl::OrdMap;

use super::detect;
use crate::command::{Actor, Command, NodeAdmission, NodeFacts, Proposal};
use crate::ids::{BootId, ClusterId, DiskId, Endpoint, MachineId, NodeId, RaftId, Revision, Segment};
use crate::observation::{Observed, RaftObserved, Verdicts};
use crate::reach::{ArbiterReport, KnownRow, LinkFault, LinkReport, LinkVerdict, Reach, Row};
use crate::settings::ClusterSettings;
use crate::spec::Resources;
use crate::state::State;
use crate::units::{BootMs, Millis, WallMs};

const NOW: BootMs = BootMs(1_000_000);

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// A picture, read.
struct Picture {
    nodes: Vec<String>,
    segments: Vec<String>,
    /// By the name of its node: its cells, or nothing if it is not heard.
    rows: BTreeMap<String, Vec<LinkReport>>,
}

fn cell(mark: &str, to: &str, segment: &str) -> LinkReport {
    let long = Millis(600_000);
    let good = LinkReport {
        to: id(to),
        segment: Segment::new(segment).unwrap(),
        ok: true,
        fault: None,
        rtt_us: Some(400),
        loss_percent: 0,
        misses: 0,
        last_good: Some(Millis(100)),
        heard: Some(Millis(100)),
        since: long,
        changes: Vec::new(),
    };
    let bad = |fault, since: u64, heard: u64| LinkReport {
        ok: false,
        fault: Some(fault),
        misses: 9,
        last_good: Some(Millis(since + 500)),
        heard: Some(Millis(heard)),
        since: Millis(since),
        changes: vec![Millis(since)],
        ..good.clone()
    };
    match mark {
        "+" => good,
        "x" => bad(LinkFault::Silent, 10_000, 10_500),
        "X" => bad(LinkFault::Silent, 60_000, 60_500),
        "n" => bad(LinkFault::Silent, 100, 600),
        "r" => bad(LinkFault::Refused, 10_000, 10_500),
        "<" => bad(LinkFault::Silent, 10_000, 100),
        "~" => LinkReport { changes: (1..=6).map(|n| Millis(n * 5_000)).collect(), ..good },
        other => panic!("{other:?} is no mark"),
    }
}

fn read(text: &str) -> Picture {
    let mut picture = Picture { nodes: Vec::new(), segments: Vec::new(), rows: BTreeMap::new() };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (head, cells) = line.split_once('|').unwrap();
        let (head, cells): (&str, Vec<&str>) = (head.trim(), cells.split_whitespace().collect());
        if cells.iter().all(|cell| cell.len() > 1) {
            picture.segments.push(head.to_owned());
            picture.nodes = cells.iter().map(|name| (*name).to_owned()).collect();
            continue;
        }
        let segment = picture.segments.last().unwrap();
        for (to, mark) in picture.nodes.iter().zip(cells) {
            if ![".", "?"].contains(&mark) {
                picture.rows.entry(head.to_owned()).or_default().push(cell(mark, to, segment));
            }
        }
    }
    picture
}

impl Picture {
    fn state(&self) -> State {
        let mut state = State::empty();
        let mut ask = |command: Command| {
            let actor = Actor::Operator { name: "ann".to_owned(), from: "test".to_owned() };
            let proposal = Proposal { request: None, actor, at: WallMs(0), expected: None, command };
            let revision = Revision(state.revision.0 + 1);
            state.apply(revision, &[proposal]).answers.remove(0).result.unwrap();
        };
        let settings = ClusterSettings::default();
        ask(Command::Bootstrap { cluster: ClusterId("c".to_owned()), name: "test".to_owned(), settings });
        for name in &self.nodes {
            let endpoints = self.segments.iter().map(|segment| Endpoint {
                segment: Segment::new(segment).unwrap(),
                host: "10.0.0.1".to_owned(),
                port: 7_000,
            });
            let facts = NodeFacts {
                node: id(name),
                endpoints: endpoints.collect(),
                api: String::new(),
                http: String::new(),
                labels: BTreeMap::new(),
                capacity: Resources::default(),
                executors: Vec::new(),
                fencing: Vec::new(),
                armed: false,
                unarmed: None,
                silence_counts: true,
                terms: 1,
                release: "0.1.0".to_owned(),
            };
            ask(Command::AdmitNode(NodeAdmission {
                machine: MachineId(name.clone()),
                disk: DiskId(name.clone()),
                boot: BootId(name.clone()),
                witness: false,
                weight: 1,
                facts,
            }));
        }
        state
    }

    fn seen_by(&self, me: &str, gateway: Option<bool>) -> Verdicts {
        let row = |name: &String, links: &Vec<LinkReport>| {
            let arbiter = gateway.filter(|_| name == me).map(|ok| ArbiterReport {
                name: "gateway".to_owned(),
                ok,
                rtt_us: None,
                loss_percent: 0,
                misses: 0,
                last_good: None,
                since: Millis(0),
            });
            let row = Row {
                from: id(name),
                boot: BootId(name.clone()),
                made: BootMs(1),
                links: links.clone(),
                arbiters: arbiter.into_iter().collect(),
                leader: None,
                term: 1,
                lease_left: Millis(0),
            };
            (id(name), KnownRow { at: BootMs(NOW.0 - 200), calm: row.calm(), row: row.into() })
        };
        let observed = Observed {
            me: id(me),
            now: NOW,
            nodes: OrdMap::new(),
            known_since: self.nodes.iter().map(|name| (id(name), NOW)).collect(),
            reach: Reach {
                rows: self.rows.iter().map(|(name, links)| row(name, links)).collect(),
                stall: Millis(0),
            },
            raft: RaftObserved {
                voters: (1..=self.nodes.len() as u64).map(RaftId).collect(),
                ..RaftObserved::default()
            },
        };
        detect(&observed, &self.state())
    }
}

fn line(verdict: &LinkVerdict) -> String {
    let side = |nodes: &Vec<NodeId>| nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" ");
    let segment = verdict.segment.as_ref().map(|segment| format!(" {segment}")).unwrap_or_default();
    let sides: Vec<String> = verdict.sides.iter().map(side).collect();
    format!("{}{segment}: {} by {}", verdict.kind, sides.join(" | "), side(&verdict.accusers))
}

/// Checks the verdicts of one observer on a picture, the worst first, one a line.
#[track_caller]
fn check(me: &str, picture: &str, expected: &str) {
    let seen: Vec<String> = read(picture).seen_by(me, None).links.iter().map(line).collect();
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(seen, expected, "as {me} sees{picture}");
}

#[test]
fn where_everything_works_there_is_nothing_to_say() {
    let picture = "
        mgmt | n1 n2 n3
        n1   | .  +  +
        n2   | +  .  +
        n3   | +  +  .";
    for me in ["n1", "n2", "n3"] {
        check(me, picture, "");
    }
    let sides = read(picture).seen_by("n1", None).sides;
    assert_eq!(sides.len(), 1);
    assert!(sides[0].mine && sides[0].majority && sides[0].voters == 3);
}

#[test]
fn a_node_that_is_silent_to_all_is_down_and_one_that_refuses_does_not_run() {
    let silent = "
        mgmt | n1 n2 n3
        n1   | .  +  x
        n2   | +  .  x
        n3   | ?  ?  .";
    check("n1", silent, "node_down: n1 n2 | n3 by n1 n2");
    let why = |picture: &str| read(picture).seen_by("n1", None).links[0].evidence.join("; ");
    assert_eq!(why(silent), "n3 is silent to everybody here for 10.2 s: dead, frozen or cut off");
    let refused = silent.replace('x', "r");
    check("n1", &refused, "node_down: n1 n2 | n3 by n1 n2");
    assert_eq!(
        why(&refused),
        "the host of n3 answers that nothing listens there, for 10.2 s: its node does not run"
    );
}

#[test]
fn a_split_shows_its_sides_to_both_of_them() {
    let majority = "
        mgmt | n1 n2 n3 n4 n5
        n1   | .  +  +  x  x
        n2   | +  .  +  x  x
        n3   | +  +  .  x  x
        n4   | ?  ?  ?  .  ?
        n5   | ?  ?  ?  ?  .";
    check("n2", majority, "clean_partition: n1 n2 n3 | n4 n5 by n1 n2 n3");
    let minority = "
        mgmt | n1 n2 n3 n4 n5
        n1   | .  ?  ?  ?  ?
        n2   | ?  .  ?  ?  ?
        n3   | ?  ?  .  ?  ?
        n4   | x  x  x  .  +
        n5   | x  x  x  +  .";
    check("n4", minority, "clean_partition: n1 n2 n3 | n4 n5 by n4 n5");
    let seen = read(minority).seen_by("n4", None);
    let sides: Vec<_> =
        seen.sides.iter().map(|side| (side.voters, side.majority, side.mine, side.observed)).collect();
    assert_eq!(sides, [(3, true, false, false), (2, false, true, true)]);
    assert_eq!(
        seen.links[0].evidence,
        ["nothing passes between n4 and n5 and n1 n2 n3 for 10.2 s", "6 of 6 links from this side are down",]
    );
}

#[test]
fn those_who_fell_silent_at_different_times_are_no_side() {
    let picture = "
        mgmt | n1 n2 n3 n4 n5
        n1   | .  +  +  X  x
        n2   | +  .  +  X  x
        n3   | +  +  .  X  x
        n4   | ?  ?  ?  .  ?
        n5   | ?  ?  ?  ?  .";
    check("n1", picture, "node_down: n1 n2 n3 n5 | n4 by n1 n2 n3\nnode_down: n1 n2 n3 n4 | n5 by n1 n2 n3");
    // Nor are those whose hosts say that their node is gone.
    check(
        "n1",
        &picture.replace(['X', 'x'], "r"),
        "node_down: n1 n2 n3 n5 | n4 by n1 n2 n3\nnode_down: n1 n2 n3 n4 | n5 by n1 n2 n3",
    );
}

#[test]
fn a_node_that_hears_nobody_suspects_itself_unless_the_gateway_answers() {
    let picture = "
        mgmt | n1 n2 n3
        n1   | .  x  x
        n2   | ?  .  ?
        n3   | ?  ?  .";
    check("n1", picture, "self_isolated: n2 n3 | n1 by n1");
    let seen = |gateway| read(picture).seen_by("n1", gateway).links.remove(0);
    assert_eq!(
        seen(Some(false)).evidence,
        [
            "n1 hears nobody for 10.2 s, so it may be n1 that is cut off",
            "2 of 2 links from this side are down",
            "gateway does not answer n1",
        ]
    );
    assert_eq!(line(&seen(Some(true))), "clean_partition: n2 n3 | n1 by n1");
    // A refusal comes over a network that works.
    check("n1", &picture.replace('x', "r"), "node_down: n1 n3 | n2 by n1\nnode_down: n1 n2 | n3 by n1");
    let two = "
        mgmt | n1 n2
        n1   | .  x
        n2   | ?  .";
    check("n1", two, "self_isolated: n1 | n2 by n1");
}

#[test]
fn a_segment_that_is_gone_is_a_degraded_path_and_costs_nobody() {
    let whole = "
        mgmt | n1 n2 n3
        n1   | .  x  x
        n2   | x  .  x
        n3   | x  x  .
        data | n1 n2 n3
        n1   | .  +  +
        n2   | +  .  +
        n3   | +  +  .";
    check("n1", whole, "segment_down mgmt: n1 | n2 | n3 by n1 n2 n3");
    let seen = read(whole).seen_by("n1", None);
    assert_eq!(seen.sides.len(), 1, "nobody is cut off");
    assert_eq!(
        seen.links[0].evidence,
        ["mgmt joins nobody for 10.2 s", "all reach one another over data: a degraded path, nothing moves",]
    );
    let one = "
        mgmt | n1 n2 n3
        n1   | .  +  x
        n2   | +  .  x
        n3   | x  x  .
        data | n1 n2 n3
        n1   | .  +  +
        n2   | +  .  +
        n3   | +  +  .";
    check("n3", one, "segment_down mgmt: n1 n2 | n3 by n1 n2 n3");
}

#[test]
fn one_broken_link_of_a_segment_is_that_link_only() {
    let picture = "
        mgmt | n1 n2 n3
        n1   | .  x  +
        n2   | x  .  +
        n3   | +  +  .
        data | n1 n2 n3
        n1   | .  +  +
        n2   | +  .  +
        n3   | +  +  .";
    check("n3", picture, "link_down mgmt: n1 | n2 by n1 n2");
}

#[test]
fn those_who_meet_only_by_way_of_others_are_partly_split() {
    let bridge = "
        mgmt | n1 n2 n3
        n1   | .  x  +
        n2   | x  .  +
        n3   | +  +  .";
    check("n1", bridge, "partial_partition: n1 | n2 by n1 n2");
    let hub = "
        mgmt | n1 n2 n3 n4 n5
        n1   | .  +  x  x  +
        n2   | +  .  x  x  +
        n3   | x  x  .  +  +
        n4   | x  x  +  .  +
        n5   | +  +  +  +  .";
    check("n5", hub, "partial_partition: n1 n2 | n3 n4 by n1 n2 n3 n4");
    assert_eq!(
        read(hub).seen_by("n1", None).links[0].evidence,
        [
            "nothing passes between n1 and n3, n1 and n4, n2 and n3 and 1 more pairs for 10.2 s",
            "n5 reaches both sides",
        ]
    );
}

#[test]
fn a_link_that_works_one_way_names_who_is_not_answered() {
    let heard = "
        mgmt | n1 n2 n3
        n1   | .  x  +
        n2   | <  .  +
        n3   | +  +  .";
    check("n3", heard, "partial_partition: n1 | n2 by n1 n2\none_way_link mgmt: n1 | n2 by n1 n2");
    let dialled = "
        mgmt | n1 n2 n3
        n1   | .  +  +
        n2   | x  .  +
        n3   | +  +  .";
    check("n3", dialled, "partial_partition: n1 | n2 by n2\none_way_link mgmt: n1 | n2 by n2");
    let two = "
        mgmt | n1 n2
        n1   | .  <
        n2   | x  .
        data | n1 n2
        n1   | .  +
        n2   | +  .";
    check("n1", two, "segment_down mgmt: n1 | n2 by n1 n2\none_way_link mgmt: n2 | n1 by n1 n2");
    let whole = "
        mgmt | n1 n2 n3
        n1   | .  x  x
        n2   | <  .  +
        n3   | <  +  .";
    check("n2", whole, "one_way_link mgmt: n1 | n2 n3 by n1 n2 n3");
    let unheard = "
        mgmt | n1 n2 n3
        n1   | .  <  <
        n2   | x  .  +
        n3   | x  +  .";
    let told = "self_isolated: n2 n3 | n1 by n1\none_way_link mgmt: n2 | n1 by n1 n2\n\
                one_way_link mgmt: n3 | n1 by n1 n3";
    check("n1", unheard, told);
    assert_eq!(
        read(unheard).seen_by("n1", None).links[0].evidence[0],
        "n1 hears n2 and n3, but nobody answers it for 10.2 s"
    );
}

#[test]
fn an_end_that_notices_a_moment_before_the_other_makes_no_one_way_link() {
    let picture = "
        mgmt | n1 n2 n3
        n1   | .  n  +
        n2   | +  .  +
        n3   | +  +  .";
    check("n3", picture, "");
}

#[test]
fn a_link_that_breaks_and_mends_again_and_again_flaps() {
    let picture = "
        mgmt | n1 n2 n3
        n1   | .  ~  +
        n2   | ~  .  +
        n3   | +  +  .";
    check("n3", picture, "flapping mgmt: n1 | n2 by n1 n2");
    let seen = read(picture).seen_by("n3", None);
    assert_eq!(seen.links[0].evidence, ["n1 and n2 over mgmt changed 6 times within 30.2 s"]);
}

#[test]
fn before_its_own_probes_came_back_a_node_judges_no_link() {
    let picture = "
        mgmt | n1 n2 n3
        n1   | .  ?  ?
        n2   | +  .  +
        n3   | +  +  .";
    check("n1", picture, "");
}

/// Every matrix of three nodes on one segment whose cells work or are silent: no verdict contradicts itself.
#[test]
fn every_small_matrix_puts_each_node_on_exactly_one_side() {
    let names = ["n1", "n2", "n3"];
    for bits in 0_u32..64 {
        let mark = |at: u32| if bits >> at & 1 == 1 { "x" } else { "+" };
        let picture = format!(
            "mgmt | n1 n2 n3\nn1 | . {} {}\nn2 | {} . {}\nn3 | {} {} .",
            mark(0),
            mark(1),
            mark(2),
            mark(3),
            mark(4),
            mark(5)
        );
        for me in names {
            let seen = read(&picture).seen_by(me, None);
            let mut placed: Vec<&str> =
                seen.sides.iter().flat_map(|side| side.nodes.iter().map(NodeId::as_str)).collect();
            placed.sort_unstable();
            assert_eq!(placed, names, "{me} sees\n{picture}");
            assert_eq!(seen.sides.iter().filter(|side| side.mine).count(), 1);
            assert!(seen.sides.iter().filter(|side| side.majority).count() <= 1);
            assert_eq!(seen.links.is_empty(), bits == 0, "{me} says {:?} of\n{picture}", seen.links);
            let cut = seen
                .links
                .iter()
                .any(|verdict| verdict.kind <= crate::reach::LinkVerdictKind::CleanPartition);
            assert!(!cut || seen.sides.len() > 1, "{me} sees\n{picture}");
        }
    }
}

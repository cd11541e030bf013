//! What either side of a split reads, and what of fencing.

use super::*;
use crate::fence::FenceMethod;
use crate::ids::Segment;
use crate::reach::{KnownRow, LinkFault, LinkReport, LinkVerdict, LinkVerdictKind, Row, Side};
use crate::view::fence_terms;

fn side(nodes: &[&str], majority: bool, mine: bool) -> Side {
    let nodes: Vec<NodeId> = nodes.iter().map(|name| id(name)).collect();
    Side { voters: nodes.len() as u32, nodes, majority, mine, observed: mine }
}

/// What n2 last told.
fn row() -> Row {
    Row {
        from: id("n2"),
        boot: BootId("boot-n2".to_owned()),
        made: BootMs(1),
        links: Vec::new(),
        arbiters: Vec::new(),
        leader: Some(id("n1")),
        term: 3,
        lease_left: Millis(0),
    }
}

/// Five nodes, of which n4 and n5 are cut off, seen from one of them.
fn split(me: &str) -> Scene {
    let mut s = Scene::new(&["n1", "n2", "n3", "n4", "n5"]);
    let small = ["n4", "n5"].contains(&me);
    s.observed.me = id(me);
    let sides = [vec![id("n1"), id("n2"), id("n3")], vec![id("n4"), id("n5")]];
    for other in &sides[usize::from(!small)] {
        s.silent(other.as_str(), 7_200);
    }
    s.verdicts.links = vec![LinkVerdict {
        kind: LinkVerdictKind::CleanPartition,
        segment: None,
        sides: sides.to_vec(),
        evidence: vec!["nothing passes between n4 and n5 and n1 n2 n3 for 7.2 s".to_owned()],
        accusers: sides[usize::from(small)].clone(),
        since: Millis(7_200),
    }];
    s.verdicts.sides = vec![side(&["n1", "n2", "n3"], true, !small), side(&["n4", "n5"], false, small)];
    if small {
        s.observed.raft.leading = false;
        s.observed.raft.leader = None;
        s.observed.raft.quorum_ack_age = None;
        s.waiting_age = Millis(7_200);
        s.lease.valid_until = BootMs(NOW.0 - 2_000);
    }
    let known = KnownRow { at: BootMs(NOW.0 - 7_300), calm: true, row: row().into() };
    s.observed.reach.rows.insert(id("n2"), known);
    s
}

#[test]
fn a_split_is_the_first_thing_said_on_either_side() {
    let large = split("n1").view(None);
    assert_eq!(large.verdict.level, Level::Critical);
    assert!(
        large.verdict.sentence.starts_with(
            "SPLIT-BRAIN for 7 s: side A {n1 n2 n3} 3/5 voters HAS QUORUM = the side of n1; side B {n4 n5} 2/5 \
             voters no quorum. "
        ),
        "{}",
        large.verdict.sentence
    );
    let small = split("n4").view(None);
    assert_eq!((small.verdict.level, small.verdict.word.as_str()), (Level::Critical, "no quorum"));
    let told = "SPLIT-BRAIN for 7 s: side A {n1 n2 n3} 3/5 voters HAS QUORUM; side B {n4 n5} 2/5 voters no quorum = \
                the side of n4. Writes are refused here: n4 hears ";
    assert!(small.verdict.sentence.starts_with(told), "{}", small.verdict.sentence);
    let theirs = &small.links.sides[0];
    assert_eq!(
        (theirs.observed, theirs.leader.as_ref(), theirs.heard_ms),
        (false, Some(&id("n1")), Some(7_300))
    );
}

#[test]
fn a_degraded_path_is_a_warning_and_no_more() {
    let mut s = Scene::new(&["n1", "n2", "n3"]);
    s.verdicts.sides = vec![side(&["n1", "n2", "n3"], true, true)];
    s.verdicts.links = vec![LinkVerdict {
        kind: LinkVerdictKind::SegmentDown,
        segment: Segment::new("mgmt").ok(),
        sides: vec![vec![id("n1")], vec![id("n2")], vec![id("n3")]],
        evidence: vec!["mgmt joins nobody for 4.0 s".to_owned(), "a degraded path, nothing moves".to_owned()],
        accusers: vec![id("n1")],
        since: Millis(4_000),
    }];
    let view = s.view(None);
    assert_eq!((view.verdict.level, view.verdict.word.as_str()), (Level::Warning, "degraded"));
    let told = "mgmt joins nobody for 4.0 s; a degraded path, nothing moves. All 3";
    assert!(view.verdict.sentence.starts_with(told), "{}", view.verdict.sentence);
    assert!(view.standing.quorum);
}

/// n4, cut off with n5, runs one of each kind; n5 runs a copy as well.
fn cut_off() -> Scene {
    let mut s = Scene::new(&["n1", "n2", "n3", "n4", "n5"]);
    for name in ["n1", "n2", "n3", "n4", "n5"] {
        let mut facts = s.state.nodes.get(&id(name)).unwrap().facts.clone();
        facts.armed = true;
        facts.fencing = vec![vec![FenceMethod::of_program("ipmi")]];
        s.ok(Command::UpdateNode(facts));
    }
    s.deploy("db", "priority: critical");
    s.deploy("billing", "stop: {grace: 10s}");
    s.deploy("web", "priority: high\nreplicas: 2\nstop: {grace: 30s}");
    s.deploy("batch", "priority: low\nreplicas: 2");
    for (at, on) in [("db/0", "n4"), ("billing/0", "n4"), ("web/0", "n4"), ("web/1", "n4"), ("batch/1", "n5")]
    {
        s.runs(at, on, InstancePhase::Running, Health::Healthy);
    }
    let killed = ExitReason { kind: ExitKind::LeaseExpired, code: None, signal: Some(9) };
    s.runs("batch/0", "n4", InstancePhase::Exited(killed), Health::Unchecked);
    let base = split("n4");
    s.verdicts = Verdicts { nodes: s.verdicts.nodes.clone(), ..base.verdicts };
    s.observed.me = id("n4");
    s.observed.raft = base.observed.raft;
    s.waiting_age = base.waiting_age;
    s.lease = base.lease;
    for name in ["n1", "n2", "n3", "n5"] {
        s.silent(name, 7_200);
    }
    s
}

#[test]
fn a_cut_off_side_reads_what_stops_when_and_why_and_what_the_other_side_may_do_then() {
    let view = cut_off().view(None);
    let rows: Vec<String> = view
        .countdowns
        .iter()
        .map(|c| {
            let mark = if c.observed { "" } else { "?" };
            let time =
                if c.done { "done".to_owned() } else { c.in_ms.map_or("--".into(), |ms| ms.to_string()) };
            let then = c.then_ms.map(|ms| format!(" in {ms}")).unwrap_or_default();
            format!("{time} {}{mark} {} {} | {} | {}{then}", c.subject, c.here, c.action, c.why, c.then)
        })
        .collect();
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn a_cut_off_side_has_a_timeline_of_its_own_that_does_not_flicker() {
    let mut s = cut_off();
    let first = s.view(None);
    let told: Vec<String> =
        first.sightings.iter().map(|e| format!("{} {}: {}", e.at.0, e.subject, e.text)).collect();
    insta::assert_snapshot!(told.join("\n"));
    s.observed.now = BootMs(NOW.0 + 30);
    let second = s.view(Some(&first));
    assert!(first.sightings.iter().zip(&second.sightings).all(|(old, new)| Arc::ptr_eq(old, new)));
    assert!(
        split("n1").view(None).sightings.iter().all(|e| e.subject == "links"),
        "with quorum there is a log"
    );
}

#[test]
fn a_cut_off_node_knows_that_the_other_side_may_fence_it_and_when() {
    let view = cut_off().view(None);
    let fencing = &view.nodes[&id("n4")].fencing;
    assert_eq!((fencing.expected_ms, fencing.automatic), (Some(0), true), "its lease ended two seconds ago");
    assert!(fencing.exclusive.contains(&"db/0".to_owned()), "{fencing:?}");
    assert_eq!(view.nodes[&id("n1")].fencing.expected_ms, None, "nobody fences the side with quorum");
    let terms = fence_terms(&view, &view.nodes[&id("n1")]);
    assert!(!terms.allowed && terms.allowance.starts_with("NO QUORUM from here: "), "{}", terms.allowance);
}

#[test]
fn a_leader_cut_off_from_all_others_says_so_within_its_lease() {
    let mut s = Scene::new(&["n1", "n2", "n3"]);
    s.observed.raft.quorum_ack_age = Some(Millis(900));
    let links = ["n2", "n3"].map(|to| LinkReport {
        to: id(to),
        segment: Segment::new("mgmt").unwrap(),
        ok: false,
        fault: Some(LinkFault::Silent),
        rtt_us: None,
        loss_percent: 9,
        misses: 4,
        last_good: Some(Millis(900)),
        since: Millis(900),
        heard: None,
        changes: Vec::new(),
    });
    let row = Row { from: id("n1"), links: links.into(), ..row() };
    s.observed.reach.rows.insert(id("n1"), KnownRow { at: NOW, calm: true, row: row.into() });
    let view = s.view(None);
    assert_eq!((view.verdict.word.as_str(), view.standing.voters_heard), ("no quorum", 1));
    let told = "n1 led and stands alone: no quorum acknowledges it for 900 ms";
    assert!(view.verdict.sentence.contains(told), "{}", view.verdict.sentence);
}

#[test]
fn the_evidence_about_a_node_holds_only_where_it_holds_for_all_that_waits() {
    let mut s = three_with_services();
    s.silent("n2", 6_000);
    s.lose("n2");
    for (at, left) in [("db/0", Some(9_500)), ("web/0", None)] {
        let mut items = checklist(left);
        items[0].holds = at == "db/0";
        let cause = WaitCause::Evidence { node: id("n2"), token: Token::default(), then: None, items };
        s.waits(Subject::Slot(slot(at)), cause, left);
    }
    let view = s.view(None);
    let evidence = &view.nodes[&id("n2")].why.evidence;
    assert!(evidence.iter().all(|item| !item.holds), "{evidence:?}");
    assert_eq!(evidence[3].left_ms, Some(9_500));
    let terms = fence_terms(&view, &view.nodes[&id("n2")]);
    assert!(!terms.allowed && terms.allowance.starts_with("n2 has no fence method"), "{}", terms.allowance);
}

#[test]
fn a_fencing_shows_who_does_what_for_how_long_at_most() {
    let mut s = cut_off();
    s.observed.me = id("n1");
    s.observed.raft = split("n1").observed.raft;
    s.verdicts.sides = vec![side(&["n1", "n2", "n3"], true, true), side(&["n4", "n5"], false, false)];
    s.lose("n4");
    let ask = Command::Fence { node: id("n4"), reason: "it is stuck".to_owned() };
    let Reply::Began(operation) = s.ok(ask) else { panic!("nothing began") };
    let step = OperationStep::FenceAttempt { by: id("n2"), attempt: 1, level: 0, method: 0 };
    s.ok(Command::Advance { operation, from: 0, step });
    let view = s.view(None);
    let row = &view.operations[&operation];
    let run = row.fence.clone().unwrap();
    assert_eq!(
        (run.method.as_str(), run.by, run.level, run.levels, run.attempt),
        ("ipmi", Some(id("n2")), 1, 1, 1)
    );
    assert!(run.left_ms.is_some_and(|left| left <= 6_000), "{:?}", run.left_ms);
    assert_eq!(view.nodes[&id("n4")].fencing.operation, Some(operation));
    let terms = fence_terms(&view, &view.nodes[&id("n4")]);
    assert!(!terms.allowed && terms.allowance.contains("fences n4 already"), "{}", terms.allowance);
    let free = fence_terms(&view, &view.nodes[&id("n5")]);
    assert!(free.allowed, "{}", free.allowance);
    assert!(free.allowance.starts_with("Side A {n1 n2 n3} has quorum ("), "{}", free.allowance);
}

#[test]
fn a_delay_before_a_fencing_is_counted_down_and_blocks_nothing() {
    let mut s = cut_off();
    s.observed.me = id("n1");
    s.observed.raft = split("n1").observed.raft;
    s.waiting_age = Millis(0);
    s.lose("n4");
    let detail = "n4 is fenced after fencing.delay 12 s".to_owned();
    let cause = WaitCause::Fencing { operation: None, under_way: false, detail };
    s.waits(Subject::Node(id("n4")), cause, Some(9_000));
    let view = s.view(None);
    let fencing = &view.nodes[&id("n4")].fencing;
    assert_eq!((fencing.expected_ms, &fencing.waiting), (Some(9_000), &None));
    let line = view.countdowns.iter().find(|c| c.subject == "node n4").unwrap();
    assert_eq!((line.in_ms, line.action.as_str()), (Some(9_000), "is fenced"));
}

#[test]
fn a_leader_without_quorum_counts_its_followers_leases_from_its_last_answers() {
    let mut s = cut_off();
    s.observed.raft.leading = true;
    let mut n5 = s.observed.nodes.get(&id("n5")).unwrap().clone();
    // It goes on to speak to the old leader, which may not answer any more.
    (n5.received, n5.answered) = (NOW, Some(BootMs(NOW.0 - 4_000)));
    s.observed.nodes.insert(id("n5"), n5);
    let view = s.view(None);
    let batch = view.countdowns.iter().find(|c| c.subject == "batch/1").unwrap();
    assert_eq!((batch.in_ms, batch.action.as_str(), batch.observed), (Some(1_000), "IS KILLED", false));
}

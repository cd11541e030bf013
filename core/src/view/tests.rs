//! What an operator reads in each situation, whole, as text.

mod split;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use imbl::OrdMap;

use super::{ClusterKind, ClusterView, Level, Look, view, why};
use crate::command::{Actor, Command, NodeAdmission, NodeFacts, OperationStep, Proposal};
use crate::ids::{
    BootId, ClusterId, DiskId, InstanceId, LeaseEpoch, MachineId, NodeId, OperationId, RaftId, Revision,
    ServiceName, SlotId, Token,
};
use crate::lease::Lease;
use crate::observation::{
    ExitKind, ExitReason, GuardReport, Health, Heard, InstancePhase, InstanceReport, InstanceUsage,
    NodeReport, NodeUsage, NodeVerdict, Observed, RaftObserved, SlotReport, Verdicts,
};
use crate::reach::Reach;
use crate::spec::{Resources, SpecDefaults, parse_one};
use crate::state::{ClusterSettings, EvidenceItem, Refusal, Reply, State, Subject, WaitCause, Waiting};
use crate::units::{BootMs, CpuMillis, Millis, WallMs};

const NOW: BootMs = BootMs(100_000);
const AT: WallMs = WallMs(1_000_000);

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn slot(text: &str) -> SlotId {
    text.parse().unwrap()
}

/// One cluster seen from n1, the leader, unless a test says otherwise.
struct Scene {
    state: State,
    observed: Observed,
    verdicts: Verdicts,
    waiting: BTreeMap<Subject, Vec<Waiting>>,
    waiting_age: Millis,
    lease: Lease,
}

impl Scene {
    fn new(nodes: &[&str]) -> Self {
        let mut state = State::empty();
        let settings = ClusterSettings::default();
        let terms = settings.terms;
        let cluster = ClusterId("c".to_owned());
        run(&mut state, Command::Bootstrap { cluster, name: "test".to_owned(), settings });
        for name in nodes {
            run(&mut state, Command::AdmitNode(admission(name)));
        }
        let heard = nodes.iter().map(|name| (id(name), heard(name, &state)));
        let raft = RaftObserved {
            leading: true,
            leading_since: Some(BootMs(0)),
            leader: Some(id("n1")),
            term: 3,
            applied: Revision(1),
            quorum_ack_age: Some(Millis(120)),
            voters: (1..=nodes.len() as u64).map(RaftId).collect(),
            ..RaftObserved::default()
        };
        let observed = Observed {
            me: id("n1"),
            now: NOW,
            nodes: heard.collect(),
            known_since: OrdMap::new(),
            reach: Reach::default(),
            raft,
        };
        let lease = Lease {
            epoch: LeaseEpoch(1),
            valid_until: BootMs(104_000),
            revision: Revision(1),
            terms,
            lost: false,
        };
        let verdicts = Verdicts {
            nodes: nodes.iter().map(|name| (id(name), NodeVerdict::Alive)).collect(),
            ..Verdicts::default()
        };
        Self { state, observed, verdicts, waiting: BTreeMap::new(), waiting_age: Millis(0), lease }
    }

    fn ok(&mut self, command: Command) -> Reply {
        run(&mut self.state, command)
    }

    fn deploy(&mut self, name: &str, more: &str) {
        let text = format!("name: {name}\nspec: {{command: [run]}}\n{more}\n");
        let spec = Arc::new(parse_one(&text, &SpecDefaults::default()).unwrap());
        self.ok(Command::Deploy { spec });
    }

    fn grant(&mut self, at: &str, to: &str, operation: Option<OperationId>) -> Token {
        let record = self.state.nodes.get(&id(to)).unwrap().clone();
        let version = self.state.services.get(&slot(at).service).unwrap().version;
        let (boot, lease_epoch) = (record.boot, record.lease_epoch);
        let because = "most room".to_owned();
        let grant =
            Command::Grant { slot: slot(at), node: id(to), boot, lease_epoch, version, operation, because };
        match self.ok(grant) {
            Reply::Token(token) => token,
            other => panic!("no token but {other:?}"),
        }
    }

    /// Grants, and has the node report an instance of it.
    fn runs(&mut self, at: &str, on: &str, phase: InstancePhase, health: Health) -> Token {
        let token = self.grant(at, on, None);
        self.report(at, on, token, phase, health);
        token
    }

    fn report(&mut self, at: &str, on: &str, token: Token, phase: InstancePhase, health: Health) {
        let instance = InstanceReport {
            id: InstanceId { slot: slot(at), token },
            spec: 0,
            phase,
            pid: Some(4_711),
            started_at: WallMs(900_000),
            since: Millis(5_000),
            restarts: 0,
            ran: Millis(0),
            health,
            health_detail: "200 in 1 ms".to_owned(),
            usage: InstanceUsage::default(),
            last_exit: None,
            unenforced: Vec::new(),
            armed: true,
        };
        let known = SlotReport { highest: token, instance: Some(instance) };
        let mut heard = self.observed.nodes.get(&id(on)).unwrap().clone();
        heard.report.slots.insert(slot(at), known);
        self.observed.nodes.insert(id(on), heard);
    }

    fn waits(&mut self, subject: Subject, cause: WaitCause, left: Option<u64>) {
        self.waiting.entry(subject).or_default().push(Waiting { cause, left: left.map(Millis) });
    }

    /// Last heard this long ago.
    fn silent(&mut self, name: &str, ms: u64) {
        let mut heard = self.observed.nodes.get(&id(name)).unwrap().clone();
        heard.received = BootMs(NOW.0 - ms);
        heard.answered = Some(heard.received);
        self.observed.nodes.insert(id(name), heard);
    }

    fn lose(&mut self, name: &str) {
        let because = vec!["no heartbeat for 5 s".to_owned(), "n1 and n3 do not reach it".to_owned()];
        self.ok(Command::MarkLost { node: id(name), lease_epoch: LeaseEpoch(1), because: because.clone() });
        self.verdicts.nodes.insert(id(name), NodeVerdict::Lost { because });
    }

    fn view(&self, previous: Option<&ClusterView>) -> ClusterView {
        view(&Look {
            state: &self.state,
            observed: &self.observed,
            verdicts: &self.verdicts,
            waiting: &self.waiting,
            waiting_age: self.waiting_age,
            lease: Some(&self.lease),
            at: AT,
            kind: ClusterKind::Real,
            previous,
        })
    }
}

fn run(state: &mut State, command: Command) -> Reply {
    let actor = Actor::Operator { name: "alice".to_owned(), from: "cli@n1".to_owned() };
    let at = WallMs(AT.0 - 9_000);
    let proposal = Proposal { request: None, actor, at, expected: None, command };
    let answer = state.apply(Revision(state.revision.0 + 1), &[proposal]).answers.remove(0);
    answer.result.unwrap()
}

fn admission(name: &str) -> NodeAdmission {
    NodeAdmission {
        machine: MachineId(format!("machine-{name}")),
        disk: DiskId(format!("disk-{name}")),
        boot: BootId(format!("boot-{name}")),
        witness: false,
        weight: 1,
        facts: NodeFacts {
            node: id(name),
            endpoints: Vec::new(),
            api: "127.0.0.1:7001".to_owned(),
            http: "127.0.0.1:7002".to_owned(),
            labels: BTreeMap::new(),
            capacity: Resources::default(),
            executors: Vec::new(),
            fencing: Vec::new(),
            armed: true,
            unarmed: None,
            silence_counts: true,
            terms: 1,
            release: "0.1.0".to_owned(),
        },
    }
}

fn heard(name: &str, state: &State) -> Heard {
    let received = BootMs(NOW.0 - 300);
    let report = NodeReport {
        node: id(name),
        boot: BootId(format!("boot-{name}")),
        lease_epoch: LeaseEpoch(1),
        wants_rejoin: false,
        heartbeat: 9,
        echo: 8,
        revision: state.revision,
        pid: 100,
        guard: GuardReport { pid: 101, twin_pid: 102, answering: true, armed: true, unarmed: None },
        usage: NodeUsage::default(),
        executors: Vec::new(),
        slots: BTreeMap::new(),
        transfers: Vec::new(),
        fencing: Default::default(),
    };
    Heard { received, answered: Some(received), echo_rose: received, report }
}

fn checklist(left: Option<u64>) -> Vec<EvidenceItem> {
    let item = |kind: &str, detail: &str, left: Option<u64>| EvidenceItem {
        kind: kind.to_owned(),
        holds: false,
        detail: detail.to_owned(),
        left: left.map(Millis),
    };
    vec![
        item("stop_acknowledged", "n2 was not told to stop", None),
        item("fenced", "n2 has no fence method", None),
        item("rebooted", "no other boot of n2 was heard", None),
        item("silence", "silent for 6 s of 15.5 s, was armed", left),
        item("attested", "nobody attested it", None),
    ]
}

/// A view as a reader takes it in.
fn text(view: &ClusterView) -> String {
    let mut out = String::new();
    let time = |ms: Option<u64>| ms.map_or("--".to_owned(), |ms| Millis(ms).human());
    let mark = |observed: bool| if observed { "" } else { "?" };
    writeln!(out, "{:?} {}: {}", view.verdict.level, view.verdict.word, view.verdict.sentence).unwrap();
    writeln!(out, "{}", view.standing.sentence).unwrap();
    for c in &view.countdowns {
        let (left, mark) = (time(c.in_ms), mark(c.observed));
        writeln!(out, "  in {left}{mark} {} {} | {} | {}", c.subject, c.action, c.why, c.then).unwrap();
    }
    for n in view.nodes.values() {
        let mark = mark(n.observed);
        writeln!(out, "node {}{mark} {:?} x{}: {}", n.name, n.state, n.instances, n.why.verdict).unwrap();
    }
    for s in view.services.values() {
        let r = s.replicas;
        let counts = format!("{}/{}/{}", r.wanted, r.running, r.healthy);
        writeln!(
            out,
            "service {} {counts} {:?} {}: {}",
            s.name, s.verdict.level, s.verdict.word, s.verdict.sentence
        )
        .unwrap();
    }
    for (key, i) in &view.instances {
        writeln!(out, "copy {key}{} {:?}: {}", mark(i.observed), i.state, i.why.verdict).unwrap();
    }
    for o in view.operations.values() {
        let result = o.result.clone().unwrap_or_default();
        writeln!(
            out,
            "operation {} {:?} {} {} {}/{} {result}",
            o.id, o.kind, o.target, o.phase, o.done, o.total
        )
        .unwrap();
        o.blocked.iter().for_each(|b| writeln!(out, "  {}: {}", b.what, b.why).unwrap());
    }
    out
}

fn why_text(view: &ClusterView, subject: &str) -> String {
    let why = why(view, subject).unwrap();
    let mut out = format!("{}\n{}\n", why.subject, why.verdict);
    why.because.iter().for_each(|because| writeln!(out, "  because {because}").unwrap());
    for item in &why.evidence {
        let left = item.left_ms.map(|ms| format!(", in {}", Millis(ms).human())).unwrap_or_default();
        writeln!(out, "  [{}] {}: {}{left}", if item.holds { 'x' } else { ' ' }, item.kind, item.detail)
            .unwrap();
    }
    for next in &why.next {
        let when = next.when_ms.map(|ms| format!(" in {}", Millis(ms).human())).unwrap_or_default();
        let condition = next.condition.as_ref().map(|c| format!(", if {c}")).unwrap_or_default();
        writeln!(out, "  next: {}{when}{condition}", next.what).unwrap();
    }
    out
}

fn three_with_services() -> Scene {
    let mut s = Scene::new(&["n1", "n2", "n3"]);
    s.deploy("db", "priority: high\nstop: {grace: 10s}");
    s.deploy("web", "replicas: 2");
    s.runs("db/0", "n2", InstancePhase::Running, Health::Healthy);
    s.runs("web/0", "n1", InstancePhase::Running, Health::Healthy);
    s.runs("web/1", "n3", InstancePhase::Running, Health::Unchecked);
    s
}

#[test]
fn all_is_well() {
    let view = three_with_services().view(None);
    assert_eq!(view.verdict.level, Level::Ok);
    insta::assert_snapshot!(text(&view));
}

#[test]
fn a_lost_node_blocks_what_is_exclusive_and_the_screen_says_until_when() {
    let mut s = three_with_services();
    s.silent("n2", 6_000);
    s.lose("n2");
    let cause = WaitCause::Evidence {
        node: id("n2"),
        token: Token::default(),
        then: Some(id("n3")),
        items: checklist(Some(9_500)),
    };
    s.waits(Subject::Slot(slot("db/0")), cause, Some(9_500));
    let view = s.view(None);
    let whole = [
        text(&view),
        why_text(&view, "db/0"),
        why_text(&view, "db"),
        why_text(&view, "n2"),
        why_text(&view, "cluster"),
    ];
    insta::assert_snapshot!(whole.join("\n"));
}

#[test]
fn a_critical_copy_on_a_lost_node_stays_unconfirmed_until_somebody_acts() {
    let mut s = Scene::new(&["n1", "n2", "n3"]);
    s.deploy("key", "priority: critical");
    s.runs("key/0", "n2", InstancePhase::Running, Health::Healthy);
    s.silent("n2", 60_000);
    s.lose("n2");
    let cause = WaitCause::Evidence {
        node: id("n2"),
        token: Token::default(),
        then: Some(id("n1")),
        items: checklist(None),
    };
    s.waits(Subject::Slot(slot("key/0")), cause, None);
    let view = s.view(None);
    insta::assert_snapshot!(format!("{}\n{}", text(&view), why_text(&view, "key/0")));
}

#[test]
fn a_follower_without_quorum_says_so_and_counts_down_its_own_stops() {
    let mut s = three_with_services();
    s.deploy("key", "priority: critical\nexclusive: false");
    s.runs("key/0", "n1", InstancePhase::Running, Health::Healthy);
    s.observed.raft = RaftObserved {
        leader: None,
        voters: vec![RaftId(1), RaftId(2), RaftId(3)],
        term: 4,
        ..RaftObserved::default()
    };
    s.waiting_age = Millis(8_000);
    s.lease.valid_until = BootMs(NOW.0 - 3_000);
    s.silent("n2", 8_000);
    s.silent("n3", 8_000);
    let view = s.view(None);
    assert!(view.verdict.level == Level::Critical && !view.standing.accepting_proposals);
    assert!(view.services.values().all(|service| service.verdict.level > Level::Ok), "never green");
    insta::assert_snapshot!(text(&view));
}

#[test]
fn a_leader_whom_nobody_acknowledges_decides_nothing() {
    let mut s = three_with_services();
    s.observed.raft.quorum_ack_age = Some(Millis(7_000));
    s.silent("n2", 7_000);
    s.silent("n3", 7_000);
    let view = s.view(None);
    assert!(!view.standing.quorum);
    insta::assert_snapshot!(text(&view));
}

#[test]
fn whoever_follows_a_leader_that_nobody_else_acknowledges_sees_no_quorum() {
    let mut s = three_with_services();
    s.observed.raft.leading = false;
    s.observed.raft.leader = Some(id("n2"));
    s.waiting_age = Millis(60);
    assert!(s.view(None).standing.quorum);
    // Its word is as fresh as ever.
    s.observed.raft.quorum_ack_age = Some(Millis(7_000));
    let standing = s.view(None).standing;
    assert!(!standing.quorum && !standing.accepting_proposals, "{standing:?}");
}

#[test]
fn a_slot_that_fits_nowhere_names_every_node_with_its_reason() {
    let mut s = Scene::new(&["n1", "n2", "n3"]);
    s.deploy("big", "resources: {cpu: 4}");
    let refusals = vec![
        (id("n1"), Refusal::Cpu(CpuMillis(4_000), CpuMillis(500))),
        (id("n2"), Refusal::Cordoned),
        (id("n3"), Refusal::Cordoned),
    ];
    s.waits(Subject::Slot(slot("big/0")), WaitCause::NoNodeFits { refusals }, None);
    let view = s.view(None);
    insta::assert_snapshot!(format!("{}\n{}", text(&view), why_text(&view, "big/0")));
}

#[test]
fn a_crash_loop_shows_how_it_ended_and_when_it_starts_again() {
    let mut s = Scene::new(&["n1", "n2", "n3"]);
    s.deploy("web", "");
    let end = ExitReason { kind: ExitKind::OutOfMemory, code: None, signal: Some(9) };
    s.runs("web/0", "n2", InstancePhase::Exited(end.clone()), Health::Unchecked);
    let cause = WaitCause::Backoff { node: id("n2"), detail: end.to_string() };
    s.waits(Subject::Slot(slot("web/0")), cause, Some(3_000));
    let view = s.view(None);
    assert!(view.instances.values().next().unwrap().exit.as_ref().unwrap().oom);
    insta::assert_snapshot!(format!("{}\n{}", text(&view), why_text(&view, "web/0")));
}

#[test]
fn a_drain_with_a_move_shows_progress_and_what_blocks_it() {
    let mut s = three_with_services();
    let Reply::Began(drain) = s.ok(Command::Drain { node: id("n2"), max_in_flight: 2 }) else { panic!() };
    let migrate = Command::Migrate { slot: slot("db/0"), to: None, parent: Some(drain) };
    let Reply::Began(migration) = s.ok(migrate) else { panic!() };
    let step = OperationStep::Prepare { target: id("n3") };
    s.ok(Command::Advance { operation: migration, from: 0, step });
    let detail = "2 of 2 moves are under way".to_owned();
    s.waits(Subject::Operation(drain), WaitCause::Throttled { detail }, None);
    let view = s.view(None);
    insta::assert_snapshot!(format!("{}\n{}", text(&view), why_text(&view, &format!("operation {drain}"))));
}

#[test]
fn a_node_without_a_cluster_says_how_to_begin() {
    let mut s = Scene::new(&[]);
    s.state = State::empty();
    let view = s.view(None);
    insta::assert_snapshot!(text(&view));
}

#[test]
fn what_runs_under_a_void_token_is_shown_until_it_is_gone() {
    let mut s = three_with_services();
    let void = Token { epoch: crate::ids::Epoch(1), revision: Revision(1) };
    s.report("web/0", "n2", void, InstancePhase::Running, Health::Healthy);
    let view = s.view(None);
    assert!(view.instances.contains_key("web/0@1.1"));
    assert!(why_text(&view, "web/0@1.1").contains("a token that is void; n2 stops it"));
}

#[test]
fn what_did_not_change_is_shared_with_the_view_before() {
    let mut s = three_with_services();
    let first = s.view(None);
    s.deploy("late", "");
    let second = s.view(Some(&first));
    let shared = |key: &str| Arc::ptr_eq(&first.instances[key], &second.instances[key]);
    assert!(first.instances.keys().all(|key| shared(key)));
    assert!(Arc::ptr_eq(&first.events[0], &second.events[0]));
    assert_eq!(second, s.view(None), "the same as one made anew");
}

#[test]
fn the_view_has_the_field_names_that_scripts_rely_on() {
    let view = three_with_services().view(None);
    let instance = serde_json::to_value(&*view.instances["db/0@1.7"]).unwrap();
    for field in [
        "slot",
        "id",
        "service",
        "node",
        "state",
        "health",
        "armed",
        "token",
        "pid",
        "started_at",
        "restarts",
        "exit",
        "waiting",
    ] {
        assert!(instance.get(field).is_some(), "{field} is missing");
    }
    assert_eq!((&instance["state"], &instance["id"]), (&"running".into(), &"db/0@1.7".into()));
    let node = serde_json::to_value(&*view.nodes[&id("n2")]).unwrap();
    assert_eq!(
        (&node["state"], &node["voter"], &node["schedulable"]),
        (&"alive".into(), &true.into(), &true.into())
    );
    let service = serde_json::to_value(&*view.services[&"web".parse::<ServiceName>().unwrap()]).unwrap();
    assert_eq!(service["replicas"], serde_json::json!({"wanted": 2, "running": 2, "healthy": 2}));
    let why = serde_json::to_value(&*why(&view, "db").unwrap()).unwrap();
    assert_eq!(why["subject"], "service db");
}

#[test]
fn two_nodes_are_told_that_they_survive_no_loss() {
    let mut s = Scene::new(&["n1", "n2"]);
    s.observed.raft.voters = vec![RaftId(1)];
    let view = s.view(None);
    assert_eq!(view.verdict.level, Level::Warning);
    assert!(view.verdict.sentence.contains("n1 and n2 cannot survive a loss"), "{}", view.verdict.sentence);
}

//! A simulated cluster as one of its nodes would show it: the same `view` as everywhere, over what that node
//! knows. For people only: nothing that is made here decides anything in the world.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use super::ctx::{Ctx, Happening};
use super::host::Host;
use super::network::SEGMENTS;
use super::node::Node;
use crate::detect::detect;
use crate::ids::{NodeId, Segment};
use crate::lease::{Beat, Lease};
use crate::observation::Heard;
use crate::reach::{LinkFault, Row, Rows, Told, Way};
use crate::state::{Subject, Waiting};
use crate::units::{BootMs, Millis};
use crate::view::{ClusterKind, ClusterView, Look, view};

/// Between two probes of each way, in microseconds of true time.
pub(super) const PROBE_US: u64 = 250_000;
/// A round trip that nobody has drawn, in microseconds.
const RTT_US: u32 = 1_600;

/// What a leader passes on with an answer: what it heard of everybody, and what waits for what.
#[derive(Debug, Clone)]
pub(super) struct Word {
    /// By the leader's clock.
    pub(super) at: BootMs,
    pub(super) heard: OrdMap<NodeId, Heard>,
    pub(super) waiting: Arc<BTreeMap<Subject, Vec<Waiting>>>,
    pub(super) quorum_age: Option<Millis>,
}

/// What a node process knows beside what it decides by.
#[derive(Debug, Default)]
pub(super) struct Sights {
    ways: BTreeMap<(NodeId, Segment), Way>,
    rows: Rows,
    /// The leader's newest word and when it came.
    word: Option<(BootMs, Arc<Word>)>,
}

impl Sights {
    pub(super) fn take_word(&mut self, word: Arc<Word>, now: BootMs) {
        self.word = Some((now, word));
    }

    fn way(&mut self, to: &NodeId, segment: &Segment, now: BootMs) -> &mut Way {
        self.ways.entry((to.clone(), segment.clone())).or_insert_with(|| Way::new(now))
    }
}

/// The names of the simulated segments.
pub(super) fn segments() -> Vec<Segment> {
    ["mgmt", "data"].into_iter().take(SEGMENTS).filter_map(|name| Segment::new(name).ok()).collect()
}

fn answers(host: &Host) -> bool {
    host.lives() && !host.node_frozen && host.node.is_some()
}

/// Every node probes every other on every segment, and they tell one another their rows.
pub(super) fn probe(hosts: &mut [Host], ctx: &mut Ctx) {
    ctx.after(PROBE_US, Happening::Probe);
    for from in 0..hosts.len() {
        for to in (0..hosts.len()).filter(|to| *to != from) {
            for (at, segment) in segments().iter().enumerate() {
                let forth = ctx.network.open(from, to, at, ctx.now);
                let back = ctx.network.open(to, from, at, ctx.now);
                ping(hosts, ctx, (from, to), segment, forth, back);
            }
        }
    }
    for host in hosts.iter_mut().filter(|host| answers(host)) {
        make_row(host, ctx);
    }
}

fn ping(
    hosts: &mut [Host],
    ctx: &Ctx,
    (from, to): (usize, usize),
    segment: &Segment,
    forth: bool,
    back: bool,
) {
    let up = answers(&hosts[to]);
    let (name, other) = (hosts[from].name.clone(), hosts[to].name.clone());
    if !answers(&hosts[from]) {
        return;
    }
    if forth && up {
        let (now, lease) = (hosts[to].clock(ctx.now), lease_length(&hosts[to]));
        let rows = told(&hosts[from], &other, ctx);
        if let Some(node) = hosts[to].node.as_mut() {
            node.sights.way(&name, segment, now).heard(now);
            take(&mut node.sights.rows, rows, &name, now, lease);
        }
    }
    let rows = if forth && back && up { Some(told(&hosts[to], &name, ctx)) } else { None };
    // A host that runs and has no node process says at once that nobody listens.
    let refused = forth && back && hosts[to].lives() && hosts[to].node.is_none();
    let (now, lease) = (hosts[from].clock(ctx.now), lease_length(&hosts[from]));
    let Some(node) = hosts[from].node.as_mut() else { return };
    if !node.state.nodes.contains_key(&other) {
        return;
    }
    match rows {
        Some(rows) => {
            node.sights.way(&other, segment, now).good(now, RTT_US);
            take(&mut node.sights.rows, rows, &other, now, lease);
        }
        None => {
            let fault = if refused { LinkFault::Refused } else { LinkFault::Silent };
            node.sights.way(&other, segment, now).missed(now, fault);
        }
    }
}

fn lease_length(host: &Host) -> Millis {
    host.node.as_ref().map_or(Millis(0), |node| node.state.cluster.settings.terms.lease)
}

/// What one node tells another of everybody.
fn told(host: &Host, to: &NodeId, ctx: &Ctx) -> Vec<(Arc<Row>, Millis)> {
    let now = host.clock(ctx.now);
    host.node.as_ref().map_or_else(Vec::new, |node| node.sights.rows.news(&mut Told::default(), to, now))
}

fn take(known: &mut Rows, rows: Vec<(Arc<Row>, Millis)>, by: &NodeId, now: BootMs, patience: Millis) {
    for (row, age) in rows {
        let direct = row.from == *by;
        known.take(Arc::unwrap_or_clone(row), age, direct, now, patience);
    }
}

fn make_row(host: &mut Host, ctx: &Ctx) {
    let (now, boot, from) = (host.clock(ctx.now), host.boot_id(), host.name.clone());
    let term = host.disk.log.term;
    let Some(node) = host.node.as_mut() else { return };
    let known = node.state.nodes.clone();
    node.sights.ways.retain(|(to, _), _| known.contains_key(to));
    node.sights.rows.retain(|of| known.contains_key(of));
    let tried = node.sights.ways.iter().filter(|(_, way)| way.tried());
    let row = Row {
        from,
        boot,
        made: now,
        links: tried.map(|((to, segment), way)| way.report(to, segment, now)).collect(),
        arbiters: Vec::new(),
        leader: leader(node),
        term,
        lease_left: node
            .holder
            .lease()
            .filter(|lease| !lease.lost)
            .map_or(Millis(0), |l| now.until(l.valid_until)),
    };
    let patience = node.state.cluster.settings.terms.lease;
    node.sights.rows.take(row, Millis(0), true, now, patience);
}

fn leader(node: &Node) -> Option<NodeId> {
    node.replica.leader.and_then(|id| node.state.node_of(id)).map(|(name, _)| name.clone())
}

/// What this node's screen would show; nothing while its process does not run.
pub(super) fn of(host: &Host, ctx: &Ctx, previous: Option<&ClusterView>) -> Option<ClusterView> {
    let node = host.node.as_ref()?;
    let now = host.clock(ctx.now);
    let mut observed = node.observed(host, now);
    let mut waiting = Arc::new(BTreeMap::new());
    let mut waiting_age = now.since(BootMs(0));
    if let Some(leading) = &node.leading {
        waiting = Arc::new(leading.plan.waiting.clone());
        waiting_age = leading.planned.map_or(Millis(0), |at| now.since(at));
    } else if let Some((came, word)) = &node.sights.word {
        waiting = word.waiting.clone();
        waiting_age = now.since(*came);
        observed.raft.quorum_ack_age = word.quorum_age.map(|age| age + waiting_age);
        let here = |at: BootMs| BootMs(came.0.saturating_sub(word.at.since(at).0));
        for (name, heard) in word.heard.iter() {
            let (received, answered) = (here(heard.received), heard.answered.map(here));
            let heard = Heard { received, answered, echo_rose: received, report: heard.report.clone() };
            observed.nodes.insert(name.clone(), heard);
        }
    }
    let standing = node.state.nodes.get(&host.name).map(|record| record.lease_standing());
    let own = node.report(
        host,
        Beat {
            heartbeat: 0,
            echo: 0,
            lease_epoch: standing.map_or_else(Default::default, |own| own.lease_epoch),
            wants_rejoin: node.holder.wants_rejoin(standing),
        },
    );
    let known = observed.nodes.get(&host.name).and_then(|heard| heard.answered);
    let own = Heard { received: now, answered: known, echo_rose: now, report: own };
    observed.nodes.insert(host.name.clone(), own);
    observed.reach = node.sights.rows.reach(Millis(0));
    let verdicts = detect(&observed, &node.state);
    let lease: Option<&Lease> = node.holder.lease();
    Some(view(&Look {
        state: &node.state,
        observed: &observed,
        verdicts: &verdicts,
        waiting: &waiting,
        waiting_age,
        lease,
        at: host.wall(ctx.now),
        kind: ClusterKind::Sim,
        previous,
    }))
}

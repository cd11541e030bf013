//! What the hosts share: true time, the queue of what is to happen, chance, the network, the transcript, and
//! the word on what truly happened for the checkers. Knows no host.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{Arguments, Write as _};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::faults::Fault;
use super::guard::Call;
use super::host::{Host, Process};
use super::invariants::Truth;
use super::log::{Entry, LogMessage};
use super::network::Network;
use super::random::Random;
use super::scene::{Behaviour, Device};
use super::{Count, Plant};
use crate::command::Proposal;
use crate::event::EventRecord;
use crate::ids::{NodeId, OperationId, RaftId, ServiceName, SlotId};
use crate::lease::LeaseAnswer;
use crate::observation::{ExitKind, NodeReport, Observed};
use crate::state::{Answer, NodeStanding, Plan, Rejection, State};
use crate::units::{BootMs, Millis};

/// Lines kept for a violation.
const LAST_LINES: usize = 60;

/// What hosts send one another.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Log { from: RaftId, message: LogMessage },
    Beat { session: u64, report: Arc<NodeReport> },
    Answer { session: u64, answer: LeaseAnswer },
    Ask { proposal: Box<Proposal>, origin: Origin, hops: u32 },
    FetchAsk { operation: OperationId, pass: u32, slot: SlotId },
    FetchGive { operation: OperationId, pass: u32, content: u64 },
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Nobody,
    Client(usize),
}

/// What is to happen at a moment.
#[derive(Debug)]
pub(super) enum Happening {
    Slice { host: usize },
    Deliver { from: usize, to: usize, message: Message },
    Call { host: usize, boots: u64, call: Call },
    Spawn { host: usize, boots: u64, slot: SlotId, serial: u64 },
    End { host: usize, serial: u64, kind: ExitKind },
    Fence { by: usize, session: u64, target: usize, operation: OperationId, attempt: u32, quorate: bool },
    FenceRead { by: usize, session: u64, target: usize, operation: OperationId, attempt: u32 },
    PowerOn { host: usize },
    StartNode { host: usize },
    StartGuard { host: usize },
    ThawNode { host: usize },
    ThawGuard { host: usize },
    Fault(Fault),
    Operate,
    AskAgain { ask: usize },
    Answered { ask: usize, answer: Answer },
    Heal,
    TidyUp,
    Inspect,
}

/// Everything but the hosts.
pub(super) struct Ctx {
    /// True time in microseconds.
    pub(super) now: u64,
    pub(super) random: Random,
    pub(super) steps: u64,
    pub(super) counts: BTreeMap<Count, u64>,
    pub(super) network: Network,
    pub(super) healed: bool,
    pub(super) queue: BTreeMap<(u64, u64), Happening>,
    pub(super) sequence: u64,
    pub(super) serials: u64,
    pub(super) names: BTreeMap<NodeId, usize>,
    pub(super) routes: BTreeMap<RaftId, usize>,
    pub(super) behaviours: BTreeMap<ServiceName, Behaviour>,
    pub(super) devices: Vec<Device>,
    pub(super) truth: Vec<Truth>,
    pub(super) plant: Option<Plant>,
    pub(super) lines: VecDeque<String>,
    pub(super) kept: Option<Vec<String>>,
    pub(super) hash: u64,
}

impl Ctx {
    pub(super) fn plant(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    pub(super) fn count(&mut self, what: Count) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    pub(super) fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    /// May things still go wrong?
    pub(super) fn faulty(&self) -> bool {
        !self.healed
    }

    pub(super) fn after(&mut self, delay_us: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + delay_us, self.sequence), happening);
    }

    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        let [first, second] = self.network.delays(from, to, self.now, &mut self.random);
        if let Some(delay) = second {
            self.after(delay, Happening::Deliver { from, to, message: message.clone() });
        }
        match first {
            Some(delay) => self.after(delay, Happening::Deliver { from, to, message }),
            None => self.count(Count::MessagesLost),
        }
    }

    /// A node speaks to its own guard: in order mostly, sometimes late or twice.
    pub(super) fn call(&mut self, host: &Host, call: Call) {
        let late = if self.random.percent(5) { self.random.below(60_000) } else { 0 };
        let delay = self.random.between(300, 4_000) + late;
        if self.faulty() && self.random.percent(3) {
            let again = Happening::Call { host: host.index, boots: host.boots, call: call.clone() };
            let delay = delay + self.random.below(150_000);
            self.after(delay, again);
        }
        self.after(delay, Happening::Call { host: host.index, boots: host.boots, call });
    }

    pub(super) fn reply(&mut self, origin: Origin, answer: Answer) {
        let Origin::Client(ask) = origin else { return };
        let lost = self.faulty() && self.random.percent(8);
        if !lost {
            let delay = self.random.between(500, 20_000);
            self.after(delay, Happening::Answered { ask, answer });
        }
    }

    pub(super) fn host_of(&self, id: RaftId) -> Option<usize> {
        self.routes.get(&id).copied()
    }

    pub(super) fn host_named(&self, node: &NodeId) -> Option<usize> {
        self.names.get(node).copied()
    }

    /// The names of all nodes.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.names.keys().cloned().collect()
    }

    pub(super) fn behaviour(&self, service: &ServiceName) -> Behaviour {
        self.behaviours.get(service).copied().unwrap_or_default()
    }

    pub(super) fn fence_device(&self, target: usize) -> Device {
        self.devices.get(target).copied().unwrap_or_default()
    }

    /// Adds a line to the transcript.
    pub(super) fn note(&mut self, what: Arguments<'_>) {
        let mut line = String::new();
        let (s, us) = (self.now / 1_000_000, self.now % 1_000_000);
        // Writing to a string cannot fail.
        let _ = write!(line, "{s:>4}.{us:06} {what}");
        self.hash = xxh3_64_with_seed(line.as_bytes(), self.hash);
        if let Some(kept) = &mut self.kept {
            kept.push(line.clone());
        }
        self.lines.push_back(line);
        if self.lines.len() > LAST_LINES {
            self.lines.pop_front();
        }
    }

    // What truly happens, for the checkers.

    pub(super) fn spawned(&mut self, host: usize, process: Process) {
        self.note(format_args!(
            "host {host} runs {}@{} restart {}",
            process.slot, process.token, process.restart
        ));
        self.truth.push(Truth::Spawned { host, process });
    }

    pub(super) fn gone(&mut self, host: usize, process: &Process) {
        self.note(format_args!("host {host} ends {}@{}", process.slot, process.token));
    }

    pub(super) fn fetched(&mut self, from: usize, to: usize, operation: OperationId) {
        self.truth.push(Truth::Fetched { from, to, operation });
    }

    pub(super) fn moved_in(&mut self, host: usize, slot: &SlotId, operation: OperationId, content: u64) {
        self.truth.push(Truth::MovedIn { host, slot: slot.clone(), operation, content });
    }

    pub(super) fn beat_sent(&mut self, host: usize, session: u64, heartbeat: u64, at: BootMs) {
        self.truth.push(Truth::BeatSent { host, session, heartbeat, at });
    }

    pub(super) fn applied(&mut self, host: usize, state: &State, entry: &Entry, events: &[Arc<EventRecord>]) {
        let (revision, hash) = (state.revision, state.hash());
        let entry = entry.clone();
        self.truth.push(Truth::Applied { host, revision, hash, entry, events: events.to_vec() });
    }

    pub(super) fn refused(&mut self, proposal: &Proposal, why: &Rejection) {
        self.count(Count::PlansRefused);
        self.note(format_args!("refused to the planner: {:?}: {why}", proposal.command));
        self.truth.push(Truth::Refused(Box::new(proposal.clone()), why.to_string()));
    }

    pub(super) fn planned(&mut self, state: &State, observed: &Observed, plan: &Plan) {
        let seen = Box::new((state.clone(), observed.clone(), plan.clone()));
        self.truth.push(Truth::Planned(seen));
    }

    // Planted bugs that are none of a host's own.

    /// Changes State behind apply's back, where a bug is planted that does.
    pub(super) fn spoil(&self, host: usize, state: &mut State) {
        if self.plant(Plant::UnequalApply) && host == 1 && state.revision.0 > 60 {
            state.cluster.kv_bytes += 1;
        }
        if self.plant(Plant::ForgetClaimsOfLost) {
            let lost = |node: &NodeId| {
                state
                    .nodes
                    .get(node)
                    .is_some_and(|record| matches!(record.standing, NodeStanding::Lost { .. }))
            };
            let hit = |(slot, record): (&SlotId, &crate::state::SlotRecord)| {
                record.claims.iter().any(|claim| lost(&claim.node)).then(|| slot.clone())
            };
            let slots: Vec<SlotId> = state.slots.iter().filter_map(hit).collect();
            let gone: Vec<NodeId> = state.nodes.keys().filter(|node| lost(node)).cloned().collect();
            for slot in slots {
                state.slots.update(&slot, |record| {
                    record.claims.retain(|claim| !gone.contains(&claim.node));
                });
            }
        }
    }

    /// Shifts the leader's view of time, where a bug is planted that does.
    pub(super) fn misjudge(&self, mut observed: Observed) -> Observed {
        if self.plant(Plant::ImpatientSilence) {
            // As if every node had been silent for long, as soon as it is lost.
            let long = Millis(60_000);
            observed.now = observed.now + long;
            let heard: Vec<(NodeId, BootMs)> = observed
                .nodes
                .iter()
                .filter(|(_, heard)| observed.now.since(heard.received).0 < 61_000)
                .map(|(node, heard)| (node.clone(), heard.received + long))
                .collect();
            for (node, received) in heard {
                if let Some(heard) = observed.nodes.get_mut(&node) {
                    heard.received = received;
                    heard.echo_rose = heard.echo_rose + long;
                }
            }
            observed.raft.leading_since = observed
                .raft
                .leading_since
                .map(|since| if observed.now.since(since).0 < 61_000 { since + long } else { since });
            observed.known_since =
                observed.known_since.iter().map(|(n, at)| (n.clone(), *at + long)).collect();
        }
        observed
    }
}

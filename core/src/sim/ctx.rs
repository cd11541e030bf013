//! What the hosts share: true time, the queue of what is to happen, chance, the network, the transcript, and
//! the word on what truly happened for the checkers. Knows no host.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{Arguments, Write as _};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Count;
use super::guard::Call;
use super::host::{Host, Process};
use super::invariants::Truth;
use super::log::{Entry, LogMessage};
use super::look::Word;
use super::network::Network;
use super::random::Random;
use super::scene::{Behaviour, Device};
use super::script::Deed;
use super::story::{self, Told};
use super::switches::{Broken, Plant, Rule};
use crate::command::Proposal;
use crate::event::{Event, EventRecord};
use crate::ids::{InstanceId, NodeId, OperationId, RaftId, Revision, ServiceName, SlotId};
use crate::lease::LeaseAnswer;
use crate::observation::{ExitKind, NodeReport, Observed};
use crate::state::{Answer, Plan, Rejection, State};
use crate::units::BootMs;

/// Lines kept for a violation.
const LAST_LINES: usize = 60;

/// What hosts send one another.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Log {
        from: RaftId,
        to: RaftId,
        message: LogMessage,
    },
    /// Said to a member of another history than the sender's.
    Refused,
    Beat {
        session: u64,
        report: Arc<NodeReport>,
    },
    Answer {
        session: u64,
        answer: LeaseAnswer,
        word: Option<Arc<Word>>,
    },
    Ask {
        proposal: Box<Proposal>,
        origin: Origin,
        hops: u32,
    },
    FetchAsk {
        operation: OperationId,
        pass: u32,
        slot: SlotId,
    },
    FetchGive {
        operation: OperationId,
        pass: u32,
        content: u64,
    },
}

/// Which run of the log a disk belongs to. A recovery begins a new one, which shares its first entries with the one
/// before; that the two are told apart is what epochs, and a restored cluster's new secret, are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct History {
    /// Counted by restores: members of another cluster are strangers.
    pub(super) cluster: u32,
    /// Counted by forced quorums and restores alike; 0 where a disk belongs to none yet.
    pub(super) number: u32,
}

impl History {
    pub(super) const FIRST: Self = Self { cluster: 1, number: 1 };
    pub(super) const NONE: Self = Self { cluster: 0, number: 0 };
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Nobody,
    Client(usize),
    /// A host that asks to be admitted with a new disk.
    Joiner {
        host: usize,
        disk: u64,
    },
}

/// A fencing under way: who does it for which attempt, and whether a quorum stood behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fencing {
    pub(super) by: usize,
    pub(super) session: u64,
    pub(super) target: usize,
    pub(super) operation: OperationId,
    pub(super) attempt: u32,
    pub(super) quorate: bool,
}

/// What is to happen at a moment.
#[derive(Debug)]
pub(super) enum Happening {
    Slice {
        host: usize,
    },
    Deliver {
        from: usize,
        /// The history that the sender was a member of, as it sent this.
        history: History,
        to: usize,
        message: Message,
    },
    Call {
        host: usize,
        boots: u64,
        call: Call,
    },
    Spawn {
        host: usize,
        boots: u64,
        slot: SlotId,
        serial: u64,
    },
    End {
        host: usize,
        serial: u64,
        kind: ExitKind,
    },
    Fence(Fencing),
    FencePower(Fencing),
    FenceRead(Fencing),
    PowerOn {
        host: usize,
    },
    StartNode {
        host: usize,
    },
    StartGuard {
        host: usize,
    },
    ThawNode {
        host: usize,
    },
    ThawGuard {
        host: usize,
    },
    StartTwin {
        host: usize,
    },
    ThawTwin {
        host: usize,
    },
    Resume {
        host: usize,
    },
    /// Somebody sees to hosts that are in no cluster.
    LookAfter,
    Admitted {
        host: usize,
        disk: u64,
        answer: Answer,
    },
    /// Operators force a quorum of these hosts, all others being gone.
    Force {
        survivors: Vec<usize>,
        ms: u64,
        crash: bool,
    },
    Step(Deed),
    /// All nodes probe one another, for their screens.
    Probe,
    /// What is expected at this moment is looked at.
    Expect,
    Operate,
    AskAgain {
        ask: usize,
    },
    Answered {
        ask: usize,
        answer: Answer,
    },
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
    /// The newest revision applied anywhere.
    pub(super) newest: Revision,
    /// The history that goes on.
    pub(super) history: History,
    /// That of each host's disk.
    pub(super) histories: Vec<History>,
    pub(super) truth: Vec<Truth>,
    pub(super) broken: Broken,
    /// Nothing goes wrong by chance alone: what a script says is all that happens.
    pub(super) calm: bool,
    pub(super) lines: VecDeque<String>,
    pub(super) kept: Option<Vec<String>>,
    /// What is worth telling, if somebody listens.
    pub(super) story: Option<Vec<Told>>,
    /// Do screens show this world?
    pub(super) shown: bool,
    pub(super) hash: u64,
}

impl Ctx {
    pub(super) fn has(&self, plant: Plant) -> bool {
        self.broken.has(plant)
    }

    pub(super) fn lacks(&self, rule: Rule) -> bool {
        self.broken.lacks(rule)
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
        !self.healed && !self.calm
    }

    pub(super) fn after(&mut self, delay_us: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + delay_us, self.sequence), happening);
    }

    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        let [first, second] = self.network.delays(from, to, self.now, &mut self.random);
        let history = self.histories[from];
        if let Some(delay) = second {
            self.after(delay, Happening::Deliver { from, history, to, message: message.clone() });
        }
        match first {
            Some(delay) => self.after(delay, Happening::Deliver { from, history, to, message }),
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
        let lost = self.faulty() && self.random.percent(8);
        let delay = self.random.between(500, 20_000);
        match origin {
            Origin::Nobody => {}
            Origin::Client(_) | Origin::Joiner { .. } if lost => {}
            Origin::Client(ask) => self.after(delay, Happening::Answered { ask, answer }),
            Origin::Joiner { host, disk } => self.after(delay, Happening::Admitted { host, disk, answer }),
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
        story::spawned(self, host, &process);
        self.truth.push(Truth::Spawned { host, process });
    }

    /// A process is gone; without a reason its host went.
    pub(super) fn gone(&mut self, host: usize, process: Process, end: Option<ExitKind>) {
        self.note(format_args!("host {host} ends {}@{}", process.slot, process.token));
        story::gone(self, host, &process, end);
        self.truth.push(Truth::Gone { host, process, end });
    }

    pub(super) fn fetched(&mut self, from: usize, to: usize, operation: OperationId) {
        self.truth.push(Truth::Fetched { from, to, operation });
    }

    pub(super) fn moved_in(&mut self, host: usize, id: &InstanceId, operation: OperationId, content: u64) {
        let (slot, token) = (id.slot.clone(), id.token);
        self.truth.push(Truth::MovedIn { host, slot, token, operation, content });
    }

    pub(super) fn beat_sent(&mut self, host: &Host, session: u64, heartbeat: u64, at: BootMs) {
        let (armed, host) = (host.armed(), host.index);
        self.truth.push(Truth::BeatSent { host, session, heartbeat, at, armed });
    }

    pub(super) fn applied(&mut self, host: usize, state: &State, entry: &Entry, events: &[Arc<EventRecord>]) {
        let (revision, hash) = (state.revision, state.hash());
        let (history, epoch) = (self.histories[host], state.cluster.epoch);
        if history == self.history && revision > self.newest {
            self.newest = revision;
            events.iter().for_each(|record| story::decided(self, record));
        }
        let tells = |record: &Arc<EventRecord>| {
            matches!(record.event, Event::OperationEnded { .. } | Event::InventoryTaken { .. })
        };
        let state = events.iter().any(tells).then(|| Box::new(state.clone()));
        let entry = entry.clone();
        let events = events.to_vec();
        self.truth.push(Truth::Applied { host, history, epoch, revision, hash, entry, events, state });
    }

    /// The log went on as the history of now: surely with all up to `kept`, and by a recovery at `at`.
    pub(super) fn forked(&mut self, kept: Revision, at: Revision) {
        self.truth.push(Truth::Forked { kept, at, history: self.history });
    }

    pub(super) fn refused(&mut self, proposal: &Proposal, why: &Rejection) {
        self.count(Count::PlansRefused);
        self.note(format_args!("refused to the planner: {:?}: {why}", proposal.command));
        self.truth.push(Truth::Refused(Box::new(proposal.clone()), why.to_string()));
    }

    pub(super) fn planned(&mut self, state: &State, observed: Observed, plan: &Plan) {
        let seen = Box::new((state.clone(), observed, plan.clone()));
        self.truth.push(Truth::Planned(seen));
    }
}

//! The operators of the simulated cluster: they deploy, scale, drain, migrate, fence, attest only what is
//! truly dead, write keys, and ask again under the same request number until they are answered.

use std::sync::Arc;

use super::Count;
use super::ctx::{Ctx, Happening, History, Message, Origin};
use super::disaster;
use super::host::Host;
use super::invariants::Truth;
use super::random::Random;
use super::scenario::asked;
use crate::command::{Actor, Command, Proposal};
use crate::ids::{ClientId, NodeId, RequestId, Revision, SlotId};
use crate::settings::SettingChange;
use crate::spec::ServiceSpec;
use crate::state::{Answer, State};
use crate::units::{Millis, WallMs};

/// Asked again after this, in microseconds of true time.
const AGAIN_US: u64 = 900_000;
/// Given up after so many tries; before the heal only.
const TRIES: u32 = 12;

/// One request of an operator.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) proposal: Proposal,
    pub(super) answer: Option<Answer>,
    tries: u32,
}

/// Everybody who asks for something.
pub(super) struct Operator {
    services: Vec<Arc<ServiceSpec>>,
    asks: Vec<Ask>,
    begun: bool,
    /// Goes on asking for things by chance.
    busy: bool,
    /// The acts that undo what would keep work from running.
    last_acts: bool,
}

impl Operator {
    pub(super) fn new(services: Vec<Arc<ServiceSpec>>, busy: bool) -> Self {
        Self { services, asks: Vec::new(), begun: false, busy, last_acts: false }
    }

    pub(super) fn services(&self) -> &[Arc<ServiceSpec>] {
        &self.services
    }

    pub(super) fn asks(&self) -> &[Ask] {
        &self.asks
    }

    /// Is everything answered that has to be?
    pub(super) fn settled(&self) -> Result<(), String> {
        let open = |ask: &&Ask| ask.answer.is_none() && ask.tries < TRIES;
        match self.asks.iter().find(open) {
            Some(ask) if self.last_acts => Err(format!("no answer to {:?}", ask.proposal.command)),
            Some(_) | None => Ok(()),
        }
    }

    /// One more act, and when the next.
    pub(super) fn act(&mut self, hosts: &[Host], ctx: &mut Ctx) {
        if ctx.healed {
            return;
        }
        if self.busy {
            let next = ctx.random.between(150, 1_600) * 1_000;
            ctx.after(next, Happening::Operate);
        }
        if !self.begun {
            self.begun = true;
            for spec in self.services.clone() {
                self.begin(ctx, Command::Deploy { spec }, None);
            }
            return;
        }
        let Some(state) = newest(hosts, ctx) else { return };
        if let Some((command, expected)) = self.draw(hosts, state, ctx) {
            self.begin(ctx, command, expected);
        }
    }

    pub(super) fn begin(&mut self, ctx: &mut Ctx, command: Command, expected: Option<Revision>) {
        let sequence = self.asks.len() as u64 + 1;
        let client = ClientId(format!("client-{}", sequence % 3));
        ctx.note(format_args!("operator asks {sequence}: {command:?}"));
        if !ctx.healed {
            ctx.tell("operator", format_args!("asks: {}", asked(&command)));
        }
        let proposal = Proposal {
            request: Some(RequestId { client, sequence, settled: 0 }),
            actor: Actor::Operator { name: "op".to_owned(), from: "sim".to_owned() },
            at: WallMs(3_600_000 + ctx.now / 1_000),
            expected,
            command,
        };
        self.asks.push(Ask { proposal, answer: None, tries: 0 });
        ctx.after(0, Happening::AskAgain { ask: self.asks.len() - 1 });
    }

    /// Sends a request to some node, unless it is answered.
    pub(super) fn ask(&mut self, at: usize, hosts: &mut [Host], ctx: &mut Ctx) {
        let Some(ask) = self.asks.get_mut(at) else { return };
        if ask.answer.is_some() || ask.tries >= TRIES {
            return;
        }
        // What is asserted of a host must still be true when it is said again.
        if let Command::AttestDead { node, .. } = &ask.proposal.command
            && ctx.host_named(node).is_some_and(|host| hosts[host].on)
        {
            ask.tries = TRIES;
            return;
        }
        if ask.tries > 0 {
            ctx.count(Count::Retried);
        }
        if ask.tries == 1 && !ctx.healed {
            ctx.tell(
                "operator",
                format_args!("has no answer yet to {} and asks again", asked(&ask.proposal.command)),
            );
        }
        ask.tries += 1;
        let to = ctx.random.index(hosts.len());
        let message =
            Message::Ask { proposal: Box::new(ask.proposal.clone()), origin: Origin::Client(at), hops: 0 };
        let delay = ctx.random.between(300, 5_000);
        ctx.after(delay, Happening::Deliver { from: to, history: History::NONE, to, message });
        ctx.after(AGAIN_US, Happening::AskAgain { ask: at });
    }

    /// An answer came.
    pub(super) fn answered(&mut self, at: usize, answer: Answer, ctx: &mut Ctx) -> Option<Truth> {
        let ask = self.asks.get_mut(at)?;
        let first = ask.answer.clone();
        if first.is_none() {
            let ok = answer.result.is_ok();
            ctx.count(if ok { Count::Acknowledged } else { Count::Refused });
            ctx.note(format_args!("operator is answered {}: {:?}", at + 1, answer.result));
            if let (false, Err(why)) = (ctx.healed, &answer.result) {
                ctx.tell("operator", format_args!("is refused {}: {why}", asked(&ask.proposal.command)));
            }
            ask.answer = Some(answer.clone());
        }
        Some(Truth::Answered { ask: at, first, answer })
    }

    /// Nobody asks again for what was not answered before the heal.
    pub(super) fn give_up(&mut self) {
        self.asks.iter_mut().filter(|ask| ask.answer.is_none()).for_each(|ask| ask.tries = TRIES);
    }

    /// After the heal: nothing that was asked may keep work from running.
    pub(super) fn tidy_up(&mut self, ctx: &mut Ctx) {
        self.last_acts = true;
        let nodes: Vec<NodeId> = ctx.nodes();
        for node in nodes {
            self.begin(ctx, Command::Uncordon { node }, None);
        }
        let key = b"last".to_vec();
        let put = Command::KvPut { key, value: b"word".to_vec(), ttl: None, if_revision: None };
        self.begin(ctx, put, None);
    }

    fn draw(&self, hosts: &[Host], state: &State, ctx: &mut Ctx) -> Option<(Command, Option<Revision>)> {
        let random = &mut ctx.random;
        let spec = self.services.get(random.index(self.services.len()))?.clone();
        let service = spec.name.clone();
        let host = hosts.get(random.index(hosts.len()))?;
        let node = host.name.clone();
        let command = match random.below(34) {
            0..=4 => {
                let key = vec![b'a' + u8::try_from(random.below(6)).unwrap_or(0)];
                let value = random.bits().to_be_bytes().to_vec();
                let ttl = random.percent(20).then(|| Millis(random.between(200, 3_000)));
                Command::KvPut { key, value, ttl, if_revision: None }
            }
            5 => Command::KvDelete { key: b"a".to_vec(), range_end: Some(b"c".to_vec()) },
            6 | 7 => Command::Restart { service },
            8..=10 => {
                let mut spec = (*spec).clone();
                spec.resources.cpu.0 += u32::try_from(random.below(5)).unwrap_or(0);
                Command::Deploy { spec: Arc::new(spec) }
            }
            11 => Command::Scale { service, replicas: u32::try_from(random.below(4)).unwrap_or(1) },
            12 => Command::StopService { service },
            13 => Command::DeleteService { service },
            14 | 15 => {
                ctx.count(Count::Drains);
                Command::Drain { node, max_in_flight: 2 }
            }
            16 | 17 => Command::Uncordon { node },
            18 => Command::Cordon { node, on: random.percent(50) },
            19..=22 => {
                let slots: Vec<&SlotId> =
                    state.slots.iter().filter(|(_, r)| !r.claims.is_empty()).map(|(id, _)| id).collect();
                let slot = (*slots.get(random.index(slots.len().max(1)))?).clone();
                let to = random.percent(50).then_some(node);
                ctx.count(Count::Migrations);
                Command::Migrate { slot, to, parent: None }
            }
            23 => Command::Fence { node, reason: "maintenance".to_owned() },
            24 => {
                let running: Vec<_> =
                    state.operations.iter().filter(|(_, op)| op.ended.is_none()).map(|(id, _)| *id).collect();
                let operation = *running.get(random.index(running.len().max(1)))?;
                Command::CancelOperation { operation }
            }
            25..=28 => settings(random),
            29 if random.percent(40) => Command::Leave { node },
            _ => return attestation(hosts, state, ctx),
        };
        Some((command, None))
    }
}

/// Timings change while anything may be under way, and what the majority may do by itself.
fn settings(random: &mut Random) -> Command {
    let (name, value) = match random.below(10) {
        0..=4 => ("heartbeat.timeout", ["750ms", "1s", "2s", "4s"][random.index(4)]),
        5 | 6 => ("timing.profile", ["lan", "fast"][random.index(2)]),
        7 => ("split_brain.autonomous_shutdown", ["on", "off", "on"][random.index(3)]),
        8 => ("fencing.auto", ["on", "off"][random.index(2)]),
        _ => ("heartbeat.interval", ["100ms", "200ms"][random.index(2)]),
    };
    Command::ChangeSettings(vec![SettingChange { name: name.to_owned(), value: value.to_owned() }])
}

/// The word of somebody who stands before the machine: only if it is truly off, and only while State says
/// of it what it says now.
fn attestation(hosts: &[Host], state: &State, ctx: &mut Ctx) -> Option<(Command, Option<Revision>)> {
    let dead = hosts.iter().find(|host| !host.on)?;
    let record = state.nodes.get(&dead.name).filter(|record| record.lost())?;
    ctx.count(Count::Attestations);
    let command = Command::AttestDead { node: dead.name.clone(), reason: "seen off".to_owned() };
    Some((command, Some(record.changed)))
}

/// The newest State that any node process of the history that goes on holds.
fn newest<'a>(hosts: &'a [Host], ctx: &Ctx) -> Option<&'a State> {
    let states = hosts
        .iter()
        .filter(|host| disaster::goes_on(host, ctx))
        .filter_map(|host| host.node.as_ref().map(|node| &node.state));
    states.max_by_key(|state| state.revision)
}

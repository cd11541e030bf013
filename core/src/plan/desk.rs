//! What one pass of the planner works on: the inputs, the sums it looks up often, and the plan as it grows.
//! Answers small questions (who is heard, what runs, may this be disturbed); decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::placement::Room;
use crate::command::{Command, OperationStep};
use crate::ids::{NodeId, OperationId, ServiceName, SlotId, Token};
use crate::observation::{Heard, InstancePhase, InstanceReport, NodeVerdict, Observed, Verdicts};
use crate::state::{
    Claim, FencePhase, FenceRecord, MigrationPhase, MigrationRecord, NodeRecord, Operation, OperationKind,
    Plan, Refusal, ServiceRecord, SlotRecord, State, Subject, WaitCause, Waiting,
};
use crate::units::Millis;

/// One pass.
pub(super) struct Desk<'a> {
    pub state: &'a State,
    pub observed: &'a Observed,
    pub verdicts: &'a Verdicts,
    /// Who has room for what, with this pass's own grants counted.
    pub room: Room,
    /// Slots that a running migration has in hand.
    pub moving: BTreeMap<SlotId, OperationId>,
    /// Running fencings by target.
    pub fencing: BTreeMap<NodeId, OperationId>,
    /// Slots that this pass disturbs: they count as unavailable from here on.
    pub disturbed: BTreeSet<SlotId>,
    /// Claims that this pass ends: nothing more is asked of them.
    pub ending: BTreeSet<(SlotId, Token)>,
    /// Claims that this pass tells to stop. By token: another copy of the slot may be elsewhere, and stay.
    stopping: BTreeSet<(SlotId, Token)>,
    /// Nodes that this pass lets back in.
    pub returning: BTreeSet<NodeId>,
    /// Slots that this pass gives a token: one grant or stop a slot and pass.
    decided: BTreeSet<SlotId>,
    /// Where this pass grants a slot.
    pub granting: BTreeMap<SlotId, NodeId>,
    /// Why no node takes a slot.
    pub refusals: BTreeMap<SlotId, Vec<(NodeId, Refusal)>>,
    /// What has been found.
    pub plan: Plan,
}

impl<'a> Desk<'a> {
    /// Lays everything out.
    pub fn new(state: &'a State, observed: &'a Observed, verdicts: &'a Verdicts) -> Self {
        let mut moving = BTreeMap::new();
        let mut fencing = BTreeMap::new();
        for (id, operation) in state.operations.iter().filter(|(_, operation)| operation.ended.is_none()) {
            match &operation.kind {
                OperationKind::Migration(migration) => {
                    moving.insert(migration.slot.clone(), *id);
                }
                OperationKind::Fence(fence) => {
                    fencing.insert(fence.node.clone(), *id);
                }
                OperationKind::Drain(_) | OperationKind::Rollout(_) => {}
            }
        }
        Self {
            state,
            observed,
            verdicts,
            room: Room::new(state),
            moving,
            fencing,
            disturbed: BTreeSet::new(),
            ending: BTreeSet::new(),
            stopping: BTreeSet::new(),
            returning: BTreeSet::new(),
            decided: BTreeSet::new(),
            granting: BTreeMap::new(),
            refusals: BTreeMap::new(),
            plan: Plan { revision: state.revision, ..Plan::default() },
        }
    }

    /// Adds a command.
    pub fn command(&mut self, command: Command) {
        if let Command::StopClaim { slot, token, .. } = &command {
            self.stopping.insert((slot.clone(), *token));
        }
        self.plan.commands.push(command);
    }

    /// Is this claim ended by this pass?
    pub fn ends(&self, slot: &SlotId, claim: &Claim) -> bool {
        self.ending.contains(&(slot.clone(), claim.token))
    }

    /// Is this claim told to stop, by State or by this pass?
    pub fn stops(&self, slot: &SlotId, claim: &Claim) -> bool {
        claim.stop.is_some() || self.stopping.contains(&(slot.clone(), claim.token))
    }

    /// Claims the one token that a slot may be given in this pass. False if it is gone: then the next pass
    /// decides.
    pub fn decide(&mut self, slot: &SlotId) -> bool {
        self.decided.insert(slot.clone())
    }

    /// May this claim's copy be stopped so that another takes its room? Not what is on its way already, nor what an
    /// operation has in hand.
    pub fn may_yield(&self, slot: &SlotId, claim: &Claim) -> bool {
        claim.stop.is_none()
            && !self.moving.contains_key(slot)
            && !self.decided.contains(slot)
            && !self.disturbed.contains(slot)
            && !self.ends(slot, claim)
    }

    /// Takes an operation one step on.
    pub fn advance(&mut self, operation: OperationId, record: &Operation, step: OperationStep) {
        self.command(Command::Advance { operation, from: record.step, step });
    }

    /// Notes what something waits for.
    pub fn wait(&mut self, subject: Subject, cause: WaitCause, left: Option<Millis>) {
        let list = self.plan.waiting.entry(subject).or_default();
        let line = Waiting { cause, left };
        if !list.contains(&line) {
            list.push(line);
        }
    }

    /// Notes what an operation and the slot it is about wait for.
    pub fn wait_both(
        &mut self,
        operation: OperationId,
        slot: &SlotId,
        cause: WaitCause,
        left: Option<Millis>,
    ) {
        self.wait(Subject::Operation(operation), cause.clone(), left);
        self.wait(Subject::Slot(slot.clone()), cause, left);
    }

    /// All running operations.
    pub fn running(&self) -> impl Iterator<Item = (OperationId, &'a Operation)> + use<'a> {
        let state = self.state;
        state.operations.iter().filter(|(_, operation)| operation.ended.is_none()).map(|(id, o)| (*id, o))
    }

    /// The record of a node.
    pub fn record(&self, node: &NodeId) -> Option<&'a NodeRecord> {
        self.state.nodes.get(node)
    }

    /// Is the node committed lost, or not known at all?
    pub fn lost(&self, node: &NodeId) -> bool {
        self.record(node).is_none_or(NodeRecord::lost)
    }

    /// Is it lost, and does this pass leave it so?
    pub fn absent(&self, node: &NodeId) -> bool {
        self.lost(node) && !self.returning.contains(node) && !self.expected(node)
    }

    /// After a recovery all are lost at first: is this one still to be waited for, as if it were alive?
    fn expected(&self, node: &NodeId) -> bool {
        let unsettled = self.record(node).is_some_and(|record| !record.settled());
        unsettled && self.silence(node) < self.state.cluster.settings.terms.lease
    }

    /// Is the node in good standing and beyond doubt?
    pub fn sound(&self, node: &NodeId) -> bool {
        !self.lost(node) && matches!(self.verdicts.nodes.get(node), Some(NodeVerdict::Alive))
    }

    /// The newest report of a node.
    pub fn heard(&self, node: &NodeId) -> Option<&'a Heard> {
        self.observed.nodes.get(node)
    }

    /// How old the newest report is; counted from when this leader could have heard one at the earliest.
    pub fn silence(&self, node: &NodeId) -> Millis {
        let floor = self.observed.raft.leading_since.unwrap_or_default();
        let received = self.heard(node).map_or(floor, |heard| heard.received.max(floor));
        self.observed.now.since(received)
    }

    /// Was the node heard within its last two heartbeats?
    pub fn fresh(&self, node: &NodeId) -> bool {
        let patience = self.state.cluster.settings.terms.heartbeat.0 * 5 / 2;
        self.heard(node).is_some_and(|heard| self.observed.now.since(heard.received).0 < patience)
    }

    /// The running fence operation against a node.
    pub fn fence_of(&self, node: &NodeId) -> Option<(OperationId, &'a FenceRecord)> {
        let id = self.fencing.get(node)?;
        match &self.state.operations.get(id)?.kind {
            OperationKind::Fence(fence) => Some((*id, fence)),
            OperationKind::Drain(_) | OperationKind::Migration(_) | OperationKind::Rollout(_) => None,
        }
    }

    /// Did an operator ask to fence this node whatever it says, and is that not over?
    pub fn condemned(&self, node: &NodeId) -> Option<OperationId> {
        let (id, fence) = self.fence_of(node)?;
        let open = matches!(fence.phase, FencePhase::Requested | FencePhase::Running);
        (fence.forced && open).then_some(id)
    }

    /// Can the node be given work? Its record and report, or why not.
    pub fn usable(&self, node: &NodeId) -> Result<(&'a NodeRecord, &'a Heard), Refusal> {
        let no = |why: String| Err(Refusal::NotAlive(why));
        let Some(record) = self.record(node) else { return no("not admitted".to_owned()) };
        if !record.settled() {
            return no("what runs there is not known since the cluster was recovered".to_owned());
        }
        if record.lost() {
            return no(if record.proof().is_some() { "lost and proven dead" } else { "lost" }.to_owned());
        }
        match self.verdicts.nodes.get(node) {
            Some(NodeVerdict::Alive) => {}
            Some(NodeVerdict::Suspect { because, .. } | NodeVerdict::Lost { because }) => {
                let why = because.first().map_or("silent", String::as_str);
                return no(format!("suspect: {why}"));
            }
            None => return no("not judged yet".to_owned()),
        }
        let Some(heard) = self.heard(node) else { return no("not heard by this leader yet".to_owned()) };
        if heard.report.boot != record.boot {
            return no("rebooted and not let back in yet".to_owned());
        }
        if heard.report.wants_rejoin {
            return no("its lease ran out and it is not let back in yet".to_owned());
        }
        if let Some(operation) = self.condemned(node) {
            return no(format!("to be fenced by operation {operation}"));
        }
        Ok((record, heard))
    }

    /// The service of a slot.
    pub fn service(&self, name: &ServiceName) -> Option<&'a ServiceRecord> {
        self.state.services.get(name)
    }

    /// All slots of a service that have a record.
    pub fn slots_of(
        &self,
        service: &ServiceName,
    ) -> impl Iterator<Item = (&'a SlotId, &'a SlotRecord)> + use<'a> {
        let first = SlotId { service: service.clone(), ordinal: 0 };
        let last = SlotId { service: service.clone(), ordinal: u32::MAX };
        self.state.slots.range(first..=last)
    }

    /// The claims of a slot.
    pub fn claims(&self, slot: &SlotId) -> &'a [Claim] {
        self.state.slots.get(slot).map_or(&[], |record| record.claims.as_slice())
    }

    /// Is this slot wanted?
    pub fn wanted(&self, slot: &SlotId) -> bool {
        self.service(&slot.service).is_some_and(|service| slot.ordinal < service.wanted())
    }

    /// The instance that the claim's node reports under this very claim.
    pub fn instance(&self, slot: &SlotId, claim: &Claim) -> Option<&'a InstanceReport> {
        let report = &self.heard(&claim.node).filter(|heard| heard.report.boot == claim.boot)?.report;
        report.slots.get(slot)?.instance.as_ref().filter(|instance| instance.id.token == claim.token)
    }

    /// Does this claim run well, beyond doubt?
    pub fn well(&self, slot: &SlotId, claim: &Claim) -> bool {
        claim.stop.is_none()
            && self.sound(&claim.node)
            && self.heard(&claim.node).is_some_and(|heard| !heard.report.wants_rejoin)
            && self
                .instance(slot, claim)
                .is_some_and(|instance| instance.phase == InstancePhase::Running && instance.health.good())
    }

    /// Does one copy of the slot run well, and does this pass leave it so? What a node says while its guard does
    /// not answer, and what it said before it was let in, is of the past: unconfirmed counts as running, not as
    /// available.
    pub fn available(&self, slot: &SlotId) -> bool {
        let confirmed = |claim: &&Claim| {
            let since = self.observed.known_since.get(&claim.node).copied().unwrap_or_default();
            let heard = self.heard(&claim.node);
            heard.is_some_and(|heard| heard.report.guard.answering && heard.received >= since)
        };
        !self.disturbed.contains(slot)
            && self.claims(slot).iter().filter(confirmed).any(|claim| self.well(slot, claim))
    }

    /// May the slot's copy be stopped for an operation? No more than one copy of a service is ever missing
    /// for that; a service of one copy has to go without for a while. Says what holds it back otherwise.
    pub fn may_disturb(&self, slot: &SlotId) -> Result<(), String> {
        let Some(service) = self.service(&slot.service) else { return Ok(()) };
        let wanted = service.wanted();
        if wanted <= 1 || !self.available(slot) {
            return Ok(());
        }
        let others = || self.slots_of(&slot.service).filter(|(id, _)| *id != slot && id.ordinal < wanted);
        let well = others().filter(|(id, _)| self.available(id)).count();
        let minimum = wanted as usize - 1;
        if well >= minimum {
            return Ok(());
        }
        let missing: Vec<String> =
            others().filter(|(id, _)| !self.available(id)).map(|(id, _)| id.to_string()).collect();
        Err(format!(
            "{minimum} healthy copies of {} must stay, and {} is not healthy now",
            slot.service,
            missing.join(", ")
        ))
    }

    /// Another wanted slot of the same service that nobody holds.
    pub fn unplaced(&self, slot: &SlotId) -> Option<SlotId> {
        let wanted = self.service(&slot.service)?.wanted();
        let all = (0..wanted).map(|ordinal| SlotId { service: slot.service.clone(), ordinal });
        all.into_iter().find(|other| other != slot && self.claims(other).is_empty())
    }

    /// Could a running migration still bring something to this node, or give it back?
    pub fn awaits(&self, node: &NodeId) -> bool {
        self.running().any(|(_, operation)| match &operation.kind {
            OperationKind::Migration(move_) => move_.source == *node || move_.target.as_ref() == Some(node),
            OperationKind::Drain(_) | OperationKind::Rollout(_) | OperationKind::Fence(_) => false,
        })
    }

    /// The migration that has this slot in hand.
    pub fn migration_of(&self, slot: &SlotId) -> Option<(OperationId, &'a MigrationRecord)> {
        let id = self.moving.get(slot)?;
        match &self.state.operations.get(id)?.kind {
            OperationKind::Migration(migration) => Some((*id, migration)),
            OperationKind::Drain(_) | OperationKind::Rollout(_) | OperationKind::Fence(_) => None,
        }
    }

    /// Does a migration decide alone where this slot goes next?
    pub fn in_flight(&self, slot: &SlotId) -> Option<OperationId> {
        let (id, migration) = self.migration_of(slot)?;
        (migration.phase >= MigrationPhase::Switchover).then_some(id)
    }
}

//! What a view is made from, and what each part of it asks again and again: who was heard when, what waits
//! for what by now, what each node gave away.

use std::collections::BTreeMap;

use super::model::{ClusterKind, ClusterView};
use crate::ids::{NodeId, OperationId, SlotId};
use crate::lease::Lease;
use crate::observation::{Heard, InstanceReport, NodeVerdict, Observed, Verdicts};
use crate::spec::Resources;
use crate::state::{
    Claim, EvidenceItem, NodeRecord, OperationKind, ServiceRecord, State, Subject, WaitCause, Waiting,
};
use crate::units::{BootMs, CpuMillis, MemoryMib, Millis, WallMs};

/// Everything that one node knows at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// The State applied here.
    pub state: &'a State,
    /// What was observed here, or passed on by the leader.
    pub observed: &'a Observed,
    /// What `detect` makes of it here.
    pub verdicts: &'a Verdicts,
    /// The leader's waiting report.
    pub waiting: &'a BTreeMap<Subject, Vec<Waiting>>,
    /// How old that report is: the age of the newest word of the leader. Nothing on the leader itself.
    pub waiting_age: Millis,
    /// The viewer's own lease.
    pub lease: Option<&'a Lease>,
    /// The viewer's wall clock.
    pub at: WallMs,
    /// Real, demo or simulated.
    pub kind: ClusterKind,
    /// The view made before: what did not change is shared with it.
    pub previous: Option<&'a ClusterView>,
}

/// Exclusive slots of one node that are named.
const MOST_EXCLUSIVE: usize = 16;

/// A look with the sums that several parts need.
pub(super) struct Sight<'a> {
    pub(super) look: &'a Look<'a>,
    pub(super) state: &'a State,
    given: BTreeMap<&'a NodeId, Given>,
    exclusive: BTreeMap<&'a NodeId, Vec<&'a SlotId>>,
    blocked: BTreeMap<&'a NodeId, Vec<(&'a SlotId, &'a [EvidenceItem])>>,
    moves: BTreeMap<&'a SlotId, OperationId>,
}

/// What a node gave away.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given {
    pub(super) claims: u32,
    pub(super) reserved: Resources,
}

impl<'a> Sight<'a> {
    pub(super) fn new(look: &'a Look<'a>) -> Self {
        let mut given: BTreeMap<&NodeId, Given> = BTreeMap::new();
        let mut exclusive: BTreeMap<&NodeId, Vec<&SlotId>> = BTreeMap::new();
        for (slot, record) in look.state.slots.iter() {
            let Some(service) = look.state.services.get(&slot.service) else { continue };
            for claim in &record.claims {
                let wanted = service.spec_of(claim.version).resources;
                let sum = given.entry(&claim.node).or_default();
                sum.claims += 1;
                let slots = exclusive.entry(&claim.node).or_default();
                if service.exclusive && slots.len() < MOST_EXCLUSIVE {
                    slots.push(slot);
                }
                sum.reserved = Resources {
                    cpu: CpuMillis(sum.reserved.cpu.0.saturating_add(wanted.cpu.0)),
                    memory: MemoryMib(sum.reserved.memory.0.saturating_add(wanted.memory.0)),
                };
            }
        }
        let mut blocked: BTreeMap<&NodeId, Vec<(&SlotId, &[EvidenceItem])>> = BTreeMap::new();
        for (subject, lines) in look.waiting {
            let Subject::Slot(slot) = subject else { continue };
            for line in lines {
                if let WaitCause::Evidence { node, items, .. } = &line.cause {
                    blocked.entry(node).or_default().push((slot, items));
                }
            }
        }
        Self { look, state: look.state, given, exclusive, blocked, moves: moves(look.state) }
    }

    /// What is exclusive of what a node was given, bounded.
    pub(super) fn exclusive(&self, node: &NodeId) -> &[&'a SlotId] {
        self.exclusive.get(node).map_or(&[], Vec::as_slice)
    }

    pub(super) fn me(&self) -> &'a NodeId {
        &self.look.observed.me
    }

    pub(super) fn given(&self, node: &NodeId) -> Given {
        self.given.get(node).copied().unwrap_or_default()
    }

    /// What waits for proof about a node, each with its ticked list as the leader gave it.
    pub(super) fn blocked_by(&self, node: &NodeId) -> &[(&'a SlotId, &'a [EvidenceItem])] {
        self.blocked.get(node).map_or(&[], Vec::as_slice)
    }

    /// The migration that moves a slot now.
    pub(super) fn moved_by(&self, slot: &SlotId) -> Option<OperationId> {
        self.moves.get(slot).copied()
    }

    /// The lease's length: what is older than that is not seen any more but remembered.
    pub(super) fn lease_span(&self) -> Millis {
        self.state.cluster.settings.terms.lease
    }

    pub(super) fn heard(&self, node: &NodeId) -> Option<&'a Heard> {
        self.look.observed.nodes.get(node)
    }

    /// How long ago a node was last heard.
    pub(super) fn age(&self, node: &NodeId) -> Option<Millis> {
        self.heard(node).map(|heard| self.look.observed.now.since(heard.received))
    }

    /// Is what is known of this node seen, or remembered and inferred?
    pub(super) fn seen(&self, node: &NodeId) -> bool {
        node == self.me() || self.age(node).is_some_and(|age| age <= self.lease_span())
    }

    /// Is the leader's word recent enough to stand for the present?
    pub(super) fn leader_word_fresh(&self) -> bool {
        self.look.observed.raft.leading || self.look.waiting_age <= self.lease_span()
    }

    pub(super) fn verdict(&self, node: &NodeId) -> Option<&'a NodeVerdict> {
        self.look.verdicts.nodes.get(node)
    }

    /// What a node's guard last said of a claim's instance.
    pub(super) fn instance(&self, slot: &SlotId, claim: &Claim) -> Option<&'a InstanceReport> {
        let heard = self.heard(&claim.node).filter(|heard| heard.report.boot == claim.boot)?;
        let instance = heard.report.slots.get(slot)?.instance.as_ref()?;
        (instance.id.token == claim.token).then_some(instance)
    }

    /// Does the guard of a node answer it? If not, what is told of its instances is what was last known.
    pub(super) fn guarded(&self, node: &NodeId) -> bool {
        self.heard(node).is_none_or(|heard| heard.report.guard.answering)
    }

    /// What a subject waits for, with the times brought up to now.
    pub(super) fn waiting(&self, subject: &Subject) -> Vec<Waiting> {
        let all = self.look.waiting.get(subject).map_or(&[][..], Vec::as_slice);
        all.iter().map(|waiting| self.now(waiting)).collect()
    }

    /// One line of the report with its times brought up to now.
    pub(super) fn now(&self, waiting: &Waiting) -> Waiting {
        let age = self.look.waiting_age;
        let mut cause = waiting.cause.clone();
        if let WaitCause::Evidence { items, .. } = &mut cause {
            for item in items {
                item.left = item.left.map(|left| left - age);
            }
        }
        Waiting { cause, left: waiting.left.map(|left| left - age) }
    }

    /// When the lease of a node ends unless it is renewed: its own is known, that of another is counted from its last
    /// answered heartbeat where that is known here, else from when it was last heard.
    pub(super) fn lease_end(&self, node: &NodeId) -> Option<BootMs> {
        if node == self.me() {
            return self.look.lease.map(|lease| lease.valid_until);
        }
        self.heard(node).map(|heard| heard.answered.unwrap_or(heard.received) + self.lease_span())
    }

    /// Is a node reached by a probe or, where none goes there, heard itself? A report tells of the past for a whole
    /// lease; a probe notices within two heartbeats.
    pub(super) fn reaches(&self, node: &NodeId) -> bool {
        let own = self.look.observed.reach.rows.get(self.me());
        let mut ways =
            own.into_iter().flat_map(|own| &own.row.links).filter(|link| &link.to == node).peekable();
        match ways.peek() {
            Some(_) => ways.any(|link| link.ok),
            None => self.seen(node),
        }
    }

    /// Does the leader that the viewer knows decide, as far as can be told here?
    pub(super) fn decides(&self) -> bool {
        super::standing::decides(self)
    }

    pub(super) fn wait_of_slot(&self, slot: &SlotId) -> Vec<Waiting> {
        self.waiting(&Subject::Slot(slot.clone()))
    }

    pub(super) fn wall_age(&self, at: WallMs) -> Millis {
        Millis(self.look.at.0.saturating_sub(at.0))
    }

    /// Is this claim's node lost, or back in another boot or as another disk?
    pub(super) fn gone(&self, claim: &Claim) -> bool {
        self.state.nodes.get(&claim.node).is_none_or(|record| {
            record.lost() || record.boot != claim.boot || record.raft_id != claim.raft_id
        })
    }

    /// Does something prove that nothing can run on this claim's node?
    pub(super) fn proven(&self, claim: &Claim) -> bool {
        let proof = self.state.nodes.get(&claim.node).and_then(NodeRecord::proof);
        proof.is_some_and(|proof| proof.revision() > claim.since)
    }

    pub(super) fn service(&self, slot: &SlotId) -> Option<&'a ServiceRecord> {
        self.state.services.get(&slot.service)
    }
}

fn moves(state: &State) -> BTreeMap<&SlotId, OperationId> {
    let running = state.operations.iter().filter(|(_, operation)| operation.ended.is_none());
    running
        .filter_map(|(id, operation)| match &operation.kind {
            OperationKind::Migration(migration) => Some((&migration.slot, *id)),
            OperationKind::Drain(_) | OperationKind::Rollout(_) | OperationKind::Fence(_) => None,
        })
        .collect()
}

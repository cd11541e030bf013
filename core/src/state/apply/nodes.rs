//! Nodes: admission, life and death, cordons, leaving. What ends their claims stands in `claims`.

use super::{Entry, Outcome, bounded, bounded_all, limits, not_found, refused};
use crate::command::{NodeAdmission, NodeFacts};
use crate::event::Event;
use crate::ids::{BootId, LeaseEpoch, NodeId, RaftId, SlotId, Token};
use crate::state::{Inventory, NodeProof, NodeRecord, NodeStanding, OperationKind, Rejection, Reply, codec};

impl Entry<'_> {
    pub(super) fn node(&self, id: &NodeId) -> Result<&NodeRecord, Rejection> {
        self.state.nodes.get(id).ok_or_else(|| not_found("node", id))
    }

    /// Changes a node's record and notes when.
    pub(super) fn change_node(&mut self, id: &NodeId, change: impl FnOnce(&mut NodeRecord)) {
        let revision = self.state.revision;
        self.state.nodes.update(id, |record| {
            change(record);
            record.changed = revision;
        });
    }

    pub(super) fn admit_node(&mut self, admission: &NodeAdmission) -> Outcome {
        check_facts(&admission.facts)?;
        let id = &admission.facts.node;
        if admission.disk.0.is_empty() || admission.machine.0.is_empty() || admission.boot.0.is_empty() {
            return Err(refused(
                format!("node {id} does not say its disk, machine and boot"),
                "start it on a host with /etc/machine-id",
            ));
        }
        let same_disk =
            |(other, record): &(&NodeId, &NodeRecord)| *other != id && record.disk == admission.disk;
        if let Some((other, _)) = self.state.nodes.iter().find(same_disk) {
            return Err(refused(
                format!("the data of {id} is a copy of that of {other}"),
                format!("start {id} on an empty data directory"),
            ));
        }
        match self.state.nodes.get(id).cloned() {
            None => self.admit_new(admission),
            Some(record) if record.disk == admission.disk => self.admit_again(admission, &record),
            Some(record) => self.replace_disk(admission, &record),
        }
    }

    fn admit_new(&mut self, admission: &NodeAdmission) -> Outcome {
        if self.state.nodes.len() >= limits::NODES {
            return Err(Rejection::Limit {
                what: "nodes".to_owned(),
                limit: limits::NODES as u64,
                remedy: "remove nodes that are gone".to_owned(),
            });
        }
        let raft_id = self.next_raft_id();
        let record = self.fresh_record(admission, raft_id, LeaseEpoch(1));
        self.state.nodes.insert(admission.facts.node.clone(), record);
        self.emit(Event::NodeAdmitted(admission.facts.node.clone()));
        Ok(Reply::Admitted(raft_id))
    }

    /// A known identity renews what it says of itself. Its boot changes by a rejoin alone.
    fn admit_again(&mut self, admission: &NodeAdmission, record: &NodeRecord) -> Outcome {
        let id = &admission.facts.node;
        self.refuse_left_behind(id, record)?;
        if record.machine != admission.machine {
            return Err(refused(
                format!("the data of {id} belongs to another machine"),
                format!("start {id} there, or here on an empty data directory"),
            ));
        }
        if admission.witness && self.state.claims_on(id).next().is_some() {
            return Err(refused(
                format!("{id} still holds instances and a witness hosts none"),
                format!("drain {id} first"),
            ));
        }
        let (witness, weight) = (admission.witness, admission.weight);
        if record.witness != witness || record.weight != weight {
            self.change_node(id, |record| (record.witness, record.weight) = (witness, weight));
        }
        self.update_node(&admission.facts)?;
        Ok(Reply::Admitted(record.raft_id))
    }

    /// A known name with a new disk is a new voter. Only once the old one is lost: while that is alive it
    /// may be a second node of the same name.
    fn replace_disk(&mut self, admission: &NodeAdmission, record: &NodeRecord) -> Outcome {
        let id = &admission.facts.node;
        if !record.lost() {
            return Err(refused(
                format!("node {id} is alive with another data directory"),
                format!("give this node another name, or stop the other {id} and wait until it is lost"),
            ));
        }
        // Once its name lives elsewhere, nothing could be proven of the old host any more.
        let unproven = self.state.claims_on(id).next().filter(|_| record.machine != admission.machine);
        if let Some((slot, claim)) = unproven {
            return Err(refused(
                format!("{slot}@{} may still run on the old host of {id}", claim.token),
                format!("fence {id} or attest that it is dead first"),
            ));
        }
        if !record.settled() && record.machine != admission.machine {
            return Err(refused(
                format!("what runs on the old host of {id} is not known since the cluster was recovered"),
                format!("fence {id} or attest that it is dead first, or give this node another name"),
            ));
        }
        let raft_id = self.next_raft_id();
        let mut new = self.fresh_record(admission, raft_id, LeaseEpoch(record.lease_epoch.0 + 1));
        // One that was leaving has gone, and is admitted again: its cordon was that of its leaving.
        new.cordoned = record.cordoned && !record.leaving;
        if record.boot == admission.boot {
            new.held = record.held;
        }
        self.state.nodes.insert(id.clone(), new);
        self.release_fences(id, &format!("{id} came back with a new disk"));
        if let Some(drain) = self.active_drain(id).filter(|_| record.leaving) {
            self.cancel_drain(drain);
        }
        self.emit(Event::NodeReplaced(id.clone()));
        Ok(Reply::Admitted(raft_id))
    }

    fn next_raft_id(&mut self) -> RaftId {
        let raft_id = RaftId(self.state.cluster.next_raft_id.max(1));
        self.state.cluster.next_raft_id = raft_id.0 + 1;
        raft_id
    }

    fn fresh_record(
        &self,
        admission: &NodeAdmission,
        raft_id: RaftId,
        lease_epoch: LeaseEpoch,
    ) -> NodeRecord {
        NodeRecord {
            raft_id,
            machine: admission.machine.clone(),
            disk: admission.disk.clone(),
            era: self.state.era(),
            boot: admission.boot.clone(),
            lease_epoch,
            standing: NodeStanding::Alive,
            // Whoever comes while a recovery is open may run what nobody knows of.
            inventory: if self.state.recovering().is_some() {
                Inventory::Unheard
            } else {
                Inventory::Settled
            },
            cordoned: false,
            leaving: false,
            witness: admission.witness,
            weight: admission.weight,
            facts: admission.facts.clone(),
            held: self.state.cluster.settings.terms,
            admitted_at: self.at,
            changed: self.state.revision,
        }
    }

    pub(super) fn update_node(&mut self, facts: &NodeFacts) -> Outcome {
        check_facts(facts)?;
        let record = self.node(&facts.node)?;
        self.refuse_left_behind(&facts.node, record)?;
        let terms = self.state.cluster.settings.terms;
        // Only a node that says it holds the newest terms is judged by them.
        let caught_up = facts.terms == terms.number && record.held != terms;
        if &record.facts == facts && !caught_up {
            return Ok(Reply::Unchanged);
        }
        self.change_node(&facts.node, |record| {
            record.facts = facts.clone();
            if caught_up {
                record.held = terms;
            }
        });
        self.emit(Event::NodeUpdated(facts.node.clone()));
        Ok(Reply::Accepted)
    }

    pub(super) fn mark_lost(&mut self, id: &NodeId, epoch: LeaseEpoch, because: &[String]) -> Outcome {
        let record = self.node(id)?;
        check_epoch(id, record, epoch)?;
        if record.lost() {
            return Ok(Reply::Unchanged);
        }
        let because = bounded_all(because);
        let standing = NodeStanding::Lost {
            revision: self.state.revision,
            at: self.at,
            because: because.clone(),
            proof: None,
        };
        self.change_node(id, |record| record.standing = standing);
        self.emit(Event::NodeLost { node: id.clone(), because });
        Ok(Reply::Accepted)
    }

    pub(super) fn rejoin(
        &mut self,
        id: &NodeId,
        boot: &BootId,
        epoch: LeaseEpoch,
        holds: &[(SlotId, Token)],
    ) -> Outcome {
        let record = self.node(id)?;
        check_epoch(id, record, epoch)?;
        self.refuse_left_behind(id, record)?;
        if boot.0.is_empty() {
            return Err(refused(format!("node {id} does not say its boot"), "upgrade that node"));
        }
        if record.inventory == Inventory::Unheard {
            return Err(refused(
                format!("what runs on {id} is not known since the cluster was recovered"),
                "its inventory is taken first",
            ));
        }
        self.check_holds(id, record, boot, holds)?;
        if let Some(operation) = self.forced_fence(id) {
            return Err(refused(
                format!("operation {operation} fences {id} on an operator's word"),
                format!("cancel operation {operation}, or wait for its end"),
            ));
        }
        let (raft_id, epoch) = (record.raft_id, LeaseEpoch(epoch.0 + 1));
        let terms = self.state.cluster.settings.terms;
        self.change_node(id, |record| {
            record.standing = NodeStanding::Alive;
            // With the boot the old lease is over. In the same one its guard may hold it still, by older terms.
            if record.boot != *boot {
                record.held = terms;
            }
            record.boot = boot.clone();
            record.lease_epoch = epoch;
        });
        self.carry_claims_over(id, raft_id, boot, epoch);
        self.release_fences(id, &format!("{id} answered again"));
        self.settle(id);
        self.emit(Event::NodeRejoined { node: id.clone(), adopted: holds.len() as u32 });
        Ok(Reply::Accepted)
    }

    /// Everything that runs there must run under a claim that still stands.
    fn check_holds(
        &self,
        id: &NodeId,
        record: &NodeRecord,
        boot: &BootId,
        holds: &[(SlotId, Token)],
    ) -> Result<(), Rejection> {
        for (slot, token) in holds {
            let claims = self.state.slots.get(slot).map_or(&[][..], |record| &record.claims);
            let stands = claims.iter().any(|claim| {
                claim.token == *token
                    && &claim.node == id
                    && claim.raft_id == record.raft_id
                    && &claim.boot == boot
            });
            if !stands {
                return Err(refused(
                    format!("{id} still runs {slot}@{token}, which is not its own any more"),
                    format!("{id} stops it first"),
                ));
            }
        }
        Ok(())
    }

    /// Claims of the same boot go on in the new lease epoch; those of an older boot wait for evidence.
    fn carry_claims_over(&mut self, id: &NodeId, raft_id: RaftId, boot: &BootId, epoch: LeaseEpoch) {
        let slots: Vec<SlotId> = self.state.claims_on(id).map(|(slot, _)| slot.clone()).collect();
        let revision = self.state.revision;
        for slot in slots {
            self.state.slots.update(&slot, |record| {
                let mine = record.claims.iter_mut().filter(|claim| &claim.node == id);
                mine.filter(|claim| claim.raft_id == raft_id && &claim.boot == boot)
                    .for_each(|claim| claim.lease_epoch = epoch);
                record.changed = revision;
            });
        }
    }

    pub(super) fn cordon(&mut self, id: &NodeId, on: bool) -> Outcome {
        let record = self.node(id)?;
        if record.cordoned == on {
            return Ok(Reply::Unchanged);
        }
        if !on && record.leaving {
            return Err(refused(format!("{id} is leaving"), "admit it again once it is gone"));
        }
        if !on && self.active_drain(id).is_some() {
            return Err(refused(
                format!("{id} is being drained"),
                format!("uncordon {id}, which cancels the drain"),
            ));
        }
        self.set_cordon(id, on);
        Ok(Reply::Accepted)
    }

    pub(super) fn set_cordon(&mut self, id: &NodeId, on: bool) {
        if self.state.nodes.get(id).is_some_and(|record| record.cordoned != on) {
            self.change_node(id, |record| record.cordoned = on);
            self.emit(Event::NodeCordoned { node: id.clone(), on });
        }
    }

    pub(super) fn attest_dead(&mut self, id: &NodeId, reason: &str) -> Outcome {
        let record = self.node(id)?;
        if !record.lost() {
            return Err(refused(
                format!("{id} is alive: it cannot be attested dead"),
                format!("fence {id}, or switch it off and wait until it is lost"),
            ));
        }
        if record.proof().is_some() {
            return Ok(Reply::Unchanged);
        }
        if reason.trim().is_empty() {
            return Err(refused(
                "an attestation needs a reason",
                "say why you are sure, for those who read it later",
            ));
        }
        let reason = bounded(reason, limits::TEXT_BYTES);
        let proof =
            NodeProof::Attested { by: self.asker(), reason: reason.clone(), revision: self.state.revision };
        self.set_proof(id, proof);
        self.emit(Event::NodeAttested { node: id.clone(), reason });
        Ok(Reply::Accepted)
    }

    pub(super) fn set_proof(&mut self, id: &NodeId, proof: NodeProof) {
        self.change_node(id, |record| {
            if let NodeStanding::Lost { proof: standing, .. } = &mut record.standing {
                *standing = Some(proof);
            }
        });
        self.settle(id);
    }

    pub(super) fn leave(&mut self, id: &NodeId) -> Outcome {
        let record = self.node(id)?;
        if record.leaving {
            return Ok(Reply::Unchanged);
        }
        let stays =
            |(other, record): (&NodeId, &NodeRecord)| other != id && !record.leaving && !record.lost();
        if !self.state.nodes.iter().any(stays) {
            return Err(refused(
                format!("no other node would be left alive without {id}"),
                "let another node join first, or stop this one",
            ));
        }
        self.change_node(id, |record| (record.leaving, record.cordoned) = (true, true));
        self.emit(Event::NodeLeaving(id.clone()));
        Ok(Reply::Accepted)
    }

    pub(super) fn remove_node(&mut self, id: &NodeId) -> Outcome {
        let record = self.node(id)?;
        if !record.leaving && !record.lost() {
            return Err(refused(format!("{id} is alive and not leaving"), format!("let {id} leave first")));
        }
        if !record.settled() {
            return Err(refused(
                format!("what runs on {id} is not known since the cluster was recovered"),
                "let it join again, fence it or attest that it is dead",
            ));
        }
        if let Some((slot, claim)) = self.state.claims_on(id).next() {
            return Err(refused(
                format!("{id} still holds {slot}@{}", claim.token),
                "drain it, fence it or attest that it is dead",
            ));
        }
        let busy = |kind: &OperationKind| match kind {
            OperationKind::Migration(migration) => {
                migration.source == *id || migration.target.as_ref() == Some(id)
            }
            OperationKind::Drain(_) | OperationKind::Rollout(_) | OperationKind::Fence(_) => false,
        };
        let moving = self.state.operations.iter().find(|(_, op)| op.ended.is_none() && busy(&op.kind));
        if let Some((operation, _)) = moving {
            return Err(refused(
                format!("operation {operation} moves an instance of {id}"),
                format!("cancel operation {operation}, or wait for its end"),
            ));
        }
        self.release_fences(id, &format!("{id} was removed"));
        self.finish_drain_of_removed(id);
        self.state.nodes.remove(id);
        self.emit(Event::NodeRemoved(id.clone()));
        Ok(Reply::Accepted)
    }
}

fn check_epoch(id: &NodeId, record: &NodeRecord, epoch: LeaseEpoch) -> Result<(), Rejection> {
    if record.lease_epoch == epoch {
        return Ok(());
    }
    Err(refused(
        format!("{id} is in lease epoch {}, and this was decided in {epoch}", record.lease_epoch),
        "look again",
    ))
}

fn check_facts(facts: &NodeFacts) -> Result<(), Rejection> {
    let limit = |what: &str, limit: usize| {
        let what = format!("{what} of {}", facts.node);
        Err(Rejection::Limit { what, limit: limit as u64, remedy: "shorten its configuration".to_owned() })
    };
    if facts.fencing.iter().map(Vec::len).sum::<usize>() > limits::FENCE_METHODS {
        return limit("fencing methods", limits::FENCE_METHODS);
    }
    if facts.fencing.iter().any(Vec::is_empty) {
        let because = format!("a fencing level of {} has no method", facts.node);
        return Err(refused(because, "remove that level or give it a method"));
    }
    if codec::encode(facts).len() > limits::FACTS_BYTES {
        return limit("bytes of labels, addresses and methods", limits::FACTS_BYTES);
    }
    Ok(())
}

//! Claims: granted with a new token, told to stop, ended by evidence alone. Here the promise is kept that
//! an exclusive slot never has two.

use super::services::slots_of;
use super::{Entry, Outcome, bounded, limits, not_found, refused};
use crate::command::Command;
use crate::event::Event;
use crate::ids::{NodeId, OperationId, SlotId, Token};
use crate::spec::Priority;
use crate::state::{
    Claim, EndedClaim, Evidence, MigrationPhase, NodeProof, NodeRecord, Rejection, Reply, ServiceRecord,
    SlotRecord, StopOrder,
};

impl Entry<'_> {
    pub(super) fn grant(&mut self, command: &Command) -> Outcome {
        let Command::Grant { slot, node, boot, lease_epoch, version, operation, because } = command else {
            return Err(refused("this is no grant", "report this as a defect"));
        };
        let service = self.service(&slot.service)?;
        let returning = self.check_operation(slot, node, *operation)?;
        let forbid = |because: String, remedy: &str| Err(refused(because, remedy));
        if slot.ordinal >= service.wanted() && !returning {
            return forbid(format!("{slot} is not wanted"), "look again");
        }
        let known = service.versions.iter().any(|known| known.version == *version);
        if !known || (*version != service.version && operation.is_none()) {
            return forbid(
                format!("{slot} is wanted in version {}, not {version}", service.version),
                "look again",
            );
        }
        let record = self.node(node)?;
        if record.lost() || record.lease_epoch != *lease_epoch || &record.boot != boot {
            return forbid(
                format!("{node} is not alive in lease epoch {lease_epoch} of that boot"),
                "look again",
            );
        }
        if record.witness {
            return forbid(format!("{node} is a witness and hosts nothing"), "choose another node");
        }
        if record.cordoned && !returning {
            return forbid(format!("{node} is cordoned"), "choose another node, or uncordon it");
        }
        self.check_slot_is_free(slot, node, service)?;
        if service.exclusive {
            self.refuse_while_recovering(slot)?;
        }
        let spec = service.spec_of(*version);
        let claim = Claim {
            token: self.state.token(),
            node: node.clone(),
            raft_id: record.raft_id,
            machine: record.machine.clone(),
            boot: boot.clone(),
            lease_epoch: *lease_epoch,
            version: *version,
            granted_at: self.at,
            because: bounded(because, limits::TEXT_BYTES),
            operation: *operation,
            since: self.state.revision,
            stop: None,
            grace: spec.isolation_grace(),
            critical: spec.priority == Priority::Critical || spec.keep_on_isolation,
        };
        Ok(self.put_claim(slot, claim))
    }

    fn put_claim(&mut self, slot: &SlotId, claim: Claim) -> Reply {
        let (token, operation) = (claim.token, claim.operation);
        let event = Event::Granted {
            slot: slot.clone(),
            node: claim.node.clone(),
            token,
            because: claim.because.clone(),
        };
        if !self.state.slots.contains_key(slot) {
            self.state.slots.insert(slot.clone(), SlotRecord::default());
        }
        self.change_slot(slot, |record| record.claims.push(claim));
        self.tokens.insert(slot.clone());
        if let Some(operation) = operation {
            self.change_migration(operation, |migration| migration.granted = Some(token));
        }
        self.emit(event);
        Reply::Token(token)
    }

    /// One claim at most where it is exclusive; elsewhere old ones may linger on lost nodes or stopping.
    fn check_slot_is_free(
        &self,
        slot: &SlotId,
        node: &NodeId,
        service: &ServiceRecord,
    ) -> Result<(), Rejection> {
        if self.tokens.contains(slot) {
            return Err(refused(format!("{slot} was decided on in this entry already"), "look again"));
        }
        let claims = self.state.slots.get(slot).map_or(&[][..], |record| &record.claims);
        let in_the_way = |claim: &&Claim| {
            let lost = self.state.nodes.get(&claim.node).is_none_or(NodeRecord::lost);
            service.exclusive || &claim.node == node || (claim.stop.is_none() && !lost)
        };
        if let Some(claim) = claims.iter().find(in_the_way) {
            return Err(refused(
                format!("{slot} is still claimed by {} as {}", claim.node, claim.token),
                "that claim ends by evidence first",
            ));
        }
        if service.exclusive {
            let doubled = slots_of(self.state, &slot.service)
                .into_iter()
                .find(|slot| self.state.slots.get(slot).is_some_and(|record| record.claims.len() > 1));
            if let Some(doubled) = doubled {
                return Err(refused(
                    format!("{} became exclusive while {doubled} still has several copies", slot.service),
                    "each of its slots comes down to one copy first",
                ));
            }
        }
        Ok(())
    }

    /// Does this grant give a slot back to where its migration came from? Refuses one that a migration
    /// forbids.
    fn check_operation(
        &self,
        slot: &SlotId,
        node: &NodeId,
        operation: Option<OperationId>,
    ) -> Result<bool, Rejection> {
        let Some((active, migration)) = self.migration_of(slot) else {
            return match operation {
                None => Ok(false),
                Some(operation) => {
                    Err(refused(format!("operation {operation} does not move {slot}"), "look again"))
                }
            };
        };
        let wrong = |because: String| Err(refused(because, "look again"));
        let past_stop = matches!(
            migration.phase,
            MigrationPhase::Switchover | MigrationPhase::Verifying | MigrationPhase::RollingBack
        );
        if operation.is_none() {
            let because = format!("operation {active} moves {slot} and grants it itself");
            return if past_stop { wrong(because) } else { Ok(false) };
        }
        if operation != Some(active) {
            return wrong(format!("operation {active} moves {slot}, no other"));
        }
        if migration.heir() != Some(node) {
            return wrong(format!(
                "operation {active} is {} and grants {node} nothing",
                migration.phase.name()
            ));
        }
        if migration.phase == MigrationPhase::RollingBack {
            return Ok(true);
        }
        // Without a first pass there was no state at its stop, whatever the spec says by now.
        let complete = migration.passes != 1;
        let source_lives = self.state.nodes.get(&migration.source).is_some_and(|source| !source.lost());
        if !complete && source_lives {
            return wrong(format!("the state of {slot} is not copied since its stop"));
        }
        Ok(false)
    }

    pub(super) fn stop_claim(&mut self, slot: &SlotId, token: Token, because: &str) -> Outcome {
        let claim = self.claim(slot, token)?;
        if let Some(stop) = &claim.stop {
            return Ok(Reply::Token(stop.token));
        }
        if self.tokens.contains(slot) {
            return Err(refused(format!("{slot} was decided on in this entry already"), "look again"));
        }
        Ok(Reply::Token(self.order_stop(slot, token, because)))
    }

    /// Tells a claim to stop, under this entry's token.
    pub(super) fn order_stop(&mut self, slot: &SlotId, token: Token, because: &str) -> Token {
        let stop = StopOrder { token: self.state.token(), because: bounded(because, limits::TEXT_BYTES) };
        let because = stop.because.clone();
        let mut node = None;
        self.change_slot(slot, |record| {
            if let Some(claim) = record.claims.iter_mut().find(|claim| claim.token == token) {
                node = Some(claim.node.clone());
                claim.stop = Some(stop);
            }
        });
        self.tokens.insert(slot.clone());
        if let Some(node) = node {
            self.emit(Event::StopOrdered { slot: slot.clone(), node, because });
        }
        self.state.token()
    }

    pub(super) fn end_claim(&mut self, slot: &SlotId, token: Token, evidence: &Evidence) -> Outcome {
        let claim = self.claim(slot, token)?.clone();
        self.check_evidence(slot, &claim, evidence)?;
        let ended = EndedClaim {
            token,
            node: claim.node.clone(),
            raft_id: claim.raft_id,
            evidence: evidence.clone(),
            revision: self.state.revision,
        };
        self.change_slot(slot, |record| {
            record.claims.retain(|claim| claim.token != token);
            record.last_ended = Some(ended);
        });
        let (slot_id, node, evidence) = (slot.clone(), claim.node, evidence.clone());
        self.emit(Event::ClaimEnded { slot: slot_id, node, token, evidence });
        self.forget_if_done(&slot.service);
        Ok(Reply::Accepted)
    }

    /// The five kinds of evidence, each held against what is committed.
    fn check_evidence(&self, slot: &SlotId, claim: &Claim, evidence: &Evidence) -> Result<(), Rejection> {
        let node = &claim.node;
        let record = self.node(node)?;
        let no = |because: String| Err(refused(because, "the claim stays until evidence ends it"));
        match evidence {
            Evidence::StopAcknowledged { stop } => match &claim.stop {
                Some(order) if *stop >= order.token => Ok(()),
                Some(order) => {
                    no(format!("{node} acknowledged {stop}, but the stop of {slot} is {}", order.token))
                }
                None => no(format!("{slot}@{} was not told to stop", claim.token)),
            },
            Evidence::Fenced { operation } => match record.proof() {
                Some(NodeProof::Fenced { operation: proven, revision })
                    if proven == operation && *revision > claim.since =>
                {
                    Ok(())
                }
                _ => no(format!("{node} is not proven off by operation {operation}")),
            },
            Evidence::Attested { revision } => match record.proof() {
                Some(NodeProof::Attested { revision: proven, .. })
                    if proven == revision && *revision > claim.since =>
                {
                    Ok(())
                }
                _ => no(format!("nobody attested at revision {revision} that {node} is dead")),
            },
            Evidence::Rebooted { boot } => {
                let same_host = claim.machine == record.machine;
                if same_host && &record.boot == boot && *boot != claim.boot {
                    Ok(())
                } else {
                    no(format!("the host of {slot}@{} is not known to be back in boot {boot}", claim.token))
                }
            }
            Evidence::Silence { lease_epoch, waited } => {
                if !record.lost() || record.lease_epoch != *lease_epoch || claim.lease_epoch > *lease_epoch {
                    return no(format!("{node} is not lost in lease epoch {lease_epoch}"));
                }
                if !record.settled() {
                    return no(format!("{node} was not heard since a recovery: its silence proves nothing"));
                }
                if !self.state.cluster.settings.autonomous_shutdown {
                    return no("split_brain.autonomous_shutdown is off: silence proves nothing".to_owned());
                }
                if !record.facts.armed || !record.facts.silence_counts {
                    return no(format!("{node} is not armed: its silence proves nothing"));
                }
                if claim.critical {
                    return no(format!("{slot} is critical and keeps running without a lease"));
                }
                let needed = record.held.silence_wait(claim.grace);
                if *waited < needed {
                    return no(format!(
                        "{node} was silent for {} of the {} needed",
                        waited.human(),
                        needed.human()
                    ));
                }
                Ok(())
            }
        }
    }

    pub(super) fn claim(&self, slot: &SlotId, token: Token) -> Result<&Claim, Rejection> {
        let record = self.state.slots.get(slot).ok_or_else(|| not_found("slot", slot))?;
        let claim = record.claims.iter().find(|claim| claim.token == token);
        claim.ok_or_else(|| not_found("claim", format!("{slot}@{token}")))
    }

    pub(super) fn change_slot(&mut self, slot: &SlotId, change: impl FnOnce(&mut SlotRecord)) {
        let revision = self.state.revision;
        self.state.slots.update(slot, |record| {
            change(record);
            record.changed = revision;
        });
    }

    /// Does the copy under this claim (or the service, if the claim is gone) keep state?
    pub(super) fn has_state(&self, slot: &SlotId, token: Token) -> bool {
        let Some(service) = self.state.services.get(&slot.service) else { return false };
        let spec = match self.claim(slot, token) {
            Ok(claim) => service.spec_of(claim.version),
            Err(_) => &service.spec,
        };
        spec.state_dir.is_some()
    }
}

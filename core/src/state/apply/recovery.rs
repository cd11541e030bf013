//! Going on from less than the cluster once had: a higher epoch, every node to be heard anew, claims made again
//! of what the nodes tell that they run. Until each is accounted for nothing exclusive is granted.

use std::collections::BTreeSet;

use super::{Entry, Outcome, bounded, limits, refused};
use crate::command::{Command, Found, Recovery};
use crate::event::Event;
use crate::ids::{BootId, Epoch, NodeId, Revision, ServiceName, SlotId, Token, Version};
use crate::spec::Priority;
use crate::state::{
    Claim, EndedClaim, Evidence, Inventory, JOIN_ANEW, NodeRecord, NodeStanding, OperationKind,
    RecoveryCause, RecoveryRecord, Rejection, Reply, SlotRecord, left_behind,
};

impl Entry<'_> {
    /// Every node is lost, with nothing proven of it: what happened to it since may be among what is gone.
    pub(super) fn recover(&mut self, recovery: &Recovery) -> Outcome {
        let reason = bounded(recovery.reason.trim(), limits::TEXT_BYTES);
        if reason.is_empty() {
            return Err(refused("a recovery needs a reason", "say why, for those who read it later"));
        }
        if let Some(founder) = &recovery.founder {
            self.check_founder(founder)?;
        }
        let survivors = self.survivors(&recovery.cause)?;
        let epoch = Epoch(self.state.cluster.epoch.max(recovery.above).0 + 1);
        let record = RecoveryRecord {
            cause: recovery.cause.clone(),
            epoch,
            kept: Revision(recovery.kept.0.min(self.state.revision.0.saturating_sub(1))),
            begun: self.state.revision,
            at: self.at,
            by: self.asker(),
            reason: reason.clone(),
            open: true,
        };
        let (what, last) = (record.what(), record.kept);
        let because = vec![format!("the cluster was {what}: it has to be heard again")];
        let cluster = &mut self.state.cluster;
        cluster.epoch = epoch;
        cluster.recovery = Some(record);
        if let Some(id) = &recovery.cluster {
            cluster.id = id.clone();
        }
        let (revision, at) = (self.state.revision, self.at);
        for id in self.state.nodes.keys().cloned().collect::<Vec<_>>() {
            // What it was asked for in may be long past, and it may be one of those who go on.
            self.release_fences(&id, "the cluster was recovered: fence it anew if it still has to be");
            let goes_on = survivors.contains(&id);
            self.change_node(&id, |node| {
                if goes_on {
                    node.era = epoch;
                }
                node.inventory = Inventory::Unheard;
                node.standing = NodeStanding::Lost { revision, at, because: because.clone(), proof: None };
            });
        }
        self.emit(Event::Recovered { what, epoch, last, reason });
        match &recovery.founder {
            Some(founder) => self.admit_node(founder),
            None => Ok(Reply::Accepted),
        }
    }

    /// Those whose data the cluster goes on with.
    fn survivors(&self, cause: &RecoveryCause) -> Result<BTreeSet<NodeId>, Rejection> {
        let RecoveryCause::ForcedQuorum { survivors } = cause else { return Ok(BTreeSet::new()) };
        if survivors.is_empty() {
            return Err(refused("nobody would go on", "name the nodes that are left"));
        }
        for id in survivors {
            let record = self.node(id)?;
            self.refuse_left_behind(id, record)?;
        }
        Ok(survivors.iter().cloned().collect())
    }

    /// A node that the cluster went on without is no member until it has joined anew.
    pub(super) fn refuse_left_behind(&self, id: &NodeId, record: &NodeRecord) -> Result<(), Rejection> {
        if self.state.left_behind(record) {
            return Err(refused(left_behind(id, record.era, self.state.era()), JOIN_ANEW));
        }
        Ok(())
    }

    /// Nothing of it is to run: what the old disk's node may still run could not be proven any more.
    fn check_founder(&self, founder: &crate::command::NodeAdmission) -> Result<(), Rejection> {
        let id = &founder.facts.node;
        match self.state.nodes.get(id) {
            Some(known) if known.machine != founder.machine => Err(refused(
                format!("{id} was another host, and what runs there is not known"),
                format!("restore on the host of {id}, or give this node another name (node_id)"),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Nothing exclusive is granted while it is not known what runs on some node.
    pub(super) fn refuse_while_recovering(&self, slot: &SlotId) -> Result<(), Rejection> {
        let Some((node, _)) = self.state.unsettled().next() else { return Ok(()) };
        Err(refused(
            format!(
                "what runs on {node} is not known since the cluster was recovered, and {slot} is exclusive"
            ),
            format!("let {node} be heard, fence it or attest that it is dead"),
        ))
    }

    /// It is known what runs on this node. The last one ends the recovery.
    pub(super) fn settle(&mut self, id: &NodeId) {
        if self.state.nodes.get(id).is_some_and(|record| !record.settled()) {
            self.change_node(id, |record| record.inventory = Inventory::Settled);
        }
        self.end_recovery_if_settled();
    }

    pub(super) fn end_recovery_if_settled(&mut self) {
        if self.state.unsettled().next().is_some() {
            return;
        }
        if let Some(recovery) = self.state.cluster.recovery.as_mut().filter(|recovery| recovery.open) {
            recovery.open = false;
            self.emit(Event::RecoveryOver);
        }
    }

    pub(super) fn take_inventory(&mut self, command: &Command) -> Outcome {
        let Command::TakeInventory { node, boot, recovery, highest, found } = command else {
            return Err(refused("this is no inventory", "report this as a defect"));
        };
        if self.state.recovering().is_none_or(|open| open.begun != *recovery) {
            return Err(refused(format!("no recovery of revision {recovery} is open"), "look again"));
        }
        let record = self.node(node)?;
        self.refuse_left_behind(node, record)?;
        if boot.0.is_empty() {
            return Err(refused(format!("node {node} does not say its boot"), "upgrade that node"));
        }
        if record.inventory != Inventory::Unheard {
            return Ok(Reply::Unchanged);
        }
        self.rise_above(node, *highest);
        self.change_node(node, |record| record.inventory = Inventory::Taken);
        let before = self.claims_of(node);
        let dropped = self.drop_idle_claims(node, boot, found);
        let adopted = found.iter().filter(|found| self.adopt(node, boot, found)).count();
        let (adopted, dropped) = (adopted as u32, dropped as u32);
        self.emit(Event::InventoryTaken { node: node.clone(), adopted, dropped });
        // What ended just now may have been the last that a deleted service waited for.
        let services: BTreeSet<ServiceName> = before.iter().map(|slot| slot.service.clone()).collect();
        services.iter().for_each(|service| self.forget_if_done(service));
        self.tokens.extend(before);
        Ok(Reply::Accepted)
    }

    fn claims_of(&self, node: &NodeId) -> BTreeSet<SlotId> {
        self.state.claims_on(node).map(|(slot, _)| slot.clone()).collect()
    }

    /// Guards and storage keep the highest token they saw: every new one must be above those of a history that
    /// is gone, such as after a second restore of the same snapshot.
    fn rise_above(&mut self, node: &NodeId, highest: Token) {
        if highest >= self.state.token() {
            let epoch = Epoch(highest.epoch.0 + 1);
            self.state.cluster.epoch = epoch;
            self.emit(Event::EpochRaised { node: node.clone(), epoch });
        }
    }

    /// A copy that runs has a claim again. Does it run on?
    fn adopt(&mut self, node: &NodeId, boot: &BootId, found: &Found) -> bool {
        let Some((token, digest)) = found.runs else { return false };
        // What no service asks for any more the node stops before it is let back in.
        let Some(service) = self.state.services.get(&found.slot.service) else { return false };
        let (exclusive, newest) = (service.exclusive, service.version);
        let known = service.versions.iter().find(|known| known.spec.run_digest() == digest);
        let version = known.map_or(newest, |known| known.version);
        let known = known.is_some();
        let wanted = found.slot.ordinal < service.wanted() && known && found.highest <= token;
        let spec = service.spec_of(version).clone();
        let Some(record) = self.state.nodes.get(node).cloned() else { return false };
        let claim = Claim {
            token,
            node: node.clone(),
            raft_id: record.raft_id,
            machine: record.machine,
            boot: boot.clone(),
            lease_epoch: record.lease_epoch,
            version,
            granted_at: self.at,
            because: "found running after the cluster was recovered".to_owned(),
            operation: None,
            since: self.state.revision,
            stop: None,
            grace: spec.isolation_grace(),
            // Of a copy that nobody knows the spec of the worst is assumed.
            critical: !known || spec.priority == Priority::Critical || spec.keep_on_isolation,
        };
        let stands = self.put_found(&found.slot, claim);
        if !wanted && stands {
            let because = if known {
                "it is not wanted, or was told to stop already"
            } else {
                "it was started by a spec that the recovered cluster does not know"
            };
            self.order_stop(&found.slot, token, because);
        }
        if exclusive {
            self.keep_newest(&found.slot);
        }
        if wanted && version != newest {
            self.replace_older(&found.slot.service, newest);
        }
        wanted && self.claim(&found.slot, token).is_ok_and(|claim| claim.stop.is_none())
    }

    /// Puts a claim in the order of its token; the same one again only changes hands to the node's new disk.
    /// Older ones of the same node and boot are over: its guard runs one copy of a slot at a time. Was it
    /// not told to stop yet?
    fn put_found(&mut self, slot: &SlotId, claim: Claim) -> bool {
        if !self.state.slots.contains_key(slot) {
            self.state.slots.insert(slot.clone(), SlotRecord::default());
        }
        let (token, node, boot) = (claim.token, claim.node.clone(), claim.boot.clone());
        let older: Vec<Token> = self
            .state
            .slots
            .get(slot)
            .into_iter()
            .flat_map(|record| &record.claims)
            .filter(|other| other.node == node && other.boot == boot && other.token < token)
            .map(|other| other.token)
            .collect();
        for older in older {
            self.end_superseded(slot, older, token);
        }
        let mut stands = true;
        self.change_slot(slot, |record| match record.claims.iter_mut().find(|other| other.token == token) {
            Some(known) => {
                stands = known.stop.is_none();
                (known.node, known.raft_id, known.machine) = (claim.node, claim.raft_id, claim.machine);
                (known.boot, known.lease_epoch) = (claim.boot, claim.lease_epoch);
            }
            None => {
                record.claims.push(claim);
                record.claims.sort_by_key(|claim| claim.token);
            }
        });
        self.tokens.insert(slot.clone());
        stands
    }

    /// Of several nodes that run the same exclusive slot the one with the newest grant goes on: storage that
    /// checks tokens takes no other's writes. The rest is told to stop, and said aloud.
    fn keep_newest(&mut self, slot: &SlotId) {
        let told = |claim: &&Claim| {
            let heard = |node: &NodeId| {
                self.state.nodes.get(node).is_some_and(|record| record.inventory != Inventory::Unheard)
            };
            claim.stop.is_none() && heard(&claim.node)
        };
        let claims = self.state.slots.get(slot).into_iter().flat_map(|record| &record.claims);
        let mut running: Vec<(NodeId, Token)> =
            claims.filter(told).map(|claim| (claim.node.clone(), claim.token)).collect();
        running.sort_by_key(|(_, token)| *token);
        let Some(keeps) = running.pop().filter(|_| !running.is_empty()) else { return };
        for (_, token) in &running {
            let because = format!("{slot} runs on {} too, by a newer grant", keeps.0);
            self.order_stop(slot, *token, &because);
        }
        self.emit(Event::RanTwice { slot: slot.clone(), keeps, stops: running });
    }

    /// Copies of an older version that run on are replaced as any rollout would.
    fn replace_older(&mut self, name: &ServiceName, newest: Version) {
        let under_way = self.active(|kind| {
            matches!(kind, OperationKind::Rollout(rollout) if rollout.service == *name && rollout.version == newest)
        });
        if under_way.is_empty() {
            // Too many operations at once: the older copies stay, and the next deploy replaces them.
            drop(self.begin_rollout(name, newest));
        }
    }

    /// Claims of a node under which nothing runs there: they may have ended in what is gone, and the slot may
    /// run elsewhere by now. So none of them is started again: it ends, and the slot is granted anew.
    fn drop_idle_claims(&mut self, node: &NodeId, boot: &BootId, found: &[Found]) -> usize {
        let told = |slot: &SlotId| found.iter().find(|found| found.slot == *slot);
        let runs = |slot: &SlotId| told(slot).and_then(|found| found.runs).map(|(token, _)| token);
        // Those of an earlier boot end by the new boot, as always.
        let idle: Vec<(SlotId, Token, bool)> = self
            .state
            .claims_on(node)
            .filter(|(slot, claim)| claim.boot == *boot && runs(slot) != Some(claim.token))
            .map(|(slot, claim)| (slot.clone(), claim.token, claim.stop.is_some()))
            .collect();
        for (slot, token, stopping) in &idle {
            let highest = told(slot).map_or_else(Token::default, |found| found.highest);
            if highest > *token && runs(slot).is_none_or(|running| running > *token) {
                self.end_superseded(slot, *token, highest);
            } else if !stopping {
                self.order_stop(slot, *token, "nothing of it ran when the cluster was recovered");
            }
        }
        idle.len()
    }

    /// Its own node has accepted a higher token for the slot since: nothing can run under this one again.
    fn end_superseded(&mut self, slot: &SlotId, token: Token, by: Token) {
        let revision = self.state.revision;
        let evidence = Evidence::StopAcknowledged { stop: by };
        let mut node = None;
        self.change_slot(slot, |record| {
            let Some(at) = record.claims.iter().position(|claim| claim.token == token) else { return };
            let claim = record.claims.remove(at);
            node = Some(claim.node.clone());
            record.last_ended = Some(EndedClaim {
                token,
                node: claim.node,
                raft_id: claim.raft_id,
                evidence: evidence.clone(),
                revision,
            });
        });
        if let Some(node) = node {
            self.emit(Event::ClaimEnded { slot: slot.clone(), node, token, evidence });
        }
    }
}

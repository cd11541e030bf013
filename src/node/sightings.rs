//! What this node has heard of itself and the others: soft, never stored. On the leader it comes from
//! heartbeats, elsewhere from what the leader passes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use quorate_core::ids::{LeaseEpoch, NodeId, RaftId, Revision, SlotId};
use quorate_core::observation::{Heard, NodeReport, Observed, RaftObserved};
use quorate_core::reach::Reach;
use quorate_core::state::{State, Subject, Waiting};
use quorate_core::units::{BootMs, Millis};

use super::wire::News;

/// The leader's waiting report with a number that rises with each change.
#[derive(Debug, Clone, Default)]
pub struct WaitingReport {
    /// What waits for what.
    pub waiting: Arc<BTreeMap<Subject, Vec<Waiting>>>,
    /// Counts changes.
    pub version: u64,
    /// When it was made or received, on this node's clock.
    pub at: BootMs,
}

/// Everything heard.
#[derive(Debug, Default)]
pub struct Sightings {
    heard: OrdMap<NodeId, Heard>,
    versions: BTreeMap<NodeId, u64>,
    version: u64,
    /// When each node was first seen in State with its present disk and lease epoch: no answer could reach it
    /// while it was lost, so nothing before its rejoin counts against it.
    known: OrdMap<NodeId, BootMs>,
    disks: BTreeMap<NodeId, (RaftId, LeaseEpoch)>,
    /// Which process speaks for a node, by the leader's ears.
    speakers: BTreeMap<NodeId, u64>,
    /// The leader's waiting report, made here or passed on.
    pub waiting: WaitingReport,
    /// When the leader last said anything here.
    pub leader_word: Option<BootMs>,
    /// How old the leader's quorum was when it last said anything here.
    pub leader_quorum_age: Option<Millis>,
}

/// What one heartbeat stream has been told already.
#[derive(Debug, Default, Clone, Copy)]
pub struct Told {
    version: u64,
    waiting: u64,
}

impl Sightings {
    /// Takes in a node's report heard directly. True when something but its counters and load changed.
    pub fn receive(&mut self, report: NodeReport, now: BootMs) -> bool {
        let before = self.heard.get(&report.node);
        let woke = before.is_none_or(|heard| matters(&heard.report, &report));
        let echo_rose = match before {
            Some(heard) if heard.report.pid == report.pid && report.echo <= heard.report.echo => {
                heard.echo_rose
            }
            _ => now,
        };
        let answered = before.and_then(|heard| heard.answered);
        self.note(Heard { received: now, answered, echo_rose, report });
        woke
    }

    /// Keeps what was heard; whoever is passed it on is told if it shows anything new.
    fn note(&mut self, heard: Heard) {
        let node = heard.report.node.clone();
        if self.heard.get(&node).is_none_or(|before| differs(&before.report, &heard.report)) {
            self.version += 1;
            self.versions.insert(node.clone(), self.version);
        }
        self.heard.insert(node, heard);
    }

    /// A process opens a stream for a node. Refused while another one speaks: two processes with one
    /// identity would both act on its claims.
    pub fn speaks(
        &mut self,
        node: &NodeId,
        process: u64,
        now: BootMs,
        heartbeat: Millis,
    ) -> Result<(), String> {
        let other = self.speakers.get(node).is_some_and(|&speaker| speaker != process);
        let heard = self.heard.get(node).map(|heard| now.since(heard.received));
        if let Some(age) = heard.filter(|age| other && age.0 < heartbeat.0 * 2) {
            return Err(format!(
                "another process speaks as {node}, heard {age} ago; one identity has one process"
            ));
        }
        self.speakers.insert(node.clone(), process);
        Ok(())
    }

    /// A lease was given.
    pub fn answered(&mut self, node: &NodeId, now: BootMs) {
        if let Some(heard) = self.heard.get(node) {
            let heard = Heard { answered: Some(now), ..heard.clone() };
            self.heard.insert(node.clone(), heard);
        }
    }

    /// This node's own report, as fresh as it is.
    pub fn own(&mut self, report: NodeReport, now: BootMs) {
        let (answered, received, echo_rose) = self
            .heard
            .get(&report.node)
            .map_or((None, now, now), |heard| (heard.answered, heard.received, heard.echo_rose));
        self.note(Heard { received, answered, echo_rose, report });
    }

    /// How long ago a quorum acknowledged the leader, by its last word here.
    pub fn leader_acked(&self, now: BootMs) -> Option<Millis> {
        let (word, age) = (self.leader_word?, self.leader_quorum_age?);
        Some(age + now.since(word))
    }

    /// Takes in what the leader passed on. `me` knows itself better.
    pub fn on_news(&mut self, me: &NodeId, news: News, now: BootMs) {
        self.leader_word = Some(now);
        self.leader_quorum_age = news.quorum_ack_age;
        let ago = |age: Millis| BootMs(now.0.saturating_sub(age.0));
        for report in news.reports.into_iter().filter(|report| &report.node != me) {
            let node = report.node.clone();
            let heard = Heard { received: now, answered: None, echo_rose: now, report };
            self.heard.insert(node, heard);
        }
        for (node, age, answered) in news.ages {
            if let Some(heard) = self.heard.get(&node) {
                let report = heard.report.clone();
                let (received, answered) = (ago(age), answered.map(ago));
                self.heard.insert(node, Heard { received, answered, echo_rose: received, report });
            }
        }
        if let Some(waiting) = news.waiting {
            self.set_waiting(waiting, now);
        }
    }

    /// Sets the waiting report; true when it changed in more than its countdowns.
    pub fn set_waiting(&mut self, waiting: BTreeMap<Subject, Vec<Waiting>>, now: BootMs) {
        if *self.waiting.waiting != waiting {
            self.waiting.version += 1;
            self.waiting.waiting = Arc::new(waiting);
        }
        self.waiting.at = now;
    }

    /// What a stream has not been told yet.
    pub fn news(
        &self,
        told: &mut Told,
        to: &NodeId,
        now: BootMs,
        revision: Revision,
        quorum_ack_age: Option<Millis>,
    ) -> News {
        let fresh = |node: &NodeId| self.versions.get(node).is_some_and(|&version| version > told.version);
        let reports = self.heard.iter().filter(|(node, _)| *node != to && fresh(node));
        let news = News {
            revision,
            reports: reports.map(|(_, heard)| heard.report.clone()).collect(),
            ages: self
                .heard
                .iter()
                .map(|(node, heard)| {
                    (node.clone(), now.since(heard.received), heard.answered.map(|at| now.since(at)))
                })
                .collect(),
            waiting: (self.waiting.version > told.waiting).then(|| (*self.waiting.waiting).clone()),
            quorum_ack_age,
            rows: Vec::new(),
        };
        *told = Told { version: self.version, waiting: self.waiting.version };
        news
    }

    /// The value that decisions are made on.
    pub fn observed(&self, me: &NodeId, now: BootMs, reach: Reach, raft: RaftObserved) -> Observed {
        let (nodes, known_since) = (self.heard.clone(), self.known.clone());
        Observed { me: me.clone(), now, nodes, known_since, reach, raft }
    }

    /// When a node was last heard directly, and what it said.
    pub fn heard(&self, node: &NodeId) -> Option<&Heard> {
        self.heard.get(node)
    }

    /// Does a node report to know a slot?
    pub fn knows_slot(&self, node: &NodeId, slot: &SlotId) -> bool {
        self.heard.get(node).is_some_and(|heard| heard.report.slots.contains_key(slot))
    }

    /// Learns which nodes there are, and forgets those that State does not know any more.
    pub fn know(&mut self, me: &NodeId, state: &State, now: BootMs) {
        for (node, record) in state.nodes.iter() {
            let present = (record.raft_id, record.lease_epoch);
            if self.disks.get(node) != Some(&present) {
                self.disks.insert(node.clone(), present);
                self.known.insert(node.clone(), now);
            }
        }
        let gone = |node: &&NodeId| *node != me && !state.nodes.contains_key(node);
        let gone: Vec<NodeId> = self.heard.keys().chain(self.disks.keys()).filter(gone).cloned().collect();
        for node in gone {
            self.heard.remove(&node);
            self.known.remove(&node);
            self.disks.remove(&node);
            self.versions.remove(&node);
            self.speakers.remove(&node);
        }
    }
}

/// Worth deciding anew at once?
fn matters(old: &NodeReport, new: &NodeReport) -> bool {
    let phases = |report: &NodeReport| -> Vec<_> {
        let instance = |slot: &quorate_core::observation::SlotReport| {
            slot.instance.as_ref().map(|i| (i.id.clone(), i.phase.clone(), i.health, i.restarts, i.pid))
        };
        report.slots.iter().map(|(id, slot)| (id.clone(), slot.highest, instance(slot))).collect()
    };
    (old.boot != new.boot || old.lease_epoch != new.lease_epoch || old.wants_rejoin != new.wants_rejoin)
        || (old.pid != new.pid || old.guard != new.guard || old.executors != new.executors)
        || old.transfers.iter().map(|t| (t.operation, t.pass, &t.outcome)).ne(new.transfers.iter().map(|t| (t.operation, t.pass, &t.outcome)))
        || old.fencing != new.fencing
        || phases(old) != phases(new)
        // A rejoin waits for a report of a revision; nothing else looks at it.
        || (new.wants_rejoin && old.revision != new.revision)
}

/// Different in anything that is shown?
fn differs(old: &NodeReport, new: &NodeReport) -> bool {
    let bare = |report: &NodeReport| {
        let mut bare = report.clone();
        (bare.heartbeat, bare.echo) = (0, 0);
        bare
    };
    bare(old) != bare(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::ids::BootId;
    use quorate_core::observation::{FencingReport, GuardReport, NodeUsage};

    const NOW: BootMs = BootMs(10_000);

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn report(beat: u64, pid: u32) -> NodeReport {
        NodeReport {
            node: node("n1"),
            boot: BootId("boot".to_owned()),
            lease_epoch: LeaseEpoch(1),
            wants_rejoin: false,
            heartbeat: beat,
            echo: beat,
            revision: Revision(20),
            pid,
            guard: GuardReport::default(),
            usage: NodeUsage::default(),
            executors: Vec::new(),
            slots: BTreeMap::new(),
            transfers: Vec::new(),
            fencing: FencingReport::default(),
        }
    }

    /// Whose reports a follower is passed next.
    fn passed(sightings: &Sightings, told: &mut Told) -> Vec<u32> {
        let news = sightings.news(told, &node("n2"), NOW, Revision(20), None);
        news.reports.iter().map(|report| report.pid).collect()
    }

    #[test]
    fn a_follower_is_passed_what_changed_and_only_that() {
        let (mut sightings, mut told) = (Sightings::default(), Told::default());
        assert!(sightings.receive(report(1, 7), NOW));
        assert_eq!(passed(&sightings, &mut told), [7]);
        assert!(!sightings.receive(report(2, 7), NOW));
        assert!(passed(&sightings, &mut told).is_empty());
        assert!(sightings.receive(report(3, 8), NOW));
        assert_eq!(passed(&sightings, &mut told), [8]);
    }

    #[test]
    fn what_a_leader_sees_of_itself_before_its_own_heartbeat_is_passed_on_too() {
        let (mut sightings, mut told) = (Sightings::default(), Told::default());
        sightings.receive(report(1, 7), NOW);
        passed(&sightings, &mut told);
        sightings.own(report(0, 8), NOW);
        sightings.receive(report(2, 8), NOW);
        assert_eq!(passed(&sightings, &mut told), [8]);
    }
}

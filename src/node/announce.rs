//! Keeps State's word of this node true: makes the cluster at the bootstrap, and tells whatever the node
//! says of itself as soon as it differs from what is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_core::command::{Actor, Command, NodeAdmission, NodeFacts, Proposal};
use quorate_core::ids::RaftId;
use quorate_core::observation::NodeReport;
use quorate_core::spec::Resources;
use quorate_core::state::State;

use super::inner::Inner;
use super::propose;
use crate::host;

/// How long one announcement may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Between two that failed.
const RETRY: Duration = Duration::from_secs(1);

/// The announcer; one announcement is under way at a time.
pub(super) struct Announce {
    inner: Arc<Inner>,
    busy: Arc<AtomicBool>,
}

impl Announce {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, busy: Arc::default() }
    }

    pub(super) fn pass(&self, state: &State, own: &NodeReport) {
        let Some(command) = self.due(state, own) else { return };
        if self.busy.swap(true, Ordering::Relaxed) {
            return;
        }
        let (inner, busy) = (self.inner.clone(), self.busy.clone());
        let actor = Actor::Node(inner.me().clone());
        let proposal = Proposal { request: None, actor, at: host::wall_now(), expected: None, command };
        tokio::spawn(async move {
            let refused = match propose::submit(&inner, &proposal, WITHIN).await {
                Ok(answer) => answer.result.err().map(|rejection| rejection.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(why) = refused {
                tracing::debug!(why, command = ?proposal.command, "not announced yet");
                tokio::time::sleep(RETRY).await;
            }
            busy.store(false, Ordering::Relaxed);
            inner.wake.notify_one();
        });
    }

    fn due(&self, state: &State, own: &NodeReport) -> Option<Command> {
        let inner = &self.inner;
        let first = inner.raft_id == RaftId(1);
        if state.cluster.id.0.is_empty() {
            // Only the bootstrapping node makes the cluster, as leader of its own log.
            let settings = inner.options.config.settings.clone();
            let cluster = inner.identity.cluster.clone();
            let name = inner.options.cluster_name.clone();
            return (first && inner.leads()).then_some(Command::Bootstrap { cluster, name, settings });
        }
        let facts = facts(inner, own);
        match state.nodes.get(inner.me()) {
            None if first && inner.leads() => {
                Some(Command::AdmitNode(admission(inner.boot.clone(), inner, facts)))
            }
            None => None,
            Some(record) if record.disk != inner.identity.disk => None,
            Some(record) => (record.facts != facts).then_some(Command::UpdateNode(facts)),
        }
    }
}

fn admission(boot: quorate_core::ids::BootId, inner: &Inner, facts: NodeFacts) -> NodeAdmission {
    let config = &inner.options.config;
    NodeAdmission {
        machine: inner.identity.machine.clone(),
        disk: inner.identity.disk.clone(),
        boot,
        witness: config.witness,
        weight: config.weight,
        facts,
    }
}

fn facts(inner: &Inner, own: &NodeReport) -> NodeFacts {
    let mut facts = inner.facts.clone();
    facts.executors = own.executors.clone();
    facts.armed = own.guard.armed;
    facts.unarmed = own.guard.unarmed.clone();
    facts.terms = inner.terms.load(Ordering::Relaxed);
    facts
}

/// What a node says of itself before it has seen its executors.
pub(super) fn first_facts(
    config: &quorate_core::config::Config,
    endpoints: Vec<quorate_core::ids::Endpoint>,
    api: String,
    http: String,
    measured: Resources,
) -> NodeFacts {
    NodeFacts {
        node: config.node.clone(),
        endpoints,
        api,
        http,
        labels: config.labels.clone(),
        capacity: config.resources.capacity(measured),
        executors: Vec::new(),
        fencing: config.fencing.clone(),
        armed: false,
        unarmed: None,
        silence_counts: config.silence_counts,
        terms: 0,
        release: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

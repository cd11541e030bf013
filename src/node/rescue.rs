//! What is done to a data directory on which no node runs: a forced quorum, a restore. Each writes a State that
//! knows of it, in a higher epoch; what was there before is kept. Asks nobody; the caller did.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use quorate_core::command::{Actor, Command, NodeAdmission, Proposal, Recovery, RecoveryCause};
use quorate_core::config::Config;
use quorate_core::ids::{ClusterId, DiskId, Endpoint, Epoch, NodeId, RaftId, Revision, Segment};
use quorate_core::spec::Resources;
use quorate_core::state::{RecoveryRecord, Reply, State, codec};
use serde_json::json;

use super::identity::{self, DataDir, Identity, draw, machine_id};
use super::machine::Machine;
use super::{announce, audit};
use crate::host;
use crate::places::holds_node;
use crate::probes::HostProbe;
use crate::raft::rescue::{self, Beginning, Held, Position};
use crate::snapshot_file::Header;

/// The data directory of a node that does not run, with everything that is in its log.
pub struct Stopped {
    data: DataDir,
    identity: Identity,
    held: Held,
    state: Arc<State>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The cluster's id now.
    pub cluster: ClusterId,
    /// The epoch that begins.
    pub epoch: Epoch,
    /// The revision that begins it.
    pub revision: Revision,
    /// Where the old log is kept.
    pub kept: Option<PathBuf>,
}

impl Stopped {
    /// Opens the directory of a node that was stopped, and brings its State to the end of its log.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        if !holds_node(root) {
            bail!("{} is no data directory of a node", root.display());
        }
        let data = DataDir::open(root)?;
        let identity = data.stored_identity()?.context("it has no identity")?;
        data.check_own(&identity, &machine_id())?;
        let Some(raft_id) = identity.raft_id else {
            bail!("{} was never admitted to its cluster: there is nothing to go on from", identity.node);
        };
        let mut machine = Machine::new();
        let states = machine.states();
        let held = rescue::replay(&data.root().join("raft"), &identity.cluster, raft_id.0, &mut machine)?;
        let state = states.borrow().clone();
        if state.cluster.id.0.is_empty() {
            bail!("{} has nothing of its cluster in its log yet", identity.node);
        }
        Ok(Self { data, identity, held, state })
    }

    /// Whose directory it is.
    pub fn me(&self) -> &NodeId {
        &self.identity.node
    }

    /// State at the end of its log.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// How far its log goes.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// The cluster's secret, to ask others with.
    pub fn secret(&self) -> anyhow::Result<Option<String>> {
        self.data.secret()
    }

    /// The voters that the last membership in the log names, lost ones included.
    pub fn voters(&self) -> Vec<(RaftId, Option<NodeId>)> {
        let named = |id: &u64| (RaftId(*id), self.state.node_of(RaftId(*id)).map(|(node, _)| node.clone()));
        self.held.voters.iter().map(named).collect()
    }

    /// The epoch that this node has agreed to be in.
    pub fn epoch(&self) -> Epoch {
        self.identity.epoch.max(self.state.era())
    }

    /// The epoch that a forced quorum begins, if nobody who goes on has agreed to a later one than `above`.
    pub fn next_epoch(&self, above: Epoch) -> Epoch {
        Epoch(self.epoch().max(self.state.cluster.epoch).max(above).0 + 1)
    }

    /// Goes on with these voters alone, in an epoch that all of them have agreed to. Some of them knows everything
    /// up to `kept` to be committed; what follows may be another tail than the one that was.
    pub fn force_quorum(
        self,
        survivors: &[NodeId],
        (epoch, kept): (Epoch, Revision),
        by: &Actor,
        reason: &str,
    ) -> anyhow::Result<Recovered> {
        let mut voters = BTreeMap::new();
        for node in survivors {
            let record = self.state.nodes.get(node).with_context(|| format!("no node {node}"))?;
            let id = record.raft_id.0;
            if !self.held.voters.contains(&id) {
                bail!("{node} did not vote: only a voter can go on");
            }
            let known = self.held.members.get(&id).cloned().unwrap_or_default();
            let endpoints =
                if record.facts.endpoints.is_empty() { known } else { record.facts.endpoints.clone() };
            voters.insert(id, endpoints);
        }
        if !survivors.contains(self.me()) {
            bail!("{} is not among the survivors; run this where one of them has its data", self.me());
        }
        let at = Position { term: self.held.term + 1, index: self.held.last.index + 1 };
        let recovery = Recovery {
            cause: RecoveryCause::ForcedQuorum { survivors: survivors.to_vec() },
            above: Epoch(epoch.0.saturating_sub(1)),
            kept,
            cluster: None,
            founder: None,
            reason: reason.to_owned(),
        };
        let (state, _) = recovered(&self.state, Revision(at.index), by.clone(), recovery)?;
        let Some(RaftId(id)) = self.identity.raft_id else { bail!("it has no number in Raft") };
        if state.era() != epoch {
            bail!("epoch {epoch} was agreed to, and {} would begin", state.era());
        }
        note(self.data.root(), "forced_quorum", by, reason, &state)?;
        let cluster = self.identity.cluster.clone();
        let begin =
            Beginning { cluster: cluster.clone(), id, at, voters, state: codec::encode_state(&state) };
        let kept = rescue::begin_anew(&self.data.root().join("raft"), &begin, epoch.0)?;
        self.data.keep_identity(&Identity { epoch, ..self.identity.clone() })?;
        Ok(Recovered { cluster, epoch, revision: state.revision, kept })
    }
}

/// One line in the audit file of the directory, before the deed.
fn note(root: &Path, action: &str, by: &Actor, reason: &str, state: &State) -> anyhow::Result<()> {
    let what = state.cluster.recovery.as_ref().map(RecoveryRecord::what);
    let record = json!({
        "at_ms": host::wall_now().0,
        "action": action,
        "what": what,
        "by": by,
        "reason": reason,
        "epoch": state.era(),
        "revision": state.revision,
    });
    audit::append(root, &record)
}

/// Applies a recovery to a State on the disk: the only way there is.
fn recovered(state: &State, at: Revision, by: Actor, recovery: Recovery) -> anyhow::Result<(State, Reply)> {
    let command = Command::Recover(recovery);
    let proposal = Proposal { request: None, actor: by, at: host::wall_now(), expected: None, command };
    let mut state = state.clone();
    let answer = state.apply(at, &[proposal]).answers.remove(0);
    Ok((state, answer.result?))
}

/// Makes the node of this file the one voter of a new cluster that begins with a saved State. Its directory may
/// hold that node's earlier data: what runs there, and its state, stay.
pub fn restore(
    (header, state): (&Header, &State),
    config: &Config,
    root: &Path,
    by: Actor,
    reason: &str,
) -> anyhow::Result<Recovered> {
    let data = DataDir::open(root)?;
    let machine = machine_id();
    let earlier = data.stored_identity()?;
    if let Some(earlier) = &earlier {
        if earlier.node != config.node {
            bail!("{} holds the data of {}, not of {}", root.display(), earlier.node, config.node);
        }
        data.check_own(earlier, &machine)?;
    }
    let endpoints = endpoints(config)?;
    let founder = NodeAdmission {
        machine: machine.clone(),
        disk: DiskId(draw(16)),
        boot: host::boot_id().context("cannot read the boot id")?,
        witness: config.witness,
        weight: config.weight,
        facts: facts(config, endpoints.clone(), data.root())?,
    };
    let identity = Identity {
        format: 1,
        node: config.node.clone(),
        cluster: ClusterId(draw(8)),
        raft_id: None,
        disk: founder.disk.clone(),
        machine,
        epoch: Epoch(1),
        folder: data.folder(),
    };
    let recovery = Recovery {
        cause: RecoveryCause::Restored { saved_at: header.saved_at },
        above: earlier.map_or(Epoch(0), |earlier| earlier.epoch),
        kept: header.revision,
        cluster: Some(identity.cluster.clone()),
        founder: Some(founder),
        reason: reason.to_owned(),
    };
    let at = Position { term: 1, index: state.revision.0 + 1 };
    let (state, reply) = recovered(state, Revision(at.index), by.clone(), recovery)?;
    let Reply::Admitted(raft_id) = reply else { bail!("the node was not admitted: {reply:?}") };
    let (cluster, epoch) = (identity.cluster.clone(), state.era());
    note(data.root(), "restore", &by, reason, &state)?;
    let voters = BTreeMap::from([(raft_id.0, endpoints)]);
    let body = codec::encode_state(&state);
    let begin = Beginning { cluster: cluster.clone(), id: raft_id.0, at, voters, state: body };
    let kept = rescue::begin_anew(&data.root().join("raft"), &begin, epoch.0)?;
    identity::forget_lease_epoch(data.root())?;
    identity::keep_raft_timing(data.root(), state.cluster.settings.raft)?;
    // A new secret: members and clients of before are strangers.
    data.keep_secret(&draw(32))?;
    data.keep_identity(&Identity { raft_id: Some(raft_id), epoch, ..identity })?;
    Ok(Recovered { cluster, epoch, revision: state.revision, kept })
}

/// Where the node of a file is reached, without opening a door.
fn endpoints(config: &Config) -> anyhow::Result<Vec<Endpoint>> {
    let mut endpoints = config.addresses.clone();
    if endpoints.is_empty() {
        let (segment, host) = (Segment::new("default")?, config.bind.host.clone());
        endpoints.push(Endpoint { segment, host, port: config.bind.port });
    }
    for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.port == 0) {
        endpoint.port = config.bind.port;
    }
    Ok(endpoints)
}

/// As far as they can be told before the node runs; it corrects them itself.
fn facts(
    config: &Config,
    endpoints: Vec<Endpoint>,
    root: &Path,
) -> anyhow::Result<quorate_core::command::NodeFacts> {
    let usage = HostProbe::new(root.to_owned())?.sample()?;
    let measured = Resources { cpu: usage.cpu_total, memory: usage.memory_total };
    let door = |port: u16| format!("{}:{port}", config.bind.host);
    Ok(announce::first_facts(config, endpoints, door(config.grpc_port), door(config.http_port), measured))
}

//! How a node comes to its place: it makes a cluster, joins one by token, or goes on with what its data
//! directory says. Nothing is kept before it is certain.

use std::time::Duration;

use anyhow::{Context, bail};
use quorate_core::command::{NodeAdmission, NodeFacts};
use quorate_core::ids::{BootId, ClusterId, DiskId, Endpoint, Epoch, MachineId, RaftId};
use tokio::time::{Instant, sleep, timeout};

use super::identity::{self, DataDir, Identity, draw};
use super::options::NodeOptions;
use super::peers::{Addresses, CallError, failed, pack};
use super::token::JoinToken;
use super::wire::{Refusal, Register, Registered, decode};
use crate::transport::Secret;

/// How long joining is tried before it is given up with the last reason.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two rounds over all addresses.
const AGAIN: Duration = Duration::from_millis(300);
/// How long one address may take.
const EACH: Duration = Duration::from_secs(6);

/// A node's place.
pub(super) struct Place {
    pub(super) identity: Identity,
    pub(super) secret: String,
    pub(super) raft_id: RaftId,
    /// Members to reach before their log is here.
    pub(super) members: Vec<(RaftId, Vec<Endpoint>)>,
    /// The settings to start with, if the cluster told them.
    pub(super) settings: Option<quorate_core::state::ClusterSettings>,
    /// This node makes the cluster.
    pub(super) founder: bool,
}

/// Finds this node's place, waiting for the cluster where it joins one.
pub(super) async fn place(
    options: &NodeOptions,
    data: &DataDir,
    machine: &MachineId,
    boot: &BootId,
    facts: &NodeFacts,
) -> anyhow::Result<Place> {
    let config = &options.config;
    let known = data.identity(&config.node, machine)?;
    let token = config.join.token.as_ref().map(|secret| JoinToken::parse(&secret.0)).transpose()?;
    if let Some(identity) = known {
        let secret = data.secret()?.with_context(|| {
            format!("{} has an identity but no secret; copy it from another node", data.root().display())
        })?;
        if let Some(token) = token.as_ref().filter(|token| token.cluster != identity.cluster) {
            bail!(
                "{} holds the data of cluster {}, the join token is of cluster {}; choose another data_dir",
                data.root().display(),
                identity.cluster,
                token.cluster
            );
        }
        if let Some(raft_id) = identity.raft_id {
            let founder = raft_id == RaftId(1);
            return Ok(Place { identity, secret, raft_id, members: Vec::new(), settings: None, founder });
        }
        let addresses = addresses(options, token.as_ref());
        return join(options, data, identity, secret, addresses, boot, facts).await;
    }
    let fresh = |cluster| Identity {
        format: 1,
        node: config.node.clone(),
        cluster,
        raft_id: None,
        disk: DiskId(draw(16)),
        machine: machine.clone(),
        epoch: Epoch(1),
        folder: data.folder(),
    };
    identity::forget_lease_epoch(data.root())?;
    if let Some(token) = token {
        let addresses = addresses(options, Some(&token));
        let identity = fresh(token.cluster.clone());
        return join(options, data, identity, token.secret.clone(), addresses, boot, facts).await;
    }
    if !config.bootstrap {
        bail!(
            "{} is empty and the file neither bootstraps nor joins; set bootstrap: true for the first node, \
             or give --join ADDRESS --token TOKEN from `quorate join-token`",
            data.root().display()
        );
    }
    nobody_is_there(options).await?;
    let identity = Identity { raft_id: Some(RaftId(1)), ..fresh(ClusterId(draw(8))) };
    let secret = draw(32);
    // The secret first: an identity is never without one.
    data.keep_secret(&secret)?;
    data.keep_identity(&identity)?;
    Ok(Place { identity, secret, raft_id: RaftId(1), members: Vec::new(), settings: None, founder: true })
}

fn addresses(options: &NodeOptions, token: Option<&JoinToken>) -> Vec<String> {
    let mut all: Vec<String> = options.config.join.addresses.iter().map(ToString::to_string).collect();
    all.extend(token.iter().flat_map(|token| token.addresses.iter().cloned()));
    all.dedup();
    all
}

/// A second bootstrap beside a running cluster would split it in two.
async fn nobody_is_there(options: &NodeOptions) -> anyhow::Result<()> {
    for address in &options.config.join.addresses {
        let dialled =
            timeout(EACH, tokio::net::TcpStream::connect((address.host.as_str(), address.port))).await;
        if matches!(dialled, Ok(Ok(_))) {
            bail!(
                "bootstrap is refused: {address} of join.addresses answers, so a cluster may be there; join it \
                 with a token, or remove that address"
            );
        }
    }
    Ok(())
}

async fn join(
    options: &NodeOptions,
    data: &DataDir,
    identity: Identity,
    secret: String,
    addresses: Vec<String>,
    boot: &BootId,
    facts: &NodeFacts,
) -> anyhow::Result<Place> {
    if addresses.is_empty() {
        bail!("there is no address to join; give --join ADDRESS or set join.addresses");
    }
    let config = &options.config;
    let admission = NodeAdmission {
        machine: identity.machine.clone(),
        disk: identity.disk.clone(),
        boot: boot.clone(),
        witness: config.witness,
        weight: config.weight,
        facts: facts.clone(),
    };
    let register = Register { cluster: identity.cluster.clone(), admission };
    let ways = Addresses::new(Secret::new(&secret)?, options.detours.clone());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut last = String::new();
        for address in &addresses {
            match ask(&ways, address, &register).await {
                Ok(Registered { raft_id, members, settings, warning, epoch }) => {
                    if let Some(why) = warning {
                        tracing::warn!("{why}");
                        // Whoever starts a node by hand looks at the terminal, not into its log.
                        eprintln!("warning: {why}");
                    }
                    let identity = Identity { raft_id: Some(raft_id), epoch, ..identity };
                    data.keep_secret(&secret)?;
                    data.keep_identity(&identity)?;
                    let settings = Some(settings);
                    return Ok(Place { identity, secret, raft_id, members, settings, founder: false });
                }
                Err((true, why)) => bail!("{} cannot join: {why}", identity.node),
                Err((false, why)) => last = why,
            }
        }
        if Instant::now() >= deadline {
            bail!("{} could not join within {} s: {last}", identity.node, PATIENCE.as_secs());
        }
        tracing::info!(why = last, "not joined yet");
        sleep(AGAIN).await;
    }
}

/// Asks one address; an error says whether trying again is of no use.
async fn ask(ways: &Addresses, address: &str, register: &Register) -> Result<Registered, (bool, String)> {
    let mut client = ways.cluster(address).map_err(|error| (false, error.to_string()))?;
    let answer = match timeout(EACH, client.register(pack(register))).await {
        Err(_) => return Err((false, format!("{address} did not answer in time"))),
        Ok(Err(status)) => {
            let error = failed(address, &status);
            return Err((matches!(error, CallError::Denied { .. }), error.to_string()));
        }
        Ok(Ok(answer)) => answer,
    };
    let answer: Result<Registered, Refusal> =
        decode(&answer.into_inner().body).map_err(|error| (true, error.to_string()))?;
    answer.map_err(|refusal| match refusal {
        Refusal::Refused { because, remedy } => (true, format!("{because}; {remedy}")),
        // A name whose old disk is not lost yet may be free in a moment: the detector decides.
        Refusal::Rejected(rejection) => (false, rejection.to_string()),
        Refusal::NotLeader(_) => (false, format!("{address} knows no leader")),
        Refusal::NoQuorum(why) | Refusal::Unknown(why) => (false, why),
        Refusal::TooLarge(limit) => (true, format!("the admission is larger than {limit} bytes")),
        Refusal::Stopping => (false, format!("{address} is stopping")),
    })
}

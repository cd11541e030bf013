//! Starts and ends a node: takes its data directory, finds its place, brings up Raft, the guard, the
//! servers and the loops, each on the runtime where it cannot be delayed by the others.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use quorate_core::config::{Address, Config};
use quorate_core::ids::{Endpoint, Segment};
use quorate_core::lease::{LeaseGranter, LeaseHolder};
use quorate_core::spec::Resources;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tonic::service::Routes;

use super::cluster_proto::bulk_server::BulkServer as BulkService;
use super::cluster_proto::cluster_server::ClusterServer as ClusterService;
use super::effects::Works;
use super::identity::{self, DataDir, LockNote, draw, machine_id};
use super::inner::Inner;
use super::join::{self, Place};
use super::machine::Machine;
use super::options::NodeOptions;
use super::peers::Addresses;
use super::port::Port;
use super::server::{BulkServer, ClusterServer};
use super::wire::MAX_BYTES;
use super::{announce, answer, control, effects, fencing, health, heartbeat, reach, relay, show, survey};
use crate::executors::{Instances, drivers};
use crate::guard::{GuardClient, GuardOptions};
use crate::host;
use crate::layout::Layout;
use crate::ports::NodePort;
use crate::probes::HostProbe;
use crate::raft::{RaftLimits, RaftNode, RaftOptions, RaftTiming};
use crate::transport::{self, Datagrams, Dialer, Epochs, GuestLimits, Secret, SecretLayer, Serving};

/// How long the guard may take to come up before the node gives up.
const GUARD_WITHIN: Duration = Duration::from_secs(10);
/// A call of the API is answered by then, or it never came whole. Writes take less.
const API_WITHIN: Duration = Duration::from_secs(60);
/// A call between nodes too: a snapshot may be large and its way slow.
const NODES_WITHIN: Duration = Duration::from_secs(600);
/// Paths that need no secret.
const OPEN: [&str; 1] = ["/grpc.health.v1.Health/"];

/// A running node. Dropping it ends the node's process parts; its instances run on under the guard.
pub struct Node {
    inner: Arc<Inner>,
    raft: Option<RaftNode>,
    work: Option<tokio::runtime::Runtime>,
    note: LockNote,
    _data: DataDir,
}

struct Doors {
    bind: TcpListener,
    grpc: TcpListener,
    http: TcpListener,
    endpoints: Vec<Endpoint>,
    note: LockNote,
}

impl Node {
    /// Starts a node and returns once it serves. Blocks; not for async code.
    pub fn start(options: NodeOptions) -> anyhow::Result<Self> {
        let work = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(32)
            .thread_name("work")
            .enable_all()
            .build()
            .context("cannot make a runtime")?;
        let mut data = DataDir::open(&options.data_dir)?;
        let options = NodeOptions { data_dir: data.root().to_owned(), ..options };
        let (machine, boot) = (machine_id(), host::boot_id().context("cannot read the boot id")?);
        let doors = work.block_on(doors(&options))?;
        data.announce(&doors.note)?;
        let mut probe = HostProbe::new(options.data_dir.clone())?;
        let usage = probe.sample()?;
        let measured = Resources { cpu: usage.cpu_total, memory: usage.memory_total };
        let facts = announce::first_facts(
            &options.config,
            doors.endpoints.clone(),
            doors.note.grpc.clone(),
            doors.note.http.clone(),
            measured,
        );
        let place = work.block_on(join::place(&options, &data, &machine, &boot, &facts))?;
        let note = doors.note.clone();
        let (inner, raft) = build(&work, &options, place, boot, facts, doors, probe)?;
        Ok(Self { inner, raft: Some(raft), work: Some(work), note, _data: data })
    }

    /// What it offers.
    pub fn port(&self) -> Arc<dyn NodePort> {
        Arc::new(Port(self.inner.clone()))
    }

    /// Where it listens.
    pub fn listens(&self) -> &LockNote {
        &self.note
    }

    /// Ends it in order; its instances run on under the guard. Blocks; not for async code.
    pub fn shutdown(mut self) {
        self.inner.stopping.send_replace(true);
        if let Some(raft) = self.raft.take() {
            raft.shutdown();
        }
        if let Some(work) = self.work.take() {
            work.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

async fn doors(options: &NodeOptions) -> anyhow::Result<Doors> {
    let config = &options.config;
    let open = async |host: &str, port: u16| -> anyhow::Result<(TcpListener, Address)> {
        let found = tokio::net::lookup_host((host, port)).await;
        let address: SocketAddr = found
            .with_context(|| format!("cannot resolve {host}"))?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        let listener = transport::bind(address).await?;
        let port = listener.local_addr()?.port();
        Ok((listener, Address { host: host.to_owned(), port }))
    };
    let (bind, bind_at) = open(&config.bind.host, config.bind.port).await?;
    let (grpc, grpc_at) = open(&config.bind.host, config.grpc_port).await?;
    let (http, http_at) = open(&config.bind.host, config.http_port).await?;
    let mut endpoints = config.addresses.clone();
    if endpoints.is_empty() {
        let segment = Segment::new("default")?;
        endpoints.push(Endpoint { segment, host: bind_at.host.clone(), port: bind_at.port });
    }
    for endpoint in &mut endpoints {
        // A port that was left open is the one that was found.
        if endpoint.port == 0 {
            endpoint.port = bind_at.port;
        }
    }
    let note = LockNote {
        pid: std::process::id(),
        node: config.node.to_string(),
        bind: bind_at.to_string(),
        grpc: grpc_at.to_string(),
        http: http_at.to_string(),
    };
    Ok(Doors { bind, grpc, http, endpoints, note })
}

fn build(
    work: &tokio::runtime::Runtime,
    options: &NodeOptions,
    place: Place,
    boot: quorate_core::ids::BootId,
    facts: quorate_core::command::NodeFacts,
    doors: Doors,
    probe: HostProbe,
) -> anyhow::Result<(Arc<Inner>, RaftNode)> {
    let Place { identity, secret, raft_id, members, settings, founder } = place;
    let kept = identity::raft_timing(&options.data_dir)?;
    let timing = kept.or_else(|| settings.map(|s| s.raft)).unwrap_or(options.config.settings.raft);
    let terms = options.config.settings.terms;
    let key = Secret::new(&secret)?;
    let silence = Duration::from_millis(timing.election_max.0 * 4);
    let root = options.data_dir.clone();
    let keep = move |epoch| identity::keep_epoch(&root, epoch).map_err(std::io::Error::other);
    let (epochs, detours) = (Epochs::new(identity.epoch, Box::new(keep)), options.detours.clone());
    let dialer =
        Dialer::detoured(identity.cluster.clone(), raft_id.0, key.clone(), silence, detours, epochs.clone());
    for (id, endpoints) in &members {
        dialer.set(id.0, endpoints);
    }
    let machine = Machine::new();
    let (states, kv) = (machine.states(), machine.kv());
    let raft = RaftNode::start(
        RaftOptions {
            id: raft_id.0,
            cluster: identity.cluster.clone(),
            dir: options.data_dir.join("raft"),
            timing: RaftTiming {
                heartbeat_ms: timing.heartbeat.0,
                election_min_ms: timing.election_min.0,
                election_max_ms: timing.election_max.0,
            },
            limits: RaftLimits { snapshot_entries: options.config.snapshot.entries, ..RaftLimits::default() },
        },
        Box::new(machine),
        Arc::new(dialer.clone()),
    )?;
    let handle = raft.handle();
    let control = handle.runtime().clone();

    let layout = Layout::new(options.data_dir.clone());
    let guard = {
        let _context = control.enter();
        let hold = options.hold.as_ref().map(|hold| hold.try_clone()).transpose()?;
        Arc::new(GuardClient::begin(GuardOptions {
            program: options.program.clone(),
            layout: layout.clone(),
            node: identity.node.clone(),
            hold,
            arguments: guard_arguments(&options.config),
        }))
    };
    work.block_on(guard.ready(GUARD_WITHIN))?;
    let held_until = Some(guard.status().borrow().held_until).filter(|until| until.0 > 0);
    let instances = if options.config.witness {
        None
    } else {
        let _context = work.enter();
        let node = identity.node.clone();
        let instances = Instances::begin(guard.clone(), drivers(), layout.clone(), node);
        // Before the guard was asked, an empty inventory would read as if nothing ran here.
        if !work.block_on(instances.ready(GUARD_WITHIN)) {
            bail!("the guard did not tell what runs here within {} s", GUARD_WITHIN.as_secs());
        }
        Some(instances)
    };
    let stored = identity::lease_epoch(&options.data_dir)?;
    let (asks, asked) = mpsc::channel(1_024);
    let (relay, errands) = relay::relay();
    let works = Works::new(layout, instances, guard, work.handle().clone());
    let datagrams = {
        let _context = control.enter();
        let bound = doors
            .bind
            .local_addr()
            .and_then(|address| Datagrams::bind(address, key.clone(), options.detours.clone()));
        bound
            .inspect_err(
                |error| tracing::warn!(%error, "no datagrams: a link that works one way will read as down"),
            )
            .ok()
    };
    let inner = Arc::new(Inner {
        options: options.clone(),
        raft_id,
        process: u64::from_str_radix(&draw(8), 16).unwrap_or_default(),
        status: handle.status(),
        raft: handle.clone(),
        states,
        kv,
        views: watch::channel(Arc::new(show::first(&identity.node, options.kind))).0,
        sightings: Mutex::default(),
        reach: Mutex::default(),
        holder: Mutex::new(LeaseHolder::new(boot.clone(), stored, held_until, host::boot_now())),
        granter: Mutex::new(LeaseGranter::default()),
        terms: AtomicU64::new(if held_until.is_some() { terms.number } else { 0 }),
        leading: Mutex::default(),
        following: Mutex::default(),
        works,
        dialer,
        datagrams,
        addresses: Addresses::new(key.clone(), options.detours.clone()),
        relay,
        asks,
        wake: Notify::new(),
        hurry: Notify::new(),
        stopping: watch::channel(false).0,
        boot,
        facts,
        identity,
        epochs,
        secret,
    });
    serve(work, &control, &inner, &raft, key, doors)?;
    control.spawn(answer::run(inner.clone(), asked));
    work.spawn(relay::run(inner.clone(), errands));
    control.spawn(effects::renewals(inner.clone()));
    control.spawn(heartbeat::run(inner.clone()));
    control.spawn(control::run(inner.clone()));
    work.spawn(survey::usage(inner.clone(), probe));
    work.spawn(survey::memory(inner.clone()));
    control.spawn(reach::run(inner.clone()));
    work.spawn(fencing::survey(inner.clone()));
    if founder {
        let endpoints = inner.facts.endpoints.clone();
        work.block_on(handle.bootstrap(endpoints)).context("cannot found the cluster")?;
    }
    Ok((inner, raft))
}

/// What the guard of such a node is started with. One that runs already keeps what it was started with.
fn guard_arguments(config: &Config) -> Vec<String> {
    let flags = [("--alone", config.witness), ("--reset-host", config.reset_host)];
    flags.into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag.to_owned()).collect()
}

fn serve(
    work: &tokio::runtime::Runtime,
    control: &tokio::runtime::Handle,
    inner: &Arc<Inner>,
    raft: &RaftNode,
    key: Secret,
    doors: Doors,
) -> anyhow::Result<()> {
    let guests = GuestLimits::of_descriptors(host::more_descriptors());
    let ended = |inner: &Arc<Inner>| {
        let mut stopping = inner.stopping.subscribe();
        async move {
            // A dropped sender ends it as well.
            drop(stopping.wait_for(|stopping| *stopping).await);
        }
    };
    let cluster = ClusterService::new(ClusterServer(inner.clone()))
        .max_decoding_message_size(MAX_BYTES)
        .max_encoding_message_size(MAX_BYTES);
    let nodes = Routes::new(transport::peer_service(raft.inbox(), inner.epochs.clone())).add_service(cluster);
    let serving = Serving { guests, answer_within: NODES_WITHIN };
    let served = transport::serve(doors.bind, nodes, SecretLayer::new(key.clone()), serving, ended(inner));
    control.spawn(told("node-to-node", served));
    let bulk = BulkService::new(BulkServer(inner.clone())).max_encoding_message_size(MAX_BYTES);
    // Whoever may not call at all was turned away by the layer before the routes.
    let port: Arc<dyn NodePort> = Arc::new(Port(inner.clone()));
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let api = crate::api::routes(port, Ok)?.add_service(bulk).add_service(health_service);
    let serving = Serving { guests, answer_within: API_WITHIN };
    let served = transport::serve(doors.grpc, api, SecretLayer::new(key).open(&OPEN), serving, ended(inner));
    work.spawn(told("API", served));
    work.spawn(told("HTTP", health::serve(doors.http, inner.clone(), guests, ended(inner))));
    work.spawn(health::report(inner.clone(), reporter, crate::api::services()));
    Ok(())
}

async fn told(what: &'static str, served: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = served.await {
        tracing::error!("the {what} server ended: {error:#}");
    }
}

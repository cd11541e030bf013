//! Who is reached where, and the connections there: one for each lane, so that bulk never delays
//! raft. The segments are tried in order, those known to be broken last, each next one beside those that hang.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::Uri;
use hyper_util::rt::TokioIo;
use quorate_core::ids::{ClusterId, Endpoint, Segment};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint as TonicEndpoint};
use tower::service_fn;

use super::detours::Detours;
use super::epoch::Epochs;
use super::link::Link;
use super::road::{Roads, Socket};
use super::secret::{Secret, WithSecret};

/// A connection to a peer; calls on it carry the cluster secret.
pub type PeerChannel = InterceptedService<Channel, WithSecret>;

/// What a connection is for. Each has its own, used from one runtime only: a connection's work is
/// done by the runtime that asked for it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Raft's messages.
    Raft,
    /// Raft's snapshots.
    Snapshot,
    /// Heartbeats and reachability between nodes.
    Heartbeat,
    /// What callers of one node ask of the leader: on the runtime that serves callers.
    Relay,
    /// State copies, logs, artifacts.
    Bulk,
}

/// How long a segment that hangs is waited for before the next is tried beside it.
/// Less than a question of raft may take: else a dead first segment would never be left in time.
const STAGGER: Duration = Duration::from_millis(25);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// So many calls in a row, over twice the allowed silence, have to go unanswered before their connection is left.
const STRIKES: u32 = 3;

/// The dial table of a node, and its connections. Clones share both.
#[derive(Clone)]
pub struct Dialer(Arc<Inner>);

pub(super) struct Inner {
    pub cluster: ClusterId,
    pub me: u64,
    /// A connection that answers no ping for so long is given up.
    pub silence: Duration,
    pub epochs: Epochs,
    secret: Secret,
    detours: Detours,
    table: Mutex<BTreeMap<u64, Arc<[Endpoint]>>>,
    channels: Mutex<BTreeMap<(u64, Lane), PeerChannel>>,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    roads: Mutex<Roads>,
    /// Calls in a row that were not answered in time, and since when.
    strikes: Mutex<BTreeMap<(u64, Lane), (u32, Instant)>>,
}

impl Dialer {
    /// A table without entries, for node `me` of `cluster`. A connection on which something is due and
    /// that answers nothing, not even a ping, for `silence` is left for a new one, which may take
    /// another segment. About four of raft's longest elections, and a second at least, is good.
    pub fn new(cluster: ClusterId, me: u64, secret: Secret, silence: Duration) -> Self {
        Self::detoured(cluster, me, secret, silence, Detours::default(), Epochs::default())
    }

    /// The same, where some addresses are reached elsewhere than published, and in an epoch.
    pub fn detoured(
        cluster: ClusterId,
        me: u64,
        secret: Secret,
        silence: Duration,
        detours: Detours,
        epochs: Epochs,
    ) -> Self {
        let (table, channels, links) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (roads, strikes) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner {
            cluster,
            me,
            silence,
            epochs,
            secret,
            detours,
            table,
            channels,
            links,
            roads,
            strikes,
        }))
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Says where `peer` is reached, best first.
    pub fn set(&self, peer: u64, endpoints: &[Endpoint]) {
        let changed = {
            let mut table = lock(&self.0.table);
            let same = table.get(&peer).is_some_and(|known| known.as_ref() == endpoints);
            if !same {
                table.insert(peer, endpoints.into());
            }
            !same
        };
        if changed {
            lock(&self.0.channels).retain(|(id, _), _| *id != peer);
        }
    }

    /// Forgets a peer and its connections.
    pub fn forget(&self, peer: u64) {
        lock(&self.0.table).remove(&peer);
        lock(&self.0.channels).retain(|(id, _), _| *id != peer);
        lock(&self.0.links).remove(&peer);
        lock(&self.0.roads).forget(peer);
        lock(&self.0.strikes).retain(|(id, _), _| *id != peer);
    }

    /// Where `peer` is reached, as far as known.
    pub fn endpoints(&self, peer: u64) -> Vec<Endpoint> {
        lock(&self.0.table).get(&peer).map(|known| known.to_vec()).unwrap_or_default()
    }

    /// The connection to `peer` for a lane; made with its first call, and again after it broke. Must
    /// be called on the runtime that the lane belongs to.
    pub fn channel(&self, peer: u64, lane: Lane) -> PeerChannel {
        let mut channels = lock(&self.0.channels);
        let made = channels.entry((peer, lane)).or_insert_with(|| {
            let weak = Arc::downgrade(&self.0);
            let connector = service_fn(move |_: Uri| {
                let inner = weak.upgrade();
                async move {
                    let inner = inner.ok_or(io::ErrorKind::NotConnected)?;
                    let known = lock(&inner.table).get(&peer).cloned().unwrap_or_default();
                    let endpoints = lock(&inner.roads).order(peer, Some(lane), &known);
                    let (stream, segment) = connect(&endpoints, &inner.detours).await?;
                    let end = lock(&inner.roads).travels(peer, lane, segment);
                    io::Result::Ok(TokioIo::new(Socket::new(stream, end)))
                }
            });
            let about = TonicEndpoint::from_static("http://peer.invalid")
                .initial_stream_window_size(4 * 1024 * 1024)
                .initial_connection_window_size(8 * 1024 * 1024)
                .http2_keep_alive_interval(self.0.silence / 2)
                .keep_alive_timeout(self.0.silence / 2);
            let channel = about.connect_with_connector_lazy(connector);
            InterceptedService::new(
                channel,
                WithSecret::new(self.0.secret.clone()).in_epoch(self.0.epochs.clone()),
            )
        });
        made.clone()
    }

    /// Leaves the connection of a lane for a new one, which takes another segment if there is one.
    pub fn reset(&self, peer: u64, lane: Lane) {
        lock(&self.0.roads).doubt(peer, lane);
        lock(&self.0.channels).remove(&(peer, lane));
        lock(&self.0.strikes).remove(&(peer, lane));
    }

    /// A call on a lane was not answered in time. After several in a row, and not before a new connection had
    /// the time to be made, the lane is left: one thrown away with each late answer would never stand where
    /// hosts are busy.
    pub(super) fn unanswered(&self, peer: u64, lane: Lane) {
        let stuck = {
            let mut strikes = lock(&self.0.strikes);
            let (count, since) = strikes.entry((peer, lane)).or_insert((0, Instant::now()));
            *count += 1;
            *count >= STRIKES && since.elapsed() >= self.0.silence * 2
        };
        if stuck {
            self.reset(peer, lane);
        }
    }

    /// A call on a lane was answered.
    pub(super) fn answered(&self, peer: u64, lane: Lane) {
        lock(&self.0.strikes).remove(&(peer, lane));
    }

    /// A segment to a peer does not work any more: it is tried last, and what travels on it is ended at once
    /// if `leave` says that another works.
    pub fn broke(&self, peer: u64, segment: &Segment, leave: bool) {
        lock(&self.0.roads).broke(peer, segment, leave);
    }

    /// A segment to a peer works again; what still waits on a broken one is ended.
    pub fn mended(&self, peer: u64, segment: &Segment) {
        lock(&self.0.roads).mended(peer, segment);
    }

    /// Which segment a lane to a peer travels on, if it is connected.
    pub fn travels(&self, peer: u64, lane: Lane) -> Option<Segment> {
        lock(&self.0.roads).segment(peer, lane)
    }

    /// A connection of its own to exactly this address, for one who wants to know whether it works. Must be
    /// called on the runtime that will use it.
    pub fn probe(&self, endpoint: &Endpoint) -> PeerChannel {
        let (endpoint, detours) = (endpoint.clone(), self.0.detours.clone());
        let connector = service_fn(move |_: Uri| {
            let (endpoint, detours) = (endpoint.clone(), detours.clone());
            async move { dial(endpoint, detours).await.map(|(stream, _)| TokioIo::new(stream)) }
        });
        let channel =
            TonicEndpoint::from_static("http://peer.invalid").connect_with_connector_lazy(connector);
        InterceptedService::new(channel, WithSecret::new(self.0.secret.clone()))
    }

    pub(super) fn shared_link(&self, peer: u64) -> Arc<Link> {
        lock(&self.0.links).entry(peer).or_insert_with(|| Link::start(self.clone(), peer)).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first endpoint that answers, those earlier in the list given a head start.
async fn connect(endpoints: &[Endpoint], detours: &Detours) -> io::Result<(TcpStream, Segment)> {
    let mut waiting = endpoints.iter().cloned();
    let mut trying: FuturesUnordered<BoxFuture<'static, _>> = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address is known");
    let deadline = Instant::now() + CONNECT_WITHIN;
    loop {
        match waiting.next() {
            Some(endpoint) => trying.push(Box::pin(dial(endpoint, detours.clone()))),
            None if trying.is_empty() => return Err(last),
            None => {}
        }
        let until = if waiting.len() == 0 { deadline } else { Instant::now() + STAGGER };
        match tokio::time::timeout_at(until.min(deadline), trying.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => last = error,
            Ok(None) => {}
            Err(_) if Instant::now() >= deadline => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no address answered"));
            }
            Err(_) => {}
        }
    }
}

async fn dial(endpoint: Endpoint, detours: Detours) -> io::Result<(TcpStream, Segment)> {
    let stream = TcpStream::connect(detours.of_endpoint(&endpoint)).await;
    let stream = stream.map_err(|error| io::Error::new(error.kind(), format!("{endpoint}: {error}")))?;
    stream.set_nodelay(true)?;
    Ok((stream, endpoint.segment))
}

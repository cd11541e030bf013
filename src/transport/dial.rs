//! Who is reached where, and the connections there: one for each lane, so that bulk never delays
//! raft. The segments are tried in order, each next one beside those that hang.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::Uri;
use hyper_util::rt::TokioIo;
use quorate_core::ids::{ClusterId, Endpoint};
use tokio::net::TcpStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint as TonicEndpoint};
use tower::service_fn;

use super::detours::Detours;
use super::link::Link;
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
    /// State copies, logs, artifacts.
    Bulk,
}

/// How long a segment that hangs is waited for before the next is tried beside it.
const STAGGER: Duration = Duration::from_millis(100);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// The dial table of a node, and its connections. Clones share both.
#[derive(Clone)]
pub struct Dialer(Arc<Inner>);

pub(super) struct Inner {
    pub cluster: ClusterId,
    pub me: u64,
    /// A connection that answers no ping for so long is given up.
    pub silence: Duration,
    secret: Secret,
    detours: Detours,
    table: Mutex<BTreeMap<u64, Arc<[Endpoint]>>>,
    channels: Mutex<BTreeMap<(u64, Lane), PeerChannel>>,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
}

impl Dialer {
    /// A table without entries, for node `me` of `cluster`. A connection on which something is due and
    /// that answers nothing, not even a ping, for `silence` is left for a new one, which may take
    /// another segment. About four of raft's longest elections, and a second at least, is good.
    pub fn new(cluster: ClusterId, me: u64, secret: Secret, silence: Duration) -> Self {
        Self::detoured(cluster, me, secret, silence, Detours::default())
    }

    /// The same, where some addresses are reached elsewhere than published.
    pub fn detoured(
        cluster: ClusterId,
        me: u64,
        secret: Secret,
        silence: Duration,
        detours: Detours,
    ) -> Self {
        let (table, channels, links) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { cluster, me, silence, secret, detours, table, channels, links }))
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
                let known = weak
                    .upgrade()
                    .and_then(|inner| Some((lock(&inner.table).get(&peer).cloned()?, inner.detours.clone())));
                async move {
                    let (endpoints, detours) = known.unwrap_or_default();
                    connect(&endpoints, &detours).await.map(TokioIo::new)
                }
            });
            let about = TonicEndpoint::from_static("http://peer.invalid")
                .initial_stream_window_size(4 * 1024 * 1024)
                .initial_connection_window_size(8 * 1024 * 1024)
                .http2_keep_alive_interval(self.0.silence / 2)
                .keep_alive_timeout(self.0.silence / 2);
            let channel = about.connect_with_connector_lazy(connector);
            InterceptedService::new(channel, WithSecret::new(self.0.secret.clone()))
        });
        made.clone()
    }

    /// Leaves the connection of a lane for a new one, which may take another segment.
    pub fn reset(&self, peer: u64, lane: Lane) {
        lock(&self.0.channels).remove(&(peer, lane));
    }

    pub(super) fn shared_link(&self, peer: u64) -> Arc<Link> {
        lock(&self.0.links).entry(peer).or_insert_with(|| Link::start(self.clone(), peer)).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first endpoint that answers, those earlier in the list given a head start.
async fn connect(endpoints: &[Endpoint], detours: &Detours) -> io::Result<TcpStream> {
    let mut waiting = endpoints.iter().cloned();
    let mut trying: FuturesUnordered<BoxFuture<'static, io::Result<TcpStream>>> = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address is known");
    let deadline = tokio::time::Instant::now() + CONNECT_WITHIN;
    loop {
        match waiting.next() {
            Some(endpoint) => trying.push(Box::pin(dial(endpoint, detours.clone()))),
            None if trying.is_empty() => return Err(last),
            None => {}
        }
        let until = if waiting.len() == 0 { deadline } else { tokio::time::Instant::now() + STAGGER };
        match tokio::time::timeout_at(until.min(deadline), trying.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => last = error,
            Ok(None) => {}
            Err(_) if tokio::time::Instant::now() >= deadline => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no address answered"));
            }
            Err(_) => {}
        }
    }
}

async fn dial(endpoint: Endpoint, detours: Detours) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(detours.of_endpoint(&endpoint)).await;
    let stream = stream.map_err(|error| io::Error::new(error.kind(), format!("{endpoint}: {error}")))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

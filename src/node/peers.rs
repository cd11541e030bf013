//! Ways to other nodes for everything but Raft: members by their number over the dial table, others by
//! address (before a join, and bulk on the API port). The cluster's secret is on every call.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::ids::Endpoint;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint as Target};

use super::cluster_proto::Packet;
use super::cluster_proto::bulk_client::BulkClient;
use super::cluster_proto::cluster_client::ClusterClient;
use super::inner::hold;
use super::wire::{self, MAX_BYTES};
use crate::transport::{Detours, Dialer, Lane, PeerChannel, Secret, WithSecret};

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_millis(1_000);

/// Small and urgent calls.
pub(super) type Cluster = ClusterClient<PeerChannel>;
/// Large and patient calls.
pub(super) type Bulk = BulkClient<PeerChannel>;

/// Ways by address.
pub(super) struct Addresses {
    secret: Secret,
    detours: Detours,
    channels: Mutex<BTreeMap<String, Channel>>,
}

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    /// It never left: the other end cannot have acted on it.
    #[error("{address} cannot be reached: {why}")]
    Unreachable {
        /// Whom.
        address: String,
        /// What the network said.
        why: String,
    },
    /// It may have been acted on.
    #[error("{address} did not answer: {why}")]
    Unanswered {
        /// Whom.
        address: String,
        /// What the network said.
        why: String,
    },
    /// It was refused before it was looked at.
    #[error("{address} refused: {why}")]
    Denied {
        /// Whom.
        address: String,
        /// What it said.
        why: String,
    },
}

impl Addresses {
    /// Ways that carry this secret.
    pub(super) fn new(secret: Secret, detours: Detours) -> Self {
        Self { secret, detours, channels: Mutex::default() }
    }

    fn channel(&self, address: &str) -> Result<PeerChannel, CallError> {
        let mut channels = hold(&self.channels);
        let known = channels.get(address).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let wrong = |error: tonic::transport::Error| CallError::Unreachable {
                    address: address.to_owned(),
                    why: error.to_string(),
                };
                let target = Target::from_shared(format!("http://{}", self.detours.of(address)))
                    .map_err(wrong)?
                    .connect_timeout(CONNECT_WITHIN)
                    .http2_keep_alive_interval(Duration::from_secs(5))
                    .keep_alive_timeout(Duration::from_secs(5))
                    .tcp_nodelay(true);
                let channel = target.connect_lazy();
                channels.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(InterceptedService::new(channel, WithSecret::new(self.secret.clone())))
    }

    /// Small and urgent calls to the node at `address`, its node-to-node port.
    pub(super) fn cluster(&self, address: &str) -> Result<Cluster, CallError> {
        Ok(limited(ClusterClient::new(self.channel(address)?)))
    }

    /// Large and patient calls to the node at `address`, its API port.
    pub(super) fn bulk(&self, address: &str) -> Result<Bulk, CallError> {
        Ok(BulkClient::new(self.channel(address)?).max_decoding_message_size(MAX_BYTES))
    }
}

/// Small and urgent calls to a member. To be made on Raft's runtime only.
pub(super) fn member(dialer: &Dialer, raft_id: u64) -> Cluster {
    limited(ClusterClient::new(dialer.channel(raft_id, Lane::Heartbeat)))
}

/// What callers ask of the leader. To be made on the runtime that serves callers.
pub(super) fn relay_to(dialer: &Dialer, raft_id: u64) -> Cluster {
    limited(ClusterClient::new(dialer.channel(raft_id, Lane::Relay)))
}

fn limited(client: Cluster) -> Cluster {
    client.max_decoding_message_size(MAX_BYTES).max_encoding_message_size(MAX_BYTES)
}

/// An endpoint as one address to dial.
pub(super) fn address(endpoint: &Endpoint) -> String {
    if endpoint.host.contains(':') {
        format!("[{}]:{}", endpoint.host, endpoint.port)
    } else {
        format!("{}:{}", endpoint.host, endpoint.port)
    }
}

/// A message to send.
pub(super) fn pack<T: Serialize>(message: &T) -> Packet {
    Packet { body: Bytes::from(wire::encode(message)) }
}

/// A message received.
pub(super) fn unpack<T: DeserializeOwned>(packet: &Packet) -> Result<T, Status> {
    wire::decode(&packet.body).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// What a failed call means: did it leave at all?
pub(super) fn failed(address: &str, status: &Status) -> CallError {
    let (address, why) = (address.to_owned(), status.message().to_owned());
    match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied | tonic::Code::Unimplemented => {
            CallError::Denied { address, why }
        }
        // The connection could not be made: nothing was sent. Other breaks may have come later.
        tonic::Code::Unavailable if connect_failed(status) => CallError::Unreachable { address, why },
        _ => CallError::Unanswered { address, why },
    }
}

fn connect_failed(status: &Status) -> bool {
    use std::io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound, TimedOut,
    };
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            let before = matches!(
                io.kind(),
                ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable | NotFound
            );
            // A time-out of a connection that stood could have come after the call left.
            return before || (io.kind() == TimedOut && io.get_ref().is_some());
        }
        source = error.source();
    }
    false
}

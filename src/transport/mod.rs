//! How bytes travel between nodes: who is reached where, the cluster secret on every call, the
//! persistent stream of raft's messages, and the server of the node-to-node port. Does not know what
//! the bytes mean.

mod datagram;
mod detours;
mod dial;
mod epoch;
mod guests;
mod link;
mod peer_service;
mod proto;
mod road;
mod seal;
mod secret;
mod serve;

pub use datagram::Datagrams;
pub use detours::Detours;
pub use dial::{Dialer, Lane, PeerChannel};
pub use epoch::Epochs;
pub use guests::{Guest, GuestLimits, Guests, PROBATION, Pass};
pub use peer_service::peer_service;
pub use secret::{Secret, SecretError, SecretLayer, WithSecret};
pub use serve::{Serving, bind, serve};

//! The other end of a probe: answers each ping at once, takes its rows in and gives its own.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use quorate_core::reach::Told;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::super::cluster_proto::Packet;
use super::super::inner::{Inner, hold};
use super::super::peers::pack;
use super::super::wire::decode;
use super::wire::{Ping, Pong};

/// Who opens a stream says who it is by then, and goes on speaking.
const SILENCE: Duration = Duration::from_secs(30);
/// The largest message taken in.
const MAX_BYTES: usize = 1024 * 1024;

/// Serves one stream until either end leaves.
pub(in crate::node) fn answer(
    inner: Arc<Inner>,
    pings: Streaming<Packet>,
) -> impl Stream<Item = Result<Packet, Status>> + Send + 'static {
    let (to, pongs) = mpsc::channel::<Pong>(4);
    tokio::spawn(serve(inner, pings, to));
    ReceiverStream::new(pongs).map(|pong| Ok(pack(&pong)))
}

async fn next(pings: &mut Streaming<Packet>) -> Option<Ping> {
    let packet = timeout(SILENCE, pings.next()).await.ok()??.ok()?;
    if packet.body.len() > MAX_BYTES {
        return None;
    }
    decode(&packet.body).ok()
}

async fn serve(inner: Arc<Inner>, mut pings: Streaming<Packet>, to: mpsc::Sender<Pong>) {
    let Some(Ping::Hello { cluster, from, raft_id, to: meant, segment }) = next(&mut pings).await else {
        return;
    };
    let mine = &inner.identity.cluster;
    let refusal = if cluster != *mine {
        Some(format!("this is cluster {mine}, not {cluster}"))
    } else if meant != inner.raft_id {
        Some(format!("this is node {}, not {meant}", inner.raft_id))
    } else {
        None
    };
    if let Some(why) = refusal {
        // Whoever left already needs no reason.
        drop(to.send(Pong::Refused(why)).await);
        return;
    }
    // Even a greeting says that its way is open; it may be all that ever comes through.
    hold(&inner.reach).heard(&from, &segment, inner.now());
    let mut told = Told::default();
    while let Some(Ping::Ping { number, rows }) = next(&mut pings).await {
        let state = inner.state();
        // A node that State means by another number is heard no more by its old one.
        let member = state.nodes.get(&from).is_some_and(|record| record.raft_id == raft_id);
        let rows = {
            let now = inner.now();
            let mut known = hold(&inner.reach);
            if member {
                known.heard(&from, &segment, now);
                known.take(&from, rows, now, state.cluster.settings.terms);
            }
            known.news(&mut told, inner.me(), &from, now)
        };
        if to.send(Pong::Pong { number, rows }).await.is_err() {
            return;
        }
    }
}

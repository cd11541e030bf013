//! Probes of one way: a persistent connection to one address of one node, a ping at each beat, and a new
//! connection once nothing comes back. What is late because this node itself ran late counts against nobody.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use quorate_core::reach::{LOST_IN_A_ROW, LinkFault, Told};
use quorate_core::units::Millis;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::super::cluster_proto::Packet;
use super::super::cluster_proto::cluster_client::ClusterClient;
use super::super::inner::{Inner, hold};
use super::super::peers::pack;
use super::super::wire::{decode, encode};
use super::Target;
use super::known::Turn;
use super::whisper::Whisper;
use super::wire::{Ping, Pong};

/// An answer is waited for as long as this at most, however slow the way.
const LONGEST: Duration = Duration::from_secs(2);
/// Lost in a row after which a node counts as gone and is tried half as often.
const GONE: u32 = 20;

/// Probes until the task is aborted.
pub(super) async fn run(inner: Arc<Inner>, target: Target) {
    let forget = Forget { inner: inner.clone(), target: target.clone() };
    let (told, opened) = (Told::default(), Instant::now());
    let mut probe = Probe { inner, target, told, number: 0, lost: 0, opened, address: None };
    loop {
        let began = Instant::now();
        let fault = match probe.open().await {
            Ok((up, pongs)) => probe.session(up, pongs).await,
            Err(fault) => {
                probe.missed(fault);
                fault
            }
        };
        tracing::trace!(to = %forget.target.node, segment = %forget.target.endpoint.segment, %fault, "a probe failed");
        let interval = super::interval(&probe.inner);
        let rest = if probe.lost > GONE { interval * 2 } else { interval };
        sleep_until(began + rest).await;
    }
}

/// A way that is not probed any more is not judged by what was last seen.
struct Forget {
    inner: Arc<Inner>,
    target: Target,
}

impl Drop for Forget {
    fn drop(&mut self) {
        hold(&self.inner.reach).forget(&self.target.node, &self.target.endpoint.segment);
    }
}

struct Probe {
    inner: Arc<Inner>,
    target: Target,
    told: Told,
    number: u64,
    /// Probes lost in a row.
    lost: u32,
    /// When the connection was begun.
    opened: Instant,
    /// Where datagrams go.
    address: Option<SocketAddr>,
}

impl Probe {
    /// How long an answer is waited for: a beat, or more where the way is long.
    fn within(&self) -> Duration {
        let rtt = hold(&self.inner.reach).rtt_us(&self.target.node, &self.target.endpoint.segment);
        let usual = Duration::from_micros(u64::from(rtt.unwrap_or_default())) * 8 + Duration::from_millis(50);
        usual.min(LONGEST).max(super::interval(&self.inner))
    }

    async fn open(&mut self) -> Result<(mpsc::Sender<Ping>, Streaming<Packet>), LinkFault> {
        (self.told, self.opened) = (Told::default(), Instant::now());
        if let Some(datagrams) = &self.inner.datagrams {
            // A name may mean another address by now.
            let resolved = timeout(self.within(), datagrams.resolve(&self.target.endpoint)).await;
            self.address = resolved.ok().and_then(Result::ok);
        }
        let channel = self.inner.dialer.probe(&self.target.endpoint);
        let (up, pings) = mpsc::channel::<Ping>(4);
        let hello = Ping::Hello {
            cluster: self.inner.identity.cluster.clone(),
            from: self.inner.me().clone(),
            raft_id: self.inner.raft_id,
            to: self.target.raft_id,
            segment: self.target.endpoint.segment.clone(),
        };
        // There is room: nothing was sent yet. The first ping goes along, whether an answer will come or not.
        drop(up.try_send(hello));
        self.ping(&up);
        let packets = ReceiverStream::new(pings).map(|ping| pack(&ping));
        match timeout(self.within() * 2, ClusterClient::new(channel).reach(packets)).await {
            Ok(Ok(answer)) => Ok((up, answer.into_inner())),
            Ok(Err(status)) => Err(fault_of_status(&status)),
            Err(_) => Err(LinkFault::Silent),
        }
    }

    /// Pings until the connection breaks or nothing comes back.
    async fn session(&mut self, up: mpsc::Sender<Ping>, mut pongs: Streaming<Packet>) -> LinkFault {
        // The first was sent when the connection was opened.
        let mut waiting = BTreeMap::from([(self.number, self.opened)]);
        let mut due = self.opened + super::interval(&self.inner);
        loop {
            match timeout_at(due, pongs.next()).await {
                Ok(Some(Ok(packet))) => match decode::<Pong>(&packet.body) {
                    Ok(Pong::Pong { number, rows }) => {
                        self.take(rows);
                        if let Some(sent) = waiting.get(&number) {
                            self.good(sent.elapsed());
                        }
                        waiting.retain(|sent, _| *sent > number);
                    }
                    Ok(Pong::Refused(why)) => {
                        tracing::debug!(to = %self.target.node, why, "a probe was refused");
                        self.missed(LinkFault::Denied);
                        return LinkFault::Denied;
                    }
                    Err(_) => return self.lose(LinkFault::Denied),
                },
                Ok(Some(Err(status))) => return self.lose(fault_of_status(&status)),
                Ok(None) => return self.lose(LinkFault::Silent),
                Err(_) => {
                    let (interval, within) = (super::interval(&self.inner), self.within());
                    let late = due.elapsed();
                    if late > interval / 2 {
                        // The answers may lie unread: nobody is blamed for what was not looked at.
                        waiting.values_mut().for_each(|sent| *sent += late);
                    }
                    let overdue =
                        waiting.iter().find(|(_, sent)| sent.elapsed() >= within).map(|(at, _)| *at);
                    if let Some(number) = overdue {
                        waiting.remove(&number);
                        self.missed(LinkFault::Silent);
                        if self.lost >= LOST_IN_A_ROW {
                            return LinkFault::Silent;
                        }
                    }
                    due = Instant::now() + interval;
                    if !self.ping(&up) {
                        return self.lose(LinkFault::Silent);
                    }
                    waiting.insert(self.number, Instant::now());
                }
            }
        }
    }

    fn ping(&mut self, up: &mpsc::Sender<Ping>) -> bool {
        self.number += 1;
        self.whisper();
        let (inner, to) = (&self.inner, &self.target.node);
        let rows = hold(&inner.reach).news(&mut self.told, inner.me(), to, inner.now());
        // A full queue means that nothing leaves: the ping is lost like one that left and was not answered.
        let sent = up.try_send(Ping::Ping { number: self.number, rows });
        !matches!(sent, Err(mpsc::error::TrySendError::Closed(_)))
    }

    /// What is lost is lost: a datagram only ever tells that it arrived.
    fn whisper(&self) {
        let (Some(datagrams), Some(address)) = (&self.inner.datagrams, self.address) else { return };
        let inner = &self.inner;
        let whisper = Whisper {
            cluster: inner.identity.cluster.clone(),
            from: inner.me().clone(),
            raft_id: inner.raft_id,
            boot: inner.boot.clone(),
            at: inner.now(),
            to: self.target.raft_id,
            segment: self.target.endpoint.segment.clone(),
        };
        drop(datagrams.send(address, &encode(&whisper)));
    }

    fn take(&self, rows: Vec<(Arc<quorate_core::reach::Row>, Millis)>) {
        let terms = self.inner.state().cluster.settings.terms;
        hold(&self.inner.reach).take(&self.target.node, rows, self.inner.now(), terms);
    }

    fn good(&mut self, rtt: Duration) {
        self.lost = 0;
        let (node, segment) = (&self.target.node, &self.target.endpoint.segment);
        let rtt_us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        let turn = hold(&self.inner.reach).good(node, segment, self.inner.now(), rtt_us);
        self.turned(turn);
    }

    fn lose(&mut self, fault: LinkFault) -> LinkFault {
        self.missed(fault);
        fault
    }

    fn missed(&mut self, fault: LinkFault) {
        self.lost = self.lost.saturating_add(1);
        let (node, segment) = (&self.target.node, &self.target.endpoint.segment);
        let recent = Millis(self.within().as_millis() as u64);
        let turn = hold(&self.inner.reach).missed(node, segment, self.inner.now(), fault, recent);
        self.turned(turn);
    }

    fn turned(&self, turn: Turn) {
        let (peer, segment) = (self.target.raft_id.0, &self.target.endpoint.segment);
        match turn {
            Turn::None => {}
            Turn::Mended => self.inner.dialer.mended(peer, segment),
            Turn::Broke { elsewhere } => {
                tracing::info!(to = %self.target.node, %segment, elsewhere, "a link is down");
                self.inner.dialer.broke(peer, segment, elsewhere);
            }
        }
    }
}

/// What a failed connection says of the way.
pub(super) fn fault_of(error: &std::io::Error) -> LinkFault {
    match error.kind() {
        ErrorKind::ConnectionRefused => LinkFault::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
            LinkFault::NoRoute
        }
        _ => LinkFault::Silent,
    }
}

fn fault_of_status(status: &Status) -> LinkFault {
    if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented) {
        return LinkFault::Denied;
    }
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return fault_of(io);
        }
        source = error.source();
    }
    LinkFault::Silent
}

//! This node's side of heartbeats: one stream to whoever leads, itself included. Each answer prolongs the
//! lease from the moment its heartbeat was sent, here and at the guard.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use quorate_core::units::BootMs;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::answer;
use super::inner::{Inner, hold};
use super::peers::{failed, member, pack};
use super::wire::{Down, Hello, Up, decode};
use crate::transport::Lane;

/// How long the leader may take to take the stream.
const OPEN_WITHIN: Duration = Duration::from_secs(1);
/// News of this node wait at least this long for more to come.
const GATHER: Duration = Duration::from_millis(10);
/// A leader that cannot be reached is tried again after this.
const RETRY: Duration = Duration::from_millis(50);

/// Beats until the node ends.
pub(super) async fn run(inner: Arc<Inner>) {
    let beats = Beats { inner: inner.clone() };
    let mut standing = inner.raft.standing();
    loop {
        let leader = standing.borrow_and_update().leader;
        match leader {
            Some(id) => beats.session(id).await,
            None => drop(timeout(RETRY, standing.changed()).await),
        }
        if standing.has_changed().is_err() || *inner.stopping.borrow() {
            return;
        }
    }
}

struct Beats {
    inner: Arc<Inner>,
}

impl Beats {
    /// Speaks to one leader until another leads or this one is not heard any more.
    async fn session(&self, leader: u64) {
        let opened = if leader == self.inner.raft_id.0 {
            let (up, from) = mpsc::channel(16);
            let (to, down) = mpsc::channel(16);
            tokio::spawn(answer::session(self.inner.clone(), from, to));
            Some((up, down))
        } else {
            self.dial(leader).await
        };
        let Some((up, mut down)) = opened else {
            tokio::time::sleep(RETRY).await;
            return;
        };
        if up.send(Up::Hello(Box::new(self.hello()))).await.is_err() {
            return;
        }
        let mut standing = self.inner.raft.standing();
        let (mut heard, mut told) = (Instant::now(), BootMs(0));
        let (mut sent, mut next) = (None::<Instant>, Instant::now());
        loop {
            // Terms change while a stream is open, and a node that has just begun does not know its cluster's.
            let terms = self.inner.state().cluster.settings.terms;
            let (interval, patience) = (millis(terms.heartbeat.0), millis(terms.lease.0));
            next = sent.map_or(next, |sent| next.min(sent + interval));
            tokio::select! {
                biased;
                word = down.recv() => match word {
                    Some(Down::Refused(why)) => {
                        tracing::debug!(leader, why, "the leader refused the stream");
                        tokio::time::sleep(RETRY).await;
                        return;
                    }
                    Some(word) => {
                        heard = Instant::now();
                        self.on_word(word);
                    }
                    None => return tokio::time::sleep(RETRY).await,
                },
                changed = standing.changed() => {
                    if changed.is_err() || standing.borrow_and_update().leader.is_some_and(|id| id != leader) {
                        return;
                    }
                }
                () = sleep_until(next) => {
                    if heard.elapsed() > patience {
                        self.inner.dialer.reset(leader, Lane::Heartbeat);
                        return;
                    }
                    if *self.inner.stopping.borrow() {
                        return;
                    }
                    // A leader that takes in nothing is left after its silence, not waited for.
                    let row = hold(&self.inner.reach).own_row(self.inner.me(), told);
                    told = row.as_ref().map_or(told, |row| row.made);
                    let beat = Up::Beat(Box::new(self.inner.beat()));
                    for word in row.map(Up::Row).into_iter().chain([beat]) {
                        if timeout(patience, up.send(word)).await.map_or(true, |sent| sent.is_err()) {
                            return;
                        }
                    }
                    let now = Instant::now();
                    (sent, next) = (Some(now), now + interval);
                }
                () = self.inner.hurry.notified() => next = next.min(Instant::now() + GATHER),
            }
        }
    }

    async fn dial(&self, leader: u64) -> Option<(mpsc::Sender<Up>, mpsc::Receiver<Down>)> {
        let mut client = member(&self.inner.dialer, leader);
        let (up, from) = mpsc::channel::<Up>(16);
        let packets = ReceiverStream::new(from).map(|up| pack(&up));
        let mut stream = match timeout(OPEN_WITHIN, client.heartbeat(packets)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => {
                tracing::debug!(leader, error = %failed(&leader.to_string(), &status), "no heartbeat stream");
                return None;
            }
            Err(_) => {
                // Another segment may answer.
                self.inner.dialer.reset(leader, Lane::Heartbeat);
                return None;
            }
        };
        let (to, down) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Some(Ok(packet)) = stream.next().await {
                let Ok(word) = decode::<Down>(&packet.body) else { return };
                if to.send(word).await.is_err() {
                    return;
                }
            }
        });
        Some((up, down))
    }

    fn hello(&self) -> Hello {
        let identity = &self.inner.identity;
        Hello {
            cluster: identity.cluster.clone(),
            node: identity.node.clone(),
            raft_id: self.inner.raft_id,
            disk: identity.disk.clone(),
            machine: identity.machine.clone(),
            boot: self.inner.boot.clone(),
            process: self.inner.process,
        }
    }

    fn on_word(&self, word: Down) {
        let now = self.inner.now();
        match word {
            Down::News(news) => {
                let me = self.inner.me().clone();
                let leads = self.inner.leads();
                let mut news = news;
                let rows = std::mem::take(&mut news.rows);
                let terms = self.inner.state().cluster.settings.terms;
                if !leads {
                    hold(&self.inner.reach).take(&me, rows, now, terms);
                }
                let mut sightings = hold(&self.inner.sightings);
                // To itself a leader has nothing to tell but that it speaks.
                let news = if leads {
                    super::wire::News { reports: Vec::new(), ages: Vec::new(), waiting: None, ..*news }
                } else {
                    *news
                };
                sightings.on_news(&me, news, now);
            }
            Down::Answer(answer) => {
                let state = self.inner.state();
                let own = state.nodes.get(self.inner.me()).map(|record| record.lease_standing());
                let renewal = hold(&self.inner.holder).answered(&answer, own, now);
                if let Some(renewal) = renewal {
                    self.inner.works.renew(renewal, answer.terms);
                }
            }
            Down::Refused(_) => {}
        }
    }
}

fn millis(ms: u64) -> Duration {
    // Before the first State there are no settings yet.
    Duration::from_millis(if ms == 0 { 250 } else { ms })
}

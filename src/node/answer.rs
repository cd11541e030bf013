//! The leader's side of heartbeats: reports are taken in at once; a lease is answered only after a quorum
//! round that began after the heartbeat came, one round for all that wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::ids::NodeId;
use quorate_core::lease::Asked;
use quorate_core::reach;
use quorate_core::units::Millis;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::inner::{Inner, hold};
use super::sightings::Told;
use super::wire::{Down, Hello, News, Up};
use crate::raft::ReadError;

/// Who opens a stream says who it is by then.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// A heartbeat that waits for its answer.
pub(super) struct Ask {
    asked: Asked,
    reply: mpsc::Sender<Down>,
}

/// Answers heartbeats until every asker is gone.
pub(super) async fn run(inner: Arc<Inner>, mut asks: mpsc::Receiver<Ask>) {
    let (mut waiting, mut rounds) = (Vec::new(), 0_u64);
    let mut replies: BTreeMap<NodeId, mpsc::Sender<Down>> = BTreeMap::new();
    while asks.recv_many(&mut waiting, 1_024).await > 0 {
        // Everything received by now is covered by the round that begins next.
        rounds += 1;
        {
            let mut granter = hold(&inner.granter);
            for Ask { asked, reply } in waiting.drain(..) {
                replies.insert(asked.node.clone(), reply);
                granter.heard(asked, rounds);
            }
        }
        match inner.raft.read_index().await {
            Ok(_) => answer(&inner, rounds, &mut replies),
            Err(ReadError::NotLeader { .. }) => {
                for reply in std::mem::take(&mut replies).into_values() {
                    // A full or closed stream hears it from its next beat.
                    drop(reply.try_send(Down::Refused("this node does not lead any more".to_owned())));
                }
            }
            // Without a quorum there is no answer: the nodes' leases run out, as they must.
            Err(ReadError::NoQuorum | ReadError::Shutdown) => {}
        }
    }
}

fn answer(inner: &Inner, over: u64, replies: &mut BTreeMap<NodeId, mpsc::Sender<Down>>) {
    let state = inner.state();
    let terms = state.cluster.settings.terms;
    // Under the lock that a proposal of a loss takes first: no answer follows one.
    let mut granter = hold(&inner.granter);
    let answers = granter.answers(over, state.revision, terms, |node| {
        state.nodes.get(node).map(|record| record.lease_standing())
    });
    for (node, answer) in answers {
        let sent = replies.remove(&node).is_some_and(|reply| reply.try_send(Down::Answer(answer)).is_ok());
        if sent {
            hold(&inner.sightings).answered(&node, inner.now());
        }
    }
}

/// One node's stream on the leader, until either end leaves.
pub(super) async fn session(inner: Arc<Inner>, mut from: mpsc::Receiver<Up>, to: mpsc::Sender<Down>) {
    let Ok(Some(Up::Hello(hello))) = timeout(HELLO_WITHIN, from.recv()).await else { return };
    if let Err(why) = admit(&inner, &hello) {
        tracing::info!(node = %hello.node, why, "heartbeat stream refused");
        drop(to.send(Down::Refused(why)).await);
        return;
    }
    let (mut told, mut told_rows) = (Told::default(), reach::Told::default());
    while let Some(up) = from.recv().await {
        let report = match up {
            Up::Beat(report) => report,
            Up::Row(row) if row.from == hello.node => {
                let terms = inner.state().cluster.settings.terms;
                hold(&inner.reach).take(&hello.node, vec![(row, Millis(0))], inner.now(), terms);
                continue;
            }
            Up::Row(_) | Up::Hello(_) => return,
        };
        if !inner.leads() {
            drop(to.send(Down::Refused("this node does not lead".to_owned())).await);
            return;
        }
        if report.node != hello.node {
            drop(to.send(Down::Refused("a stream speaks for one node only".to_owned())).await);
            return;
        }
        let asked = Asked {
            node: report.node.clone(),
            boot: report.boot.clone(),
            lease_epoch: report.lease_epoch,
            wants_rejoin: report.wants_rejoin,
            armed: report.guard.armed,
            heartbeat: report.heartbeat,
        };
        let ask = Ask { asked, reply: to.clone() };
        let (now, state) = (inner.now(), inner.state());
        let quorum_ack_age = inner.status.borrow().quorum_ack_age(now);
        let rows = hold(&inner.reach).all_news(&mut told_rows, &hello.node, now);
        let news = {
            let mut sightings = hold(&inner.sightings);
            if sightings.receive(*report, now) {
                inner.wake.notify_one();
            }
            News { rows, ..sightings.news(&mut told, &hello.node, now, state.revision, quorum_ack_age) }
        };
        if to.send(Down::News(Box::new(news))).await.is_err() || inner.asks.send(ask).await.is_err() {
            return;
        }
    }
}

/// A stream is taken from the node, disk, host and process that State means by that name.
fn admit(inner: &Inner, hello: &Hello) -> Result<(), String> {
    let state = inner.state();
    if !inner.leads() {
        return Err("this node does not lead".to_owned());
    }
    if hello.cluster != inner.identity.cluster {
        return Err(format!(
            "{} is of cluster {}, not of {}",
            hello.node, hello.cluster, inner.identity.cluster
        ));
    }
    let Some(record) = state.nodes.get(&hello.node) else {
        return Err(format!("{} is not a node of this cluster; let it join", hello.node));
    };
    if record.raft_id != hello.raft_id || record.disk != hello.disk {
        return Err(format!(
            "{} is known with another disk; this data directory was replaced: start it with an empty one",
            hello.node
        ));
    }
    if record.machine != hello.machine {
        return Err(format!("{} is known on another host; a copy of its data is refused", hello.node));
    }
    hold(&inner.sightings).speaks(
        &hello.node,
        hello.process,
        inner.now(),
        state.cluster.settings.terms.heartbeat,
    )
}

//! A network that can be cut and slowed between two nodes, laid over the real one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use quorate::ports::{PeerCall, PeerError, PeerLink, PeerNet};
use quorate::transport::Dialer;
use quorate_core::ids::Endpoint;

type Answer = BoxFuture<'static, Result<Bytes, PeerError>>;

/// What is broken at the moment.
#[derive(Default)]
pub struct Faults {
    /// Messages from the first to the second are lost.
    cut: Mutex<BTreeSet<(u64, u64)>>,
    /// Questions of these nodes whether they still lead are lost.
    mute: Mutex<BTreeSet<u64>>,
}

impl Faults {
    /// Nothing passes between these two.
    pub fn cut(&self, a: u64, b: u64) {
        self.cut.lock().unwrap().extend([(a, b), (b, a)]);
    }

    /// Nothing passes from the first to the second, answers to the second's messages included.
    pub fn cut_one_way(&self, from: u64, to: u64) {
        self.cut.lock().unwrap().insert((from, to));
    }

    /// Only this node's questions whether it still leads are lost.
    pub fn mute(&self, node: u64) {
        self.mute.lock().unwrap().insert(node);
    }

    pub fn heal(&self) {
        self.cut.lock().unwrap().clear();
        self.mute.lock().unwrap().clear();
    }

    fn lost(&self, from: u64, to: u64) -> bool {
        self.cut.lock().unwrap().contains(&(from, to))
    }
}

pub struct FaultyNet {
    pub me: u64,
    pub dialer: Dialer,
    pub faults: Arc<Faults>,
}

impl PeerNet for FaultyNet {
    fn link(&self, peer: u64, endpoints: &[Endpoint]) -> Arc<dyn PeerLink> {
        let inner = self.dialer.link(peer, endpoints);
        Arc::new(FaultyLink { inner, me: self.me, peer, faults: self.faults.clone() })
    }
}

struct FaultyLink {
    inner: Arc<dyn PeerLink>,
    me: u64,
    peer: u64,
    faults: Arc<Faults>,
}

impl FaultyLink {
    fn lose(&self, within: Duration) -> Answer {
        let lost = PeerError::TimedOut { peer: self.peer, within_ms: 0 };
        Box::pin(async move {
            tokio::time::sleep(within).await;
            Err(lost)
        })
    }

    /// The message, unless it is lost on its way there, and its answer, unless that is on its way back.
    fn pass(&self, within: Duration, send: impl FnOnce() -> Answer) -> Answer {
        if self.faults.lost(self.me, self.peer) {
            return self.lose(within);
        }
        let (answer, lost) = (send(), self.lose(within));
        let (me, peer, faults) = (self.me, self.peer, self.faults.clone());
        Box::pin(async move {
            let answer = answer.await;
            if faults.lost(peer, me) { lost.await } else { answer }
        })
    }
}

impl PeerLink for FaultyLink {
    fn append(&self, message: Bytes, within: Duration) -> Answer {
        // A real stream that lost something is given up much sooner than a slow disk.
        self.pass(Duration::from_millis(200), || self.inner.append(message, within))
    }

    fn call(&self, call: PeerCall, message: Bytes, within: Duration) -> Answer {
        if call == PeerCall::Confirm && self.faults.mute.lock().unwrap().contains(&self.me) {
            return self.lose(within);
        }
        self.pass(within, || self.inner.call(call, message, within))
    }

    fn snapshot(&self, head: Bytes, body: Bytes, stall: Duration) -> Answer {
        self.pass(Duration::from_millis(200), || self.inner.snapshot(head, body, stall))
    }
}

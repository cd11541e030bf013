//! Nodes to test with: a state machine that keeps every proposal, and waiting with a deadline.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::ports::{SnapshotJob, StateMachine};
use quorate::raft::{
    ProposeError, RaftHandle, RaftLimits, RaftNode, RaftOptions, RaftRole, RaftStatus, RaftTiming,
};
use quorate::transport::{
    Dialer, Epochs, GuestLimits, Secret, SecretLayer, Serving, bind, peer_service, serve,
};
use quorate_core::ids::{ClusterId, Endpoint, Segment};
use tokio::runtime::Runtime;
use tonic::service::Routes;

use super::faults::{Faults, FaultyNet};

pub const SECRET: &str = "a-secret-of-the-raft-tests";
/// Wide, since the machine may be busy with other tests.
pub const TIMING: RaftTiming = RaftTiming { heartbeat_ms: 60, election_min_ms: 300, election_max_ms: 600 };
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Every proposal that was applied, in order, with its revision.
pub type Journal = Arc<Mutex<Vec<(u64, String)>>>;

struct Keeper(Journal);

impl StateMachine for Keeper {
    fn apply(&mut self, revision: u64, proposals: &[Bytes]) -> Vec<Bytes> {
        let mut journal = self.0.lock().unwrap();
        let keep = |proposal: &Bytes| {
            journal.push((revision, String::from_utf8(proposal.to_vec()).unwrap()));
            Bytes::from(format!("{}", journal.len()))
        };
        proposals.iter().map(keep).collect()
    }

    fn snapshot(&self) -> SnapshotJob {
        let all = self.0.lock().unwrap().clone();
        Box::new(move || Ok(serde_json::to_vec(&all)?))
    }

    fn restore(&mut self, _revision: u64, bytes: &[u8]) -> anyhow::Result<()> {
        *self.0.lock().unwrap() = serde_json::from_slice(bytes)?;
        Ok(())
    }
}

pub fn endpoint(segment: &str, address: SocketAddr) -> Endpoint {
    let segment = Segment::new(segment).unwrap();
    Endpoint { segment, host: address.ip().to_string(), port: address.port() }
}

pub struct TestNode {
    pub id: u64,
    pub dir: tempfile::TempDir,
    pub journal: Journal,
    pub address: SocketAddr,
    pub raft: Option<RaftNode>,
}

impl TestNode {
    pub fn handle(&self) -> RaftHandle {
        self.raft.as_ref().expect("this node is down").handle()
    }

    pub fn status(&self) -> RaftStatus {
        self.handle().status().borrow().clone()
    }

    pub fn endpoints(&self) -> Vec<Endpoint> {
        vec![endpoint("lan", self.address)]
    }

    /// What it has applied, without the revisions.
    pub fn applied(&self) -> Vec<String> {
        self.journal.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }
}

pub struct Cluster {
    pub runtime: Runtime,
    pub nodes: BTreeMap<u64, TestNode>,
    pub faults: Arc<Faults>,
    pub limits: RaftLimits,
    root: Option<PathBuf>,
}

impl Cluster {
    /// `count` voters, the first of them bootstrapped.
    pub fn of(count: u64) -> Self {
        Self::with(count, RaftLimits::default())
    }

    /// The same, with all folders below `root`.
    pub fn on(root: &Path, count: u64) -> Self {
        Self::made(Some(root.to_owned()), count, RaftLimits::default())
    }

    pub fn with(count: u64, limits: RaftLimits) -> Self {
        Self::made(None, count, limits)
    }

    fn made(root: Option<PathBuf>, count: u64, limits: RaftLimits) -> Self {
        let limits = RaftLimits { propose_within: Duration::from_secs(3), ..limits };
        let runtime = Runtime::new().unwrap();
        let mut cluster = Self { runtime, nodes: BTreeMap::new(), faults: Arc::default(), limits, root };
        for id in 1..=count {
            cluster.add(id);
        }
        let first = cluster.nodes[&1].handle();
        cluster.runtime.block_on(first.bootstrap(cluster.nodes[&1].endpoints())).unwrap();
        cluster.leader();
        for id in 2..=count {
            let endpoints = cluster.nodes[&id].endpoints();
            cluster.runtime.block_on(first.add_learner(id, endpoints)).unwrap();
        }
        if count > 1 {
            cluster.runtime.block_on(first.change_voters((1..=count).collect())).unwrap();
        }
        cluster
    }

    /// Starts a node with an empty folder, which is a member of nothing yet.
    pub fn add(&mut self, id: u64) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let dir = match &self.root {
            Some(root) => tempfile::tempdir_in(root).unwrap(),
            None => tempfile::tempdir().unwrap(),
        };
        self.nodes.insert(id, TestNode { id, dir, journal: Journal::default(), address, raft: None });
        self.start(id);
    }

    /// Starts a node on what its folder holds.
    pub fn start(&mut self, id: u64) {
        self.try_start(id).unwrap();
    }

    pub fn try_start(&mut self, id: u64) -> anyhow::Result<()> {
        let node = self.nodes.get_mut(&id).unwrap();
        assert!(node.raft.is_none(), "node {id} runs already");
        node.journal = Journal::default();
        let cluster = ClusterId("test".to_owned());
        let secret = Secret::new(SECRET).unwrap();
        let dialer = Dialer::new(cluster.clone(), id, secret.clone(), Duration::from_millis(2_400));
        let net = Arc::new(FaultyNet { me: id, dialer, faults: self.faults.clone() });
        let dir = node.dir.path().to_owned();
        let options = RaftOptions { id, cluster, dir, timing: TIMING, limits: self.limits };
        let raft = RaftNode::start(options, Box::new(Keeper(node.journal.clone())), net)?;
        let routes = Routes::new(peer_service(raft.inbox(), Epochs::default()));
        let address = node.address;
        let runtime = raft.handle().runtime().clone();
        let serving = Serving { guests: GuestLimits { strangers: 64, known: 64 }, answer_within: PATIENCE };
        // The port may still be held by what was killed a moment ago.
        let deadline = Instant::now() + PATIENCE;
        let listener = loop {
            match self.runtime.block_on(runtime.spawn(bind(address))).unwrap() {
                Ok(listener) => break listener,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::yield_now(),
            }
        };
        runtime.spawn(serve(listener, routes, SecretLayer::new(secret), serving, std::future::pending()));
        node.raft = Some(raft);
        Ok(())
    }

    /// Ends a node as a crash would.
    pub fn kill(&mut self, id: u64) {
        self.nodes.get_mut(&id).unwrap().raft.take().unwrap().kill();
    }

    pub fn running(&self) -> impl Iterator<Item = &TestNode> {
        self.nodes.values().filter(|node| node.raft.is_some())
    }

    /// Waits until `check` gives something, and fails with every node's status if it does not.
    pub fn wait<T>(&self, what: &str, mut check: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = check(self) {
                return found;
            }
            if Instant::now() > deadline {
                let status: Vec<_> = self.running().map(TestNode::status).collect();
                panic!("never: {what}; {status:#?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The node that leads by the word of a quorum.
    pub fn leader(&self) -> u64 {
        self.wait("a leader that a quorum acknowledges", |cluster| {
            let mut leaders = cluster.running().filter(|node| node.status().role == RaftRole::Leader);
            leaders
                .find(|node| cluster.runtime.block_on(node.handle().read_index()).is_ok())
                .map(|node| node.id)
        })
    }

    /// Writes through whoever leads, again and again while there is none; gives the leader.
    pub fn write(&self, text: &str) -> u64 {
        self.wait("a write is accepted", |cluster| {
            cluster.running().find_map(|node| {
                let proposal = Bytes::from(text.to_owned());
                match cluster.runtime.block_on(node.handle().propose(proposal)) {
                    Ok(_) => Some(node.id),
                    Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum) => None,
                    Err(error) => panic!("write {text:?} on node {}: {error}", node.id),
                }
            })
        })
    }

    /// Waits until this node has applied exactly these.
    pub fn has_applied(&self, id: u64, texts: &[String]) {
        self.wait(&format!("node {id} has applied {} writes", texts.len()), |cluster| {
            (cluster.nodes[&id].applied() == texts).then_some(())
        });
    }
}

pub fn texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|at| format!("write {at}")).collect()
}

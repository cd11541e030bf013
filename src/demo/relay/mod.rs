//! The network of a demo: every node dials every other through a port of the relay that is that one road's,
//! so each direction of each segment can be cut, late or lossy without root. Clients dial nodes directly.
//!
//! ```text
//! n1 --dials n2 on a--> gate n1>n2/a ==pipe, as the ways are==> n2     Links: what is wrong with which way
//! ```

mod gate;
mod links;
mod pipe;
mod road;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::gate::Gate;
pub(super) use self::links::{Fault, Links, NoSuchWay, Scope, Way};
use self::road::{Pulse, Road};
use crate::host;

/// A node as the relay needs it.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    /// Its name.
    pub name: String,
    /// Where it listens for other nodes.
    pub bind: SocketAddr,
    /// Where it listens for clients, and for other nodes' bulk.
    pub api: SocketAddr,
}

/// What a node has to know of the relay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Signpost {
    /// Its own address on each segment, in their order.
    pub addresses: Vec<SocketAddr>,
    /// What it dials instead of which published address.
    pub detours: BTreeMap<String, String>,
}

/// A running relay. It ends when dropped, and every connection with it.
#[derive(Debug)]
pub(super) struct Relay {
    links: Arc<Links>,
    signposts: BTreeMap<String, Signpost>,
    end: CancellationToken,
    runtime: tokio::runtime::Handle,
    thread: Option<JoinHandle<()>>,
}

/// A road before its runtime exists.
struct Plan {
    gate: Gate,
    stop: usize,
    target: SocketAddr,
    ways: [watch::Receiver<Fault>; 2],
}

impl Relay {
    /// How many ports so many nodes on so many segments need.
    pub(super) fn ports(nodes: usize, segments: usize) -> usize {
        let for_clients = nodes * segments.saturating_sub(1);
        for_clients + nodes * nodes.saturating_sub(1) * (segments + 1)
    }

    /// Opens all roads between these nodes on these segments, from these free ports. It has a thread of its own, so that nothing
    /// else that the demo does makes the network slow.
    pub(super) fn open(stops: &[Stop], segments: &[&str], ports: &[u16]) -> anyhow::Result<Self> {
        let mut ports = ports.iter().copied();
        let mut gate = || -> anyhow::Result<Gate> {
            Ok(Gate::new(ports.next().context("the relay was given too few ports")?)?)
        };
        let names: Vec<String> = stops.iter().map(|stop| stop.name.clone()).collect();
        let links = Arc::new(Links::new(&names, segments));
        // Nodes need more descriptors than the relay only if there are many; children get the old limit back.
        host::more_descriptors();
        let (calm, undisturbed) = watch::channel(Fault::default());
        let (mut signposts, mut plans) = (BTreeMap::<String, Signpost>::new(), Vec::new());
        for (stop, at) in stops.iter().zip(0..) {
            let post = signposts.entry(stop.name.clone()).or_default();
            post.addresses.push(stop.bind);
            // A host has one address on each network; on those after the first the relay stands in for it.
            for _ in segments.iter().skip(1) {
                let gate = gate()?;
                post.addresses.push(gate.address);
                let ways = [undisturbed.clone(), undisturbed.clone()];
                plans.push(Plan { gate, stop: at, target: stop.bind, ways });
            }
        }
        for from in stops {
            for (to, at) in stops.iter().zip(0..).filter(|(to, _)| to.name != from.name) {
                let published =
                    signposts.get(&to.name).map(|post| post.addresses.clone()).unwrap_or_default();
                // The API listens on the first network only, as a node's one address for clients does.
                let api = segments.first().map(|segment| (*segment, to.api, to.api));
                let roads = segments.iter().zip(published).map(|(segment, known)| (*segment, known, to.bind));
                for (segment, known, target) in roads.chain(api) {
                    let way = |from: &Stop, to: &Stop| Way {
                        from: from.name.clone(),
                        to: to.name.clone(),
                        segment: segment.to_owned(),
                    };
                    let (Some(out), Some(back)) = (links.watch(&way(from, to)), links.watch(&way(to, from)))
                    else {
                        continue;
                    };
                    let gate = gate()?;
                    let detours = &mut signposts.entry(from.name.clone()).or_default().detours;
                    detours.insert(known.to_string(), gate.address.to_string());
                    plans.push(Plan { gate, stop: at, target, ways: [out, back] });
                }
            }
        }
        let end = CancellationToken::new();
        let (runtime, thread) = start(stops.to_vec(), plans, calm, end.clone())?;
        Ok(Self { links, signposts, end, runtime, thread: Some(thread) })
    }

    /// What is wrong, and the way to change it.
    pub(super) fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Returns once every change made so far is in force.
    pub(super) async fn settled(&self) {
        // Whatever a change woke is before this in the queue of its one thread.
        let _ = self.runtime.spawn(async {}).await;
    }

    /// What a node has to know.
    pub(super) fn signpost(&self, node: &str) -> Signpost {
        self.signposts.get(node).cloned().unwrap_or_default()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say at its end.
            let _ = thread.join();
        }
    }
}

fn start(
    stops: Vec<Stop>,
    plans: Vec<Plan>,
    calm: watch::Sender<Fault>,
    end: CancellationToken,
) -> anyhow::Result<(tokio::runtime::Handle, JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let roads = {
        let _context = runtime.enter();
        let pulses: Vec<Pulse> = stops.iter().map(|stop| Pulse::of(stop.bind)).collect();
        let roads = plans.into_iter().filter_map(|plan| Some((pulses.get(plan.stop)?.clone(), plan)));
        let road = |(pulse, plan): (Pulse, Plan)| Road {
            gate: plan.gate,
            target: plan.target,
            ways: plan.ways,
            pulse,
        };
        roads.map(road).collect::<Vec<Road>>()
    };
    let run = move || {
        for road in roads {
            runtime.spawn(road.serve());
        }
        runtime.block_on(end.cancelled());
        drop(calm);
    };
    let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(run);
    Ok((handle, thread.context("cannot start the relay")?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;
    use tokio::time::{Instant, sleep, timeout};
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(20);

    /// Repeats whatever is said to it, until it is dropped.
    struct Echo {
        address: SocketAddr,
        _task: AbortOnDropHandle<()>,
    }

    async fn echo() -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut lines = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                lines.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        Echo { address, _task: AbortOnDropHandle::new(task) }
    }

    fn stop(name: &str, node: &Echo) -> Stop {
        Stop { name: name.into(), bind: node.address, api: node.address }
    }

    /// Dials until somebody is there: the relay finds that out within moments.
    async fn dial(address: &str) -> TcpStream {
        let deadline = Instant::now() + LONG;
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn hears(stream: &mut TcpStream, text: &str) {
        let mut heard = vec![0; text.len()];
        timeout(LONG, stream.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), text);
    }

    async fn answers(stream: &mut TcpStream) {
        stream.write_all(b"said").await.unwrap();
        hears(stream, "said").await;
    }

    #[tokio::test]
    async fn each_way_between_two_nodes_has_a_road_of_its_own_that_can_be_cut() {
        let (one, two) = (echo().await, echo().await);
        let ports = host::free_ports(Relay::ports(2, 2)).unwrap();
        let relay = Relay::open(&[stop("n1", &one), stop("n2", &two)], &["a", "b"], &ports).unwrap();
        let (post, there) = (relay.signpost("n1"), relay.signpost("n2").addresses);
        assert_eq!((there.len(), there[0]), (2, two.address));
        let on = |segment: usize| post.detours[&there[segment].to_string()].clone();

        let mut first = dial(&on(0)).await;
        answers(&mut first).await;
        let all = Scope { nodes: vec!["n1".into()], segment: Some("a".into()), ..Scope::default() };
        relay.links().change(&all, |fault| fault.cut = true).unwrap();
        relay.settled().await;
        assert!(timeout(SHORT, TcpStream::connect(on(0))).await.is_err(), "nobody gets in on a");
        first.write_all(b"held").await.unwrap();
        assert!(timeout(SHORT, first.read(&mut [0; 4])).await.is_err());
        answers(&mut dial(&on(1)).await).await;
        answers(&mut dial(&there[1].to_string()).await).await;

        relay.links().change(&all, |fault| *fault = Fault::default()).unwrap();
        hears(&mut first, "held").await;
        answers(&mut dial(&on(0)).await).await;

        drop(two);
        let deadline = Instant::now() + LONG;
        while TcpStream::connect(on(0)).await.is_ok() {
            assert!(Instant::now() < deadline, "a dead node's host refuses");
            sleep(Duration::from_millis(10)).await;
        }
        drop(relay);
        assert!(TcpStream::connect(on(1)).await.is_err(), "nothing of the relay is left");
    }
}

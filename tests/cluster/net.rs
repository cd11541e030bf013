//! Roads between nodes that can be cut: for each two nodes and each segment a relay on loopback that passes bytes
//! on, or holds them back by direction, as a cut cable does: no error, only silence.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::rig::free_ports;

/// How often a pump looks whether its road is cut.
const LOOK: Duration = Duration::from_millis(5);

/// From one node to another over one segment: bytes that the first sends, whoever dialled.
type Way = (usize, usize, String);

#[derive(Debug, Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn shut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// All roads.
pub struct Net {
    segments: Vec<String>,
    /// Ports that nodes publish; nobody listens there.
    published: BTreeMap<(usize, String), u16>,
    relays: BTreeMap<Way, u16>,
    gates: BTreeMap<Way, Gate>,
    over: Arc<AtomicBool>,
}

impl Net {
    /// Roads between nodes that listen on these ports.
    pub fn new(segments: &[&str], binds: &[u16]) -> Self {
        let segments: Vec<String> = segments.iter().map(|segment| (*segment).to_owned()).collect();
        let places =
            (0..binds.len()).flat_map(|at| segments.iter().map(move |segment| (at, segment.clone())));
        let published = places.zip(free_ports(binds.len() * segments.len())).collect();
        let ways = (0..binds.len())
            .flat_map(|from| (0..binds.len()).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .flat_map(|(from, to)| segments.iter().map(move |segment| (from, to, segment.clone())));
        let gates: BTreeMap<Way, Gate> = ways.map(|way| (way, Gate::default())).collect();
        let over = Arc::new(AtomicBool::new(false));
        let relay = |way: &Way| {
            let (from, to, segment) = way;
            let there = gates[way].clone();
            let back = gates[&(*to, *from, segment.clone())].clone();
            (way.clone(), relay(binds[*to], there, back, over.clone()))
        };
        let relays = gates.keys().map(relay).collect();
        Self { segments, published, relays, gates, over }
    }

    /// The lines of a node's file that say where it is reached.
    pub fn addresses(&self, at: usize) -> String {
        let line = |segment: &String| {
            let port = self.published[&(at, segment.clone())];
            format!("{{segment: {segment}, host: 127.0.0.1, port: {port}}}")
        };
        format!("addresses: [{}]\n", self.segments.iter().map(line).collect::<Vec<_>>().join(", "))
    }

    /// Where a node dials instead.
    pub fn detours(&self, at: usize) -> String {
        let own = self.relays.iter().filter(|((from, ..), _)| *from == at);
        let line = |((_, to, segment), port): (&Way, &u16)| {
            let published = self.published[&(*to, segment.clone())];
            (format!("127.0.0.1:{published}"), json!(format!("127.0.0.1:{port}")))
        };
        serde_json::Value::Object(own.map(line).collect()).to_string()
    }

    fn set(&self, shut: bool, which: impl Fn(&Way) -> bool) {
        for (_, gate) in self.gates.iter().filter(|(way, _)| which(way)) {
            gate.0.store(shut, Ordering::Release);
        }
    }

    /// Nothing passes on a segment any more.
    pub fn cut_segment(&self, segment: &str) {
        self.set(true, |way| way.2 == segment);
    }

    /// Nothing passes between these and all others.
    pub fn cut_off(&self, side: &[usize]) {
        self.set(true, |(from, to, _)| side.contains(from) != side.contains(to));
    }

    /// Nothing that this node sends arrives anywhere.
    pub fn mute(&self, node: usize) {
        self.set(true, |(from, ..)| *from == node);
    }

    /// Nothing arrives at this node.
    pub fn deafen(&self, node: usize) {
        self.set(true, |(_, to, _)| *to == node);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.set(false, |_| true);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        for port in self.relays.values() {
            // Wakes the listener, so that it sees the end.
            drop(TcpStream::connect((Ipv4Addr::LOCALHOST, *port)));
        }
    }
}

/// Listens and passes on until it is over; gives its port.
fn relay(to: u16, there: Gate, back: Gate, over: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((near, _)) = listener.accept() {
            if over.load(Ordering::Acquire) {
                return;
            }
            // Whoever does not listen is not there: the caller is left without a word.
            let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
            for stream in [&near, &far] {
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(LOOK)).unwrap();
            }
            let (near_again, far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (gate, end) = (there.clone(), over.clone());
            std::thread::spawn(move || pump(near, far, &gate, &end));
            let (gate, end) = (back.clone(), over.clone());
            std::thread::spawn(move || pump(far_again, near_again, &gate, &end));
        }
    });
    port
}

fn pump(mut from: TcpStream, mut to: TcpStream, gate: &Gate, over: &AtomicBool) {
    let mut buffer = [0; 64 * 1024];
    while !over.load(Ordering::Acquire) {
        if gate.shut() {
            std::thread::sleep(LOOK);
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                // What was read in the moment of the cut waits for its end like the rest.
                while gate.shut() && !over.load(Ordering::Acquire) {
                    std::thread::sleep(LOOK);
                }
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    // The other pump sees the end too.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

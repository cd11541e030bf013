//! Hosts of a test: a network namespace each, two segments between them, and a switch that drops what it is told
//! to by direction and segment. Everything lies in namespaces of its own, so that labs never meet; what a killed
//! test left behind is swept by the next. Does not know what runs on the hosts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The networks between the hosts, best first.
pub const SEGMENTS: [&str; 2] = ["mgmt", "data"];

/// Begins the name of everything that outlives a killed test, followed by the owner's process id.
pub const PREFIX: &str = "qcut-";

/// Packets that one host sends to another over one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    pub from: usize,
    pub to: usize,
    pub segment: usize,
}

pub struct Lab {
    name: String,
    count: usize,
    /// Of a thousand packets so many are dropped; 1,000 is a cut.
    drops: Mutex<BTreeMap<Way, u32>>,
}

impl Lab {
    /// So many hosts, each reaching every other on every segment; nothing where this host or account can make
    /// none, which fails where QUORATE_REQUIRE asks for them.
    pub fn new(count: usize) -> Option<Self> {
        if let Err(why) = able() {
            let required = std::env::var("QUORATE_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|one| one.trim() == "netns"), "netns is required: {why}");
            println!("left out: no network namespaces here: {why}");
            return None;
        }
        sweep();
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let lab =
            Self { name: format!("{PREFIX}{}-{serial}", std::process::id()), count, drops: Mutex::default() };
        lab.build();
        Some(lab)
    }

    fn build(&self) {
        let switch = self.switch();
        for name in (0..self.count).map(|at| self.host(at)).chain([switch.clone()]) {
            ip(&["netns", "add", &name]);
            ip(&["-n", &name, "link", "set", "lo", "up"]);
        }
        let mut lines = String::new();
        for (segment, name) in SEGMENTS.iter().enumerate() {
            writeln!(lines, "link add br{segment} type bridge forward_delay 0").unwrap();
            writeln!(lines, "link set br{segment} up").unwrap();
            for at in 0..self.count {
                let (port, host) = (port(at, segment), self.host(at));
                writeln!(lines, "link add {port} type veth peer name {name} netns {host}").unwrap();
                writeln!(lines, "link set {port} master br{segment} up").unwrap();
            }
        }
        fed(Command::new("ip").args(["-n", &switch, "-batch", "-"]), &lines);
        for at in 0..self.count {
            let lines: String = (0..SEGMENTS.len()).fold(String::new(), |mut lines, segment| {
                let (name, address) = (SEGMENTS[segment], address(at, segment));
                writeln!(lines, "addr add {address}/24 dev {name}\nlink set {name} up").unwrap();
                lines
            });
            fed(Command::new("ip").args(["-n", &self.host(at), "-batch", "-"]), &lines);
        }
    }

    fn host(&self, at: usize) -> String {
        format!("{}-n{}", self.name, at + 1)
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.name)
    }

    /// Does something where a host is: what it opens and starts is on that host's network.
    pub fn within<T: Send>(&self, at: usize, act: impl FnOnce() -> T + Send) -> T {
        inside(&self.host(at), act)
    }

    /// A closure that moves the thread it is called on to a host, for good.
    pub fn mover(&self, at: usize) -> impl FnOnce() + Send + 'static {
        let name = self.host(at);
        move || enter(&name)
    }

    /// Cuts, from now on, every way that `which` names, besides those cut already.
    pub fn cut(&self, which: impl Fn(Way) -> bool) {
        self.lose(1_000, which);
    }

    /// Drops so many packets of a thousand, at random, on every way that `which` names.
    pub fn lose(&self, permille: u32, which: impl Fn(Way) -> bool) {
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        drops.extend(self.ways().filter(|way| which(*way)).map(|way| (way, permille)));
        self.apply(&drops);
    }

    /// Nothing is dropped any more.
    pub fn heal(&self) {
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        drops.clear();
        self.apply(&drops);
    }

    fn ways(&self) -> impl Iterator<Item = Way> + use<> {
        let count = self.count;
        (0..count)
            .flat_map(move |from| (0..count).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .flat_map(|(from, to)| (0..SEGMENTS.len()).map(move |segment| Way { from, to, segment }))
    }

    /// All rules at once, in one transaction: what the switch does is what the table says, at any moment.
    fn apply(&self, drops: &BTreeMap<Way, u32>) {
        let mut rules =
            String::from("table bridge lab\ndelete table bridge lab\ntable bridge lab {\nchain c {\n");
        rules.push_str("type filter hook forward priority 0; policy accept;\n");
        for (way, permille) in drops {
            let (from, to) = (port(way.from, way.segment), port(way.to, way.segment));
            let chance = match permille {
                1_000.. => String::new(),
                some => format!("numgen random mod 1000 < {some} "),
            };
            writeln!(rules, "meta protocol ip iifname {from} oifname {to} {chance}drop").unwrap();
        }
        rules.push_str("}\n}\n");
        inside(&self.switch(), || fed(Command::new("nft").args(["-f", "-"]), &rules));
    }

    /// Takes a host's cable out of a segment, or puts it back: the host sees that its link is down.
    pub fn plug(&self, at: usize, segment: usize, is_in: bool) {
        let to = if is_in { "up" } else { "down" };
        ip(&["-n", &self.switch(), "link", "set", &port(at, segment), to]);
    }

    /// Kills everything that runs on a host, as a loss of power would; nothing of it runs afterwards.
    pub fn power_off(&self, at: usize) {
        kill_all_in(&self.host(at));
    }

    /// A program that powers a host off, and says `off` once nothing runs there: the device of a fence.
    pub fn power_switch(&self, at: usize, folder: &Path) -> PathBuf {
        let path = folder.join(format!("power-{at}"));
        let host = self.host(at);
        let text = format!(
            "#!/bin/sh\ncase $1 in\noff) for _ in 1 2 3 4 5; do for pid in $(ip netns pids {host}); do kill -9 $pid; done; done;;\n\
             status) [ -z \"$(ip netns pids {host})\" ] && echo off || echo on;;\nesac\n"
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        path
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in (0..self.count).map(|at| self.host(at)).chain([self.switch()]) {
            kill_all_in(&name);
            remove(&name);
        }
    }
}

/// A host's own address on a segment.
pub fn address(at: usize, segment: usize) -> Ipv4Addr {
    let part = |n: usize| u8::try_from(n + 1).unwrap();
    Ipv4Addr::new(10, 61, part(segment), part(at))
}

/// The switch's port to a host.
fn port(at: usize, segment: usize) -> String {
    format!("p{at}s{segment}")
}

/// Where the data of hosts lies: in memory where there is such a place, since cuts are at issue and not disks.
pub fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

fn place(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// May this account make namespaces here, and are the tools there?
fn able() -> Result<(), String> {
    if !rustix::process::getuid().is_root() {
        return Err("only root may make them".to_owned());
    }
    for (tool, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        if Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Err(format!("{tool} is missing; install {package}"));
        }
    }
    let name = format!("{PREFIX}{}-try", std::process::id());
    let made =
        Command::new("ip").args(["netns", "add", &name]).output().map_err(|error| error.to_string())?;
    remove(&name);
    if made.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&made.stderr).trim().to_owned()) }
}

fn enter(name: &str) {
    let file = File::open(place(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Only the thread that does it moves; processes it starts begin there.
fn inside<T: Send>(name: &str, act: impl FnOnce() -> T + Send) -> T {
    let moved = || {
        enter(name);
        act()
    };
    std::thread::scope(|scope| scope.spawn(moved).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[track_caller]
fn ip(arguments: &[&str]) {
    fed(Command::new("ip").args(arguments), "");
}

/// Runs a tool to its end on this input.
#[track_caller]
fn fed(command: &mut Command, input: &str) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}\n{input}");
}

/// Every process on the network of a namespace.
fn processes_in(name: &str) -> Vec<i32> {
    let Ok(there) = fs::metadata(place(name)) else { return Vec::new() };
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let network = fs::metadata(format!("/proc/{pid}/ns/net"));
            network.is_ok_and(|network| (network.ino(), network.dev()) == (there.ino(), there.dev()))
        })
        .collect()
}

/// Again and again, since what is killed may have been about to start something.
fn kill_all_in(name: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = processes_in(name);
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in left {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn remove(name: &str) {
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Removes what tests left that were killed: their owner no longer runs.
fn sweep() {
    for (folder, is_network) in [(PathBuf::from("/run/netns"), true), (folder(), false)] {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let owner =
                name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if owner.is_none_or(|owner| Path::new(&format!("/proc/{owner}")).exists()) {
                continue;
            }
            if is_network {
                kill_all_in(&name);
                remove(&name);
            } else {
                let _ = fs::remove_dir_all(folder.join(&name));
            }
        }
    }
}

//! The guard's only loop: waits for its socket, its children, the clock and the disk, and hands each to the
//! keeper. One node at a time; whoever else knocks is told so. Judges nothing itself.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use anyhow::{Context, bail};
use quorate_core::units::{BootMs, Millis};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};

use super::address::Address;
use super::connection::{Connection, Peer};
use super::journal::Journal;
use super::keeper::{Keeper, ReplyTo};
use super::logs::LogPolicy;
use super::protocol::{Question, Say, Welcome, decode, encode, read_hello};
use super::records::make_private;
use super::{GREETING, GuardArgs};
use crate::host::{ProcessStat, boot_now};
use crate::layout::Layout;

/// Connections beyond this are hung up on.
const MOST_CONNECTIONS: usize = 16;

/// How long the last kills may take when a held guard ends.
const FAREWELL: Millis = Millis(5_000);

struct Server {
    keeper: Keeper,
    listener: UnixListener,
    connections: Vec<Connection>,
    next_number: u64,
    hold: Option<BorrowedFd<'static>>,
    timer: OwnedFd,
    journal: Journal,
    idle_since: Option<BootMs>,
    idle_exit: Millis,
}

/// Serves until held and let go, or idle for long.
pub fn serve(args: &GuardArgs) -> anyhow::Result<()> {
    let layout = Layout::new(&args.data_dir);
    make_private(&layout.guard())?;
    let _only = take_lock(&layout)?;
    leave_the_node();
    let hold = args.hold.map(held_pipe).transpose()?;
    let journal = Journal::open(layout.guard().join("guard.log"));
    let logs =
        LogPolicy { max_bytes: args.log_size.saturating_mul(1_024), keep: args.log_keep.clamp(1, 1_000) };
    let keeper = Keeper::open(layout.clone(), args.track, logs, journal.clone())?;
    let path = args.socket.clone().unwrap_or_else(|| layout.guard_socket());
    let listener = listen(&path)?;
    super::announce()?;
    journal.write(&format!(
        "guard {} listens, {}",
        std::process::id(),
        keeper.cgroups.capabilities().join(" ")
    ));
    let mut server = Server {
        keeper,
        listener,
        connections: Vec::new(),
        next_number: 0,
        hold,
        timer: timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?,
        journal,
        idle_since: None,
        idle_exit: Millis(args.idle_exit),
    };
    server.run()?;
    let _ = fs::remove_file(&path);
    Ok(())
}

fn take_lock(layout: &Layout) -> anyhow::Result<File> {
    let path = layout.guard().join("lock");
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another guard holds {}; one data directory has one guard", path.display());
    }
    Ok(file)
}

/// Own session, own name, parent of all orphans below; last to go when memory is short.
fn leave_the_node() {
    // Fails only for a session's leader, which is what it is to become.
    let _ = rustix::process::setsid();
    // The node's thread that started it may have been in a hurry; services are not.
    crate::host::no_hurry();
    crate::host::usual_descriptors();
    let _ = rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1));
    let _ = rustix::thread::set_name(c"quorate-guard");
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    let _ = std::env::set_current_dir("/");
}

#[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
fn held_pipe(fd: i32) -> anyhow::Result<BorrowedFd<'static>> {
    // SAFETY: the descriptor is checked right below and nothing here ever closes it.
    let pipe = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = rustix::io::fcntl_getfd(pipe).with_context(|| format!("--hold {fd}: no such descriptor"))?;
    rustix::io::fcntl_setfd(pipe, flags | rustix::io::FdFlags::CLOEXEC)?;
    Ok(pipe)
}

fn listen(path: &std::path::Path) -> anyhow::Result<UnixListener> {
    // The lock is held, so a socket that lies there is a dead guard's.
    let _ = fs::remove_file(path);
    let address = Address::of(path)?;
    let listener =
        UnixListener::bind(address.path()).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Server {
    fn run(&mut self) -> anyhow::Result<()> {
        loop {
            self.keeper.tick();
            self.keeper.written();
            self.pass_on();
            let now = boot_now();
            if self.idle(now) {
                self.journal.write("nothing runs and no node is there; the guard ends");
                self.keeper.close_down();
                return Ok(());
            }
            self.arm(now)?;
            if self.wait_and_read()? {
                return self.farewell();
            }
        }
    }

    /// Nothing to guard and nobody to serve for long.
    fn idle(&mut self, now: BootMs) -> bool {
        let needed = self.keeper.active().next().is_some() || !self.connections.is_empty();
        if needed {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        now.since(since) >= self.idle_exit
    }

    /// Sets the clock to the next thing that is due. It counts suspend, as the deadlines do.
    fn arm(&self, now: BootMs) -> anyhow::Result<()> {
        let strangers = self.connections.iter().filter_map(|connection| match connection.peer {
            Peer::Stranger { until } => Some(until),
            Peer::Node(_) | Peer::Leaving => None,
        });
        let due = strangers
            .chain(self.keeper.next_tick())
            .chain(self.idle_since.map(|since| since + self.idle_exit))
            .min()
            .map_or(0, |due| due.max(now + Millis(1)).0);
        let due = Timespec { tv_sec: (due / 1_000) as i64, tv_nsec: (due % 1_000 * 1_000_000) as _ };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Itimerspec { it_interval: never, it_value: due };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &value)?;
        Ok(())
    }

    /// Waits for anything, then reads connections. True once the hold is gone.
    fn wait_and_read(&mut self) -> anyhow::Result<bool> {
        let mut fds = vec![
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::from_borrowed_fd(self.timer.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.keeper.disk.wake(), PollFlags::IN),
        ];
        fds.extend(self.connections.iter().map(|one| PollFd::from_borrowed_fd(one.fd(), one.interest())));
        let hold_at = fds.len();
        fds.extend(self.hold.iter().map(|hold| PollFd::from_borrowed_fd(*hold, PollFlags::empty())));
        let watched = self.keeper.active().filter(|run| run.exit.is_none());
        fds.extend(
            watched.filter_map(|run| run.watch.as_ref()).map(|watch| PollFd::new(watch, PollFlags::IN)),
        );
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for anything"),
        }
        let let_go = self.hold.is_some()
            && fds[hold_at].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        let knocked = !fds[0].revents().is_empty();
        let ready: Vec<u64> = self
            .connections
            .iter()
            .zip(&fds[3..])
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(connection, _)| connection.number)
            .collect();
        drop(fds);
        if knocked {
            self.accept();
        }
        let now = boot_now();
        for number in ready {
            self.read(number);
        }
        self.connections.retain(|one| !matches!(one.peer, Peer::Stranger { until } if until <= now));
        Ok(let_go)
    }

    fn accept(&mut self) {
        let own = rustix::process::getuid();
        while let Ok((stream, _)) = self.listener.accept() {
            let Ok(peer) = rustix::net::sockopt::socket_peercred(&stream) else { continue };
            let allowed = peer.uid == own || peer.uid.is_root();
            if !allowed || self.connections.len() >= MOST_CONNECTIONS {
                continue;
            }
            self.next_number += 1;
            let until = boot_now() + Millis(GREETING.as_millis() as u64);
            let pid = peer.pid.as_raw_nonzero().get().unsigned_abs();
            self.connections.extend(Connection::new(self.next_number, stream, pid, until));
        }
    }

    fn read(&mut self, number: u64) {
        let Some(at) = self.connections.iter().position(|one| one.number == number) else { return };
        let connection = &mut self.connections[at];
        let frames = connection.flush().and_then(|()| connection.receive());
        let outcome = frames.and_then(|frames| {
            for frame in frames {
                self.hear(at, &frame)?;
            }
            Ok(())
        });
        if outcome.is_err() {
            self.connections.remove(at);
        }
    }

    fn hear(&mut self, at: usize, frame: &[u8]) -> anyhow::Result<()> {
        let connection = &mut self.connections[at];
        match &connection.peer {
            Peer::Leaving => Ok(()),
            Peer::Node(node) => {
                let question: Question = decode(frame)?;
                let to = ReplyTo { connection: connection.number, number: question.number };
                let node = node.clone();
                self.keeper.ask(&node, to, question.ask);
                Ok(())
            }
            Peer::Stranger { .. } => {
                let reply = match read_hello(frame).and_then(|node| self.admit(at, node)) {
                    Ok(()) => {
                        let held = self.keeper.lease;
                        let renewal = held.map_or(0, |lease| lease.number);
                        let valid_until = held.map_or(BootMs(0), |lease| lease.valid_until);
                        Say::Welcome(Welcome { pid: std::process::id(), renewal, valid_until })
                    }
                    Err(error) => {
                        self.connections[at].peer = Peer::Leaving;
                        Say::Unwelcome(format!("{error:#}"))
                    }
                };
                self.connections[at].send(&encode(&reply)?)
            }
        }
    }

    /// One node at a time; one whose process is gone counts no more.
    fn admit(&mut self, at: usize, node: quorate_core::ids::NodeId) -> anyhow::Result<()> {
        let taken = self.connections.iter_mut().find(|one| matches!(one.peer, Peer::Node(_)));
        if let Some(other) = taken {
            if ProcessStat::read(other.pid).is_some_and(|stat| !stat.dead()) {
                bail!("process {} has the session; one data directory has one node", other.pid);
            }
            other.peer = Peer::Leaving;
        }
        self.journal.write(&format!("node {node} is here, pid {}", self.connections[at].pid));
        self.connections[at].peer = Peer::Node(node);
        Ok(())
    }

    /// Sends the answers that are ready, and a word if anything changed.
    fn pass_on(&mut self) {
        let mut broken = Vec::new();
        for (to, answer) in std::mem::take(&mut self.keeper.answers) {
            let say = Say::Answer { number: to.number, answer: Box::new(answer) };
            if let Some(connection) = self.connections.iter_mut().find(|one| one.number == to.connection)
                && encode(&say).and_then(|frame| connection.send(&frame)).is_err()
            {
                broken.push(to.connection);
            }
        }
        if std::mem::take(&mut self.keeper.changed) {
            for connection in self.connections.iter_mut().filter(|one| matches!(one.peer, Peer::Node(_))) {
                if encode(&Say::Changed).and_then(|frame| connection.send(&frame)).is_err() {
                    broken.push(connection.number);
                }
            }
        }
        self.connections.retain(|one| !broken.contains(&one.number));
    }

    /// Whoever held this guard is gone: so goes all it started, then itself.
    fn farewell(&mut self) -> anyhow::Result<()> {
        self.journal.write("no longer held: everything ends");
        self.connections.clear();
        self.keeper.kill_all();
        let until = boot_now() + FAREWELL;
        while self.keeper.active().next().is_some() && boot_now() < until {
            self.keeper.tick();
            self.keeper.written();
            let round = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            let _ = poll(&mut [], Some(&round));
        }
        self.keeper.close_down();
        Ok(())
    }
}

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
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};

use super::address::Address;
use super::adopt::Wanted;
use super::connection::{Connection, Peer};
use super::journal::Journal;
use super::keeper::{Keeper, ReplyTo};
use super::protocol::{Guest, Holders, Question, Say, Told, Welcome, decode, encode, is_twin, read_hello};
use super::records::make_private;
use super::second::Due;
use super::{GREETING, GuardArgs, reset};
use crate::host::{ProcessStat, boot_now};
use crate::layout::Layout;
use crate::logs::LogPolicy;

/// Connections beyond this are hung up on.
const MOST_CONNECTIONS: usize = 16;

/// How long the last kills may take when a held guard ends.
const FAREWELL: Millis = Millis(5_000);

struct Server {
    args: GuardArgs,
    layout: Layout,
    keeper: Keeper,
    /// The twin that came last: its process id may be another's by now.
    twin: Option<OwnedFd>,
    /// Who holds the deadlines, as the node was last told.
    holders: Option<Holders>,
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
    let _only = take_lock(&layout, LOCK)?;
    leave_the_node();
    let hold = args.hold.map(held_pipe).transpose()?;
    let journal = Journal::open(layout.guard().join("guard.log"));
    let logs =
        LogPolicy { max_bytes: args.log_size.saturating_mul(1_024), keep: args.log_keep.clamp(1, 1_000) };
    let wanted = Wanted { track: args.track, logs, reset: args.reset_host, alone: args.alone };
    let keeper = Keeper::open(layout.clone(), wanted, journal.clone())?;
    if args.reset_host && !reset::possible() {
        journal.write("the host could not be reset from here: guard.reset needs root and the kernel's sysrq");
    }
    let path = args.socket.clone().unwrap_or_else(|| layout.guard_socket());
    let listener = listen(&path)?;
    super::announce()?;
    journal.write(&format!(
        "guard {} listens, {}",
        std::process::id(),
        keeper.cgroups.capabilities().join(" ")
    ));
    let mut server = Server {
        args: args.clone(),
        layout,
        keeper,
        twin: None,
        holders: None,
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

/// The locks of the one guard of a data directory and of its one twin.
pub const LOCK: &str = "lock";
pub const TWIN_LOCK: &str = "twin.lock";

/// Takes a lock for as long as the file is kept.
pub fn take_lock(layout: &Layout, name: &str) -> anyhow::Result<File> {
    let path = layout.guard().join(name);
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
    let _ = rustix::process::set_child_subreaper(Pid::from_raw(1));
    let _ = rustix::thread::set_name(c"quorate-guard");
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    let _ = std::env::set_current_dir("/");
}

/// The pipe that this process does not outlive, not inherited further.
#[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
pub fn held_pipe(fd: i32) -> anyhow::Result<BorrowedFd<'static>> {
    // SAFETY: the descriptor is checked right below and nothing here ever closes it.
    let pipe = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = rustix::io::fcntl_getfd(pipe).with_context(|| format!("--hold {fd}: no such descriptor"))?;
    rustix::io::fcntl_setfd(pipe, flags | rustix::io::FdFlags::CLOEXEC)?;
    Ok(pipe)
}

/// Sets a clock that counts suspend, as the deadlines do; never, if there is nothing to come.
pub fn set_timer(timer: &OwnedFd, due: Option<BootMs>) -> anyhow::Result<()> {
    // 0 would switch it off.
    let due = due.map_or(0, |due| due.0.max(1));
    let due = Timespec { tv_sec: (due / 1_000) as i64, tv_nsec: (due % 1_000 * 1_000_000) as _ };
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    let value = Itimerspec { it_interval: never, it_value: due };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &value)?;
    Ok(())
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

fn end(process: &OwnedFd) {
    let _ = pidfd_send_signal(process, Signal::KILL);
}

impl Server {
    fn run(&mut self) -> anyhow::Result<()> {
        loop {
            self.keeper.served = self.connections.iter().any(|one| matches!(one.peer, Peer::Node(_)));
            self.keeper.tick();
            self.keeper.written();
            let now = boot_now();
            let idle = self.idle(now);
            self.see_to_the_twin(now);
            self.pass_on(now);
            if idle {
                self.journal.write("nothing runs and no node is there; the guard ends");
                self.close_down();
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
        let served = |one: &Connection| one.peer != Peer::Twin;
        let needed = self.keeper.active().next().is_some() || self.connections.iter().any(served);
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
            Peer::Node(_) | Peer::Twin | Peer::Leaving => None,
        });
        let due = strangers
            .chain(self.keeper.next_tick())
            .chain(self.idle_since.map(|since| since + self.idle_exit))
            .min()
            .map(|due| due.max(now + Millis(1)));
        set_timer(&self.timer, due)
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
        self.drop_connections(|one| matches!(one.peer, Peer::Stranger { until } if until <= now));
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
            self.drop_connections(|one| one.number == number);
        }
    }

    fn drop_connections(&mut self, which: impl Fn(&Connection) -> bool) {
        let twin = |one: &Connection| one.peer == Peer::Twin;
        let before = self.connections.iter().any(twin);
        self.connections.retain(|one| !which(one));
        if before && !self.connections.iter().any(twin) {
            self.keeper.second.gone(boot_now());
        }
    }

    fn hear(&mut self, at: usize, frame: &[u8]) -> anyhow::Result<()> {
        let connection = &mut self.connections[at];
        match &connection.peer {
            Peer::Leaving => Ok(()),
            Peer::Twin => {
                self.keeper.second.answer(decode(frame)?, boot_now());
                Ok(())
            }
            Peer::Node(node) => {
                let question: Question = decode(frame)?;
                let to = ReplyTo { connection: connection.number, number: question.number };
                let node = node.clone();
                self.keeper.ask(&node, to, question.ask);
                Ok(())
            }
            Peer::Stranger { .. } => {
                let reply = match read_hello(frame).and_then(|guest| self.admit(at, guest)) {
                    Ok(Guest::Twin) => return Ok(()),
                    Err(_) if is_twin(frame) => {
                        self.connections[at].peer = Peer::Leaving;
                        return self.connections[at].send(&encode(&Told::End)?);
                    }
                    Ok(Guest::Node(_)) => {
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

    /// One node and one twin at a time; one whose process is gone counts no more.
    fn admit(&mut self, at: usize, guest: Guest) -> anyhow::Result<Guest> {
        let pid = self.connections[at].pid;
        let same = |peer: &Peer| match &guest {
            Guest::Node(_) => matches!(peer, Peer::Node(_)),
            Guest::Twin => *peer == Peer::Twin,
        };
        if let Some(other) = self.connections.iter_mut().find(|one| same(&one.peer)) {
            if ProcessStat::read(other.pid).is_some_and(|stat| !stat.dead()) {
                bail!("process {} has the session; one data directory has one node", other.pid);
            }
            other.peer = Peer::Leaving;
        }
        self.connections[at].peer = match &guest {
            Guest::Node(node) => {
                self.journal.write(&format!("node {node} is here, pid {pid}"));
                // It is told who holds the deadlines before anything else.
                self.holders = None;
                Peer::Node(node.clone())
            }
            Guest::Twin => {
                self.journal.write(&format!("the twin is here, pid {pid}"));
                let twin = Pid::from_raw(pid.cast_signed());
                self.twin = twin.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
                self.keeper.second_came(pid, boot_now());
                Peer::Twin
            }
        };
        Ok(guest)
    }

    /// Starts the twin, ends one that does not answer, passes the keeper's words on to it.
    fn see_to_the_twin(&mut self, now: BootMs) {
        // While it is idle nobody is there to be armed for, and nothing to be ended.
        self.keeper.second.wanted = self.idle_since.is_none();
        match self.keeper.second.due(now) {
            Some(Due::Start) => {
                // One that lives without a guard knocks by itself.
                if take_lock(&self.layout, TWIN_LOCK).is_ok()
                    && let Err(error) = super::spawn_holder(&self.args, self.hold, true)
                {
                    self.journal.write(&format!("the twin cannot be started: {error:#}"));
                }
            }
            Some(Due::End(pid)) => {
                self.journal.write(&format!("the twin {pid} does not answer and is ended"));
                self.twin.iter().for_each(end);
            }
            None => {}
        }
        let words = std::mem::take(&mut self.keeper.second.words);
        let Some(twin) = self.connections.iter_mut().find(|one| one.peer == Peer::Twin) else { return };
        let sent = words.iter().try_for_each(|word| twin.send(&encode(word)?));
        if sent.is_err() {
            self.drop_connections(|one| one.peer == Peer::Twin);
        }
    }

    /// Ends the twin, frozen or not, and leaves nothing behind. Nothing runs any more that it would hold.
    fn close_down(&mut self) {
        if let Some(twin) = &self.twin {
            end(twin);
            let within = Timespec { tv_sec: (FAREWELL.0 / 1_000) as i64, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(twin, PollFlags::IN)], Some(&within));
        }
        self.keeper.close_down();
    }

    /// Sends the answers that are ready, and a word if anything changed.
    fn pass_on(&mut self, now: BootMs) {
        let mut broken = Vec::new();
        let holders = self.keeper.second.holders(now);
        if self.holders.as_ref() != Some(&holders) {
            match &holders.unarmed {
                Some(why) => self.journal.write(&format!("not armed: {}", why.why)),
                None => self.journal.write(&format!("armed, the twin is {}", holders.twin)),
            }
            for node in self.connections.iter_mut().filter(|one| matches!(one.peer, Peer::Node(_))) {
                let word = Say::Holders(holders.clone());
                if encode(&word).and_then(|frame| node.send(&frame)).is_err() {
                    broken.push(node.number);
                }
            }
            self.holders = Some(holders);
        }
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
        self.drop_connections(|one| broken.contains(&one.number));
    }

    /// Whoever held this guard is gone: so goes all it started, then itself.
    fn farewell(&mut self) -> anyhow::Result<()> {
        self.journal.write("no longer held: everything ends");
        self.connections.retain(|one| one.peer == Peer::Twin);
        self.keeper.kill_all();
        let until = boot_now() + FAREWELL;
        while self.keeper.active().next().is_some() && boot_now() < until {
            self.keeper.tick();
            self.keeper.written();
            let round = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            let _ = poll(&mut [], Some(&round));
        }
        self.close_down();
        Ok(())
    }
}

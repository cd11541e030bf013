//! The second holder of the deadlines: a process of its own, in control groups of its own, that holds what the
//! guard wrote down and kills what is past its deadline, asking neither the guard nor anyone else. Looks at the
//! stored deadlines first; starts nothing, reports to the guard only. Does not know tokens, nodes or services.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::Context;
use quorate_core::effect::Isolation;
use quorate_core::ids::SlotId;
use quorate_core::units::{BootMs, Millis};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use super::address::Address;
use super::adopt::{OWN_GROUPS, cgroups, runs_folder};
use super::cgroup::Cgroups;
use super::connection::{Connection, Peer};
use super::group::Group;
use super::journal::Journal;
use super::protocol::{Holds, Told, decode, encode, twin_hello};
use super::records::{HeldLease, RunRecord, Runs, make_private};
use super::server::{LOCK, TWIN_LOCK, held_pipe, set_timer, take_lock};
use super::signal;
use super::{GuardArgs, reset};
use crate::host::{ProcessStat, boot_id, boot_now};
use crate::layout::{Layout, guard_name};

/// Between two looks at what is being killed.
const KILL_ROUND: Millis = Millis(10);

/// Between two looks into a group that is empty and barred: somebody may still arrive.
const BARRED_ROUND: Millis = Millis(100);

/// Between two knocks at the door of a guard that is gone: the next one is to find its twin at once.
const KNOCK: Millis = Millis(50);

/// Between two attempts to start a guard, where no node did.
const REVIVE: Millis = Millis(1_000);

/// Between two checks that everything can be killed.
const CHECK: Millis = Millis(1_000);

/// Instances that are named in one answer.
const MOST_NAMED: usize = 16;

/// How long the last kills may take once nobody holds this any more.
const FAREWELL: Millis = Millis(5_000);

/// One instance whose deadline is held.
struct Held {
    group: Group,
    isolation: Isolation,
    /// Its main process and that one's start time, once there is one.
    main: Option<(u32, u64)>,
    /// Is its group left frozen, so that nobody who arrives runs?
    barred: bool,
    /// Is the guard ending it? Then it stays barred whatever the lease says.
    ending: bool,
    /// May its main process be outside of the group?
    beyond: bool,
    /// Why it could not be killed for sure.
    unable: Option<String>,
}

struct Twin {
    args: GuardArgs,
    cgroups: Cgroups,
    runs: Runs,
    journal: Journal,
    socket: PathBuf,
    lease: Option<HeldLease>,
    held: BTreeMap<SlotId, Held>,
    guard: Option<Connection>,
    knock_at: BootMs,
    revive_at: BootMs,
    alone_since: Option<BootMs>,
    idle_exit: Millis,
    checked: Option<BootMs>,
    reset: bool,
    timer: OwnedFd,
    hold: Option<BorrowedFd<'static>>,
}

/// Holds until there is nothing left to hold.
pub fn hold(args: &GuardArgs) -> anyhow::Result<()> {
    let layout = Layout::new(&args.data_dir);
    make_private(&layout.guard())?;
    let _only = take_lock(&layout, TWIN_LOCK)?;
    let _ = rustix::process::setsid();
    // It wakes for moments only, and then it matters.
    crate::host::hurry();
    let _ = rustix::thread::set_name(c"quorate-twin");
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    let _ = std::env::set_current_dir("/");
    let hold = args.hold.map(held_pipe).transpose()?;
    let boot = boot_id().context("cannot tell which boot this is")?;
    let cgroups = cgroups(&layout, args.track);
    cgroups.enter(OWN_GROUPS[1]);
    let Some(runs) = Runs::find(&runs_folder(&layout, &guard_name(layout.root())), &boot) else {
        // The guard that wanted it has ended meanwhile.
        cgroups.remove(&OWN_GROUPS);
        return Ok(());
    };
    let mut twin = Twin {
        args: args.clone(),
        cgroups,
        runs,
        journal: Journal::open(layout.guard().join("twin.log")),
        socket: args.socket.clone().unwrap_or_else(|| layout.guard_socket()),
        lease: None,
        held: BTreeMap::new(),
        guard: None,
        knock_at: BootMs(0),
        revive_at: BootMs(0),
        alone_since: None,
        idle_exit: Millis(args.idle_exit),
        checked: None,
        reset: args.reset_host,
        timer: timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?,
        hold,
    };
    twin.look_at_all()?;
    twin.run()?;
    // What a guard that is no more has left behind; one that is there sees to it itself.
    if twin.held.is_empty()
        && let Ok(_no_guard) = take_lock(&layout, LOCK)
    {
        twin.runs.clear();
    }
    twin.cgroups.remove(&OWN_GROUPS);
    Ok(())
}

impl Twin {
    fn run(&mut self) -> anyhow::Result<()> {
        loop {
            let now = boot_now();
            self.enforce(now);
            self.knock(now);
            if self.idle(now) {
                return Ok(());
            }
            self.revive(now);
            set_timer(&self.timer, self.next(now))?;
            if self.wait()? {
                return self.farewell();
            }
            if self.guard.is_some() && !self.hear() {
                return Ok(());
            }
        }
    }

    /// Takes in everything that is stored.
    fn look_at_all(&mut self) -> anyhow::Result<()> {
        self.lease = self.runs.load_lease();
        self.held.clear();
        let (records, broken) = self.runs.load()?;
        for error in broken {
            self.journal.write(&error);
        }
        for record in records {
            self.take_in(record);
        }
        Ok(())
    }

    fn take_in(&mut self, record: RunRecord) {
        let slot = record.start.id.slot.clone();
        let Some(group) = self.cgroups.known_group(&slot, record.placing.slice) else { return };
        let main = record.pid.map(|pid| (pid, record.start_time));
        let (ending, beyond) = (record.ending.is_some(), record.placing.beyond.is_some());
        let barred = self.held.get(&slot).is_some_and(|held| held.barred);
        let mut held =
            Held { group, isolation: record.start.isolation, main, barred, ending, beyond, unable: None };
        held.check();
        self.held.insert(slot, held);
    }

    /// A slot's record changed.
    fn look_at(&mut self, slot: &SlotId) {
        match self.runs.read(slot) {
            Ok(Some(record)) => self.take_in(record),
            Ok(None) => drop(self.held.remove(slot)),
            // What cannot be read any more is held on as it was.
            Err(error) => self.journal.write(&format!("{error:#}")),
        }
    }

    /// The lease as stored; an older renewal than the one held changes nothing.
    fn look_at_lease(&mut self) {
        let stored = self.runs.load_lease();
        let older = |held: HeldLease| stored.is_some_and(|stored| stored.number < held.number);
        if !self.lease.is_some_and(older) {
            self.lease = stored;
        }
    }

    /// A lease that nobody knows of counts as run out.
    fn deadline(&self, held: &Held) -> Option<BootMs> {
        self.lease.unwrap_or_default().deadline(held.isolation)
    }

    /// Kills what is past its deadline, until nothing of it is left.
    fn enforce(&mut self, now: BootMs) {
        if self.held.values().any(|held| self.deadline(held).is_some_and(|due| due <= now)) {
            // A renewal may be stored that this process was not told of yet.
            self.look_at_lease();
        }
        let lease = self.lease.unwrap_or_default();
        for (slot, held) in &mut self.held {
            let Some(due) = lease.deadline(held.isolation).filter(|due| *due <= now) else {
                if !held.ending && std::mem::take(&mut held.barred) {
                    held.group.freeze(false);
                }
                continue;
            };
            let (first, empty) = (!std::mem::replace(&mut held.barred, true), held.empty());
            if first && !empty {
                self.journal.write(&format!("{slot}: its deadline has passed"));
            }
            if first || !empty {
                held.group.kill_and_bar();
                held.main_beyond().into_iter().for_each(|main| signal::send(main, libc::SIGKILL));
            }
            if self.reset && !empty && now >= lease.overdue(due) {
                self.reset = false;
                reset::host(&self.journal, slot);
            }
        }
    }

    /// When there is something to do next, if nothing comes.
    fn next(&self, now: BootMs) -> Option<BootMs> {
        let deadlines = self.held.values().filter_map(|held| {
            let due = self.deadline(held)?;
            let round = if held.empty() { BARRED_ROUND } else { KILL_ROUND };
            Some(if due <= now { now + round } else { due })
        });
        let knock = self.guard.is_none().then_some(self.knock_at);
        let idle = self.alone_since.map(|since| since + self.idle_exit);
        deadlines.chain(knock).chain(idle).min()
    }

    /// Without a guard for long, and with nothing that would have to be ended.
    fn idle(&mut self, now: BootMs) -> bool {
        if self.guard.is_some() {
            self.alone_since = None;
            return false;
        }
        let since = *self.alone_since.get_or_insert_with(|| {
            self.revive_at = now + REVIVE;
            now
        });
        now.since(since) >= self.idle_exit && !self.needed()
    }

    /// Does anything run that would have to be ended?
    fn needed(&self) -> bool {
        let to_end = |held: &Held| held.isolation != Isolation::Keep && !held.empty();
        self.held.values().any(to_end)
    }

    /// A node starts its guard by itself. Where none did, this process would be the only holder left.
    fn revive(&mut self, now: BootMs) {
        // An earlier one that was started here may have ended.
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        if self.guard.is_some() || now < self.revive_at || !self.needed() {
            return;
        }
        self.revive_at = now + REVIVE;
        self.journal.write("no guard is there; one is started");
        if let Err(error) = super::spawn_holder(&self.args, self.hold, false) {
            self.journal.write(&format!("no guard can be started: {error:#}"));
        }
    }

    /// Looks for a guard, if there is none.
    fn knock(&mut self, now: BootMs) {
        if self.guard.is_some() || now < self.knock_at {
            return;
        }
        self.knock_at = now + KNOCK;
        let reached = Address::of(&self.socket).ok().and_then(|at| UnixStream::connect(at.path()).ok());
        if let Some(stream) = reached
            && let Ok(mut connection) = Connection::with(0, stream, 0, Peer::Twin)
            && connection.send(&twin_hello()).is_ok()
            // What an earlier guard wrote down may be over.
            && self.look_at_all().is_ok()
        {
            self.guard = Some(connection);
        }
    }

    /// Waits for the guard, the clock or the end of the hold. True once that is gone.
    fn wait(&self) -> anyhow::Result<bool> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.timer.as_fd(), PollFlags::IN)];
        fds.extend(self.hold.iter().map(|hold| PollFd::from_borrowed_fd(*hold, PollFlags::empty())));
        fds.extend(self.guard.iter().map(|one| PollFd::from_borrowed_fd(one.fd(), one.interest())));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for anything"),
        }
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        Ok(self.hold.is_some() && fds[1].revents().intersects(gone))
    }

    /// Hears the guard out. False once it needs no twin any more.
    fn hear(&mut self) -> bool {
        let Some(connection) = self.guard.as_mut() else { return true };
        let frames = connection.flush().and_then(|()| connection.receive());
        let Ok(frames) = frames else {
            // The next one finds it here.
            self.guard = None;
            self.knock_at = BootMs(0);
            return true;
        };
        for frame in frames {
            match decode::<Told>(&frame) {
                Ok(Told::Look { number, slots }) => self.look(number, &slots),
                // A guard of another release does without it, and starts its own.
                Ok(Told::End) | Err(_) => return false,
            }
        }
        true
    }

    fn look(&mut self, number: u64, slots: &[SlotId]) {
        self.look_at_lease();
        for slot in slots {
            self.look_at(slot);
        }
        let now = boot_now();
        if self.checked.is_none_or(|at| now.since(at) >= CHECK) {
            self.checked = Some(now);
            self.held.values_mut().for_each(Held::check);
        }
        // One that ended meanwhile has no record any more, and may have no group.
        let doubtful: Vec<SlotId> = self.unable().map(|(slot, _)| slot.clone()).collect();
        doubtful.iter().for_each(|slot| self.look_at(slot));
        let named = self.unable().map(|(slot, why)| (slot.clone(), why.to_owned()));
        let answer = Holds { number, unable: named.take(MOST_NAMED).collect() };
        let sent = encode(&answer).and_then(|frame| match self.guard.as_mut() {
            Some(guard) => guard.send(&frame),
            None => Ok(()),
        });
        if sent.is_err() {
            self.guard = None;
        }
    }

    /// Instances that could outlive their deadline, and why.
    fn unable(&self) -> impl Iterator<Item = (&SlotId, &str)> {
        self.held.iter().filter_map(|(slot, held)| Some((slot, held.unable.as_deref()?)))
    }

    /// Whoever held this is gone: so goes all that is held, then itself.
    fn farewell(&mut self) -> anyhow::Result<()> {
        self.look_at_all()?;
        let until = boot_now() + FAREWELL;
        while self.held.values().any(|held| !held.group.members().is_empty()) && boot_now() < until {
            self.held.values().for_each(|held| held.group.kill());
            std::thread::sleep(std::time::Duration::from_millis(KILL_ROUND.0));
        }
        self.held.retain(|_, held| {
            held.group.remove();
            !held.group.members().is_empty()
        });
        Ok(())
    }
}

impl Held {
    fn check(&mut self) {
        self.unable = self.group.can_kill(self.main_alive()).err();
    }

    /// Its main process, if that lives.
    fn main_alive(&self) -> Option<u32> {
        let alive = |(pid, start_time): &(u32, u64)| {
            ProcessStat::read(*pid).is_some_and(|stat| stat.start_time == *start_time && !stat.dead())
        };
        self.main.filter(alive).map(|(pid, _)| pid)
    }

    /// The same, if it may be outside of the group: the best that can be done there is to kill it alone.
    fn main_beyond(&self) -> Option<u32> {
        if self.beyond { self.main_alive() } else { None }
    }

    fn empty(&self) -> bool {
        self.group.members().is_empty() && self.main_beyond().is_none()
    }
}

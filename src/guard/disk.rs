//! Whatever may hang, kept off the guard's loop so that it never delays a deadline: one thread that waits for
//! the disk and does its jobs in order, and one for each launch. Says which are done; decides nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::{fs, thread};

use anyhow::Context;
use quorate_core::effect::StartInstance;
use quorate_core::ids::{NodeId, OperationId, SlotId};
use rustix::event::{EventfdFlags, eventfd};

use super::group::Group;
use super::journal::Journal;
use super::launch::{Prepared, launch, prepare};
use super::records::{SlotRecord, Slots};
use crate::layout::Layout;
use crate::logs::{LogPolicy, rotate};

/// Something for the disk.
#[derive(Debug)]
pub enum Job {
    /// Keep a record.
    Save(SlotId, Box<SlotRecord>),
    /// Do what a start or stop needs first.
    Ready(Box<Errand>),
    /// Drop a slot's record and these folders.
    Forget(SlotId, Vec<PathBuf>),
    /// Rotate the output in a folder if it has grown.
    Rotate(PathBuf, LogPolicy),
}

/// What a start or stop needs before it goes on.
#[derive(Debug)]
pub struct Errand {
    /// Comes back with the outcome.
    pub ticket: u64,
    /// Whose.
    pub slot: SlotId,
    /// To be kept, if it changed.
    pub record: Option<SlotRecord>,
    /// Whose folders are to be made, with the state copy of that operation moved into place.
    pub folders: Option<(StartInstance, Option<OperationId>)>,
}

/// How an errand went.
#[derive(Debug)]
pub enum Outcome {
    /// All is there.
    Done(Option<Prepared>),
    /// The record is not on disk.
    NotKept(String),
    /// The record is, the folders are not.
    NotPrepared(String),
    /// A launch is over: the main process, or why there is none.
    Launched(Result<u32, String>),
}

/// A process to be started.
#[derive(Debug)]
pub struct Launch {
    /// Comes back with the outcome.
    pub ticket: u64,
    /// On whose behalf.
    pub node: NodeId,
    /// What.
    pub start: StartInstance,
    /// Where it belongs.
    pub group: Option<Group>,
    /// What it needs.
    pub prepared: Box<Prepared>,
}

/// The thread, from the outside.
pub struct Disk {
    jobs: Sender<Job>,
    layout: Layout,
    tell: Sender<(u64, Outcome)>,
    done: Receiver<(u64, Outcome)>,
    wake: OwnedFd,
}

impl Disk {
    /// Starts it.
    pub fn spawn(slots: Slots, layout: Layout, journal: Journal) -> anyhow::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let waker = wake.try_clone()?;
        let (jobs, todo) = channel();
        let (tell, done) = channel();
        let (own_tell, own_layout) = (tell.clone(), layout.clone());
        thread::Builder::new()
            .name("guard-disk".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                for job in todo {
                    if let Some(outcome) = work(&slots, &layout, &journal, job)
                        && tell.send(outcome).is_ok()
                    {
                        let _ = rustix::io::write(&waker, &1_u64.to_ne_bytes());
                    }
                }
            })
            .context("cannot start the disk thread")?;
        Ok(Self { jobs, layout: own_layout, tell: own_tell, done, wake })
    }

    /// Starts a process in a thread of its own: a program on a disk that does not answer holds up nobody else.
    pub fn launch(&self, job: Launch) -> anyhow::Result<()> {
        let (layout, tell) = (self.layout.clone(), self.tell.clone());
        let waker = self.wake.try_clone()?;
        let work = move || {
            let Launch { ticket, node, start, group, prepared } = job;
            let launched = launch(&layout, &node, &start, group.as_ref(), &prepared);
            let outcome = Outcome::Launched(launched.map_err(|error| format!("{error:#}")));
            if tell.send((ticket, outcome)).is_ok() {
                let _ = rustix::io::write(&waker, &1_u64.to_ne_bytes());
            }
        };
        let thread = thread::Builder::new().name("guard-start".to_owned()).stack_size(256 * 1024);
        thread.spawn(work).map(drop).context("cannot start a thread")
    }

    /// Gives it a job.
    pub fn give(&self, job: Job) {
        // The thread ends only with this sender.
        let _ = self.jobs.send(job);
    }

    /// Readable when jobs with a ticket are done.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The tickets of jobs that are done, and how they went.
    pub fn done(&self) -> Vec<(u64, Outcome)> {
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        self.done.try_iter().collect()
    }
}

fn work(slots: &Slots, layout: &Layout, journal: &Journal, job: Job) -> Option<(u64, Outcome)> {
    match job {
        Job::Save(slot, record) => {
            if let Err(error) = slots.save(&slot, &record) {
                journal.write(&format!("{slot}: {error:#}"));
            }
        }
        Job::Ready(errand) => {
            let ticket = errand.ticket;
            return Some((ticket, run_errand(slots, layout, journal, *errand)));
        }
        Job::Forget(slot, folders) => {
            slots.remove(&slot);
            for folder in folders {
                remove(journal, &folder);
            }
        }
        Job::Rotate(folder, policy) => {
            if let Err(error) = rotate(&folder, policy) {
                journal.write(&format!("cannot rotate the output in {}: {error:#}", folder.display()));
            }
        }
    }
    None
}

fn run_errand(slots: &Slots, layout: &Layout, journal: &Journal, errand: Errand) -> Outcome {
    if let Some(record) = &errand.record
        && let Err(error) = slots.save(&errand.slot, record)
    {
        journal.write(&format!("{}: {error:#}", errand.slot));
        return Outcome::NotKept(format!("{error:#}"));
    }
    let prepared = errand.folders.map(|(start, copied)| prepare(layout, &start, copied)).transpose();
    match prepared {
        Ok(prepared) => Outcome::Done(prepared),
        Err(error) => Outcome::NotPrepared(format!("{error:#}")),
    }
}

fn remove(journal: &Journal, folder: &PathBuf) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        journal.write(&format!("cannot remove {}: {error}", folder.display()));
    }
}

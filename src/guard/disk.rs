//! The one thread of the guard that waits for the disk, so that a slow disk never delays a deadline.
//! Does jobs in order and says which are done; decides nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::{fs, thread};

use anyhow::Context;
use quorate_core::ids::SlotId;
use rustix::event::{EventfdFlags, eventfd};

use super::journal::Journal;
use super::logs::{LogPolicy, rotate};
use super::records::{SlotRecord, Slots};

/// Something for the disk.
#[derive(Debug)]
pub enum Job {
    /// Keep a record; its ticket comes back if there is one.
    Save(SlotId, Box<SlotRecord>, Option<u64>),
    /// Drop a slot's record and these folders.
    Forget(SlotId, Vec<PathBuf>),
    /// Rotate the output in a folder if it has grown.
    Rotate(PathBuf, LogPolicy),
}

/// The thread, from the outside.
pub struct Disk {
    jobs: Sender<Job>,
    done: Receiver<(u64, Result<(), String>)>,
    wake: OwnedFd,
}

impl Disk {
    /// Starts it.
    pub fn spawn(slots: Slots, journal: Journal) -> anyhow::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let waker = wake.try_clone()?;
        let (jobs, todo) = channel();
        let (tell, done) = channel();
        thread::Builder::new()
            .name("guard-disk".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                for job in todo {
                    if let Some(outcome) = work(&slots, &journal, job)
                        && tell.send(outcome).is_ok()
                    {
                        let _ = rustix::io::write(&waker, &1_u64.to_ne_bytes());
                    }
                }
            })
            .context("cannot start the disk thread")?;
        Ok(Self { jobs, done, wake })
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
    pub fn done(&self) -> Vec<(u64, Result<(), String>)> {
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        self.done.try_iter().collect()
    }
}

fn work(slots: &Slots, journal: &Journal, job: Job) -> Option<(u64, Result<(), String>)> {
    match job {
        Job::Save(slot, record, ticket) => {
            let result = slots.save(&slot, &record).map_err(|error| format!("{error:#}"));
            if let Err(error) = &result {
                journal.write(&format!("{slot}: {error}"));
            }
            return ticket.map(|ticket| (ticket, result));
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

fn remove(journal: &Journal, folder: &PathBuf) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        journal.write(&format!("cannot remove {}: {error}", folder.display()));
    }
}

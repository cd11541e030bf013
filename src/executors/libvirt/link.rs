//! A connection to libvirt with a thread of its own: its calls block, and a daemon that hangs holds up that thread
//! and nobody else. What nobody waits for any more is not asked. Knows nothing of domains.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::oneshot;
use virt::connect::Connect;
use virt::error::clear_error_callback;

/// Questions that wait for the thread; further ones are refused.
const MOST_WAITING: usize = 64;

type Job = Box<dyn FnOnce(&mut Option<Connect>) + Send>;

/// Is anybody still waiting for the answer?
pub(super) type Wanted<'a> = &'a dyn Fn() -> bool;

/// The way to one libvirt.
pub(super) struct Link {
    uri: String,
    jobs: Mutex<SyncSender<Job>>,
}

impl Link {
    /// To the libvirt at this address; it is connected when it is asked first, and again whenever it was lost.
    pub(super) fn new(uri: &str) -> Self {
        let (jobs, take) = sync_channel::<Job>(MOST_WAITING);
        let work = move |take: Receiver<Job>| {
            // Errors are told by who asked, not by the library on the terminal.
            clear_error_callback();
            let mut connection = None;
            while let Ok(job) = take.recv() {
                job(&mut connection);
            }
        };
        // Without a thread every question is refused by the closed channel.
        let _ = std::thread::Builder::new().name("quorate-libvirt".to_owned()).spawn(move || work(take));
        Self { uri: uri.to_owned(), jobs: Mutex::new(jobs) }
    }

    /// Asks a question on the thread.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connect, Wanted<'_>) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        let uri = self.uri.clone();
        let job: Job = Box::new(move |kept| {
            if reply.is_closed() {
                return;
            }
            let outcome =
                connected(kept, &uri).and_then(|connection| question(connection, &|| !reply.is_closed()));
            if outcome.is_err() && !kept.as_ref().is_some_and(alive) {
                *kept = None;
            }
            let _ = reply.send(outcome);
        });
        let jobs = self.jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        match jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(format!("{MOST_WAITING} questions wait for libvirt already"));
            }
            Err(TrySendError::Disconnected(_)) => return Err("there is no thread to ask libvirt".to_owned()),
        }
        answer.await.unwrap_or_else(|_| Err("libvirt was not asked".to_owned()))
    }
}

fn connected<'a>(kept: &'a mut Option<Connect>, uri: &str) -> Result<&'a Connect, String> {
    if !kept.as_ref().is_some_and(alive) {
        *kept = None;
    }
    match kept {
        Some(connection) => Ok(connection),
        None => {
            let made = Connect::open(Some(uri)).map_err(|error| error.message().to_owned())?;
            Ok(kept.insert(made))
        }
    }
}

fn alive(connection: &Connect) -> bool {
    connection.is_alive().unwrap_or(false)
}

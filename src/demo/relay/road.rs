//! From one node to a port of another over one segment: the gate where the one knocks, and the connections
//! that came in. Follows what is cut, and whether the other is there at all.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::gate::{Entry, Gate};
use super::links::Fault;
use super::pipe;

/// Connections on one road; who opens more waits for a place.
const MOST: usize = 64;
/// Between two looks at a node that is not there.
const LOOK: Duration = Duration::from_millis(50);
/// Who takes so long to answer is there, but slow.
const SLOW: Duration = Duration::from_secs(1);
/// A gate that cannot be used is tried again after this.
const RETRY: Duration = Duration::from_millis(100);

/// Is a node's process there? Looked at only when there is reason to doubt it, and until it is there.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    there: watch::Sender<bool>,
    doubt: Arc<Notify>,
}

impl Pulse {
    /// Of a node that listens there, or will. Must be made on the relay's runtime; ends with it.
    pub(super) fn of(address: SocketAddr) -> Self {
        let pulse = Self { there: watch::Sender::new(false), doubt: Arc::default() };
        let (there, doubt) = (pulse.there.clone(), pulse.doubt.clone());
        tokio::spawn(async move {
            loop {
                let answer = timeout(SLOW, TcpStream::connect(address)).await;
                let refused =
                    matches!(answer, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused);
                there.send_if_modified(|there| std::mem::replace(there, !refused) == refused);
                if refused {
                    sleep(LOOK).await;
                } else {
                    doubt.notified().await;
                }
            }
        });
        pulse
    }
}

/// One road.
#[derive(Debug)]
pub(super) struct Road {
    /// Where it begins.
    pub gate: Gate,
    /// Where it leads.
    pub target: SocketAddr,
    /// What is wrong there, and back.
    pub ways: [watch::Receiver<Fault>; 2],
    /// Of whom it leads to.
    pub pulse: Pulse,
}

struct Guest {
    task: AbortHandle,
    gone: Arc<AtomicBool>,
}

/// How the dialling node is met. A lost first packet is silence, and so is the lost refusal of a dead host.
/// Where only the way back is cut it does come in, and hears nothing.
fn entry(out: Fault, back: Fault, there: bool) -> Entry {
    match (out.cut, back.cut, there) {
        (true, _, _) | (_, true, false) => Entry::Silent,
        (false, false, false) => Entry::Shut,
        (false, _, true) => Entry::Open,
    }
}

impl Road {
    /// Carries what comes until it is dropped.
    pub(super) async fn serve(mut self) {
        let mut guests: VecDeque<Guest> = VecDeque::new();
        let mut tasks = Vec::new();
        let mut there = self.pulse.there.subscribe();
        loop {
            let [out, back] = &mut self.ways;
            let met = entry(*out.borrow_and_update(), *back.borrow_and_update(), *there.borrow_and_update());
            if let Err(error) = self.gate.set(met) {
                tracing::debug!(%error, "a gate cannot be used");
                sleep(RETRY).await;
                continue;
            }
            tasks.retain(|task: &AbortOnDropHandle<()>| !task.is_finished());
            guests.retain(|guest| !guest.task.is_finished());
            // Behind a cut nobody hears that the other left; whoever left longest ago makes room.
            if guests.len() >= MOST
                && let Some(gone) = guests.iter().position(|guest| guest.gone.load(Ordering::Relaxed))
                && let Some(guest) = guests.remove(gone)
            {
                guest.task.abort();
            }
            let room = guests.len() < MOST;
            tokio::select! {
                changed = out.changed() => if changed.is_err() { return },
                changed = back.changed() => if changed.is_err() { return },
                changed = there.changed() => if changed.is_err() { return },
                came = self.gate.accept(), if room => match came {
                    Ok(stream) => {
                        let (guest, task) = self.carry(stream);
                        guests.push_back(guest);
                        tasks.push(task);
                    }
                    Err(_) => sleep(RETRY).await,
                },
                // A place may be free by then.
                () = sleep(RETRY), if !room => {}
            }
        }
    }

    fn carry(&self, stream: TcpStream) -> (Guest, AbortOnDropHandle<()>) {
        let gone = Arc::new(AtomicBool::new(false));
        let (left, doubt) = (gone.clone(), self.pulse.doubt.clone());
        let carried = pipe::carry(
            stream,
            self.target,
            self.ways.clone(),
            move || left.store(true, Ordering::Relaxed),
            move || doubt.notify_one(),
        );
        let task = tokio::spawn(async move {
            if let Err(error) = carried.await {
                tracing::debug!(%error, "a connection was not carried");
            }
        });
        (Guest { task: task.abort_handle(), gone }, AbortOnDropHandle::new(task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_dials_is_met_as_by_a_real_network() {
        let (clear, cut) = (Fault::default(), Fault { cut: true, ..Fault::default() });
        assert_eq!(entry(clear, clear, true), Entry::Open);
        assert_eq!(entry(clear, clear, false), Entry::Shut, "a dead node's host refuses");
        assert_eq!(entry(cut, clear, true), Entry::Silent);
        assert_eq!(entry(cut, cut, false), Entry::Silent);
        assert_eq!(entry(clear, cut, false), Entry::Silent, "its refusal is lost");
        assert_eq!(entry(clear, cut, true), Entry::Open, "it is heard and hears nothing");
        assert_eq!(entry(Fault { delay_ms: 9, ..clear }, clear, true), Entry::Open);
    }
}

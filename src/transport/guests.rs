//! Whoever connects to a port. A connection that has not shown the secret is a stranger: it has a moment
//! to do so, there are few of them, and the oldest makes room for the next, so that no number of them
//! keeps a member out. A connection that takes in nothing is left. Does not know what is said on one.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// How long a stranger is listened to.
pub const PROBATION: Duration = Duration::from_secs(10);
/// How long a connection may take in nothing of what is written to it.
const STALL: Duration = Duration::from_secs(30);
/// Between two looks when the host has no more descriptors.
const REST: Duration = Duration::from_millis(50);

/// How many may be there at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestLimits {
    /// Those that have not shown the secret.
    pub strangers: usize,
    /// Those that have.
    pub known: usize,
}

impl GuestLimits {
    /// A fair part of the descriptors that this process may have open.
    pub fn of_descriptors(descriptors: usize) -> Self {
        Self { strangers: (descriptors / 16).clamp(16, 256), known: (descriptors / 4).clamp(64, 8_192) }
    }
}

/// Says that a connection belongs to a member. Goes with each of its requests.
#[derive(Debug, Clone)]
pub struct Pass(Arc<Standing>);

#[derive(Debug)]
struct Standing {
    known: AtomicBool,
    count: Arc<AtomicUsize>,
    most: usize,
}

impl Pass {
    fn new(count: &Arc<AtomicUsize>, most: usize) -> Self {
        Self(Arc::new(Standing { known: AtomicBool::new(false), count: count.clone(), most }))
    }

    /// The secret was shown. False when so many members are connected that this one has to wait.
    pub fn prove(&self) -> bool {
        let Standing { known, count, most } = &*self.0;
        if known.swap(true, Ordering::AcqRel) {
            return true;
        }
        let more = |now: usize| (now < *most).then_some(now + 1);
        let admitted = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok();
        if !admitted {
            known.store(false, Ordering::Release);
        }
        admitted
    }

    fn known(&self) -> bool {
        self.0.known.load(Ordering::Acquire)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if *self.known.get_mut() {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The connections of one port, as they come.
pub struct Guests {
    listener: TcpListener,
    limits: GuestLimits,
    known: Arc<AtomicUsize>,
    strangers: VecDeque<(Weak<Standing>, oneshot::Sender<()>)>,
    patience: Patience,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    probation: Duration,
    stall: Duration,
}

impl Guests {
    /// Those who connect to `listener`.
    pub fn new(listener: TcpListener, limits: GuestLimits) -> Self {
        let patience = Patience { probation: PROBATION, stall: STALL };
        Self { listener, limits, known: Arc::default(), strangers: VecDeque::new(), patience }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// The next one. A host that is short of descriptors is waited for. Dropping the future loses nobody.
    pub async fn next(&mut self) -> Guest {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return self.welcome(stream),
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be taken");
                    // One that left again says nothing of the next.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        sleep(REST).await;
                    }
                }
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream) -> Guest {
        // Answers are small and somebody waits for each; a broken stream shows when it is read.
        let _ = stream.set_nodelay(true);
        let pass = Pass::new(&self.known, self.limits.known);
        let (send_away, sent_away) = oneshot::channel();
        self.strangers.retain(|(one, _)| one.upgrade().is_some_and(|one| !one.known.load(Ordering::Acquire)));
        while self.strangers.len() >= self.limits.strangers {
            // Its stream sees that the sender is gone.
            self.strangers.pop_front();
            tracing::debug!("a connection without the secret makes room for another");
        }
        self.strangers.push_back((Arc::downgrade(&pass.0), send_away));
        let probation = Some(Probation { until: Box::pin(sleep(self.patience.probation)), sent_away });
        Guest { stream, pass, probation, stall: None, patience: self.patience.stall }
    }
}

struct Probation {
    until: Pin<Box<Sleep>>,
    sent_away: oneshot::Receiver<()>,
}

/// One connection.
pub struct Guest {
    stream: TcpStream,
    pass: Pass,
    probation: Option<Probation>,
    stall: Option<Pin<Box<Sleep>>>,
    patience: Duration,
}

impl Connected for Guest {
    type ConnectInfo = Pass;

    fn connect_info(&self) -> Pass {
        self.pass.clone()
    }
}

impl Guest {
    /// May it stay? Wakes the connection when the answer changes.
    fn may_stay(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(probation) = &mut self.probation else { return Ok(()) };
        if self.pass.known() {
            self.probation = None;
            return Ok(());
        }
        // The sender is dropped for members too, but those were told apart above.
        if Pin::new(&mut probation.sent_away).poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "others wait"));
        }
        if probation.until.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the secret was not shown in time"));
        }
        Ok(())
    }

    /// Passes on what a write came to, unless nothing was taken in for too long.
    fn written<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stall = None;
            return outcome;
        }
        let patience = self.patience;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end takes in nothing")))
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.may_stay(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.may_stay(context)?;
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.may_stay(context)?;
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn guests(strangers: usize, known: usize) -> (Guests, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guests = Guests::new(listener, GuestLimits { strangers, known });
        let address = guests.local_addr().unwrap();
        (guests, address)
    }

    #[tokio::test]
    async fn the_oldest_stranger_makes_room_and_a_member_does_not() {
        let (mut guests, address) = guests(2, 8).await;
        let mut far = Vec::new();
        let mut near = Vec::new();
        for _ in 0..4 {
            far.push(TcpStream::connect(address).await.unwrap());
            near.push(guests.next().await);
            // The first is a member from the start.
            assert!(near[0].pass.prove());
        }
        let mut byte = [0];
        let error = near[1].read(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        for at in [0, 2, 3] {
            far[at].write_all(b"x").await.unwrap();
            assert_eq!(near[at].read(&mut byte).await.unwrap(), 1, "{at}");
        }
    }

    #[tokio::test]
    async fn members_are_counted_and_their_places_are_given_back() {
        let (mut guests, address) = guests(4, 1).await;
        let mut far = Vec::new();
        let mut near = Vec::new();
        for _ in 0..2 {
            far.push(TcpStream::connect(address).await.unwrap());
            near.push(guests.next().await);
        }
        assert!(near[0].pass.prove() && near[0].pass.prove());
        assert!(!near[1].pass.prove());
        near.remove(0);
        assert!(near[0].pass.prove());
    }

    #[tokio::test]
    async fn a_stranger_is_hung_up_on_in_time_and_a_member_that_reads_nothing_too() {
        let (mut guests, address) = guests(4, 4).await;
        let short = Duration::from_millis(100);
        guests.patience = Patience { probation: short, stall: short };
        let _far = TcpStream::connect(address).await.unwrap();
        let mut near = guests.next().await;
        let error = near.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let _far = TcpStream::connect(address).await.unwrap();
        let mut near = guests.next().await;
        assert!(near.pass.prove());
        let flood = vec![0; 64 * 1024 * 1024];
        let error = near.write_all(&flood).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

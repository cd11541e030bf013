//! The segments between this node and its peers: which are known to be broken, and what travels on which. A
//! connection on a segment that breaks is ended at once instead of being waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use quorate_core::ids::{Endpoint, Segment};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::dial::Lane;

/// What is known of all ways.
#[derive(Default)]
pub(super) struct Roads {
    broken: BTreeSet<(u64, Segment)>,
    travelling: BTreeMap<(u64, Lane), Travel>,
}

/// The connection of a lane.
struct Travel {
    segment: Segment,
    end: CancellationToken,
    /// Somebody waited in vain on it: others are tried first next time.
    doubted: bool,
}

impl Roads {
    /// The ways to a peer for a lane, best first.
    pub fn order(&self, peer: u64, lane: Option<Lane>, endpoints: &[Endpoint]) -> Vec<Endpoint> {
        let travel = lane.and_then(|lane| self.travelling.get(&(peer, lane)));
        let mut ordered = endpoints.to_vec();
        ordered.sort_by_key(|endpoint| {
            let broken = self.broken.contains(&(peer, endpoint.segment.clone()));
            let doubted = travel.is_some_and(|travel| travel.doubted && travel.segment == endpoint.segment);
            (broken, doubted)
        });
        ordered
    }

    /// A lane has a new connection.
    pub fn travels(&mut self, peer: u64, lane: Lane, segment: Segment) -> CancellationToken {
        let end = CancellationToken::new();
        self.travelling.insert((peer, lane), Travel { segment, end: end.clone(), doubted: false });
        end
    }

    /// A lane was left because nothing came back on it.
    pub fn doubt(&mut self, peer: u64, lane: Lane) {
        if let Some(travel) = self.travelling.get_mut(&(peer, lane)) {
            travel.doubted = true;
        }
    }

    /// A segment does not work any more. Everything on it is ended if `leave` says that another does.
    pub fn broke(&mut self, peer: u64, segment: &Segment, leave: bool) {
        self.broken.insert((peer, segment.clone()));
        if leave {
            self.leave_broken(peer);
        }
    }

    /// A segment works again: whatever still waits on a broken one is ended for it.
    pub fn mended(&mut self, peer: u64, segment: &Segment) {
        self.broken.remove(&(peer, segment.clone()));
        self.leave_broken(peer);
    }

    fn leave_broken(&self, peer: u64) {
        for ((id, lane), Travel { segment, end, .. }) in &self.travelling {
            if *id == peer && self.broken.contains(&(peer, segment.clone())) && !end.is_cancelled() {
                tracing::info!(peer, %segment, ?lane, "the segment is broken: another is taken");
                end.cancel();
            }
        }
    }

    /// Which segment a lane travels on.
    pub fn segment(&self, peer: u64, lane: Lane) -> Option<Segment> {
        self.travelling.get(&(peer, lane)).map(|travel| travel.segment.clone())
    }

    pub fn forget(&mut self, peer: u64) {
        self.broken.retain(|(id, _)| *id != peer);
        self.travelling.retain(|(id, _), _| *id != peer);
    }
}

/// A connection that can be ended from elsewhere.
pub(super) struct Socket {
    stream: TcpStream,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl Socket {
    pub fn new(stream: TcpStream, end: CancellationToken) -> Self {
        Self { stream, ended: Box::pin(end.cancelled_owned()), over: false }
    }

    /// Whoever reads is woken by the end too.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.over = self.over || self.ended.as_mut().poll(context).is_ready();
        if self.over {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "its segment is broken"));
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.over {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.over {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Vec<Endpoint> {
        let at = |name: &str| Endpoint { segment: segment(name), host: "h".to_owned(), port: 1 };
        vec![at("a"), at("b"), at("c")]
    }

    fn segment(name: &str) -> Segment {
        Segment::new(name).unwrap()
    }

    fn order(roads: &Roads) -> Vec<String> {
        let ordered = roads.order(7, Some(Lane::Raft), &endpoints());
        ordered.iter().map(|endpoint| endpoint.segment.to_string()).collect()
    }

    #[test]
    fn broken_segments_come_last_and_those_waited_on_in_vain_after_the_others() {
        let mut roads = Roads::default();
        assert_eq!(order(&roads), ["a", "b", "c"]);
        let end = roads.travels(7, Lane::Raft, segment("a"));
        roads.doubt(7, Lane::Raft);
        assert_eq!(order(&roads), ["b", "c", "a"]);
        assert!(!end.is_cancelled(), "a doubt ends nothing");
        roads.broke(7, &segment("b"), true);
        assert_eq!(order(&roads), ["c", "a", "b"]);
        roads.travels(7, Lane::Raft, segment("c"));
        roads.mended(7, &segment("b"));
        assert_eq!(order(&roads), ["a", "b", "c"]);
    }

    #[test]
    fn a_broken_segment_ends_what_travels_on_it_once_another_works() {
        let mut roads = Roads::default();
        let (a, b) =
            (roads.travels(7, Lane::Raft, segment("a")), roads.travels(7, Lane::Heartbeat, segment("b")));
        let other = roads.travels(8, Lane::Raft, segment("a"));
        roads.broke(7, &segment("a"), true);
        assert!(a.is_cancelled() && !b.is_cancelled() && !other.is_cancelled());
        roads.broke(7, &segment("b"), false);
        assert!(!b.is_cancelled(), "there is no other way left");
        roads.mended(7, &segment("c"));
        assert!(b.is_cancelled());
    }

    #[tokio::test]
    async fn a_connection_that_is_ended_fails_its_reader_at_once() {
        use tokio::io::AsyncReadExt;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_far, _) = listener.accept().await.unwrap();
        let end = CancellationToken::new();
        let mut socket = Socket::new(stream, end.clone());
        let reading = tokio::spawn(async move { socket.read_u8().await });
        tokio::task::yield_now().await;
        end.cancel();
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}

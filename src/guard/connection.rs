//! One connection to the guard: bytes in and out without ever waiting. Does not know what is asked.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::bail;
use quorate_core::ids::NodeId;
use quorate_core::units::BootMs;
use rustix::event::PollFlags;

use super::protocol::{MAX_FRAME, next_frame};

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Has to say hello by then.
    Stranger {
        /// When it is hung up on.
        until: BootMs,
    },
    /// The node.
    Node(NodeId),
    /// The second holder of the deadlines.
    Twin,
    /// Told off; closed once that is sent.
    Leaving,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// Never used twice.
    pub number: u64,
    /// Who is at the other end.
    pub peer: Peer,
    /// Its process.
    pub pid: u32,
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Connection {
    /// Of a stream that was just accepted.
    pub fn new(number: u64, stream: UnixStream, pid: u32, until: BootMs) -> std::io::Result<Self> {
        Self::with(number, stream, pid, Peer::Stranger { until })
    }

    /// Of a stream whose other end is known.
    pub fn with(number: u64, stream: UnixStream, pid: u32, peer: Peer) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { number, peer, pid, stream, incoming: Vec::new(), outgoing: Vec::new() })
    }

    /// For polling.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// What to wait for.
    pub fn interest(&self) -> PollFlags {
        if self.outgoing.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// Takes what came; the bodies of whole frames. An error ends the connection.
    pub fn receive(&mut self) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut chunk = [0_u8; 16 * 1024];
        let mut frames = Vec::new();
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("closed by the other end"),
                Ok(count) => {
                    self.incoming.extend_from_slice(&chunk[..count]);
                    while let Some(frame) = next_frame(&mut self.incoming)? {
                        frames.push(frame);
                    }
                    // A stranger says one short thing.
                    if matches!(self.peer, Peer::Stranger { .. }) && self.incoming.len() > 256 {
                        bail!("no hello came");
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(frames),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Queues a frame.
    pub fn send(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        if self.outgoing.len() > 2 * MAX_FRAME {
            bail!("does not read what it asked for");
        }
        self.outgoing.extend_from_slice(frame);
        self.flush()
    }

    /// Writes what fits now.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.peer == Peer::Leaving {
            bail!("told off");
        }
        Ok(())
    }
}

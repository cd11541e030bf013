//! The listening end of a road: open, silent as a network that loses everything, or shut as a host on which
//! nobody listens. Silence needs no root: a full queue makes the kernel drop who knocks, without a word.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, bind, connect, getsockname, listen, shutdown,
    socket_with,
};
use tokio::net::{TcpListener, TcpStream};

/// Who knocks faster than the relay answers waits, and is not sent away.
const BACKLOG: i32 = 128;
/// The shortest queue that the kernel does not take for a flood.
const SHORTEST: i32 = 1;

/// How those who knock are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// They come in.
    Open,
    /// They hear nothing, as when their packets or the answers are lost.
    Silent,
    /// They are refused, as by a host on which nobody listens.
    Shut,
}

/// A port and how those are met who knock there. Nobody else can take the port, whatever the state.
#[derive(Debug)]
pub(super) struct Gate {
    socket: OwnedFd,
    /// Where it is reached.
    pub address: SocketAddr,
    entry: Entry,
    /// While it is open. A runtime that once saw a socket shut never sees it open again, so it is a new one
    /// each time.
    listener: Option<TcpListener>,
    /// Connections of our own that fill its queue.
    fillers: Vec<OwnedFd>,
    /// From where those came that are in the queue.
    own: Vec<SocketAddr>,
}

fn tcp(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags | SocketFlags::CLOEXEC, None)?)
}

fn name_of(socket: &OwnedFd) -> io::Result<SocketAddr> {
    Ok(SocketAddr::V4(SocketAddrV4::try_from(getsockname(socket)?)?))
}

impl Gate {
    /// A port of loopback; shut.
    pub(super) fn new(port: u16) -> io::Result<Self> {
        // Asked for by its number and without SO_REUSEADDR, it is ours also while nobody listens there.
        let socket = tcp(SocketFlags::NONBLOCK)?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        bind(&socket, &address).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot take {address} for a road of the demo: {error}"))
        })?;
        let address = address.into();
        Ok(Self { socket, address, entry: Entry::Shut, listener: None, fillers: Vec::new(), own: Vec::new() })
    }

    /// From now on those who knock are met so. To be called on the runtime that will take them in.
    pub(super) fn set(&mut self, entry: Entry) -> io::Result<()> {
        if entry == self.entry {
            return Ok(());
        }
        self.listener = None;
        // Those who came in earlier are on this port too. While it is shut it is not to be shared, though.
        set_socket_reuseaddr(&self.socket, entry != Entry::Shut)?;
        match entry {
            Entry::Open => {
                listen(&self.socket, BACKLOG)?;
                self.listener = Some(TcpListener::from_std(self.socket.try_clone()?.into())?);
            }
            Entry::Silent => {
                listen(&self.socket, SHORTEST)?;
                self.fill()?;
            }
            Entry::Shut => shutdown(&self.socket, Shutdown::Read)?,
        }
        if entry != Entry::Silent {
            self.fillers.clear();
        }
        self.entry = entry;
        Ok(())
    }

    /// Fills the queue, so that nobody else gets in.
    fn fill(&mut self) -> io::Result<()> {
        self.own.clear();
        for _ in 0..=SHORTEST {
            let filler = tcp(SocketFlags::NONBLOCK)?;
            match connect(&filler, &self.address) {
                Ok(()) | Err(Errno::INPROGRESS) => self.own.push(name_of(&filler)?),
                Err(error) => return Err(error.into()),
            }
            self.fillers.push(filler);
        }
        Ok(())
    }

    /// The next who comes in; only while it is open.
    pub(super) async fn accept(&mut self) -> io::Result<TcpStream> {
        let Some(listener) = &self.listener else { return std::future::pending().await };
        loop {
            let (stream, from) = listener.accept().await?;
            match self.own.iter().position(|own| *own == from) {
                Some(own) => drop(self.own.swap_remove(own)),
                None => return Ok(stream),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_gate_is_open_silent_or_shut_and_may_change_at_any_time() {
        let mut gate = Gate::new(crate::host::free_ports(1).unwrap()[0]).unwrap();
        let address = gate.address;
        let knock = || TcpStream::connect(address);
        let refused = async || knock().await.unwrap_err().kind() == io::ErrorKind::ConnectionRefused;
        assert!(refused().await, "it begins shut");
        gate.set(Entry::Open).unwrap();
        let (came, went) = tokio::join!(gate.accept(), knock());
        assert_eq!(came.unwrap().peer_addr().unwrap(), went.unwrap().local_addr().unwrap());

        gate.set(Entry::Silent).unwrap();
        for _ in 0..5 {
            assert!(timeout(SHORT, knock()).await.is_err(), "no answer at all, not even a refusal");
        }
        let waiting = tokio::spawn(TcpStream::connect(address));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        gate.set(Entry::Open).unwrap();
        let came = timeout(LONG, gate.accept()).await.expect("who waits comes in once it is open").unwrap();
        let went = waiting.await.unwrap().unwrap();
        assert_eq!(came.peer_addr().unwrap(), went.local_addr().unwrap());
        let (came, _went) = tokio::join!(gate.accept(), knock());
        came.unwrap();

        for _ in 0..3 {
            gate.set(Entry::Silent).unwrap();
            assert!(timeout(SHORT, knock()).await.is_err());
            gate.set(Entry::Shut).unwrap();
            assert!(refused().await);
        }
        gate.set(Entry::Open).unwrap();
        let (came, _went) = tokio::join!(gate.accept(), knock());
        came.unwrap();
    }

    #[tokio::test]
    async fn a_shut_port_is_nobody_elses() {
        let mut gate = Gate::new(crate::host::free_ports(1).unwrap()[0]).unwrap();
        let address = gate.address;
        assert!(std::net::TcpListener::bind(address).is_err());
        gate.set(Entry::Open).unwrap();
        gate.set(Entry::Shut).unwrap();
        assert!(std::net::TcpListener::bind(address).is_err());
    }
}

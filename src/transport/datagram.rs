//! Datagrams between nodes, sealed with the cluster's secret. They need no answer, so they show which direction of
//! a way is open where a connection shows only that one is not. Whatever is lost is lost; does not know what they say.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quorate_core::ids::Endpoint;
use tokio::net::UdpSocket;

use super::detours::Detours;
use super::seal::SEAL_BYTES;
use super::secret::Secret;

/// Larger ones are not sent, and cut off where they come in: this fits every network unbroken.
pub const MAX_DATAGRAM: usize = 1_200;

/// A socket for datagrams. Clones share it.
#[derive(Clone)]
pub struct Datagrams {
    socket: Arc<UdpSocket>,
    secret: Secret,
    detours: Detours,
}

impl Datagrams {
    /// On this address. Must be called on the runtime that will use it.
    pub fn bind(address: SocketAddr, secret: Secret, detours: Detours) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Arc::new(UdpSocket::from_std(socket)?), secret, detours })
    }

    /// Where datagrams to an endpoint go; asks for its name where it has one.
    pub async fn resolve(&self, endpoint: &Endpoint) -> io::Result<SocketAddr> {
        // A socket that was just made does not know yet that it has room.
        self.socket.writable().await?;
        let mut found = tokio::net::lookup_host(self.detours.of_endpoint(endpoint)).await?;
        let own = self.socket.local_addr()?;
        found.find(|address| address.is_ipv4() == own.is_ipv4()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{endpoint} has no such address"))
        })
    }

    /// Sends one, unless the host has no room for it just now.
    pub fn send(&self, to: SocketAddr, body: &[u8]) -> io::Result<()> {
        let mut sealed = self.secret.seal(body).to_vec();
        sealed.extend_from_slice(body);
        if sealed.len() > MAX_DATAGRAM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a datagram is too large"));
        }
        self.socket.try_send_to(&sealed, to).map(|_| ())
    }

    /// The next one whose seal is right.
    pub async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; MAX_DATAGRAM];
        loop {
            let (length, _) = self.socket.recv_from(&mut buffer).await?;
            if let Some((seal, body)) = buffer[..length].split_at_checked(SEAL_BYTES)
                && self.secret.sealed(body, seal)
            {
                return Ok(body.to_vec());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_core::ids::Segment;

    use super::*;

    async fn socket(secret: &str) -> (Datagrams, Endpoint) {
        let secret = Secret::new(secret).unwrap();
        let datagrams = Datagrams::bind("127.0.0.1:0".parse().unwrap(), secret, Detours::default()).unwrap();
        let port = datagrams.socket.local_addr().unwrap().port();
        let endpoint = Endpoint { segment: Segment::new("a").unwrap(), host: "127.0.0.1".to_owned(), port };
        (datagrams, endpoint)
    }

    #[tokio::test]
    async fn only_what_the_secret_sealed_comes_in() {
        let (near, at) = socket("a-secret-of-some-length").await;
        let (stranger, _) = socket("another-secret-altogether").await;
        let (friend, _) = socket("a-secret-of-some-length").await;
        let to = stranger.resolve(&at).await.unwrap();
        assert_eq!(friend.resolve(&at).await.unwrap(), to);
        stranger.send(to, b"from a stranger").unwrap();
        friend.socket.send_to(b"short", to).await.unwrap();
        friend.send(to, b"from a friend").unwrap();
        let first = tokio::time::timeout(Duration::from_secs(10), near.receive()).await.unwrap().unwrap();
        assert_eq!(first, b"from a friend");
        assert!(friend.send(to, &[0; MAX_DATAGRAM]).is_err());
    }
}

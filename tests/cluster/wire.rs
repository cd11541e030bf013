//! Bytes that no well-behaved client sends: connections that say nothing, too little or nonsense, and
//! calls without a generated client.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// What opens HTTP/2, with empty settings.
pub const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A message of bytes, as both internal protocols frame theirs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Packet {
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
}

pub fn connect(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()
}

/// Everything that came until the other end hung up; fails if it does not within `within`. Whenever nothing
/// comes for a moment `drip` is sent.
#[track_caller]
pub fn hung_up(mut stream: TcpStream, what: &str, drip: &[u8], within: Duration) -> Vec<u8> {
    let deadline = Instant::now() + within;
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let (mut came, mut piece) = (Vec::new(), [0; 4096]);
    while Instant::now() < deadline {
        match stream.read(&mut piece) {
            Ok(0) => return came,
            Ok(count) => came.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stream.write_all(drip).is_err() {
                    return came;
                }
            }
            Err(_) => return came,
        }
    }
    panic!("not hung up on within {within:?}: {what}; {} bytes came", came.len());
}

/// The start of a call with these headers, whose body never comes.
pub fn headers(path: &str, secret: &str) -> Vec<u8> {
    let bearer = format!("Bearer {secret}");
    let mut block = Vec::new();
    let all = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", &bearer),
    ];
    for (name, value) in all {
        // A literal with a new name, not to be remembered.
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    let mut frame = HELLO.to_vec();
    frame.extend_from_slice(&(block.len() as u32).to_be_bytes()[1..]);
    // Headers, all of them; the stream stays open.
    frame.extend_from_slice(&[1, 4, 0, 0, 0, 1]);
    frame.extend_from_slice(&block);
    frame
}

/// Calls on one connection, with a secret or without.
pub struct Caller {
    grpc: tonic::client::Grpc<Channel>,
    secret: Option<String>,
}

impl Caller {
    pub async fn to(port: u16, secret: Option<&str>) -> Self {
        let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
        let grpc = tonic::client::Grpc::new(channel.connect().await.unwrap())
            .max_encoding_message_size(usize::MAX)
            .max_decoding_message_size(usize::MAX);
        Self { grpc, secret: secret.map(str::to_owned) }
    }

    /// One call of any kind.
    pub async fn call<Q, A>(
        &mut self,
        path: &'static str,
        asks: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<tonic::Streaming<A>, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(asks);
        if let Some(secret) = &self.secret {
            let value: MetadataValue<_> = format!("Bearer {secret}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        self.grpc.streaming(request, path, codec).await.map(tonic::Response::into_inner)
    }

    /// One question and its first answer.
    pub async fn ask<Q, A>(&mut self, path: &'static str, ask: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut answers = self.call(path, futures::stream::iter([ask])).await?;
        answers.message().await?.ok_or_else(|| Status::not_found("no answer came"))
    }
}

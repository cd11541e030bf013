//! The transport's own promises: who may speak, and which way messages take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate::ports::{PeerCall, PeerError, PeerNet};
use quorate::transport::{Dialer, Secret};
use quorate_core::ids::ClusterId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::cluster::{Cluster, SECRET, endpoint};

const WITHIN: Duration = Duration::from_secs(10);

fn ask(cluster: &Cluster, as_cluster: &str, secret: &str, to: u64) -> Vec<Result<Bytes, PeerError>> {
    let secret = Secret::new(secret).unwrap();
    let dialer = Dialer::new(ClusterId(as_cluster.to_owned()), 7, secret, Duration::from_secs(5));
    let endpoints = cluster.nodes[&1].endpoints();
    cluster.runtime.block_on(async {
        let link = dialer.link(to, &endpoints);
        let body = || Bytes::from_static(b"\x01");
        vec![
            link.call(PeerCall::Confirm, body(), WITHIN).await,
            link.append(body(), WITHIN).await,
            link.snapshot(body(), body(), WITHIN).await,
        ]
    })
}

fn all_refused(answers: &[Result<Bytes, PeerError>], why: &str) {
    for answer in answers {
        match answer {
            Err(PeerError::Refused { reason, .. }) => assert!(reason.contains(why), "{reason}"),
            other => panic!("expected a refusal because {why}: {other:?}"),
        }
    }
}

#[test]
fn a_wrong_secret_another_cluster_and_another_node_are_refused() {
    let cluster = Cluster::of(1);
    assert!(ask(&cluster, "test", SECRET, 1)[0].is_ok());
    all_refused(&ask(&cluster, "test", "another-secret-altogether", 1), "the cluster secret is wrong");
    all_refused(&ask(&cluster, "other", SECRET, 1), "this is cluster test");
    all_refused(&ask(&cluster, "test", SECRET, 2), "this is node 1");
}

#[test]
fn unreadable_messages_are_refused_and_harm_nothing() {
    let cluster = Cluster::of(1);
    let answers = ask(&cluster, "test", SECRET, 1);
    all_refused(&answers[1..], "cannot be read");
    cluster.write("still works");
}

#[test]
fn calls_without_a_secret_are_refused() {
    let cluster = Cluster::of(1);
    let address = cluster.nodes[&1].address;
    let status = cluster.runtime.block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/quorate.internal.v1.Peer/Call");
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        client.unary(tonic::Request::new(()), path, codec).await.unwrap_err()
    });
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
}

/// Passes bytes on until it is told to swallow them.
async fn relay(to: SocketAddr, frozen: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(pump(near_in, far_out, frozen.clone()));
            tokio::spawn(pump(far_in, near_out, frozen.clone()));
        }
    });
    address
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, frozen: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !frozen.load(Ordering::Relaxed) && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[test]
fn a_connection_that_goes_silent_is_left_for_one_that_answers() {
    let cluster = Cluster::of(1);
    let frozen = Arc::new(AtomicBool::new(false));
    let front = cluster.runtime.block_on(relay(cluster.nodes[&1].address, frozen.clone()));
    let (front, back) = (endpoint("front", front), endpoint("back", cluster.nodes[&1].address));
    let silence = Duration::from_millis(300);
    let dialer = Dialer::new(ClusterId("test".to_owned()), 7, Secret::new(SECRET).unwrap(), silence);
    cluster.runtime.block_on(async {
        let link = dialer.link(1, &[front, back]);
        let ask = || link.call(PeerCall::Confirm, Bytes::from_static(b"\x01"), silence);
        // An unreadable append is answered too: enough to see that the stream works.
        let append = || link.append(Bytes::from_static(b"\x01"), WITHIN);
        let answered = async { while ask().await.is_err() {} };
        tokio::time::timeout(WITHIN, answered).await.expect("it answers");
        assert!(matches!(append().await, Err(PeerError::Refused { .. })));
        frozen.store(true, Ordering::Relaxed);
        let answer = append().await;
        let lost = matches!(answer, Err(PeerError::TimedOut { .. } | PeerError::Unreachable { .. }));
        assert!(lost, "{answer:?}");
        tokio::time::timeout(WITHIN, async {
            while ask().await.is_err() {}
            while !matches!(append().await, Err(PeerError::Refused { .. })) {}
        })
        .await
        .expect("the other address is taken without being told");
    });
}

#[test]
fn an_address_that_does_not_answer_delays_the_next_one_only_a_little() {
    let cluster = Cluster::of(1);
    // A full backlog drops further connection requests, as a dead segment does.
    let stuck = cluster.runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(1).unwrap()
    });
    let address = stuck.local_addr().unwrap();
    let fill: Vec<_> = (0..8)
        .map(|_| {
            cluster.runtime.block_on(tokio_timeout(Duration::from_millis(50), TcpStream::connect(address)))
        })
        .collect();
    assert!(fill.iter().any(Option::is_none), "the backlog never filled");
    let endpoints = [endpoint("dead", address), endpoint("alive", cluster.nodes[&1].address)];
    let dialer =
        Dialer::new(ClusterId("test".to_owned()), 7, Secret::new(SECRET).unwrap(), Duration::from_secs(5));
    let answer = cluster.runtime.block_on(async {
        dialer.link(1, &endpoints).call(PeerCall::Confirm, Bytes::from_static(b"\x01"), WITHIN).await
    });
    assert!(answer.is_ok(), "{answer:?}");
}

async fn tokio_timeout(
    within: Duration,
    connecting: impl Future<Output = std::io::Result<TcpStream>>,
) -> Option<TcpStream> {
    tokio::time::timeout(within, connecting).await.ok().and_then(Result::ok)
}

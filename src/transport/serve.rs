//! A gRPC server on one port, every call of which needs the cluster secret. What it serves is put
//! together by whoever starts it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;

use super::guests::{Guest, GuestLimits, Guests};
use super::secret::SecretLayer;

/// Calls at once on one connection.
const CALLS: u32 = 1024;
/// All headers of one call.
const MAX_HEADERS: u32 = 16 * 1024;

/// How a port is served.
#[derive(Debug, Clone, Copy)]
pub struct Serving {
    /// Connections at once.
    pub guests: GuestLimits,
    /// How long a call may take to be answered, from its headers; an answer that is a stream may go on.
    pub answer_within: Duration,
}

/// Listens on `address`, with an error that names it.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; is another node running there?"))
}

/// Serves `routes` on `listener` to those who carry the secret, until `end`. Streams that are open
/// then are not waited for: let the runtime it runs on end, or drop this future.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    secret: SecretLayer,
    serving: Serving,
    end: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let guests = Guests::new(listener, serving.guests);
    let incoming = futures::stream::unfold(guests, |mut guests| async {
        let guest = guests.next().await;
        Some((Ok::<Guest, Infallible>(guest), guests))
    });
    let server = Server::builder()
        .layer(secret)
        .timeout(serving.answer_within)
        .http2_max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(CALLS)
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_routes(routes)
        .serve_with_incoming(incoming);
    tokio::select! {
        served = server => served.context("the server failed"),
        () = end => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use tonic::transport::Endpoint;
    use tonic::{Code, Request};
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

    use super::super::{Secret, WithSecret};
    use super::*;

    #[tokio::test]
    async fn a_call_whose_request_never_comes_is_answered_in_time() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let secret = Secret::new("a-secret-of-this-test").unwrap();
        let (_reporter, health) = tonic_health::server::health_reporter();
        let serving = Serving {
            guests: GuestLimits { strangers: 4, known: 4 },
            answer_within: Duration::from_millis(200),
        };
        let layer = SecretLayer::new(secret.clone());
        tokio::spawn(serve(listener, Routes::new(health), layer, serving, std::future::pending()));
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let with_secret =
            tonic::service::interceptor::InterceptedService::new(channel, WithSecret::new(secret));
        let mut client = tonic::client::Grpc::new(with_secret);
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let never = Request::new(futures::stream::pending());
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let answer =
            tokio::time::timeout(Duration::from_secs(20), client.client_streaming(never, path, codec));
        let status = answer.await.expect("an answer in time").unwrap_err();
        assert_eq!(status.code(), Code::Cancelled, "{status}");
    }
}

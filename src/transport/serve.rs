//! A gRPC server on one port, every call of which needs the cluster secret. What it serves is put
//! together by whoever starts it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;

use super::secret::SecretLayer;

/// Calls at once on one connection.
const CALLS: u32 = 1024;

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
    end: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let server = Server::builder()
        .layer(secret)
        .tcp_nodelay(true)
        .max_concurrent_streams(CALLS)
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_routes(routes)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::select! {
        served = server => served.context("the server failed"),
        () = end => Ok(()),
    }
}

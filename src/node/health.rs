//! Health over HTTP, for load balancers and orchestrators: no secret is needed and nothing is told but
//! whether the process lives and whether it can be used.

use std::future::Future;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use super::inner::Inner;
use super::propose::quorum_words;

/// Serves `/healthz` and `/readyz` until `end`.
pub(super) async fn serve(
    listener: TcpListener,
    inner: Arc<Inner>,
    end: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let routes =
        Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(inner);
    axum::serve(listener, routes).with_graceful_shutdown(end).await.context("the HTTP server failed")
}

async fn healthz(State(inner): State<Arc<Inner>>) -> (StatusCode, String) {
    match inner.status.borrow().stopped.clone() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("raft has stopped: {why}\n")),
    }
}

/// Ready: admitted, and a lease held, which takes a quorum.
async fn readyz(State(inner): State<Arc<Inner>>) -> (StatusCode, String) {
    let now = inner.now();
    if inner.lease().is_some_and(|lease| lease.live(now)) {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("no lease: {}\n", quorum_words(&inner)))
    }
}

//! Health over HTTP and as the standard gRPC service, for load balancers and orchestrators: no secret is
//! needed and nothing is told but whether the process lives and whether it can be used.

use std::future::Future;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use axum::serve::Listener;
use tokio::net::TcpListener;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::inner::Inner;
use super::propose::quorum_words;
use crate::transport::{Guest, GuestLimits, Guests};

/// An answer ends its connection: who asks for health comes, asks once and goes.
type Told = (StatusCode, [(HeaderName, &'static str); 1], String);

/// Nobody shows a secret here, so nobody stays for long or keeps others out.
struct Door(Guests);

impl Listener for Door {
    type Io = Guest;
    type Addr = ();

    async fn accept(&mut self) -> (Guest, ()) {
        (self.0.next().await, ())
    }

    fn local_addr(&self) -> std::io::Result<()> {
        self.0.local_addr().map(drop)
    }
}

fn told(status: StatusCode, words: String) -> Told {
    (status, [(header::CONNECTION, "close")], words)
}

/// Serves `/healthz` and `/readyz` until `end`.
pub(super) async fn serve(
    listener: TcpListener,
    inner: Arc<Inner>,
    guests: GuestLimits,
    end: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let routes =
        Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(inner);
    let door = Door(Guests::new(listener, guests));
    axum::serve(door, routes).with_graceful_shutdown(end).await.context("the HTTP server failed")
}

async fn healthz(State(inner): State<Arc<Inner>>) -> Told {
    match inner.status.borrow().stopped.clone() {
        None => told(StatusCode::OK, "ok\n".to_owned()),
        Some(why) => told(StatusCode::SERVICE_UNAVAILABLE, format!("raft has stopped: {why}\n")),
    }
}

/// Ready: admitted, and a lease held, which takes a quorum.
async fn readyz(State(inner): State<Arc<Inner>>) -> Told {
    let now = inner.now();
    if inner.lease().is_some_and(|lease| lease.live(now)) {
        told(StatusCode::OK, "ready\n".to_owned())
    } else {
        told(StatusCode::SERVICE_UNAVAILABLE, format!("no lease: {}\n", quorum_words(&inner)))
    }
}

/// Keeps the standard health service true: the node serves until it ends or Raft has stopped.
pub(super) async fn report(inner: Arc<Inner>, reporter: HealthReporter, services: Vec<&'static str>) {
    let (mut status, mut stopping) = (inner.status.clone(), inner.stopping.subscribe());
    let mut told = None;
    loop {
        let ended = *stopping.borrow_and_update();
        let serves = !ended && status.borrow_and_update().stopped.is_none();
        let word = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        if told.replace(serves) != Some(serves) {
            for service in std::iter::once(&"").chain(&services) {
                reporter.set_service_status(*service, word).await;
            }
        }
        let changed = tokio::select! {
            changed = status.changed() => changed.is_ok(),
            changed = stopping.changed() => changed.is_ok(),
        };
        if ended || !changed {
            return;
        }
    }
}

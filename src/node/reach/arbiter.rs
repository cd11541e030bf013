//! Probes of an arbiter: does its host answer a connection? A refusal is an answer too.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::config::Arbiter;
use quorate_core::reach::LinkFault;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::super::inner::{Inner, hold};

/// Between two probes.
const EVERY: Duration = Duration::from_secs(1);
/// A probe that takes longer is lost.
const WITHIN: Duration = Duration::from_millis(800);

/// Probes until the node ends.
pub(super) async fn run(inner: Arc<Inner>, arbiter: Arbiter) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let address = arbiter.tcp.to_string();
    while !*inner.stopping.borrow() {
        every.tick().await;
        let began = Instant::now();
        let outcome = match timeout(WITHIN, TcpStream::connect(&address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            Ok(Err(error)) => Err(super::probe::fault_of(&error)),
            Err(_) => Err(LinkFault::Silent),
        };
        let rtt = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
        hold(&inner.reach).arbiter(&arbiter.name, inner.now(), outcome.map(|()| rtt));
    }
}

//! What ends a demo: SIGINT, SIGTERM, the terminal's end, or, only where it is a pipe, the end of its
//! standard input. Does not know what ending means.

use std::io::Read;

use anyhow::Context;
use rustix::fs::{FileType, fstat};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Watches for the end.
pub(super) struct Ending {
    signals: [Signal; 3],
    input: Option<oneshot::Receiver<()>>,
}

impl Ending {
    /// From now on none of these ends the process by itself.
    pub(super) fn watch() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot watch for signals");
        let signals = [on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?];
        let input = std::io::stdin();
        let pipe = fstat(&input).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        Ok(Self { signals, input: if pipe { Some(watch_input()?) } else { None } })
    }

    /// Returns once the demo is to end.
    pub(super) async fn come(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        let input = async {
            match &mut self.input {
                Some(input) => drop(input.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            () = input => {}
        }
    }
}

/// A read of a pipe cannot be called off, so it has a thread that nobody waits for.
fn watch_input() -> anyhow::Result<oneshot::Receiver<()>> {
    let (sender, ended) = oneshot::channel();
    let read = move || {
        let mut nothing = [0_u8; 256];
        let mut input = std::io::stdin().lock();
        while !matches!(input.read(&mut nothing), Ok(0) | Err(_)) {}
        let _ = sender.send(());
    };
    std::thread::Builder::new().name("demo-input".to_owned()).spawn(read).context("cannot start a thread")?;
    Ok(ended)
}

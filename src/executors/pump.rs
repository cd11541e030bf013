//! Takes a run's output from its engine into the slot's own, where it is rotated, read and followed like that
//! of a native process, also while the engine is away. Remembers where it was for the next node process.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::logs::open_output;
use crate::ports::{Executor, RunId};

/// Between two attempts to read from an engine that failed.
const AGAIN: Duration = Duration::from_millis(500);

/// One run's output being taken in.
pub(super) struct Pump {
    done: watch::Receiver<bool>,
    _working: AbortOnDropHandle<()>,
}

impl Pump {
    /// Begins, unless runs of that engine write their output by themselves.
    pub(super) fn begin(
        executor: Arc<dyn Executor>,
        owner: &str,
        run: &RunId,
        folder: PathBuf,
    ) -> Option<Self> {
        let first = executor.output(owner, run, cursor(&folder, run))?;
        let (owner, run) = (owner.to_owned(), run.clone());
        let (tell, done) = watch::channel(false);
        let working = tokio::spawn(async move {
            let mut stream = Some(first);
            while let Some(mut pieces) = stream.take() {
                let mut broke = false;
                while let Some(piece) = pieces.next().await {
                    let Ok(piece) = piece else {
                        broke = true;
                        break;
                    };
                    if let Err(error) = keep(&folder, &run, &piece.bytes, &piece.cursor) {
                        tracing::warn!(%run, %error, "its output cannot be kept");
                        broke = true;
                        break;
                    }
                }
                if broke {
                    sleep(AGAIN).await;
                    stream = executor.output(&owner, &run, cursor(&folder, &run));
                }
            }
            tell.send_replace(true);
        });
        Some(Self { done, _working: AbortOnDropHandle::new(working) })
    }

    /// Waits until all was taken in of a run that is over.
    pub(super) fn drained(&self, patience: Duration) -> impl Future<Output = ()> + use<> {
        let mut done = self.done.clone();
        async move {
            let _ = timeout(patience, done.wait_for(|done| *done)).await;
        }
    }
}

fn place(folder: &Path) -> PathBuf {
    folder.join("cursor")
}

/// Where the last process that took this run's output in was.
fn cursor(folder: &Path, run: &RunId) -> Option<String> {
    let text = fs::read_to_string(place(folder)).ok()?;
    let (whose, cursor) = text.split_once('\n')?;
    (whose == run.to_string()).then(|| cursor.to_owned())
}

fn keep(folder: &Path, run: &RunId, bytes: &[u8], cursor: &str) -> std::io::Result<()> {
    open_output(folder)?.write_all(bytes)?;
    fs::write(place(folder), format!("{run}\n{cursor}"))
}

//! What the log is applied to: core's State. Publishes every new State; key-value changes are kept for a
//! while, so that a watcher can go on where it left off, and a slow one loses its place, never slows the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use quorate_core::ids::Revision;
use quorate_core::state::{KvChange, State, codec};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

use super::inner::hold;
use crate::ports::{KvChanges, SnapshotJob, StateMachine, SubmitError};

/// Entries of key-value changes that are kept, and that a watcher may lag behind.
const KEPT: usize = 1_024;

type Batch = (Revision, Arc<[KvChange]>);

/// Recent key-value changes.
pub(super) struct KvLog {
    kept: Mutex<Kept>,
    send: broadcast::Sender<Batch>,
}

#[derive(Default)]
struct Kept {
    batches: VecDeque<Batch>,
    /// Everything after this is in `batches`.
    since: Revision,
}

impl KvLog {
    fn new() -> Self {
        Self { kept: Mutex::default(), send: broadcast::channel(KEPT).0 }
    }

    fn push(&self, batch: Batch) {
        let mut kept = hold(&self.kept);
        kept.batches.push_back(batch.clone());
        while kept.batches.len() > KEPT {
            if let Some((revision, _)) = kept.batches.pop_front() {
                kept.since = revision;
            }
        }
        // Without watchers there is nobody to tell.
        drop(self.send.send(batch));
    }

    /// After a snapshot nothing is known of how it came about.
    fn begin(&self, since: Revision) {
        let mut kept = hold(&self.kept);
        kept.batches.clear();
        kept.since = since;
    }

    /// Changes after a revision (0: from now on), as [`crate::ports::NodePort::kv_changes`] promises them.
    pub(super) fn after(&self, after: Revision) -> Result<KvChanges, SubmitError> {
        let (earlier, later) = {
            let kept = hold(&self.kept);
            if after > Revision(0) && after < kept.since {
                return Err(SubmitError::Refused {
                    because: format!("changes after revision {after} are no longer kept"),
                    remedy: format!("read the keys, then watch from revision {}", kept.since),
                });
            }
            let wanted = |batch: &&Batch| after > Revision(0) && batch.0 > after;
            let earlier: Vec<Batch> = kept.batches.iter().filter(wanted).cloned().collect();
            (earlier, self.send.subscribe())
        };
        let lost = |_| SubmitError::Refused {
            because: "this watch fell too far behind".to_owned(),
            remedy: "read the keys, then watch again".to_owned(),
        };
        let later = BroadcastStream::new(later).map(move |batch| batch.map_err(lost));
        Ok(futures::stream::iter(earlier.into_iter().map(Ok)).chain(later).boxed())
    }
}

/// State, behind the log.
pub(super) struct Machine {
    state: State,
    publish: watch::Sender<Arc<State>>,
    kv: Arc<KvLog>,
}

impl Machine {
    /// Before the first entry.
    pub(super) fn new() -> Self {
        let state = State::empty();
        let (publish, _) = watch::channel(Arc::new(state.clone()));
        Self { state, publish, kv: Arc::new(KvLog::new()) }
    }

    /// Every State from now on.
    pub(super) fn states(&self) -> watch::Receiver<Arc<State>> {
        self.publish.subscribe()
    }

    /// Recent key-value changes.
    pub(super) fn kv(&self) -> Arc<KvLog> {
        self.kv.clone()
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, revision: u64, proposals: &[Bytes]) -> Vec<Bytes> {
        let revision = Revision(revision);
        let (answers, applied) = self.state.apply_entry(revision, proposals);
        for event in &applied.events {
            tracing::info!(
                revision = revision.0,
                by = event.by,
                subject = event.subject(),
                "{}",
                event.text()
            );
        }
        if !applied.kv.is_empty() {
            self.kv.push((revision, applied.kv.into()));
        }
        self.publish.send_replace(Arc::new(self.state.clone()));
        answers.into_iter().map(Bytes::from).collect()
    }

    fn snapshot(&self) -> SnapshotJob {
        let state = self.state.clone();
        Box::new(move || Ok(codec::encode_state(&state)))
    }

    fn restore(&mut self, revision: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.state = codec::decode_state(bytes)?;
        self.kv.begin(self.state.revision);
        tracing::info!(revision, state = self.state.revision.0, "restored from a snapshot");
        self.publish.send_replace(Arc::new(self.state.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(revision: u64) -> Batch {
        let revision = Revision(revision);
        let change = KvChange { revision, key: b"k".to_vec(), value: None, expired: false };
        (revision, Arc::from([change]))
    }

    async fn next(changes: &mut KvChanges) -> u64 {
        changes.next().await.unwrap().unwrap().0.0
    }

    #[tokio::test]
    async fn a_watch_goes_on_where_it_left_off_without_a_gap_or_a_repeat() {
        let log = KvLog::new();
        [3, 5, 8].iter().for_each(|revision| log.push(batch(*revision)));
        let mut from_three = log.after(Revision(3)).unwrap();
        let mut from_now = log.after(Revision(0)).unwrap();
        log.push(batch(9));
        assert_eq!(
            [next(&mut from_three).await, next(&mut from_three).await, next(&mut from_three).await],
            [5, 8, 9]
        );
        assert_eq!(next(&mut from_now).await, 9);
    }

    #[tokio::test]
    async fn what_is_no_longer_kept_is_refused_and_a_slow_watch_is_told() {
        let log = KvLog::new();
        let mut slow = log.after(Revision(0)).unwrap();
        (1..=KEPT as u64 + 5).for_each(|revision| log.push(batch(revision)));
        assert!(matches!(log.after(Revision(2)), Err(SubmitError::Refused { .. })));
        assert!(log.after(Revision(5)).is_ok());
        assert!(slow.next().await.unwrap().is_err());
        log.begin(Revision(5_000));
        assert!(log.after(Revision(4_999)).is_err());
    }
}

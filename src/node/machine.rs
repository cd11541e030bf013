//! What the log is applied to: core's State. Publishes every new State; key-value changes are kept for a
//! while, so that a watcher can go on where it left off, and a slow one loses its place, never slows the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use quorate_core::ids::Revision;
use quorate_core::state::{KvChange, State, codec};
use tokio::sync::watch;

use super::inner::hold;
use crate::ports::{KvChanges, SnapshotJob, StateMachine, SubmitError};

/// Entries of key-value changes that are kept, and that a watcher may lag behind.
const KEPT: usize = 1_024;
/// And at most so many bytes of keys and values: an entry may carry many large ones.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

type Batch = (Revision, Arc<[KvChange]>);

/// Recent key-value changes. Watchers read from here, so that one who does not read keeps nothing more alive.
pub(super) struct KvLog {
    kept: Mutex<Kept>,
    /// The last revision that changed a key.
    newest: watch::Sender<Revision>,
}

#[derive(Default)]
struct Kept {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// Everything after this is in `batches`.
    since: Revision,
}

fn bytes_of(batch: &Batch) -> usize {
    batch.1.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, Vec::len)).sum()
}

impl Kept {
    /// The first batch after a revision; an error where some between are gone.
    fn next(&self, after: Revision) -> Result<Option<Batch>, ()> {
        if after < self.since {
            return Err(());
        }
        Ok(self.batches.get(self.batches.partition_point(|(revision, _)| *revision <= after)).cloned())
    }
}

impl KvLog {
    fn new() -> Self {
        Self { kept: Mutex::default(), newest: watch::channel(Revision(0)).0 }
    }

    fn push(&self, batch: Batch) {
        let revision = batch.0;
        {
            let mut kept = hold(&self.kept);
            kept.bytes += bytes_of(&batch);
            kept.batches.push_back(batch);
            while kept.batches.len() > KEPT || (kept.bytes > KEPT_BYTES && kept.batches.len() > 1) {
                let Some(oldest) = kept.batches.pop_front() else { break };
                kept.bytes -= bytes_of(&oldest);
                kept.since = oldest.0;
            }
        }
        self.newest.send_replace(revision);
    }

    /// After a snapshot nothing is known of how it came about.
    fn begin(&self, since: Revision) {
        *hold(&self.kept) = Kept { since, ..Kept::default() };
        self.newest.send_replace(since);
    }

    /// Changes after a revision (0: from now on), as [`crate::ports::NodePort::kv_changes`] promises them.
    pub(super) fn after(self: &Arc<Self>, after: Revision) -> Result<KvChanges, SubmitError> {
        let news = self.newest.subscribe();
        let from = {
            let kept = hold(&self.kept);
            if after > Revision(0) && after < kept.since {
                return Err(SubmitError::Refused {
                    because: format!("changes after revision {after} are no longer kept"),
                    remedy: format!("read the keys, then watch from revision {}", kept.since),
                });
            }
            if after > Revision(0) { after } else { kept.batches.back().map_or(kept.since, |last| last.0) }
        };
        // Not the log itself: it ends with its State, and its watchers with it.
        let log = Arc::downgrade(self);
        let changes = futures::stream::unfold(Some((log, news, from)), async |place| {
            let (log, mut news, from) = place?;
            loop {
                // Before the look: what comes after it is noticed.
                news.borrow_and_update();
                let found = hold(&log.upgrade()?.kept).next(from);
                match found {
                    Ok(Some(batch)) => {
                        let from = batch.0;
                        return Some((Ok(batch), Some((log, news, from))));
                    }
                    Ok(None) => news.changed().await.ok()?,
                    Err(()) => {
                        let lost = SubmitError::Refused {
                            because: "this watch fell too far behind".to_owned(),
                            remedy: "read the keys, then watch again".to_owned(),
                        };
                        return Some((Err(lost), None));
                    }
                }
            }
        });
        Ok(changes.boxed())
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
        let log = Arc::new(KvLog::new());
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
        let log = Arc::new(KvLog::new());
        let mut slow = log.after(Revision(0)).unwrap();
        (1..=KEPT as u64 + 5).for_each(|revision| log.push(batch(revision)));
        assert!(matches!(log.after(Revision(2)), Err(SubmitError::Refused { .. })));
        assert!(log.after(Revision(5)).is_ok());
        assert!(slow.next().await.unwrap().is_err());
        assert!(slow.next().await.is_none());
        log.begin(Revision(5_000));
        assert!(log.after(Revision(4_999)).is_err());
    }

    #[tokio::test]
    async fn large_values_are_kept_for_a_shorter_while_and_a_restored_state_ends_a_watch() {
        let log = Arc::new(KvLog::new());
        let large = |revision: u64| {
            let (key, value) = (b"k".to_vec(), Some(vec![0; KEPT_BYTES / 4]));
            let change = KvChange { revision: Revision(revision), key, value, expired: false };
            (Revision(revision), Arc::from([change]))
        };
        (1..=9).for_each(|revision| log.push(large(revision)));
        assert_eq!(hold(&log.kept).batches.len(), 3);
        assert!(log.after(Revision(5)).is_err());
        let mut watch = log.after(Revision(6)).unwrap();
        assert_eq!(next(&mut watch).await, 7);
        log.push(batch(10));
        log.begin(Revision(20));
        assert!(watch.next().await.unwrap().is_err());
        let mut watch = log.after(Revision(0)).unwrap();
        log.push(batch(21));
        assert_eq!(next(&mut watch).await, 21);
    }
}

//! Hands committed entries to the [`StateMachine`] and keeps its snapshots. Does not know what the
//! proposals mean.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::EntryResponder;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};

use super::snapshots::SnapshotFiles;
use super::types::{Answers, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::ports::{SnapshotJob, StateMachine};

const LOST: &str = "the state was lost while it was restored";

/// The state machine as raft drives it.
pub struct Machine {
    /// Away only while a snapshot is being restored; the lock is for the compiler, nobody shares it.
    state: Option<Mutex<Box<dyn StateMachine>>>,
    files: SnapshotFiles,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Bytes of proposals applied since the last snapshot, for those who decide on the next.
    grown: Arc<AtomicU64>,
    /// What the newest file covers.
    saved: Option<LogId>,
}

impl Machine {
    /// A machine at its beginning: raft itself brings it to its last snapshot and beyond.
    pub fn new(state: Box<dyn StateMachine>, files: SnapshotFiles, grown: Arc<AtomicU64>) -> Self {
        let membership = StoredMembership::default();
        Self { state: Some(Mutex::new(state)), files, applied: None, membership, grown, saved: None }
    }

    fn state(&mut self) -> io::Result<&mut dyn StateMachine> {
        let state = self.state.as_mut().ok_or_else(|| io::Error::other(LOST))?;
        Ok(state.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut())
    }
}

/// Writes one snapshot.
pub struct Builder {
    job: Mutex<Option<SnapshotJob>>,
    meta: SnapshotMeta,
    files: SnapshotFiles,
    grown: Arc<AtomicU64>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let job = self.job.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let job = job.ok_or_else(|| io::Error::other("this snapshot was already taken"))?;
        let (meta, files) = (self.meta.clone(), self.files.clone());
        let body = tokio::task::spawn_blocking(move || {
            let body = Bytes::from(job().map_err(io::Error::other)?);
            files.save(&meta, &body)?;
            Ok::<_, io::Error>(body)
        });
        let snapshot = body.await.map_err(io::Error::other)??;
        self.grown.store(0, Ordering::Relaxed);
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}

fn no_state() -> SnapshotJob {
    Box::new(|| Err(anyhow::anyhow!(LOST)))
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let answers = match entry.payload {
                EntryPayload::Blank => Answers::default(),
                EntryPayload::Normal(proposals) => {
                    let bytes: usize = proposals.0.iter().map(Bytes::len).sum();
                    self.grown.fetch_add(bytes as u64, Ordering::Relaxed);
                    Answers(self.state()?.apply(entry.log_id.index, &proposals.0))
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Answers::default()
                }
            };
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(answers);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        let job = self.state().map_or_else(|_| no_state(), |state| state.snapshot());
        Builder { job: Mutex::new(Some(job)), meta, files: self.files.clone(), grown: self.grown.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        let revision = meta.last_log_id.map_or(0, |id| id.index);
        let on_disk = self.saved.is_some() && self.saved == meta.last_log_id;
        let (files, about) = (self.files.clone(), meta.clone());
        let mut state =
            self.state.take().ok_or_else(|| io::Error::other("a snapshot is already being restored"))?;
        let work = tokio::task::spawn_blocking(move || {
            let machine = state.get_mut().unwrap_or_else(PoisonError::into_inner);
            machine.restore(revision, &snapshot).map_err(io::Error::other)?;
            if !on_disk {
                files.save(&about, &snapshot)?;
            }
            Ok::<_, io::Error>(state)
        });
        self.state = Some(work.await.map_err(io::Error::other)??);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.saved = meta.last_log_id;
        self.grown.store(0, Ordering::Relaxed);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let files = self.files.clone();
        let found = tokio::task::spawn_blocking(move || files.load()).await.map_err(io::Error::other)??;
        Ok(found.map(|(meta, snapshot)| {
            self.saved = meta.last_log_id;
            Snapshot { meta, snapshot }
        }))
    }
}

//! Raft's log over a [`LogDisk`]: one thread writes, taking everything that waits as one group with
//! one sync; recent entries stay in memory, so that followers are served without reading the disk.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use futures::Stream;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use tokio::sync::oneshot;

use super::codec::{EntryV1, IdentityV1, LogIdV1, VoteV1, Wire, log_id, position};
use super::disk::{Change, DiskError, LogDisk, Slot};
use super::types::{Entry, LogId, TypeConfig, Vote};

/// Entries kept in memory once they are on disk.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// How much one read gives at most; more than one entry is never needed.
const READ_BYTES: usize = 512 * 1024;
/// Records removed from the front between two groups.
const PURGE_STEP: u64 = 8;
/// How much one group takes at most.
const GROUP_BYTES: usize = 1024 * 1024;

type Reply = oneshot::Sender<io::Result<()>>;

enum Job {
    Append { changes: Vec<Change>, bytes: usize, upto: u64, done: IOFlushed<TypeConfig> },
    Change { changes: Vec<Change>, durable: bool, done: Option<Reply> },
    Purge(Backlog),
}

/// Removals from the log's front that are made a little at a time, so that appends never wait for them.
struct Backlog {
    next: u64,
    upto: u64,
    purged: Bytes,
}

/// The log of one node. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
}

struct Shared {
    disk: Arc<dyn LogDisk>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    recent: VecDeque<(Entry, usize)>,
    recent_bytes: usize,
    /// Index after the last one on disk.
    flushed: u64,
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// What of it was given to the log thread.
    noted: Option<LogId>,
}

/// Ends the log thread when the last [`LogStore`] is gone, and waits for it.
pub struct LogThread(Option<JoinHandle<()>>);

impl LogThread {
    /// Waits until everything is written and the folder is free again.
    pub fn join(mut self) {
        if let Some(thread) = self.0.take() {
            // It ends by itself; a panic in it was already seen as failed writes.
            drop(thread.join());
        }
    }
}

/// Opens the log on `disk` for this node of this cluster, and starts its thread.
pub fn open(
    disk: Arc<dyn LogDisk>,
    dir: &std::path::Path,
    identity: &IdentityV1,
) -> Result<(LogStore, LogThread), DiskError> {
    let held = disk.held()?;
    let corrupt = |what: String| DiskError::Corrupt { dir: dir.to_owned(), what };
    match held.slots.get(&Slot::Identity) {
        None if held.range.is_none() && held.slots.is_empty() => {
            disk.write(&[Change::Set(Slot::Identity, identity.encode())], true)?;
        }
        None => return Err(corrupt("its identity is gone".to_owned())),
        Some(bytes) => {
            let found = IdentityV1::decode(bytes).map_err(|error| corrupt(error.to_string()))?;
            if &found != identity {
                let name = |id: &IdentityV1| format!("node {} of cluster {}", id.node, id.cluster);
                let (found, wanted) = (name(&found), name(identity));
                return Err(DiskError::Foreign { dir: dir.to_owned(), found, wanted });
            }
        }
    }
    let place = |slot| match held.slots.get(&slot) {
        None => Ok(None),
        Some(bytes) => <Option<LogIdV1>>::decode(bytes).map(log_id).map_err(|e| corrupt(e.to_string())),
    };
    let (committed, purged) = (place(Slot::Committed)?, place(Slot::Purged)?);
    let vote = held.slots.get(&Slot::Vote).map(|bytes| VoteV1::decode(bytes)).transpose();
    let last = held.last.as_ref().map(|bytes| EntryV1::decode(bytes)).transpose();
    let last = last.map_err(|error| corrupt(error.to_string()))?.map(|entry| LogId::from(entry.id));
    let memory = Memory {
        flushed: held.range.map_or(0, |(_, last)| last + 1),
        last: last.or(purged),
        purged,
        vote: vote.map_err(|error| corrupt(error.to_string()))?.map(Vote::from),
        committed,
        noted: committed,
        ..Memory::default()
    };
    let shared = Arc::new(Shared { disk, memory: Mutex::new(memory) });
    let (jobs, inbox) = channel();
    let behind = shared.clone();
    let thread = std::thread::Builder::new()
        .name("raft-log".to_owned())
        .spawn(move || run(&behind, &inbox))
        .map_err(|error| DiskError::Failed {
            dir: dir.to_owned(),
            action: "start the log thread",
            reason: error.to_string(),
        })?;
    Ok((LogStore { shared, jobs }, LogThread(Some(thread))))
}

/// The log thread: takes all that waits, writes it as one group, tells everyone; removes a little
/// from the front whenever there is something to remove.
fn run(shared: &Shared, inbox: &Receiver<Job>) {
    let mut backlog: Option<Backlog> = None;
    loop {
        let first = match &backlog {
            None => inbox.recv().map_err(|_| TryRecvError::Disconnected),
            Some(_) => inbox.try_recv(),
        };
        match first {
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {}
            Ok(first) => {
                let mut group = Group::default();
                group.add(first, &mut backlog);
                while group.bytes < GROUP_BYTES
                    && let Ok(job) = inbox.try_recv()
                {
                    group.add(job, &mut backlog);
                }
                group.write(shared);
            }
        }
        backlog = backlog.and_then(|backlog| backlog.step(shared));
    }
}

impl Backlog {
    /// Removes the next few records; gives what is left to do. A failure is left to the next start,
    /// which finds more records than it needs.
    fn step(self, shared: &Shared) -> Option<Self> {
        let upto = self.upto.min(self.next + PURGE_STEP - 1);
        let changes = [Change::Purge(upto), Change::Set(Slot::Purged, self.purged.clone())];
        if let Err(error) = shared.disk.write(&changes, false) {
            tracing::error!(%error, "the front of the raft log cannot be removed");
            return None;
        }
        (upto < self.upto).then(|| Self { next: upto + 1, ..self })
    }
}

#[derive(Default)]
struct Group {
    changes: Vec<Change>,
    bytes: usize,
    durable: bool,
    upto: u64,
    cut: Option<u64>,
    appended: Vec<IOFlushed<TypeConfig>>,
    changed: Vec<Reply>,
}

impl Group {
    fn add(&mut self, job: Job, backlog: &mut Option<Backlog>) {
        match job {
            Job::Purge(purge) => {
                let next = backlog.as_ref().map_or(purge.next, |earlier| earlier.next.min(purge.next));
                *backlog = Some(Backlog { next, ..purge });
            }
            Job::Append { changes, bytes, upto, done } => {
                self.changes.extend(changes);
                self.bytes += bytes;
                self.upto = upto + 1;
                self.durable = true;
                self.appended.push(done);
            }
            Job::Change { changes, durable, done } => {
                for change in &changes {
                    if matches!(change, Change::Purge(_)) {
                        // The whole log goes, and with it whatever was still to be removed.
                        *backlog = None;
                    }
                    if let Change::Truncate(from) = change {
                        self.upto = self.upto.min(*from);
                        self.cut = Some(self.cut.map_or(*from, |cut| cut.min(*from)));
                    }
                }
                self.changes.extend(changes);
                self.durable |= durable;
                self.changed.extend(done);
            }
        }
    }

    fn write(self, shared: &Shared) {
        if self.changes.is_empty() {
            return;
        }
        let result = shared.disk.write(&self.changes, self.durable);
        match &result {
            Ok(()) => shared.memory().flush(self.cut, self.upto),
            Err(error) => tracing::error!(%error, "the raft log cannot be written"),
        }
        let outcome = || result.as_ref().map(|_| ()).map_err(|error| io::Error::other(error.to_string()));
        for done in self.appended {
            done.io_completed(outcome());
        }
        for done in self.changed {
            // Whoever no longer waits needs no answer.
            drop(done.send(outcome()));
        }
    }
}

impl Memory {
    fn start(&self) -> u64 {
        self.purged.map_or(0, |id| id.index + 1)
    }

    fn end(&self) -> u64 {
        self.last.map_or(0, |id| id.index + 1)
    }

    /// Index of the first entry in memory; the end of the log if there is none.
    fn recent_start(&self) -> u64 {
        self.recent.front().map_or(self.end(), |(entry, _)| entry.log_id.index)
    }

    fn push(&mut self, entry: Entry, bytes: usize) {
        self.last = Some(entry.log_id);
        self.recent_bytes += bytes;
        self.recent.push_back((entry, bytes));
    }

    fn flush(&mut self, cut: Option<u64>, upto: u64) {
        self.flushed = cut.map_or(self.flushed, |cut| self.flushed.min(cut)).max(upto);
        while self.recent_bytes > CACHE_BYTES
            && self.recent.front().is_some_and(|(entry, _)| entry.log_id.index < self.flushed)
        {
            self.pop_front();
        }
    }

    /// Copies entries `first..end` that are in memory, as far as `limit` allows.
    fn copy(&self, first: u64, end: u64, limit: usize, bytes: &mut usize, to: &mut Vec<Entry>) {
        let skip = usize::try_from(first - self.recent_start()).unwrap_or(usize::MAX);
        for (entry, size) in self.recent.iter().skip(skip) {
            *bytes += size;
            if entry.log_id.index >= end || (!to.is_empty() && *bytes > limit) {
                return;
            }
            to.push(entry.clone());
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.recent.pop_front() {
            self.recent_bytes -= bytes;
        }
    }

    fn truncate(&mut self, last: Option<LogId>) {
        let end = last.map_or(0, |id| id.index + 1);
        if end >= self.end() {
            return;
        }
        while self.recent.back().is_some_and(|(entry, _)| entry.log_id.index >= end) {
            if let Some((_, bytes)) = self.recent.pop_back() {
                self.recent_bytes -= bytes;
            }
        }
        self.flushed = self.flushed.min(end);
        self.last = last.max(self.purged);
    }

    fn purge(&mut self, upto: LogId) {
        while self.recent.front().is_some_and(|(entry, _)| entry.log_id.index <= upto.index) {
            self.pop_front();
        }
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(Some(upto));
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries `first..end`, up to `limit` bytes but at least one if there is any.
    fn entries(&self, first: u64, end: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let (mut next, end) = {
            let memory = self.memory();
            (first.max(memory.start()), end.min(memory.end()))
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        while next < end {
            let on_disk_end = {
                let memory = self.memory();
                if next >= memory.recent_start() {
                    memory.copy(next, end, limit, &mut bytes, &mut entries);
                    return Ok(entries);
                }
                end.min(memory.recent_start())
            };
            for record in self.disk.read(next, on_disk_end - 1, limit)? {
                bytes += record.len();
                if !entries.is_empty() && bytes > limit {
                    return Ok(entries);
                }
                let entry = EntryV1::decode(&record).and_then(EntryV1::into_entry);
                entries.push(entry.map_err(io::Error::other)?);
            }
            match entries.last() {
                Some(last) if last.log_id.index + 1 < on_disk_end => return Ok(entries),
                _ => next = on_disk_end,
            }
        }
        Ok(entries)
    }
}

impl LogStore {
    fn send(&self, job: Job) -> io::Result<()> {
        self.jobs.send(job).map_err(|_| io::Error::other("the log thread has stopped"))
    }

    async fn change(&self, changes: Vec<Change>, durable: bool) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        self.send(Job::Change { changes, durable, done: Some(done) })?;
        outcome.await.map_err(|_| io::Error::other("the log thread has stopped"))?
    }
}

/// Reads the log of one node without being able to write it, nor keeping its thread alive.
#[derive(Clone)]
pub struct LogReader(Arc<Shared>);

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (mut first, end) = bounds(&range);
        let mut entries = Vec::new();
        loop {
            let some = self.0.entries(first, end, READ_BYTES)?;
            match some.last() {
                None => return Ok(entries),
                Some(last) => first = last.log_id.index + 1,
            }
            entries.extend(some);
        }
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (first, end) = bounds(&range);
        let state = (self.0.clone(), first, end, VecDeque::new());
        futures::stream::unfold(state, |(log, mut first, end, mut ready)| async move {
            if ready.is_empty() && first < end {
                match log.entries(first, end, READ_BYTES) {
                    Err(error) => return Some((Err(error), (log, end, end, ready))),
                    Ok(some) => {
                        first = some.last().map_or(end, |last| last.log_id.index + 1);
                        ready.extend(some);
                    }
                }
            }
            let entry = ready.pop_front()?;
            Some((Ok(entry), (log, first, end, ready)))
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.0.memory().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.0.entries(start, end, READ_BYTES)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let first = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    (first, end)
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let memory = self.shared.memory();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader(self.shared.clone())
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.change(vec![Change::Set(Slot::Vote, VoteV1::from(vote).encode())], true).await?;
        self.shared.memory().vote = Some(*vote);
        Ok(())
    }

    /// Written with the next entries: an older value only means that more is applied again after a start.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.shared.memory().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.memory().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut changes = Vec::new();
        let (mut total, mut upto) = (0, 0);
        {
            let mut memory = self.shared.memory();
            for entry in entries {
                let record: Bytes = EntryV1::from(&entry).encode();
                let bytes = record.len();
                (total, upto) = (total + bytes, entry.log_id.index);
                changes.push(Change::Put(entry.log_id.index, record));
                memory.push(entry, bytes);
            }
            if !changes.is_empty() && memory.committed != memory.noted {
                changes.push(Change::Set(Slot::Committed, position(memory.committed.as_ref()).encode()));
                memory.noted = memory.committed;
            }
        }
        if changes.is_empty() {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.send(Job::Append { changes, bytes: total, upto, done: callback })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        self.shared.memory().truncate(last);
        self.change(vec![Change::Truncate(from)], true).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let (next, end) = {
            let mut memory = self.shared.memory();
            let before = (memory.start(), memory.end());
            memory.purge(upto);
            before
        };
        let purged = position(Some(&upto)).encode();
        if upto.index + 1 < end {
            return self.send(Job::Purge(Backlog { next, upto: upto.index, purged }));
        }
        // A snapshot has overtaken the log: what follows it must not follow a gap.
        self.change(vec![Change::Purge(upto.index), Change::Set(Slot::Purged, purged)], true).await
    }
}

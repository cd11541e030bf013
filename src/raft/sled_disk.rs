//! The log store: a group is one record of the journal and one sync of blocks that are there already; a thread of its
//! own moves what has gathered into the tree, many groups with one sync. Does not know raft's types.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::disk::{Change, DiskError, Held, LogDisk};
use super::journal::Journal;
use super::mark::{Mark, MarkFile};
use super::tail::Tail;
use super::tree::Tree;

/// The form of the journal's records.
const VERSION: u8 = 1;

/// What a start moves from the journal to the tree at once.
const MOVED_AT_ONCE: usize = 512 * 1024;

/// A [`LogDisk`] in a folder: the tree, the journal before it, and a mark of how far both were synced.
pub struct SledDisk {
    shared: Arc<Shared>,
    writer: Mutex<Writer>,
    mover: Option<JoinHandle<()>>,
}

struct Shared {
    dir: PathBuf,
    tree: Tree,
    tail: Mutex<Moving>,
    /// Told when a part was moved.
    moved: Condvar,
}

struct Moving {
    tail: Tail,
    /// Why nothing is moved any more.
    failed: Option<String>,
}

struct Writer {
    journal: Journal,
    mark_file: MarkFile,
    /// As the file says.
    synced: Mark,
    /// As it will be after the next sync.
    latest: Mark,
    /// Parts for the mover; gone when it is to end.
    parts: Option<Sender<Vec<Change>>>,
}

impl SledDisk {
    /// Opens or makes the store in `dir`; moves what the journal holds into the tree, cuts off an end that was never
    /// acknowledged, and refuses anything else that does not add up.
    pub fn open(dir: &Path) -> Result<Self, DiskError> {
        let failed = |action: &'static str| {
            move |error: io::Error| DiskError::Failed {
                dir: dir.to_owned(),
                action,
                reason: error.to_string(),
            }
        };
        let tree = Tree::open(dir)?;
        let (mark_file, mark) = MarkFile::open(&dir.join("mark")).map_err(failed("open the mark"))?;
        let (mut journal, found) = Journal::open(dir).map_err(failed("open the journal"))?;
        if found.torn {
            tracing::warn!(dir = %dir.display(), "cut off the torn end of the log; it was never acknowledged");
        }
        move_all(dir, &tree, found.records)?;
        tree.check(mark)?;
        journal.clear().map_err(failed("write the journal"))?;
        let latest = Mark { votes: tree.votes(), ..mark };
        let tail = Mutex::new(Moving { tail: Tail::new(), failed: None });
        let shared = Arc::new(Shared { dir: dir.to_owned(), tree, tail, moved: Condvar::new() });
        let (parts, inbox) = channel();
        let behind = shared.clone();
        let mover = std::thread::Builder::new()
            .name("raft-move".to_owned())
            .spawn(move || behind.move_parts(&inbox))
            .map_err(failed("start a thread"))?;
        let writer = Writer { journal, mark_file, synced: mark, latest, parts: Some(parts) };
        Ok(Self { shared, writer: Mutex::new(writer), mover: Some(mover) })
    }

    fn failed(&self, action: &'static str, error: impl ToString) -> DiskError {
        DiskError::Failed { dir: self.shared.dir.clone(), action, reason: error.to_string() }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on in the journal's other file as soon as the tree has what it holds.
    fn turn(&self, writer: &mut Writer) -> Result<(), DiskError> {
        // What moves must be in the journal for good: half of it in the tree alone would not be the log.
        writer.journal.sync().map_err(|error| self.failed("sync the journal", error))?;
        let mut moving = self.shared.wait_until_moved()?;
        let Some(part) = moving.tail.turn() else { return Ok(()) };
        drop(moving);
        writer.journal.turn();
        let sent = writer.parts.as_ref().is_some_and(|parts| parts.send(part).is_ok());
        if sent { Ok(()) } else { Err(self.failed("write the log", "its thread has stopped")) }
    }

    /// Waits until the tree has everything.
    fn settle(&self) -> Result<(), DiskError> {
        self.turn(&mut self.writer())?;
        self.shared.wait_until_moved().map(drop)
    }
}

impl Shared {
    fn moving(&self) -> MutexGuard<'_, Moving> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until only the part being written is not in the tree.
    fn wait_until_moved(&self) -> Result<MutexGuard<'_, Moving>, DiskError> {
        let mut moving = self.moving();
        while moving.tail.moving() > 0 && moving.failed.is_none() {
            moving = self.moved.wait(moving).unwrap_or_else(PoisonError::into_inner);
        }
        match &moving.failed {
            None => Ok(moving),
            Some(reason) => {
                let (dir, reason) = (self.dir.clone(), reason.clone());
                Err(DiskError::Failed { dir, action: "write the log", reason })
            }
        }
    }

    /// Moves parts into the tree until there are no more, or one cannot be moved.
    fn move_parts(&self, parts: &Receiver<Vec<Change>>) {
        for part in parts {
            let written = self.tree.write(&part);
            let mut moving = self.moving();
            match written {
                Ok(()) => moving.tail.moved(),
                Err(error) => {
                    tracing::error!(%error, "the journal cannot be moved into the log");
                    moving.failed = Some(error.to_string());
                }
            }
            let failed = moving.failed.is_some();
            drop(moving);
            self.moved.notify_all();
            if failed {
                return;
            }
        }
    }
}

impl LogDisk for SledDisk {
    fn held(&self) -> Result<Held, DiskError> {
        self.settle()?;
        self.shared.tree.held()
    }

    fn write(&self, changes: &[Change], durable: bool) -> Result<(), DiskError> {
        let mut writer = self.writer();
        if writer.journal.full() {
            self.turn(&mut writer)?;
        }
        if let Some(reason) = self.shared.moving().failed.clone() {
            return Err(self.failed("write the log", reason));
        }
        let writer = &mut *writer;
        let (latest, lowest) = writer.latest.after(changes);
        if lowest < writer.synced.end {
            writer.synced.end = lowest;
            let set = writer.mark_file.set(writer.synced, true);
            set.map_err(|error| self.failed("write the mark", error))?;
        }
        writer.journal.append(&encode(changes)).map_err(|error| self.failed("write the journal", error))?;
        self.shared.moving().tail.add(changes);
        writer.latest = latest;
        if durable {
            writer.journal.sync().map_err(|error| self.failed("sync the journal", error))?;
            writer.synced = latest;
            let set = writer.mark_file.set(latest, false);
            set.map_err(|error| self.failed("write the mark", error))?;
        }
        Ok(())
    }

    fn read(&self, first: u64, last: u64, limit: usize) -> Result<Vec<Bytes>, DiskError> {
        let (below, newest) = {
            let moving = self.shared.moving();
            (moving.tail.below(), moving.tail.records(first..=last))
        };
        let mut records = Vec::new();
        if first < below {
            records = self.shared.tree.read(first, last.min(below - 1), limit)?;
            let wanted = last.min(below - 1).saturating_sub(first) + 1;
            if (records.len() as u64) < wanted {
                // The limit was reached, or the log begins later.
                return Ok(records);
            }
        }
        let mut size: usize = records.iter().map(Bytes::len).sum();
        for record in newest {
            size += record.len();
            if !records.is_empty() && size > limit {
                break;
            }
            records.push(record);
        }
        Ok(records)
    }
}

impl Drop for SledDisk {
    /// Leaves everything in the tree, so that the next start has nothing to move.
    fn drop(&mut self) {
        let settled = self.settle();
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if settled.is_ok()
            && let Err(error) = writer.journal.clear()
        {
            tracing::debug!(%error, "the journal is moved again by the next start");
        }
        writer.parts = None;
        if let Some(mover) = self.mover.take() {
            // What it could not do was said already.
            drop(mover.join());
        }
    }
}

/// Moves what the journal held, a part at a time: all of it at once takes many times its size. A crash in between does
/// no harm, since the next start begins anew.
fn move_all(dir: &Path, tree: &Tree, records: Vec<Vec<u8>>) -> Result<(), DiskError> {
    let (mut changes, mut bytes) = (Vec::new(), 0);
    for record in records {
        let what = || "a record of the journal cannot be read".to_owned();
        let read = decode(&record).ok_or_else(|| DiskError::Corrupt { dir: dir.to_owned(), what: what() })?;
        bytes += record.len();
        changes.extend(read);
        if bytes > MOVED_AT_ONCE {
            tree.write(&std::mem::take(&mut changes))?;
            bytes = 0;
        }
    }
    if changes.is_empty() { Ok(()) } else { tree.write(&changes) }
}

fn encode(changes: &[Change]) -> Vec<u8> {
    // Plain data into memory: this cannot fail. An empty record would be refused as one that cannot be read.
    postcard::to_extend(changes, vec![VERSION]).unwrap_or_default()
}

/// `None` for what cannot be read; a record without content says nothing.
fn decode(record: &[u8]) -> Option<Vec<Change>> {
    match record.split_first() {
        None => Some(Vec::new()),
        Some((&VERSION, body)) => postcard::from_bytes(body).ok(),
        Some(_) => None,
    }
}

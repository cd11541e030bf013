//! The log as a tree of sled: a record is cut into small pieces, and a write is one sync. Tells a torn end that was
//! never acknowledged from data that the disk lost. Does not know raft's types, nor who waits for a write.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::disk::{Change, DiskError, Held, Slot};
use super::mark::Mark;

/// Pages hold up to about 18 items; with pieces of this size a page never grows past what sled keeps
/// in its log file. Larger ones would go to files that it does not sync.
const PIECE: usize = 6 * 1024;
/// Version byte and checksum before a record's bytes, and its length after them.
const HEAD: usize = 1 + 8 + 4;
const RECORD_VERSION: u8 = 1;
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// Items of one batch, beside its last record. sled frees no page that was replaced, ten times the size of what is
/// written, before the batch in which that happened is through, and then a few pages with each further batch: few large
/// batches leave more behind than they free, without end.
const BATCH_ITEMS: usize = 64;

/// The log in a folder.
pub struct Tree {
    dir: PathBuf,
    db: sled::Db,
    data: File,
    /// How often the vote was set.
    votes: AtomicU64,
}

impl Tree {
    /// Opens or makes it. Nothing is checked yet.
    pub fn open(dir: &Path) -> Result<Self, DiskError> {
        let failed = |action, reason: String| DiskError::Failed { dir: dir.to_owned(), action, reason };
        std::fs::create_dir_all(dir).map_err(|error| failed("make the folder", error.to_string()))?;
        let path = dir.join("log");
        let db = sled::Config::new()
            .path(&path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::LowSpace)
            .open()
            .map_err(|error| open_error(dir, &error))?;
        let data = File::open(path.join("db")).map_err(|error| failed("open the log", error.to_string()))?;
        let tree = Self { dir: dir.to_owned(), db, data, votes: AtomicU64::new(0) };
        tree.votes.store(tree.slot(Slot::Vote)?.map_or(0, |vote| vote.number), Ordering::Relaxed);
        Ok(tree)
    }

    /// How often the vote was set.
    pub fn votes(&self) -> u64 {
        self.votes.load(Ordering::Relaxed)
    }

    fn failed(&self, action: &'static str, error: impl ToString) -> DiskError {
        DiskError::Failed { dir: self.dir.clone(), action, reason: error.to_string() }
    }

    fn corrupt(&self, what: String) -> DiskError {
        DiskError::Corrupt { dir: self.dir.clone(), what }
    }

    /// Reads the whole log once: every record whole, none missing, none lost that was synced. Cuts off an end
    /// that was never acknowledged, and refuses anything else that does not add up.
    pub fn check(&self, mark: Mark) -> Result<(), DiskError> {
        let mut expected = self.slot(Slot::Purged)?.map_or(0, |purged| purged.number + 1);
        let mut torn = None;
        for found in self.records(0, u64::MAX) {
            let (index, record) = found?;
            if expected != index {
                return Err(self.corrupt(format!("log entry {expected} is missing")));
            }
            expected = index + 1;
            match record {
                Ok(_) if torn.is_none() => {}
                Ok(_) => return Err(self.corrupt(format!("log entry {} is damaged", torn.unwrap_or(index)))),
                Err(what) if index < mark.end => {
                    return Err(self.corrupt(format!("log entry {index} is damaged: {what}")));
                }
                Err(_) => torn = torn.or(Some(index)),
            }
        }
        if let Some(from) = torn {
            tracing::warn!(dir = %self.dir.display(), from, "cut off the torn end of the log; it was never acknowledged");
            self.write(&[Change::Truncate(from)])?;
            expected = from;
        }
        self.check_mark(mark, expected)
    }

    fn check_mark(&self, mark: Mark, end: u64) -> Result<(), DiskError> {
        if end < mark.end {
            let last = mark.end.saturating_sub(1);
            return Err(self.corrupt(format!("log entry {last} was synced but the log ends before {end}")));
        }
        let votes = self.votes();
        if votes < mark.votes {
            return Err(self.corrupt(format!("vote {} was synced but only {votes} are there", mark.votes)));
        }
        Ok(())
    }

    fn slot(&self, slot: Slot) -> Result<Option<SlotValue>, DiskError> {
        let Some(value) = self.db.get(slot_key(slot)).map_err(|error| self.failed("read the log", error))?
        else {
            return Ok(None);
        };
        match value.split_at_checked(8) {
            Some((sum, rest)) if rest.len() >= 8 && le64(sum) == xxh3_64(rest) => {
                Ok(Some(SlotValue { number: le64(rest), bytes: Bytes::copy_from_slice(&rest[8..]) }))
            }
            _ => Err(self.corrupt(format!("its {slot:?} is damaged"))),
        }
    }

    /// Records by index, put together again from their pieces; damaged ones by their reason.
    fn records(&self, first: u64, last: u64) -> Records<'_> {
        let range = piece_key(first, 0)..=piece_key(last, u16::MAX);
        Records { tree: self, pieces: self.db.range(range), next: None }
    }

    fn remove(&self, batch: &mut sled::Batch, first: u64, last: u64) -> Result<usize, DiskError> {
        let mut items = 0;
        for key in self.db.range(piece_key(first, 0)..=piece_key(last, u16::MAX)).keys() {
            batch.remove(key.map_err(|error| self.failed("read the log", error))?);
            items += 1;
        }
        Ok(items)
    }

    /// Adds a change to a batch; gives how many items that are. `purged` is what was purged up to, until it is set.
    fn stage(&self, batch: &mut sled::Batch, change: &Change, purged: &mut u64) -> Result<usize, DiskError> {
        match change {
            Change::Put(index, record) => Ok(stage_record(batch, *index, record)),
            Change::Truncate(from) => self.remove(batch, *from, u64::MAX),
            Change::Purge(upto) => {
                *purged = *upto;
                self.remove(batch, 0, *upto)
            }
            Change::Set(slot, bytes) => {
                let number = match slot {
                    Slot::Vote => self.votes.fetch_add(1, Ordering::Relaxed) + 1,
                    Slot::Purged => *purged,
                    Slot::Identity | Slot::Committed => 0,
                };
                let mut value = vec![0u8; 8];
                value.extend_from_slice(&number.to_le_bytes());
                value.extend_from_slice(bytes);
                let sum = xxh3_64(&value[8..]);
                value[..8].copy_from_slice(&sum.to_le_bytes());
                batch.insert(slot_key(*slot), value);
                Ok(1)
            }
        }
    }

    fn apply(&self, batch: sled::Batch) -> Result<(), DiskError> {
        self.db.apply_batch(batch).map_err(|error| self.failed("write the log", error))
    }

    /// What is there.
    pub fn held(&self) -> Result<Held, DiskError> {
        let mut held = Held::default();
        for slot in [Slot::Identity, Slot::Vote, Slot::Committed, Slot::Purged] {
            held.slots.extend(self.slot(slot)?.map(|value| (slot, value.bytes)));
        }
        let read = |error| self.failed("read the log", error);
        let log = piece_key(0, 0)..=piece_key(u64::MAX, u16::MAX);
        let first = self.db.range(log.clone()).keys().next().transpose().map_err(read)?;
        let last = self.db.range(log).keys().next_back().transpose().map_err(read)?;
        if let (Some(first), Some(last)) = (first, last) {
            let (first, last) = (piece_index(&first), piece_index(&last));
            held.range = Some((first, last));
            held.last = self.read(last, last, usize::MAX)?.pop();
        }
        Ok(held)
    }

    /// Makes the changes in their order, durably; a crash keeps a first part of them.
    pub fn write(&self, changes: &[Change]) -> Result<(), DiskError> {
        let (mut batch, mut items, mut purged) = (sled::Batch::default(), 0, 0);
        for change in changes {
            let ends = match change {
                // A batch sees the tree as it was before it, so each removal begins a batch of its own.
                Change::Truncate(_) | Change::Purge(_) => items > 0,
                Change::Put(..) => items >= BATCH_ITEMS,
                Change::Set(..) => false,
            };
            if ends {
                self.apply(std::mem::take(&mut batch))?;
                items = 0;
            }
            items += self.stage(&mut batch, change, &mut purged)?;
        }
        if items > 0 {
            self.apply(batch)?;
        }
        self.db.flush().map_err(|error| self.failed("write the log", error))?;
        // sled's flush starts the writing but does not wait for the device.
        self.data.sync_data().map_err(|error| self.failed("sync the log", error))
    }

    /// The records from `first` to `last`, both included, up to `limit` bytes but at least one.
    pub fn read(&self, first: u64, last: u64, limit: usize) -> Result<Vec<Bytes>, DiskError> {
        let mut records = Vec::new();
        let mut size = 0;
        for found in self.records(first, last) {
            let (index, record) = found?;
            let record =
                record.map_err(|what| self.corrupt(format!("log entry {index} is damaged: {what}")))?;
            size += record.len();
            if !records.is_empty() && size > limit {
                break;
            }
            records.push(record);
        }
        Ok(records)
    }
}

struct SlotValue {
    /// How often the vote was set; the index purged up to.
    number: u64,
    bytes: Bytes,
}

struct Records<'a> {
    tree: &'a Tree,
    pieces: sled::Iter,
    next: Option<(u64, sled::IVec)>,
}

type Record = Result<Bytes, &'static str>;

impl Iterator for Records<'_> {
    type Item = Result<(u64, Record), DiskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut pull = || match self.pieces.next() {
            None => Ok(None),
            Some(Ok((key, value))) => Ok(Some((piece_index(&key), value))),
            Some(Err(error)) => Err(self.tree.failed("read the log", error)),
        };
        let first = match self.next.take().map_or_else(&mut pull, |piece| Ok(Some(piece))) {
            Ok(first) => first?,
            Err(error) => return Some(Err(error)),
        };
        let (index, mut whole) = (first.0, BytesMut::from(first.1.as_ref()));
        loop {
            match pull() {
                Err(error) => return Some(Err(error)),
                Ok(Some((at, piece))) if at == index => whole.extend_from_slice(&piece),
                Ok(other) => {
                    self.next = other;
                    return Some(Ok((index, unseal(index, &whole.freeze()))));
                }
            }
        }
    }
}

fn stage_record(batch: &mut sled::Batch, index: u64, record: &Bytes) -> usize {
    let mut whole = Vec::with_capacity(HEAD + record.len());
    whole.push(RECORD_VERSION);
    whole.extend_from_slice(&record_sum(index, record).to_le_bytes());
    whole.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    whole.extend_from_slice(record);
    for (at, piece) in whole.chunks(PIECE).enumerate() {
        batch.insert(&piece_key(index, u16::try_from(at).unwrap_or(u16::MAX)), piece);
    }
    whole.len().div_ceil(PIECE)
}

fn unseal(index: u64, whole: &Bytes) -> Record {
    if whole.len() < HEAD {
        return Err("it is cut short");
    }
    if whole[0] != RECORD_VERSION {
        return Err("its version is not known");
    }
    let record = whole.slice(HEAD..);
    let length = u32::from_le_bytes([whole[9], whole[10], whole[11], whole[12]]) as usize;
    if record.len() != length {
        return Err("it is cut short");
    }
    if le64(&whole[1..9]) == record_sum(index, &record) {
        Ok(record)
    } else {
        Err("its checksum does not fit")
    }
}

/// Bound to its index, so that a record in another's place is noticed too.
fn record_sum(index: u64, record: &[u8]) -> u64 {
    xxh3_64_with_seed(record, index)
}

fn le64(bytes: &[u8]) -> u64 {
    let mut eight = [0u8; 8];
    for (to, from) in eight.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(eight)
}

fn piece_key(index: u64, piece: u16) -> [u8; 11] {
    let mut key = [b'l'; 11];
    key[1..9].copy_from_slice(&index.to_be_bytes());
    key[9..].copy_from_slice(&piece.to_be_bytes());
    key
}

fn piece_index(key: &[u8]) -> u64 {
    let mut index = [0u8; 8];
    index.copy_from_slice(key.get(1..9).unwrap_or(&[0; 8]));
    u64::from_be_bytes(index)
}

fn slot_key(slot: Slot) -> &'static [u8] {
    match slot {
        Slot::Identity => b"identity",
        Slot::Vote => b"vote",
        Slot::Committed => b"committed",
        Slot::Purged => b"purged",
    }
}

fn open_error(dir: &Path, error: &sled::Error) -> DiskError {
    let (dir, reason) = (dir.to_owned(), error.to_string());
    match error {
        sled::Error::Io(io) if io.to_string().contains("acquire lock") => DiskError::Locked { dir },
        sled::Error::Corruption { .. } => {
            DiskError::Corrupt { dir, what: format!("the log cannot be read: {reason}") }
        }
        _ => DiskError::Failed { dir, action: "open the log", reason },
    }
}

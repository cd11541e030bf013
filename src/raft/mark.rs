//! A small file that says how far the log was synced, so that data lost by the disk is noticed. Never says more than
//! what is durable: lowered before a removal, raised after a sync.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::disk::{Change, Slot};

/// How far the log was synced and how many votes were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Index after the last one synced.
    pub end: u64,
    /// How often the vote was changed, up to the last one synced.
    pub votes: u64,
}

impl Mark {
    /// As it is after `changes`, and the lowest end on the way there.
    pub fn after(self, changes: &[Change]) -> (Self, u64) {
        let (mut mark, mut lowest) = (self, self.end);
        for change in changes {
            match change {
                Change::Put(index, _) => mark.end = index + 1,
                Change::Truncate(from) => mark.end = mark.end.min(*from),
                Change::Set(Slot::Vote, _) => mark.votes += 1,
                Change::Purge(_) | Change::Set(..) => {}
            }
            lowest = lowest.min(mark.end);
        }
        (mark, lowest)
    }
}

/// Where it is kept.
pub struct MarkFile(File);

impl MarkFile {
    /// Opens or makes it. One that cannot be read says nothing.
    pub fn open(path: &Path) -> io::Result<(Self, Mark)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0u8; 24];
        let whole = file.read_exact_at(&mut bytes, 0).is_ok();
        let (body, sum) = bytes.split_at(16);
        let mark = if whole && number(sum) == xxh3_64(body) {
            Mark { end: number(&body[..8]), votes: number(&body[8..]) }
        } else {
            Mark::default()
        };
        Ok((Self(file), mark))
    }

    /// Says so from now on; `durable` when it must be said before anything else happens.
    pub fn set(&self, mark: Mark, durable: bool) -> io::Result<()> {
        let mut bytes = [0u8; 24];
        bytes[..8].copy_from_slice(&mark.end.to_le_bytes());
        bytes[8..16].copy_from_slice(&mark.votes.to_le_bytes());
        let sum = xxh3_64(&bytes[..16]);
        bytes[16..].copy_from_slice(&sum.to_le_bytes());
        self.0.write_all_at(&bytes, 0)?;
        if durable { self.0.sync_data() } else { Ok(()) }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

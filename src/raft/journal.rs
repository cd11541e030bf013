//! Two files of zeros, written in turn and over and over: a record is one write and one sync of blocks that the file
//! system need not find first. Gives back after a crash what was written since the older one was begun. Does not know
//! what a record means.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One file's size. The last record in it may pass the end.
pub const SEGMENT: u64 = 2 * 1024 * 1024;
/// Generation, number, length, checksum.
const HEAD: usize = 8 + 8 + 4 + 8;

/// Where the next record goes.
pub struct Journal {
    files: [File; 2],
    active: usize,
    /// Told apart by it: what an earlier use of a file left behind. Grows with each use.
    generation: u64,
    number: u64,
    at: u64,
    buffer: Vec<u8>,
}

/// What a journal held when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order in which they were written.
    pub records: Vec<Vec<u8>>,
    /// Was the last one cut off half written?
    pub torn: bool,
}

struct Read {
    generation: u64,
    records: Vec<Vec<u8>>,
    torn: bool,
}

impl Journal {
    /// Opens or makes the two files in `dir`. What they held stays until each is begun anew.
    pub fn open(dir: &Path) -> io::Result<(Self, Found)> {
        let files = [open(&dir.join("journal.0"))?, open(&dir.join("journal.1"))?];
        // Their names must be as durable as what is written to them.
        for folder in [Some(dir), dir.parent()].into_iter().flatten() {
            File::open(folder)?.sync_all()?;
        }
        let mut held = [read(&files[0])?, read(&files[1])?];
        let newest = usize::from(held[1].generation > held[0].generation);
        let generation = held[newest].generation;
        let mut found = Found { records: std::mem::take(&mut held[1 - newest].records), torn: false };
        found.records.append(&mut held[newest].records);
        found.torn = held[newest].torn;
        let mut journal = Self { files, active: newest, generation, number: 0, at: 0, buffer: Vec::new() };
        journal.turn();
        Ok((journal, found))
    }

    /// Writes a record after the last one. It is durable after the next [`Journal::sync`].
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.generation.to_le_bytes());
        self.buffer.extend_from_slice(&self.number.to_le_bytes());
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&sum(self.generation, self.number, record).to_le_bytes());
        self.buffer.extend_from_slice(record);
        self.files[self.active].write_all_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.number += 1;
        Ok(())
    }

    /// Makes everything in the active file durable.
    pub fn sync(&self) -> io::Result<()> {
        self.files[self.active].sync_data()
    }

    /// Is it time to turn?
    pub fn full(&self) -> bool {
        self.at >= SEGMENT
    }

    /// Goes on in the other file, over what it holds; the caller keeps that elsewhere by now.
    pub fn turn(&mut self) {
        self.active = 1 - self.active;
        self.generation += 1;
        (self.number, self.at) = (0, 0);
    }

    /// Forgets everything that both files hold.
    pub fn clear(&mut self) -> io::Result<()> {
        for _ in 0..2 {
            self.append(&[])?;
            self.turn();
        }
        Ok(())
    }
}

fn sum(generation: u64, number: u64, record: &[u8]) -> u64 {
    xxh3_64_with_seed(record, generation.rotate_left(32) ^ number ^ record.len() as u64)
}

/// A file whose blocks are all there already, so that a sync has no more to write than the record.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let zeros = [0u8; 64 * 1024];
    let mut at = file.metadata()?.len();
    let grows = at < SEGMENT;
    while at < SEGMENT {
        let piece = zeros.len().min(usize::try_from(SEGMENT - at).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    if grows {
        file.sync_all()?;
    }
    Ok(file)
}

/// Every whole record of a file's last use, in order.
fn read(file: &File) -> io::Result<Read> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0u8; length];
    file.read_exact_at(&mut bytes, 0)?;
    let mut found = Read { generation: 0, records: Vec::new(), torn: false };
    let mut rest = bytes.as_slice();
    while let Some((head, body)) = rest.split_at_checked(HEAD) {
        let generation = le64(&head[..8]);
        let number = le64(&head[8..16]);
        let first = found.records.is_empty();
        if generation == 0
            || number != found.records.len() as u64
            || (!first && generation != found.generation)
        {
            break;
        }
        let length = le64(&head[16..20]) as usize;
        match body.split_at_checked(length) {
            Some((record, after)) if sum(generation, number, record) == le64(&head[20..]) => {
                found.generation = generation;
                found.records.push(record.to_vec());
                rest = after;
            }
            _ => {
                found.torn = true;
                break;
            }
        }
    }
    Ok(found)
}

fn le64(bytes: &[u8]) -> u64 {
    let mut eight = [0u8; 8];
    for (to, from) in eight.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(found: &Found) -> Vec<String> {
        found.records.iter().map(|record| String::from_utf8(record.clone()).unwrap()).collect()
    }

    #[test]
    fn what_was_written_in_both_files_comes_back_in_order_and_old_uses_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(found, Found::default());
        for (number, text) in ["a", "b", "turn", "c", "turn", "d", "e"].into_iter().enumerate() {
            match text {
                "turn" => journal.turn(),
                text => journal.append(format!("{text}{number}").as_bytes()).unwrap(),
            }
        }
        drop(journal);
        // The third use went over the first.
        let (mut journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!((texts(&found), found.torn), (vec!["c3".into(), "d5".into(), "e6".into()], false));
        journal.append(b"f").unwrap();
        drop(journal);
        // What was found stays until its file is needed.
        let (mut journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(texts(&found), ["d5", "e6", "f"]);
        journal.clear().unwrap();
        drop(journal);
        let (_, found) = Journal::open(dir.path()).unwrap();
        assert!(found.records.iter().all(Vec::is_empty) && !found.torn, "{found:?}");
    }

    #[test]
    fn a_record_that_passes_the_end_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        let large = vec![7u8; SEGMENT as usize + 5];
        journal.append(b"small").unwrap();
        assert!(!journal.full());
        journal.append(&large).unwrap();
        assert!(journal.full());
        let (_, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(found.records, [b"small".to_vec(), large]);
    }

    #[test]
    fn any_damage_cuts_off_what_follows_and_never_makes_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        let written = [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()];
        written.iter().for_each(|record| journal.append(record).unwrap());
        let (path, end) = (dir.path().join(format!("journal.{}", journal.active)), journal.at as usize);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..end {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            let (_, found) = Journal::open(dir.path()).unwrap();
            assert!(found.records.len() < 3 && written.starts_with(&found.records), "byte {at}: {found:?}");
        }
    }
}

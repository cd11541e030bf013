//! The log store and the snapshots against the library's own suite, and against damage.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::codec::IdentityV1;
use super::disk::{Change, DiskError, LogDisk, Slot};
use super::log::{self, LogStore};
use super::machine::Machine;
use super::sled_disk::SledDisk;
use super::snapshots::SnapshotFiles;
use super::tree::Tree;
use super::types::TypeConfig;
use crate::ports::{SnapshotJob, StateMachine};

/// Keeps every proposal.
#[derive(Default)]
struct Journal(Vec<Vec<u8>>);

impl StateMachine for Journal {
    fn apply(&mut self, _revision: u64, proposals: &[Bytes]) -> Vec<Bytes> {
        self.0.extend(proposals.iter().map(|proposal| proposal.to_vec()));
        proposals.to_vec()
    }

    fn snapshot(&self) -> SnapshotJob {
        let all = self.0.clone();
        Box::new(move || Ok(postcard::to_stdvec(&all)?))
    }

    fn restore(&mut self, _revision: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.0 = postcard::from_bytes(bytes)?;
        Ok(())
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(SledDisk::open(dir.path()).unwrap());
        let (store, _thread) = log::open(disk, dir.path(), &identity(1)).unwrap();
        let files = SnapshotFiles::open(&dir.path().join("snapshots")).unwrap();
        let machine = Machine::new(Box::<Journal>::default(), files, Arc::new(AtomicU64::new(0)));
        Ok((dir, store, machine))
    }
}

fn identity(node: u64) -> IdentityV1 {
    IdentityV1 { cluster: "alpha".to_owned(), node }
}

#[test]
fn log_store_passes_the_library_suite() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(Builder)).unwrap();
}

fn record(index: u64, size: usize) -> Bytes {
    (0..size).map(|at| (at as u64 ^ index) as u8).collect()
}

fn fill(dir: &std::path::Path, entries: std::ops::Range<u64>, size: usize) {
    let disk = SledDisk::open(dir).unwrap();
    for index in entries {
        disk.write(&[Change::Put(index, record(index, size))], true).unwrap();
    }
}

#[test]
fn large_records_come_back_whole_and_no_file_stays_unsynced() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..30, 700_000);
    let disk = SledDisk::open(dir.path()).unwrap();
    let back = disk.read(0, 29, usize::MAX).unwrap();
    assert_eq!(back.len(), 30);
    assert!(back.iter().zip(0..).all(|(got, index)| *got == record(index, 700_000)));
    let blobs = std::fs::read_dir(dir.path().join("log/blobs")).unwrap().count();
    assert_eq!(blobs, 0, "sled does not sync what it keeps outside of its log file");
}

#[test]
fn a_read_stops_at_its_limit_but_gives_at_least_one_record() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..4, 10_000);
    let disk = SledDisk::open(dir.path()).unwrap();
    assert_eq!(disk.read(0, 3, 25_000).unwrap().len(), 2);
    assert_eq!(disk.read(2, 3, 1).unwrap(), vec![record(2, 10_000)]);
}

#[test]
fn truncation_and_purge_survive_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..10, 100);
    {
        let disk = SledDisk::open(dir.path()).unwrap();
        let purge = [Change::Purge(2), Change::Set(Slot::Purged, Bytes::from_static(b"p"))];
        disk.write(&purge, false).unwrap();
        disk.write(&[Change::Truncate(7), Change::Put(7, record(77, 50))], true).unwrap();
    }
    let disk = SledDisk::open(dir.path()).unwrap();
    assert_eq!(disk.held().unwrap().range, Some((3, 7)));
    assert_eq!(disk.read(7, 7, usize::MAX).unwrap(), vec![record(77, 50)]);
}

/// As after a crash: the files as they are now, while nothing is on its way to the tree.
fn crashed(dir: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("log")).unwrap();
    for folder in ["", "log"] {
        for entry in std::fs::read_dir(dir.join(folder)).unwrap() {
            let from = entry.unwrap();
            if from.file_type().unwrap().is_file() {
                std::fs::copy(from.path(), copy.path().join(folder).join(from.file_name())).unwrap();
            }
        }
    }
    copy
}

#[test]
fn what_was_synced_is_there_after_a_crash_though_the_tree_never_got_it() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..5, 100);
    let disk = SledDisk::open(dir.path()).unwrap();
    disk.write(&[Change::Put(5, record(5, 20_000)), Change::Set(Slot::Vote, Bytes::from_static(b"v"))], true)
        .unwrap();
    disk.write(&[Change::Truncate(4), Change::Put(4, record(44, 50))], true).unwrap();
    disk.write(&[Change::Put(5, record(55, 50))], false).unwrap();
    disk.write(&[Change::Put(6, record(66, 50))], true).unwrap();
    for _ in 0..2 {
        // A crash during the move, too, only means that it is moved again.
        let copy = crashed(dir.path());
        for _ in 0..2 {
            let again = SledDisk::open(copy.path()).unwrap();
            let held = again.held().unwrap();
            assert_eq!((held.range, held.slots[&Slot::Vote].as_ref()), (Some((0, 6)), &b"v"[..]));
            let wanted = [record(3, 100), record(44, 50), record(55, 50), record(66, 50)];
            assert_eq!(again.read(3, 6, usize::MAX).unwrap(), wanted);
        }
    }
}

#[test]
fn a_journal_that_lost_a_synced_record_is_refused_and_one_half_written_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SledDisk::open(dir.path()).unwrap();
    disk.write(&[Change::Put(0, record(0, 100))], true).unwrap();
    let synced = crashed(dir.path());
    disk.write(&[Change::Put(1, record(1, 100))], false).unwrap();
    // The last byte that is not zero is the newest record's.
    let tear = |dir: &std::path::Path| {
        for name in ["journal.0", "journal.1"] {
            let mut bytes = std::fs::read(dir.join(name)).unwrap();
            let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            if last > 64 {
                bytes[last] ^= 1;
                std::fs::write(dir.join(name), bytes).unwrap();
            }
        }
    };
    let unsynced = crashed(dir.path());
    tear(unsynced.path());
    assert_eq!(SledDisk::open(unsynced.path()).unwrap().held().unwrap().range, Some((0, 0)));
    tear(synced.path());
    let error = SledDisk::open(synced.path()).err().unwrap().to_string();
    assert!(error.contains("log entry 0 was synced but the log ends before 0"), "{error}");
}

#[test]
fn reads_are_whole_while_the_journal_is_moved_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SledDisk::open(dir.path()).unwrap();
    let (size, count) = (30_000, 400);
    for index in 0..count {
        disk.write(&[Change::Put(index, record(index, size))], index % 3 == 0).unwrap();
        if index % 50 == 49 {
            let cut = [Change::Truncate(index - 2), Change::Put(index - 2, record(7, size))];
            disk.write(&cut, true).unwrap();
            assert_eq!(disk.read(index - 2, index, usize::MAX).unwrap(), [record(7, size)]);
            let back = [(index - 2, index - 2), (index - 1, index - 1), (index, index)];
            let back: Vec<Change> = back.map(|(at, of)| Change::Put(at, record(of, size))).to_vec();
            disk.write(&[vec![Change::Truncate(index - 2)], back].concat(), true).unwrap();
        }
        let from = index.saturating_sub(60);
        let read = disk.read(from, index, usize::MAX).unwrap();
        assert!(read.iter().enumerate().all(|(at, got)| *got == record(from + at as u64, size)));
        assert_eq!(read.len() as u64, index - from + 1);
    }
    drop(disk);
    let disk = SledDisk::open(dir.path()).unwrap();
    assert_eq!(disk.held().unwrap().range, Some((0, count - 1)));
    assert_eq!(disk.read(0, count, size * 3).unwrap().len(), 3);
}

/// Changes the tree behind the store's back.
fn tamper(dir: &std::path::Path, change: impl FnOnce(&sled::Db)) {
    let db = sled::open(dir.join("log")).unwrap();
    change(&db);
    db.flush().unwrap();
}

fn key(index: u64) -> Vec<u8> {
    let mut key = vec![b'l'];
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&0u16.to_be_bytes());
    key
}

fn flip(db: &sled::Db, index: u64) {
    let mut value = db.get(key(index)).unwrap().unwrap().to_vec();
    let at = value.len() - 1;
    value[at] ^= 1;
    db.insert(key(index), value).unwrap();
}

#[test]
fn a_damaged_record_that_was_synced_is_an_error_that_names_it() {
    for index in [4, 9] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 0..10, 100);
        tamper(dir.path(), |db| flip(db, index));
        let error = SledDisk::open(dir.path()).err().unwrap();
        let said = error.to_string();
        assert!(matches!(error, DiskError::Corrupt { .. }), "{said}");
        assert!(said.contains(&format!("log entry {index} is damaged")), "{said}");
    }
}

#[test]
fn a_missing_record_is_an_error_that_names_it() {
    for (gone, said) in
        [(5, "log entry 5 is missing"), (0, "log entry 0 is missing"), (9, "log entry 9 was synced")]
    {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 0..10, 100);
        tamper(dir.path(), |db| drop(db.remove(key(gone)).unwrap()));
        let error = SledDisk::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_torn_end_that_was_never_synced_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..10, 100);
    {
        let disk = SledDisk::open(dir.path()).unwrap();
        disk.write(&[Change::Put(10, record(10, 100)), Change::Put(11, record(11, 100))], false).unwrap();
    }
    tamper(dir.path(), |db| flip(db, 11));
    let disk = SledDisk::open(dir.path()).unwrap();
    assert_eq!(disk.held().unwrap().range, Some((0, 10)));
    assert_eq!(disk.held().unwrap().last, Some(record(10, 100)));
}

#[test]
fn a_log_file_that_lost_its_synced_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..3, 100);
    let early = std::fs::read(dir.path().join("log/db")).unwrap();
    fill(dir.path(), 3..200, 5_000);
    for entry in std::fs::read_dir(dir.path().join("log")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            std::fs::remove_file(path).unwrap();
        }
    }
    std::fs::write(dir.path().join("log/db"), early).unwrap();
    let error = SledDisk::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("the disk lost data"), "{error}");
}

#[test]
fn a_folder_in_use_or_of_another_cluster_or_node_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(SledDisk::open(dir.path()).unwrap());
    let second = SledDisk::open(dir.path()).err().unwrap();
    assert!(matches!(second, DiskError::Locked { .. }), "{second}");

    let (store, thread) = log::open(disk.clone(), dir.path(), &identity(1)).unwrap();
    drop(store);
    thread.join();
    let other = log::open(disk.clone(), dir.path(), &identity(2)).err().unwrap();
    assert!(matches!(other, DiskError::Foreign { .. }), "{other}");
    let foreign = IdentityV1 { cluster: "beta".to_owned(), node: 1 };
    let other = log::open(disk.clone(), dir.path(), &foreign).err().unwrap().to_string();
    assert!(other.contains("node 1 of cluster alpha"), "{other}");
    assert!(log::open(disk, dir.path(), &identity(1)).is_ok());
}

#[test]
fn a_damaged_snapshot_is_an_error_and_an_interrupted_one_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::open(dir.path()).unwrap();
    let meta = super::types::SnapshotMeta {
        last_log_id: Some(super::types::LogId::new_term_index(2, 17)),
        ..Default::default()
    };
    files.save(&meta, b"state").unwrap();
    assert_eq!(files.load().unwrap(), Some((meta, Bytes::from_static(b"state"))));

    std::fs::write(dir.path().join("x.snapshot.tmp"), b"half").unwrap();
    let files = SnapshotFiles::open(dir.path()).unwrap();
    let path = dir.path().join("00000000000000000017.snapshot");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = files.load().unwrap_err().to_string();
    assert!(error.contains("00000000000000000017.snapshot is damaged"), "{error}");
}

/// sled frees a replaced page no sooner than with later batches: one that holds too much leaves all of it behind.
#[test]
fn moving_small_records_into_the_tree_for_long_keeps_no_more_than_a_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let resident = || crate::host::resident_kib(std::process::id()).unwrap() / 1024;
    let part = |number: u64| -> Vec<Change> {
        (number * 4_000..(number + 1) * 4_000).map(|index| Change::Put(index, record(index, 200))).collect()
    };
    tree.write(&part(0)).unwrap();
    let before = resident();
    (1..6).for_each(|number| tree.write(&part(number)).unwrap());
    let after = resident();
    assert!(after < before + 32, "from {before} to {after} MiB");
}

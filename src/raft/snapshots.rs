//! Snapshots as files: one at a time, written beside and renamed into place, with a checksum over
//! all of it. Does not know what a snapshot contains.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::codec::{SnapshotMetaV1, Wire};
use super::disk::DiskError;
use super::types::SnapshotMeta;

const MAGIC: &[u8; 8] = b"QRSNAP01";
/// Magic, checksum, length of the description.
const HEAD: usize = 8 + 8 + 4;

/// The folder that holds the newest snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotFiles {
    dir: PathBuf,
}

impl SnapshotFiles {
    /// Uses (and makes) `dir`; removes what an interrupted writer left there.
    pub fn open(dir: &Path) -> Result<Self, DiskError> {
        let files = Self { dir: dir.to_owned() };
        files.prepare().map_err(|error| files.failed("open the snapshots", &error))?;
        Ok(files)
    }

    fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn failed(&self, action: &'static str, error: &io::Error) -> DiskError {
        DiskError::Failed { dir: self.dir.clone(), action, reason: error.to_string() }
    }

    /// Writes a snapshot so that it survives a loss of power, and then removes the older ones.
    pub fn save(&self, meta: &SnapshotMeta, body: &[u8]) -> Result<(), DiskError> {
        self.write(meta, body).map_err(|error| self.failed("write a snapshot", &error))
    }

    fn write(&self, meta: &SnapshotMeta, body: &[u8]) -> io::Result<()> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let name = format!("{index:020}.snapshot");
        let (path, tmp) = (self.dir.join(&name), self.dir.join(format!("{name}.tmp")));
        let about = SnapshotMetaV1::from(meta).encode();
        let length = u32::try_from(about.len()).map_err(io::Error::other)?.to_le_bytes();
        let mut sum = Xxh3::new();
        for part in [&length[..], &about, body] {
            sum.update(part);
        }
        let mut file = File::create(&tmp)?;
        for part in [&MAGIC[..], &sum.digest().to_le_bytes(), &length, &about, body] {
            file.write_all(part)?;
        }
        file.sync_all()?;
        fs::rename(&tmp, &path)?;
        File::open(&self.dir)?.sync_all()?;
        for older in self.list()?.into_iter().filter(|older| *older != path) {
            fs::remove_file(older)?;
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "snapshot") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// The newest snapshot, if there is one. A damaged one is an error: what it covered is gone from
    /// the log.
    pub fn load(&self) -> Result<Option<(SnapshotMeta, Bytes)>, DiskError> {
        let newest = self.list().map_err(|error| self.failed("list the snapshots", &error))?.pop();
        let Some(path) = newest else { return Ok(None) };
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|error| self.failed("read a snapshot", &error))?;
        parse(&Bytes::from(bytes)).map(Some).map_err(|what| DiskError::Corrupt {
            dir: self.dir.clone(),
            what: format!("snapshot {} {what}", path.file_name().unwrap_or_default().display()),
        })
    }
}

fn parse(bytes: &Bytes) -> Result<(SnapshotMeta, Bytes), String> {
    if bytes.len() < HEAD {
        return Err("is cut short".to_owned());
    }
    if &bytes[..8] != MAGIC {
        return Err("has a form that this release does not know".to_owned());
    }
    let sum = bytes[8..16].iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    if sum != xxh3_64(&bytes[16..]) {
        return Err("is damaged: its checksum does not fit".to_owned());
    }
    let about = bytes[16..20].iter().rev().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
    let body = HEAD.saturating_add(about);
    let about = bytes.get(HEAD..body).ok_or("is cut short")?;
    let meta = SnapshotMetaV1::decode(about).and_then(SnapshotMeta::try_from);
    Ok((meta.map_err(|error| error.to_string())?, bytes.slice(body..)))
}

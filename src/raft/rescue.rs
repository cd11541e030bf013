//! Work on a raft folder on which nothing runs: brings a state machine to the log's end, and makes the folder
//! anew from a state and a membership. The old one is kept beside it. Knows neither what the state means nor
//! who should be a member.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use quorate_core::ids::{ClusterId, Endpoint};

use super::codec::{EntryV1, IdentityV1, LogIdV1, MembershipV1, PayloadV1, SnapshotMetaV1, VoteV1, Wire};
use super::disk::{Change, DiskError, LogDisk, Slot};
use super::sled_disk::SledDisk;
use super::snapshots::SnapshotFiles;
use crate::ports::StateMachine;

/// Bytes of the log read at a time.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// A position in the log: the later term is further, then the higher index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The term of its entry.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// What a raft folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// The last entry.
    pub last: Position,
    /// The last entry known here to be committed; more may be.
    pub committed: u64,
    /// The newest term this node has taken part in.
    pub term: u64,
    /// Who votes, by the last membership in the log.
    pub voters: Vec<u64>,
    /// Where each member is reached.
    pub members: BTreeMap<u64, Vec<Endpoint>>,
}

/// Reads the folder and brings `state` to the end of its log, entries that were never known to be committed
/// included: whether they were, nobody else is left to tell.
pub fn replay(
    dir: &Path,
    cluster: &ClusterId,
    id: u64,
    state: &mut dyn StateMachine,
) -> anyhow::Result<Held> {
    let disk = SledDisk::open(dir)?;
    let stored = disk.held()?;
    let corrupt = |what: String| DiskError::Corrupt { dir: dir.to_owned(), what };
    let Some(identity) = stored.slots.get(&Slot::Identity) else {
        bail!("{} holds no log", dir.display());
    };
    let (found, wanted) =
        (IdentityV1::decode(identity)?, IdentityV1 { cluster: cluster.0.clone(), node: id });
    if found != wanted {
        bail!("{} holds the log of node {} of cluster {}", dir.display(), found.node, found.cluster);
    }
    let place = |slot| match stored.slots.get(&slot) {
        None => Ok(None),
        Some(bytes) => <Option<LogIdV1>>::decode(bytes),
    };
    let vote = stored.slots.get(&Slot::Vote).map(|bytes| VoteV1::decode(bytes)).transpose()?;
    let mut held = Held { term: vote.map_or(0, |vote| vote.term), ..Held::default() };
    let mut next = place(Slot::Purged)?.map_or(0, |purged| purged.index + 1);
    if let Some((meta, body)) = SnapshotFiles::open(&dir.join("snapshots"))?.load()? {
        let meta = SnapshotMetaV1::from(&meta);
        let last = meta.last.unwrap_or(LogIdV1 { term: 0, index: 0 });
        state.restore(last.index, &body)?;
        held.take(&meta.membership);
        held.last = Position { term: last.term, index: last.index };
        held.committed = last.index;
        next = next.max(last.index + 1);
    }
    if let Some((first, last)) = stored.range {
        if first > next {
            return Err(corrupt(format!("log entry {next} is missing")).into());
        }
        while next <= last {
            let records = disk.read(next, last, READ_BYTES)?;
            if records.is_empty() {
                return Err(corrupt(format!("log entry {next} is missing")).into());
            }
            for record in records {
                held.apply(EntryV1::decode(&record)?, state);
                next = held.last.index + 1;
            }
        }
    }
    held.committed = place(Slot::Committed)?.map_or(held.committed, |id| id.index.max(held.committed));
    held.term = held.term.max(held.last.term);
    Ok(held)
}

impl Held {
    fn take(&mut self, membership: &MembershipV1) {
        self.voters = membership.voters.last().cloned().unwrap_or_default();
        self.members = membership.nodes.iter().cloned().collect();
    }

    fn apply(&mut self, entry: EntryV1, state: &mut dyn StateMachine) {
        self.last = Position { term: entry.id.term, index: entry.id.index };
        match entry.payload {
            PayloadV1::Blank => {}
            PayloadV1::Proposals(proposals) => drop(state.apply(entry.id.index, &proposals)),
            PayloadV1::Membership(membership) => self.take(&membership),
        }
    }
}

/// What a raft folder is made from.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its node.
    pub id: u64,
    /// What the state covers: the log goes on after it. Above everything the members may have in their logs.
    pub at: Position,
    /// Who votes, and where each is reached.
    pub voters: BTreeMap<u64, Vec<Endpoint>>,
    /// The state as of `at`.
    pub state: Vec<u8>,
}

/// Makes the folder anew; what was there is kept beside it, and its new name given back. All or nothing: until
/// the last step the old folder is untouched.
pub fn begin_anew(dir: &Path, begin: &Beginning, epoch: u64) -> anyhow::Result<Option<PathBuf>> {
    let draft = beside(dir, "new");
    if draft.exists() {
        fs::remove_dir_all(&draft).with_context(|| format!("cannot remove {}", draft.display()))?;
    }
    write(&draft, begin)?;
    let old = beside(dir, &format!("before-epoch-{epoch}"));
    let kept = dir.exists();
    if kept {
        if old.exists() {
            bail!("{} is there already; move it away first, nothing was changed", old.display());
        }
        fs::rename(dir, &old).with_context(|| format!("cannot move {}", dir.display()))?;
    }
    fs::rename(&draft, dir).with_context(|| format!("cannot put {} in place", dir.display()))?;
    if let Some(above) = dir.parent() {
        File::open(above)?.sync_all()?;
    }
    Ok(kept.then_some(old))
}

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    dir.with_file_name(format!("{name}.{suffix}"))
}

fn write(dir: &Path, begin: &Beginning) -> anyhow::Result<()> {
    let Beginning { cluster, id, at, voters, state } = begin;
    let disk = SledDisk::open(dir)?;
    let identity = IdentityV1 { cluster: cluster.0.clone(), node: *id };
    let vote = VoteV1 { term: at.term, node: *id, committed: false };
    let position = Some(LogIdV1 { term: at.term, index: at.index });
    disk.write(
        &[
            Change::Purge(at.index),
            Change::Set(Slot::Purged, position.encode()),
            Change::Set(Slot::Identity, identity.encode()),
            Change::Set(Slot::Vote, vote.encode()),
            Change::Set(Slot::Committed, position.encode()),
        ],
        true,
    )?;
    drop(disk);
    let membership = MembershipV1 {
        voters: vec![voters.keys().copied().collect()],
        nodes: voters.iter().map(|(id, endpoints)| (*id, endpoints.clone())).collect(),
    };
    let meta = SnapshotMetaV1 { last: position, membership_at: position, membership };
    let files = SnapshotFiles::open(&dir.join("snapshots"))?;
    files.save(&meta.try_into()?, &Bytes::copy_from_slice(state))?;
    for name in [dir.join("log"), dir.to_owned()] {
        File::open(&name)?.sync_all().with_context(|| format!("cannot sync {}", name.display()))?;
    }
    Ok(())
}

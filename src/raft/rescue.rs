//! What is done to a stopped node's folder: making it the only voter when the others are lost for
//! good, and beginning a new cluster from a state. Both leave acknowledged writes behind that others
//! may have had; who calls them raises the epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use quorate_core::ids::{ClusterId, Endpoint};

use super::codec::{EntryV1, IdentityV1, VoteV1, Wire, position};
use super::disk::{Change, LogDisk, Slot};
use super::log;
use super::sled_disk::SledDisk;
use super::snapshots::SnapshotFiles;
use super::types::{Entry, LogId, Member, Membership, Payload, SnapshotMeta, StoredMembership, Vote};

/// Where a folder ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// Term of the last entry.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

fn alone(id: u64, endpoints: Vec<Endpoint>) -> anyhow::Result<Membership> {
    let nodes = BTreeMap::from([(id, Member { endpoints })]);
    Membership::new(vec![BTreeSet::from([id])], nodes).context("cannot make a membership of one")
}

fn identity(id: u64, cluster: &ClusterId) -> IdentityV1 {
    IdentityV1 { cluster: cluster.0.clone(), node: id }
}

/// Makes the stopped node `id` the only voter of its cluster, keeping all that its log holds, even what
/// was never known to be committed. The others must never come back with their old data. Gives the end
/// of the log before it: of several survivors, the one with the highest must be taken.
pub fn force_quorum(
    dir: &Path,
    id: u64,
    cluster: &ClusterId,
    endpoints: Vec<Endpoint>,
) -> anyhow::Result<LogEnd> {
    let disk = Arc::new(SledDisk::open(dir)?);
    let end = log_end(&disk, dir, &identity(id, cluster))?;
    let held = disk.held()?;
    let Some(last) = end else {
        bail!("{} holds no log; nothing can be recovered from it", dir.display());
    };
    let voted = held.slots.get(&Slot::Vote).map(|bytes| VoteV1::decode(bytes)).transpose()?;
    // Above every term that this node has heard of, so that no leader of before is followed again.
    let term = voted.map_or(0, |vote| vote.term).max(last.committed_leader_id().term) + 1;
    let forced = LogId::new_term_index(term, last.index + 1);
    let entry = Entry { log_id: forced, payload: Payload::Membership(alone(id, endpoints)?) };
    let vote = VoteV1 { term, node: id, committed: false };
    disk.write(
        &[
            Change::Set(Slot::Vote, VoteV1::from(&Vote::from(vote)).encode()),
            Change::Put(forced.index, EntryV1::from(&entry).encode()),
            Change::Set(Slot::Committed, position(Some(&forced)).encode()),
        ],
        true,
    )?;
    Ok(LogEnd { term: last.committed_leader_id().term, index: last.index })
}

/// Where the log of the stopped node `id` ends; nothing if it has none.
pub fn inspect(dir: &Path, id: u64, cluster: &ClusterId) -> anyhow::Result<Option<LogEnd>> {
    let disk = Arc::new(SledDisk::open(dir)?);
    let end = log_end(&disk, dir, &identity(id, cluster))?;
    Ok(end.map(|id| LogEnd { term: id.committed_leader_id().term, index: id.index }))
}

fn log_end(disk: &Arc<SledDisk>, dir: &Path, identity: &IdentityV1) -> anyhow::Result<Option<LogId>> {
    let (store, thread) = log::open(disk.clone(), dir, identity)?;
    let end = store.end();
    drop(store);
    thread.join();
    Ok(end)
}

/// Fills an empty folder with a state as of `revision`, for the one voter of a new cluster.
pub fn seed(
    dir: &Path,
    id: u64,
    cluster: &ClusterId,
    endpoints: Vec<Endpoint>,
    revision: u64,
    state: &[u8],
) -> anyhow::Result<()> {
    let disk = Arc::new(SledDisk::open(dir)?);
    if disk.held()?.range.is_some() || !disk.held()?.slots.is_empty() {
        bail!("{} already holds data; a state is restored into an empty folder only", dir.display());
    }
    let (store, thread) = log::open(disk.clone(), dir, &identity(id, cluster))?;
    drop(store);
    thread.join();
    // The first term of the new cluster comes after that of the seed.
    let at = LogId::new_term_index(1, revision);
    let membership = StoredMembership::new(Some(at), alone(id, endpoints)?);
    let meta = SnapshotMeta { last_log_id: Some(at), last_membership: membership };
    SnapshotFiles::open(&dir.join("snapshots"))?.save(&meta, state)?;
    let place = position(Some(&at)).encode();
    let vote = VoteV1 { term: 1, node: id, committed: false };
    disk.write(
        &[
            Change::Set(Slot::Vote, vote.encode()),
            Change::Purge(revision),
            Change::Set(Slot::Purged, place.clone()),
            Change::Set(Slot::Committed, place),
        ],
        true,
    )?;
    Ok(())
}

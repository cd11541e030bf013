//! Who this node is: its data directory with its lock, its identity and the cluster's secret. A copy
//! of another host's data, another node's or another cluster's is refused before anything is touched.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, bail};
use quorate_core::ids::{ClusterId, DiskId, Epoch, LeaseEpoch, MachineId, NodeId, RaftId};
use quorate_core::state::RaftTiming;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

/// What `data_dir/identity` holds: readable, since people look at it when a disk was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The form of this file.
    pub format: u32,
    /// The node's name.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number in Raft; absent until it was admitted.
    pub raft_id: Option<RaftId>,
    /// Drawn when the directory was made.
    pub disk: DiskId,
    /// The host it was made on.
    pub machine: MachineId,
    /// The epoch of its cluster that it was last in.
    #[serde(default = "first_epoch")]
    pub epoch: Epoch,
    /// The directory itself, as its file system knows it: a copy of it is another one.
    #[serde(default)]
    pub folder: Option<String>,
}

fn first_epoch() -> Epoch {
    Epoch(1)
}

/// The data directory of a running node: no other process has it.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    lock: File,
}

/// What `data_dir/node.lock` names, for those who find the directory in use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LockNote {
    /// The process.
    pub pid: u32,
    /// The node's name.
    pub node: String,
    /// Its node-to-node address.
    pub bind: String,
    /// Its API address.
    pub grpc: String,
    /// Its HTTP address.
    pub http: String,
}

impl DataDir {
    /// Makes the directory where it is missing and takes its lock.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("cannot make data_dir {}", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("cannot find {}", root.display()))?;
        let path = root.join("node.lock");
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder =
                Self::note(&root).map_or_else(String::new, |n| format!(" (pid {}, {})", n.pid, n.bind));
            bail!("{} is in use by another node{holder}; stop it or choose another data_dir", root.display());
        }
        Ok(Self { root, lock })
    }

    /// The directory, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Says who holds the directory.
    pub fn announce(&mut self, note: &LockNote) -> anyhow::Result<()> {
        let text = serde_json::to_string(note)?;
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        self.lock.write_all(text.as_bytes())?;
        self.lock.flush().context("cannot write node.lock")
    }

    /// Who last held a directory, whether or not it still does.
    pub fn note(root: &Path) -> Option<LockNote> {
        serde_json::from_str(&fs::read_to_string(root.join("node.lock")).ok()?).ok()
    }

    /// The directory as its file system knows it: its inode, and when that was made. Both go with the
    /// directory when it is moved, and neither with a copy.
    pub fn folder(&self) -> Option<String> {
        let about = fs::metadata(&self.root).ok()?;
        let made = about.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Some(format!("{}.{}", about.ino(), made.map_or(0, |made| made.as_nanos())))
    }

    /// The identity, if the directory has one; refused if it is not this node's on this host.
    pub fn identity(&self, node: &NodeId, machine: &MachineId) -> anyhow::Result<Option<Identity>> {
        let Some(found) = self.stored_identity()? else { return Ok(None) };
        if &found.node != node {
            bail!(
                "{} holds the data of node {}, not of {node}; set node_id or choose another data_dir",
                self.root.display(),
                found.node
            );
        }
        self.check_own(&found, machine)?;
        Ok(Some(found))
    }

    /// Was it made here, by this host, and is this the directory it was made in?
    pub fn check_own(&self, found: &Identity, machine: &MachineId) -> anyhow::Result<()> {
        if &found.machine != machine {
            bail!(
                "{} was made on another host (machine id {}, this one is {machine}): a copy is refused; \
                 start with an empty data_dir and join anew",
                self.root.display(),
                found.machine
            );
        }
        if found.folder.is_some() && found.folder != self.folder() {
            bail!(
                "{} is a copy of the data of {}, or came back from a backup: it may lack what {} has promised \
                 since, so it is refused; start with an empty data_dir and join anew",
                self.root.display(),
                found.node,
                found.node
            );
        }
        Ok(())
    }

    /// The identity as it is stored, whoever's it is.
    pub fn stored_identity(&self) -> anyhow::Result<Option<Identity>> {
        let path = self.root.join("identity");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let found: Identity = serde_json::from_str(&text).with_context(|| {
            format!("{} is damaged; remove this node and let it join anew", path.display())
        })?;
        if found.format != 1 {
            bail!("{} has format {}, this release knows 1; upgrade this node", path.display(), found.format);
        }
        Ok(Some(found))
    }

    /// Keeps the identity, durably, all or nothing.
    pub fn keep_identity(&self, identity: &Identity) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(identity)? + "\n";
        self.keep("identity", text.as_bytes(), 0o644)
    }

    /// The cluster's secret, if it was kept.
    pub fn secret(&self) -> anyhow::Result<Option<String>> {
        let path = self.root.join("secret");
        let mut text = String::new();
        match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
            Ok(mut file) => {
                let mode = file.metadata()?.permissions().mode();
                if mode & 0o077 != 0 {
                    bail!("{} can be read by others (mode {mode:o}); chmod 600 it", path.display());
                }
                file.read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
            }
        }
        Ok(Some(text.trim().to_owned()))
    }

    /// Keeps the cluster's secret, for this account's eyes only.
    pub fn keep_secret(&self, secret: &str) -> anyhow::Result<()> {
        self.keep("secret", format!("{secret}\n").as_bytes(), 0o600)
    }

    fn keep(&self, name: &str, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
        keep(&self.root, name, bytes, mode)
    }
}

/// Writes a small file durably, all or nothing.
fn keep(root: &Path, name: &str, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let (path, draft) = (root.join(name), root.join(format!("{name}.new")));
    let write = || -> std::io::Result<()> {
        if draft.exists() {
            fs::remove_file(&draft)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        File::open(root)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Keeps the epoch of the cluster that the node of a directory is about to enter.
pub fn keep_epoch(root: &Path, epoch: Epoch) -> anyhow::Result<()> {
    let path = root.join("identity");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut identity: Identity = serde_json::from_str(&text)?;
    identity.epoch = epoch;
    keep(root, "identity", (serde_json::to_string_pretty(&identity)? + "\n").as_bytes(), 0o644)
}

/// A new disk has held no lease yet.
pub fn forget_lease_epoch(root: &Path) -> anyhow::Result<()> {
    match fs::remove_file(root.join("lease_epoch")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove lease_epoch from {}", root.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Keeps the epoch of the lease that is about to be used.
pub fn keep_lease_epoch(root: &Path, epoch: LeaseEpoch) -> anyhow::Result<()> {
    keep(root, "lease_epoch", format!("{epoch}\n").as_bytes(), 0o644)
}

/// Keeps Raft's timing as State has it: needed before State can be read again.
pub fn keep_raft_timing(root: &Path, timing: RaftTiming) -> anyhow::Result<()> {
    keep(root, "raft_timing", (serde_json::to_string(&timing)? + "\n").as_bytes(), 0o644)
}

/// Raft's timing as it was last kept.
pub fn raft_timing(root: &Path) -> anyhow::Result<Option<RaftTiming>> {
    let path = root.join("raft_timing");
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display())),
    }
}

/// The epoch of the last lease ever held with a data directory.
pub fn lease_epoch(root: &Path) -> anyhow::Result<Option<LeaseEpoch>> {
    let path = root.join("lease_epoch");
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        Ok(text) => {
            let number = text.trim().parse();
            Ok(Some(LeaseEpoch(number.with_context(|| format!("{} is damaged", path.display()))?)))
        }
    }
}

/// The host, as it names itself. A host that has no name of its own is told apart by its host name.
pub fn machine_id() -> MachineId {
    let known = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let known = known.trim();
    if known.is_empty() {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        MachineId(format!("host-{name}"))
    } else {
        MachineId(known.to_owned())
    }
}

/// A text of `bytes` random bytes, hexadecimal.
pub fn draw(bytes: usize) -> String {
    (0..bytes).map(|_| format!("{:02x}", rand::random::<u8>())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(node: &str) -> Identity {
        Identity {
            format: 1,
            node: node.parse().unwrap(),
            cluster: ClusterId("c".to_owned()),
            raft_id: Some(RaftId(3)),
            disk: DiskId(draw(16)),
            machine: MachineId("m".to_owned()),
            epoch: Epoch(1),
            folder: None,
        }
    }

    #[test]
    fn a_data_directory_has_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = DataDir::open(dir.path()).unwrap();
        first
            .announce(&LockNote { pid: 42, bind: "127.0.0.1:7000".to_owned(), ..LockNote::default() })
            .unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("pid 42, 127.0.0.1:7000"), "{error}");
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn identity_of_another_node_or_host_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let (n1, here) = ("n1".parse().unwrap(), MachineId("m".to_owned()));
        assert_eq!(data.identity(&n1, &here).unwrap(), None);
        let kept = sample("n1");
        data.keep_identity(&kept).unwrap();
        assert_eq!(data.identity(&n1, &here).unwrap(), Some(kept));
        let other = data.identity(&"n2".parse().unwrap(), &here).unwrap_err().to_string();
        assert!(other.contains("data of node n1"), "{other}");
        let copy = data.identity(&n1, &MachineId("x".to_owned())).unwrap_err().to_string();
        assert!(copy.contains("a copy is refused"), "{copy}");
    }

    #[test]
    fn a_copied_directory_is_refused_and_a_moved_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (here, n1) = (MachineId("m".to_owned()), "n1".parse().unwrap());
        let (first, moved, copy) =
            (dir.path().join("first"), dir.path().join("moved"), dir.path().join("copy"));
        let data = DataDir::open(&first).unwrap();
        data.keep_identity(&Identity { folder: data.folder(), ..sample("n1") }).unwrap();
        drop(data);
        fs::rename(&first, &moved).unwrap();
        assert!(DataDir::open(&moved).unwrap().identity(&n1, &here).is_ok());
        fs::create_dir(&copy).unwrap();
        fs::copy(moved.join("identity"), copy.join("identity")).unwrap();
        let refused = DataDir::open(&copy).unwrap().identity(&n1, &here).unwrap_err().to_string();
        assert!(refused.contains("is a copy of the data of n1"), "{refused}");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert_eq!(data.secret().unwrap(), None);
        data.keep_secret("s3cret").unwrap();
        assert_eq!(data.secret().unwrap().as_deref(), Some("s3cret"));
        fs::set_permissions(dir.path().join("secret"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(data.secret().unwrap_err().to_string().contains("chmod 600"));
    }
}

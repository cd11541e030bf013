//! Where things lie in a node's data directory, and what an instance finds in its environment.
//! Knows names only; opens nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quorate_core::effect::StartInstance;
use quorate_core::ids::{NodeId, OperationId, SlotId};
use quorate_core::spec::{ProcessWorkload, Workload};

use crate::host::Account;

/// A node's data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Of the data directory at `root`, which must be absolute: processes with other working folders use it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the guard keeps on disk.
    pub fn guard(&self) -> PathBuf {
        self.root.join("guard")
    }

    /// The guard's socket.
    pub fn guard_socket(&self) -> PathBuf {
        self.guard().join("socket")
    }

    /// The folder of one slot: kept over restarts and new grants on this node.
    pub fn instance(&self, slot: &SlotId) -> PathBuf {
        self.root.join("instances").join(slot_folder(slot))
    }

    /// The state folder of one slot, if its spec names one.
    pub fn state(&self, slot: &SlotId, state_dir: Option<&str>) -> Option<PathBuf> {
        state_dir.map(|dir| self.instance(slot).join(dir))
    }

    /// The output of one slot.
    pub fn logs(&self, slot: &SlotId) -> PathBuf {
        self.root.join("logs").join(slot_folder(slot))
    }

    /// Where an operation's state copy lies until its instance starts.
    pub fn staging(&self, operation: OperationId) -> PathBuf {
        self.root.join("staging").join(operation.to_string())
    }
}

/// How the guard of a data directory is called where all guards of a host are: its control groups lie
/// below `quorate/NAME`, what it keeps for a boot below `/run/quorate/NAME`.
pub fn guard_name(root: &Path) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(root.as_os_str().as_encoded_bytes()))
}

/// A slot as a file name; unambiguous, since an ordinal holds no dot.
pub fn slot_folder(slot: &SlotId) -> String {
    format!("{}.{}", slot.service, slot.ordinal)
}

/// The slot that a file name stands for.
pub fn slot_of_folder(name: &str) -> Option<SlotId> {
    let (service, ordinal) = name.rsplit_once('.')?;
    Some(SlotId { service: service.parse().ok()?, ordinal: ordinal.parse().ok()? })
}

/// The native process that a start asks for.
pub fn process(start: &StartInstance) -> &ProcessWorkload {
    match &start.spec.workload {
        Workload::Process(process) => process,
    }
}

/// Everything in an instance's environment: a few plain variables, what its spec lists, and who it is.
/// What Quorate says of it cannot be overridden by the spec.
pub fn environment(
    layout: &Layout,
    node: &NodeId,
    start: &StartInstance,
    account: &Account,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("HOME".to_owned(), account.home.clone()),
    ]);
    all.extend(process(start).environment.clone());
    let slot = &start.id.slot;
    let own = [
        ("QUORATE_FENCING_TOKEN", start.id.token.to_string()),
        ("QUORATE_SERVICE", slot.service.to_string()),
        ("QUORATE_SLOT", slot.to_string()),
        ("QUORATE_INSTANCE", start.id.to_string()),
        ("QUORATE_NODE", node.to_string()),
        ("QUORATE_INSTANCE_DIR", layout.instance(slot).display().to_string()),
    ];
    all.extend(own.map(|(name, value)| (name.to_owned(), value)));
    if let Some(state) = layout.state(slot, start.spec.state_dir.as_deref()) {
        all.insert("QUORATE_STATE_DIR".to_owned(), state.display().to_string());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_their_folders_name_one_another() {
        for text in ["web/0", "a.1/2", "x-y_z/4294967295"] {
            let slot: SlotId = text.parse().unwrap();
            assert_eq!(slot_of_folder(&slot_folder(&slot)), Some(slot));
        }
        assert_eq!(slot_of_folder("noordinal"), None);
        assert_eq!(slot_of_folder("../etc.0"), None);
    }
}

//! Where things lie in a node's data directory, and what an instance finds in its environment.
//! Knows names only; opens nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quorate_core::effect::StartInstance;
use quorate_core::ids::{InstanceId, NodeId, OperationId, SlotId};

use crate::host::Account;
use crate::ports::RunId;

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

/// A slot as a unit name: systemd takes a dash in the name of a slice for a step down.
fn slot_in_slice(slot: &SlotId) -> String {
    slot_folder(slot).replace('-', "\\x2d")
}

/// Where the control groups of a data directory's instances lie, from the root of each tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupNames {
    guard: String,
}

impl GroupNames {
    /// Of the guard of that name.
    pub fn new(guard: impl Into<String>) -> Self {
        Self { guard: guard.into() }
    }

    /// The folder of what the guard starts itself, or has started under a path.
    pub fn folder(&self) -> String {
        format!("quorate/{}", self.guard)
    }

    /// The folder of what is started under a slice of systemd.
    pub fn slices(&self) -> String {
        format!("quorate.slice/quorate-{}.slice", self.guard)
    }

    /// A slot's slice, by the name that systemd knows it by.
    pub fn slice(&self, slot: &SlotId) -> String {
        format!("quorate-{}-{}.slice", self.guard, slot_in_slice(slot))
    }

    /// A slot's group, from the root of a tree.
    pub fn group(&self, slot: &SlotId, slice: bool) -> String {
        if slice {
            format!("{}/{}", self.slices(), self.slice(slot))
        } else {
            format!("{}/{}", self.folder(), slot_folder(slot))
        }
    }

    /// The slot whose group in [`GroupNames::slices`] has that name.
    pub fn slot_of_slice(&self, name: &str) -> Option<SlotId> {
        let rest = name.strip_prefix(&format!("quorate-{}-", self.guard))?;
        slot_of_folder(&rest.strip_suffix(".slice")?.replace("\\x2d", "-"))
    }
}

/// A slot as a file name; unambiguous, since an ordinal holds no dot.
pub fn slot_folder(slot: &SlotId) -> String {
    format!("{}.{}", slot.service, slot.ordinal)
}

/// What the names of all runs of a node begin with, where an engine has names.
pub fn run_names(owner: &str) -> String {
    format!("quorate-{owner}-")
}

/// How an engine knows a run: the name alone says whose it is, so that nothing else is ever touched.
pub fn run_name(owner: &str, run: &RunId) -> String {
    format!("{}{}-{}-{}", run_names(owner), slot_folder(&run.id.slot), run.id.token, run.restart)
}

/// The run of that owner that a name stands for.
pub fn run_of_name(owner: &str, name: &str) -> Option<RunId> {
    let rest = name.strip_prefix(&run_names(owner))?;
    let (rest, restart) = rest.rsplit_once('-')?;
    let (slot, token) = rest.rsplit_once('-')?;
    let id = InstanceId { slot: slot_of_folder(slot)?, token: token.parse().ok()? };
    Some(RunId { id, restart: restart.parse().ok()? })
}

/// The slot that a file name stands for.
pub fn slot_of_folder(name: &str) -> Option<SlotId> {
    let (service, ordinal) = name.rsplit_once('.')?;
    Some(SlotId { service: service.parse().ok()?, ordinal: ordinal.parse().ok()? })
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
    all.extend(variables(layout, node, start));
    all
}

/// What an instance's description lists and who it is, without what a plain process needs besides.
pub fn variables(layout: &Layout, node: &NodeId, start: &StartInstance) -> BTreeMap<String, String> {
    let mut all = start.spec.workload.environment().cloned().unwrap_or_default();
    let slot = &start.id.slot;
    // Programs made for other platforms look for these two; what the description says of them stands.
    let port = start.spec.workload.port().map(|port| port.to_string());
    let told = [("HOST", Some(start.host.clone())), ("PORT", port.clone())];
    for (name, value) in told.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        all.entry(name.to_owned()).or_insert(value);
    }
    all.extend(port.map(|port| ("QUORATE_PORT".to_owned(), port)));
    let own = [
        ("QUORATE_HOST", start.host.clone()),
        ("QUORATE_LOGS_DIR", layout.logs(slot).display().to_string()),
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
        let names = GroupNames::new("0123");
        for text in ["web/0", "a-b.c/12"] {
            let slot: SlotId = text.parse().unwrap();
            assert_eq!(names.slot_of_slice(&names.slice(&slot)), Some(slot));
        }
        let dashed = "a-b/1".parse().unwrap();
        assert_eq!(
            names.group(&dashed, true),
            "quorate.slice/quorate-0123.slice/quorate-0123-a\\x2db.1.slice"
        );
        assert_eq!(slot_of_folder("../etc.0"), None);
    }
}

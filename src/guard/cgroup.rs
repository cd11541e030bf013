//! Control groups of this host, in whichever version it has them: which trees there are, and one group
//! per instance in each of them. Does not know what runs in a group, nor why it is killed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use quorate_core::ids::SlotId;
use quorate_core::spec::Limits;

use super::group::Group;
use crate::layout::{GroupNames, slot_of_folder};

/// Which kind of tree is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Track {
    /// The best the host has.
    #[default]
    Auto,
    /// Version 1 even where version 2 is mounted.
    Cgroup1,
    /// No control groups: process groups only.
    Processes,
}

/// A resource that a tree can limit and measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Processor time.
    Cpu,
    /// Processor time used, a controller of its own in version 1.
    CpuAccount,
    /// Memory.
    Memory,
    /// Tasks.
    Pids,
    /// Reading and writing disks.
    Io,
}

impl Controller {
    /// By their names in version 2; of them `io` is called `blkio` in version 1.
    const ALL: [(Controller, &'static str); 5] = [
        (Controller::Cpu, "cpu"),
        (Controller::CpuAccount, "cpuacct"),
        (Controller::Memory, "memory"),
        (Controller::Pids, "pids"),
        (Controller::Io, "io"),
    ];
}

/// One version's folder for a purpose: where all groups of this guard lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// Version 2.
    V2(PathBuf),
    /// Version 1.
    V1(PathBuf),
}

impl Tree {
    fn path(&self) -> &Path {
        match self {
            Tree::V1(path) | Tree::V2(path) => path,
        }
    }
}

/// The trees that this guard uses.
#[derive(Debug, Clone)]
pub struct Cgroups {
    names: GroupNames,
    /// Where membership is read and groups are killed; without one there are only process groups.
    pub tracking: Option<Tree>,
    /// Where each resource is limited.
    pub controllers: BTreeMap<Controller, Tree>,
    /// Further version 1 trees a process has to leave to be out of the node's unit.
    named: Vec<Tree>,
    /// Version 1 trees in which nothing is put here, but where engines make groups beside those they are given.
    unused: Vec<Tree>,
    /// The disk that the data directory lies on, as `MAJOR:MINOR`.
    disk: Option<String>,
}

impl Cgroups {
    /// Looks for the trees of this host and makes this guard's folder in each it may write to.
    pub fn detect(names: GroupNames, disk: Option<String>, track: Track) -> Self {
        let folder = names.folder();
        let mut found = Self {
            names,
            tracking: None,
            controllers: BTreeMap::new(),
            named: Vec::new(),
            unused: Vec::new(),
            disk,
        };
        if track == Track::Processes {
            return found;
        }
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts: Vec<Mount> = text.lines().filter_map(Mount::parse).collect();
        if track == Track::Auto
            && let Some(mount) = mounts.iter().find(|mount| mount.version2)
        {
            found.use_v2(&mount.path, &folder);
        }
        for mount in mounts.iter().filter(|mount| !mount.version2) {
            found.use_v1(mount, &folder);
        }
        if found.tracking.is_none() {
            found.controllers.clear();
        }
        found
    }

    fn use_v2(&mut self, root: &Path, folder: &str) {
        let base = root.join(folder);
        if fs::create_dir_all(&base).is_err() || !writable(&base.join("cgroup.procs")) {
            return;
        }
        // Limits below `base` need each controller switched on in every group above it.
        let mut above = root.to_path_buf();
        for part in Path::new(folder) {
            enable_controllers(&above);
            above.push(part);
        }
        enable_controllers(&above);
        let enabled = fs::read_to_string(base.join("cgroup.subtree_control")).unwrap_or_default();
        for (controller, name) in Controller::ALL {
            if enabled.split_ascii_whitespace().any(|one| one == name) {
                self.controllers.insert(controller, Tree::V2(base.clone()));
            }
        }
        // Version 2 measures processor time in every group, without a controller.
        if base.join("cpu.stat").exists() {
            self.controllers.insert(Controller::CpuAccount, Tree::V2(base.clone()));
        }
        self.tracking = Some(Tree::V2(base));
    }

    fn use_v1(&mut self, mount: &Mount, folder: &str) {
        let wanted: Vec<Controller> = Controller::ALL
            .iter()
            .filter(|(controller, name)| {
                let name = if *controller == Controller::Io { "blkio" } else { name };
                mount.has(name) && !self.controllers.contains_key(controller)
            })
            .map(|(controller, _)| *controller)
            .collect();
        let freezer = mount.has("freezer");
        let named = mount.options.iter().any(|option| option.starts_with("name="));
        let base = mount.path.join(folder);
        if wanted.is_empty() && !freezer && !named {
            return self.unused.push(Tree::V1(base));
        }
        if fs::create_dir_all(&base).is_err() || !writable(&base.join("cgroup.procs")) {
            return;
        }
        let tree = Tree::V1(base);
        for controller in wanted {
            self.controllers.insert(controller, tree.clone());
        }
        if freezer && self.tracking.is_none() {
            self.tracking = Some(tree.clone());
        }
        self.named.push(tree);
    }

    /// Every folder in use, each once.
    fn trees(&self) -> Vec<&Tree> {
        let mut all: Vec<&Tree> = self.tracking.iter().chain(self.controllers.values()).collect();
        all.extend(&self.named);
        let mut seen: Vec<&Tree> = Vec::new();
        for tree in all {
            if !seen.contains(&tree) {
                seen.push(tree);
            }
        }
        seen
    }

    /// Moves this process out of the node's groups, so that ending the node's unit does not end it.
    pub fn enter(&self, name: &str) {
        for tree in self.trees() {
            let folder = tree.path().join(name);
            if fs::create_dir_all(&folder).is_ok() {
                let _ = fs::write(folder.join("cgroup.procs"), "0");
            }
        }
    }

    /// Leaves and removes these groups and the folder they lie in; groups that still hold a process stay,
    /// for the last one who leaves.
    pub fn remove(&self, names: &[&str]) {
        for tree in self.trees() {
            let base = tree.path();
            let above = base.ancestors().nth(2);
            if let Some(above) = above {
                let _ = fs::write(above.join("cgroup.procs"), "0");
            }
            for name in names {
                let _ = fs::remove_dir(base.join(name));
            }
        }
        let slices = self.names.slices();
        for tree in self.trees().into_iter().chain(&self.unused) {
            let slices = self.elsewhere(tree, &slices);
            for folder in [slices.path(), tree.path()] {
                let _ = fs::remove_dir(folder);
                let _ = folder.parent().map(fs::remove_dir);
            }
        }
    }

    /// The slots whose groups exist where membership is read, and whether each is a slice.
    pub fn slots(&self) -> Vec<(SlotId, bool)> {
        let Some(tree) = &self.tracking else { return Vec::new() };
        let below = |tree: &Tree, slot: &dyn Fn(&str) -> Option<SlotId>| -> Vec<SlotId> {
            let Ok(entries) = fs::read_dir(tree.path()) else { return Vec::new() };
            let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.filter_map(|entry| slot(entry.file_name().to_str()?)).collect()
        };
        let own = below(tree, &slot_of_folder);
        let slices =
            below(&self.elsewhere(tree, &self.names.slices()), &|name| self.names.slot_of_slice(name));
        own.into_iter().map(|slot| (slot, false)).chain(slices.into_iter().map(|slot| (slot, true))).collect()
    }

    /// A slot's group, made or found; `None` where only process groups exist.
    pub fn group(&self, slot: &SlotId, slice: bool) -> io::Result<Option<Group>> {
        let Some(group) = self.known_group(slot, slice) else { return Ok(None) };
        for path in &group.folders {
            make(path).map_err(|error| {
                let text = format!("cannot make the control group {}: {error}", path.display());
                io::Error::new(error.kind(), text)
            })?;
        }
        Ok(Some(group))
    }

    /// A slot's group, whether it is there or not; `None` where only process groups exist.
    pub fn known_group(&self, slot: &SlotId, slice: bool) -> Option<Group> {
        let tracking = self.tracking.as_ref()?;
        let name = self.names.group(slot, slice);
        let path = |tree: &Tree| self.elsewhere(tree, &name).path().to_path_buf();
        Some(Group {
            tracking: self.elsewhere(tracking, &name),
            controllers: self
                .controllers
                .iter()
                .map(|(kind, tree)| (*kind, self.elsewhere(tree, &name)))
                .collect(),
            folders: self.trees().into_iter().map(path).collect(),
            leftovers: self.unused.iter().map(path).collect(),
            disk: self.disk.clone(),
        })
    }

    /// A slot's group as an engine is told of it: from the root of the tree.
    pub fn name_of(&self, slot: &SlotId, slice: bool) -> Option<String> {
        self.tracking.as_ref().map(|_| format!("/{}", self.names.group(slot, slice)))
    }

    /// Another place in the tree that the guard's own folder is in.
    fn elsewhere(&self, tree: &Tree, name: &str) -> Tree {
        let depth = self.names.folder().split('/').count();
        let root = tree.path().ancestors().nth(depth).unwrap_or(tree.path());
        match tree {
            Tree::V1(_) => Tree::V1(root.join(name)),
            Tree::V2(_) => Tree::V2(root.join(name)),
        }
    }

    /// Limits that are asked for and this host cannot enforce, by their keys.
    pub fn unenforced(&self, limits: &Limits) -> Vec<String> {
        let has = |controller| self.controllers.contains_key(&controller);
        let version2 = |controller| matches!(self.controllers.get(&controller), Some(Tree::V2(_)));
        limits
            .named()
            .filter(|name| match *name {
                "cpu_limit" => !has(Controller::Cpu),
                "memory_limit" => !has(Controller::Memory),
                // Version 1's soft limit is looked at only when the whole host is short of memory.
                "memory_high" => !version2(Controller::Memory),
                "pids_limit" => !has(Controller::Pids),
                _ => !has(Controller::Io) || self.disk.is_none(),
            })
            .map(str::to_owned)
            .collect()
    }

    /// What the host can do, as words for the node's facts.
    pub fn capabilities(&self) -> Vec<String> {
        let mut all = vec!["adopt".to_owned(), "logs".to_owned()];
        all.push(match &self.tracking {
            Some(Tree::V2(_)) => "track:cgroup2".to_owned(),
            Some(Tree::V1(_)) => "track:cgroup1".to_owned(),
            None => "track:processes".to_owned(),
        });
        for (controller, name) in Controller::ALL {
            match self.controllers.get(&controller) {
                _ if controller == Controller::CpuAccount => {}
                _ if controller == Controller::Io && self.disk.is_none() => {}
                Some(Tree::V2(_)) => all.push(format!("limit:{name}:cgroup2")),
                Some(Tree::V1(_)) => all.push(format!("limit:{name}:cgroup1")),
                None => {}
            }
        }
        all
    }
}

/// Makes a folder with those above it, which systemd may be removing: it clears away slices that became empty.
fn make(path: &Path) -> io::Result<()> {
    const ATTEMPTS: usize = 50;
    let mut made = fs::create_dir_all(path);
    for _ in 1..ATTEMPTS {
        match &made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => made = fs::create_dir_all(path),
            _ => break,
        }
    }
    made
}

/// Switches on what is there; a kernel without a controller refuses that one only.
fn enable_controllers(group: &Path) {
    for name in ["cpu", "memory", "pids", "io"] {
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{name}"));
    }
}

fn writable(path: &Path) -> bool {
    OpenOptions::new().write(true).open(path).map(|_: File| ()).is_ok()
}

/// One line of mountinfo that mounts control groups.
struct Mount {
    path: PathBuf,
    version2: bool,
    options: Vec<String>,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (head, tail) = line.split_once(" - ")?;
        let path = head.split(' ').nth(4)?.replace("\\040", " ");
        let mut tail = tail.split(' ');
        let version2 = match tail.next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        let options = tail.nth(1)?.split(',').map(str::to_owned).collect();
        Some(Self { path: PathBuf::from(path), version2, options })
    }

    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|one| one == option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_group_mounts_of_both_versions_are_told_apart() {
        let v1 = "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct";
        let mount = Mount::parse(v1).unwrap();
        assert!(!mount.version2 && mount.has("cpu") && mount.has("cpuacct") && !mount.has("memory"));
        let v2 = "30 25 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let mount = Mount::parse(v2).unwrap();
        assert!(mount.version2);
        assert_eq!(mount.path, Path::new("/sys/fs/cgroup"));
        assert!(Mount::parse("22 1 254:0 / / rw - ext4 /dev/vda rw").is_none());
    }
}

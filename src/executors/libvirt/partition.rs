//! Where libvirt puts what it starts: the control group that the guard holds, in libvirt's words. Without a service
//! manager it takes a path from the root of each tree and adds nothing, since every part of it has a dot; over one it
//! makes the name of a slice out of the path. The guard makes the group in the trees that it uses itself, libvirt
//! wants it in all of version 1: here the rest is made, which the guard removes with its own.

use std::fs;
use std::path::{Path, PathBuf};

/// Where systemd shows that it runs.
const SYSTEMD: &str = "/run/systemd/system";
/// What libvirt asks for a scope where it is installed.
const MACHINED: &str = "/usr/share/dbus-1/system-services/org.freedesktop.machine1.service";

/// The partition that stands for a group of the guard's, ready for libvirt.
pub(super) fn ready(group: &str) -> String {
    if Path::new(SYSTEMD).is_dir() && Path::new(MACHINED).exists() {
        return by_slice(group);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for tree in mounts.lines().filter_map(version1) {
        make(&tree, group);
    }
    group.to_owned()
}

/// The path whose parts, joined by dashes, are the slice's name.
fn by_slice(group: &str) -> String {
    let slice = group.rsplit('/').next().unwrap_or(group);
    let parts = slice.strip_suffix(".slice").unwrap_or(slice).replace('-', "/");
    format!("/{}", parts.replace("\\x2d", "-"))
}

/// The mount of a line of mountinfo, if it is of version 1.
fn version1(line: &str) -> Option<PathBuf> {
    let (head, tail) = line.split_once(" - ")?;
    let path = head.split(' ').nth(4)?.replace("\\040", " ");
    (tail.split(' ').next() == Some("cgroup")).then(|| PathBuf::from(path))
}

/// What cannot be made libvirt names, when it looks for it.
fn make(tree: &Path, group: &str) {
    let mut folder = tree.to_path_buf();
    for part in group.split('/').filter(|part| !part.is_empty()) {
        let above = folder.clone();
        folder.push(part);
        let _ = fs::create_dir(&folder);
        // A new group of this controller has no processors and takes nothing in before it has.
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let own = fs::read_to_string(folder.join(name)).unwrap_or_default();
            if own.trim().is_empty()
                && let Ok(all) = fs::read_to_string(above.join(name))
            {
                let _ = fs::write(folder.join(name), all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_named_by_the_path_that_makes_it() {
        let group = "/quorate.slice/quorate-0123.slice/quorate-0123-a\\x2db.1.slice";
        assert_eq!(by_slice(group), "/quorate/0123/a-b.1");
    }

    #[test]
    fn trees_of_version_1_are_told_apart() {
        let line = "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(version1(line), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(version1("30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"), None);
    }
}

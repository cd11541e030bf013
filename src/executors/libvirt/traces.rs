//! What a run leaves on the host besides its domain: a mark of this node's that it was started, the emulator's
//! process, and in the domain's log how it ended. A transient domain is gone with its end, and with it all libvirt
//! would say of it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::host::ProcessStat;
use crate::layout::{run_name, run_of_name};
use crate::ports::{EngineExit, RunId};

/// Where libvirt writes down the process of each domain.
const PIDS: &str = "/run/libvirt/qemu";
/// Where it writes down how each began and ended.
const LOGS: &str = "/var/log/libvirt/qemu";
/// More than the longest beginning with all of its arguments.
const TAIL: u64 = 64 << 10;

/// The marks of a node, where a reboot forgets them as it ends the machines.
pub(super) struct Marks {
    owner: String,
    folder: PathBuf,
}

impl Marks {
    pub(super) fn of(owner: &str) -> Self {
        Self { owner: owner.to_owned(), folder: Path::new("/run/quorate").join(owner).join("machines") }
    }

    /// Written before libvirt is asked.
    pub(super) fn put(&self, run: &RunId) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        fs::write(self.folder.join(run_name(&self.owner, run)), "")
    }

    pub(super) fn drop(&self, run: &RunId) {
        let _ = fs::remove_file(self.folder.join(run_name(&self.owner, run)));
        // The guard clears what is above it once nothing runs.
        let _ = fs::remove_dir(&self.folder);
    }

    pub(super) fn all(&self) -> Vec<RunId> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| run_of_name(&self.owner, entry.file_name().to_str()?)).collect()
    }
}

/// The process of a domain, if it lives.
pub(super) fn process(name: &str) -> Option<u32> {
    let text = fs::read_to_string(Path::new(PIDS).join(format!("{name}.pid"))).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    // The file may be older than the process that has the number now.
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let uuid = super::describe::uuid(name);
    let own = arguments.split(|byte| *byte == 0).any(|one| one == uuid.as_bytes());
    (own && ProcessStat::read(pid).is_some_and(|stat| !stat.dead())).then_some(pid)
}

/// How a domain ended, if its log says that it did.
pub(super) fn end(name: &str) -> Option<EngineExit> {
    let mut file = File::open(Path::new(LOGS).join(format!("{name}.log"))).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    end_in(&String::from_utf8_lossy(&bytes))
}

fn end_in(log: &str) -> Option<EngineExit> {
    const END: &str = ": shutting down, reason=";
    let at = log.rfind(END)?;
    if log.rfind(": starting up libvirt").is_some_and(|begun| begun > at) {
        return None;
    }
    let reason = log[at + END.len()..].split_whitespace().next().unwrap_or_default();
    // The guest powered itself off; nothing else of an end is known by its code.
    Some(EngineExit { code: (reason == "shutdown").then_some(0), ..EngineExit::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_from_the_log_of_the_last_beginning() {
        let begun = "2026-01-01 10:00:00.000+0000: starting up libvirt version: 9.0.0\nargs\n";
        let off = "2026-01-01 10:00:09.000+0000: shutting down, reason=shutdown\n";
        let gone = "2026-01-01 10:00:09.000+0000: shutting down, reason=crashed\n";
        assert_eq!(end_in(begun), None);
        assert_eq!(end_in(&format!("{begun}{off}")).unwrap().code, Some(0));
        assert_eq!(end_in(&format!("{begun}{off}{begun}")), None);
        assert_eq!(end_in(&format!("{begun}{off}{begun}{gone}")).unwrap().code, None);
    }
}

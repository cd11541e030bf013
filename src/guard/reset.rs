//! The last resort, only where it was asked for: a host on which a kill is not done in time is reset at once,
//! without a word to anything on it.

use std::io;
use std::path::Path;

use quorate_core::ids::SlotId;

use super::journal::Journal;

/// The kernel's own door for it.
const TRIGGER: &str = "/proc/sysrq-trigger";

/// Resets the host, because of this slot. Returns only where that is not possible.
pub fn host(journal: &Journal, because: &SlotId) {
    journal.write(&format!("{because}: cannot be killed in time; the host is reset"));
    if let Err(error) = by(Path::new(TRIGGER)) {
        journal.write(&format!("the host cannot be reset: {TRIGGER}: {error}"));
    }
}

fn by(trigger: &Path) -> io::Result<()> {
    // An immediate boot: no sync, no unmount, nothing that a hung task could hold up.
    std::fs::write(trigger, "b")
}

/// Could the host be reset from here?
pub fn possible() -> bool {
    std::fs::OpenOptions::new().write(true).open(TRIGGER).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_asks_the_kernel_for_an_immediate_boot() {
        let folder = tempfile::tempdir().unwrap();
        let trigger = folder.path().join("trigger");
        by(&trigger).unwrap();
        assert_eq!(std::fs::read_to_string(trigger).unwrap(), "b");
        assert!(by(Path::new("/no/such/folder/trigger")).is_err());
    }
}

//! A device's password: read from a file that only its owner can read, right before it is used, and taken
//! out of everything that the device says. It never reaches State, a log or an argument.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

/// No password is longer.
const MAX_BYTES: u64 = 1_024;

/// What stands in a password's place.
const HIDDEN: &str = "(hidden)";

pub(super) struct Secret(String);

impl Secret {
    /// The first line of a file of mode 0600 or stricter.
    pub(super) fn read(path: &str) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
        let meta = file.metadata().map_err(|error| format!("{path} cannot be read: {error}"))?;
        if !meta.is_file() {
            return Err(format!("{path} is no file"));
        }
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!("{path} can be read by others (mode {mode:04o})"));
        }
        let mut text = String::new();
        file.take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(|error| format!("{path} cannot be read: {error}"))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(format!("{path} is longer than {MAX_BYTES} bytes"));
        }
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Self(line.to_owned())),
            _ => Err(format!("{path} is empty")),
        }
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// A device's words without the password, or the beginning of one at their end.
    pub(super) fn scrub(&self, said: &str) -> String {
        let clean = said.replace(&self.0, HIDDEN);
        let starts = self.0.char_indices().map(|(at, _)| &self.0[..at]).skip(1);
        match starts.filter(|start| start.len() > 3 && clean.ends_with(start)).last() {
            Some(start) => format!("{}{HIDDEN}", &clean[..clean.len() - start.len()]),
            None => clean,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_nobody_else_can_read_holds_a_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let text = path.to_str().unwrap();
        std::fs::write(&path, "hush hush\n# a comment\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Secret::read(text).err().unwrap().contains("mode 0640"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let secret = Secret::read(text).ok().unwrap();
        assert_eq!(secret.reveal(), "hush hush");
        assert_eq!(secret.scrub("login hush hush failed: hush hu"), "login (hidden) failed: (hidden)");
        std::fs::write(&path, "\n").unwrap();
        assert!(Secret::read(text).err().unwrap().contains("is empty"));
        assert!(Secret::read("/nowhere").err().unwrap().contains("cannot be read"));
    }
}

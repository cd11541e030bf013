//! Reaching a unix socket whose path is longer than the kernel's 108 bytes. Knows nothing of what is said.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Leaves room for the final zero.
const LONGEST: usize = 107;

/// A usable path of a socket, good while this lives.
#[derive(Debug)]
pub struct Address {
    path: PathBuf,
    _folder: Option<File>,
}

impl Address {
    /// Of the socket at `path`, through its opened folder if the path is too long.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path: path.to_path_buf(), _folder: None });
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            anyhow::bail!("{} is no path of a socket", path.display());
        };
        let folder = File::open(above).with_context(|| format!("cannot open {}", above.display()))?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&folder);
        Ok(Self { path: PathBuf::from(format!("/proc/self/fd/{number}")).join(name), _folder: Some(folder) })
    }

    /// The path to give to the kernel.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

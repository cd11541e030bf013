//! The guard's own log: a small file beside its records, with one older one. Needs no logging framework,
//! so the guard stays small.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::host::wall_now;

/// Beyond this the file becomes the older one.
const MOST_BYTES: u64 = 1 << 20;

/// Where the guard writes what it did.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
    file: Arc<Mutex<Option<File>>>,
}

impl Journal {
    /// Opens it; a guard that cannot write its log works on without one.
    pub fn open(path: PathBuf) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(&path).ok();
        Self { path, file: Arc::new(Mutex::new(file)) }
    }

    /// Writes one line.
    pub fn write(&self, text: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let now = wall_now().0;
        if let Some(open) = file.as_mut() {
            let line = format!("{}.{:03} {text}\n", now / 1_000, now % 1_000);
            let _ = open.write_all(line.as_bytes());
            if open.metadata().is_ok_and(|meta| meta.len() > MOST_BYTES) {
                let _ = fs::rename(&self.path, self.path.with_extension("log.1"));
                *file = OpenOptions::new().create(true).append(true).open(&self.path).ok();
            }
        }
    }
}

//! Structured logs to a file, never to standard output: the terminal belongs to the cockpit and to
//! answers that scripts read. The file is bounded: a full one is put aside, the oldest goes.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// A file beyond this is put aside.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// So many are kept beside the one that is written.
const KEPT: u32 = 4;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogForm {
    /// For eyes.
    Text,
    /// One JSON object a line.
    Json,
}

/// Keeps the writer alive; lines still buffered are written when it is dropped.
pub struct Logs(#[expect(dead_code, reason = "held for its drop alone")] WorkerGuard);

/// Sends everything at `level` (such as `info` or `quorate=debug`) or above to `file`.
/// `QUORATE_LOG` overrides the level.
pub fn to_file(file: &Path, level: &str, form: LogForm) -> anyhow::Result<Logs> {
    let rotating = Rotating::open(file, MAX_BYTES)?;
    let (writer, worker) = NonBlockingBuilder::default().buffered_lines_limit(4_096).finish(rotating);
    // A bare level is meant for this program. The raft library calls every late answer an error; what stops
    // it is in its status, and said by its adapter.
    let own = if level.contains(['=', ',']) {
        level.to_owned()
    } else {
        format!("warn,openraft=off,quorate={level}")
    };
    let wanted = std::env::var("QUORATE_LOG").unwrap_or(own);
    let filter = EnvFilter::try_new(&wanted)
        .with_context(|| format!("log.level {wanted:?} is not a level such as info or quorate=debug"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer);
    let done = match form {
        LogForm::Text => builder.try_init(),
        LogForm::Json => builder.json().try_init(),
    };
    // A second node in one process keeps the first one's logs.
    if let Err(error) = done {
        tracing::debug!(%error, "logs are set up already");
    }
    Ok(Logs(worker))
}

/// A file that is put aside when it is full.
struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    max: u64,
}

impl Rotating {
    fn open(path: &Path, max: u64) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let file = append(path).with_context(|| format!("cannot write logs to {}", path.display()))?;
        let bytes = file.metadata().map_or(0, |about| about.len());
        Ok(Self { path: path.to_owned(), file, bytes, max })
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEPT).rev() {
            // One that is not there yet is no loss.
            drop(rename(self.aside(number), self.aside(number + 1)));
        }
        rename(&self.path, self.aside(1))?;
        self.file = append(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes > self.max {
            self.rotate()?;
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_put_aside_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/quorate.log");
        let mut log = Rotating::open(&path, 10).unwrap();
        for line in 0..8 {
            log.write_all(format!("line {line} ....\n").as_bytes()).unwrap();
        }
        let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(text(&path), "line 7 ....\n");
        assert_eq!(text(&log.aside(1)), "line 6 ....\n");
        assert_eq!(text(&log.aside(KEPT)), "line 3 ....\n");
        assert!(!log.aside(KEPT + 1).exists());
    }
}

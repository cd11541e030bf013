//! Structured logs to a file, never to standard output: the terminal belongs to the cockpit and to
//! answers that scripts read.

use std::path::Path;

use anyhow::Context;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

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

/// Sends everything at `level` (such as `info` or `quorate=debug`) or above to `file`, by the day, a week
/// of them kept. `QUORATE_LOG` overrides the level.
pub fn to_file(file: &Path, level: &str, form: LogForm) -> anyhow::Result<Logs> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().context("log.file names no file")?.to_string_lossy().into_owned();
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let rolling = tracing_appender::rolling::RollingFileAppender::builder()
        .rotation(tracing_appender::rolling::Rotation::DAILY)
        .filename_prefix(name)
        .max_log_files(7)
        .build(folder)
        .with_context(|| format!("cannot write logs to {}", folder.display()))?;
    let (writer, worker) = tracing_appender::non_blocking::NonBlockingBuilder::default()
        .buffered_lines_limit(4_096)
        .finish(rolling);
    // A bare level is meant for this program; its libraries say little that helps.
    let own = if level.contains(['=', ',']) {
        level.to_owned()
    } else {
        format!("warn,openraft=error,quorate={level}")
    };
    let wanted = std::env::var("QUORATE_LOG").unwrap_or(own);
    let filter = EnvFilter::try_new(&wanted)
        .with_context(|| format!("log.level {wanted:?} is not a level such as info or quorate=debug"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer);
    let done = match form {
        LogForm::Text => builder.try_init(),
        LogForm::Json => builder.json().try_init(),
    };
    // A second node in one process (tests) keeps the first one's logs.
    if let Err(error) = done {
        tracing::debug!(%error, "logs are set up already");
    }
    Ok(Logs(worker))
}

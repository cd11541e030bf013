//! The guard: a small separate process that parents native processes, writes down the highest token of each
//! slot and holds the lease's deadlines, so that neither a frozen nor a dead node leaves anything running
//! past them, nor a restarted one takes anything down. Does not decide what runs where.
//!
//! ```text
//! node: client -- protocol --> server -> keeper (judges) -> carry -> launch, run, group (act)
//!                                          | advance (time, exits)  adopt (an earlier guard's)  report
//!                                          +-> records, disk, logs, journal (what outlives it)
//! ```

mod address;
mod adopt;
mod advance;
mod carry;
mod cgroup;
mod client;
mod connection;
mod disk;
mod group;
mod journal;
mod keeper;
mod launch;
mod logs;
mod protocol;
mod records;
mod report;
mod run;
mod server;
mod signal;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

pub use cgroup::Track;
pub use client::{GuardClient, GuardOptions, GuardStatus};

/// Arguments of `quorate guard`.
#[derive(Debug, Clone, clap::Args)]
pub struct GuardArgs {
    /// The node's data directory
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Listen on this socket [default: DATA_DIR/guard/socket]
    #[arg(long)]
    pub socket: Option<PathBuf>,
    /// End everything once the other end of this inherited pipe is closed
    #[arg(long, value_name = "FD")]
    pub hold: Option<i32>,
    /// Return once a guard of its own session is up
    #[arg(long)]
    pub detach: bool,
    /// What finds and ends an instance's processes
    #[arg(long, value_enum, default_value_t)]
    pub track: Track,
    /// Rotate an instance's output beyond this size
    #[arg(long, default_value_t = 4096, value_name = "KIB")]
    pub log_size: u64,
    /// Rotated files kept for each instance
    #[arg(long, default_value_t = 4, value_name = "COUNT")]
    pub log_keep: usize,
    /// End after this long without a node while nothing runs
    #[arg(long, default_value_t = 30_000, value_name = "MS")]
    pub idle_exit: u64,
}

/// What a guard says on its output once it listens.
const READY: &str = "ready";

/// Runs a guard until it is no longer needed.
pub fn run(mut args: GuardArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("cannot make the data directory {}", args.data_dir.display()))?;
    args.data_dir = args.data_dir.canonicalize()?;
    if args.detach { detach(&args) } else { server::serve(&args) }
}

/// Starts a guard that is nobody's child: it goes on when whoever asked for it is gone.
fn detach(args: &GuardArgs) -> anyhow::Result<()> {
    if args.hold.is_some_and(|fd| fd != 0) {
        bail!("--hold with --detach takes the standard input only: pass --hold 0");
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg("guard").arg("--data-dir").arg(&args.data_dir);
    if let Some(socket) = &args.socket {
        command.arg("--socket").arg(socket);
    }
    if args.hold.is_some() {
        command.args(["--hold", "0"]);
    }
    let track = clap::ValueEnum::to_possible_value(&args.track).map(|value| value.get_name().to_owned());
    command
        .args(["--track", &track.unwrap_or_default()])
        .args(["--log-size", &args.log_size.to_string()])
        .args(["--log-keep", &args.log_keep.to_string()])
        .args(["--idle-exit", &args.idle_exit.to_string()])
        .stdin(if args.hold.is_some() { Stdio::inherit() } else { Stdio::null() })
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start the guard")?;
    let output = child.stdout.take().context("the guard has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    if line.trim() == READY {
        println!("{READY} {}", child.id());
        return Ok(());
    }
    let status = child.wait()?;
    bail!("the guard did not start ({status}); see what it said above")
}

/// Says that the guard listens, and lets go of what it inherited.
fn announce() -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    let nothing = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    Ok(())
}

/// How long a stranger may take to introduce itself.
const GREETING: Duration = Duration::from_secs(2);

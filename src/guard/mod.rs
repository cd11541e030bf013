//! The guard: a small separate process that parents native processes, writes down the highest token of each
//! slot and holds the lease's deadlines, so that neither a frozen nor a dead node leaves anything running
//! past them, nor a restarted one takes anything down. Does not decide what runs where.
//!
//! ```text
//! node: client -- protocol --> server -> keeper (judges) -> carry -> launch, run, group (act)
//!                                |         | advance (time, exits)  adopt (an earlier guard's)  report
//!                                |         +-> records, disk, logs, journal (what outlives it)
//!                                +-> second (what it knows of its twin) -- protocol --> twin (another process)
//! ```
//!
//! Guard and twin hold the same deadlines: the guard writes lease and runs down, the twin reads them and says
//! so, and only then does anything start. Each kills on its own what is past its deadline; neither needs the
//! other, nor the node, and each starts the other when that is gone.

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
mod protocol;
mod records;
mod report;
mod reset;
mod run;
mod second;
mod server;
mod signal;
mod twin;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::BorrowedFd;
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
    /// Keep no second holder of the deadlines
    #[arg(long)]
    pub alone: bool,
    /// Reset the host when a kill takes longer than half its margin (needs root and the kernel's sysrq)
    #[arg(long)]
    pub reset_host: bool,
    /// Be the second holder of that guard's deadlines
    #[arg(long, hide = true)]
    pub twin: bool,
}

impl GuardArgs {
    /// The same once more, for a child that inherits the hold as its standard input.
    fn again(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec!["guard".into(), "--data-dir".into(), self.data_dir.clone().into()];
        if let Some(socket) = &self.socket {
            all.extend(["--socket".into(), socket.clone().into()]);
        }
        if self.hold.is_some() {
            all.extend(["--hold".into(), "0".into()]);
        }
        let track = clap::ValueEnum::to_possible_value(&self.track).map(|value| value.get_name().to_owned());
        all.extend(["--track".into(), track.unwrap_or_default().into()]);
        for (name, value) in [
            ("--log-size", self.log_size.to_string()),
            ("--log-keep", self.log_keep.to_string()),
            ("--idle-exit", self.idle_exit.to_string()),
        ] {
            all.extend([name.into(), value.into()]);
        }
        all.extend(self.alone.then(|| "--alone".into()));
        all.extend(self.reset_host.then(|| "--reset-host".into()));
        all
    }
}

/// What a guard says on its output once it listens.
const READY: &str = "ready";

/// Runs a guard until it is no longer needed.
pub fn run(mut args: GuardArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("cannot make the data directory {}", args.data_dir.display()))?;
    args.data_dir = args.data_dir.canonicalize()?;
    match (args.detach, args.twin) {
        (true, _) => detach(&args),
        (false, true) => twin::hold(&args),
        (false, false) => server::serve(&args),
    }
}

/// Starts a guard that is nobody's child: it goes on when whoever asked for it is gone.
fn detach(args: &GuardArgs) -> anyhow::Result<()> {
    if args.hold.is_some_and(|fd| fd != 0) {
        bail!("--hold with --detach takes the standard input only: pass --hold 0");
    }
    let mut command = Command::new("/proc/self/exe");
    command
        .args(args.again())
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

/// Starts the other holder of the deadlines: the guard its twin, the twin a guard. It outlives its parent.
fn spawn_holder(args: &GuardArgs, hold: Option<BorrowedFd<'static>>, twin: bool) -> anyhow::Result<()> {
    let stdin = match hold {
        Some(hold) => Stdio::from(hold.try_clone_to_owned()?),
        None => Stdio::null(),
    };
    let mut command = Command::new("/proc/self/exe");
    command.args(args.again()).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
    if twin {
        command.arg("--twin");
    }
    // Reaped with all others; dropping the handle neither waits nor kills.
    command.spawn().map(drop).context("cannot start it")
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

//! What outlives a killed demo for a moment: waits for the demo's pipe to close, gives nodes and guards that
//! watch the same pipe a moment, then ends whatever is left, frozen or not.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::process::{Child, Command};

use super::place::Place;
use super::sweep::{Target, end_all};

/// Everything is to be gone 5 s after the demo.
const BY_THEMSELVES: Duration = Duration::from_millis(1_500);
const BY_FORCE: Duration = Duration::from_secs(10);

/// The end of the pipe whose closing ends everything, and the keeper that sees to it.
#[derive(Debug)]
pub(super) struct Hold {
    /// Never written to; its closing is the message.
    writer: std::io::PipeWriter,
    reader: std::io::PipeReader,
    keeper: Child,
}

impl Hold {
    /// Makes the pipe and starts the keeper.
    pub(super) fn new(place: &Place) -> anyhow::Result<Self> {
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        let keeper = Command::new(std::env::current_exe()?)
            .args(["demo", "keeper", "--dir"])
            .arg(place.dir())
            .stdin(reader.try_clone()?)
            // A copy of the lock: no other demo begins here before this one is swept.
            .stdout(Stdio::from(place.share()?))
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the keeper")?;
        Ok(Self { writer, reader, keeper })
    }

    /// For a child's standard input.
    pub(super) fn end(&self) -> std::io::Result<Stdio> {
        Ok(Stdio::from(self.reader.try_clone()?))
    }

    /// Lets go: returns once nothing is left.
    pub(super) async fn let_go(self) -> anyhow::Result<()> {
        let Self { writer, reader, mut keeper } = self;
        drop((writer, reader));
        let status = keeper.wait().await.context("cannot wait for the keeper")?;
        anyhow::ensure!(status.success(), "not everything could be ended ({status}); see `ps`");
        Ok(())
    }
}

/// Runs as the keeper.
pub(super) fn keep(dir: &Path) -> anyhow::Result<()> {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"quorate-keeper");
    wait_for_end(std::io::stdin());
    let deadline = Instant::now() + BY_THEMSELVES;
    while Instant::now() < deadline && targets(dir).iter().any(|target| !target.left().is_empty()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    end_all(dir, BY_FORCE).map_err(anyhow::Error::msg)?;
    // After a kill nobody else says that the demo is over.
    let _ = std::fs::remove_file(super::place::demo_file(dir));
    let _ = std::fs::remove_file(super::place::door(dir));
    Ok(())
}

/// Returns once nobody can write any more. Others share this end and may have made it non-blocking.
fn wait_for_end(held: impl AsFd) {
    let mut nothing = [0_u8; 16];
    loop {
        let mut fds = [PollFd::new(&held, PollFlags::IN)];
        match poll(&mut fds, None).and_then(|_| rustix::io::read(&held, &mut nothing)) {
            Ok(1..) | Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

fn targets(dir: &Path) -> Vec<Target> {
    let nodes: Vec<PathBuf> = std::fs::read_dir(dir.join("nodes"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    nodes.iter().filter_map(|path| path.file_name()?.to_str()).map(|name| Target::new(dir, name)).collect()
}

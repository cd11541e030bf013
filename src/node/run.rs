//! `quorate node`: reads the file, sets up the logs, starts the node and waits for its end.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use quorate_core::config::{self, Address, Config, Secret};
use quorate_core::view::ClusterKind;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::{Node, NodeOptions};
use crate::telemetry::{self, LogForm};
use crate::transport::Detours;

/// Arguments of `quorate node`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  quorate node --config configs/node1.yaml
  quorate node --config node2.yaml --join 10.0.0.1:7000 --token \"$(quorate join-token)\"")]
pub struct NodeArgs {
    /// The node's file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Join the cluster of the node that listens there; on its own data the node simply starts
    #[arg(long, value_name = "ADDRESS")]
    pub join: Vec<Address>,
    /// What `quorate join-token` prints
    #[arg(long)]
    pub token: Option<String>,
    /// Write logs as JSON, one object a line
    #[arg(long)]
    pub log_json: bool,
    /// Mark the cluster as a demo
    #[arg(long, hide = true)]
    pub demo: bool,
    /// End, with everything that runs here, once the other end of this inherited pipe is closed
    #[arg(long, hide = true, value_name = "FD")]
    pub hold: Option<i32>,
    /// Dial other addresses than nodes publish, as this file says: `{"HOST:PORT": "HOST:PORT"}`
    #[arg(long, hide = true, value_name = "FILE")]
    pub detours: Option<PathBuf>,
}

/// Runs a node until it is told to end. `default_dir` is where its data lies if the file does not say.
pub fn run(args: &NodeArgs, default_dir: &Path) -> anyhow::Result<()> {
    let mut config = read_config(&args.config)?;
    config.join.addresses.extend(args.join.iter().cloned());
    if let Some(token) = &args.token {
        config.join.token = Some(Secret(token.clone()));
    }
    let data_dir = config.data_dir.clone().map_or_else(|| default_dir.to_owned(), PathBuf::from);
    let log = config.log.file.clone().map_or_else(|| data_dir.join("quorate.log"), PathBuf::from);
    let form = if args.log_json { LogForm::Json } else { LogForm::Text };
    let _logs = telemetry::to_file(&log, &config.log.level.to_string(), form)?;
    let hold = args.hold.map(held).transpose()?.map(Arc::new);
    let kind = if args.demo { ClusterKind::Demo } else { ClusterKind::Real };
    let options = NodeOptions {
        cluster_name: if args.demo { "demo" } else { "quorate" }.to_owned(),
        config,
        data_dir,
        kind,
        program: std::env::current_exe().context("cannot find this program's own file")?,
        hold: hold.clone(),
        detours: args.detours.as_deref().map(Detours::read).transpose()?.unwrap_or_default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Signals from here on end the node in order.
    let end = {
        let _context = runtime.enter();
        End::new(hold)?
    };
    let node = match Node::start(options) {
        Ok(node) => node,
        Err(error) => {
            tracing::error!("{error:#}");
            return Err(error);
        }
    };
    let why = runtime.block_on(end.wait());
    tracing::info!(why, "the node ends; its instances run on under the guard");
    node.shutdown();
    Ok(())
}

/// A node's file, with every error in it.
pub fn read_config(path: &Path) -> anyhow::Result<Config> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = config::decode(&bytes).with_context(|| format!("{}", path.display()))?;
    config::parse(text).with_context(|| format!("{}", path.display()))
}

/// A copy of an inherited pipe's end, not inherited further.
fn held(fd: i32) -> anyhow::Result<OwnedFd> {
    if fd < 0 {
        bail!("--hold {fd} is no file descriptor");
    }
    #[expect(unsafe_code, reason = "an inherited descriptor is known by its number alone")]
    // SAFETY: it is borrowed for the one call that copies it, which fails if it is not open.
    let inherited = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_dupfd_cloexec(inherited, 3).with_context(|| format!("--hold {fd} is not open"))
}

/// What ends a node.
struct End {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    let_go: oneshot::Receiver<()>,
    /// Keeps `let_go` open where nothing holds the node.
    _free: Option<oneshot::Sender<()>>,
}

impl End {
    fn new(hold: Option<Arc<OwnedFd>>) -> anyhow::Result<Self> {
        let (tell, let_go) = oneshot::channel();
        let free = match hold {
            None => Some(tell),
            Some(hold) => {
                std::thread::Builder::new().name("hold".to_owned()).spawn(move || {
                    wait_until_closed(&hold);
                    // Nobody waits any more when the node ends for another reason.
                    let _ = tell.send(());
                })?;
                None
            }
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            let_go,
            _free: free,
        })
    }

    async fn wait(mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "told to end",
                _ = self.interrupt.recv() => return "interrupted",
                _ = &mut self.let_go => return "let go",
                // A closed terminal is no reason to end.
                _ = self.hang_up.recv() => {}
            }
        }
    }
}

/// Waits for the other end of a pipe to go. The guard waits at the same pipe, so its mode is left alone.
fn wait_until_closed(pipe: &OwnedFd) {
    loop {
        let mut waiting = [PollFd::new(pipe, PollFlags::IN)];
        match poll(&mut waiting, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
            Ok(_) if waiting[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) => {
                return;
            }
            // Nobody is meant to write; what comes all the same is taken off.
            Ok(_) => {
                if rustix::io::read(pipe, &mut [0_u8; 64]) == Ok(0) {
                    return;
                }
            }
        }
    }
}

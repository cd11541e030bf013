//! `quorate demo`: real nodes as real processes on loopback, with services on them. Starts, steers and ends
//! them; whatever ends the demo, nothing of it is left.
//!
//! ```text
//! demo -- pipe --> nodes -- pipe --> guards -> instances     keeper: ends what the closed pipe left
//!  ^-- demo.sock -- demo ctl         fence-agent: each node's fence method
//! ```

mod agent;
mod crew;
mod door;
mod ending;
mod files;
mod keeper;
mod place;
mod ready;
mod start;
mod sweep;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use tokio::sync::mpsc;

use self::door::{CtlAction, Request};
use self::ending::Ending;
use self::start::Demo;
use crate::api::error::ApiError;
use crate::cli::places::default_demo_dir;

/// Arguments of `quorate demo`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  quorate demo                          three nodes and the cockpit over them
  quorate demo --nodes 4 --headless     for scripts: one line of JSON once everything is healthy
  quorate demo ctl kill n2              as a crash: -9 to the node's process
  quorate demo ctl restart n2")]
pub struct DemoArgs {
    #[command(flatten)]
    start: StartArgs,
    #[command(subcommand)]
    then: Option<DemoCommand>,
}

#[derive(Debug, Clone, Args)]
struct StartArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    nodes: u8,
    /// Where everything of it lies [default: below the state folder of the account]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Without the cockpit: print one line of JSON when all is healthy, and wait for the end
    #[arg(long)]
    headless: bool,
    /// Deploy nothing
    #[arg(long)]
    without_services: bool,
}

#[derive(Debug, Subcommand)]
enum DemoCommand {
    /// Kill, freeze, thaw or restart nodes of a running demo
    Ctl(CtlArgs),
    /// The demo's fence device: ends a node with all it runs, or reads back whether it is off
    #[command(hide = true)]
    FenceAgent(agent::AgentArgs),
    /// Ends what a killed demo left
    #[command(hide = true)]
    Keeper {
        /// The demo's directory
        #[arg(long)]
        dir: PathBuf,
    },
}

/// Arguments of `quorate demo ctl`.
#[derive(Debug, Clone, Args)]
pub struct CtlArgs {
    /// The demo's directory [default: as `quorate demo` has it]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// What to do
    #[arg(value_enum)]
    action: CtlAction,
    /// With which nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// Runs a demo until it is told to end, or does what its subcommand says.
pub fn run(args: DemoArgs) -> Result<(), ApiError> {
    let failed = |error: anyhow::Error| match error.downcast::<ApiError>() {
        Ok(error) => error,
        Err(error) => ApiError::failed(&error),
    };
    match args.then {
        None => runtime().and_then(|runtime| runtime.block_on(live(args.start))).map_err(failed),
        Some(DemoCommand::Ctl(args)) => runtime().map_err(failed)?.block_on(ctl(args)),
        Some(DemoCommand::FenceAgent(args)) => agent::run(&args).map_err(failed),
        Some(DemoCommand::Keeper { dir }) => keeper::keep(&dir).map_err(failed),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn ctl(args: CtlArgs) -> Result<(), ApiError> {
    let dir = args.dir.unwrap_or_else(default_demo_dir);
    let request = Request { action: args.action, nodes: args.nodes };
    for line in door::ask(&place::door(&dir), &request).await? {
        println!("{line}");
    }
    Ok(())
}

/// A demo from its beginning to its end.
async fn live(args: StartArgs) -> anyhow::Result<()> {
    let mut ending = Ending::watch()?;
    let dir = args.dir.clone().unwrap_or_else(default_demo_dir);
    let mut demo = Demo::prepare(&dir, args.nodes)?;
    let lived = tokio::select! {
        lived = serve(&args, &mut demo) => lived,
        () = ending.come() => Ok(()),
    };
    let ended = demo.end().await;
    lived.and(ended)
}

/// Starts everything, then does as it is told; returns only on an error.
async fn serve(args: &StartArgs, demo: &mut Demo) -> anyhow::Result<()> {
    let file = demo.start_up(!args.without_services).await?;
    let (sender, mut knocks) = mpsc::channel(16);
    door::open(&place::door(demo.dir()), sender)?;
    if args.headless {
        let line = serde_json::to_string(&file)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot say that the demo is ready")?;
    }
    while let Some((request, back)) = knocks.recv().await {
        // Whoever asked may be gone by now; it is done all the same.
        let _ = back.send(demo.act(&request).await);
    }
    anyhow::bail!("the demo's door is closed")
}

//! `quorate demo`: real nodes as real processes on loopback, with services on them. Starts, steers and ends
//! them; whatever ends the demo, nothing of it is left.
//!
//! ```text
//! demo -- pipe --> nodes -- pipe --> guards -> instances     keeper: ends what the closed pipe left
//!  |                 ^--- relay ---^      the ways between the nodes, which can be cut
//!  ^-- demo.sock -- demo ctl              fence-agent: each node's fence method
//! ```

mod act;
mod agent;
mod crew;
mod ctl;
mod door;
mod ending;
mod files;
mod keeper;
mod news;
mod place;
mod ready;
mod relay;
mod scenarios;
mod start;
mod status;
mod sweep;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use futures::FutureExt;
use quorate_tui::Ended;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use self::ctl::{CtlArgs, CtlCommand};
use self::ending::Ending;
use self::news::News;
use self::scenarios::Scenario;
use self::start::{Demo, Wanted};
use crate::api::error::{ApiError, ErrorCode};
use crate::output::{Output, print, print_json};
use crate::places::default_demo_dir;

/// Arguments of `quorate demo`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  quorate demo                          three nodes and the cockpit over them
  quorate demo --nodes 4 --headless     for scripts: one line of JSON once everything is healthy
  quorate demo --scenario split-brain   a game day; `quorate demo --scenario list` names them all
  quorate demo ctl cut n2               nothing reaches n2 and nothing comes from it
  quorate demo ctl heal
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
    /// How many nodes [default: 3, or as many as the scenario needs]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=7))]
    nodes: Option<u8>,
    /// Where everything of it lies [default: below the state folder of the account]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Without the cockpit: print one line of JSON when all is healthy, and wait for the end
    #[arg(long)]
    headless: bool,
    /// Deploy nothing
    #[arg(long)]
    without_services: bool,
    /// Without the relay between the nodes: as fast as it goes, and no way can be cut
    #[arg(long, conflicts_with = "scenario")]
    direct: bool,
    /// How fast nodes notice one another's loss; `default` bears a busy machine better
    #[arg(long, default_value = "lan", value_parser = ["default", "lan", "fast", "wan"])]
    profile: String,
    /// Play a game day: timed steps with real faults, and what to look for; `list` names them all
    #[arg(long, value_name = "NAME|FILE|list")]
    scenario: Option<String>,
}

#[derive(Debug, Subcommand)]
enum DemoCommand {
    /// Kill, freeze, restart nodes of a running demo; cut, delay and heal the ways between them
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

/// Runs a demo until it is told to end, or does what its subcommand says. `named` is the directory that the command
/// line or the environment names for all commands.
pub fn run(args: DemoArgs, named: Option<PathBuf>, output: Output) -> Result<(), ApiError> {
    // With all that led there, under the code of what caused it.
    let failed = |error: anyhow::Error| {
        let code = error.downcast_ref::<ApiError>().map_or(ErrorCode::Failed, |cause| cause.code);
        ApiError::new(code, format!("{error:#}"), "")
    };
    match args.then {
        None if args.start.scenario.as_deref() == Some("list") => list(output),
        None => runtime()
            .and_then(|runtime| runtime.block_on(live(args.start, output).boxed_local()))
            .map_err(failed),
        Some(DemoCommand::Ctl(args)) => {
            let dir = args.dir.or(named).unwrap_or_else(default_demo_dir);
            runtime().map_err(failed)?.block_on(ctl(&dir, &args.command, output).boxed_local())
        }
        Some(DemoCommand::FenceAgent(args)) => agent::run(&args).map_err(failed),
        Some(DemoCommand::Keeper { dir }) => keeper::keep(&dir).map_err(failed),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn ctl(dir: &Path, command: &CtlCommand, output: Output) -> Result<(), ApiError> {
    let reply = door::ask(&place::door(dir), command).await?;
    let lines = match (output, reply.status) {
        (Output::Table, Some(status)) => status.in_words(),
        (Output::Table, None) => reply.done,
        (Output::Json, Some(status)) => vec![serde_json::json!(status).to_string()],
        (Output::Json, None) => vec![serde_json::json!({ "done": reply.done }).to_string()],
    };
    print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

fn list(output: Output) -> Result<(), ApiError> {
    let all = Scenario::all().map_err(|error| ApiError::failed(&error))?;
    match output {
        Output::Json => {
            let items = all.iter().map(|one| {
                serde_json::json!({ "name": one.name, "about": one.about, "nodes": one.nodes, "steps": one.steps.len() })
            });
            print_json(&serde_json::json!({ "items": items.collect::<Vec<_>>() }))
        }
        Output::Table => {
            let widest = all.iter().map(|one| one.name.len()).max().unwrap_or_default();
            print(&all.iter().map(|one| format!("{:widest$}  {}\n", one.name, one.about)).collect::<String>())
        }
    }
}

/// A demo from its beginning to its end.
async fn live(args: StartArgs, output: Output) -> anyhow::Result<()> {
    let scenario = args.scenario.as_deref().map(Scenario::named).transpose()?;
    if !args.headless {
        crate::cockpit::own::needs_terminal()?;
    }
    let mut ending = Ending::watch()?;
    let dir = args.dir.clone().unwrap_or_else(default_demo_dir);
    let wanted = Wanted {
        nodes: args.nodes.or(scenario.as_ref().map(|scenario| scenario.nodes)).unwrap_or(3),
        services: !args.without_services,
        direct: args.direct,
        fencing: scenario.as_ref().map(|scenario| scenario.fencing.clone()).unwrap_or_default(),
        profile: args.profile.clone(),
    };
    let mut demo = Demo::prepare(&dir, wanted)?;
    let lived = tokio::select! {
        lived = serve(&args, scenario.as_ref(), output, &mut demo) => lived,
        () = ending.come() => Ok(()),
    };
    if !args.headless {
        eprintln!("ending the demo");
    }
    let ended = demo.end().await;
    lived.and(ended)
}

/// Starts everything, then does as it is told. Returns when its cockpit is left; without one, never.
async fn serve(
    args: &StartArgs,
    scenario: Option<&Scenario>,
    output: Output,
    demo: &mut Demo,
) -> anyhow::Result<()> {
    if !args.headless {
        eprintln!("starting the nodes in {}", demo.dir().display());
    }
    let file = demo.start_up().await?;
    if let Some(scenario) = scenario {
        demo.begin(scenario).await?;
    }
    let news = News::new(args.headless, output);
    news.tell(demo, &[]);
    let (sender, mut knocks) = mpsc::channel(16);
    door::open(&place::door(demo.dir()), sender.clone())?;
    let mut shown = if args.headless {
        let line = serde_json::to_string(&file)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot say that the demo is ready")?;
        AbortOnDropHandle::new(tokio::spawn(std::future::pending()))
    } else {
        let attach = demo.attach(sender, news.line())?;
        AbortOnDropHandle::new(tokio::spawn(crate::cockpit::run(attach)))
    };
    loop {
        let asked = tokio::select! {
            knock = knocks.recv() => Some(knock.context("the demo's door is closed")?),
            ended = &mut shown => return left(ended?),
            () = at(demo.next_step()) => None,
        };
        let done = async {
            match asked {
                Some((asked, back)) => {
                    let held = demo.is_held();
                    // Whoever asked may be gone by now; it is done all the same.
                    let _ = back.send(demo.act(&asked).await);
                    (demo.is_held() != held).then(Vec::new)
                }
                None => Some(demo.take_step().await),
            }
        };
        let failed = tokio::select! {
            failed = done => failed,
            ended = &mut shown => return left(ended?),
        };
        if let Some(failed) = failed {
            news.tell(demo, &failed);
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn left(ended: anyhow::Result<Ended>) -> anyhow::Result<()> {
    match ended? {
        Ended::Left | Ended::Quit | Ended::Stopped | Ended::Terminal(_) => Ok(()),
        Ended::Panicked(why) => anyhow::bail!("the cockpit broke off: {why}"),
    }
}

//! The command line: what may be typed, and which part answers it. Every command has `--help` with
//! examples, tables for people and `-o json` for scripts, and the published exit codes.

mod act;
mod cluster;
mod connect;
mod disaster;
mod fence;
mod kv;
mod links;
mod logs;
mod losses;
mod show;
mod sim;
mod table;
mod wait;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use futures::FutureExt;

use crate::api::error::{ApiError, ErrorCode};
use crate::output::Output;
use crate::places;

/// A cluster node and the terminal cockpit over that cluster, in one binary.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:
  quorate demo                         three real nodes on this host, with the cockpit over them
  quorate node --config node.yaml      a node without a cockpit
  quorate status                       one look: quorum, nodes, what waits and why
  quorate deploy -f web.yaml --wait    deploy and follow it until it runs
  quorate why web/0                    why it runs, stops or waits, and what happens next")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    /// Open the cockpit over the cluster of the node there (HOST:PORT of its gRPC port)
    #[arg(long, value_name = "ENDPOINT", value_delimiter = ',')]
    attach: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Ask this node (HOST:PORT of its gRPC port); several, separated by commas, are tried in turn
    #[arg(long, global = true, env = "QUORATE_ENDPOINT", value_name = "ADDR", value_delimiter = ',')]
    endpoint: Vec<String>,
    /// A node's data directory or a demo's: its endpoints and secret are used
    #[arg(long, global = true, env = "QUORATE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<std::path::PathBuf>,
    /// A file with the cluster's secret
    #[arg(long, global = true, env = "QUORATE_SECRET_FILE", value_name = "FILE")]
    secret_file: Option<std::path::PathBuf>,
    /// For people or for scripts
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Everything that can be typed: what needs a cluster to ask, and what this host answers by itself.
#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Ask(Ask),
    #[command(flatten)]
    Local(Local),
}

/// Asked of a node of the cluster.
#[derive(Debug, Subcommand)]
enum Ask {
    /// One look at the cluster: quorum, nodes, services, what waits and why
    Status(show::ListArgs),
    /// Nodes: state, lease, resources, instances
    Nodes(show::ListArgs),
    /// Services: wanted, running and healthy copies
    Services(show::ListArgs),
    /// Instances: where each copy runs, or what it waits for
    Instances(show::ListArgs),
    /// Drains, migrations, rollouts and fencings with their progress
    Operations(show::ListArgs),
    /// What happened, oldest first
    Events(show::ListArgs),
    /// Who reaches whom, link by link as each node sees it, and what is to be made of it
    Links(show::ListArgs),
    /// Why a node, service, slot or operation is as it is, and what happens next
    Why(show::WhyArgs),
    /// The output of an instance
    Logs(logs::LogsArgs),
    /// Make or change services from a file
    Deploy(act::DeployArgs),
    /// What a deploy would do, by the planner that would do it
    Plan(act::PlanArgs),
    /// Keep a service with nothing running
    Stop(act::ServiceArgs),
    /// Replace a service's copies one by one
    Restart(act::ServiceArgs),
    /// Change the number of copies
    Scale(act::ScaleArgs),
    /// Forget a service once nothing of it runs
    Delete(act::ServiceArgs),
    /// Move one copy to another node
    Migrate(act::MigrateArgs),
    /// Move everything off a node, one by one
    Drain(act::DrainArgs),
    /// Place nothing new on a node
    Cordon(act::NodeArgs),
    /// End a node's cordon and cancel its drain
    Uncordon(act::NodeArgs),
    /// Drain a node and forget it
    Leave(act::LeaveArgs),
    /// Cancel an operation; what it did is undone where it can be
    Cancel(act::CancelArgs),
    /// Power a node off and prove it
    Fence(fence::FenceArgs),
    /// Give your word that a node is dead, where no device can prove it
    Attest(act::AttestArgs),
    /// Cluster settings
    #[command(subcommand)]
    Settings(cluster::SettingsCommand),
    /// The replicated key-value store
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Raft's own state, and handing leadership over
    #[command(subcommand)]
    Raft(cluster::RaftCommand),
    /// Save the whole State, and start anew from a saved one
    #[command(subcommand)]
    Snapshot(disaster::SnapshotCommand),
    /// What another host needs in order to join
    JoinToken,
}

/// Answered here, without a cluster.
#[derive(Debug, Subcommand)]
enum Local {
    /// Real nodes on this host with services on them, and the cockpit over them
    Demo(crate::demo::DemoArgs),
    /// Run a node without a cockpit
    Node(crate::node::NodeArgs),
    /// Hold a node's native processes and their deadlines; nodes start it themselves
    Guard(crate::guard::GuardArgs),
    /// A small service for demonstrations and tests
    Workload(crate::workload::WorkloadArgs),
    /// Whole clusters under faults on virtual time, drawn from a seed
    Sim(sim::SimArgs),
    /// Measure, beside a peer in the same run
    #[command(subcommand)]
    Bench(crate::bench::BenchCommand),
    /// Completions for your shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Runs what the arguments say; the exit code is the published one.
pub fn run() -> ExitCode {
    crate::host::keep_little_memory();
    let cli = Cli::parse();
    let output = cli.global.output;
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&error, output);
            ExitCode::from(error.code.exit_code())
        }
    }
}

fn dispatch(cli: Cli) -> Result<u8, ApiError> {
    let Cli { global, attach, command } = cli;
    match command {
        None => cockpit(global, attach),
        Some(Command::Local(command)) => local(command, global),
        Some(Command::Ask(command)) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| ApiError::failed(&error.into()))?;
            // Behind a pointer, or all of it would be compiled once for each way in which a runtime can run it.
            runtime.block_on(ask(&global, command).boxed_local()).map(|()| 0)
        }
    }
}

fn local(command: Local, global: Global) -> Result<u8, ApiError> {
    let output = global.output;
    let done = match command {
        Local::Demo(args) => return crate::demo::run(args, global.data_dir, output).map(|()| 0),
        Local::Sim(args) => return sim::run(&args, output),
        Local::Workload(args) => crate::workload::run(&args),
        Local::Node(args) => crate::node::run(&args, &places::default_data_dir()).map(|()| 0),
        Local::Guard(args) => crate::guard::run(args).map(|()| 0),
        Local::Bench(command) => crate::bench::run(command, output).map(|()| 0),
        Local::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "quorate", &mut std::io::stdout());
            Ok(0)
        }
    };
    done.map_err(|error| ApiError::failed(&error))
}

/// The cockpit: over the nodes that are named, or over this host's own node.
fn cockpit(mut global: Global, attach: Vec<String>) -> Result<u8, ApiError> {
    global.endpoint.extend(attach);
    if global.endpoint.is_empty() {
        let dir = global.data_dir.clone().unwrap_or_else(places::default_data_dir);
        // A mistyped name founds no cluster: only the default directory is begun anew.
        let own = global.data_dir.is_none() || places::holds_node(&dir);
        if own && places::DemoFile::read(&dir).is_ok_and(|demo| demo.is_none()) {
            return crate::cockpit::own::over_own_node(&dir).map(|()| 0);
        }
    }
    let (endpoints, secret) = connect::whom(&global)?;
    let secret = secret.ok_or_else(|| {
        ApiError::new(
            ErrorCode::Denied,
            "the cluster's secret is not known here",
            "name its file with --secret-file, or a node's directory with --data-dir",
        )
    })?;
    crate::cockpit::own::attach(endpoints, secret).map(|()| 0)
}

async fn ask(global: &Global, command: Ask) -> Result<(), ApiError> {
    // For these a node is stopped: it is not asked.
    let command = match command {
        Ask::Raft(cluster::RaftCommand::Recover(args)) => return disaster::recover(global, &args).await,
        Ask::Snapshot(disaster::SnapshotCommand::Restore(args)) => return disaster::restore(global, &args),
        command => command,
    };
    let mut client = connect::Client::find(global)?;
    let client = &mut client;
    match command {
        Ask::Status(args) => show::status(client, global.output, &args).await,
        Ask::Nodes(args) => show::nodes(client, global.output, &args).await,
        Ask::Services(args) => show::services(client, global.output, &args).await,
        Ask::Instances(args) => show::instances(client, global.output, &args).await,
        Ask::Operations(args) => show::operations(client, global.output, &args).await,
        Ask::Events(args) => show::events(client, global.output, &args).await,
        Ask::Links(args) => links::links(client, global.output, &args).await,
        Ask::Why(args) => show::why(client, global.output, &args).await,
        Ask::Logs(args) => logs::logs(client, &args).await,
        Ask::Deploy(args) => act::deploy(client, global.output, args).await,
        Ask::Plan(args) => act::plan(client, global.output, args).await,
        Ask::Stop(args) => act::stop(client, global.output, args).await,
        Ask::Restart(args) => act::restart(client, global.output, args).await,
        Ask::Scale(args) => act::scale(client, global.output, args).await,
        Ask::Delete(args) => act::delete(client, global.output, args).await,
        Ask::Migrate(args) => act::migrate(client, global.output, args).await,
        Ask::Drain(args) => act::drain(client, global.output, args).await,
        Ask::Cordon(args) => act::cordon(client, global.output, args).await,
        Ask::Uncordon(args) => act::uncordon(client, global.output, args).await,
        Ask::Leave(args) => act::leave(client, global.output, args).await,
        Ask::Cancel(args) => act::cancel(client, global.output, args).await,
        Ask::Fence(args) => fence::fence(client, global.output, args).await,
        Ask::Attest(args) => act::attest(client, global.output, args).await,
        Ask::Settings(command) => cluster::settings(client, global.output, command).await,
        Ask::Kv(command) => kv::kv(client, global.output, command).await,
        Ask::Raft(command) => cluster::raft(client, global.output, command).await,
        Ask::Snapshot(disaster::SnapshotCommand::Save { file }) => {
            disaster::save(client, global.output, &file).await
        }
        // Answered above.
        Ask::Snapshot(disaster::SnapshotCommand::Restore(_)) => Ok(()),
        Ask::JoinToken => cluster::join_token(client, global.output).await,
    }
}

/// Prints an error where errors go: for people with its remedy, for scripts as one line of JSON.
fn report(error: &ApiError, output: Output) {
    let mut stderr = std::io::stderr().lock();
    // Nothing is left to do when even stderr is gone.
    let _ = match output {
        Output::Json => writeln!(stderr, "{}", serde_json::json!({ "error": error })),
        Output::Table if error.remedy.is_empty() => writeln!(stderr, "error: {}", error.message),
        Output::Table => writeln!(stderr, "error: {}\n       {}", error.message, error.remedy),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}

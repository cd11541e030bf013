//! The `quorate` binary: reads the command line and hands over.

use std::process::ExitCode;

use clap::Parser;
use quorate::guard::{self, GuardArgs};
use quorate::workload::{self, WorkloadArgs};

#[derive(Parser)]
#[command(name = "quorate", version, about = "A cluster node and the terminal cockpit over that cluster")]
enum Command {
    /// Hold a node's native processes and their deadlines
    Guard(GuardArgs),
    /// A small service for demonstrations and tests
    Workload(WorkloadArgs),
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Guard(args) => guard::run(args).map(|()| 0),
        Command::Workload(args) => workload::run(&args),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

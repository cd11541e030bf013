//! The `quorate` binary: reads the command line and hands over.

use std::process::ExitCode;

use clap::Parser;
use quorate::guard::{self, GuardArgs};

#[derive(Parser)]
#[command(name = "quorate", version, about = "A cluster node and the terminal cockpit over that cluster")]
enum Command {
    /// Hold a node's native processes and their deadlines
    Guard(GuardArgs),
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Guard(args) => guard::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

//! The demo's fence device: `off` ends a node with its guard and its instances, `status` reads back what is
//! left of them. Decides nothing; who may ask was decided before.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::sweep::{Target, describe};

/// Less than the method's own time limit.
const WITHIN: Duration = Duration::from_secs(8);

/// Arguments of the demo's fence agent.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// The demo's directory
    #[arg(long)]
    dir: PathBuf,
    /// The node to end
    #[arg(long)]
    node: String,
    /// What to do
    #[arg(value_enum)]
    action: AgentAction,
}

/// What a fence agent can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AgentAction {
    /// End everything of the node
    Off,
    /// Say whether anything of it is left
    Status,
}

/// Does it, and says what was done or seen. The last line of `status` is `off` when nothing is left.
pub(super) fn run(args: &AgentArgs) -> anyhow::Result<()> {
    let target = Target::new(&args.dir.canonicalize()?, &args.node);
    match args.action {
        AgentAction::Off => {
            let count = target.end(WITHIN).map_err(anyhow::Error::msg)?;
            println!("{}: {count} processes ended", args.node);
        }
        AgentAction::Status => {
            let left = target.left();
            if left.is_empty() {
                println!("off");
            } else {
                println!("{} runs: {}\non", args.node, describe(&left));
            }
        }
    }
    Ok(())
}

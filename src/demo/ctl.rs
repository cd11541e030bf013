//! What can be asked of a running demo: one vocabulary for the command line, the socket, the cockpit's keys
//! and the steps of a scenario. Does nothing itself.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

use super::relay::Scope;

/// Arguments of `quorate demo ctl`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  quorate demo ctl cut n4 n5                     these two from all others, as when a switch dies
  quorate demo ctl cut n1 --one-way              n1 hears the others and is not heard
  quorate demo ctl cut n1 --from n2 --segment a  one link on one network
  quorate demo ctl delay n3 --ms 40 --jitter 10 --loss 5
  quorate demo ctl heal                          everything works again
  quorate demo ctl kill n2                       as a crash: -9 to the node's process
  quorate demo ctl status")]
pub struct CtlArgs {
    /// The demo's directory [default: --data-dir where that is given, else as `quorate demo` has it]
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: CtlCommand,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CtlCommand {
    /// Kill a node's process with -9; its guard and its instances live on
    Kill(Nodes),
    /// Stop a node's process without ending it
    Freeze(Nodes),
    /// Let a frozen node go on
    Thaw(Nodes),
    /// End a node if it runs, and start it again by the same command
    Restart(Nodes),
    /// Cut nodes from the others: nothing arrives, and nobody is told; nodes cut together still reach each other
    #[command(after_help = "Examples:
  quorate demo ctl cut n4 n5            these two from all others
  quorate demo ctl cut n1 --one-way     what n1 sends is lost, what it is sent arrives
  quorate demo ctl cut n1 n2 n3 --segment a
                                        the whole network a")]
    Cut(CutArgs),
    /// Let everything through again, between these nodes or all
    Heal(HealArgs),
    /// Make what nodes send and are sent late, uneven or lossy
    Delay(DelayArgs),
    /// What runs, what is cut or slow, and where the scenario is
    Status,
    /// Steer the running scenario
    #[command(subcommand)]
    Scenario(ScenarioCommand),
}

/// Some nodes.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Nodes {
    /// Which
    #[arg(required = true, value_name = "NODE")]
    pub(super) nodes: Vec<String>,
}

/// What to cut.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[command(mut_arg("nodes", |arg| arg.required(true)))]
pub struct CutArgs {
    #[command(flatten)]
    pub(super) scope: Scope,
}

/// What to heal.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct HealArgs {
    #[command(flatten)]
    pub(super) scope: Scope,
}

/// What to delay, and how.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[command(mut_arg("nodes", |arg| arg.required(true)))]
pub struct DelayArgs {
    #[command(flatten)]
    pub(super) scope: Scope,
    /// How much later everything arrives; 0 is as fast as it goes
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(..=60_000))]
    pub(super) ms: u32,
    /// By up to so many milliseconds more or less
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=60_000))]
    pub(super) jitter: u32,
    /// How many of a hundred pieces are lost and have to be sent again
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=90))]
    pub(super) loss: u8,
}

/// What to do with the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScenarioCommand {
    /// Take the next step now
    Next,
    /// Take no further step until told to
    Pause,
    /// Go on by the clock
    Resume,
}

/// One line, as it would be typed after `quorate demo ctl`.
#[derive(Debug, Parser)]
#[command(name = "ctl", no_binary_name = true, disable_help_subcommand = true)]
struct Typed {
    #[command(subcommand)]
    command: CtlCommand,
}

impl CtlCommand {
    /// Reads it from words.
    pub(super) fn typed(line: &str) -> Result<Self, String> {
        let typed = Typed::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string());
        typed.map(|typed| typed.command)
    }

    /// The nodes it names.
    pub(super) fn nodes(&self) -> Vec<&str> {
        let named: Vec<&String> = match self {
            Self::Kill(Nodes { nodes })
            | Self::Freeze(Nodes { nodes })
            | Self::Thaw(Nodes { nodes })
            | Self::Restart(Nodes { nodes }) => nodes.iter().collect(),
            Self::Cut(CutArgs { scope })
            | Self::Heal(HealArgs { scope })
            | Self::Delay(DelayArgs { scope, .. }) => scope.nodes.iter().chain(&scope.from).collect(),
            Self::Status | Self::Scenario(_) => Vec::new(),
        };
        named.into_iter().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_asked() {
        let typed = |line: &str| CtlCommand::typed(line);
        assert_eq!(typed("kill n1 n2").unwrap().nodes(), ["n1", "n2"]);
        let Ok(CtlCommand::Cut(CutArgs { scope })) = typed("cut n4 --from n1,n2 n3 --one-way --segment a")
        else {
            panic!("not a cut")
        };
        assert_eq!((scope.nodes.len(), scope.from.len(), scope.one_way), (1, 3, true));
        assert_eq!(scope.segment.as_deref(), Some("a"));
        assert!(
            matches!(typed("heal"), Ok(CtlCommand::Heal(HealArgs { scope })) if scope == Scope::default())
        );
        assert!(matches!(
            typed("delay n1 --ms 40 --jitter 10 --loss 5"),
            Ok(CtlCommand::Delay(DelayArgs { ms: 40, jitter: 10, loss: 5, .. }))
        ));
        for wrong in ["", "cut", "kill", "delay n1", "delay n1 --ms 1 --loss 100", "scenario", "explode n1"] {
            assert!(typed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_survives_the_socket() {
        for line in ["kill n1", "heal", "status", "scenario next", "delay n1 --ms 5 --one-way"] {
            let asked = CtlCommand::typed(line).unwrap();
            let text = serde_json::to_string(&asked).unwrap();
            assert_eq!(serde_json::from_str::<CtlCommand>(&text).unwrap(), asked, "{text}");
        }
    }
}

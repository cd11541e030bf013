//! A running node: the only place that knows all adapters. Values flow one way here: what is seen goes
//! into State's decisions, what is decided goes out as commands and effects.
//!
//! ```text
//! survey, effects (inventory) -> sightings -> control: detect, plan, reconcile -> propose / effects -> show
//! heartbeat (every node) -> answer (leader) -> lease -> guard
//! ```

mod agree;
mod announce;
mod answer;
mod audit;
#[expect(unreachable_pub, reason = "generated code")]
mod cluster_proto;
mod control;
mod effects;
mod fencing;
mod health;
mod heartbeat;
mod identity;
mod inner;
mod join;
mod lone;
mod machine;
mod options;
mod output;
mod peers;
mod port;
mod propose;
mod reach;
mod relay;
pub mod rescue;
mod roads;
mod run;
mod server;
mod show;
mod sightings;
mod start;
mod survey;
mod token;
mod transfer;
mod wire;

pub use identity::{DataDir, Identity, LockNote};
pub use options::NodeOptions;
pub use run::{NodeArgs, read_config, run};
pub use start::Node;
pub use token::{JoinToken, TokenError};

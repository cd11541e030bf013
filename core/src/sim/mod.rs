//! A seeded world in which the real decisions run: hosts with drifting clocks, guards, processes, disks, a
//! network that loses and reorders, fence devices, a log as cruel as Raft permits, and operators. Faults come
//! first, then everything heals and all work must run. What is right is judged from the hosts, not from State.
//! Equal seeds give equal worlds, byte for byte.

mod broken;
mod counts;
mod ctx;
mod disaster;
mod disk;
pub mod faults;
mod guard;
mod host;
mod invariants;
mod join;
mod lead;
mod log;
mod look;
mod network;
mod node;
mod operator;
mod play;
mod random;
pub mod report;
#[cfg(test)]
mod rules;
pub mod scenario;
mod scene;
pub mod script;
mod shrink;
mod sounding;
mod story;
mod strike;
mod switches;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

pub use counts::Count;
pub use play::Play;
pub use scenario::Scenario;
pub use scene::DeviceFault;
pub use script::Script;
pub use shrink::{Shrunk, shrink};
pub use story::Told;
pub use switches::Broken;
use world::World;

/// How a world is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many hosts; drawn from the seed (3 to 5) when open.
    pub hosts: Option<usize>,
    /// How many faults.
    pub faults: u32,
    /// May the log itself be lost in part: a forced quorum, a restore?
    pub disasters: bool,
    /// How long faults may come, in milliseconds of true time.
    pub faults_ms: u64,
    /// How long everything may take to come right after the heal, in milliseconds of true time.
    pub heal_ms: u64,
    /// A written world instead of a drawn one.
    pub script: Option<Arc<Script>>,
    /// These faults in place of the drawn ones; the rest of a drawn world stays as its seed has it.
    pub instead: Option<Arc<[script::Step]>>,
    /// Do operators of a drawn world ask for things?
    pub operators: bool,
    /// Does chance alone lose, double and delay messages of a drawn world?
    pub chance: bool,
    /// What should be so, and when.
    pub expect: Arc<[scenario::Expectation]>,
    /// Tell the story.
    pub story: bool,
    /// Nodes probe one another and pass on what screens show.
    pub shown: bool,
    /// What a test of the simulator itself breaks in it.
    pub broken: Broken,
    /// Keep every line of the transcript, not only its hash.
    pub keep_transcript: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: None,
            faults: 12,
            disasters: true,
            faults_ms: 24_000,
            heal_ms: 60_000,
            script: None,
            instead: None,
            operators: true,
            chance: true,
            expect: Arc::new([]),
            story: false,
            shown: false,
            broken: Broken::default(),
            keep_transcript: false,
        }
    }
}

/// What one seed came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The seed that draws this world again.
    pub seed: u64,
    /// How much happened.
    pub steps: u64,
    /// How long it took in true time, in milliseconds.
    pub virtual_ms: u64,
    /// What was broken; the run ends with the first.
    pub violations: Vec<Violation>,
    /// How often what happened.
    pub counts: BTreeMap<Count, u64>,
    /// Over every line of the transcript: equal for equal runs.
    pub transcript_hash: String,
    /// The transcript, if it was to be kept.
    pub transcript: Vec<String>,
    /// What happened, if it was to be told.
    pub story: Vec<Told>,
    /// What was expected and not so.
    pub unmet: Vec<String>,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The seed that shows it again.
    pub seed: u64,
    /// Which one.
    pub invariant: String,
    /// At which step of the run.
    pub step: u64,
    /// At which true time, in milliseconds.
    pub at_ms: u64,
    /// What was seen.
    pub detail: String,
    /// The last lines before it.
    pub last: Vec<String>,
}

/// Draws the world of a seed and runs it to its end.
pub fn run(seed: u64, options: &Options) -> Outcome {
    World::new(seed, options).run()
}

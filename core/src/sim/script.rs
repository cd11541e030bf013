//! A written world instead of a drawn one: a shape of cluster, the services in it, and what happens when.
//! Between its steps nothing goes wrong by chance.

use serde::{Deserialize, Serialize};

use super::faults::Fault;
use super::scene::DeviceFault;
use crate::command::Command;
use crate::settings::TimingProfile;

/// A written world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// What it is made of.
    pub shape: Shape,
    /// Which services of the cast are deployed at the beginning.
    pub services: Vec<String>,
    /// What happens, in any order.
    pub steps: Vec<Step>,
}

/// What a written cluster is made of. All hosts are alike but for what is said of single ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// How many hosts.
    pub hosts: usize,
    /// Its timings.
    pub profile: TimingProfile,
    /// Do all hosts have a second holder of the deadlines?
    pub armed: bool,
    /// Do nodes stop by themselves, and does their silence count?
    pub silence_counts: bool,
    /// Can hosts be fenced, and what is wrong with their devices?
    pub fencing: Option<DeviceFault>,
    /// Hosts that vote and host nothing.
    pub witnesses: Vec<usize>,
    /// How fast each host's clock runs beyond true time, in parts per million; 0 where nothing is said.
    pub drift_ppm: Vec<i64>,
}

/// One step of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// In microseconds of true time from the beginning.
    pub at_us: u64,
    /// What happens then.
    pub deed: Deed,
}

/// What a script has happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Something goes wrong.
    Fault(Fault),
    /// An operator asks for something, until answered.
    Ask(Box<Command>),
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            hosts: 3,
            profile: TimingProfile::Lan,
            armed: true,
            silence_counts: true,
            fencing: None,
            witnesses: Vec::new(),
            drift_ppm: Vec::new(),
        }
    }
}

impl Script {
    /// These services on this cluster, and nothing happens.
    pub fn of(shape: Shape, services: &[&str]) -> Self {
        Self { shape, services: services.iter().map(ToString::to_string).collect(), steps: Vec::new() }
    }

    /// And then something goes wrong.
    #[must_use]
    pub fn fault(mut self, at_ms: u64, fault: Fault) -> Self {
        self.steps.push(Step { at_us: at_ms * 1_000, deed: Deed::Fault(fault) });
        self
    }

    /// And then an operator asks for something.
    #[must_use]
    pub fn ask(mut self, at_ms: u64, command: Command) -> Self {
        self.steps.push(Step { at_us: at_ms * 1_000, deed: Deed::Ask(Box::new(command)) });
        self
    }
}

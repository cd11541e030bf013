//! Scenarios: worlds as files that people read, with what is done in them and what an operator should see. One is
//! written by hand for a case that must stay as it is, or by `shrink` for what chance found.

mod judge;
mod parse;
mod words;
mod write;

use std::fmt::Write;
use std::sync::Arc;

use super::script::{Deed, Script, Shape, Step};
use super::{Options, Outcome};
use crate::ids::SlotId;
use crate::view::NodeState;

pub(super) use judge::judge;
pub(super) use words::{asked, name, said};

/// A world in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// What it is about, in a sentence.
    pub about: String,
    /// What chance is drawn from.
    pub seed: u64,
    /// What the world is made of.
    pub world: Setting,
    /// When everything is healed, in milliseconds of true time.
    pub lasts_ms: u64,
    /// What is done.
    pub steps: Vec<Step>,
    /// What should be seen.
    pub expect: Vec<Expectation>,
}

/// What a scenario's world is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// All of it is written; nothing goes wrong by chance.
    Written {
        /// The cluster.
        shape: Shape,
        /// The services of the cast that run in it.
        services: Vec<String>,
    },
    /// All but the faults is drawn from the seed.
    Drawn {
        /// How many faults the seed had: they are drawn, and those of the steps come in their place.
        faults: u32,
        /// Do operators ask for things by chance?
        operators: bool,
        /// Do messages get lost, doubled and late by chance?
        chance: bool,
    },
}

/// Something that should be so at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// In microseconds of true time.
    pub at_us: u64,
    /// What.
    pub what: Expected,
}

/// What may be expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// This host leads with a quorum behind it, or nobody does.
    Leads(Option<usize>),
    /// Processes of this slot exist on these hosts and on no others.
    Runs {
        /// Which slot.
        slot: SlotId,
        /// The hosts in their order; one twice if two processes run there.
        on: Vec<usize>,
    },
    /// The leader shows this node so.
    Stands {
        /// Which.
        node: usize,
        /// How.
        state: NodeState,
    },
    /// The answer to `why SUBJECT` has these words in it, by the leader's view.
    Why {
        /// Of what.
        subject: String,
        /// The words.
        words: String,
    },
    /// The first sentence on this node's own screen has these words in it.
    Sees {
        /// On which node.
        node: usize,
        /// The words.
        words: String,
    },
}

/// When everything is healed, unless a scenario says otherwise.
pub(super) const LASTS_MS: u64 = 24_000;

impl Scenario {
    /// How the simulator plays it.
    pub fn options(&self) -> Options {
        let base = Options {
            faults_ms: self.lasts_ms,
            expect: self.expect.clone().into(),
            story: true,
            ..Options::default()
        };
        match &self.world {
            Setting::Written { shape, services } => {
                let (shape, services, steps) = (shape.clone(), services.clone(), self.steps.clone());
                Options { script: Some(Arc::new(Script { shape, services, steps })), ..base }
            }
            Setting::Drawn { faults, operators, chance } => Options {
                faults: *faults,
                operators: *operators,
                chance: *chance,
                instead: Some(self.steps.clone().into()),
                ..base
            },
        }
    }
}

impl Scenario {
    /// What came of it, for people: the story and how it ended.
    pub fn log(&self, outcome: &Outcome) -> String {
        let mut log = format!("# {}\n", self.about);
        for line in &outcome.story {
            let _ = writeln!(log, "{line}");
        }
        let broken = outcome
            .violations
            .iter()
            .map(|found| format!("VIOLATION of {} at {} ms: {}", found.invariant, found.at_ms, found.detail));
        let unmet = outcome.unmet.iter().map(|unmet| format!("NOT AS EXPECTED {unmet}"));
        for line in broken.chain(unmet) {
            let _ = writeln!(log, "{line}");
        }
        if outcome.violations.is_empty() && outcome.unmet.is_empty() {
            let _ = writeln!(log, "no invariant broken, all as expected");
        }
        log
    }
}

impl Step {
    /// What happens, as it is written in a file.
    pub(super) fn words(&self) -> String {
        match &self.deed {
            Deed::Fault(fault) => said(fault).0,
            Deed::Ask(command) => asked(command),
        }
    }
}

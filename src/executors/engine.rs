//! One engine as this node knows it: what it last said of itself, and whose output is being taken in.
//! Asks it nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_core::observation::{ExecutorFact, Unavailable};
use quorate_core::spec::ExecutorKind;
use tokio::time::Instant;

use super::pump::Pump;
use crate::ports::{EngineFact, Executor, RunId};

/// One engine.
pub(super) struct Engine {
    pub(super) executor: Arc<dyn Executor>,
    known: Mutex<Known>,
}

/// What is known of it.
#[derive(Default)]
pub(super) struct Known {
    /// What it said of itself, and when.
    pub(super) fact: Option<(Result<EngineFact, Unavailable>, Instant)>,
    /// Runs whose output is being taken in.
    pub(super) pumps: BTreeMap<RunId, Pump>,
    /// Runs that were asked to stop.
    pub(super) asked: Vec<RunId>,
    /// When it was last asked what it has.
    pub(super) looked: Option<Instant>,
    /// Does it still have what should be gone?
    pub(super) leftovers: bool,
}

impl Engine {
    pub(super) fn new(executor: Arc<dyn Executor>) -> Self {
        Self { executor, known: Mutex::default() }
    }

    pub(super) fn kind(&self) -> ExecutorKind {
        self.executor.kind()
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Was it asked at all?
    pub(super) fn surveyed(&self) -> bool {
        self.known().fact.is_some()
    }

    /// What it is, if it can be used.
    pub(super) fn usable(&self) -> Result<EngineFact, Unavailable> {
        match &self.known().fact {
            Some((fact, _)) => fact.clone(),
            None => Err(Unavailable {
                why: format!("{} was not asked yet", self.kind()),
                remedy: "wait a moment".to_owned(),
            }),
        }
    }

    /// As the node tells of it.
    pub(super) fn fact(&self) -> ExecutorFact {
        let (fact, unavailable) = match self.usable() {
            Ok(fact) => (fact, None),
            Err(why) => (EngineFact::default(), Some(why)),
        };
        let EngineFact { version, mut capabilities, placing } = fact;
        if placing.beyond.is_some() {
            capabilities.push("never_armed".to_owned());
        }
        ExecutorFact { kind: self.kind(), version, capabilities, unavailable }
    }

    /// Nobody will read the output any more.
    pub(super) fn end_pumps(&self) {
        self.known().pumps.clear();
    }
}

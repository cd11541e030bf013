//! Acknowledged commands are never lost, never applied twice, and every repeat gets the first answer.

use std::collections::{BTreeMap, BTreeSet};

use super::{Judgement, Truth};
use crate::ids::{RequestId, Revision};
use crate::sim::host::Host;
use crate::sim::log::Payload;
use crate::sim::operator::Ask;

/// Where each request was committed first.
#[derive(Default)]
pub(super) struct Acknowledged {
    committed: BTreeMap<RequestId, Revision>,
    /// By what revision each request was answered first.
    answered: BTreeMap<usize, Revision>,
    /// Those that a recovery lost. It names them: all that came after what it goes on from.
    lost: BTreeSet<usize>,
}

impl Acknowledged {
    /// A revision was applied for the first time anywhere.
    pub(super) fn committed(&mut self, truth: &Truth) -> Judgement {
        let Truth::Applied { revision, entry, .. } = truth else { return Ok(()) };
        if let Payload::Proposals(proposals) = &entry.payload {
            for request in proposals.iter().filter_map(|proposal| proposal.request.clone()) {
                self.committed.entry(request).or_insert(*revision);
            }
        }
        Ok(())
    }

    /// What came after this revision is gone. How much of it was acknowledged?
    pub(super) fn forked(&mut self, kept: Revision) -> usize {
        self.committed.retain(|_, revision| *revision <= kept);
        let before = self.lost.len();
        let gone = self.answered.iter().filter(|(_, revision)| **revision > kept);
        self.lost.extend(gone.map(|(ask, _)| *ask));
        self.answered.retain(|_, revision| *revision <= kept);
        self.lost.len() - before
    }

    pub(super) fn see(&mut self, truth: &Truth) -> Judgement {
        match truth {
            Truth::Answered { ask, first: None, answer } => {
                self.answered.insert(*ask, answer.revision);
                Ok(())
            }
            Truth::Answered { ask, first: Some(first), answer }
                if first != answer && !self.lost.contains(ask) =>
            {
                Err(format!("request {} was answered {first:?} and then {answer:?}", ask + 1))
            }
            _ => Ok(()),
        }
    }

    /// Every answered request lies in the log of every host at the revision that its answer names.
    pub(super) fn at_the_end(&self, hosts: &[Host], asks: &[Ask]) -> Judgement {
        for (_, ask) in asks.iter().enumerate().filter(|(at, _)| !self.lost.contains(at)) {
            let (Some(answer), Some(request)) = (&ask.answer, &ask.proposal.request) else { continue };
            let Some(revision) = self.committed.get(request) else {
                return Err(format!("{request} was answered and is in no committed entry"));
            };
            if *revision != answer.revision {
                return Err(format!("{request} was answered for {} and lies at {revision}", answer.revision));
            }
            for host in hosts {
                let payload = host.disk.log.entry(revision.0).map(|entry| &entry.payload);
                let there = match payload {
                    Some(Payload::Proposals(proposals)) => {
                        proposals.iter().any(|proposal| proposal.request.as_ref() == Some(request))
                    }
                    Some(Payload::Empty | Payload::Members(_) | Payload::Anew(..)) | None => false,
                };
                if !there {
                    return Err(format!("{request} is missing at {revision} on host {}", host.index));
                }
            }
        }
        Ok(())
    }
}

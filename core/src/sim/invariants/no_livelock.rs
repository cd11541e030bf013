//! The plan asks for what is possible: the same command is not refused again and again.

use std::collections::BTreeMap;

use super::{Judgement, Truth};

/// So often in a row, the planner and `apply` disagree on a rule; fewer are a race.
const MOST: u32 = 25;

/// How often each command was refused for the same reason.
#[derive(Default)]
pub(super) struct NoLivelock(BTreeMap<(String, String), u32>);

impl NoLivelock {
    pub(super) fn see(&mut self, truth: &Truth) -> Judgement {
        let Truth::Refused(proposal, why) = truth else { return Ok(()) };
        let times = self.0.entry((format!("{:?}", proposal.command), why.clone())).or_insert(0);
        *times += 1;
        if *times < MOST {
            return Ok(());
        }
        Err(format!("refused {times} times: {:?}: {why}", proposal.command))
    }
}

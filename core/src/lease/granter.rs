//! The leader's side of leases: which heartbeats may be answered. Does not know how a quorum round is made,
//! only that rounds are numbered and that one begun after a heartbeat came must be over.

use std::collections::BTreeMap;

use super::{LeaseAnswer, LeaseTerms, Standing};
use crate::ids::{BootId, LeaseEpoch, NodeId, Revision};

/// A heartbeat that was received and not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Who.
    pub node: NodeId,
    /// Its boot.
    pub boot: BootId,
    /// The lease epoch it believes to be in.
    pub lease_epoch: LeaseEpoch,
    /// It asks for a rejoin: no lease before that.
    pub wants_rejoin: bool,
    /// Does it promise that two holders have its deadlines?
    pub armed: bool,
    /// Its number.
    pub heartbeat: u64,
}

/// A leader's memory of whom it may not answer yet. Made anew with each leadership.
#[derive(Debug, Clone, Default)]
pub struct LeaseGranter {
    /// The newest unanswered heartbeat of each node, with the round that has to be over.
    asked: BTreeMap<NodeId, (u64, Asked)>,
    /// Nodes that were proposed as lost in this epoch, undecided.
    closing: BTreeMap<NodeId, LeaseEpoch>,
}

impl LeaseGranter {
    /// A heartbeat came; `round` is the first quorum round that begins after now. Of several by one node
    /// only the newest is kept: its answer is worth more.
    pub fn heard(&mut self, asked: Asked, round: u64) {
        self.asked.insert(asked.node.clone(), (round, asked));
    }

    /// `lost` is about to be proposed: from now on the node is not answered in that epoch.
    pub fn close(&mut self, node: &NodeId, lease_epoch: LeaseEpoch) {
        self.closing.insert(node.clone(), lease_epoch);
    }

    /// The proposal was refused, so that it can never take effect.
    pub fn reopen(&mut self, node: &NodeId) {
        self.closing.remove(node);
    }

    /// Is anybody waiting for a round?
    pub fn waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Round number `over` is over, at the leader's applied `revision`: who is answered, and how.
    /// Heartbeats that may not be answered are dropped; the next one asks again.
    pub fn answers<'a>(
        &mut self,
        over: u64,
        revision: Revision,
        terms: LeaseTerms,
        standing: impl Fn(&NodeId) -> Option<Standing<'a>>,
    ) -> Vec<(NodeId, LeaseAnswer)> {
        let mut ready = Vec::new();
        self.asked.retain(|_, (round, asked)| {
            let over = *round <= over;
            if over {
                ready.push(asked.clone());
            }
            !over
        });
        ready.retain(|asked| standing(&asked.node).is_some_and(|standing| self.may_answer(asked, standing)));
        let answer = |asked: Asked| {
            let Asked { node, lease_epoch, heartbeat, .. } = asked;
            (node, LeaseAnswer { heartbeat, lease_epoch, revision, terms })
        };
        ready.into_iter().map(answer).collect()
    }

    fn may_answer(&self, asked: &Asked, standing: Standing<'_>) -> bool {
        let closing = self.closing.get(&asked.node).is_some_and(|epoch| *epoch >= standing.lease_epoch);
        standing.alive
            && standing.boot == &asked.boot
            && standing.lease_epoch == asked.lease_epoch
            && !asked.wants_rejoin
            && !closing
            // A promise is taken back in State first: what rests on it must not outlast it.
            && (asked.armed || !standing.armed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Millis;

    fn asked(heartbeat: u64) -> Asked {
        Asked {
            node: NodeId::new("n1").unwrap(),
            boot: BootId("boot".to_owned()),
            lease_epoch: LeaseEpoch(2),
            wants_rejoin: false,
            armed: false,
            heartbeat,
        }
    }

    fn terms() -> LeaseTerms {
        LeaseTerms {
            number: 1,
            heartbeat: Millis(1),
            lease: Millis(5),
            kill_margin: Millis(1),
            clock_drift_pcm: 0,
        }
    }

    fn answered(granter: &mut LeaseGranter, over: u64, alive: bool, epoch: u64) -> Vec<u64> {
        let boot = BootId("boot".to_owned());
        let standing = Standing { alive, boot: &boot, lease_epoch: LeaseEpoch(epoch), armed: false };
        let answers = granter.answers(over, Revision(9), terms(), |_| Some(standing));
        answers.into_iter().map(|(_, answer)| answer.heartbeat).collect()
    }

    #[test]
    fn a_heartbeat_is_answered_only_after_a_round_begun_after_it_came() {
        let mut granter = LeaseGranter::default();
        granter.heard(asked(7), 3);
        assert!(answered(&mut granter, 2, true, 2).is_empty());
        assert_eq!(answered(&mut granter, 3, true, 2), [7]);
        assert!(!granter.waiting());
    }

    #[test]
    fn the_lost_the_rebooted_and_those_of_another_epoch_are_not_answered() {
        let mut granter = LeaseGranter::default();
        for (alive, epoch) in [(false, 2), (true, 3), (true, 1)] {
            granter.heard(asked(1), 1);
            assert!(answered(&mut granter, 1, alive, epoch).is_empty());
        }
        granter.heard(Asked { boot: BootId("new".to_owned()), ..asked(1) }, 1);
        assert!(answered(&mut granter, 1, true, 2).is_empty());
        granter.heard(Asked { wants_rejoin: true, ..asked(1) }, 1);
        assert!(answered(&mut granter, 1, true, 2).is_empty());
    }

    #[test]
    fn a_node_that_is_armed_no_more_is_not_answered_before_state_knows() {
        let mut granter = LeaseGranter::default();
        let boot = BootId("boot".to_owned());
        for (said, known, answered) in
            [(true, true, true), (false, true, false), (false, false, true), (true, false, true)]
        {
            granter.heard(Asked { armed: said, ..asked(1) }, 1);
            let standing = Standing { alive: true, boot: &boot, lease_epoch: LeaseEpoch(2), armed: known };
            let answers = granter.answers(1, Revision(9), terms(), |_| Some(standing));
            assert_eq!(!answers.is_empty(), answered, "said {said}, State says {known}");
        }
    }

    #[test]
    fn from_proposing_lost_until_a_higher_epoch_a_node_is_not_answered() {
        let mut granter = LeaseGranter::default();
        granter.close(&asked(1).node, LeaseEpoch(2));
        granter.heard(asked(1), 1);
        assert!(answered(&mut granter, 1, true, 2).is_empty());
        granter.heard(Asked { lease_epoch: LeaseEpoch(3), ..asked(2) }, 1);
        assert_eq!(answered(&mut granter, 1, true, 3), [2]);
    }
}

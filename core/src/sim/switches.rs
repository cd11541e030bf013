//! What tests may switch off or break, to prove that the simulator would notice: rules of the safety model and
//! planted bugs. They sit in the simulated carrying between the real parts, never in what is shipped to
//! decide; outside of test builds nothing can be broken.

#[cfg(test)]
use std::collections::BTreeSet;

/// What is broken in a world; nothing unless a test of the simulator itself breaks it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Broken {
    #[cfg(test)]
    plants: BTreeSet<Plant>,
    #[cfg(test)]
    without: BTreeSet<Rule>,
    #[cfg(test)]
    only: Option<&'static str>,
}

#[cfg(test)]
impl Broken {
    pub(super) fn by(plant: Plant) -> Self {
        Self { plants: BTreeSet::from([plant]), ..Self::default() }
    }

    pub(super) fn without(rules: &[Rule]) -> Self {
        Self { without: rules.iter().copied().collect(), ..Self::default() }
    }

    /// Only this invariant is judged: others would see it earlier.
    pub(super) fn only(self, invariant: &'static str) -> Self {
        Self { only: Some(invariant), ..self }
    }
}

impl Broken {
    #[cfg(test)]
    pub(super) fn has(&self, plant: Plant) -> bool {
        self.plants.contains(&plant)
    }

    #[cfg(test)]
    pub(super) fn lacks(&self, rule: Rule) -> bool {
        self.without.contains(&rule)
    }

    #[cfg(test)]
    pub(super) fn judged_by(&self) -> Option<&'static str> {
        self.only
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "everything is judged outside of tests")]
    pub(super) fn judged_by(&self) -> Option<&'static str> {
        None
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "nothing is broken outside of tests")]
    pub(super) fn has(&self, _: Plant) -> bool {
        false
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "nothing is broken outside of tests")]
    pub(super) fn lacks(&self, _: Rule) -> bool {
        false
    }
}

/// Rules of the safety model. Each is there for a double run that happens without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// An expired or lost lease returns only by a committed rejoin.
    RejoinAfterExpiry,
    /// A node starts only after it has applied the revision that its lease's answer names.
    AppliedRevision,
    /// It starts only by tokens that are not below the highest, in the lease epoch of its own State.
    CurrentToken,
    /// A claim names the boot that it was granted to.
    ClaimNamesBoot,
    /// A heartbeat is answered only after a quorum round begun after it came.
    QuorumBeforeAnswer,
    /// A second holder has the deadlines too.
    SecondHolder,
    /// Evidence takes the stricter of old and new terms.
    StricterTerms,
    /// New terms count once the guard holds them.
    TermsHeldByGuard,
    /// New terms take force only with a renewal, never on an expired lease.
    TermsByRenewal,
    /// A wiped disk is a new voter.
    WipedIsNewVoter,
    /// Every start passes the guard: a late start is called off.
    StartGate,
    /// What a heartbeat promises is in State before it is answered.
    PromiseInState,
    /// A new leader counts silence from its own election, not from the stored `lost` entry.
    CountFromOwnElection,
    /// After a recovery nothing exclusive is granted before it is known what runs on every node.
    InventoriesFirst,
    /// A node that a recovery went on without is no member until it has joined anew.
    FormerMembersStayOut,
}

/// Bugs that can be planted, one at least for each checker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Plant {
    /// Claims of a lost node are forgotten without evidence.
    ForgetClaimsOfLost,
    /// The leader takes a lost node for long silent.
    ImpatientSilence,
    /// Nobody kills at the deadline.
    ForgetDeadlines,
    /// A node believes in a lease that it does not have, and its guard does not check.
    StartWithoutLease,
    /// A restarted guard has forgotten what runs.
    ForgetRegistry,
    /// Clients are answered before their entry is committed.
    AnswerBeforeCommit,
    /// One replica applies something of its own.
    UnequalApply,
    /// A fence method says off and does nothing.
    FenceByWord,
    /// The last pass of a migration is not kept.
    KeepOldCopy,
    /// Copies are never begun.
    DropFetches,
    /// The plan does not say what it waits for.
    SilentPlan,
    /// The plan grants in a lease epoch that is not the node's.
    GrantInWrongEpoch,
    /// Nodes are taken for larger than they are.
    OversizedNodes,
    /// A stop is acknowledged while the instance still runs.
    FalseAcknowledgement,
    /// A second fence operation is begun beside one that runs.
    SecondFence,
    /// The guard ends critical instances too when the lease runs out.
    KillCritical,
    /// A rollout replaces all copies of a service at once.
    HastyRollout,
    /// Something important stops for nobody.
    IdlePreemption,
}

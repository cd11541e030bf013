//! A seeded world in which the real decisions run: hosts with drifting clocks, guards, processes, disks, a
//! network that loses and reorders, fence devices, a log as cruel as Raft permits, and operators. Faults come
//! first, then everything heals and all work must run. What is right is judged from the hosts, not from State.
//! Equal seeds give equal worlds, byte for byte.

mod ctx;
mod faults;
mod guard;
mod host;
mod invariants;
mod lead;
mod log;
mod network;
mod node;
mod operator;
mod random;
pub mod report;
mod scene;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use world::World;

/// How a world is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many hosts; drawn from the seed (3 to 5) when open.
    pub hosts: Option<usize>,
    /// How many faults.
    pub faults: u32,
    /// How long faults may come, in milliseconds of true time.
    pub faults_ms: u64,
    /// How long everything may take to come right after the heal, in milliseconds of true time.
    pub heal_ms: u64,
    /// A bug to plant: proves that its checker would notice.
    pub plant: Option<Plant>,
    /// Keep every line of the transcript, not only its hash.
    pub keep_transcript: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: None,
            faults: 12,
            faults_ms: 24_000,
            heal_ms: 60_000,
            plant: None,
            keep_transcript: false,
        }
    }
}

/// Bugs that can be planted, each one safety rule switched off. None of them is in the code that is shipped
/// to decide: they sit in the simulated carrying between its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plant {
    /// Claims of a lost node are forgotten without evidence.
    ForgetClaimsOfLost,
    /// The leader takes a lost node for long silent.
    ImpatientSilence,
    /// Nobody kills at the deadline.
    ForgetDeadlines,
    /// A node believes in a lease that it does not have, and its guard does not check.
    StartWithoutLease,
    /// Tokens are not compared with the highest, and a lease is used before State is as new as its answer.
    AcceptStaleTokens,
    /// A restarted guard has forgotten what runs.
    ForgetRegistry,
    /// A node forgets that its lease ran out.
    ForgetExpiry,
    /// Heartbeats are answered without a quorum round.
    AnswerWithoutQuorum,
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
}

/// Rare happenings, counted so that a clean run is seen to have met them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are what is printed")]
pub enum Count {
    Crashes,
    Reboots,
    GuardKills,
    Freezes,
    Cuts,
    OneWayCuts,
    Isolations,
    Adoptions,
    LeaderChanges,
    LeadershipsLost,
    MessagesLost,
    LeaseStops,
    LateStartsRefused,
    StaleTokensRefused,
    FenceAttempts,
    Fences,
    FencesFailed,
    SwitchedOn,
    Grants,
    Losses,
    Rejoins,
    EndedByAcknowledgement,
    EndedByFence,
    EndedByReboot,
    EndedBySilence,
    EndedByAttestation,
    Attestations,
    Drains,
    Migrations,
    MigrationsDone,
    MigrationsRolledBack,
    Rollouts,
    OperationsEnded,
    Acknowledged,
    Refused,
    Retried,
    RestartsWithoutLease,
    Spawned,
    LogTailsLost,
    PlansRefused,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).unwrap_or_default();
        f.pad(name.as_str().unwrap_or_default())
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

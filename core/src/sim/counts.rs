//! Rare happenings, counted so that a clean run is seen to have met them.

use std::fmt;

use serde::Serialize;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are what is printed")]
pub enum Count {
    Crashes,
    Reboots,
    GuardKills,
    TwinKills,
    Freezes,
    GuardFreezes,
    TwinFreezes,
    Pauses,
    Suspends,
    PowerLosses,
    ForcedQuorums,
    Restores,
    WritesLost,
    InventoriesTaken,
    FormerMembersBack,
    FormerMembersRefused,
    StoodAside,
    WallJumps,
    OldStates,
    DisksWiped,
    DisksCopied,
    CopiesRefused,
    DisksFull,
    WritesRefused,
    EnginesFailed,
    EnginesHung,
    StartsFailed,
    SegmentsLost,
    Joins,
    Departures,
    SettingsChanged,
    FencesLied,
    ResidualRuns,
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
    Preemptions,
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

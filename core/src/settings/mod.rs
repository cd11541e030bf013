//! Cluster-wide settings: seeded by the bootstrapping node's file, afterwards changed only by commands.
//! Validation refuses timings under which a lease could outlive the wait for its silence.

mod named;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lease::LeaseTerms;
use crate::spec::Priority;
use crate::units::Millis;

pub use named::NAMES;

/// The settings in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// Heartbeat, lease, margins, drift.
    pub terms: LeaseTerms,
    /// Raft's own timing.
    pub raft: RaftTiming,
    /// May silence alone, with armed guards, let an exclusive instance start elsewhere?
    pub autonomous_shutdown: bool,
    /// Fence a lost node that holds exclusive claims without being asked?
    pub fencing_auto: bool,
    /// Wait this long after `lost` before fencing by itself.
    pub fencing_delay: Millis,
    /// No service may ask for a longer grace.
    pub max_grace: Millis,
    /// For specs without a priority.
    pub default_priority: Priority,
    /// All keys and values together, in bytes.
    pub kv_quota_bytes: u64,
    /// A key and its value may not be larger, in bytes.
    pub kv_max_value_bytes: u64,
}

/// Raft's timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftTiming {
    /// From one heartbeat to the next.
    pub heartbeat: Millis,
    /// The shortest election timeout.
    pub election_min: Millis,
    /// The longest.
    pub election_max: Millis,
}

/// Named sets of timings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimingProfile {
    /// For one data centre.
    Default,
    /// For one switch; the demo too.
    Lan,
    /// For fencing within a second.
    Fast,
    /// For several sites.
    Wan,
}

/// One changed setting, by its name in `settings set` and its new value as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// Such as `fencing.auto`.
    pub name: String,
    /// Such as `off`, `5s`.
    pub value: String,
}

/// Why settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SettingsError {
    /// No such setting.
    #[error("no setting {name:?}; did you mean {nearest:?}")]
    Unknown {
        /// As given.
        name: String,
        /// The nearest known.
        nearest: String,
    },
    /// The value does not fit the setting.
    #[error("setting {name} cannot be {value:?}: {expected}")]
    Value {
        /// Which setting.
        name: String,
        /// As given.
        value: String,
        /// What would fit.
        expected: String,
    },
    /// Together the timings would be unsafe or useless.
    #[error("{0}")]
    Inequality(String),
}

impl TimingProfile {
    /// Its numbers.
    pub fn timings(self) -> (LeaseTerms, RaftTiming) {
        let (raft_heartbeat, min, max, heartbeat, lease) = match self {
            TimingProfile::Default => (50, 150, 250, 1_000, 5_000),
            TimingProfile::Lan => (25, 75, 150, 250, 1_000),
            TimingProfile::Fast => (25, 75, 150, 100, 600),
            TimingProfile::Wan => (250, 1_000, 2_000, 1_000, 5_000),
        };
        let terms = LeaseTerms {
            number: 1,
            heartbeat: Millis(heartbeat),
            lease: Millis(lease),
            kill_margin: Millis(200),
            clock_drift_pcm: 1_000,
        };
        let raft = RaftTiming {
            heartbeat: Millis(raft_heartbeat),
            election_min: Millis(min),
            election_max: Millis(max),
        };
        (terms, raft)
    }
}

impl fmt::Display for TimingProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            TimingProfile::Default => "default",
            TimingProfile::Lan => "lan",
            TimingProfile::Fast => "fast",
            TimingProfile::Wan => "wan",
        })
    }
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self::of(TimingProfile::Default)
    }
}

impl ClusterSettings {
    /// The defaults with a profile's timings.
    pub fn of(profile: TimingProfile) -> Self {
        let (terms, raft) = profile.timings();
        Self {
            terms,
            raft,
            autonomous_shutdown: true,
            fencing_auto: true,
            fencing_delay: Millis(0),
            max_grace: Millis(120_000),
            default_priority: Priority::Normal,
            kv_quota_bytes: 256 * 1024 * 1024,
            kv_max_value_bytes: 1024 * 1024,
        }
    }

    /// Refuses timings that break the inequalities the lease rests on, and says which.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let LeaseTerms { heartbeat, lease, kill_margin, clock_drift_pcm, .. } = self.terms;
        let RaftTiming { heartbeat: raft, election_min, election_max } = self.raft;
        let broken = |text: String| Err(SettingsError::Inequality(text));
        if heartbeat.0 == 0 || raft.0 == 0 {
            return broken("heartbeat.interval and raft.heartbeat must be above 0".to_owned());
        }
        if lease.0 < heartbeat.0 * 3 {
            return broken(format!(
                "heartbeat.timeout {lease} is under three times heartbeat.interval {heartbeat}: one lost \
                 heartbeat would cost the lease; use {} or more",
                Millis(heartbeat.0 * 3)
            ));
        }
        if election_min.0 < raft.0 * 2 {
            return broken(format!(
                "raft election timeout {election_min} is under twice the raft heartbeat {raft}: one late \
                 heartbeat would start an election"
            ));
        }
        if election_max <= election_min {
            return broken(format!(
                "raft election timeout must span a range, but its longest {election_max} is not above its \
                 shortest {election_min}"
            ));
        }
        if lease.0 < election_max.0 * 2 {
            return broken(format!(
                "heartbeat.timeout {lease} is under twice the longest election timeout {election_max}: every \
                 election would cost all leases"
            ));
        }
        if kill_margin.0 < 50 {
            return broken(format!("kill margin {kill_margin} is under 50ms: no host kills that reliably"));
        }
        if clock_drift_pcm > 10_000 {
            return broken("clock_drift above 10 % would stretch every wait beyond use".to_owned());
        }
        Ok(())
    }
}

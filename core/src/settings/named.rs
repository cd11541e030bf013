//! Settings by the names that files, `settings get` and `settings set` share, as texts. Does not know who
//! may change them.

use crate::document::nearest;
use crate::spec::{PRIORITIES, Priority};
use crate::units::Millis;

use super::{ClusterSettings, SettingChange, SettingsError, TimingProfile};

/// Every setting that can be read, in order. `timing.profile` can be set too and stands for the timings.
pub const NAMES: [&str; 14] = [
    "heartbeat.interval",
    "heartbeat.timeout",
    "timing.kill_margin",
    "timing.clock_drift",
    "timing.raft_heartbeat",
    "timing.election_min",
    "timing.election_max",
    "split_brain.autonomous_shutdown",
    "fencing.auto",
    "fencing.delay",
    "stop.max_grace",
    "service.default_priority",
    "kv.quota_mib",
    "kv.max_value_kib",
];

const MAX_LENGTH: Millis = Millis(86_400_000);

impl TimingProfile {
    /// All, by name.
    pub const ALL: [(&'static str, TimingProfile); 4] = [
        ("default", TimingProfile::Default),
        ("lan", TimingProfile::Lan),
        ("fast", TimingProfile::Fast),
        ("wan", TimingProfile::Wan),
    ];
}

impl ClusterSettings {
    /// Every setting with its value as `settings set` takes it, in the order of [`NAMES`].
    pub fn listed(&self) -> Vec<(&'static str, String)> {
        NAMES.iter().filter_map(|name| Some((*name, self.get(name)?))).collect()
    }

    /// The value of one setting as text.
    pub fn get(&self, name: &str) -> Option<String> {
        let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
        Some(match name {
            "heartbeat.interval" => self.terms.heartbeat.to_string(),
            "heartbeat.timeout" => self.terms.lease.to_string(),
            "timing.kill_margin" => self.terms.kill_margin.to_string(),
            "timing.clock_drift" => percent(self.terms.clock_drift_pcm),
            "timing.raft_heartbeat" => self.raft.heartbeat.to_string(),
            "timing.election_min" => self.raft.election_min.to_string(),
            "timing.election_max" => self.raft.election_max.to_string(),
            "split_brain.autonomous_shutdown" => switch(self.autonomous_shutdown),
            "fencing.auto" => switch(self.fencing_auto),
            "fencing.delay" => self.fencing_delay.to_string(),
            "stop.max_grace" => self.max_grace.to_string(),
            "service.default_priority" => self.default_priority.to_string(),
            "kv.quota_mib" => (self.kv_quota_bytes / (1024 * 1024)).to_string(),
            "kv.max_value_kib" => (self.kv_max_value_bytes / 1024).to_string(),
            _ => return None,
        })
    }

    /// These settings with all the changes, checked as a whole. New terms get the next number.
    pub fn with(&self, changes: &[SettingChange]) -> Result<ClusterSettings, SettingsError> {
        let mut new = self.clone();
        for change in changes {
            new.set(&change.name, &change.value)?;
        }
        if new.terms != self.terms {
            new.terms.number = self.terms.number.saturating_add(1);
        }
        new.validate()?;
        Ok(new)
    }

    /// Changes one setting without checking the whole.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), SettingsError> {
        match name {
            "timing.profile" => {
                let (terms, raft) = word(name, value, &TimingProfile::ALL)?.timings();
                self.terms = crate::lease::LeaseTerms { number: self.terms.number, ..terms };
                self.raft = raft;
            }
            "heartbeat.interval" => self.terms.heartbeat = length(name, value)?,
            "heartbeat.timeout" => self.terms.lease = length(name, value)?,
            "timing.kill_margin" => self.terms.kill_margin = length(name, value)?,
            "timing.clock_drift" => self.terms.clock_drift_pcm = pcm(name, value)?,
            "timing.raft_heartbeat" => self.raft.heartbeat = length(name, value)?,
            "timing.election_min" => self.raft.election_min = length(name, value)?,
            "timing.election_max" => self.raft.election_max = length(name, value)?,
            "split_brain.autonomous_shutdown" => self.autonomous_shutdown = switch(name, value)?,
            "fencing.auto" => self.fencing_auto = switch(name, value)?,
            "fencing.delay" => self.fencing_delay = length(name, value)?,
            "stop.max_grace" => self.max_grace = length(name, value)?,
            "service.default_priority" => self.default_priority = word::<Priority>(name, value, &PRIORITIES)?,
            "kv.quota_mib" => self.kv_quota_bytes = whole(name, value, 1, 16 * 1024)? * 1024 * 1024,
            "kv.max_value_kib" => self.kv_max_value_bytes = whole(name, value, 1, 8 * 1024)? * 1024,
            _ => return Err(unknown(name)),
        }
        Ok(())
    }
}

/// Thousandths of a percent as percent.
fn percent(pcm: u32) -> String {
    let text = format!("{}.{:03}", pcm / 1000, pcm % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn unknown(name: &str) -> SettingsError {
    let known: Vec<&str> = NAMES.into_iter().chain(["timing.profile"]).collect();
    let near = nearest(name, &known).or_else(|| {
        // Somebody who remembers only the last part means the setting that ends so.
        known.iter().find(|known| known.rsplit('.').next() == name.rsplit('.').next()).copied()
    });
    SettingsError::Unknown { name: shorten(name), nearest: near.unwrap_or(NAMES[0]).to_owned() }
}

fn wrong(name: &str, value: &str, expected: impl Into<String>) -> SettingsError {
    SettingsError::Value { name: name.to_owned(), value: shorten(value), expected: expected.into() }
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

fn length(name: &str, value: &str) -> Result<Millis, SettingsError> {
    let length: Millis =
        value.parse().map_err(|_| wrong(name, value, "use a length of time such as 250ms or 5s"))?;
    if length > MAX_LENGTH { Err(wrong(name, value, "use a day at most")) } else { Ok(length) }
}

fn switch(name: &str, value: &str) -> Result<bool, SettingsError> {
    word(name, value, &[("on", true), ("off", false), ("true", true), ("false", false)])
}

fn word<T: Copy>(name: &str, value: &str, words: &[(&str, T)]) -> Result<T, SettingsError> {
    let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    let found = words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
    found.ok_or_else(|| wrong(name, value, format!("use one of {}", known())))
}

fn whole(name: &str, value: &str, low: u64, high: u64) -> Result<u64, SettingsError> {
    let number = value.parse().ok().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| wrong(name, value, format!("use a whole number from {low} to {high}")))
}

fn pcm(name: &str, value: &str) -> Result<u32, SettingsError> {
    let number = value.trim_end_matches('%').parse::<f64>().ok().filter(|n| (0.0..=50.0).contains(n));
    let number = number.ok_or_else(|| wrong(name, value, "use a percentage such as 1 or 0.5"))?;
    Ok((number * 1000.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str, value: &str) -> SettingChange {
        SettingChange { name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn every_setting_listed_can_be_set_to_what_it_lists() {
        let wanted = ClusterSettings {
            autonomous_shutdown: false,
            fencing_auto: false,
            fencing_delay: Millis(7_000),
            default_priority: Priority::Low,
            kv_quota_bytes: 3 * 1024 * 1024,
            ..ClusterSettings::of(TimingProfile::Lan)
        };
        assert_eq!(wanted.listed().len(), NAMES.len());
        let changes: Vec<_> = wanted.listed().iter().map(|(name, value)| change(name, value)).collect();
        let mut made = ClusterSettings::default().with(&changes).unwrap();
        assert_eq!(made.terms.number, 2, "new terms have the next number");
        made.terms.number = 1;
        assert_eq!(made, wanted);
    }

    #[test]
    fn a_profile_sets_all_timings_and_the_whole_is_checked_at_the_end() {
        let lan = ClusterSettings::default().with(&[change("timing.profile", "lan")]).unwrap();
        assert_eq!((lan.terms.lease, lan.raft.election_max), (Millis(1_000), Millis(150)));
        let shrunk = [change("heartbeat.timeout", "600ms"), change("heartbeat.interval", "100ms")];
        assert!(ClusterSettings::default().with(&shrunk).is_ok(), "the order of changes matters");
        let error = ClusterSettings::default().with(&shrunk[..1]).unwrap_err().to_string();
        assert!(error.contains("heartbeat.timeout 600ms is under three times"), "{error}");
    }

    #[test]
    fn unknown_names_and_values_are_refused_with_what_would_fit() {
        let refuse =
            |name, value| ClusterSettings::default().with(&[change(name, value)]).unwrap_err().to_string();
        assert!(refuse("fencing.autp", "on").contains("did you mean \"fencing.auto\""));
        assert!(refuse("max_grace", "1s").contains("did you mean \"stop.max_grace\""));
        assert!(refuse("fencing.auto", "maybe").contains("use one of on, off"));
        assert!(refuse("heartbeat.interval", "1").contains("length of time"));
        assert!(refuse("kv.quota_mib", "-1").contains("whole number"));
        assert!(refuse("timing.clock_drift", "NaN").contains("percentage"));
    }

    #[test]
    fn kept_terms_keep_their_number() {
        let same = ClusterSettings::default().with(&[change("fencing.auto", "off")]).unwrap();
        assert_eq!(same.terms.number, 1);
    }
}

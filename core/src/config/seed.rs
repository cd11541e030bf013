//! Reads the part of a node's file that seeds the cluster's settings, pulsar's words included.

use std::collections::BTreeSet;

use crate::settings::{ClusterSettings, NAMES, SettingsError};
use crate::units::Millis;

use super::parse::File;

impl File<'_> {
    /// The cluster settings, and the names of those the file gives.
    pub(super) fn settings(&self) -> (ClusterSettings, BTreeSet<&'static str>) {
        let mut settings = ClusterSettings::default();
        let mut given = BTreeSet::new();
        if self.setting("timing.profile", &mut settings) {
            given.extend(
                NAMES.iter().filter(|name| name.starts_with("timing.") || name.starts_with("heartbeat.")),
            );
        }
        self.pulsar_raft(&mut settings, &mut given);
        for name in NAMES {
            if self.setting(name, &mut settings) {
                given.insert(name);
            }
        }
        if let Err(error) = settings.validate() {
            let place = ["timing", "heartbeat", "raft"].iter().find_map(|section| self.top.get(section));
            let remedy = "choose a timing.profile or change the values together";
            place.as_ref().unwrap_or(self.top.whole()).fail::<()>(error.to_string(), remedy);
        }
        (settings, given)
    }

    fn setting(&self, name: &str, settings: &mut ClusterSettings) -> bool {
        let Some(field) = self.get(name) else { return false };
        let Some(text) = field.text(64) else { return false };
        match settings.set(name, &text) {
            Ok(()) => true,
            Err(SettingsError::Value { value, expected, .. }) => {
                field.fail::<()>(format!("{value:?} is not a value of it"), expected);
                false
            }
            Err(error) => {
                field.fail::<()>(error.to_string(), "correct it");
                false
            }
        }
    }

    /// pulsar's raft keys: shortest election timeout = heartbeat_timeout, longest = both together,
    /// interval = a tenth of heartbeat_timeout.
    fn pulsar_raft(&self, settings: &mut ClusterSettings, given: &mut BTreeSet<&'static str>) {
        let fields = [self.get("raft.heartbeat_timeout"), self.get("raft.election_timeout")];
        let ([Some(first), _] | [None, Some(first)]) = &fields else { return };
        let own = ["timing.raft_heartbeat", "timing.election_min", "timing.election_max"];
        if let Some(other) = own.iter().find(|key| self.get(key).is_some()) {
            first.fail::<()>(format!("{other} says the same in another way"), "keep one of the two");
            return;
        }
        let raft = &mut settings.raft;
        let spread = raft.election_max - raft.election_min;
        let lengths = fields.map(|field| field.and_then(|field| field.length(Millis(10)..=Millis(600_000))));
        let least = lengths[0].unwrap_or(raft.election_min);
        if lengths[0].is_some() {
            raft.heartbeat = Millis((least.0 / 10).max(1));
        }
        raft.election_min = least;
        raft.election_max = least + lengths[1].unwrap_or(spread);
        given.extend(own);
    }
}

//! The cluster's own commands: its making and its settings.

use super::{Entry, Outcome, bounded, limits, refused};
use crate::event::Event;
use crate::ids::{ClusterId, Epoch};
use crate::lease::LeaseTerms;
use crate::state::{ClusterRecord, ClusterSettings, Reply, SettingChange};

impl Entry<'_> {
    pub(super) fn bootstrap(&mut self, id: &ClusterId, name: &str, settings: &ClusterSettings) -> Outcome {
        let current = &self.state.cluster.id;
        if current == id && !id.0.is_empty() {
            return Ok(Reply::Unchanged);
        }
        if !current.0.is_empty() {
            return Err(refused(
                format!("this is cluster {current} already"),
                "use an empty data directory to make another",
            ));
        }
        if id.0.is_empty() || id.0.len() > limits::NAME_BYTES {
            return Err(refused("a cluster's id has 1 to 128 bytes", "let the bootstrapping node draw one"));
        }
        settings.validate()?;
        self.state.cluster = ClusterRecord {
            id: id.clone(),
            name: bounded(name, limits::NAME_BYTES),
            epoch: Epoch(1),
            recovery: None,
            settings: settings.clone(),
            settings_changed: self.state.revision,
            next_raft_id: 1,
            next_operation: 1,
            kv_bytes: 0,
        };
        self.emit(Event::Bootstrapped);
        Ok(Reply::Accepted)
    }

    pub(super) fn change_settings(&mut self, changes: &[SettingChange]) -> Outcome {
        let old = self.state.cluster.settings.clone();
        let new = old.with(changes)?;
        if new == old {
            return Ok(Reply::Unchanged);
        }
        let texts = changes.iter().map(|SettingChange { name, value }| format!("{name} = {value}")).collect();
        if new.terms != old.terms {
            self.stretch_held_terms(new.terms);
        }
        self.state.cluster.settings = new;
        self.state.cluster.settings_changed = self.state.revision;
        self.emit(Event::SettingsChanged(texts));
        Ok(Reply::Accepted)
    }

    /// Until a node says that it holds the new terms, it may act by either: evidence takes the longer.
    fn stretch_held_terms(&mut self, new: LeaseTerms) {
        let nodes: Vec<_> = self.state.nodes.keys().cloned().collect();
        for node in nodes {
            self.state.nodes.update(&node, |record| record.held = stricter(record.held, new));
        }
    }
}

/// Terms under which no lease given by either of two ends later.
fn stricter(one: LeaseTerms, two: LeaseTerms) -> LeaseTerms {
    LeaseTerms {
        number: one.number.max(two.number),
        heartbeat: one.heartbeat.max(two.heartbeat),
        lease: one.lease.max(two.lease),
        kill_margin: one.kill_margin.max(two.kill_margin),
        clock_drift_pcm: one.clock_drift_pcm.max(two.clock_drift_pcm),
    }
}

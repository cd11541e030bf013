//! Equal revision means equal State hash, on every replica, across crashes and replays.

use std::collections::BTreeMap;

use super::{Judgement, Truth};
use crate::ids::Revision;
use crate::sim::ctx::History;

/// Term and hash of every revision ever applied anywhere, in each history of the log.
pub(super) struct Agreement {
    hashes: BTreeMap<History, BTreeMap<Revision, (u64, u64)>>,
    newest: Option<Revision>,
    /// The one that goes on.
    current: History,
}

impl Default for Agreement {
    fn default() -> Self {
        Self { hashes: BTreeMap::new(), newest: None, current: History::FIRST }
    }
}

impl Agreement {
    /// The revision that was just applied for the first time, if one was.
    pub(super) fn newest(&self) -> Option<Revision> {
        self.newest
    }

    pub(super) fn see(&mut self, truth: &Truth) -> Judgement {
        self.newest = None;
        let (host, history, revision, hash, entry) = match truth {
            Truth::Applied { host, history, revision, hash, entry, .. } => {
                (host, history, revision, hash, entry)
            }
            Truth::Forked { kept, history, .. } => {
                // What both have in common is judged in both.
                let before = self.hashes.get(&self.current).cloned().unwrap_or_default();
                let common = before.into_iter().filter(|(revision, _)| revision <= kept).collect();
                self.hashes.insert(*history, common);
                self.current = *history;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let hashes = self.hashes.entry(*history).or_default();
        let Some((term, known)) = hashes.get(revision) else {
            hashes.insert(*revision, (entry.term, *hash));
            self.newest = Some(*revision);
            return Ok(());
        };
        if *term != entry.term {
            return Err(format!(
                "host {host} applied revision {revision} of term {}, not {term}",
                entry.term
            ));
        }
        if known != hash {
            return Err(format!(
                "host {host} has hash {hash:x} at revision {revision}, another had {known:x}"
            ));
        }
        Ok(())
    }
}

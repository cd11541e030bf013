//! Equal revision means equal State hash, on every replica, across crashes and replays.

use std::collections::BTreeMap;

use super::{Judgement, Truth};
use crate::ids::Revision;

/// The hash and term of every revision ever applied anywhere.
#[derive(Default)]
pub(super) struct Agreement {
    hashes: BTreeMap<Revision, (u64, u64)>,
    newest: Option<Revision>,
}

impl Agreement {
    /// The revision that was just applied for the first time, if one was.
    pub(super) fn newest(&self) -> Option<Revision> {
        self.newest
    }

    pub(super) fn see(&mut self, truth: &Truth) -> Judgement {
        self.newest = None;
        let Truth::Applied { host, revision, hash, entry, .. } = truth else { return Ok(()) };
        let Some((term, known)) = self.hashes.get(revision) else {
            self.hashes.insert(*revision, (entry.term, *hash));
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

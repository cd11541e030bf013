//! Keys that run out. No clock is in State, so the leader counts each key's time from when it first saw the
//! put; a new leader counts anew, which lets a key live longer, never shorter.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::Command;
use crate::ids::Revision;
use crate::state::State;
use crate::units::BootMs;

/// Keys proposed at a time.
const MOST_AT_ONCE: usize = 256;

/// When the leader first saw each put that has a time to live.
#[derive(Debug, Clone, Default)]
pub struct TtlClock {
    /// The State it was last compared with.
    seen: Option<Revision>,
    /// By key: the put, and when it runs out.
    puts: BTreeMap<Vec<u8>, (Revision, BootMs)>,
    /// The same by time.
    due: BTreeSet<(BootMs, Vec<u8>)>,
}

impl TtlClock {
    fn watch(&mut self, state: &State, now: BootMs) {
        if self.seen == Some(state.revision) {
            return;
        }
        self.seen = Some(state.revision);
        let mut known = std::mem::take(&mut self.puts);
        self.due.clear();
        for (key, record) in state.kv.iter() {
            let Some(ttl) = record.ttl else { continue };
            let at = match known.remove(key) {
                Some((put, at)) if put == record.modified => at,
                Some(_) | None => now + ttl,
            };
            self.due.insert((at, key.clone()));
            self.puts.insert(key.clone(), (record.modified, at));
        }
    }

    /// When the next key runs out.
    pub fn next(&self) -> Option<BootMs> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// Removes the keys whose time ran out, each only if unchanged since.
pub fn kv_expiry(state: &State, clock: &mut TtlClock, now: BootMs) -> Option<Command> {
    clock.watch(state, now);
    let due = clock.due.iter().take_while(|(at, _)| *at <= now).take(MOST_AT_ONCE);
    let keys: Vec<(Vec<u8>, Revision)> =
        due.filter_map(|(_, key)| Some((key.clone(), clock.puts.get(key)?.0))).collect();
    (!keys.is_empty()).then_some(Command::KvExpire { keys })
}

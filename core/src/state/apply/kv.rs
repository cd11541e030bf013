//! The key-value store: puts, deletes and expiries, within its quota.

use super::{Entry, KvChange, Outcome, limits, not_found, printable, refused};
use crate::ids::Revision;
use crate::state::{KvRecord, Rejection, Reply};
use crate::units::Millis;

impl Entry<'_> {
    pub(super) fn kv_put(
        &mut self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Millis>,
        if_revision: Option<Revision>,
    ) -> Outcome {
        let revision = self.state.revision;
        let old = self.state.kv.get(&key.to_vec());
        let old_bytes = old.map_or(0, |record| size(key, &record.value));
        check_condition(key, old, if_revision)?;
        self.check_size(key, value, ttl, old_bytes)?;
        let (created, version) = old.map_or((revision, 1), |record| (record.created, record.version + 1));
        let record = KvRecord { value: value.to_vec(), created, modified: revision, version, ttl };
        self.state.kv.insert(key.to_vec(), record);
        let bytes = &mut self.state.cluster.kv_bytes;
        *bytes = bytes.saturating_sub(old_bytes) + size(key, value);
        let (key, value) = (key.to_vec(), Some(value.to_vec()));
        self.kv.push(KvChange { revision, key, value, expired: false });
        Ok(Reply::Accepted)
    }

    pub(super) fn kv_delete(&mut self, key: &[u8], range_end: Option<&[u8]>) -> Outcome {
        let keys: Vec<Vec<u8>> = match range_end {
            None => self.state.kv.get(&key.to_vec()).map(|_| key.to_vec()).into_iter().collect(),
            // An end at or before the start is an empty range, which the map itself would panic on.
            Some(end) if end <= key => Vec::new(),
            Some(end) => {
                self.state.kv.range(key.to_vec()..end.to_vec()).map(|(key, _)| key.clone()).collect()
            }
        };
        if keys.is_empty() {
            return Ok(Reply::Unchanged);
        }
        let removed = keys.len() as u64;
        keys.into_iter().for_each(|key| self.kv_remove(key, false));
        Ok(Reply::Removed(removed))
    }

    pub(super) fn kv_expire(&mut self, keys: &[(Vec<u8>, Revision)]) -> Outcome {
        let mut removed = 0;
        for (key, modified) in keys {
            let due = |record: &KvRecord| record.modified == *modified && record.ttl.is_some();
            if self.state.kv.get(key).is_some_and(due) {
                self.kv_remove(key.clone(), true);
                removed += 1;
            }
        }
        Ok(if removed == 0 { Reply::Unchanged } else { Reply::Removed(removed) })
    }

    fn kv_remove(&mut self, key: Vec<u8>, expired: bool) {
        let Some(record) = self.state.kv.remove(&key) else { return };
        let bytes = &mut self.state.cluster.kv_bytes;
        *bytes = bytes.saturating_sub(size(&key, &record.value));
        self.kv.push(KvChange { revision: self.state.revision, key, value: None, expired });
    }

    fn check_size(&self, key: &[u8], value: &[u8], ttl: Option<Millis>, old: u64) -> Result<(), Rejection> {
        if key.is_empty() {
            return Err(refused("a key cannot be empty", "use at least one byte"));
        }
        if ttl == Some(Millis(0)) {
            return Err(refused("a time to live of 0 would never be seen", "use 1ms or more, or none"));
        }
        let limit = |what: &str, limit: u64, remedy: &str| {
            Err(Rejection::Limit { what: what.to_owned(), limit, remedy: remedy.to_owned() })
        };
        if key.len() > limits::KEY_BYTES {
            return limit("bytes of a key", limits::KEY_BYTES as u64, "use a shorter key");
        }
        let settings = &self.state.cluster.settings;
        let new = size(key, value);
        if new > settings.kv_max_value_bytes {
            let remedy = "store less a key, or raise kv.max_value_kib";
            return limit("bytes of a key with its value", settings.kv_max_value_bytes, remedy);
        }
        if self.state.cluster.kv_bytes.saturating_sub(old) + new > settings.kv_quota_bytes {
            let remedy = "delete keys, or raise kv.quota_mib";
            return limit("bytes of all keys and values", settings.kv_quota_bytes, remedy);
        }
        Ok(())
    }
}

fn size(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

fn check_condition(
    key: &[u8],
    old: Option<&KvRecord>,
    if_revision: Option<Revision>,
) -> Result<(), Rejection> {
    let Some(expected) = if_revision else { return Ok(()) };
    match old {
        None if expected == Revision(0) => Ok(()),
        None => Err(not_found("key", String::from_utf8_lossy(key))),
        Some(record) if record.modified == expected => Ok(()),
        Some(record) => Err(Rejection::Stale {
            what: format!("key {}", printable(key)),
            changed: record.modified,
            expected,
        }),
    }
}

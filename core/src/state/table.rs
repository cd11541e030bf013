//! A persistent ordered map that keeps a running hash of its records, so that a copy costs nothing and the
//! hash of State costs what changed.

use std::ops::RangeBounds;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64;

/// An ordered map with the sum of its records' hashes.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<K: Ord + Clone, V: Clone> {
    /// Keys are shared too: every change copies a piece of the map, which must not cost an allocation for each.
    map: OrdMap<Arc<K>, Arc<Row<V>>>,
    sum: u64,
}

/// A record with its hash. Shared between copies of a table, so that changing one record never copies
/// its neighbours, however large.
#[derive(Debug, Clone, PartialEq)]
struct Row<V> {
    hash: u64,
    value: V,
}

/// Most records take no more bytes.
const USUAL: usize = 512;

/// The hash of one value by its encoding.
pub(super) fn hash_of<T: Serialize>(value: &T) -> u64 {
    // Encoding plain data into memory cannot fail; if it ever does, the same 0 is seen on every node.
    postcard::to_extend(value, Vec::with_capacity(USUAL)).map_or(0, |bytes| xxh3_64(&bytes))
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Table<K, V> {
    /// An empty table.
    pub fn new() -> Self {
        Self { map: OrdMap::new(), sum: 0 }
    }

    /// The record of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key).map(|row| &row.value)
    }

    /// Is there a record?
    pub fn contains_key(&self, key: &K) -> bool {
        self.map.contains_key(key)
    }

    /// Sets a record.
    pub fn insert(&mut self, key: K, value: V) {
        let hash = hash_of(&(&key, &value));
        let old = self.map.insert(Arc::new(key), Arc::new(Row { hash, value }));
        self.sum = self.sum.wrapping_add(hash).wrapping_sub(old.map_or(0, |row| row.hash));
    }

    /// Removes a record.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let row = self.map.remove(key)?;
        self.sum = self.sum.wrapping_sub(row.hash);
        Some(Arc::try_unwrap(row).map_or_else(|shared| shared.value.clone(), |row| row.value))
    }

    /// Changes a record in place, if there is one.
    pub fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let row = Arc::make_mut(self.map.get_mut(key)?);
        let result = change(&mut row.value);
        let hash = hash_of(&(key, &row.value));
        self.sum = self.sum.wrapping_add(hash).wrapping_sub(row.hash);
        row.hash = hash;
        Some(result)
    }

    /// All records in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.map.iter().map(|(key, row)| (&**key, &row.value))
    }

    /// All records within a range of keys.
    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.map.range(range).map(|(key, row)| (&**key, &row.value))
    }

    /// All records in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.map.iter().map(|(_, row)| &row.value)
    }

    /// All keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.map.iter().map(|(key, _)| &**key)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The sum of all records' hashes.
    pub fn hash(&self) -> u64 {
        self.sum
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Default for Table<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(records: I) -> Self {
        let mut table = Self::new();
        for (key, value) in records {
            table.insert(key, value);
        }
        table
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Serialize for Table<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, K, V> Deserialize<'de> for Table<K, V>
where
    K: Ord + Clone + Serialize + Deserialize<'de>,
    V: Clone + Serialize + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map: std::collections::BTreeMap<K, V> = Deserialize::deserialize(deserializer)?;
        Ok(map.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_hash_depends_on_the_records_alone() {
        let mut one: Table<u32, String> = Table::new();
        let mut two = Table::new();
        one.insert(1, "a".to_owned());
        one.insert(2, "b".to_owned());
        one.update(&1, |value| value.push('x'));
        two.insert(2, "b".to_owned());
        two.insert(3, "c".to_owned());
        two.insert(1, "ax".to_owned());
        assert_ne!(one.hash(), two.hash());
        two.remove(&3);
        assert_eq!(one.hash(), two.hash());
        let bytes = postcard::to_stdvec(&one).unwrap();
        let back: Table<u32, String> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(back, two);
    }
}

//! Were the answers that clients got of a key-value store linearizable? Each key is a register, and no value is
//! written twice, so that every read names its write; then the question is decided exactly (Gibbons and Korach,
//! 1997): an operation and its reads span a zone, and zones must not conflict.

use std::collections::BTreeMap;
use std::fmt;

/// What a client asked of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// To hold this value, and what came of it.
    Put(String, Outcome),
    /// What it holds; only answered reads are told.
    Get(Option<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged.
    Done,
    /// Refused for good: it must never be seen.
    Refused,
    /// It may happen, now or later, or never.
    Unknown,
}

/// One call and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub key: String,
    pub asked: Asked,
    pub began: u64,
    /// When the answer came, or the client gave up.
    pub ended: u64,
}

/// Why a history cannot be that of registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Breach {
    /// A value was read that nobody wrote.
    FromNowhere { key: String, value: String },
    /// A value was read whose write was refused.
    Refused { key: String, value: String },
    /// A value was read before it was written.
    Early { key: String, value: String },
    /// Of two values each was the current one, in any order, while the other was too; or one was forgotten.
    Conflict { key: String, values: [Option<String>; 2] },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        match self {
            Breach::FromNowhere { key, value } => write!(f, "{key}: {value} was read and never written"),
            Breach::Refused { key, value } => {
                write!(f, "{key}: {value} was read though its write was refused")
            }
            Breach::Early { key, value } => write!(f, "{key}: {value} was read before it was written"),
            Breach::Conflict { key, values: [one, other] } => {
                write!(f, "{key}: no order of {} and {} explains what was read", name(one), name(other))
            }
        }
    }
}

/// A write and the reads of it: all of them, in any legal order, hold the register from `low` to `high`, or, where
/// `low > high`, need it at one moment anywhere between the two.
#[derive(Debug, Clone)]
struct Zone {
    value: Option<String>,
    /// The first end of an operation.
    low: u64,
    /// The last begin of one.
    high: u64,
}

impl Zone {
    fn forward(&self) -> bool {
        self.low < self.high
    }

    /// Two that hold the register at once, or one that needs it in the midst of another's hold.
    fn conflicts(&self, other: &Zone) -> bool {
        (self.forward() || other.forward()) && self.low < other.high && other.low < self.high
    }
}

/// Everything that is wrong with a history; nothing if it is linearizable.
pub fn breaches(calls: &[Call]) -> Vec<Breach> {
    let mut keys: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        keys.entry(&call.key).or_default().push(call);
    }
    keys.into_iter().flat_map(|(key, calls)| of_key(key, &calls)).collect()
}

fn of_key(key: &str, calls: &[&Call]) -> Vec<Breach> {
    let mut found = Vec::new();
    let mut writes: BTreeMap<&str, (&Call, Outcome)> = BTreeMap::new();
    for call in calls {
        if let Asked::Put(value, outcome) = &call.asked {
            let again = writes.insert(value, (call, *outcome));
            assert!(again.is_none(), "{key}: {value} was written twice; this judge cannot tell them apart");
        }
    }
    let mut reads: BTreeMap<Option<&str>, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        if let Asked::Get(value) = &call.asked {
            reads.entry(value.as_deref()).or_default().push(call);
        }
    }
    // Before anything was written the key held nothing.
    let mut zones = vec![zone(None, 0, 0, reads.get(&None).map_or(&[], Vec::as_slice))];
    for (value, reads) in &reads {
        let Some(value) = value else { continue };
        let value_of = || (*value).to_owned();
        match writes.get(value) {
            None => found.push(Breach::FromNowhere { key: key.to_owned(), value: value_of() }),
            Some((_, Outcome::Refused)) => {
                found.push(Breach::Refused { key: key.to_owned(), value: value_of() });
            }
            Some((write, _)) if reads.iter().any(|read| read.ended < write.began) => {
                found.push(Breach::Early { key: key.to_owned(), value: value_of() });
            }
            Some(_) => {}
        }
    }
    for (value, (write, outcome)) in &writes {
        let reads = reads.get(&Some(*value)).map_or(&[][..], Vec::as_slice);
        let ended = match outcome {
            Outcome::Done => write.ended,
            // Nobody saw it: it may as well never have happened.
            Outcome::Unknown if !reads.is_empty() => u64::MAX,
            Outcome::Unknown | Outcome::Refused => continue,
        };
        zones.push(zone(Some((*value).to_owned()), write.began, ended, reads));
    }
    zones.sort_by_key(|zone| zone.low.min(zone.high));
    for (at, one) in zones.iter().enumerate() {
        let end = one.low.max(one.high);
        for other in zones[at + 1..].iter().take_while(|other| other.low.min(other.high) < end) {
            if one.conflicts(other) {
                let values = [one.value.clone(), other.value.clone()];
                found.push(Breach::Conflict { key: key.to_owned(), values });
            }
        }
    }
    found
}

fn zone(value: Option<String>, began: u64, ended: u64, reads: &[&Call]) -> Zone {
    let low = reads.iter().map(|read| read.ended).fold(ended, u64::min);
    let high = reads.iter().map(|read| read.began).fold(began, u64::max);
    Zone { value, low, high }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn put(value: &str, outcome: Outcome, began: u64, ended: u64) -> Call {
        Call { key: "k".to_owned(), asked: Asked::Put(value.to_owned(), outcome), began, ended }
    }

    fn get(value: Option<&str>, began: u64, ended: u64) -> Call {
        Call { key: "k".to_owned(), asked: Asked::Get(value.map(str::to_owned)), began, ended }
    }

    #[test]
    fn a_write_forgotten_after_its_acknowledgement_is_found() {
        let history = [put("a", Outcome::Done, 1, 2), get(None, 3, 4)];
        assert!(matches!(breaches(&history)[..], [Breach::Conflict { .. }]));
        let history = [put("a", Outcome::Done, 1, 2), put("b", Outcome::Done, 3, 4), get(Some("a"), 5, 6)];
        assert!(matches!(breaches(&history)[..], [Breach::Conflict { .. }]));
    }

    #[test]
    fn a_stale_read_of_an_old_leader_is_found() {
        let writes = [put("a", Outcome::Done, 1, 2), put("b", Outcome::Done, 3, 6)];
        let good = [get(Some("a"), 4, 5), get(Some("b"), 5, 7)];
        assert_eq!(breaches(&[&writes[..], &good].concat()), []);
        // One client saw b, and another a after that.
        let stale = [get(Some("b"), 4, 5), get(Some("a"), 7, 8)];
        assert!(matches!(breaches(&[&writes[..], &stale].concat())[..], [Breach::Conflict { .. }]));
    }

    #[test]
    fn a_write_of_unknown_outcome_may_happen_late_or_never_and_one_refused_never() {
        let unknown = put("a", Outcome::Unknown, 1, 2);
        assert_eq!(breaches(&[unknown.clone(), get(None, 3, 4)]), []);
        assert_eq!(breaches(&[unknown.clone(), get(None, 3, 4), get(Some("a"), 5, 6)]), []);
        let back = [unknown, get(Some("a"), 3, 4), get(None, 5, 6)];
        assert!(matches!(breaches(&back)[..], [Breach::Conflict { .. }]));
        let refused = [put("a", Outcome::Refused, 1, 2), get(Some("a"), 3, 4)];
        assert!(matches!(breaches(&refused)[..], [Breach::Refused { .. }]));
    }

    #[test]
    fn values_from_nowhere_or_from_the_future_are_found() {
        assert!(matches!(breaches(&[get(Some("a"), 1, 2)])[..], [Breach::FromNowhere { .. }]));
        let early = [get(Some("a"), 1, 2), put("a", Outcome::Done, 3, 4)];
        assert!(breaches(&early).iter().any(|breach| matches!(breach, Breach::Early { .. })));
    }

    /// Tries every order: the definition itself.
    fn linearizable(left: &[Call], held: Option<&str>) -> bool {
        let done = |call: &Call| !matches!(call.asked, Asked::Put(_, Outcome::Unknown | Outcome::Refused));
        if !left.iter().any(done) {
            return true;
        }
        let ends = |call: &Call| if done(call) { call.ended } else { u64::MAX };
        (0..left.len()).any(|at| {
            let first = &left[at];
            if left.iter().enumerate().any(|(other, call)| other != at && ends(call) < first.began) {
                return false;
            }
            let rest = [&left[..at], &left[at + 1..]].concat();
            match &first.asked {
                Asked::Put(_, Outcome::Refused) => false,
                Asked::Put(value, _) => linearizable(&rest, Some(value)),
                Asked::Get(value) => value.as_deref() == held && linearizable(&rest, held),
            }
        })
    }

    #[test]
    fn the_judgement_is_that_of_trying_every_order() {
        let mut random = SmallRng::seed_from_u64(7);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..4_000 {
            let count = random.random_range(2..7);
            // No two moments are the same, as in real histories of nanoseconds.
            let mut moments: Vec<u64> = (1..=20).collect();
            let mut moment = || moments.remove(random.random_range(0..moments.len()));
            let times: Vec<[u64; 2]> = (0..count).map(|_| [moment(), moment()]).collect();
            let mut written = Vec::new();
            let mut history: Vec<Call> = Vec::new();
            for (at, times) in times.into_iter().enumerate() {
                let (began, ended) = (times[0].min(times[1]), times[0].max(times[1]));
                if random.random_bool(0.5) {
                    let value = format!("v{at}");
                    let outcome = if random.random_bool(0.8) { Outcome::Done } else { Outcome::Unknown };
                    written.push(value.clone());
                    history.push(put(&value, outcome, began, ended));
                } else {
                    let pick = random.random_range(0..=written.len());
                    history.push(get(written.get(pick).map(String::as_str), began, ended));
                }
            }
            let expected = linearizable(&history, None);
            assert_eq!(breaches(&history).is_empty(), expected, "{history:#?}");
            if expected { good += 1 } else { bad += 1 }
        }
        assert!(good > 500 && bad > 500, "{good} good and {bad} bad histories prove little");
    }
}

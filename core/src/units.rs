//! Quantities with their units: time in milliseconds, memory in MiB, processors in thousandths.
//! Does not know what any of them is used for.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A point on one node's boot-time clock (CLOCK_BOOTTIME), in milliseconds. Never compared across nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootMs(pub u64);

/// A point on the wall clock, in milliseconds since 1970 UTC. For people only: decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallMs(pub u64);

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl BootMs {
    /// The time since `earlier`, or nothing if that is still to come.
    pub fn since(self, earlier: BootMs) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// The time left until `later`, or nothing if that has passed.
    pub fn until(self, later: BootMs) -> Millis {
        later.since(self)
    }
}

impl Add<Millis> for BootMs {
    type Output = BootMs;
    fn add(self, length: Millis) -> BootMs {
        BootMs(self.0.saturating_add(length.0))
    }
}

impl Add for Millis {
    type Output = Millis;
    fn add(self, other: Millis) -> Millis {
        Millis(self.0.saturating_add(other.0))
    }
}

impl Sub for Millis {
    type Output = Millis;
    fn sub(self, other: Millis) -> Millis {
        Millis(self.0.saturating_sub(other.0))
    }
}

impl Millis {
    /// Rounded for sentences: `250 ms`, `15.6 s`, `2 min 5 s`, `3 h 10 min`. Not read back.
    pub fn human(self) -> String {
        let two = |large: u64, unit: &str, small: u64, part: &str| match small {
            0 => format!("{large} {unit}"),
            _ => format!("{large} {unit} {small} {part}"),
        };
        let seconds = self.0 / 1_000;
        match self.0 {
            0..1_000 => format!("{} ms", self.0),
            ms @ 1_000..60_000 => match ms % 1_000 / 100 {
                0 => format!("{seconds} s"),
                tenth => format!("{seconds}.{tenth} s"),
            },
            60_000..3_600_000 => two(seconds / 60, "min", seconds % 60, "s"),
            3_600_000..86_400_000 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
            _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
        }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        let text = match ms {
            0 => "0s".to_owned(),
            _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
            _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
            _ => format!("{ms}ms"),
        };
        f.pad(&text)
    }
}

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {form}")]
pub struct QuantityError {
    /// The text as given.
    pub text: String,
    /// What was expected, with an example.
    pub form: &'static str,
}

impl FromStr for Millis {
    type Err = QuantityError;

    /// Reads `500ms`, `1.5s`, `10m`, `2h`, `1d`; a bare number is refused, since its unit is a guess.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong =
            || QuantityError { text: text.to_owned(), form: "a length of time such as 500ms, 10s, 5m or 1h" };
        let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(split);
        let scale = match unit {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let ms = number * scale;
        // A century is more than any timer here means; beyond it a typing error is likelier.
        if !(0.0..=3_155_760_000_000.0).contains(&ms) {
            return Err(wrong());
        }
        Ok(Millis(ms.round() as u64))
    }
}

/// Processor time in thousandths of one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuMillis(pub u32);

impl fmt::Display for CpuMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:02}", self.0 / 1000, self.0 % 1000 / 10))
    }
}

/// Memory in MiB (2^20 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemoryMib(pub u64);

impl fmt::Display for MemoryMib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} MiB", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_parse_with_their_unit_only() {
        assert_eq!("1.5s".parse(), Ok(Millis(1_500)));
        assert_eq!("250ms".parse(), Ok(Millis(250)));
        assert_eq!("2h".parse(), Ok(Millis(7_200_000)));
        for bad in ["", "10", "s", "-1s", "1 week", "1e300h", "NaNs"] {
            assert!(bad.parse::<Millis>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn lengths_of_time_read_well_in_sentences() {
        let shown: Vec<String> = [0, 250, 1_000, 15_650, 125_000, 120_000, 11_400_000, 90_000_000]
            .map(|ms| Millis(ms).human())
            .to_vec();
        assert_eq!(shown, ["0 ms", "250 ms", "1 s", "15.6 s", "2 min 5 s", "2 min", "3 h 10 min", "1 d 1 h"]);
    }

    #[test]
    fn lengths_of_time_print_in_their_largest_whole_unit() {
        let shown: Vec<String> =
            [0, 250, 1_000, 90_000, 120_000, 7_200_000].map(|ms| Millis(ms).to_string()).to_vec();
        assert_eq!(shown, ["0s", "250ms", "1s", "90s", "2m", "2h"]);
    }
}

//! The small words of a service description: signals, conditions, spans of time, names of variables.

use std::ops::RangeInclusive;

use crate::document::shown;
use crate::units::Millis;

use super::{Constraint, Priority};

/// The priorities by name.
pub(crate) const PRIORITIES: [(&str, Priority); 4] = [
    ("critical", Priority::Critical),
    ("high", Priority::High),
    ("normal", Priority::Normal),
    ("low", Priority::Low),
];

/// Linux's numbers, the same on every processor that Quorate is built for.
const SIGNALS: [(&str, i32); 16] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ABRT", 6),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
];

/// A signal by name, with or without SIG, or by number.
pub(super) fn signal(text: &str) -> Result<i32, String> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let by_name = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let by_number = || text.parse::<i32>().ok().filter(|number| (1..=64).contains(number));
    by_name.or_else(by_number).ok_or_else(|| format!("{text:?} is not a signal"))
}

/// A signal as it is written: by name where it has one.
pub fn signal_name(number: i32) -> String {
    SIGNALS
        .iter()
        .find(|(_, known)| *known == number)
        .map_or_else(|| number.to_string(), |(name, _)| format!("SIG{name}"))
}

/// `ATTRIBUTE == VALUE` or `ATTRIBUTE != VALUE`.
pub(super) fn constraint(text: &str) -> Result<Constraint, String> {
    let wrong = || format!("{text:?} is not a condition");
    let (attribute, equal, value) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((attribute, value)), None) => (attribute, true, value),
        (None, Some((attribute, value))) => (attribute, false, value),
        _ => return Err(wrong()),
    };
    let (attribute, value) = (attribute.trim(), value.trim());
    let named = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    if attribute.is_empty() || value.is_empty() || !attribute.chars().all(named) || value.contains('=') {
        return Err(wrong());
    }
    Ok(Constraint { attribute: attribute.to_owned(), equal, value: value.to_owned() })
}

/// `1s..60s`, the first not longer than the second.
pub(super) fn span(text: &str, range: RangeInclusive<Millis>) -> Result<(Millis, Millis), String> {
    let wrong = || format!("{text:?} is not a span of time");
    let (low, high) = text.split_once("..").ok_or_else(wrong)?;
    let low: Millis = low.trim().parse().map_err(|_| wrong())?;
    let high: Millis = high.trim().parse().map_err(|_| wrong())?;
    if low > high {
        return Err(format!("{low} is longer than {high}"));
    }
    if range.contains(&low) && range.contains(&high) {
        Ok((low, high))
    } else {
        Err(format!("{text} is out of range"))
    }
}

/// Is it a name that a variable may have here?
pub(super) fn environment_name(name: &str) -> Result<(), String> {
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 256
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !good {
        return Err(format!("{} is not the name of a variable", shown(name)));
    }
    if name.starts_with("QUORATE_") {
        return Err(format!("{name:.64} is set by the node itself"));
    }
    Ok(())
}

/// Does the path stay inside the folder it starts from?
pub(super) fn is_relative_inside(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// Bytes of a path.
pub(super) const MAX_PATH_BYTES: usize = 4_096;
/// What to write where [`absolute`] refuses.
pub(super) const ABSOLUTE_REMEDY: &str = "write an absolute path without .., such as /srv/data";

/// An absolute path in the one way it is written here: no empty parts, no `.`; one with `..` is refused.
pub(super) fn absolute(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("{} is not an absolute path", shown(path)));
    }
    if path.chars().any(char::is_control) {
        return Err(format!("{} holds a control character", shown(path)));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(format!("{} leads upwards by ..", shown(path)));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// A name that engines take for volumes and networks.
pub(super) fn is_engine_name(name: &str) -> bool {
    name.len() <= 255
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// A name or number that an account may have.
pub(super) fn is_account(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.$".contains(c);
    !name.is_empty() && !name.starts_with('-') && name.chars().all(good)
}

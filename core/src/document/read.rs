//! Reads the fields of a tree and collects everything that is wrong instead of stopping at the first.
//! Knows kinds of values, not what they mean.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use crate::units::Millis;

use super::tree::{Entry, Node, Place, Value};
use super::{DocumentError, DocumentErrors, nearest, shown};

/// More errors than this help nobody.
const MAX_FAULTS: usize = 50;

/// What is wrong so far.
#[derive(Debug, Default)]
pub struct Faults(RefCell<Vec<DocumentError>>);

impl Faults {
    /// Notes an error; beyond fifty they are dropped.
    pub fn push(&self, error: DocumentError) {
        let mut faults = self.0.borrow_mut();
        if faults.len() < MAX_FAULTS {
            faults.push(error);
        }
    }

    /// Is nothing wrong so far?
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Everything noted, in the order of the lines.
    pub fn into_sorted(self) -> Vec<DocumentError> {
        let mut faults = self.0.into_inner();
        faults.sort();
        faults
    }

    /// The value if nothing was noted, else all that was.
    pub fn result<T>(self, value: Option<T>) -> Result<T, DocumentErrors> {
        let faults = self.into_sorted();
        match value {
            Some(value) if faults.is_empty() => Ok(value),
            _ => Err(DocumentErrors(faults)),
        }
    }
}

/// A value at its path.
#[derive(Clone)]
pub struct Field<'a> {
    node: &'a Node,
    path: String,
    faults: &'a Faults,
}

/// A mapping whose keys are known.
pub struct Fields<'a> {
    entries: &'a [Entry],
    field: Field<'a>,
}

impl<'a> Field<'a> {
    /// The whole document.
    pub fn root(node: &'a Node, faults: &'a Faults) -> Self {
        Self { node, path: String::new(), faults }
    }

    /// The path, such as `spec.command[2]`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        self.node.place
    }

    /// Is a key without a value, or null?
    pub fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    /// Is it one text, rather than a list or mapping?
    pub fn is_scalar(&self) -> bool {
        matches!(self.node.value, Value::Scalar { .. })
    }

    /// Is it a list?
    pub fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// Notes that this value is wrong.
    pub fn fail<T>(&self, message: impl Into<String>, remedy: impl Into<String>) -> Option<T> {
        self.fail_at(self.node.place, self.path.clone(), message.into(), remedy.into());
        None
    }

    fn fail_at(&self, place: Place, field: String, message: String, remedy: String) {
        self.faults.push(DocumentError { line: place.line, column: place.column, field, message, remedy });
    }

    fn wrong_kind<T>(&self, wanted: &str) -> Option<T> {
        let found = match &self.node.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar { text, .. } => shown(text),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        };
        self.fail(format!("found {found} where {wanted} belongs"), format!("write {wanted}"))
    }

    /// A text; numbers and truth values are taken as they are written.
    pub fn text(&self, max_bytes: usize) -> Option<String> {
        let Value::Scalar { text, .. } = &self.node.value else { return self.wrong_kind("a text") };
        if text.contains('\0') {
            return self.fail("the text contains a zero byte", "remove it");
        }
        if text.len() > max_bytes {
            let message = format!("the text has {} bytes; at most {max_bytes} are taken", text.len());
            return self.fail(message, "shorten it");
        }
        Some(text.clone())
    }

    /// A text; a key without a value is the empty one.
    pub fn text_or_empty(&self, max_bytes: usize) -> Option<String> {
        if self.is_null() { Some(String::new()) } else { self.text(max_bytes) }
    }

    /// A text that must be made into something else.
    pub fn parsed<T, E: ToString>(
        &self,
        max_bytes: usize,
        remedy: &str,
        make: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(max_bytes)?;
        match make(&text) {
            Ok(value) => Some(value),
            Err(error) => self.fail(error.to_string(), remedy),
        }
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(256)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let remedy = match nearest(&text, &known) {
            Some(near) => format!("did you mean {near}? it takes {}", known.join(", ")),
            None => format!("it takes {}", known.join(", ")),
        };
        self.fail(format!("{} is not a value of it", shown(&text)), remedy)
    }

    /// True or false.
    pub fn flag(&self) -> Option<bool> {
        match &self.node.value {
            Value::Scalar { text, plain: true } if text == "true" => Some(true),
            Value::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => self.wrong_kind("true or false"),
        }
    }

    /// A whole number.
    pub fn whole(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let Value::Scalar { text, plain: true } = &self.node.value else { return self.wrong_kind(&wanted) };
        match text.parse().ok().filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.wrong_kind(&wanted),
        }
    }

    /// A whole number that may be negative.
    pub fn signed(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let Value::Scalar { text, plain: true } = &self.node.value else { return self.wrong_kind(&wanted) };
        match text.parse().ok().filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.wrong_kind(&wanted),
        }
    }

    /// A number with up to three places behind the point, in thousandths.
    pub fn thousandths(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let (low, high) = (f64::from(*range.start()) / 1000.0, f64::from(*range.end()) / 1000.0);
        let wanted = format!("a number from {low} to {high}");
        let Value::Scalar { text, plain: true } = &self.node.value else { return self.wrong_kind(&wanted) };
        let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let number = text.parse::<f64>().ok().filter(|_| digits && text.len() <= 16);
        match number.map(|number| (number * 1000.0).round()) {
            Some(scaled) if scaled >= low * 1000.0 && scaled <= high * 1000.0 => Some(scaled as u32),
            _ => self.wrong_kind(&wanted),
        }
    }

    /// A length of time with its unit.
    pub fn length(&self, range: RangeInclusive<Millis>) -> Option<Millis> {
        let text = self.text(64)?;
        let remedy = format!("write a length of time from {} to {}", range.start(), range.end());
        match text.parse::<Millis>() {
            Err(error) => self.fail(error.to_string(), remedy),
            Ok(length) if range.contains(&length) => Some(length),
            Ok(length) => self.fail(format!("{length} is out of range"), remedy),
        }
    }

    /// The values of a list.
    pub fn items(&self, max: usize) -> Option<Vec<Field<'a>>> {
        let Value::List(items) = &self.node.value else { return self.wrong_kind("a list") };
        if items.len() > max {
            let message = format!("the list has {} entries; at most {max} are taken", items.len());
            return self.fail(message, "shorten it");
        }
        let field = |(at, node)| Field { node, path: format!("{}[{at}]", self.path), faults: self.faults };
        Some(items.iter().enumerate().map(field).collect())
    }

    /// A list of texts, bounded in number and in bytes.
    pub fn texts(&self, max: usize, max_bytes: usize) -> Option<Vec<String>> {
        let texts: Vec<String> =
            self.items(max)?.iter().map(|item| item.text(max_bytes)).collect::<Option<_>>()?;
        let bytes: usize = texts.iter().map(String::len).sum();
        if bytes > max_bytes {
            let message = format!("the list has {bytes} bytes; at most {max_bytes} are taken");
            return self.fail(message, "shorten it");
        }
        Some(texts)
    }

    /// The pairs of a mapping with free keys.
    pub fn pairs(&self, max: usize) -> Option<Vec<(&'a str, Field<'a>)>> {
        let Value::Map(entries) = &self.node.value else { return self.wrong_kind("a mapping") };
        if entries.len() > max {
            let message = format!("the mapping has {} keys; at most {max} are taken", entries.len());
            return self.fail(message, "shorten it");
        }
        Some(entries.iter().map(|entry| (entry.key.as_str(), self.below(entry))).collect())
    }

    /// A mapping with known keys; each other one is noted, with the nearest known.
    pub fn fields(&self, known: &[&str]) -> Option<Fields<'a>> {
        self.fields_but(known, |_| None)
    }

    /// A mapping with known keys; each other one is noted: with the words and the remedy that `foreign` has for
    /// it, or else with the nearest known.
    pub fn fields_but(
        &self,
        known: &[&str],
        foreign: impl Fn(&str) -> Option<(String, String)>,
    ) -> Option<Fields<'a>> {
        let Value::Map(entries) = &self.node.value else { return self.wrong_kind("a mapping") };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let (message, remedy) = foreign(&entry.key).unwrap_or_else(|| {
                let remedy = match nearest(&entry.key, known) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("the keys here are {}", known.join(", ")),
                };
                (format!("the key {} is unknown", shown(&entry.key)), remedy)
            });
            self.fail_at(entry.place, self.below(entry).path, message, remedy);
        }
        Some(Fields { entries, field: self.clone() })
    }

    fn below(&self, entry: &'a Entry) -> Field<'a> {
        // A path is shown on terminals, which obey control characters.
        let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let key: String = entry.key.chars().take(64).map(plain).collect();
        let path = if self.path.is_empty() { key } else { format!("{}.{key}", self.path) };
        Field { node: &entry.node, path, faults: self.faults }
    }
}

impl<'a> Fields<'a> {
    /// The value of a key; nothing if the key is absent or null.
    pub fn get(&self, key: &str) -> Option<Field<'a>> {
        self.given(key).filter(|field| !field.is_null())
    }

    /// The value of a key, null included.
    pub fn given(&self, key: &str) -> Option<Field<'a>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.field.below(entry))
    }

    /// The mapping itself.
    pub fn whole(&self) -> &Field<'a> {
        &self.field
    }

    /// Notes that a key is missing.
    pub fn missing<T>(&self, key: &str, remedy: &str) -> Option<T> {
        let place = self.field.place();
        let path =
            if self.field.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.field.path) };
        self.field.fail_at(place, path, format!("the key {key} is missing"), remedy.to_owned());
        None
    }
}

//! Turns YAML or JSON into a tree in which every value knows its line and column. Bounded in depth, in
//! the number of values and in what aliases expand to; scalars stay texts as they were written.

use std::collections::BTreeMap;

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, Span, Tag};

use super::{DocumentError, Faults, MAX_BYTES, clamp, shown, too_long};

/// Deeper nesting is nobody's intention.
const MAX_DEPTH: usize = 24;
/// Values in one text, those that aliases repeat counted each time.
const MAX_VALUES: usize = 50_000;
/// Bytes of all values, those that aliases repeat counted each time.
const MAX_EXPANDED_BYTES: usize = 4 * MAX_BYTES;

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What stands at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`: the same as if the key were absent.
    Null,
    /// Anything written as one text.
    Scalar {
        /// As written, escapes resolved.
        text: String,
        /// Without quotes, so that it may be read as a number or a truth value.
        plain: bool,
    },
    /// Values in order.
    List(Vec<Node>),
    /// Keys with values, in order; no key twice.
    Map(Vec<Entry>),
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

/// What a subtree weighs against the limits.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    values: usize,
    bytes: usize,
}

/// A list or map that is still open.
struct Open {
    place: Place,
    anchor: usize,
    before: Weight,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: BTreeMap<String, u32>, key: Option<(String, Place)>, duplicate: bool },
}

/// Reads the documents of a text (several are separated by `---`). Faults go to `faults`; what could be
/// read before a fault in the syntax is returned.
pub fn parse(text: &str, faults: &Faults) -> Vec<Node> {
    if text.len() > MAX_BYTES {
        faults.push(too_long(text.len()));
        return Vec::new();
    }
    let mut builder = Builder::new(faults);
    let mut options = Options::default();
    options.set_emit_comments(false);
    for next in Parser::new_from_str_with_options(text.trim_start_matches('\u{feff}'), options) {
        let done = match next {
            Ok((event, span)) => builder.take(event, &span),
            Err(error) => {
                let mark = error.marker();
                let place = Place { line: clamp(mark.line()), column: clamp(mark.col() + 1) };
                Err(fault(place, error.info(), remedy_for(text, place.line)))
            }
        };
        if let Err(error) = done {
            faults.push(error);
            break;
        }
    }
    builder.documents
}

fn remedy_for(text: &str, line: u32) -> &'static str {
    // A parser may notice a bad indentation only one line later or earlier.
    let mut around = text.lines().skip((line as usize).saturating_sub(2)).take(3);
    if around.any(|line| line[..line.len() - line.trim_start().len()].contains('\t')) {
        "indent with spaces, not with tabs"
    } else {
        "check the indentation, quotes and brackets here and on the line before"
    }
}

fn fault(place: Place, message: impl Into<String>, remedy: impl Into<String>) -> DocumentError {
    DocumentError {
        line: place.line,
        column: place.column,
        field: String::new(),
        message: message.into(),
        remedy: remedy.into(),
    }
}

struct Builder<'f> {
    faults: &'f Faults,
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, Weight)>,
    weight: Weight,
}

impl<'f> Builder<'f> {
    fn new(faults: &'f Faults) -> Self {
        Self {
            faults,
            documents: Vec::new(),
            open: Vec::new(),
            anchors: BTreeMap::new(),
            weight: Weight::default(),
        }
    }

    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), DocumentError> {
        let place = Place { line: clamp(span.start.line()), column: clamp(span.start.col() + 1) };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !is_text(tag.as_deref(), place)?;
                let bytes = text.len();
                self.add(place, bytes)?;
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    _ => Value::Scalar { text: text.into_owned(), plain },
                };
                let weight = Weight { values: 1, bytes };
                self.finish(Node { place, value }, anchor, weight)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.begin(place, anchor, tag.as_deref(), OpenKind::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                let kind =
                    OpenKind::Map { entries: Vec::new(), seen: BTreeMap::new(), key: None, duplicate: false };
                self.begin(place, anchor, tag.as_deref(), kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(id) => self.repeat(id, place),
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Counts one more value against the limits.
    fn add(&mut self, place: Place, bytes: usize) -> Result<(), DocumentError> {
        self.weigh(place, Weight { values: 1, bytes })
    }

    fn weigh(&mut self, place: Place, more: Weight) -> Result<(), DocumentError> {
        self.weight.values = self.weight.values.saturating_add(more.values);
        self.weight.bytes = self.weight.bytes.saturating_add(more.bytes);
        if self.weight.values > MAX_VALUES || self.weight.bytes > MAX_EXPANDED_BYTES {
            let message = format!(
                "the document grows past {MAX_VALUES} values or {MAX_EXPANDED_BYTES} bytes, repeated ones counted"
            );
            return Err(fault(place, message, "split it; write repeated values out instead of by aliases"));
        }
        Ok(())
    }

    fn begin(
        &mut self,
        place: Place,
        anchor: usize,
        tag: Option<&Tag>,
        kind: OpenKind,
    ) -> Result<(), DocumentError> {
        is_text(tag, place)?;
        if self.open.len() >= MAX_DEPTH {
            let message = format!("values are nested more than {MAX_DEPTH} deep");
            return Err(fault(place, message, "flatten them; nothing here needs such depth"));
        }
        let before = self.weight;
        self.add(place, 0)?;
        self.open.push(Open { place, anchor, before, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), DocumentError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.kind {
            OpenKind::List(items) => Value::List(items),
            OpenKind::Map { entries, .. } => Value::Map(entries),
        };
        let weight = Weight {
            values: self.weight.values - open.before.values,
            bytes: self.weight.bytes - open.before.bytes,
        };
        self.finish(Node { place: open.place, value }, open.anchor, weight)
    }

    fn repeat(&mut self, id: usize, place: Place) -> Result<(), DocumentError> {
        let Some((node, weight)) = self.anchors.get(&id).cloned() else {
            return Err(fault(place, "this alias repeats a value that contains it", "write the value out"));
        };
        self.weigh(place, weight)?;
        self.finish(Node { place, ..node }, 0, weight)
    }

    /// Puts a complete value where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, weight: Weight) -> Result<(), DocumentError> {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.documents.push(node),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Map { entries, seen, key, duplicate }) => match key.take() {
                Some(_) if *duplicate => *duplicate = false,
                Some((key, place)) => entries.push(Entry { key, place, node }),
                None => {
                    let place = node.place;
                    let text = key_text(node)?;
                    if let Some(first) = seen.get(&text) {
                        *duplicate = true;
                        let message = format!("the key {} is already on line {first}", shown(&text));
                        self.faults.push(fault(place, message, "keep one of the two"));
                    } else {
                        seen.insert(text.clone(), place.line);
                    }
                    *key = Some((text, place));
                }
            },
        }
        Ok(())
    }
}

fn key_text(node: Node) -> Result<String, DocumentError> {
    match node.value {
        Value::Scalar { text, .. } => Ok(text),
        Value::Null | Value::List(_) | Value::Map(_) => {
            Err(fault(node.place, "a key must be a text", "write the key as one word before the colon"))
        }
    }
}

/// Is the value marked as text by its tag? Any tag but those of plain YAML is refused.
fn is_text(tag: Option<&Tag>, place: Place) -> Result<bool, DocumentError> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema_tag("str") => Ok(true),
        Some(tag) if tag.core_suffix().is_some() => Ok(false),
        Some(tag) => {
            Err(fault(place, format!("the tag {:.64} means nothing here", tag.to_string()), "remove it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(text: &str) -> Vec<DocumentError> {
        let faults = Faults::default();
        parse(text, &faults);
        faults.into_sorted()
    }

    #[test]
    fn json_and_yaml_give_the_same_tree() {
        fn bare(node: &Node) -> String {
            match &node.value {
                Value::Null => "null".to_owned(),
                Value::Scalar { text, .. } => text.clone(),
                Value::List(items) => format!("{:?}", items.iter().map(bare).collect::<Vec<_>>()),
                Value::Map(entries) => {
                    format!("{:?}", entries.iter().map(|e| (&e.key, bare(&e.node))).collect::<Vec<_>>())
                }
            }
        }
        let faults = Faults::default();
        let yaml = parse("a: [1, 'x']\nb: {c: ~}\nd: \"é\\n\"\n", &faults);
        let json =
            parse("{\n\t\"a\": [1, \"x\"],\n\t\"b\": {\"c\": null},\n\t\"d\": \"\\u00e9\\n\"\n}", &faults);
        assert_eq!(faults.into_sorted(), []);
        assert_eq!(bare(&yaml[0]), bare(&json[0]));
    }

    #[test]
    fn an_alias_bomb_is_stopped() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..30 {
            let items = vec![format!("*a{}", n - 1); 9].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{items}]\n"));
        }
        let errors = errors_of(&text);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].message.contains("grows past"), "{}", errors[0]);
        let long = format!("a: &a {}\nb: [{}]", "x".repeat(500_000), vec!["*a"; 4000].join(","));
        assert!(errors_of(&long)[0].message.contains("grows past"));
    }

    #[test]
    fn deep_nesting_and_values_that_contain_themselves_are_refused() {
        for deep in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000)] {
            assert_eq!(errors_of(&deep).len(), 1, "{deep:.20}");
        }
        assert!(errors_of("a: &a [*a]")[0].message.contains("contains it"));
        assert!(!errors_of("a: *nowhere").is_empty());
    }

    #[test]
    fn duplicate_keys_tags_and_tabs_are_named_with_their_place() {
        let error = &errors_of("a: 1\nb:\n  c: 1\n  c: {d: 2}\n")[0];
        assert_eq!((error.line, error.column), (4, 3));
        assert!(error.message.contains("already on line 3"), "{error}");
        let error = &errors_of("a:\n\tb: 1\n")[0];
        assert_eq!(error.line, 2);
        assert!(error.remedy.contains("tabs"), "{error}");
        let long = "k".repeat(900);
        assert!(errors_of(&format!("{long}: 1\n{long}: 2\n"))[0].message.len() < 100);
        assert!(errors_of("a: !ruby/object {}")[0].message.contains("tag"));
        assert!(errors_of("? [a]\n: 1")[0].message.contains("key"));
    }

    #[test]
    fn garbage_never_panics() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let alphabet: Vec<char> = "ab:- \n\t{}[],&*!|>'\"%#?~0é\u{feff}\r\\".chars().collect();
        for _ in 0..3_000 {
            let mut text = String::new();
            for _ in 0..40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
            }
            let faults = Faults::default();
            let documents = parse(&text, &faults);
            assert!(documents.len() <= 40 && faults.into_sorted().len() <= 50, "{text:?}");
        }
    }
}

//! Reads the module paths that a Rust file mentions, well enough to judge imports: comments and
//! strings are blanked, `use` groups and `super` chains resolved. Not a parser of the language.

/// The code of a file with comments, strings and characters blanked.
pub fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest, code.as_bytes().last()) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if bytes[at] == b'"' {
            quoted(rest, b'"')
        } else if bytes[at] == b'\'' && is_character(rest) {
            quoted(rest, b'\'')
        } else {
            0
        };
        if skip == 0 {
            let c = rest.chars().next().unwrap_or(' ');
            code.push(c);
            at += c.len_utf8();
        } else {
            code.push(' ');
            at += skip;
        }
    }
    code
}

fn raw_string(rest: &str, before: Option<&u8>) -> Option<usize> {
    if before.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
        return None;
    }
    let tail = rest.strip_prefix('r')?;
    let hashes = tail.bytes().take_while(|b| *b == b'#').count();
    tail[hashes..].starts_with('"').then_some(hashes)
}

/// A lifetime has no closing quote right after its first character.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    matches!((chars.next(), chars.next()), (Some('\\'), _) | (Some(_), Some('\'')))
}

fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// What follows each `ROOT::` in the code: one name, or the first name of each member of a group.
pub fn names_after(code: &str, root: &str) -> Vec<String> {
    let mut names = Vec::new();
    let needle = format!("{root}::");
    for (at, _) in code.match_indices(&needle) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = code[at + needle.len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_members(group)),
            None => names.push(name_at(rest)),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn group_members(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut members) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(name_at(group[start..at].trim_start()));
                return members;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(name_at(group[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    members
}

/// The modules of its own crate that a file mentions from the crate's root, by `crate::` or by a chain
/// of `super::` that leads there. `depth` is the number of modules the file lies below the root.
pub fn own_modules(code: &str, depth: usize) -> Vec<String> {
    let mut names = names_after(code, "crate");
    if depth > 0 {
        names.extend(names_after(code, &vec!["super"; depth].join("::")));
    }
    names
}

#[test]
fn paths_are_found_in_groups_and_chains_but_not_in_comments_or_strings() {
    let code = code_of(
        "use crate::{plan::{self, Plan}, state}; // crate::no\nlet x = \"crate::no\"; fn f<'a>(c: char) \
         { super::super::view::draw('\"', r#\"crate::no \"# ); crate::ids::NodeId }",
    );
    assert_eq!(own_modules(&code, 2), ["plan", "state", "ids", "view"]);
    assert_eq!(names_after("use std::{fs, collections::{BTreeMap}};", "std"), ["fs", "collections"]);
}

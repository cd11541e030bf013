//! Keys and what they mean: chords by name, sequences of them, and what fits where. Built from the
//! command registry and the operator's own wishes; conflicts are reported, never silently resolved.

use std::fmt;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::commands::{self, Cmd, Entry};

/// One key with its modifiers; shift is part of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chord {
    code: KeyCode,
    ctrl: bool,
    alt: bool,
}

impl From<KeyEvent> for Chord {
    fn from(key: KeyEvent) -> Chord {
        Chord {
            code: key.code,
            ctrl: key.modifiers.contains(KeyModifiers::CONTROL),
            alt: key.modifiers.contains(KeyModifiers::ALT),
        }
    }
}

const NAMES: [(&str, KeyCode); 15] = [
    ("space", KeyCode::Char(' ')),
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("backtab", KeyCode::BackTab),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pageup", KeyCode::PageUp),
    ("pagedown", KeyCode::PageDown),
];

impl Chord {
    /// Reads `x`, `D`, `ctrl-x`, `alt-x`, `space`, `pageup`.
    pub fn parse(text: &str) -> Option<Chord> {
        let (mut rest, mut ctrl, mut alt) = (text, false, false);
        loop {
            if let Some(tail) = rest.strip_prefix("ctrl-").filter(|tail| !tail.is_empty()) {
                (rest, ctrl) = (tail, true);
            } else if let Some(tail) = rest.strip_prefix("alt-").filter(|tail| !tail.is_empty()) {
                (rest, alt) = (tail, true);
            } else {
                break;
            }
        }
        let named = NAMES.iter().find(|(name, _)| *name == rest).map(|(_, code)| *code);
        let mut chars = rest.chars();
        let single = match (chars.next(), chars.next()) {
            (Some(c), None) => Some(KeyCode::Char(c)),
            _ => None,
        };
        named.or(single).map(|code| Chord { code, ctrl, alt })
    }

    pub fn is(self, name: &str) -> bool {
        Chord::parse(name) == Some(self)
    }
}

impl fmt::Display for Chord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ctrl = if self.ctrl { "ctrl-" } else { "" };
        let alt = if self.alt { "alt-" } else { "" };
        let name = NAMES.iter().find(|(_, code)| *code == self.code).map(|(name, _)| (*name).to_owned());
        let name = name.unwrap_or_else(|| match self.code {
            KeyCode::Char(c) => c.to_string(),
            KeyCode::F(n) => format!("f{n}"),
            _ => "?".to_owned(),
        });
        f.pad(&format!("{ctrl}{alt}{name}"))
    }
}

#[derive(Debug, Clone)]
struct Binding {
    keys: Vec<Chord>,
    entry: &'static Entry,
}

/// All bindings.
#[derive(Debug, Clone)]
pub(crate) struct Keymap {
    bindings: Vec<Binding>,
}

/// What a sequence of keys means so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Command(Cmd),
    /// More keys are needed.
    Prefix,
    Nothing,
}

impl Keymap {
    /// The registry's keys, with `wishes` (command name and its keys) in place of them where given;
    /// beside it everything that does not work out.
    pub fn new(wishes: &[(String, Vec<String>)]) -> (Keymap, Vec<String>) {
        let mut problems = Vec::new();
        for (name, _) in wishes {
            if commands::by_name(name).is_none() {
                problems.push(format!("no command is called {name:?}; see the help screen for all names"));
            }
        }
        let mut bindings: Vec<Binding> = Vec::new();
        for entry in commands::ALL {
            let wish = wishes.iter().rev().find(|(name, _)| name == entry.name);
            let texts: Vec<String> = match wish {
                Some((_, keys)) => keys.clone(),
                None => entry.keys.iter().map(|key| (*key).to_owned()).collect(),
            };
            for text in texts {
                match sequence(&text) {
                    Some(keys) => {
                        let binding = Binding { keys, entry };
                        problems.extend(bindings.iter().filter_map(|other| conflict(other, &binding)));
                        bindings.push(binding);
                    }
                    None => {
                        problems.push(format!("{text:?} of {} is not a key such as D or ctrl-x", entry.name));
                    }
                }
            }
        }
        (Keymap { bindings }, problems)
    }

    pub fn find(&self, keys: &[Chord], context: u16) -> Found {
        let mut fitting =
            self.bindings.iter().filter(|b| b.keys.starts_with(keys) && b.entry.applies(context));
        match fitting.next() {
            None => Found::Nothing,
            Some(b) if b.keys.len() == keys.len() => Found::Command(b.entry.cmd),
            Some(_) => Found::Prefix,
        }
    }

    /// What may follow a prefix.
    pub fn following(&self, keys: &[Chord], context: u16) -> Vec<(Chord, &'static Entry)> {
        self.bindings
            .iter()
            .filter(|b| b.keys.len() > keys.len() && b.keys.starts_with(keys) && b.entry.applies(context))
            .map(|b| (b.keys[keys.len()], b.entry))
            .collect()
    }

    /// The keys of a command, as text; the first is what the footer shows.
    pub fn keys_of(&self, cmd: Cmd) -> Vec<String> {
        let text = |b: &Binding| b.keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        self.bindings.iter().filter(|b| b.entry.cmd == cmd).map(text).collect()
    }
}

fn sequence(text: &str) -> Option<Vec<Chord>> {
    let keys: Option<Vec<Chord>> = text.split(' ').map(Chord::parse).collect();
    keys.filter(|keys| !keys.is_empty() && keys.len() <= 4)
}

fn conflict(a: &Binding, b: &Binding) -> Option<String> {
    let meet = a.keys.starts_with(&b.keys) || b.keys.starts_with(&a.keys);
    let same = a.entry.cmd == b.entry.cmd;
    (meet && !same && a.entry.meets(b.entry)).then(|| {
        let keys: Vec<String> = b.keys.iter().map(ToString::to_string).collect();
        format!(
            "{} is bound to both {} and {}; {} wins",
            keys.join(" "),
            a.entry.name,
            b.entry.name,
            a.entry.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{DEMO, LOG, NODE};

    fn keys(text: &str) -> Vec<Chord> {
        sequence(text).unwrap_or_default()
    }

    #[test]
    fn the_built_in_keys_do_not_conflict() {
        let (_, problems) = Keymap::new(&[]);
        assert_eq!(problems, Vec::<String>::new());
    }

    #[test]
    fn chords_read_back_as_they_print() {
        for text in ["x", "D", "ctrl-x", "alt-x", "space", "pageup", "/", "-", "ctrl-alt-k"] {
            let chord = Chord::parse(text);
            assert_eq!(chord.map(|c| c.to_string()).as_deref(), Some(text));
        }
        assert_eq!(Chord::parse("hyper-x"), None);
        assert_eq!(Chord::parse(""), None);
    }

    #[test]
    fn a_sequence_waits_for_its_last_key_and_only_where_it_applies() {
        let (map, _) = Keymap::new(&[]);
        let demo = NODE | DEMO;
        assert_eq!(map.find(&keys("K"), demo), Found::Prefix);
        assert_eq!(map.find(&keys("K k"), demo), Found::Command(Cmd::DemoKill));
        assert_eq!(map.find(&keys("K"), NODE), Found::Nothing, "a real cluster has no such menu");
        assert_eq!(map.find(&keys("D"), LOG), Found::Nothing);
        assert_eq!(map.following(&keys("K"), demo).len(), 6);
    }

    #[test]
    fn wishes_replace_keys_and_their_conflicts_are_reported() {
        let wish = |name: &str, key: &str| (name.to_owned(), vec![key.to_owned()]);
        let (map, problems) =
            Keymap::new(&[wish("drain", "ctrl-d"), wish("fly", "x"), wish("fence", "no key")]);
        assert_eq!(map.keys_of(Cmd::Drain), ["ctrl-d"]);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems.iter().any(|p| p.contains("ctrl-d is bound to both")));
        assert!(problems.iter().any(|p| p.contains("\"fly\"")));
    }
}

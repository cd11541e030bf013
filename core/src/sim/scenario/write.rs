//! Writes a scenario as a file that reads back the same.

use std::fmt::Write;

use super::parse::{device_word, profile_word, state_word};
use super::{Expected, LASTS_MS, Scenario, Setting, name};
use crate::document::{Outline, text};
use crate::sim::script::{Deed, Shape};
use crate::units::Millis;

impl Scenario {
    /// The whole file.
    pub fn to_yaml(&self) -> String {
        let mut out = format!("about: {}\nseed: {}\n", text(&self.about).on_one_line(), self.seed);
        match &self.world {
            Setting::Written { shape, services } => {
                out.push_str(&cluster(shape).to_yaml());
                if !services.is_empty() {
                    let _ = writeln!(out, "services: [{}]", services.join(", "));
                }
            }
            Setting::Drawn { faults, operators, chance } => {
                out.push_str(
                    "# Hosts, services and chance are drawn from the seed; only the faults are written.\n",
                );
                let _ =
                    writeln!(out, "drawn: {{faults: {faults}, operators: {operators}, chance: {chance}}}");
            }
        }
        if self.lasts_ms != LASTS_MS {
            let _ = writeln!(out, "lasts: {}", Millis(self.lasts_ms));
        }
        if !self.steps.is_empty() {
            out.push_str("steps:\n");
        }
        for step in &self.steps {
            let key = match step.deed {
                Deed::Fault(_) => "do",
                Deed::Ask(_) => "ask",
            };
            let _ = writeln!(out, "  - {{at: {}, {key}: {}}}", moment(step.at_us), plain(&step.words()));
        }
        if !self.expect.is_empty() {
            out.push_str("expect:\n");
        }
        for expectation in &self.expect {
            let _ = writeln!(out, "  - {{at: {}, {}}}", moment(expectation.at_us), expectation.what.yaml());
        }
        out
    }
}

impl Expected {
    fn yaml(&self) -> String {
        match self {
            Expected::Leads(Some(host)) => format!("leader: {}", name(*host)),
            Expected::Leads(None) => "leader: nobody".to_owned(),
            Expected::Runs { slot, on } => {
                let on: Vec<String> = on.iter().map(|host| name(*host)).collect();
                let on = if on.is_empty() { "nowhere".to_owned() } else { format!("[{}]", on.join(", ")) };
                format!("runs: {{{slot}: {on}}}")
            }
            Expected::Stands { node, state } => format!("nodes: {{{}: {}}}", name(*node), state_word(*state)),
            Expected::Why { subject, words } => {
                format!("why: {{{}: {}}}", text(subject).on_one_line(), text(words).on_one_line())
            }
            Expected::Sees { node, words } => {
                format!("sees: {{{}: {}}}", name(*node), text(words).on_one_line())
            }
        }
    }
}

/// Words with blanks between them, unquoted where YAML lets them be.
fn plain(words: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || " ./-_".contains(c);
    if words.starts_with(|c: char| c.is_ascii_alphabetic()) && words.chars().all(simple) {
        words.to_owned()
    } else {
        text(words).on_one_line()
    }
}

/// A moment, to the microsecond where it has to be.
pub(in crate::sim) fn moment(at_us: u64) -> String {
    // Whole minutes are written in seconds as well: a moment is read in no other unit.
    match (at_us / 1_000_000, at_us % 1_000_000) {
        (seconds, 0) => format!("{seconds}s"),
        _ if at_us.is_multiple_of(1_000) => format!("{}ms", at_us / 1_000),
        (seconds, rest) => format!("{seconds}.{rest:06}s"),
    }
}

fn cluster(shape: &Shape) -> Outline {
    let bare = |value: String| Outline::Bare(value);
    let nodes = |hosts: &[usize]| Outline::List(hosts.iter().map(|host| text(name(*host))).collect());
    let mut keys = vec![
        ("nodes", bare(shape.hosts.to_string())),
        ("profile", text(profile_word(shape.profile))),
        ("armed", bare(shape.armed.to_string())),
        ("silence", bare(shape.silence_counts.to_string())),
        ("fencing", text(device_word(shape.fencing))),
    ];
    if !shape.witnesses.is_empty() {
        keys.push(("witnesses", nodes(&shape.witnesses)));
    }
    let drift = shape.drift_ppm.iter().enumerate().filter(|(_, ppm)| **ppm != 0);
    let drift: Vec<(String, Outline)> =
        drift.map(|(host, ppm)| (name(host), bare(ppm.to_string()))).collect();
    if !drift.is_empty() {
        keys.push(("drift_ppm", Outline::Map(drift)));
    }
    let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Outline::Map(vec![("cluster".to_owned(), Outline::Map(keys))])
}

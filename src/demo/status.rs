//! How a demo is, for `demo ctl status`: its processes, what is wrong with which way, where its scenario
//! stands. Plain data and its words.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::relay::{Fault, Way};
use crate::host::ProcessStat;

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Status {
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// Every direction with something wrong.
    pub links: Vec<LinkStatus>,
    /// The running scenario.
    pub scenario: Option<ScenarioStatus>,
}

/// A node's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeStatus {
    /// Its name.
    pub name: String,
    /// `running`, `frozen` or `ended`.
    pub state: String,
    /// Its process, if it has one.
    pub pid: Option<u32>,
}

/// One direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LinkStatus {
    /// Which.
    #[serde(flatten)]
    pub way: Way,
    /// What is wrong with it.
    #[serde(flatten)]
    pub fault: Fault,
}

/// Where a scenario stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScenarioStatus {
    /// Its name.
    pub name: String,
    /// Steps taken.
    pub step: usize,
    /// Of so many.
    pub steps: usize,
    /// What was done last.
    pub title: String,
    /// What there is to be seen now.
    pub see: String,
    /// Is it held?
    pub paused: bool,
    /// Until the next step, if there is one and it is not held.
    pub next_ms: Option<u64>,
}

impl NodeStatus {
    /// As the kernel tells it.
    pub(super) fn of(name: String, pid: Option<u32>) -> Self {
        let stat = pid.and_then(ProcessStat::read).filter(|stat| !stat.dead());
        let state = match stat {
            None => "ended",
            Some(stat) if stat.state == b'T' => "frozen",
            Some(_) => "running",
        };
        Self { name, state: state.to_owned(), pid: stat.and(pid) }
    }
}

/// For machines.
pub(super) fn links(faults: Vec<(Way, Fault)>) -> Vec<LinkStatus> {
    faults.into_iter().map(|(way, fault)| LinkStatus { way, fault }).collect()
}

/// For people: one line for all segments of a way, and for both its directions where they are alike.
pub(super) fn in_words(faults: &[(Way, Fault)]) -> Vec<String> {
    let mut ways: BTreeMap<(&str, &str, String), BTreeSet<&str>> = BTreeMap::new();
    for (way, fault) in faults {
        ways.entry((&way.from, &way.to, words(*fault))).or_default().insert(&way.segment);
    }
    if ways.is_empty() {
        return vec!["every link works".to_owned()];
    }
    let mut lines = Vec::new();
    for ((from, to, wrong), segments) in &ways {
        let both = ways.get(&(*to, *from, wrong.clone())) == Some(segments);
        if both && from > to {
            continue;
        }
        let arrow = if both { "<->" } else { "->" };
        let segments: Vec<&str> = segments.iter().copied().collect();
        lines.push(format!("{from} {arrow} {to} on {}: {wrong}", segments.join(", ")));
    }
    lines
}

fn words(fault: Fault) -> String {
    let Fault { cut, delay_ms, jitter_ms, loss_percent } = fault;
    let mut words = Vec::new();
    if cut {
        words.push("cut".to_owned());
    }
    if delay_ms > 0 || jitter_ms > 0 {
        let jitter = if jitter_ms > 0 { format!(" +-{jitter_ms}") } else { String::new() };
        words.push(format!("{delay_ms}{jitter} ms late"));
    }
    if loss_percent > 0 {
        words.push(format!("{loss_percent} % lost"));
    }
    words.join(", ")
}

impl Status {
    /// For people.
    pub(super) fn in_words(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for NodeStatus { name, state, pid } in &self.nodes {
            let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            lines.push(format!("{name} {state}{pid}"));
        }
        let faults: Vec<_> = self.links.iter().map(|link| (link.way.clone(), link.fault)).collect();
        lines.extend(in_words(&faults));
        lines.extend(self.scenario.iter().map(ScenarioStatus::in_words));
        lines
    }
}

impl ScenarioStatus {
    /// For people.
    pub(super) fn in_words(&self) -> String {
        let Self { name, step, steps, title, paused, next_ms, .. } = self;
        let next = match next_ms {
            _ if *paused => "; paused".to_owned(),
            Some(ms) => format!("; next step in {} s", ms.div_ceil(1_000)),
            None => "; over".to_owned(),
        };
        let title = if title.is_empty() { String::new() } else { format!(": {title}") };
        format!("scenario {name}, step {step}/{steps}{title}{next}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_ways_are_told_in_one_line() {
        let way = |from: &str, to: &str, segment: &str| Way {
            from: from.into(),
            to: to.into(),
            segment: segment.into(),
        };
        let cut = Fault { cut: true, ..Fault::default() };
        let late = Fault { delay_ms: 40, jitter_ms: 5, loss_percent: 2, cut: false };
        let faults = [
            (way("n1", "n2", "a"), cut),
            (way("n1", "n2", "b"), cut),
            (way("n2", "n1", "a"), cut),
            (way("n2", "n1", "b"), cut),
            (way("n1", "n3", "a"), cut),
            (way("n3", "n1", "a"), late),
        ];
        assert_eq!(
            in_words(&faults),
            ["n1 <-> n2 on a, b: cut", "n1 -> n3 on a: cut", "n3 -> n1 on a: 40 +-5 ms late, 2 % lost"]
        );
        assert_eq!(in_words(&[]), ["every link works"]);
    }
}

//! Game days: named lists of timed steps, each a few words as typed after `quorate demo ctl`, and what an
//! operator should see. Read and checked here; who plays which part is settled when the day begins.

mod play;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use quorate_core::units::Millis;
use serde::Deserialize;

pub(super) use self::play::Play;
use super::ctl::CtlCommand;
use super::files::Fencing;
use crate::api::error::{ApiError, ErrorCode};

/// Those that are built in, in the order of `--scenario list`.
const ALL: [&str; 9] = [
    include_str!("split-brain.yaml"),
    include_str!("isolated-leader.yaml"),
    include_str!("frozen-node.yaml"),
    include_str!("lost-segment.yaml"),
    include_str!("one-way-cut.yaml"),
    include_str!("flapping-link.yaml"),
    include_str!("dead-node-with-critical.yaml"),
    include_str!("rolling-restart.yaml"),
    include_str!("slow-network.yaml"),
];
const LARGEST: u64 = 64 * 1024;
const MOST_STEPS: usize = 100;
/// Parts that every scenario has.
const EVERY: [&str; 2] = ["all", "others"];

/// A game day.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// What it is called.
    pub name: String,
    /// What it is about, in a sentence.
    pub about: String,
    /// How many nodes it needs.
    pub nodes: u8,
    /// What the nodes may do to a lost one.
    #[serde(default)]
    pub fencing: Fencing,
    /// Parts, and by what a node gets them.
    #[serde(default)]
    pub cast: BTreeMap<String, String>,
    /// What is done.
    pub steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// So long after the one before.
    after: String,
    /// What happens, in words.
    pub say: String,
    /// As typed after `quorate demo ctl`; parts stand for nodes.
    #[serde(default, rename = "do")]
    pub deeds: Vec<String>,
    /// What an operator should see.
    #[serde(default)]
    pub see: String,
}

/// By what a node gets a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// It leads.
    Leader,
    /// It follows, and has no other part.
    Follower,
    /// It runs a copy of this service.
    Runs(String),
}

impl Part {
    fn parse(text: &str) -> Option<Self> {
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            ["leader"] => Some(Self::Leader),
            ["follower"] => Some(Self::Follower),
            ["runs", service] => Some(Self::Runs(service.to_owned())),
            _ => None,
        }
    }
}

impl Step {
    /// How long after the one before.
    pub(super) fn after(&self) -> Duration {
        Duration::from_millis(self.after.parse::<Millis>().map_or(0, |after| after.0))
    }
}

/// Puts names in the place of parts: `$old` becomes `n2`.
pub(super) fn cast_into(text: &str, cast: &BTreeMap<String, String>) -> Result<String, String> {
    let mut done = String::new();
    let mut parts = text.split('$');
    done.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        let node = cast.get(name).ok_or_else(|| format!("nobody plays ${name}"))?;
        done.push_str(node);
        done.push_str(rest);
    }
    Ok(done)
}

impl Scenario {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = serde_saphyr::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Everything in it can be done, whoever plays the parts.
    fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=7).contains(&self.nodes), "nodes: a demo has 1 to 7 nodes, not {}", self.nodes);
        ensure!(!self.steps.is_empty(), "steps: there are none");
        ensure!(self.steps.len() <= MOST_STEPS, "steps: more than {MOST_STEPS}");
        let mut cast: BTreeMap<String, String> = EVERY.map(|part| (part.to_owned(), "n1".to_owned())).into();
        for (name, part) in &self.cast {
            ensure!(!EVERY.contains(&name.as_str()), "cast: {name} is taken; every scenario has it");
            let Some(_) = Part::parse(part) else {
                bail!("cast: {name}: {part:?} is no part; write leader, follower or runs SERVICE");
            };
            cast.insert(name.clone(), "n1".to_owned());
        }
        for (step, number) in self.steps.iter().zip(1..) {
            let at = |error: String| anyhow::anyhow!("step {number}: {error}");
            let after = step.after.parse::<Millis>();
            after.map_err(|error| at(format!("after: {:?}: {error}", step.after)))?;
            for text in [&step.say, &step.see] {
                cast_into(text, &cast).map_err(at)?;
            }
            for deed in &step.deeds {
                let line = cast_into(deed, &cast).map_err(at)?;
                let asked = CtlCommand::typed(&line).map_err(|error| at(format!("{deed}: {error}")))?;
                ensure!(
                    !matches!(asked, CtlCommand::Scenario(_) | CtlCommand::Status),
                    "step {number}: {deed}: a scenario does not steer itself"
                );
            }
        }
        Ok(())
    }

    /// All that are built in.
    pub(super) fn all() -> anyhow::Result<Vec<Self>> {
        ALL.iter().map(|text| Self::parse(text)).collect()
    }

    /// By its name, or from a file.
    pub(super) fn named(name: &str) -> anyhow::Result<Self> {
        let all = Self::all()?;
        if let Some(known) = all.iter().find(|scenario| scenario.name == name) {
            return Ok(known.clone());
        }
        let path = Path::new(name);
        let file = name.ends_with(".yaml") || name.ends_with(".yml") || name.contains('/');
        if !file {
            let names: Vec<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
            let remedy = format!("there are {}; or name a file that ends in .yaml", names.join(", "));
            return Err(
                ApiError::new(ErrorCode::Usage, format!("there is no scenario {name}"), remedy).into()
            );
        }
        let mut text = String::new();
        let read =
            std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text));
        read.with_context(|| format!("cannot read {name}"))?;
        ensure!(text.len() as u64 <= LARGEST, "{name} is larger than {LARGEST} bytes");
        Self::parse(&text).with_context(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ctl::{CutArgs, Nodes};
    use super::*;

    #[test]
    fn every_scenario_is_sound_and_leaves_the_network_whole_and_every_node_running() {
        let all = Scenario::all().unwrap();
        let mut names: Vec<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for scenario in &all {
            let (mut cut, mut down) = (false, Vec::new());
            let mut cast: BTreeMap<String, String> =
                scenario.cast.keys().map(|part| (part.clone(), part.clone())).collect();
            cast.extend(EVERY.map(|part| (part.to_owned(), part.to_owned())));
            for deed in scenario.steps.iter().flat_map(|step| &step.deeds) {
                match CtlCommand::typed(&cast_into(deed, &cast).unwrap()).unwrap() {
                    CtlCommand::Cut(CutArgs { .. }) | CtlCommand::Delay(_) => cut = true,
                    CtlCommand::Heal(_) => cut = false,
                    CtlCommand::Kill(Nodes { nodes }) | CtlCommand::Freeze(Nodes { nodes }) => {
                        down.extend(nodes);
                    }
                    CtlCommand::Thaw(Nodes { nodes }) | CtlCommand::Restart(Nodes { nodes }) => {
                        down.retain(|node| !nodes.contains(node));
                    }
                    CtlCommand::Status | CtlCommand::Scenario(_) => panic!("{deed}"),
                }
            }
            assert!(!cut && down.is_empty(), "{}: {down:?}", scenario.name);
            assert!(scenario.steps.iter().any(|step| !step.see.is_empty()), "{}", scenario.name);
        }
    }

    #[test]
    fn what_cannot_be_played_is_refused_with_the_place() {
        let error = |text: &str| format!("{:#}", Scenario::parse(text).unwrap_err());
        let with = |cast: &str, step: &str| {
            error(&format!(
                "name: x\nabout: y\nnodes: 3\ncast: {{{cast}}}\nsteps:\n  - {{after: 1s, say: z, {step}}}"
            ))
        };
        assert!(with("", "do: [explode n1]").contains("step 1: explode n1"));
        assert!(with("", "do: [cut $who]").contains("nobody plays $who"));
        assert!(with("", "do: [scenario next]").contains("does not steer itself"));
        assert!(with("a: king", "do: [heal]").contains("is no part"));
        assert!(with("all: leader", "do: [heal]").contains("is taken"));
        assert!(error("name: x\nabout: y\nnodes: 9\nsteps: [{after: 1s, say: z}]").contains("1 to 7"));
        assert!(error("name: x\nabout: y\nnodes: 3\nsteps: [{after: soon, say: z}]").contains("after"));
        assert!(error("name: x\nwhat: y").contains("what"));
        let unknown = Scenario::named("end-of-the-world").unwrap_err();
        assert_eq!(unknown.downcast_ref::<ApiError>().unwrap().code, ErrorCode::Usage);
        assert!(Scenario::named("./none.yaml").unwrap_err().to_string().contains("none.yaml"));
    }

    #[test]
    fn parts_become_names() {
        let cast =
            [("old", "n2"), ("all", "n1 n2 n3")].map(|(part, node)| (part.to_owned(), node.to_owned()));
        let cast = cast.into();
        assert_eq!(cast_into("cut $all --from $old, $old", &cast).unwrap(), "cut n1 n2 n3 --from n2, n2");
        assert_eq!(cast_into("nothing", &cast).unwrap(), "nothing");
        assert!(cast_into("cut $", &cast).is_err());
    }
}

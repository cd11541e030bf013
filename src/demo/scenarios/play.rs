//! A scenario as it is played: who has which part, which step comes when, and what to tell. Does nothing to
//! the demo itself.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::view::{ClusterView, NodeState};
use tokio::time::Instant;

use super::super::ctl::{CtlCommand, ScenarioCommand};
use super::super::status::ScenarioStatus;
use super::{Part, Scenario, cast_into};

/// A running scenario.
#[derive(Debug)]
pub(in crate::demo) struct Play {
    scenario: Scenario,
    cast: BTreeMap<String, String>,
    /// Steps taken.
    taken: usize,
    /// When the next one comes, if there is one.
    due: Option<Instant>,
    /// What was left until then when it was paused.
    held: Option<Duration>,
}

/// Gives each part to a node; an error says who is missing.
fn cast(scenario: &Scenario, view: &ClusterView) -> Result<BTreeMap<String, String>, String> {
    let mut cast = BTreeMap::new();
    let parts = || scenario.cast.iter().filter_map(|(name, text)| Some((name, Part::parse(text)?)));
    for (name, part) in parts() {
        let node = match part {
            Part::Leader => view.standing.leader.as_ref().ok_or("nobody leads")?,
            Part::Runs(service) => {
                let copies = view.instances.values().filter(|copy| copy.service.as_str() == service);
                copies
                    .filter_map(|copy| copy.node.as_ref())
                    .next()
                    .ok_or(format!("no node runs {service}"))?
            }
            Part::Follower => continue,
        };
        cast.insert(name.clone(), node.to_string());
    }
    let alive = view.nodes.values().filter(|node| node.state == NodeState::Alive);
    let alive: Vec<String> = alive.map(|node| node.name.to_string()).collect();
    let leader = view.standing.leader.as_ref().map(ToString::to_string);
    for (name, _) in parts().filter(|(_, part)| *part == Part::Follower) {
        // From the end: the cockpit of the demo looks from the first node, if it can.
        let free =
            |node: &&String| Some(*node) != leader.as_ref() && !cast.values().any(|taken| taken == *node);
        let node = alive.iter().rev().find(free).ok_or(format!("no node is left for ${name}"))?;
        cast.insert(name.clone(), node.clone());
    }
    let all: Vec<&str> = view.nodes.values().map(|node| node.name.as_str()).collect();
    let others: Vec<&str> =
        all.iter().copied().filter(|node| !cast.values().any(|taken| taken == node)).collect();
    let (all, others) = (all.join(" "), others.join(" "));
    cast.insert("all".to_owned(), all);
    cast.insert("others".to_owned(), others);
    Ok(cast)
}

impl Play {
    /// With the parts given by how the cluster is now; an error says who is missing.
    pub(in crate::demo) fn begin(
        scenario: &Scenario,
        view: &ClusterView,
        now: Instant,
    ) -> Result<Self, String> {
        let cast = cast(scenario, view)?;
        let mut play = Self { scenario: scenario.clone(), cast, taken: 0, due: None, held: None };
        play.plan(now);
        Ok(play)
    }

    fn plan(&mut self, now: Instant) {
        let after = self.scenario.steps.get(self.taken).map(super::Step::after);
        match self.held {
            Some(_) => self.held = Some(after.unwrap_or_default()),
            None => self.due = after.map(|after| now + after),
        }
    }

    /// When the next step comes by itself.
    pub(in crate::demo) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes the next step: what is to be done.
    pub(in crate::demo) fn step(&mut self, now: Instant) -> Vec<CtlCommand> {
        let Some(step) = self.scenario.steps.get(self.taken) else { return Vec::new() };
        // Each was checked when the scenario was read.
        let lines = step.deeds.iter().filter_map(|deed| cast_into(deed, &self.cast).ok());
        let deeds = lines.filter_map(|line| CtlCommand::typed(&line).ok()).collect();
        self.taken += 1;
        self.due = None;
        self.plan(now);
        deeds
    }

    /// Does what was asked; says what is so now.
    pub(in crate::demo) fn steer(&mut self, asked: ScenarioCommand, now: Instant) -> Result<String, String> {
        let name = &self.scenario.name;
        if self.taken >= self.scenario.steps.len() {
            return Err(format!("scenario {name} is over"));
        }
        match asked {
            ScenarioCommand::Next => {
                // Held or not: this one step comes now.
                self.due = Some(now);
            }
            ScenarioCommand::Pause if self.held.is_none() => {
                self.held = Some(self.due.map(|due| due.saturating_duration_since(now)).unwrap_or_default());
                self.due = None;
            }
            ScenarioCommand::Resume => {
                self.due = self.held.take().map(|left| now + left).or(self.due);
            }
            ScenarioCommand::Pause => {}
        }
        Ok(self.status(now).in_words())
    }

    /// Where it stands.
    pub(in crate::demo) fn status(&self, now: Instant) -> ScenarioStatus {
        let steps = &self.scenario.steps;
        let last = self.taken.checked_sub(1).and_then(|last| steps.get(last));
        let told = |text: &str| cast_into(text, &self.cast).unwrap_or_default();
        ScenarioStatus {
            name: self.scenario.name.clone(),
            step: self.taken,
            steps: steps.len(),
            title: last.map(|step| told(&step.say)).unwrap_or_default(),
            see: last.map(|step| told(&step.see)).unwrap_or_default(),
            paused: self.held.is_some() && self.taken < steps.len(),
            next_ms: self
                .due
                .map(|due| u64::try_from(due.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

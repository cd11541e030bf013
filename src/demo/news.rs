//! Tells how a scenario goes: a line on stderr without a cockpit, a line above its screens with one. Does not
//! know what a step does.

use tokio::sync::watch;

use super::start::Demo;
use super::status::ScenarioStatus;
use crate::output::Output;

/// Where the news goes.
pub(super) struct News {
    line: Option<watch::Sender<String>>,
    output: Output,
}

impl News {
    /// For a demo without a cockpit, or with one.
    pub(super) fn new(headless: bool, output: Output) -> Self {
        Self { line: (!headless).then(watch::Sender::default), output }
    }

    /// What the cockpit shows above its screens.
    pub(super) fn line(&self) -> Option<watch::Receiver<String>> {
        self.line.as_ref().map(watch::Sender::subscribe)
    }

    /// Tells where the scenario is, if there is one, and what of its last step could not be done.
    pub(super) fn tell(&self, demo: &Demo, failed: &[String]) {
        let Some(status) = demo.status().scenario else { return };
        match (&self.line, self.output) {
            (Some(line), _) => drop(line.send_replace(in_words(&status, failed).join("; "))),
            (None, Output::Table) => in_words(&status, failed).iter().for_each(|line| eprintln!("{line}")),
            (None, Output::Json) => {
                eprintln!("{}", serde_json::json!({ "scenario": status, "failed": failed }));
            }
        }
    }
}

fn in_words(status: &ScenarioStatus, failed: &[String]) -> Vec<String> {
    let mut lines = vec![status.in_words()];
    lines.extend(failed.iter().map(|error| format!("not done: {error}")));
    if !status.see.is_empty() {
        lines.push(format!("you should see: {}", status.see));
    }
    lines
}

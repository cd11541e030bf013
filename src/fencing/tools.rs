//! What fence methods need on this node: is the program there, does the agent know its parameters, can the
//! password be read. Looks and never touches a device.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use quorate_core::document::nearest;
use quorate_core::fence::FenceTool;
use quorate_core::observation::{MissingTool, Unavailable};

use super::metadata::Metadata;
use super::run::{Call, find, run};
use super::secret::Secret;

/// An agent describes itself by then.
const METADATA_WITHIN: Duration = Duration::from_secs(20);
/// More than this is not told: a node that lacks so much is no fencer.
const MOST_MISSING: usize = 64;
/// Actions without which nothing can be proven.
const REQUIRED: [&str; 2] = ["off", "status"];

type Described = Result<Arc<Metadata>, String>;

/// Looks for tools; what agents say of themselves is remembered while their files stay the same.
#[derive(Default)]
pub struct Tools {
    described: Mutex<BTreeMap<PathBuf, (Option<SystemTime>, Described)>>,
}

impl Tools {
    /// Those that cannot be used here, with what to do about each.
    pub async fn missing(&self, needed: &BTreeSet<FenceTool>) -> Vec<MissingTool> {
        let mut missing = Vec::new();
        for tool in needed {
            if let Err(unavailable) = self.check(tool).await {
                missing.push(MissingTool { tool: tool.clone(), unavailable });
            }
            if missing.len() == MOST_MISSING {
                break;
            }
        }
        missing
    }

    async fn check(&self, tool: &FenceTool) -> Result<(), Unavailable> {
        match tool {
            FenceTool::Program(program) => found(program, "install it, or give its whole path").map(drop),
            FenceTool::PasswordFile(path) => Secret::read(path).map(drop).map_err(|why| {
                unavailable(why, "write the password into it on this node, mode 0600, owned by its account")
            }),
            FenceTool::Agent { agent, parameters } => {
                let remedy = "install the fence agents of your distribution, such as fence-agents";
                let path = found(agent, remedy)?;
                let described = self.describe(&path).await.map_err(|why| {
                    unavailable(
                        format!("{agent} does not describe itself: {why}"),
                        format!("see what {agent} --action=metadata says"),
                    )
                })?;
                fits(agent, &described, parameters)
            }
        }
    }

    async fn describe(&self, path: &Path) -> Described {
        let changed = path.metadata().and_then(|meta| meta.modified()).ok();
        let known = self.hold().get(path).filter(|(when, _)| *when == changed).cloned();
        if let Some((_, described)) = known {
            return described;
        }
        let call = Call {
            program: path.to_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
            input: "action=metadata\n".to_owned(),
            most_output: Call::DOCUMENT,
        };
        let described = match run(&call, METADATA_WITHIN).await {
            Ok(ran) => {
                Metadata::parse(&ran.out).map(Arc::new).map_err(|why| format!("{why} ({})", ran.status))
            }
            Err(why) => Err(why.to_string()),
        };
        if described.is_ok() {
            self.hold().insert(path.to_owned(), (changed, described.clone()));
        }
        described
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, (Option<SystemTime>, Described)>> {
        self.described.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

fn unavailable(why: impl Into<String>, remedy: impl Into<String>) -> Unavailable {
    Unavailable { why: why.into(), remedy: remedy.into() }
}

fn found(program: &str, remedy: &str) -> Result<PathBuf, Unavailable> {
    find(program).ok_or_else(|| unavailable(format!("{program} is not installed"), remedy))
}

fn fits(agent: &str, described: &Metadata, parameters: &BTreeSet<String>) -> Result<(), Unavailable> {
    if let Some(action) = REQUIRED.iter().find(|action| !described.actions.contains(**action)) {
        return Err(unavailable(
            format!("{agent} has no action {action}: it can prove nothing"),
            "name an agent that switches power and reads it back",
        ));
    }
    match parameters.iter().find(|parameter| !described.knows(parameter)) {
        None => Ok(()),
        Some(unknown) => {
            let known: Vec<&str> = described.parameters.iter().map(String::as_str).collect();
            let remedy = match nearest(unknown, &known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("see what {agent} --action=metadata names"),
            };
            Err(unavailable(format!("{agent} knows no parameter {unknown}"), remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const METADATA: &str = r#"<resource-agent name="fence_x"><parameters><parameter name="ip"/>
        <parameter name="username"/></parameters><actions><action name="off"/><action name="status"/></actions>
        </resource-agent>"#;

    fn agent(dir: &Path, metadata: &str) -> String {
        let path = dir.join("fence_x");
        let calls = dir.join("calls");
        let text = format!("#!/bin/sh\necho x >> {}\ncat <<'END'\n{metadata}\nEND\n", calls.display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn needs(agent: &str, parameters: &[&str]) -> BTreeSet<FenceTool> {
        let parameters = parameters.iter().map(|name| (*name).to_owned()).collect();
        BTreeSet::from([FenceTool::Agent { agent: agent.to_owned(), parameters }])
    }

    #[tokio::test]
    async fn an_agent_is_asked_once_and_held_to_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let agent = agent(dir.path(), METADATA);
        let tools = Tools::default();
        assert_eq!(tools.missing(&needs(&agent, &["ip", "username"])).await, []);
        let missing = tools.missing(&needs(&agent, &["ipp"])).await;
        assert!(missing[0].unavailable.why.ends_with("knows no parameter ipp"), "{missing:?}");
        assert_eq!(missing[0].unavailable.remedy, "did you mean ip?");
        assert_eq!(std::fs::read_to_string(dir.path().join("calls")).unwrap().lines().count(), 1);
    }

    #[tokio::test]
    async fn an_agent_that_cannot_read_the_power_back_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let agent = agent(dir.path(), &METADATA.replace("\"status\"", "\"monitor\""));
        let missing = Tools::default().missing(&needs(&agent, &[])).await;
        assert!(missing[0].unavailable.why.contains("no action status"), "{missing:?}");
    }

    #[tokio::test]
    async fn what_is_not_here_is_told_with_what_to_do() {
        let needed = BTreeSet::from([
            FenceTool::Program("no-such-program".to_owned()),
            FenceTool::PasswordFile("/nowhere/password".to_owned()),
            FenceTool::Agent { agent: "fence_nothing_at_all".to_owned(), parameters: BTreeSet::new() },
            FenceTool::Program("sh".to_owned()),
        ]);
        let missing = Tools::default().missing(&needed).await;
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert!(missing.iter().all(|one| !one.unavailable.remedy.is_empty()));
    }
}

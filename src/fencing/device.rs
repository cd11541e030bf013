//! The kinds of device and how each is spoken to: fence agents by `key=value` lines, programs by a word and
//! JSON, engines by their own command. Says what was read of a node's power; judges nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::fence::{FenceDevice, GuestEngine, PASSWORD};
use quorate_core::ids::NodeId;
use serde::Deserialize;

use super::run::{Call, NoEnd, Ran, find, run};
use super::secret::Secret;

/// What a device can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Off,
    On,
    Status,
}

impl Verb {
    pub(super) fn word(self) -> &'static str {
        match self {
            Verb::Off => "off",
            Verb::On => "on",
            Verb::Status => "status",
        }
    }
}

/// A node's power as its device reads it. Paused, not found and unknown are all something else than off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Power {
    On,
    Off,
    Else(String),
}

/// A device that can be asked now: its program was found and its password read.
pub(super) struct Opened<'a> {
    target: &'a NodeId,
    device: &'a FenceDevice,
    program: std::path::PathBuf,
    secret: Option<Secret>,
}

/// The program that speaks for a device.
pub(super) fn program(device: &FenceDevice) -> &str {
    match device {
        FenceDevice::Agent { agent, .. } => agent,
        FenceDevice::Exec { command, .. } => command.first().map_or("", String::as_str),
        FenceDevice::Guest { engine, .. } => engine.program(),
    }
}

impl<'a> Opened<'a> {
    /// What is missing here, in words, if something is.
    pub(super) fn new(target: &'a NodeId, device: &'a FenceDevice) -> Result<Self, String> {
        let name = program(device);
        let program = find(name).ok_or_else(|| format!("{name} is not installed on this node"))?;
        let secret = match device {
            FenceDevice::Agent { password_file, .. } | FenceDevice::Exec { password_file, .. } => {
                password_file.as_deref().map(Secret::read).transpose()?
            }
            FenceDevice::Guest { .. } => None,
        };
        Ok(Self { target, device, program, secret })
    }

    /// One call, its words without secrets.
    pub(super) async fn ask(&self, verb: Verb, limit: Duration) -> Result<Ran, NoEnd> {
        let mut ran = run(&self.call(verb), limit).await?;
        if let Some(secret) = &self.secret {
            (ran.out, ran.err) = (secret.scrub(&ran.out), secret.scrub(&ran.err));
        }
        Ok(ran)
    }

    /// The power state, or why it cannot be read.
    pub(super) async fn read(&self, limit: Duration) -> Result<Power, NoEnd> {
        let ran = self.ask(Verb::Status, limit).await?;
        Ok(match self.device {
            FenceDevice::Agent { .. } => agent_power(ran.status.code(), &ran),
            FenceDevice::Exec { .. } => word_power(ran.status.success(), &ran),
            FenceDevice::Guest { engine: GuestEngine::Virsh, .. } => domain_power(&ran),
            FenceDevice::Guest { .. } => container_power(&ran),
        })
    }

    fn call(&self, verb: Verb) -> Call {
        let target = || self.target.to_string();
        match self.device {
            FenceDevice::Agent { parameters, .. } => Call {
                program: self.program.clone(),
                arguments: Vec::new(),
                variables: Vec::new(),
                input: agent_lines(verb, parameters, self.secret.as_ref()),
                most_output: Call::WORDS,
            },
            FenceDevice::Exec { command, parameters, .. } => {
                let words = command.iter().skip(1).cloned();
                Call {
                    program: self.program.clone(),
                    arguments: words.chain(std::iter::once(verb.word().to_owned())).collect(),
                    variables: vec![
                        ("QUORATE_FENCE_TARGET", target()),
                        ("QUORATE_FENCE_ACTION", verb.word().to_owned()),
                    ],
                    input: request(verb, self.target, parameters, self.secret.as_ref()),
                    most_output: Call::WORDS,
                }
            }
            FenceDevice::Guest { engine, guest, connect } => Call {
                program: self.program.clone(),
                arguments: guest_words(*engine, verb, guest, connect.as_deref()),
                variables: Vec::new(),
                input: String::new(),
                most_output: Call::WORDS,
            },
        }
    }
}

/// The stdin protocol of fence agents: one `key=value` a line.
fn agent_lines(verb: Verb, parameters: &BTreeMap<String, String>, secret: Option<&Secret>) -> String {
    let mut lines = format!("action={}\n", verb.word());
    for (key, value) in parameters {
        lines.push_str(&format!("{key}={value}\n"));
    }
    if let Some(secret) = secret {
        lines.push_str(&format!("{PASSWORD}={}\n", secret.reveal()));
    }
    // Agents of management controllers wait two seconds before they look, unless told otherwise; here the
    // state is read back anyway.
    if !parameters.contains_key("power_wait") {
        lines.push_str("power_wait=0\n");
    }
    lines
}

fn request(
    verb: Verb,
    target: &NodeId,
    parameters: &BTreeMap<String, String>,
    secret: Option<&Secret>,
) -> String {
    let mut request = serde_json::json!({
        "action": verb.word(),
        "target": target.as_str(),
        "parameters": parameters,
    });
    if let Some(secret) = secret {
        request[PASSWORD] = secret.reveal().into();
    }
    format!("{request}\n")
}

fn guest_words(engine: GuestEngine, verb: Verb, guest: &str, connect: Option<&str>) -> Vec<String> {
    let (option, words): (&str, &[&str]) = match (engine, verb) {
        (GuestEngine::Virsh, Verb::Off) => ("--connect", &["destroy"]),
        (GuestEngine::Virsh, Verb::On) => ("--connect", &["start"]),
        (GuestEngine::Virsh, Verb::Status) => ("--connect", &["domstate"]),
        (GuestEngine::Docker, Verb::Off) => ("--host", &["kill"]),
        (GuestEngine::Docker, Verb::On) => ("--host", &["start"]),
        (GuestEngine::Docker, Verb::Status) => ("--host", &INSPECT),
        (GuestEngine::Podman, Verb::Off) => ("--url", &["kill"]),
        (GuestEngine::Podman, Verb::On) => ("--url", &["start"]),
        (GuestEngine::Podman, Verb::Status) => ("--url", &INSPECT),
    };
    let where_to = connect.map(|place| [option.to_owned(), place.to_owned()]).into_iter().flatten();
    where_to.chain(words.iter().map(|word| (*word).to_owned())).chain([guest.to_owned()]).collect()
}

const INSPECT: [&str; 5] = ["inspect", "--type", "container", "--format", "{{json .State}}"];

/// Agents end with 0 for on and 2 for off; 2 is also their word for bad arguments, so the line counts too.
fn agent_power(code: Option<i32>, ran: &Ran) -> Power {
    let says = |word: &str| ran.out.lines().any(|line| line.trim().eq_ignore_ascii_case(word));
    match code {
        Some(2) if says("status: off") => Power::Off,
        Some(0) if says("status: on") => Power::On,
        _ => Power::Else(format!("{} ({})", ran.said(), ran.status)),
    }
}

#[derive(Deserialize)]
struct Reply {
    state: String,
    #[serde(default)]
    message: String,
}

fn word_power(success: bool, ran: &Ran) -> Power {
    let line = ran.last_line();
    let (state, message) = match serde_json::from_str::<Reply>(line) {
        Ok(reply) => (reply.state, reply.message),
        Err(_) => (line.to_owned(), String::new()),
    };
    match (success, state.as_str()) {
        (true, "off") => Power::Off,
        (true, "on") => Power::On,
        _ if message.is_empty() => Power::Else(format!("{} ({})", ran.said(), ran.status)),
        _ => Power::Else(format!("{state}: {message} ({})", ran.status)),
    }
}

fn domain_power(ran: &Ran) -> Power {
    match (ran.status.success(), ran.last_line()) {
        (true, "shut off") => Power::Off,
        (true, "running") => Power::On,
        _ => Power::Else(format!("{} ({})", ran.said(), ran.status)),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerState {
    status: String,
    running: bool,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    restarting: bool,
    #[serde(default)]
    pid: i64,
}

fn container_power(ran: &Ran) -> Power {
    let Ok(state) = serde_json::from_str::<ContainerState>(ran.last_line()) else {
        return Power::Else(format!("{} ({})", ran.said(), ran.status));
    };
    let still = !state.running && !state.paused && !state.restarting && state.pid == 0;
    match (ran.status.success(), state.status.as_str()) {
        (true, "exited") if still => Power::Off,
        (true, "running") if state.running && !state.paused => Power::On,
        (_, status) => Power::Else(format!("the engine says {status}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ran(code: i32, out: &str) -> Ran {
        Ran { status: ExitStatus::from_raw(code << 8), out: out.to_owned(), err: String::new() }
    }

    #[test]
    fn an_agent_reads_off_only_by_its_code_and_its_word() {
        let power = |code, out| agent_power(Some(code), &ran(code, out));
        assert_eq!(power(2, "Status: OFF\n"), Power::Off);
        assert_eq!(power(0, "Status: ON\n"), Power::On);
        for (code, out) in
            [(2, "Parse error"), (0, "Status: OFF"), (1, "Status: OFF"), (2, "Status: UNKNOWN"), (2, "")]
        {
            assert!(matches!(power(code, out), Power::Else(_)), "{code} {out}");
        }
    }

    #[test]
    fn a_program_answers_by_a_word_or_by_json() {
        let power = |code, out| word_power(code == 0, &ran(code, out));
        assert_eq!(power(0, "switching\noff\n"), Power::Off);
        assert_eq!(power(0, r#"{"state": "off"}"#), Power::Off);
        assert_eq!(power(0, r#"{"state": "on", "message": "fan"}"#), Power::On);
        for (code, out) in
            [(1, "off"), (0, "OFF?"), (0, r#"{"state": "unknown"}"#), (0, "off\non it"), (0, "")]
        {
            assert!(matches!(power(code, out), Power::Else(_)), "{code} {out}");
        }
    }

    #[test]
    fn a_container_that_is_paused_restarting_or_gone_is_not_off() {
        let state = |status: &str, running, paused, restarting, pid| {
            format!(
                r#"{{"Status":"{status}","Running":{running},"Paused":{paused},"Restarting":{restarting},"Pid":{pid}}}"#
            )
        };
        let power = |code, out: &str| container_power(&ran(code, out));
        assert_eq!(power(0, &state("exited", false, false, false, 0)), Power::Off);
        assert_eq!(power(0, &state("running", true, false, false, 9)), Power::On);
        for other in [
            state("paused", true, true, false, 9),
            state("restarting", false, false, true, 0),
            state("created", false, false, false, 0),
            state("removing", false, false, false, 0),
            state("exited", false, false, false, 9),
            "Error: No such container: n1".to_owned(),
        ] {
            assert!(matches!(power(0, &other), Power::Else(_)), "{other}");
        }
        assert!(matches!(power(1, &state("exited", false, false, false, 0)), Power::Else(_)));
    }

    #[test]
    fn a_domain_is_off_only_when_it_is_shut_off() {
        assert_eq!(domain_power(&ran(0, "shut off\n\n")), Power::Off);
        assert_eq!(domain_power(&ran(0, "running\n")), Power::On);
        for (code, out) in
            [(0, "paused"), (0, "crashed"), (0, "in shutdown"), (0, "pmsuspended"), (1, "shut off")]
        {
            assert!(matches!(domain_power(&ran(code, out)), Power::Else(_)), "{out}");
        }
    }

    #[test]
    fn each_engine_is_asked_in_its_own_words() {
        let words = guest_words(GuestEngine::Virsh, Verb::Off, "n1", Some("qemu:///system"));
        assert_eq!(words.join(" "), "--connect qemu:///system destroy n1");
        let words = guest_words(GuestEngine::Docker, Verb::Status, "n1", None);
        assert_eq!(words.join(" "), "inspect --type container --format {{json .State}} n1");
        assert_eq!(guest_words(GuestEngine::Podman, Verb::On, "n1", None).join(" "), "start n1");
    }
}

//! How a node can be fenced: the methods that its file names, what each needs on the node that does the
//! deed, and their words for people. Secrets are never here, only the names of the files that hold them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::units::Millis;

/// The levels of a node, tried one after the other; all methods of a level have to succeed.
pub type FenceLevels = Vec<Vec<FenceMethod>>;

/// One way to fence a node. It is carried out by another node, so everything it names is looked up there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceMethod {
    /// For people, such as `ipmi`.
    pub name: String,
    /// What is asked, and how.
    pub device: FenceDevice,
    /// Off, or off and on again once the whole level is proven off.
    pub action: FenceAction,
    /// For each call; the power state is read back for as long again.
    pub timeout: Millis,
    /// How often before the next level.
    pub attempts: u32,
    /// Waited before each deed.
    pub delay: Millis,
}

/// What a method leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceAction {
    /// The node stays off until somebody switches it on.
    Off,
    /// It is switched on again after it was proven off.
    Reboot,
}

/// What can take a node's power, and say whether it has any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FenceDevice {
    /// A ClusterLabs fence agent, told by `key=value` lines on its stdin.
    Agent {
        /// Such as `fence_ipmilan`, or a path.
        agent: String,
        /// What it is told besides the action.
        parameters: BTreeMap<String, String>,
        /// A file of mode 0600 on each node that may fence; its content is the parameter `password`.
        password_file: Option<String>,
    },
    /// Any program, called as `COMMAND.. off|on|status` and told the same as JSON on its stdin. `status` says
    /// `off` or `{"state": "off"}` in its last line and ends with 0 when nothing of the node can run.
    Exec {
        /// Program and first arguments.
        command: Vec<String>,
        /// What it is told besides.
        parameters: BTreeMap<String, String>,
        /// As for agents.
        password_file: Option<String>,
    },
    /// The engine of a node that is a guest itself.
    Guest {
        /// Which engine.
        engine: GuestEngine,
        /// The guest's name there.
        guest: String,
        /// Where the engine is, in its own words; its default where it is not said.
        connect: Option<String>,
    },
}

/// Engines whose guests can be nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestEngine {
    /// Containers of Docker.
    Docker,
    /// Containers of Podman.
    Podman,
    /// Domains of libvirt.
    Virsh,
}

impl GuestEngine {
    /// Its program and its key in a node's file.
    pub fn program(self) -> &'static str {
        match self {
            GuestEngine::Docker => "docker",
            GuestEngine::Podman => "podman",
            GuestEngine::Virsh => "virsh",
        }
    }
}

impl FenceMethod {
    /// A management controller that does not answer within this is taken for dead.
    pub const STANDARD_TIMEOUT: Millis = Millis(3_000);
    /// One more than one: a controller may be busy.
    pub const STANDARD_ATTEMPTS: u32 = 2;

    /// A device with everything else as it is where nothing is said.
    pub fn of(device: FenceDevice) -> Self {
        Self {
            name: device.words(),
            device,
            action: FenceAction::Off,
            timeout: Self::STANDARD_TIMEOUT,
            attempts: Self::STANDARD_ATTEMPTS,
            delay: Millis(0),
        }
    }

    /// A program that needs no arguments.
    pub fn of_program(program: &str) -> Self {
        Self::of(FenceDevice::Exec {
            command: vec![program.to_owned()],
            parameters: BTreeMap::new(),
            password_file: None,
        })
    }

    /// What it does and how long it tries, in words.
    pub fn words(&self) -> String {
        let Self { name, action, timeout, attempts, .. } = self;
        let device = self.device.words();
        let named = if *name == device { device } else { format!("{name}: {device}") };
        let action = match action {
            FenceAction::Off => "off",
            FenceAction::Reboot => "off and on",
        };
        let times = if *attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
        format!("{named}, {action} (up to {times}, {} a call)", timeout.human())
    }

    /// The longest one attempt can take: the delay, the deed, and reading back what came of it.
    pub fn longest_attempt(&self) -> Millis {
        Millis(self.delay.0.saturating_add(self.timeout.0.saturating_mul(2)))
    }

    /// The longest all of its attempts can take.
    pub fn longest(&self) -> Millis {
        Millis(self.longest_attempt().0.saturating_mul(u64::from(self.attempts)))
    }

    /// What has to be there on the node that does the deed.
    pub fn needs(&self) -> Vec<FenceTool> {
        let password = |file: &Option<String>| file.clone().map(FenceTool::PasswordFile);
        match &self.device {
            FenceDevice::Agent { agent, parameters, password_file } => {
                let mut parameters: BTreeSet<String> = parameters.keys().cloned().collect();
                if password_file.is_some() {
                    parameters.insert(PASSWORD.to_owned());
                }
                let tool = FenceTool::Agent { agent: agent.clone(), parameters };
                std::iter::once(tool).chain(password(password_file)).collect()
            }
            FenceDevice::Exec { command, password_file, .. } => {
                let program = command.first().cloned().unwrap_or_default();
                std::iter::once(FenceTool::Program(program)).chain(password(password_file)).collect()
            }
            FenceDevice::Guest { engine, .. } => vec![FenceTool::Program(engine.program().to_owned())],
        }
    }
}

/// The parameter that a password file is given as.
pub const PASSWORD: &str = "password";

impl FenceDevice {
    /// What is asked, in a word or two.
    pub fn words(&self) -> String {
        match self {
            FenceDevice::Agent { agent, .. } => file_name(agent).to_owned(),
            FenceDevice::Exec { command, .. } => {
                command.first().map_or("?", |program| file_name(program)).to_owned()
            }
            FenceDevice::Guest { engine, guest, .. } => format!("{} {guest}", engine.program()),
        }
    }

    /// `agent`, `exec`, `docker`, ...: as in a node's file.
    pub fn kind(&self) -> &'static str {
        match self {
            FenceDevice::Agent { .. } => "agent",
            FenceDevice::Exec { .. } => "exec",
            FenceDevice::Guest { engine, .. } => engine.program(),
        }
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Something that a method needs where it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FenceTool {
    /// A fence agent that knows these parameters.
    Agent {
        /// Which.
        agent: String,
        /// Their names.
        parameters: BTreeSet<String>,
    },
    /// A program.
    Program(String),
    /// A file that only its owner can read.
    PasswordFile(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_says_what_it_needs_and_names_no_values() {
        let method = FenceMethod {
            name: "ipmi".to_owned(),
            device: FenceDevice::Agent {
                agent: "/usr/sbin/fence_ipmilan".to_owned(),
                parameters: BTreeMap::from([("ip".to_owned(), "10.0.0.9".to_owned())]),
                password_file: Some("/etc/quorate/bmc".to_owned()),
            },
            action: FenceAction::Reboot,
            timeout: Millis(3_000),
            attempts: 2,
            delay: Millis(500),
        };
        let parameters = BTreeSet::from(["ip".to_owned(), "password".to_owned()]);
        let agent = "/usr/sbin/fence_ipmilan".to_owned();
        let needs =
            [FenceTool::Agent { agent, parameters }, FenceTool::PasswordFile("/etc/quorate/bmc".to_owned())];
        assert_eq!(method.needs(), needs);
        assert_eq!(method.words(), "ipmi: fence_ipmilan, off and on (up to 2 attempts, 3 s a call)");
        assert_eq!((method.longest_attempt(), method.longest()), (Millis(6_500), Millis(13_000)));
    }
}

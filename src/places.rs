//! Where nodes and demos leave word of themselves on this host.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What a demo says of itself in `demo.json`, and on stdout when it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoFile {
    /// The form of this file.
    pub schema: u32,
    /// The demo's directory.
    pub dir: PathBuf,
    /// Every node's API address.
    pub endpoints: Vec<String>,
    /// Every node's HTTP address.
    pub http: Vec<String>,
    /// The nodes.
    pub nodes: Vec<DemoNode>,
    /// The services it deployed.
    pub services: Vec<String>,
}

/// One node of a demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoNode {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Its guard's process.
    pub guard_pid: u32,
    /// Its API address.
    pub endpoint: String,
}

impl DemoFile {
    /// The demo of a directory, if there is one.
    pub fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        read_json(&dir.join("demo.json"))
    }

    /// The data directory of one of its nodes.
    pub fn node_dir(dir: &Path, node: &str) -> PathBuf {
        dir.join("nodes").join(node)
    }
}

/// The part of `node.lock` that a client needs.
#[derive(Debug, Clone, Deserialize)]
pub struct LockNote {
    /// The process.
    pub pid: u32,
    /// The node's name.
    pub node: String,
    /// The API address.
    pub grpc: String,
}

impl LockNote {
    /// Who holds a data directory, or last held it.
    pub fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        read_json(&dir.join("node.lock"))
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The state folder of this account's Quorate: `$XDG_STATE_HOME/quorate`.
fn state_home() -> PathBuf {
    let home = directories::ProjectDirs::from("", "", "quorate");
    home.as_ref()
        .and_then(|dirs| dirs.state_dir())
        .map_or_else(|| std::env::temp_dir().join("quorate"), Path::to_path_buf)
}

/// The config folder of this account's Quorate, if it has a home: `$XDG_CONFIG_HOME/quorate`.
pub fn config_home() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "quorate").map(|dirs| dirs.config_dir().to_path_buf())
}

/// Is this a node's data directory?
pub fn holds_node(dir: &Path) -> bool {
    dir.join("identity").exists()
}

/// The data directory of a node started without a config.
pub fn default_data_dir() -> PathBuf {
    state_home().join("node")
}

/// The directory of a demo started without `--dir`.
pub fn default_demo_dir() -> PathBuf {
    state_home().join("demo")
}

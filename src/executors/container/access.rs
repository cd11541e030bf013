//! Where an engine is reached, and what it is there. Only over a socket of this host: what an engine elsewhere
//! runs, this node's guard could not end.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use quorate_core::observation::Unavailable;
use quorate_core::spec::ContainerEngine;
use serde::Deserialize;

use super::plain;
use crate::ports::{EngineFact, Placing};

/// An engine that does not begin to answer for so long is given up; callers have less patience for most.
const PATIENCE_S: u64 = 600;
/// What an engine said of itself is asked anew after this, or with a new socket.
const FRESH: Duration = Duration::from_secs(60);

/// Where to look for an engine, and with which credentials it fetches images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Sockets, in the order they are tried in.
    pub sockets: Vec<PathBuf>,
    /// An engine elsewhere that the environment names.
    pub remote: Option<String>,
    /// Files with the credentials of registries; the first that knows one is taken.
    pub credentials: Vec<PathBuf>,
}

impl Access {
    /// As this process's environment says.
    pub fn from_environment(engine: ContainerEngine) -> Self {
        Self::from(engine, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from(engine: ContainerEngine, variable: impl Fn(&str) -> Option<String>) -> Self {
        let home = variable("HOME").map(PathBuf::from);
        let of_home = |path: &str| home.iter().map(|home| home.join(path)).collect::<Vec<_>>();
        let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
        let (named, known, files) = match engine {
            ContainerEngine::Docker => {
                let folder =
                    variable("DOCKER_CONFIG").map(|folder| PathBuf::from(folder).join("config.json"));
                let files = folder.map_or_else(|| of_home(".docker/config.json"), |file| vec![file]);
                let known = vec![PathBuf::from("/run/docker.sock"), PathBuf::from("/var/run/docker.sock")];
                (variable("DOCKER_HOST"), known, files)
            }
            ContainerEngine::Podman => {
                let mut known = vec![PathBuf::from("/run/podman/podman.sock")];
                known.extend(runtime.iter().map(|folder| folder.join("podman/podman.sock")));
                let mut files: Vec<PathBuf> =
                    variable("REGISTRY_AUTH_FILE").map(PathBuf::from).into_iter().collect();
                files.extend(runtime.iter().map(|folder| folder.join("containers/auth.json")));
                files.extend(of_home(".config/containers/auth.json"));
                files.extend(of_home(".docker/config.json"));
                (variable("CONTAINER_HOST"), known, files)
            }
        };
        let local = named.as_deref().and_then(|named| named.strip_prefix("unix://")).map(PathBuf::from);
        Self {
            remote: named.filter(|_| local.is_none()),
            // One that is named is the only one: another engine would not know what that one runs.
            sockets: local.map_or(known, |named| vec![named]),
            credentials: files,
        }
    }
}

/// The account that a rootless engine runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Limits that an engine can keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keeps {
    pub(super) cpu: bool,
    pub(super) memory: bool,
    pub(super) pids: bool,
    pub(super) io: bool,
}

/// An engine that answers.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    pub(super) engine: ContainerEngine,
    pub(super) docker: Docker,
    pub(super) socket: PathBuf,
    /// Who answers there: another engine makes another socket.
    identity: Identity,
    asked: Instant,
    pub(super) version: String,
    /// Does it keep control groups through systemd?
    pub(super) slice: bool,
    /// Set for an engine without root's rights.
    pub(super) rootless: Option<Owner>,
    pub(super) keeps: Keeps,
    /// Where it keeps what containers write.
    pub(super) root: PathBuf,
}

type Identity = (u64, u64, i64, i64);

fn identity(socket: &Path) -> std::io::Result<Identity> {
    let found = std::fs::metadata(socket)?;
    Ok((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    components: Option<Vec<Component>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Info {
    cgroup_driver: String,
    cgroup_version: String,
    security_options: Option<Vec<String>>,
    rootless: bool,
    docker_root_dir: String,
    memory_limit: bool,
    pids_limit: bool,
    cpu_cfs_quota: bool,
}

pub(super) fn name(engine: ContainerEngine) -> &'static str {
    match engine {
        ContainerEngine::Docker => "docker",
        ContainerEngine::Podman => "podman",
    }
}

impl Reached {
    /// Is the same engine there still? Asks it for a word.
    pub(super) async fn still(&self) -> bool {
        self.asked.elapsed() < FRESH
            && identity(&self.socket).is_ok_and(|now| now == self.identity)
            && self.docker.ping().await.is_ok()
    }

    pub(super) fn fact(&self) -> EngineFact {
        let mut capabilities = vec!["adopt".to_owned(), "logs".to_owned(), "exec".to_owned()];
        let keeps = self.keeps;
        for (kept, limit) in
            [(keeps.cpu, "cpu"), (keeps.memory, "memory"), (keeps.pids, "pids"), (keeps.io, "io")]
        {
            if kept {
                capabilities.push(format!("limit:{limit}"));
            }
        }
        if self.rootless.is_some() {
            capabilities.push(if keeps.memory { "rootless_limits" } else { "rootless" }.to_owned());
        }
        if self.rootless.is_none() || keeps.memory {
            capabilities.push("pause".to_owned());
        }
        let beyond = self.rootless.map(|owner| {
            let name = name(self.engine);
            format!(
                "rootless {name} runs in control groups of account {}, not in one of the guard",
                owner.uid
            )
        });
        let placing = Placing { slice: self.slice, beyond };
        EngineFact { version: self.version.clone(), capabilities, placing }
    }
}

/// Tries each socket; the first engine of the kind that answers.
pub(super) async fn reach(engine: ContainerEngine, access: &Access) -> Result<Reached, Unavailable> {
    let kind = name(engine);
    if let Some(remote) = &access.remote {
        return Err(Unavailable {
            why: format!(
                "{kind} is on another host ({remote}), where this node's guard cannot end what it runs"
            ),
            remedy: "run the node on the engine's host, or name a unix:// socket".to_owned(),
        });
    }
    let (mut seen, mut wrong): (Vec<PathBuf>, Option<Unavailable>) = (Vec::new(), None);
    for socket in &access.sockets {
        let Ok(real) = socket.canonicalize() else { continue };
        if seen.contains(&real) {
            continue;
        }
        seen.push(real);
        match ask(engine, socket).await {
            Ok(reached) => return Ok(reached),
            Err(why) => wrong = wrong.or(Some(why)),
        }
    }
    Err(wrong.unwrap_or_else(|| {
        let sockets: Vec<String> = access.sockets.iter().map(|one| one.display().to_string()).collect();
        Unavailable {
            why: format!("no {kind} here: there is no {}", sockets.join(", no ")),
            remedy: match engine {
                ContainerEngine::Docker => "install and start docker on this host".to_owned(),
                ContainerEngine::Podman => {
                    "install podman on this host and start its service: systemctl enable --now podman.socket"
                        .to_owned()
                }
            },
        }
    }))
}

/// The newest version of the interface that both sides know. Found out by the one question that was asked anyway:
/// Podman takes a third of a second for each.
fn spoken(version: &Version) -> ClientVersion {
    let newest = API_DEFAULT_VERSION;
    let number = |text: &str| text.parse::<usize>().ok();
    match version.api_version.split_once('.').map(|(major, minor)| (number(major), number(minor))) {
        Some((Some(major_version), Some(minor_version)))
            if (major_version, minor_version) < (newest.major_version, newest.minor_version) =>
        {
            ClientVersion { major_version, minor_version }
        }
        _ => ClientVersion { major_version: newest.major_version, minor_version: newest.minor_version },
    }
}

async fn ask(engine: ContainerEngine, socket: &Path) -> Result<Reached, Unavailable> {
    let kind = name(engine);
    let unusable = |why: String| {
        let denied = why.contains("ermission denied");
        Unavailable {
            why: format!("{kind} does not answer: {why}"),
            remedy: if denied {
                format!("let the node's account use {}, or run the node as root", socket.display())
            } else {
                format!("start {kind} again on this host; its own log says why it does not answer")
            },
        }
    };
    let identity = identity(socket).map_err(|error| unusable(error.to_string()))?;
    let version: Version = plain::get(socket, "/version").await.map_err(|why| unusable(why.words()))?;
    let podman = version.components.iter().flatten().any(|part| part.name == "Podman Engine");
    if podman != (engine == ContainerEngine::Podman) {
        let other = if podman { "podman" } else { "docker" };
        return Err(Unavailable {
            why: format!("{other} answers at {}, not {kind}", socket.display()),
            remedy: format!("give the service executor: {other}, or start {kind} too"),
        });
    }
    let info: Info = plain::get(socket, "/info").await.map_err(|why| unusable(why.words()))?;
    let docker = Docker::connect_with_unix(&socket.display().to_string(), PATIENCE_S, &spoken(&version))
        .map_err(|error| unusable(error.to_string()))?;
    let found = std::fs::metadata(socket).map_err(|error| unusable(error.to_string()))?;
    let said = info.rootless || info.security_options.iter().flatten().any(|one| one.contains("rootless"));
    let rootless = (said || found.uid() != 0).then_some(Owner { uid: found.uid(), gid: found.gid() });
    let version2 = info.cgroup_version == "2";
    // On version 1 an account may make no control groups, whatever its engine says.
    let any = rootless.is_none() || (version2 && info.cgroup_driver == "systemd");
    let keeps = Keeps {
        cpu: any && info.cpu_cfs_quota,
        memory: any && info.memory_limit,
        pids: any && info.pids_limit,
        io: rootless.is_none(),
    };
    Ok(Reached {
        engine,
        docker,
        socket: socket.to_path_buf(),
        identity,
        asked: Instant::now(),
        version: version.version.split(['+', '~']).next().unwrap_or_default().to_owned(),
        slice: info.cgroup_driver == "systemd" && rootless.is_none(),
        rootless,
        keeps,
        root: PathBuf::from(info.docker_root_dir),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_those_of_this_host_alone() {
        let of = |engine, set: &[(&str, &str)]| {
            let set: Vec<(String, String)> =
                set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Access::from(engine, |name| Some(set.iter().find(|(one, _)| one == name)?.1.clone()))
        };
        let docker = of(ContainerEngine::Docker, &[("DOCKER_HOST", "unix:///a/b"), ("HOME", "/h")]);
        assert_eq!(docker.sockets[0], Path::new("/a/b"));
        assert_eq!(docker.credentials, [PathBuf::from("/h/.docker/config.json")]);
        assert_eq!(docker.remote, None);
        let remote = of(ContainerEngine::Docker, &[("DOCKER_HOST", "tcp://far:2375")]);
        assert_eq!(remote.remote.as_deref(), Some("tcp://far:2375"));
        let podman = of(ContainerEngine::Podman, &[("XDG_RUNTIME_DIR", "/run/user/7")]);
        assert_eq!(podman.sockets[1], Path::new("/run/user/7/podman/podman.sock"));
    }
}

//! Engines for the contract: the machine's Docker, and Podman services that a test starts for itself, each with an
//! image made of busybox, so that no registry is needed. All of it ends with the test.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bollard::query_parameters::{ListContainersOptions, RemoveContainerOptions, RemoveImageOptions};
use bollard::{API_DEFAULT_VERSION, Docker};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use quorate::executors::{Access, Containers};
use quorate::host::Account;
use quorate_core::spec::ContainerEngine;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::rig::{PATIENCE, needs, signal_process};

/// The account that a rootless engine runs as.
const ROOTLESS: &str = "quorate-rootless";

/// What the contract is kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Process,
    Docker,
    Podman,
    Rootless,
}

impl Kind {
    pub fn engine(self) -> Option<ContainerEngine> {
        match self {
            Kind::Process => None,
            Kind::Docker => Some(ContainerEngine::Docker),
            Kind::Podman | Kind::Rootless => Some(ContainerEngine::Podman),
        }
    }
}

/// An engine with an image.
pub struct Engine {
    pub kind: Kind,
    pub socket: PathBuf,
    pub image: String,
    pub docker: Docker,
    service: Option<Service>,
}

/// A daemon of the test's own, in a process group of its own.
pub struct Service {
    child: Child,
    folder: TempDir,
}

impl Service {
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        // Who keeps a rootless engine's namespaces is in no group of its.
        if let Ok(pid) = std::fs::read_to_string(self.folder.path().join("tmp/pause.pid"))
            && let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        let below = self.folder.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut mounts: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
        mounts.retain(|path| path.starts_with(&below));
        for path in mounts.into_iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(path).status();
        }
    }
}

fn there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

fn busybox() -> bool {
    Path::new("/bin/busybox").exists()
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Engine {
    /// The engine of that kind, if this host has one.
    pub async fn begin(kind: Kind) -> Option<Self> {
        let root = rustix::process::getuid().is_root();
        match kind {
            Kind::Process => None,
            Kind::Docker => {
                let socket = PathBuf::from("/run/docker.sock");
                let answers =
                    busybox() && socket.exists() && ask(&socket, "GET", "/_ping", Vec::new()).await.is_ok();
                if !needs("docker", answers) {
                    return None;
                }
                Some(Self::with_image(kind, socket, None).await)
            }
            Kind::Podman => {
                if !needs("podman", root && busybox() && there("podman") && there("runc")) {
                    return None;
                }
                let service = podman(None);
                let socket = service.folder.path().join("podman.sock");
                Some(Self::with_image(kind, socket, Some(service)).await)
            }
            Kind::Rootless => {
                let account = Account::find(ROOTLESS).ok().flatten();
                let tools = ["podman", "runc", "slirp4netns", "newuidmap"].into_iter().all(there);
                let ready = root && busybox() && tools && account.is_some();
                if !needs("podman-rootless", ready) {
                    return None;
                }
                let service = podman(account.as_ref());
                let socket = service.folder.path().join("podman.sock");
                Some(Self::with_image(kind, socket, Some(service)).await)
            }
        }
    }

    /// A Docker of the test's own, that it may kill.
    pub async fn own_docker() -> Option<Self> {
        let root = rustix::process::getuid().is_root();
        if !needs("docker", root && busybox() && there("dockerd") && Path::new("/run/docker.sock").exists()) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let service = Service { child: dockerd(folder.path()), folder };
        let socket = service.folder.path().join("docker.sock");
        Some(Self::with_image(Kind::Docker, socket, Some(service)).await)
    }

    async fn with_image(kind: Kind, socket: PathBuf, service: Option<Service>) -> Self {
        answers(&socket).await;
        let image = format!("localhost/quorate-test/busybox:{}", unique());
        let docker = Docker::connect_with_unix(socket.to_str().unwrap(), 60, API_DEFAULT_VERSION).unwrap();
        let docker = docker.negotiate_version().await.unwrap();
        let engine = Self { kind, socket, image, docker, service };
        engine.import(&engine.image, &["ENV PATH=/bin"]).await;
        engine
    }

    /// Makes a further image, which goes with the engine's own: they share a name up to the tag.
    pub async fn import(&self, image: &str, changes: &[&str]) {
        let (name, tag) = image.rsplit_once(':').unwrap();
        let changes: String = changes.iter().map(|change| format!("&changes={}", escaped(change))).collect();
        let path = match self.kind {
            // Podman's imitation of the other loses the name.
            Kind::Podman | Kind::Rootless => {
                format!("/v4.0.0/libpod/images/import?reference={}{changes}", escaped(image))
            }
            Kind::Docker | Kind::Process => {
                format!("/images/create?fromSrc=-&repo={}&tag={tag}{changes}", escaped(name))
            }
        };
        ask(&self.socket, "POST", &path, root_tar()).await.unwrap();
    }

    pub fn access(&self) -> Access {
        Access { sockets: vec![self.socket.clone()], remote: None, credentials: Vec::new() }
    }

    pub fn executor(&self) -> Arc<Containers> {
        Arc::new(Containers::new(self.kind.engine().unwrap(), self.access()))
    }

    /// The names of an owner's containers.
    pub async fn names(&self, owner: &str) -> Vec<String> {
        let filters = [("label".to_owned(), vec![format!("quorate.owner={owner}")])];
        let options = ListContainersOptions {
            all: true,
            filters: Some(filters.into()),
            ..ListContainersOptions::default()
        };
        let listed = self.docker.list_containers(Some(options)).await.unwrap();
        listed.into_iter().flat_map(|one| one.names.unwrap_or_default()).collect()
    }

    /// To the daemon of the test's own, and nobody it started.
    pub fn signal(&self, signal: Signal) {
        signal_process(self.service.as_ref().unwrap().child.id(), signal);
    }

    /// Kills the test's own Docker and starts it again over the same folders.
    pub async fn restart(&mut self) {
        let service = self.service.as_mut().unwrap();
        let _ = service.child.kill();
        let _ = service.child.wait();
        // Its containerd died with it; a new one that finds either's number on disk waits for it.
        for left in ["pid", "exec/containerd/containerd.pid", "exec/containerd/containerd.sock"] {
            let _ = std::fs::remove_file(service.folder.path().join(left));
        }
        service.child = dockerd(service.folder.path());
        answers(&self.socket).await;
    }

    /// Takes away what a test left.
    pub async fn clean(&self, owner: &str) {
        let options = || Some(RemoveContainerOptions { force: true, v: true, link: false });
        for name in self.names(owner).await {
            let _ = self.docker.remove_container(name.trim_start_matches('/'), options()).await;
        }
        let options = RemoveImageOptions { force: true, ..RemoveImageOptions::default() };
        let _ = self.docker.remove_image(&self.image, Some(options), None).await;
    }
}

async fn answers(socket: &Path) {
    crate::rig::until(&format!("{} answers", socket.display()), async || {
        ask(socket, "GET", "/_ping", Vec::new()).await.ok()
    })
    .await;
}

/// With live restore: without it a Docker that comes back ends what ran.
fn dockerd(folder: &Path) -> Child {
    let path = |name: &str| folder.join(name).display().to_string();
    let log = std::fs::File::options().create(true).append(true).open(folder.join("dockerd.log")).unwrap();
    // The host's own settings are for the host's own Docker.
    std::fs::write(folder.join("daemon.json"), "{}").unwrap();
    // On a host network of its own: a Docker that is to have no bridge takes away the one it finds, and that may
    // be the host's own Docker's.
    let mut command = Command::new("unshare");
    command
        .args(["--net", "dockerd"])
        .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
        .args(["-H", &format!("unix://{}", path("docker.sock")), "--live-restore"])
        .args(["--config-file", &path("daemon.json")])
        .args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command.spawn().unwrap()
}

/// A Podman service with everything in a folder of its own, as that account or as root.
fn podman(account: Option<&Account>) -> Service {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().canonicalize().unwrap();
    std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| at.join(name).display().to_string();
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(1 << 20);
    // Without systemd: groups by path, events to a file. The usual limits on files are more than some hosts give.
    let settings = format!(
        "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\nlock_type = \"file\"\ntmp_dir = \"{}\"\n\
         [network]\nnetwork_backend = \"netavark\"\n\
         [containers]\ndefault_ulimits = [\"nofile={files}:{files}\", \"nproc=32768:32768\"]\n",
        path("tmp"),
    );
    std::fs::write(at.join("containers.conf"), settings).unwrap();
    let storage = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
        path("root"),
        path("runroot"),
    );
    std::fs::write(at.join("storage.conf"), storage).unwrap();
    for name in ["tmp", "run", "home"] {
        std::fs::create_dir(at.join(name)).unwrap();
    }
    let log = std::fs::File::create(at.join("podman.log")).unwrap();
    let mut command = Command::new("setpriv");
    if let Some(account) = account {
        for name in ["", "tmp", "run", "home"] {
            std::os::unix::fs::chown(at.join(name), Some(account.uid), Some(account.gid)).unwrap();
        }
        command.args(["--init-groups", "--reuid", &account.name, "--regid", &account.gid.to_string()]);
        command.env("USER", &account.name);
    } else {
        command.args(["--pdeathsig", "TERM"]);
    }
    command
        .args(["podman", "--root", &path("root"), "--runroot", &path("runroot")])
        .args(["system", "service", "--time=0", &format!("unix://{}", path("podman.sock"))])
        .env("HOME", path("home"))
        .env("XDG_RUNTIME_DIR", path("run"))
        .env("CONTAINERS_CONF", path("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", path("storage.conf"))
        .current_dir(path("tmp"))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Service { child: command.spawn().unwrap(), folder }
}

/// A small root file system with busybox under the names that tests use.
fn root_tar() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "www"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in
        ["sh", "sleep", "head", "tr", "cat", "httpd", "env", "echo", "true", "false", "ls", "id", "usleep"]
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nweb:x:1000:1000:web:/:/bin/sh\n")
        .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:1000:\n").unwrap();
    std::fs::write(root.join("www/index.html"), "here\n").unwrap();
    let made = Command::new("tar")
        .args(["--owner=0", "--group=0", "-C"])
        .arg(&root)
        .args(["-cf", "-", "."])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

/// One plain question over a socket; the answer's text, as an error if it refuses.
async fn ask(socket: &Path, method: &str, path: &str, body: Vec<u8>) -> Result<String, String> {
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driving = tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "engine")
        .header("content-type", "application/x-tar")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    driving.abort();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if status.is_success() && !text.contains("\"errorDetail\"") {
        Ok(text)
    } else {
        Err(format!("{path}: {text}"))
    }
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

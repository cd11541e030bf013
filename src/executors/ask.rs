//! One probe of one instance: HTTP, TCP, a program, or the standard gRPC health service. The words it returns
//! are for people. Does not know what follows from them.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use quorate_core::effect::StartInstance;
use quorate_core::ids::NodeId;
use quorate_core::spec::{HealthCheck, HealthProbe, Workload};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::host::Account;
use crate::layout::{Layout, environment};
use crate::ports::{Executor, RunId};

/// Instances are asked where they run.
const LOOPBACK: &str = "127.0.0.1";

/// An instance that is asked.
#[derive(Clone)]
pub struct Asked {
    /// The node's folders.
    pub layout: Layout,
    /// The node.
    pub node: NodeId,
    /// How it was started.
    pub start: StartInstance,
    /// Which run of it.
    pub run: RunId,
    /// Whose it is with its engine.
    pub owner: String,
    /// Its engine, if it has one.
    pub engine: Option<Arc<dyn Executor>>,
}

/// Asks once, for at most the check's time-out.
pub async fn ask(place: &Asked, check: &HealthCheck) -> Result<String, String> {
    let asked = async {
        match &check.probe {
            HealthProbe::Http { port, path } => http(*port, path).await,
            HealthProbe::Tcp { port } => connect(*port).await.map(|_| "connected".to_owned()),
            HealthProbe::Exec { command } => match (&place.engine, &place.start.spec.workload) {
                (Some(engine), Workload::Container(_) | Workload::Machine(_)) => {
                    engine.exec(&place.owner, &place.run, command).await
                }
                _ => exec(place, command).await,
            },
            HealthProbe::Grpc { port, service } => grpc(*port, service).await,
        }
    };
    let limit = Duration::from_millis(check.timeout.0);
    timeout(limit, asked).await.unwrap_or_else(|_| Err(format!("no answer within {}", check.timeout)))
}

async fn connect(port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((LOOPBACK, port)).await.map_err(|error| format!("port {port}: {error}"))
}

async fn http(port: u16, path: &str) -> Result<String, String> {
    let stream = connect(port).await?;
    let failed = |error: &dyn std::fmt::Display| format!("port {port}: {error}");
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let request = hyper::Request::get(path)
        .header("host", format!("{LOOPBACK}:{port}"))
        .header("connection", "close")
        .body(Empty::new())
        .map_err(|error| failed(&error))?;
    // Ends with the probe, also with one that is given up.
    let _driving = AbortOnDropHandle::new(tokio::spawn(connection));
    let status = sender.send_request(request).await.map_err(|error| failed(&error))?.status();
    if status.is_success() || status.is_redirection() {
        Ok(format!("{path} answered {}", status.as_u16()))
    } else {
        Err(format!("{path} answered {}", status.as_u16()))
    }
}

async fn grpc(port: u16, service: &str) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("port {port}: {error}");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{LOOPBACK}:{port}"))
        .map_err(|error| failed(&error))?;
    let channel = endpoint.connect().await.map_err(|error| failed(&error))?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel).check(request).await;
    let status = answer.map_err(|status| format!("port {port}: {}", status.message()))?.into_inner().status();
    match status {
        ServingStatus::Serving => Ok("serving".to_owned()),
        ServingStatus::Unknown | ServingStatus::NotServing | ServingStatus::ServiceUnknown => {
            Err(status.as_str_name().to_lowercase().replace('_', " "))
        }
    }
}

/// Ends the program with all it started when the probe is given up.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn exec(place: &Asked, command: &[String]) -> Result<String, String> {
    let [program, arguments @ ..] = command else { return Err("the command is empty".to_owned()) };
    let wanted = &place.start.spec.workload;
    let own = Account::own().map_err(|error| error.to_string())?;
    let account = match wanted.user() {
        None => own.clone(),
        Some(name) => Account::find(name)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("there is no account {name:?}"))?,
    };
    let folder = match wanted.working_dir() {
        Some(folder) => PathBuf::from(folder),
        None => place.layout.instance(&place.start.id.slot),
    };
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment(&place.layout, &place.node, &place.start, &account))
        .current_dir(folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if account.uid != own.uid {
        command.uid(account.uid).gid(account.gid);
    }
    let mut command = tokio::process::Command::from(command);
    let mut child =
        command.kill_on_drop(true).spawn().map_err(|error| format!("cannot run {program}: {error}"))?;
    let group = Group(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())));
    let status = child.wait().await.map_err(|error| error.to_string())?;
    drop(group);
    if status.success() { Ok(format!("{program} ended with 0")) } else { Err(format!("{program}: {status}")) }
}

//! Finds the cluster and keeps a connection to one of its nodes: the endpoints and the secret come from
//! options, from a node's data directory, or from a running demo. A node that does not answer is passed over.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use super::Global;
use crate::api::error::{ApiError, ErrorCode};
use crate::api::proto::WriteOptions;
use crate::places::{DemoFile, LockNote, default_data_dir, default_demo_dir};
use crate::transport::{Secret, WithSecret};

/// How long one node may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// A channel that carries the secret.
pub(super) type Connection = InterceptedService<Channel, WithSecret>;

/// A connection to whichever of the known nodes answers.
pub(super) struct Client {
    endpoints: Vec<String>,
    bearer: WithSecret,
    connected: Option<Connection>,
    id: String,
    sequence: u64,
}

impl Client {
    /// Works out whom to ask and with which secret; connects only at the first call.
    pub(super) fn find(global: &Global) -> Result<Self, ApiError> {
        let (endpoints, secret) = whom(global)?;
        Self::of(endpoints, secret)
    }

    /// To these nodes, with this secret.
    pub(super) fn of(endpoints: Vec<String>, secret: Option<String>) -> Result<Self, ApiError> {
        let secret = secret.map(|text| Secret::new(&text)).transpose().map_err(|error| {
            ApiError::new(ErrorCode::Usage, error.to_string(), "name the file as the node made it")
        })?;
        Ok(Self {
            endpoints,
            bearer: WithSecret::if_known(secret),
            connected: None,
            id: random_id(),
            sequence: 0,
        })
    }

    /// What goes with every write: who asks, and an id by which a retry is known.
    pub(super) fn write_options(&mut self) -> WriteOptions {
        self.sequence += 1;
        WriteOptions {
            request: Some(crate::api::proto::RequestId {
                client: self.id.clone(),
                sequence: self.sequence,
                settled: 0,
            }),
            operator: user(),
            from: format!("cli@{}", host_name()),
            expected_revision: 0,
        }
    }

    /// Calls one node after the other until one can be reached. Safe for writes: their request id makes
    /// a repeat harmless.
    pub(super) async fn call<T, F>(&mut self, call: impl Fn(Connection) -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut last = None;
        for _ in 0..self.endpoints.len().max(1) {
            let connection = self.connection().await?;
            match call(connection).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => {
                    let mut error = ApiError::from_status(&status);
                    // A connection that broke has a cause; what a node answers has none.
                    let cause = cause(&status);
                    if error.code != ErrorCode::Unreachable && cause.is_none() {
                        return Err(error);
                    }
                    if let Some(cause) = cause {
                        error.code = ErrorCode::Unreachable;
                        let asked = self.endpoints.first().map_or("the node", String::as_str);
                        error.message = format!("{asked} does not answer: {cause}");
                        "name another node with --endpoint HOST:PORT".clone_into(&mut error.remedy);
                    }
                    self.drop_current();
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| nobody(&self.endpoints)))
    }

    async fn connection(&mut self) -> Result<Connection, ApiError> {
        if let Some(connection) = &self.connected {
            return Ok(connection.clone());
        }
        let mut why = String::new();
        for endpoint in self.endpoints.clone() {
            match connect(&endpoint).await {
                Ok(channel) => {
                    let connection = InterceptedService::new(channel, self.bearer.clone());
                    self.connected = Some(connection.clone());
                    return Ok(connection);
                }
                Err(error) => {
                    why = format!("{endpoint}: {error:#}");
                    self.drop_current();
                }
            }
        }
        let mut error = nobody(&self.endpoints);
        if !why.is_empty() {
            error.message = format!("{} ({why})", error.message);
        }
        Err(error)
    }

    /// Moves on to the next node, such as when a stream of this one ended.
    pub(super) fn pass_on(&mut self) {
        self.drop_current();
    }

    /// Puts the node asked last behind the others.
    fn drop_current(&mut self) {
        self.connected = None;
        if !self.endpoints.is_empty() {
            self.endpoints.rotate_left(1);
        }
    }
}

/// What a broken connection broke of, in the innermost words there are.
fn cause(status: &Status) -> Option<String> {
    let mut error = std::error::Error::source(status)?;
    while let Some(inner) = error.source() {
        error = inner;
    }
    Some(error.to_string())
}

async fn connect(endpoint: &str) -> anyhow::Result<Channel> {
    let uri = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let channel = Endpoint::from_shared(uri)?
        .connect_timeout(CONNECT_WITHIN)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5));
    Ok(channel.connect().await?)
}

fn nobody(endpoints: &[String]) -> ApiError {
    let (message, remedy) = if endpoints.is_empty() {
        (
            "no node is known here".to_owned(),
            "start one with `quorate demo` or `quorate node --config FILE`, or name one with --endpoint HOST:PORT",
        )
    } else {
        (
            format!("no node answers at {}", endpoints.join(", ")),
            "check that it runs, or name another with --endpoint HOST:PORT",
        )
    };
    ApiError::new(ErrorCode::Unreachable, message, remedy)
}

/// Endpoints and secret as a directory has them.
#[derive(Default)]
struct Place {
    endpoints: Vec<String>,
    secret: Option<String>,
}

/// Whom to ask, and with which secret.
pub(super) fn whom(global: &Global) -> Result<(Vec<String>, Option<String>), ApiError> {
    let place = place(global)?;
    let endpoints = if global.endpoint.is_empty() { place.endpoints } else { global.endpoint.clone() };
    let secret = match &global.secret_file {
        Some(file) => Some(read_secret(file)?),
        None => place.secret,
    };
    Ok((endpoints, secret))
}

/// The first of these that has something: the directory named, the default node's, the default demo's.
fn place(global: &Global) -> Result<Place, ApiError> {
    if let Some(dir) = &global.data_dir {
        return read_place(dir)?.ok_or_else(|| {
            ApiError::new(
                ErrorCode::Unreachable,
                format!("{} is neither a node's data directory nor a demo's", dir.display()),
                "name the directory the node or the demo was started with",
            )
        });
    }
    for dir in [default_data_dir(), default_demo_dir()] {
        // Somebody else's directory is not a mistake as long as an endpoint is given.
        if let Ok(Some(place)) = read_place(&dir) {
            return Ok(place);
        }
    }
    Ok(Place::default())
}

fn read_place(dir: &Path) -> Result<Option<Place>, ApiError> {
    let failed = |error: anyhow::Error| ApiError::failed(&error);
    if let Some(demo) = DemoFile::read(dir).map_err(failed)? {
        let nodes = demo.nodes.iter().map(|node| DemoFile::node_dir(dir, &node.name).join("secret"));
        let secret = nodes.filter(|file| file.exists()).map(|file| read_secret(&file)).next().transpose()?;
        return Ok(Some(Place { endpoints: demo.endpoints, secret }));
    }
    let Some(lock) = LockNote::read(dir).map_err(failed)? else { return Ok(None) };
    Ok(Some(Place { endpoints: vec![lock.grpc], secret: Some(read_secret(&dir.join("secret"))?) }))
}

fn read_secret(file: &Path) -> Result<String, ApiError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(ApiError::new(
            ErrorCode::Denied,
            format!("the secret in {} cannot be read: {error}", file.display()),
            "run as the account the node runs as, or name a copy with --secret-file",
        )),
    }
}

fn random_id() -> String {
    format!("cli-{:016x}", rand::random::<u64>())
}

/// Who runs this, for the audit trail.
pub(super) fn user() -> String {
    std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "root".to_owned())
}

/// Where.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

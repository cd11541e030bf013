//! Three nodes of this same binary on loopback, as a demo without services starts them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use super::load::{self, Call, Found, Round};
use crate::api::proto::cluster_service_client::ClusterServiceClient;
use crate::api::proto::kv_client::KvClient;
use crate::api::proto::{PutRequest, RaftStatusRequest, RaftStatusResponse, RangeRequest};
use crate::places::{DemoFile, DemoNode};
use crate::transport::{Secret, WithSecret};

/// Connections shared by the clients, as the peer's are.
const MAX_CONNECTIONS: usize = 64;

/// The key-value store, by one node.
pub(super) type Keys = KvClient<InterceptedService<Channel, WithSecret>>;

/// A running cluster; ends with this value.
pub(super) struct Cluster {
    demo: Child,
    file: DemoFile,
    secret: WithSecret,
}

impl Cluster {
    /// With the timings of this profile.
    pub(super) async fn start(profile: &str) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("quorate-bench-{}", std::process::id()));
        let mut demo = Command::new(std::env::current_exe().context("cannot find this program")?)
            .args(["demo", "--headless", "--direct", "--without-services", "--nodes", "3"])
            .args(["--profile", profile, "--dir"])
            .arg(&dir)
            // A pipe: when this process ends in whatever way, the demo ends and leaves nothing.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a demo")?;
        let stdout = demo.stdout.take().context("the demo has no output")?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        })
        .await??;
        if line.is_empty() {
            let status = demo.wait()?;
            bail!("the demo ended before it was ready: {status}");
        }
        let file: DemoFile = serde_json::from_str(&line).context("the demo's line cannot be read")?;
        let first = file.nodes.first().context("the demo has no nodes")?;
        let path = DemoFile::node_dir(&file.dir, &first.name).join("secret");
        let secret =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let secret = WithSecret::new(Secret::new(secret.trim())?);
        Ok(Self { demo, secret, file })
    }

    /// Every node's API address.
    pub(super) fn endpoints(&self) -> &[String] {
        &self.file.endpoints
    }

    /// The nodes as they run now.
    pub(super) fn nodes(&self) -> anyhow::Result<Vec<DemoNode>> {
        Ok(DemoFile::read(&self.file.dir)?.context("the demo has ended")?.nodes)
    }

    pub(super) async fn keys(&self, endpoint: &str) -> anyhow::Result<Keys> {
        Ok(KvClient::with_interceptor(connect(endpoint).await?, self.secret.clone()))
    }

    pub(super) async fn raft_status(&self, endpoint: &str) -> anyhow::Result<RaftStatusResponse> {
        let mut client =
            ClusterServiceClient::with_interceptor(connect(endpoint).await?, self.secret.clone());
        Ok(client.raft_status(RaftStatusRequest {}).await?.into_inner())
    }

    /// Starts a killed node again.
    pub(super) async fn restart(&self, node: &str) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        command.args(["demo", "ctl", "--dir"]).arg(&self.file.dir).args(["restart", node]);
        let done = command.stdin(Stdio::null()).output().await.context("cannot steer the demo")?;
        if !done.status.success() {
            bail!("{node} was not restarted: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(())
    }

    pub(super) async fn run(&self, round: Round) -> anyhow::Result<Found> {
        let endpoints = self.endpoints();
        let mut connections = Vec::new();
        for n in 0..round.clients.min(MAX_CONNECTIONS) {
            connections.push(self.keys(&endpoints[n % endpoints.len()]).await?);
        }
        let value = bytes::Bytes::from(vec![b'x'; round.size]);
        load::run(round, connections, move |mut client, number, n| {
            let value = value.clone();
            async move {
                let key = load::key(number, n).into();
                match round.call {
                    Call::Put => {
                        let put = PutRequest { key, value, ..PutRequest::default() };
                        client.put(put).await.is_ok()
                    }
                    Call::Get => client.get(RangeRequest { key, ..RangeRequest::default() }).await.is_ok(),
                }
            }
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The end of its input ends the demo in good order.
        drop(self.demo.stdin.take());
        let _ = self.demo.wait();
        let _ = std::fs::remove_dir_all(&self.file.dir);
    }
}

async fn connect(endpoint: &str) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{endpoint}"))?.tcp_nodelay(true).connect().await?)
}

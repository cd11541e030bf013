//! Three etcd on loopback, from Debian's package, as they come but for their addresses.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tonic::transport::{Channel, Endpoint};

use super::load::{self, Call, Found, Round};

#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod proto {
    tonic::include_proto!("etcdserverpb");
}
use proto::kv_client::KvClient;

const NODES: usize = 3;
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Connections shared by the clients, as etcd's own benchmark does.
const MAX_CONNECTIONS: usize = 64;

/// A running cluster; ends with this value.
pub(super) struct Cluster {
    processes: Vec<Child>,
    endpoints: Vec<String>,
    _dir: Folder,
}

/// A folder that goes with this value.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed from a temporary folder is the host's to remove.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Cluster {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let dir = Folder(std::env::temp_dir().join(format!("quorate-bench-etcd-{}", std::process::id())));
        std::fs::create_dir_all(&dir.0).with_context(|| format!("cannot make {}", dir.0.display()))?;
        let ports = free_ports(NODES * 2)?;
        let (client_ports, peer_ports) = ports.split_at(NODES);
        let members: Vec<String> =
            peer_ports.iter().enumerate().map(|(n, port)| format!("e{n}=http://127.0.0.1:{port}")).collect();
        let endpoints = client_ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let mut cluster = Self { processes: Vec::new(), endpoints, _dir: dir };
        for (n, port) in peer_ports.iter().enumerate() {
            let client = &cluster.endpoints[n];
            let peer = format!("http://127.0.0.1:{port}");
            let process = Command::new("etcd")
                .arg("--name")
                .arg(format!("e{n}"))
                .arg("--data-dir")
                .arg(cluster._dir.0.join(format!("e{n}")))
                .args(["--listen-client-urls", client, "--advertise-client-urls", client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"])
                .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start etcd; install Debian's package etcd-server")?;
            cluster.processes.push(process);
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            if let Ok(channel) = connect(&self.endpoints[0]).await {
                let put = proto::PutRequest { key: b"ready".to_vec().into(), value: "yes".into() };
                if KvClient::new(channel).put(put).await.is_ok() {
                    return Ok(());
                }
            }
            if Instant::now() > until {
                bail!("etcd did not become ready within {} s", READY_WITHIN.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) async fn run(&self, round: Round) -> anyhow::Result<Found> {
        let mut connections = Vec::new();
        for n in 0..round.clients.min(MAX_CONNECTIONS) {
            connections.push(KvClient::new(connect(&self.endpoints[n % NODES]).await?));
        }
        let value = bytes::Bytes::from(vec![b'x'; round.size]);
        load::run(round, connections, move |mut client, number, n| {
            let value = value.clone();
            async move {
                let key = load::key(number, n).into();
                match round.call {
                    Call::Put => client.put(proto::PutRequest { key, value }).await.is_ok(),
                    Call::Get => client.range(proto::RangeRequest { key }).await.is_ok(),
                }
            }
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Already gone is as good.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

async fn connect(endpoint: &str) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(endpoint.to_owned())?.tcp_nodelay(true).connect().await?)
}

/// Ports that were free a moment ago.
pub(super) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

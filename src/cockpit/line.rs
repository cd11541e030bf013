//! Calls to a cluster's nodes over gRPC, with the cluster's secret on each. Does not know what is asked.

use std::time::Duration;

use anyhow::Context;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use crate::transport::WithSecret;

/// A channel that carries the secret.
pub type Line = InterceptedService<Channel, WithSecret>;

/// A line to one node. A node that stops answering is noticed within seconds, even if it is frozen.
pub async fn dial(endpoint: &str, secret: &WithSecret) -> anyhow::Result<Line> {
    let uri = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let channel = Endpoint::from_shared(uri)
        .with_context(|| format!("{endpoint} is no address"))?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .with_context(|| format!("cannot reach {endpoint}"))?;
    Ok(InterceptedService::new(channel, secret.clone()))
}

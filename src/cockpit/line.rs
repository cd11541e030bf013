//! Calls to a cluster's nodes over gRPC, with the cluster's secret on each. Does not know what is asked.

use std::time::Duration;

use anyhow::Context;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A channel that carries the secret.
pub type Line = InterceptedService<Channel, Bearer>;

/// Puts the secret on every call.
#[derive(Debug, Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    /// Of a cluster's secret.
    pub fn new(secret: &str) -> anyhow::Result<Self> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", secret.trim())
            .parse()
            .context("the secret is no text that a call can carry")?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A line to one node. A node that stops answering is noticed within seconds, even if it is frozen.
pub async fn dial(endpoint: &str, bearer: &Bearer) -> anyhow::Result<Line> {
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
    Ok(InterceptedService::new(channel, bearer.clone()))
}

//! From started processes to a cluster that works: the join token, the services, and what is still lacking.
//! Asks the nodes over the API as any client would.

use std::path::Path;

use anyhow::Context;
use quorate_core::view::{ClusterView, NodeState};

use super::place;
use crate::api::error::{ApiError, ErrorCode};
use crate::api::proto::cluster_service_client::ClusterServiceClient;
use crate::api::proto::service_service_client::ServiceServiceClient;
use crate::api::proto::view_service_client::ViewServiceClient;
use crate::api::proto::{DeployServiceRequest, GetViewRequest, JoinTokenRequest, RequestId, WriteOptions};
use crate::cockpit::line::{Line, dial};
use crate::transport::{Secret, WithSecret};

/// The API of one node.
pub(super) struct Api {
    line: Line,
}

impl Api {
    /// Of a node that listens, once it has its secret.
    pub(super) async fn of(dir: &Path, node: &str, endpoint: &str) -> anyhow::Result<Self> {
        Ok(Self { line: dial(endpoint, &WithSecret::new(Secret::new(&secret(dir, node)?)?)).await? })
    }

    /// What another node joins by.
    pub(super) async fn token(&mut self) -> anyhow::Result<String> {
        let mut client = ClusterServiceClient::new(self.line.clone());
        let answer = client.create_join_token(JoinTokenRequest {}).await.map_err(told)?;
        Ok(answer.into_inner().token)
    }

    /// The cluster, after a quorum round.
    pub(super) async fn view(&mut self) -> anyhow::Result<ClusterView> {
        let mut client = ViewServiceClient::new(self.line.clone());
        let answer = client.get(GetViewRequest { local: false }).await.map_err(told)?.into_inner();
        serde_json::from_slice(&answer.json).context("the view cannot be read")
    }

    /// Deploys; again with the same number it is the same deployment.
    pub(super) async fn deploy(&mut self, spec: &str, client: &str) -> anyhow::Result<()> {
        let request = DeployServiceRequest {
            spec: spec.to_owned(),
            options: Some(WriteOptions {
                request: Some(RequestId { client: client.to_owned(), sequence: 1, settled: 0 }),
                operator: "demo".to_owned(),
                from: "demo".to_owned(),
                expected_revision: 0,
            }),
        };
        ServiceServiceClient::new(self.line.clone()).deploy_service(request).await.map_err(told)?;
        Ok(())
    }
}

/// The cluster's secret as a node keeps it.
pub(super) fn secret(dir: &Path, node: &str) -> anyhow::Result<String> {
    let path = place::node_dir(dir, node).join("secret");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn told(status: tonic::Status) -> ApiError {
    ApiError::from_status(&status)
}

/// Is trying again of no use?
pub(super) fn is_final(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<ApiError>().map(|error| error.code);
    code.is_some_and(|code| matches!(code, ErrorCode::Usage | ErrorCode::Rejected | ErrorCode::Denied))
}

/// What keeps the nodes from being a whole cluster, if anything.
pub(super) fn nodes_lack(view: &ClusterView, nodes: &[String]) -> Option<String> {
    if !view.standing.quorum {
        return Some(view.standing.sentence.clone());
    }
    for name in nodes {
        let Some(node) = view.nodes.values().find(|node| node.name.as_str() == name) else {
            return Some(format!("node {name} was not admitted yet"));
        };
        if node.state != NodeState::Alive {
            return Some(format!("node {name}: {}; {}", node.why.verdict, node.why.because.join("; ")));
        }
    }
    // Only with these may any one of them be killed.
    let most = nodes.len().min(5);
    let wanted = most - (most + 1) % 2;
    let voters = view.nodes.values().filter(|node| node.voter).count();
    (voters < wanted).then(|| format!("{voters} of {wanted} voters"))
}

/// What keeps its services from being healthy, if anything.
pub(super) fn services_lack(view: &ClusterView, services: &[String]) -> Option<String> {
    services.iter().find_map(|name| {
        let found =
            view.services.iter().find(|(service, _)| service.as_str() == name).map(|(_, service)| service);
        let Some(service) = found else { return Some(format!("service {name} is not there yet")) };
        let count = service.replicas;
        (count.healthy < count.wanted || count.wanted == 0).then(|| {
            format!(
                "service {name} has {} of {} healthy: {}",
                count.healthy, count.wanted, service.verdict.sentence
            )
        })
    })
}

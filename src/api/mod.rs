//! The public gRPC API over a running node. Does not know what a node is made of: it is handed a
//! [`NodePort`] and a check for callers.

pub mod error;
pub mod proto;

mod cluster;
mod kv;
mod nodes;
mod read;
mod services;
mod streams;
mod views;
mod write;

use std::sync::Arc;

use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};

use self::error::{ApiError, ErrorCode};
use self::streams::Streams;
use crate::ports::NodePort;

/// The largest message a caller may send: a spec is at most 1 MiB, a key-value pair likewise.
const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;

/// All services behind the check for callers; reflection too, health not.
pub fn routes(
    port: Arc<dyn NodePort>,
    check: impl Interceptor + Clone + Send + Sync + 'static,
) -> anyhow::Result<Routes> {
    use proto::cluster_service_server::ClusterServiceServer;
    use proto::kv_server::KvServer;
    use proto::node_service_server::NodeServiceServer;
    use proto::service_service_server::ServiceServiceServer;
    use proto::view_service_server::ViewServiceServer;

    macro_rules! guarded {
        ($server:expr) => {
            InterceptedService::new($server.max_decoding_message_size(MAX_REQUEST_BYTES), check.clone())
        };
    }
    let streams = Streams::default();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .build_v1()?;
    Ok(Routes::new(guarded!(NodeServiceServer::new(nodes::Nodes(port.clone()))))
        .add_service(guarded!(ServiceServiceServer::new(services::Services(port.clone(), streams.clone()))))
        .add_service(guarded!(ClusterServiceServer::new(cluster::Cluster::new(port.clone()))))
        .add_service(guarded!(ViewServiceServer::new(views::Views(port.clone(), streams.clone()))))
        .add_service(guarded!(KvServer::new(kv::KeyValues(port, streams))))
        .add_service(InterceptedService::new(reflection, check)))
}

/// The names of the services, as a health check may ask for each.
pub fn services() -> Vec<&'static str> {
    use proto::cluster_service_server::SERVICE_NAME as CLUSTER;
    use proto::kv_server::SERVICE_NAME as KV;
    use proto::node_service_server::SERVICE_NAME as NODES;
    use proto::service_service_server::SERVICE_NAME as SERVICES;
    use proto::view_service_server::SERVICE_NAME as VIEWS;
    vec![NODES, SERVICES, CLUSTER, VIEWS, KV]
}

/// What was asked for is not there.
fn not_found(what: &str, name: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("no {what} {name:?}"), "")
}

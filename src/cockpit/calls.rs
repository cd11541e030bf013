//! Each command that an operator can give, as the call of the API that stands for it. Decides nothing.

use quorate_core::command::Command;
use tonic::{Response, Status};

use super::line::Line;
use crate::api::proto::node_service_client::NodeServiceClient;
use crate::api::proto::service_service_client::ServiceServiceClient;
use crate::api::proto::{
    AttestNodeRequest, CancelOperationRequest, CordonNodeRequest, DeployServiceRequest, DrainNodeRequest,
    FenceNodeRequest, LeaveNodeRequest, MigrateServiceRequest, ScaleServiceRequest, ServiceRequest,
    UncordonNodeRequest, WriteOptions, WriteResponse,
};

/// Asks for it.
pub(super) async fn call(
    line: Line,
    command: &Command,
    options: WriteOptions,
) -> Result<WriteResponse, Status> {
    let options = Some(options);
    let (mut nodes, mut services) = (NodeServiceClient::new(line.clone()), ServiceServiceClient::new(line));
    let text = ToString::to_string;
    let answer = match command {
        Command::Cordon { node, on } => {
            nodes.cordon_node(CordonNodeRequest { node: node.to_string(), on: *on, options }).await
        }
        Command::Uncordon { node } => {
            nodes.uncordon_node(UncordonNodeRequest { node: node.to_string(), options }).await
        }
        Command::Drain { node, max_in_flight } => {
            let request = DrainNodeRequest { node: node.to_string(), max_in_flight: *max_in_flight, options };
            nodes.drain_node(request).await
        }
        Command::Leave { node } => {
            nodes.leave_node(LeaveNodeRequest { node: node.to_string(), options }).await
        }
        Command::Fence { node, reason } => {
            let request = FenceNodeRequest { node: node.to_string(), reason: reason.clone(), options };
            nodes.fence_node(request).await
        }
        Command::AttestDead { node, reason } => {
            let request = AttestNodeRequest { node: node.to_string(), reason: reason.clone(), options };
            nodes.attest_node(request).await
        }
        Command::Deploy { spec } => {
            services.deploy_service(DeployServiceRequest { spec: spec.to_yaml(), options }).await
        }
        Command::Scale { service, replicas } => {
            let request = ScaleServiceRequest { service: text(service), replicas: *replicas, options };
            services.scale_service(request).await
        }
        Command::Restart { service } => {
            services.restart_service(ServiceRequest { service: text(service), options }).await
        }
        Command::StopService { service } => {
            services.stop_service(ServiceRequest { service: text(service), options }).await
        }
        Command::DeleteService { service } => {
            services.delete_service(ServiceRequest { service: text(service), options }).await
        }
        Command::Migrate { slot, to, parent: _ } => {
            let to = to.as_ref().map(ToString::to_string).unwrap_or_default();
            services.migrate_service(MigrateServiceRequest { slot: slot.to_string(), to, options }).await
        }
        Command::CancelOperation { operation } => {
            services.cancel_operation(CancelOperationRequest { operation: operation.0, options }).await
        }
        Command::Bootstrap { .. }
        | Command::Recover(_)
        | Command::TakeInventory { .. }
        | Command::ChangeSettings(_)
        | Command::AdmitNode(_)
        | Command::UpdateNode(_)
        | Command::MarkLost { .. }
        | Command::Rejoin { .. }
        | Command::RemoveNode { .. }
        | Command::Grant { .. }
        | Command::StopClaim { .. }
        | Command::EndClaim { .. }
        | Command::Advance { .. }
        | Command::KvPut { .. }
        | Command::KvDelete { .. }
        | Command::KvExpire { .. } => {
            return Err(Status::invalid_argument("the cockpit cannot ask for this"));
        }
    };
    answer.map(Response::into_inner)
}

//! ServiceService: what is wanted, what runs for it, and the operations on it.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use quorate_core::command::Command;
use quorate_core::ids::{OperationId, ServiceName, SlotId};
use quorate_core::spec::{ServiceSpec, diff, parse};
use quorate_core::view::{ClusterView, why};
use tonic::{Request, Response, Status};

use super::error::{ApiError, ErrorCode};
use super::proto::service_service_server::ServiceService;
use super::proto::{
    CancelOperationRequest, DeployServiceRequest, FieldChange, GetRequest, ListInstancesResponse,
    ListOperationsResponse, ListRequest, ListServicesResponse, LogsRequest, LogsResponse,
    MigrateServiceRequest, PlanResponse, ScaleServiceRequest, Service, ServiceRequest, WhyRequest,
    WhyResponse, WriteResponse,
};
use super::streams::Streams;
use super::{not_found, read, write};
use crate::ports::NodePort;

/// Serves services from a running node.
pub(super) struct Services(pub(super) Arc<dyn NodePort>, pub(super) Streams);

fn name(text: &str) -> Result<ServiceName, ApiError> {
    Ok(text.parse::<ServiceName>()?)
}

/// Reads one document or several; every mistake is told with its place.
fn specs(port: &Arc<dyn NodePort>, text: &str) -> Result<Vec<ServiceSpec>, ApiError> {
    let defaults = port.spec_defaults();
    parse(text, &defaults).map_err(|errors| ApiError::new(ErrorCode::Usage, errors.to_string(), ""))
}

/// A service that is not there yet: one line says it all.
fn added(spec: &ServiceSpec) -> Vec<quorate_core::spec::FieldChange> {
    let new = format!("{} x{}, {}", spec.workload.executor(), spec.replicas, spec.priority);
    vec![quorate_core::spec::FieldChange { path: "service".to_owned(), old: None, new: Some(new) }]
}

/// The slot meant by `SERVICE/ORDINAL`, or by `SERVICE` where it has one copy.
fn slot(view: &ClusterView, text: &str) -> Result<SlotId, ApiError> {
    if text.contains('/') {
        return Ok(text.parse::<SlotId>()?);
    }
    let service = view.services.get(&name(text)?).ok_or_else(|| not_found("service", text))?;
    if service.replicas.wanted > 1 {
        return Err(ApiError::new(
            ErrorCode::Usage,
            format!("service {text} has {} copies", service.replicas.wanted),
            format!("name one, such as {text}/0"),
        ));
    }
    Ok(SlotId { service: service.name.clone(), ordinal: 0 })
}

#[tonic::async_trait]
impl ServiceService for Services {
    async fn deploy_service(
        &self,
        request: Request<DeployServiceRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let DeployServiceRequest { spec, options } = request.into_inner();
        let specs = specs(&self.0, &spec)?;
        let several = specs.len() > 1;
        let mut merged = WriteResponse::default();
        for (at, spec) in specs.into_iter().enumerate() {
            let mut options = options.clone();
            // Each document is a write of its own: its request id is the caller's, told apart by place.
            if let Some(request) = options.as_mut().and_then(|options| options.request.as_mut())
                && several
            {
                request.client = format!("{}#{at}", request.client);
            }
            let answer = write::write(&*self.0, options, Command::Deploy { spec: Arc::new(spec) }).await?;
            let one = write::response(&answer);
            merged = WriteResponse { changed: merged.changed || one.changed, ..one };
        }
        Ok(Response::new(merged))
    }

    async fn plan_service(
        &self,
        request: Request<DeployServiceRequest>,
    ) -> Result<Response<PlanResponse>, Status> {
        let state = self.0.state();
        let specs = specs(&self.0, &request.into_inner().spec)?;
        let changes = specs
            .iter()
            .flat_map(|spec| {
                let old = state.services.get(&spec.name).map(|service| &*service.spec);
                old.map_or_else(|| added(spec), |old| diff(old, spec)).into_iter().map(|change| FieldChange {
                    service: spec.name.to_string(),
                    path: change.path,
                    old: change.old.unwrap_or_default(),
                    new: change.new.unwrap_or_default(),
                })
            })
            .collect();
        let commands = specs.into_iter().map(|spec| Command::Deploy { spec: Arc::new(spec) }).collect();
        let preview = self.0.preview(commands).await.map_err(ApiError::from)?;
        if let Some(rejection) = &preview.rejected {
            return Err(ApiError::rejection(rejection, preview.revision).into());
        }
        Ok(Response::new(PlanResponse { changes, ..read::plan(preview) }))
    }

    async fn stop_service(
        &self,
        request: Request<ServiceRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let ServiceRequest { service, options } = request.into_inner();
        let command = Command::StopService { service: name(&service)? };
        write::write_response(&*self.0, options, command).await
    }

    async fn restart_service(
        &self,
        request: Request<ServiceRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let ServiceRequest { service, options } = request.into_inner();
        write::write_response(&*self.0, options, Command::Restart { service: name(&service)? }).await
    }

    async fn delete_service(
        &self,
        request: Request<ServiceRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let ServiceRequest { service, options } = request.into_inner();
        let command = Command::DeleteService { service: name(&service)? };
        write::write_response(&*self.0, options, command).await
    }

    async fn scale_service(
        &self,
        request: Request<ScaleServiceRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let ScaleServiceRequest { service, replicas, options } = request.into_inner();
        let command = Command::Scale { service: name(&service)?, replicas };
        write::write_response(&*self.0, options, command).await
    }

    async fn migrate_service(
        &self,
        request: Request<MigrateServiceRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let MigrateServiceRequest { slot: text, to, options } = request.into_inner();
        let slot = slot(&self.0.views().borrow().clone(), &text)?;
        let to = if to.is_empty() { None } else { Some(to.parse().map_err(ApiError::from)?) };
        write::write_response(&*self.0, options, Command::Migrate { slot, to, parent: None }).await
    }

    async fn list_services(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        let (view, origin) = read::view(&*self.0, request.into_inner().local).await?;
        let services = view.services.values().map(|service| read::service(service)).collect();
        Ok(Response::new(ListServicesResponse { origin: Some(origin), services }))
    }

    async fn get_service(&self, request: Request<GetRequest>) -> Result<Response<Service>, Status> {
        let GetRequest { name: wanted, local } = request.into_inner();
        let (view, _) = read::view(&*self.0, local).await?;
        let service = view.services.get(&name(&wanted)?).ok_or_else(|| not_found("service", &wanted))?;
        Ok(Response::new(read::service(service)))
    }

    async fn list_instances(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let (view, origin) = read::view(&*self.0, request.into_inner().local).await?;
        let instances = view.instances.values().map(|instance| read::instance(instance)).collect();
        Ok(Response::new(ListInstancesResponse { origin: Some(origin), instances }))
    }

    async fn list_operations(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let (view, origin) = read::view(&*self.0, request.into_inner().local).await?;
        let operations = view.operations.values().map(|operation| read::operation(operation)).collect();
        Ok(Response::new(ListOperationsResponse { origin: Some(origin), operations }))
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let CancelOperationRequest { operation, options } = request.into_inner();
        let command = Command::CancelOperation { operation: OperationId(operation) };
        write::write_response(&*self.0, options, command).await
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        let subject = request.into_inner().subject;
        // Local: the question is asked most when there is no quorum.
        let (view, _) = read::view(&*self.0, true).await?;
        let why =
            why(&view, &subject).ok_or_else(|| not_found("node, service, slot or operation", &subject))?;
        Ok(Response::new(read::why(&why)))
    }

    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogsResponse, Status>> + Send>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let LogsRequest { slot: text, tail, follow } = request.into_inner();
        let view = self.0.views().borrow().clone();
        let slot = slot(&view, &text)?;
        let (node, chunks) = self.0.logs(slot.clone(), tail, follow).await.map_err(ApiError::from)?;
        let stream = chunks.map(move |chunk| match chunk {
            Ok(chunk) => Ok(LogsResponse { slot: slot.to_string(), node: node.to_string(), chunk }),
            Err(error) => Err(ApiError::from(error).into()),
        });
        Ok(Response::new(Box::pin(self.1.open(stream)?)))
    }
}

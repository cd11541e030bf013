//! NodeService: who is there, and what an operator does with a node.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use quorate_core::command::Command;
use quorate_core::ids::NodeId;
use quorate_core::view::fence_terms;
use tonic::{Request, Response, Status, Streaming};

use super::error::{ApiError, ErrorCode};
use super::proto::node_service_server::NodeService;
use super::proto::{
    AttestNodeRequest, CordonNodeRequest, DrainNodeRequest, FenceNodeRequest, FenceTest, GetRequest,
    HeartbeatRequest, HeartbeatResponse, LeaveNodeRequest, ListNodesResponse, ListRequest, LoneFenceRequest,
    LoneFenceResponse, Node, PlanResponse, RegisterNodeRequest, RegisterNodeResponse, TestFenceRequest,
    TestFenceResponse, UncordonNodeRequest, WriteResponse,
};
use super::{read, write};
use crate::ports::{LoneFence, LoneFenced, NodePort};

/// Moves at a time when a drain does not say.
const DEFAULT_IN_FLIGHT: u32 = 2;
/// The longest reason an audit keeps.
const MAX_REASON_BYTES: usize = 1_024;

/// Serves nodes from a running one.
pub(super) struct Nodes(pub(super) Arc<dyn NodePort>);

fn name(text: &str) -> Result<NodeId, ApiError> {
    Ok(text.parse::<NodeId>()?)
}

/// A reason an operator has to give.
fn reason(text: String, what: &str) -> Result<String, ApiError> {
    let text = text.trim().to_owned();
    if text.is_empty() {
        return Err(ApiError::new(
            ErrorCode::Usage,
            format!("{what} needs a reason"),
            "say why: it is kept in the audit trail",
        ));
    }
    if text.len() > MAX_REASON_BYTES {
        return Err(ApiError::new(
            ErrorCode::Usage,
            format!("the reason has {} bytes", text.len()),
            format!("use at most {MAX_REASON_BYTES}"),
        ));
    }
    Ok(text)
}

#[tonic::async_trait]
impl NodeService for Nodes {
    async fn register_node(
        &self,
        request: Request<RegisterNodeRequest>,
    ) -> Result<Response<RegisterNodeResponse>, Status> {
        let RegisterNodeRequest { token, admission } = request.into_inner();
        let (raft_id, cluster) = self.0.register(token, admission).await.map_err(ApiError::from)?;
        Ok(Response::new(RegisterNodeResponse { raft_id: raft_id.0, cluster_id: cluster.0 }))
    }

    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<HeartbeatResponse, Status>> + Send>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        use futures::StreamExt;
        // A stream that breaks ends here: its node notices by the missing answers.
        let reports = request
            .into_inner()
            .take_while(|item| futures::future::ready(item.is_ok()))
            .filter_map(|item| futures::future::ready(item.ok().map(|heartbeat| heartbeat.report)));
        let answers = self.0.heartbeats(Box::pin(reports)).await.map_err(ApiError::from)?;
        Ok(Response::new(Box::pin(answers.map(|answer| Ok(HeartbeatResponse { answer })))))
    }

    async fn list_nodes(&self, request: Request<ListRequest>) -> Result<Response<ListNodesResponse>, Status> {
        let (view, origin) = read::view(&*self.0, request.into_inner().local).await?;
        let nodes = view.nodes.values().map(|node| read::node(node)).collect();
        Ok(Response::new(ListNodesResponse { origin: Some(origin), nodes }))
    }

    async fn get_node(&self, request: Request<GetRequest>) -> Result<Response<Node>, Status> {
        let GetRequest { name: wanted, local } = request.into_inner();
        let (view, _) = read::view(&*self.0, local).await?;
        let node = view.nodes.get(&name(&wanted)?).ok_or_else(|| super::not_found("node", &wanted))?;
        Ok(Response::new(read::node(node)))
    }

    async fn cordon_node(
        &self,
        request: Request<CordonNodeRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let CordonNodeRequest { node, on, options } = request.into_inner();
        write::write_response(&*self.0, options, Command::Cordon { node: name(&node)?, on }).await
    }

    async fn drain_node(
        &self,
        request: Request<DrainNodeRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let DrainNodeRequest { node, max_in_flight, options } = request.into_inner();
        let max_in_flight = if max_in_flight == 0 { DEFAULT_IN_FLIGHT } else { max_in_flight };
        write::write_response(&*self.0, options, Command::Drain { node: name(&node)?, max_in_flight }).await
    }

    async fn uncordon_node(
        &self,
        request: Request<UncordonNodeRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let UncordonNodeRequest { node, options } = request.into_inner();
        write::write_response(&*self.0, options, Command::Uncordon { node: name(&node)? }).await
    }

    async fn leave_node(
        &self,
        request: Request<LeaveNodeRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let LeaveNodeRequest { node, options } = request.into_inner();
        write::write_response(&*self.0, options, Command::Leave { node: name(&node)? }).await
    }

    async fn fence_node(
        &self,
        request: Request<FenceNodeRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let FenceNodeRequest { node, reason: text, options } = request.into_inner();
        let command = Command::Fence { node: name(&node)?, reason: reason(text, "fencing")? };
        write::write_response(&*self.0, options, command).await
    }

    async fn plan_fence(&self, request: Request<FenceNodeRequest>) -> Result<Response<PlanResponse>, Status> {
        let FenceNodeRequest { node, reason, options: _ } = request.into_inner();
        let node = name(&node)?;
        let command = Command::Fence { node: node.clone(), reason };
        let preview = self.0.preview(vec![command]).await.map_err(ApiError::from)?;
        if let Some(rejection) = &preview.rejected {
            return Err(ApiError::rejection(rejection, preview.revision).into());
        }
        // From a side without quorum too: that it may not fence is among the terms.
        let (view, _) = read::view(&*self.0, true).await?;
        let fence = view.nodes.get(&node).map(|row| read::fence_terms(fence_terms(&view, row)));
        Ok(Response::new(PlanResponse { fence, ..read::plan(preview) }))
    }

    async fn test_fence(
        &self,
        request: Request<TestFenceRequest>,
    ) -> Result<Response<TestFenceResponse>, Status> {
        let node = name(&request.into_inner().node)?;
        let tests = self.0.test_fencing(node.clone()).await.map_err(ApiError::from)?;
        let state = self.0.state();
        let levels = state.nodes.get(&node).map_or(&[][..], |record| &record.facts.fencing);
        let tests = tests.into_iter().map(|test| {
            let level = levels.get(test.level as usize);
            let method = level.and_then(|level| level.get(test.method as usize));
            FenceTest {
                level: test.level,
                method: method.map(|method| method.name.clone()).unwrap_or_default(),
                power: test.power.clone().unwrap_or_default(),
                error: test.power.err().unwrap_or_default(),
                took_ms: test.took.0,
            }
        });
        Ok(Response::new(TestFenceResponse { by: self.0.me().to_string(), tests: tests.collect() }))
    }

    async fn fence_without_quorum(
        &self,
        request: Request<LoneFenceRequest>,
    ) -> Result<Response<LoneFenceResponse>, Status> {
        let LoneFenceRequest { node, confirm, reason: text, options } = request.into_inner();
        let options = options.unwrap_or_default();
        let order = LoneFence {
            node: name(&node)?,
            confirm,
            reason: reason(text, "fencing without a quorum")?,
            by: if options.operator.is_empty() { "unnamed".to_owned() } else { options.operator },
            from: options.from,
        };
        let LoneFenced { proven, said, next } = self.0.fence_alone(order).await.map_err(ApiError::from)?;
        Ok(Response::new(LoneFenceResponse { proven, said, next }))
    }

    async fn attest_node(
        &self,
        request: Request<AttestNodeRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let AttestNodeRequest { node, reason: text, options } = request.into_inner();
        let command = Command::AttestDead { node: name(&node)?, reason: reason(text, "an attestation")? };
        write::write_response(&*self.0, options, command).await
    }
}

//! What this node serves to other nodes beside Raft: takes packets apart, hands them to the parts that
//! act, and puts answers together. Who may speak at all was checked before.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use quorate_core::command::{Actor, Command, NodeAdmission, Proposal};
use quorate_core::ids::{ClusterId, RaftId};
use quorate_core::state::Reply;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::cluster_proto::Packet;
use super::cluster_proto::bulk_server::Bulk;
use super::cluster_proto::cluster_server::Cluster;
use super::inner::Inner;
use super::peers::{pack, unpack};
use super::wire::{AskOutput, AskState, Down, Refusal, Register, Registered, Up, decode};
use super::{answer, propose, reach, relay, transfer};
use crate::host;
use crate::ports::SubmitError;

/// How long admitting a node may take.
const REGISTER_WITHIN: Duration = Duration::from_secs(5);

/// The largest report of a node.
const MAX_REPORT: usize = 4 * 1024 * 1024;
/// Output streams to other nodes at once.
const MOST_OUTPUTS: usize = 256;
static OUTPUTS: Semaphore = Semaphore::const_new(MOST_OUTPUTS);

/// Serves the small and urgent calls.
pub(super) struct ClusterServer(pub(super) Arc<Inner>);

/// Serves the large and patient calls.
pub(super) struct BulkServer(pub(super) Arc<Inner>);

type Packets = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

#[tonic::async_trait]
impl Cluster for ClusterServer {
    type HeartbeatStream = Packets;

    async fn heartbeat(&self, request: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        self.0.epochs.check(request.metadata())?;
        let mut packets = request.into_inner();
        let (up, from) = mpsc::channel::<Up>(16);
        let (to, down) = mpsc::channel::<Down>(16);
        tokio::spawn(answer::session(self.0.clone(), from, to));
        tokio::spawn(async move {
            while let Some(Ok(packet)) = packets.next().await {
                if packet.body.len() > MAX_REPORT {
                    return;
                }
                let Ok(word) = decode::<Up>(&packet.body) else { return };
                if up.send(word).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(down).map(|down| Ok(pack(&down))))))
    }

    async fn register(&self, request: Request<Packet>) -> Result<Response<Packet>, Status> {
        let Register { cluster, admission } = unpack(request.get_ref())?;
        Ok(Response::new(pack(&register(&self.0, &cluster, admission).await)))
    }

    type RelayStream = ReceiverStream<Result<Packet, Status>>;

    async fn relay(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        self.0.epochs.check(request.metadata())?;
        let (answers, out) = mpsc::channel(16);
        tokio::spawn(relay::serve(self.0.clone(), request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(out)))
    }

    type ReachStream = Packets;

    async fn reach(&self, request: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        self.0.epochs.check_probe(request.metadata())?;
        Ok(Response::new(Box::pin(reach::answer(self.0.clone(), request.into_inner()))))
    }
}

/// Admits a node through whoever leads.
pub(super) async fn register(
    inner: &Inner,
    cluster: &ClusterId,
    admission: NodeAdmission,
) -> Result<Registered, Refusal> {
    let refused = |because: String, remedy: &str| Refusal::Refused { because, remedy: remedy.to_owned() };
    if cluster != &inner.identity.cluster {
        return Err(refused(
            format!("this is cluster {}, the join token is of {cluster}", inner.identity.cluster),
            "use a token of this cluster",
        ));
    }
    // The founder's number is 1 before anybody asked: nobody is admitted ahead of it.
    if inner.state().nodes.is_empty() {
        return Err(Refusal::NoQuorum("the cluster is still being made".to_owned()));
    }
    let node = admission.facts.node.clone();
    let command = Command::AdmitNode(admission);
    let proposal =
        Proposal { request: None, actor: Actor::Node(node), at: host::wall_now(), expected: None, command };
    let answer = propose::submit(inner, &proposal, REGISTER_WITHIN).await.map_err(|error| match error {
        SubmitError::NoQuorum { why } => Refusal::NoQuorum(why),
        SubmitError::Unknown { why, .. } => Refusal::Unknown(why),
        SubmitError::TooLarge { limit } => Refusal::TooLarge(limit as u64),
        SubmitError::Stopping => Refusal::Stopping,
        SubmitError::Refused { because, remedy } => Refusal::Refused { because, remedy },
    })?;
    let raft_id = match answer.result {
        Ok(Reply::Admitted(raft_id)) => raft_id,
        Ok(other) => {
            return Err(refused(format!("admission was answered with {other:?}"), "upgrade this node"));
        }
        Err(rejection) => return Err(Refusal::Rejected(rejection)),
    };
    let status = inner.status.borrow();
    let members = status.endpoints.iter().map(|(id, endpoints)| (RaftId(*id), endpoints.clone())).collect();
    let state = inner.state();
    let (settings, warning) = (state.cluster.settings.clone(), state.frailty());
    Ok(Registered { raft_id, members, settings, warning, epoch: inner.epochs.now() })
}

#[tonic::async_trait]
impl Bulk for BulkServer {
    type StateFolderStream = Packets;
    type OutputStream = Packets;

    async fn state_folder(&self, request: Request<Packet>) -> Result<Response<Packets>, Status> {
        self.0.epochs.check(request.metadata())?;
        let ask: AskState = unpack(request.get_ref())?;
        let pieces = transfer::serve(&self.0, ask)
            .ok_or_else(|| Status::resource_exhausted("too many state folders are being copied from here"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(pieces).map(|piece| Ok(pack(&piece))))))
    }

    async fn output(&self, request: Request<Packet>) -> Result<Response<Packets>, Status> {
        let ask: AskOutput = unpack(request.get_ref())?;
        let place = OUTPUTS.try_acquire().map_err(|_| {
            Status::resource_exhausted(format!("{MOST_OUTPUTS} outputs are already read from here"))
        })?;
        let pieces = ReceiverStream::new(super::output::follow_here(self.0.clone(), ask));
        Ok(Response::new(Box::pin(pieces.map(move |piece| {
            let _held = &place;
            Ok(pack(&piece))
        }))))
    }
}

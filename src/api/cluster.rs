//! ClusterService: settings, Raft, join tokens, and what became of a write whose answer was lost.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use quorate_core::command::Command;
use quorate_core::ids::{ClientId, Epoch, NodeId, RaftId};
use quorate_core::settings::SettingChange;
use quorate_core::state::State;
use serde::Serialize;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::error::{ApiError, ErrorCode};
use super::proto::cluster_service_server::ClusterService;
use super::proto::{
    AgreeRequest, AgreeResponse, GetOutcomeRequest, GetSettingsRequest, JoinTokenRequest, JoinTokenResponse,
    RaftStatusRequest, RaftStatusResponse, SaveSnapshotRequest, SetSettingsRequest, Settings, SnapshotPart,
    TransferLeaderRequest, WriteResponse,
};
use super::{read, write};
use crate::ports::{Agreement, NodePort, RaftView};
use crate::snapshot_file::Header;

/// Serves what there is one of in a cluster.
pub(super) struct Cluster {
    pub(super) port: Arc<dyn NodePort>,
    /// One at a time: each takes the memory of a whole State.
    pub(super) saving: Arc<Semaphore>,
}

impl Cluster {
    pub(super) fn new(port: Arc<dyn NodePort>) -> Self {
        Self { port, saving: Arc::new(Semaphore::new(1)) }
    }
}

/// How much of a snapshot one message carries.
const CHUNK_BYTES: usize = 256 * 1024;

/// Raft's status as `quorate raft status -o json` prints it.
#[derive(Serialize)]
struct RaftJson {
    node: String,
    role: String,
    epoch: u64,
    accepting_proposals: bool,
    term: u64,
    leader: Option<String>,
    last_log: u64,
    last_log_term: u64,
    committed: u64,
    applied: u64,
    snapshot: u64,
    quorum_ack_age_ms: Option<u64>,
    members: Vec<MemberJson>,
}

#[derive(Serialize)]
struct MemberJson {
    raft_id: u64,
    node: Option<String>,
    voter: bool,
    witness: bool,
    weight: u32,
    lag: Option<u64>,
    endpoints: Vec<String>,
}

fn raft_status(port: &dyn NodePort) -> RaftStatusResponse {
    let RaftView {
        role,
        epoch,
        term,
        leader,
        last_log,
        last_log_term,
        committed,
        applied,
        snapshot,
        quorum_ack_age_ms,
        members,
    } = port.raft();
    let state = port.state();
    let accepting = port.views().borrow().standing.accepting_proposals;
    let names = |voter: bool| {
        let members = members.iter().filter(|member| member.voter == voter);
        members.map(|member| name_of(&state, member.raft_id)).collect::<Vec<_>>()
    };
    let (voters, learners) = (names(true), names(false));
    let leader = leader.map(|id| name_of(&state, id));
    let json = read::json(&RaftJson {
        node: port.me().to_string(),
        role: role.clone(),
        epoch: epoch.0,
        accepting_proposals: accepting,
        term,
        leader: leader.clone(),
        last_log,
        last_log_term,
        committed,
        applied,
        snapshot,
        quorum_ack_age_ms,
        members: members
            .iter()
            .map(|member| MemberJson {
                raft_id: member.raft_id.0,
                node: member.node.as_ref().map(ToString::to_string),
                voter: member.voter,
                witness: member.witness,
                weight: member.weight,
                lag: member.lag,
                endpoints: member.endpoints.iter().map(ToString::to_string).collect(),
            })
            .collect(),
    });
    RaftStatusResponse {
        node: port.me().to_string(),
        role,
        term,
        leader: leader.unwrap_or_default(),
        last_log,
        committed,
        applied,
        voters,
        learners,
        quorum_ack_age_ms,
        json,
    }
}

fn name_of(state: &State, id: RaftId) -> String {
    state.node_of(id).map_or_else(|| format!("raft {id}"), |(name, _)| name.to_string())
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_settings(&self, _: Request<GetSettingsRequest>) -> Result<Response<Settings>, Status> {
        let state = self.port.state();
        let values = state
            .cluster
            .settings
            .listed()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Ok(Response::new(Settings { values, revision: state.revision.0 }))
    }

    async fn set_settings(
        &self,
        request: Request<SetSettingsRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let SetSettingsRequest { values, options } = request.into_inner();
        let values: BTreeMap<String, String> = values.into_iter().collect();
        let changes = values.into_iter().map(|(name, value)| SettingChange { name, value }).collect();
        write::write_response(&*self.port, options, Command::ChangeSettings(changes)).await
    }

    async fn raft_status(
        &self,
        _: Request<RaftStatusRequest>,
    ) -> Result<Response<RaftStatusResponse>, Status> {
        Ok(Response::new(raft_status(&*self.port)))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<RaftStatusResponse>, Status> {
        let to = request.into_inner().node.parse().map_err(ApiError::from)?;
        self.port.transfer_leader(to).await.map_err(ApiError::from)?;
        Ok(Response::new(raft_status(&*self.port)))
    }

    async fn create_join_token(
        &self,
        _: Request<JoinTokenRequest>,
    ) -> Result<Response<JoinTokenResponse>, Status> {
        let token = self.port.join_token();
        let state = self.port.state();
        let address = state
            .nodes
            .get(self.port.me())
            .and_then(|node| node.facts.endpoints.first())
            .map_or_else(|| "ADDRESS".to_owned(), |endpoint| format!("{}:{}", endpoint.host, endpoint.port));
        let command = format!("quorate node --config FILE --join {address} --token {token}");
        Ok(Response::new(JoinTokenResponse { token, command }))
    }

    async fn agree_to_recovery(
        &self,
        request: Request<AgreeRequest>,
    ) -> Result<Response<AgreeResponse>, Status> {
        let AgreeRequest { confirm, reason, epoch, begun_by, term, index, survivors, options } =
            request.into_inner();
        let options = options.unwrap_or_default();
        let name = |text: &String| text.parse::<NodeId>().map_err(ApiError::from);
        let agreement = Agreement {
            confirm,
            reason,
            epoch: Epoch(epoch),
            begun_by: name(&begun_by)?,
            last: (term, index),
            survivors: survivors.iter().map(name).collect::<Result<_, _>>()?,
            by: if options.operator.is_empty() { "unnamed".to_owned() } else { options.operator },
            from: options.from,
        };
        self.port.agree_to_recovery(agreement).await.map_err(ApiError::from)?;
        Ok(Response::new(AgreeResponse { epoch }))
    }

    type SaveSnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotPart, Status>> + Send>>;

    async fn save_snapshot(
        &self,
        _: Request<SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        let place = self.saving.clone().try_acquire_owned().map_err(|_| {
            ApiError::new(
                ErrorCode::Rejected,
                "another snapshot is being saved from this node",
                "wait for its end, or ask another node",
            )
        })?;
        let state = self.port.linearizable(read::READ_WITHIN).await.map_err(ApiError::from)?;
        let node = self.port.me().clone();
        let made = tokio::task::spawn_blocking(move || {
            let (header, body) = Header::of(&state, &node, crate::host::wall_now());
            serde_json::to_vec(&header).map(|header| (header, Bytes::from(body)))
        });
        let made = made.await.map_err(|error| ApiError::failed(&error.into()))?;
        let (header, body) = made.map_err(|error| ApiError::failed(&error.into()))?;
        let first = SnapshotPart { header: header.into(), body: Bytes::new() };
        let parts = futures::stream::unfold((body, place), |(mut body, place)| async move {
            if body.is_empty() {
                return None;
            }
            let part = body.split_to(body.len().min(CHUNK_BYTES));
            Some((Ok(SnapshotPart { header: Bytes::new(), body: part }), (body, place)))
        });
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(first)]).chain(parts))))
    }

    async fn get_outcome(
        &self,
        request: Request<GetOutcomeRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let asked = request.into_inner().request.ok_or_else(|| {
            ApiError::new(ErrorCode::Usage, "no request id given", "give client and sequence")
        })?;
        let state = self.port.linearizable(read::READ_WITHIN).await.map_err(ApiError::from)?;
        let client = state.clients.get(&ClientId(asked.client.clone()));
        let answer = client.and_then(|client| client.answers.get(asked.sequence)).ok_or_else(|| {
            ApiError::new(
                ErrorCode::NotFound,
                format!("no answer to request {}:{} is remembered", asked.client, asked.sequence),
                "it was never applied, or so long ago that it was forgotten",
            )
        })?;
        match &answer.result {
            Ok(_) => Ok(Response::new(write::response(answer))),
            Err(rejection) => Err(ApiError::rejection(rejection, answer.revision).into()),
        }
    }
}

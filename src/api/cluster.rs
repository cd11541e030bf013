//! ClusterService: settings, Raft, join tokens, and what became of a write whose answer was lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::command::Command;
use quorate_core::ids::{ClientId, RaftId};
use quorate_core::settings::SettingChange;
use quorate_core::state::State;
use serde::Serialize;
use tonic::{Request, Response, Status};

use super::error::{ApiError, ErrorCode};
use super::proto::cluster_service_server::ClusterService;
use super::proto::{
    GetOutcomeRequest, GetSettingsRequest, JoinTokenRequest, JoinTokenResponse, RaftStatusRequest,
    RaftStatusResponse, SetSettingsRequest, Settings, TransferLeaderRequest, WriteResponse,
};
use super::{read, write};
use crate::ports::{NodePort, RaftView};

/// Serves what there is one of in a cluster.
pub(super) struct Cluster(pub(super) Arc<dyn NodePort>);

/// Raft's status as `quorate raft status -o json` prints it.
#[derive(Serialize)]
struct RaftJson {
    node: String,
    role: String,
    accepting_proposals: bool,
    term: u64,
    leader: Option<String>,
    last_log: u64,
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
    let RaftView { role, term, leader, last_log, committed, applied, snapshot, quorum_ack_age_ms, members } =
        port.raft();
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
        accepting_proposals: accepting,
        term,
        leader: leader.clone(),
        last_log,
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
        let state = self.0.state();
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
        write::write_response(&*self.0, options, Command::ChangeSettings(changes)).await
    }

    async fn raft_status(
        &self,
        _: Request<RaftStatusRequest>,
    ) -> Result<Response<RaftStatusResponse>, Status> {
        Ok(Response::new(raft_status(&*self.0)))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<RaftStatusResponse>, Status> {
        let to = request.into_inner().node.parse().map_err(ApiError::from)?;
        self.0.transfer_leader(to).await.map_err(ApiError::from)?;
        Ok(Response::new(raft_status(&*self.0)))
    }

    async fn create_join_token(
        &self,
        _: Request<JoinTokenRequest>,
    ) -> Result<Response<JoinTokenResponse>, Status> {
        let token = self.0.join_token();
        let state = self.0.state();
        let address = state
            .nodes
            .get(self.0.me())
            .and_then(|node| node.facts.endpoints.first())
            .map_or_else(|| "ADDRESS".to_owned(), |endpoint| format!("{}:{}", endpoint.host, endpoint.port));
        let command = format!("quorate node --config FILE --join {address} --token {token}");
        Ok(Response::new(JoinTokenResponse { token, command }))
    }

    async fn get_outcome(
        &self,
        request: Request<GetOutcomeRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let asked = request.into_inner().request.ok_or_else(|| {
            ApiError::new(ErrorCode::Usage, "no request id given", "give client and sequence")
        })?;
        let state = self.0.linearizable(read::READ_WITHIN).await.map_err(ApiError::from)?;
        let client = state.clients.get(&ClientId(asked.client.clone()));
        let answer = client.and_then(|client| client.answers.get(&asked.sequence)).ok_or_else(|| {
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

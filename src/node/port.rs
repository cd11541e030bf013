//! The node as those in front of it hold it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use quorate_core::command::{Command, NodeAdmission, Proposal};
use quorate_core::detect::detect;
use quorate_core::ids::{ClusterId, NodeId, RaftId, Revision, SlotId};
use quorate_core::observation::FenceTest;
use quorate_core::plan;
use quorate_core::spec::SpecDefaults;
use quorate_core::state::{Answer, Preview, State};
use quorate_core::view::ClusterView;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::inner::{Inner, hold};
use super::peers::address;
use super::token::JoinToken;
use super::wire::{AskOutput, Down, Refusal, Up, decode, encode};
use super::{agree, answer, fencing, lone, output, propose, server, show};
use crate::ports::{
    Agreement, KvChanges, LoneFence, LoneFenced, NodePort, Output, RaftMember, RaftView, SubmitError,
};
use crate::raft::ChangeError;

/// A handle on a running node.
pub(super) struct Port(pub(super) Arc<Inner>);

impl NodePort for Port {
    fn me(&self) -> &NodeId {
        self.0.me()
    }

    fn submit(&self, proposal: Proposal, within: Duration) -> BoxFuture<'_, Result<Answer, SubmitError>> {
        async move { propose::submit(&self.0, &proposal, within).await }.boxed()
    }

    fn linearizable(&self, within: Duration) -> BoxFuture<'_, Result<Arc<State>, SubmitError>> {
        propose::linearizable(&self.0, within).boxed()
    }

    fn state(&self) -> Arc<State> {
        self.0.state()
    }

    fn states(&self) -> watch::Receiver<Arc<State>> {
        self.0.states.clone()
    }

    fn views(&self) -> watch::Receiver<Arc<ClusterView>> {
        let unwatched = self.0.views.receiver_count() == 0;
        let views = self.0.views.subscribe();
        if unwatched {
            // While nobody looked the view was left to age.
            let (inner, now, state) = (&self.0, self.0.now(), self.0.state());
            let observed = inner.observed(&state, now);
            let next = show::look(inner, &state, &observed, &detect(&observed, &state), now);
            inner.views.send_replace(Arc::new(next));
        }
        views
    }

    fn staleness_ms(&self) -> u64 {
        let now = self.0.now();
        let status = self.0.status.borrow();
        // As leader the newest word is the last quorum's.
        let heard = status.quorum_acked.or(status.leader_heard);
        heard.map_or(now.0, |at| now.since(at).0)
    }

    fn raft(&self) -> RaftView {
        let (status, state, now) = (self.0.status.borrow(), self.0.state(), self.0.now());
        let member = |id: &u64, voter: bool| {
            let known = state.node_of(RaftId(*id));
            RaftMember {
                raft_id: RaftId(*id),
                node: known.map(|(node, _)| node.clone()),
                voter,
                witness: known.is_some_and(|(_, record)| record.witness),
                weight: known.map_or(0, |(_, record)| record.weight),
                lag: status.lag.get(id).copied(),
                endpoints: status.endpoints.get(id).cloned().unwrap_or_default(),
            }
        };
        let voters = status.voters.iter().map(|id| member(id, true));
        RaftView {
            role: status.role.as_str().to_owned(),
            epoch: self.0.epochs.now(),
            term: status.term,
            leader: status.leader.map(RaftId),
            last_log: status.last_log,
            last_log_term: self.0.raft.last_log().0,
            committed: status.committed,
            applied: status.applied,
            snapshot: status.snapshot,
            quorum_ack_age_ms: status.quorum_ack_age(now).map(|age| age.0),
            members: voters.chain(status.learners.iter().map(|id| member(id, false))).collect(),
        }
    }

    fn preview(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<Preview, SubmitError>> {
        let state = self.0.state();
        let observed = self.0.observed(&state, self.0.now());
        let verdicts = detect(&observed, &state);
        futures::future::ready(Ok(plan::preview(&state, &observed, &verdicts, &commands))).boxed()
    }

    fn test_fencing(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<FenceTest>, SubmitError>> {
        async move { fencing::test(&self.0, &node).await }.boxed()
    }

    fn fence_alone(&self, order: LoneFence) -> BoxFuture<'_, Result<LoneFenced, SubmitError>> {
        lone::fence(&self.0, order).boxed()
    }

    fn agree_to_recovery(&self, agreement: Agreement) -> BoxFuture<'_, Result<(), SubmitError>> {
        agree::agree(&self.0, agreement).boxed()
    }

    fn logs(&self, slot: SlotId, tail: u32, follow: bool) -> BoxFuture<'_, Result<Output, SubmitError>> {
        output::output(&self.0, AskOutput { slot, tail, follow }).boxed()
    }

    fn kv_changes(&self, after: Revision) -> Result<KvChanges, SubmitError> {
        self.0.kv.after(after)
    }

    fn register(
        &self,
        token: String,
        admission: Bytes,
    ) -> BoxFuture<'_, Result<(RaftId, ClusterId), SubmitError>> {
        async move {
            let refused =
                |because: String, remedy: &str| SubmitError::Refused { because, remedy: remedy.to_owned() };
            let token = JoinToken::parse(&token)
                .map_err(|error| refused(error.to_string(), "take the token from `quorate join-token`"))?;
            if token.secret != self.0.secret {
                return Err(refused("the join token is of another cluster".to_owned(), "use this cluster's"));
            }
            let admission: NodeAdmission = decode(&admission)
                .map_err(|error| refused(error.to_string(), "use the same release on all nodes"))?;
            let registered = server::register(&self.0, &token.cluster, admission).await;
            let registered = registered.map_err(|refusal| match refusal {
                Refusal::NoQuorum(why) => SubmitError::NoQuorum { why },
                Refusal::NotLeader(_) => SubmitError::NoQuorum { why: "no leader is known".to_owned() },
                Refusal::Unknown(why) => SubmitError::Unknown { why, request: None },
                Refusal::TooLarge(limit) => SubmitError::TooLarge { limit: limit as usize },
                Refusal::Stopping => SubmitError::Stopping,
                Refusal::Refused { because, remedy } => SubmitError::Refused { because, remedy },
                Refusal::Rejected(rejection) => {
                    refused(rejection.to_string(), "see `quorate nodes` for what is known of that node")
                }
            })?;
            Ok((registered.raft_id, self.0.identity.cluster.clone()))
        }
        .boxed()
    }

    fn heartbeats(
        &self,
        reports: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Bytes>, SubmitError>> {
        let (up, from) = mpsc::channel::<Up>(16);
        let (to, down) = mpsc::channel::<Down>(16);
        let control = self.0.raft.runtime();
        control.spawn(answer::session(self.0.clone(), from, to));
        control.spawn(async move {
            let mut reports = reports;
            while let Some(bytes) = reports.next().await {
                let Ok(word) = decode::<Up>(&bytes) else { return };
                if up.send(word).await.is_err() {
                    return;
                }
            }
        });
        let answers = ReceiverStream::new(down).map(|down| Bytes::from(encode(&down)));
        futures::future::ready(Ok(answers.boxed())).boxed()
    }

    fn transfer_leader(&self, to: NodeId) -> BoxFuture<'_, Result<(), SubmitError>> {
        async move {
            let refused =
                |because: String, remedy: &str| SubmitError::Refused { because, remedy: remedy.to_owned() };
            let state = self.0.state();
            let Some(record) = state.nodes.get(&to) else {
                return Err(refused(format!("no node {to:?}"), "see `quorate nodes`"));
            };
            self.0.raft.transfer_leader(record.raft_id.0).await.map_err(|error| match error {
                ChangeError::NotLeader { leader } => {
                    let name =
                        leader.and_then(|id| state.node_of(RaftId(id))).map(|(node, _)| node.to_string());
                    let leader = name.unwrap_or_else(|| "the leader".to_owned());
                    refused(format!("{} does not lead", self.0.me()), &format!("ask {leader}"))
                }
                ChangeError::NoQuorum => SubmitError::NoQuorum { why: propose::quorum_words(&self.0) },
                ChangeError::Busy => refused(error.to_string(), "try again in a moment"),
                ChangeError::Refused { reason } => refused(reason, "choose a voter"),
                ChangeError::Unknown => SubmitError::Unknown { why: error.to_string(), request: None },
                ChangeError::Shutdown => SubmitError::Stopping,
            })
        }
        .boxed()
    }

    fn join_token(&self) -> String {
        let state = self.0.state();
        let heard = |node: &NodeId| hold(&self.0.sightings).heard(node).is_some();
        let own = self.0.facts.endpoints.iter().map(address);
        let others =
            state.nodes.iter().filter(|(node, record)| *node != self.0.me() && !record.lost() && heard(node));
        let others = others.flat_map(|(_, record)| record.facts.endpoints.iter().map(address));
        let addresses = own.chain(others).take(8).collect();
        let token =
            JoinToken { cluster: self.0.identity.cluster.clone(), secret: self.0.secret.clone(), addresses };
        token.to_text()
    }

    fn spec_defaults(&self) -> SpecDefaults {
        self.0.options.config.spec_defaults(&self.0.state().cluster.settings)
    }

    fn secret(&self) -> &str {
        &self.0.secret
    }
}

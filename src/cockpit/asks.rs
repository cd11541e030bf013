//! What the operator asks for in the cockpit, carried to whichever node is attached to, and the answers.
//! A write keeps its request id over every retry, so that it happens once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::command::Command;
use quorate_core::ids::{NodeId, Revision};
use quorate_core::view::Level;
use quorate_tui::{Ahead, Feed, Foresight, LogRequest, Loss, Msg, Out, Preview, PreviewLine};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::watch::Attached;
use super::{DemoAsk, calls, output};
use crate::api::error::{ApiError, ErrorCode};
use crate::api::proto::node_service_client::NodeServiceClient;
use crate::api::proto::service_service_client::ServiceServiceClient;
use crate::api::proto::{
    self, DeployServiceRequest, FenceNodeRequest, PlanResponse, RequestId, TestFenceRequest, WriteOptions,
};

/// For an answer, over every retry.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// A device may take its whole timeout, one after the other.
const TESTED_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
/// Open logs; the oldest is closed for a new one.
const MOST_LOGS: usize = 16;

/// Takes what the operator asks for.
pub(super) struct Asks {
    attached: Arc<Attached>,
    feed: Feed,
    demo: Option<mpsc::Sender<DemoAsk>>,
    client: String,
    sequence: u64,
    logs: BTreeMap<u64, AbortHandle>,
}

impl Asks {
    pub(super) fn new(attached: Arc<Attached>, feed: Feed, demo: Option<mpsc::Sender<DemoAsk>>) -> Self {
        let client = format!("cockpit-{:016x}", rand::random::<u64>());
        Self { attached, feed, demo, client, sequence: 0, logs: BTreeMap::new() }
    }

    /// Begins what is asked; answers go to the feed.
    pub(super) fn take(&mut self, out: Out) {
        let (attached, feed) = (self.attached.clone(), self.feed.clone());
        match out {
            Out::Submit { id, command, expected } => {
                let options = self.options(expected);
                tokio::spawn(async move {
                    let outcome = submit(&attached, &command, options).await;
                    feed.send(Msg::CommandResult { id, outcome: outcome.map_err(|error| error.to_string()) });
                });
            }
            Out::Preview { id, spec } => {
                tokio::spawn(async move {
                    let outcome = preview(&attached, spec).await.map_err(|error| error.to_string());
                    feed.send(Msg::PlanPreview { id, outcome });
                });
            }
            Out::Foresee { id, node } => {
                tokio::spawn(async move {
                    let outcome = foresee(&attached, &node).await.map_err(|error| error.to_string());
                    feed.send(Msg::Foreseen { id, outcome });
                });
            }
            Out::TestFence { id, node } => {
                tokio::spawn(async move {
                    let outcome = test_fence(&attached, &node).await.map_err(|error| error.to_string());
                    feed.send(Msg::CommandResult { id, outcome });
                });
            }
            Out::Logs(LogRequest::Open { stream, slot, tail, follow }) => {
                let task = tokio::spawn(output::follow(
                    attached,
                    feed,
                    output::Wanted { stream, slot, tail, follow },
                ));
                self.logs.insert(stream, task.abort_handle());
                while self.logs.len() > MOST_LOGS
                    && let Some((_, oldest)) = self.logs.pop_first()
                {
                    oldest.abort();
                }
            }
            Out::Logs(LogRequest::Close { stream }) => {
                if let Some(task) = self.logs.remove(&stream) {
                    task.abort();
                }
            }
            Out::Demo { id, action, node } => {
                let demo = self.demo.clone();
                tokio::spawn(async move {
                    let (answer, answered) = oneshot::channel();
                    let asked = match demo {
                        Some(demo) => demo.send((action, node.to_string(), answer)).await.is_ok(),
                        None => false,
                    };
                    let nobody = || {
                        Err("only the cockpit that started a demo steers its nodes; use `quorate demo ctl`"
                            .to_owned())
                    };
                    let outcome = if asked { answered.await.unwrap_or_else(|_| nobody()) } else { nobody() };
                    feed.send(Msg::CommandResult { id, outcome });
                });
            }
            // These end the cockpit, which writes to its own terminal; and nothing is simulated here.
            Out::Sim(_) | Out::Copy(_) | Out::Leave | Out::Quit => {}
        }
    }

    fn options(&mut self, expected: Option<Revision>) -> WriteOptions {
        self.sequence += 1;
        let operator = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
        WriteOptions {
            request: Some(RequestId { client: self.client.clone(), sequence: self.sequence, settled: 0 }),
            operator: operator.unwrap_or_else(|_| "root".to_owned()),
            from: format!("cockpit@{}", rustix::system::uname().nodename().to_string_lossy()),
            expected_revision: expected.map_or(0, |revision| revision.0),
        }
    }
}

/// May it still succeed through another node, or a moment later?
fn may_pass(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unreachable | ErrorCode::Unknown)
}

async fn submit(attached: &Attached, command: &Command, options: WriteOptions) -> Result<String, ApiError> {
    let deadline = Instant::now() + ANSWERED_WITHIN;
    let mut last = ApiError::new(ErrorCode::Unreachable, "no node answers", "it was not sent; try again");
    while let Ok(Some(line)) = timeout_at(deadline, attached.line()).await {
        match timeout_at(deadline, calls::call(line, command, options.clone())).await {
            Ok(Ok(answer)) => {
                let revision = answer.revision;
                let operation = answer.operation;
                return Ok(match (answer.changed, operation) {
                    (false, _) => format!("it was so already, revision {revision}"),
                    (true, 0) => format!("revision {revision}"),
                    (true, _) => format!("operation {operation}, revision {revision}"),
                });
            }
            Ok(Err(status)) => last = ApiError::from_status(&status),
            Err(_) => {
                let remedy = "look at the events before asking again";
                last = ApiError::new(ErrorCode::Unknown, "no answer came", remedy);
            }
        }
        if !may_pass(last.code) {
            break;
        }
        sleep(PAUSE).await;
    }
    Err(last)
}

async fn preview(attached: &Attached, spec: String) -> Result<Preview, ApiError> {
    let nobody = || ApiError::new(ErrorCode::Unreachable, "no node answers", "");
    let ask = async {
        let line = attached.line().await.ok_or_else(nobody)?;
        let request = DeployServiceRequest { spec, options: None };
        let answer = ServiceServiceClient::new(line).plan_service(request).await;
        answer.map_err(|status| ApiError::from_status(&status))
    };
    let answer = timeout(ANSWERED_WITHIN, ask).await.map_err(|_| nobody())??;
    Ok(shown(answer.into_inner()))
}

/// What fencing a node would lead to, by the planner.
async fn foresee(attached: &Attached, node: &NodeId) -> Result<Foresight, ApiError> {
    let nobody = || ApiError::new(ErrorCode::Unreachable, "no node answers", "");
    let ask = async {
        let line = attached.line().await.ok_or_else(nobody)?;
        let request =
            FenceNodeRequest { node: node.to_string(), reason: "it is asked for".into(), options: None };
        let answer = NodeServiceClient::new(line).plan_fence(request).await;
        answer.map_err(|status| ApiError::from_status(&status))
    };
    let plan = timeout(ANSWERED_WITHIN, ask).await.map_err(|_| nobody())??.into_inner();
    let loss = |loss: proto::Loss| Loss {
        slot: loss.slot,
        priority: loss.priority,
        exclusive: loss.exclusive,
        state: loss.state,
        to: (!loss.to.is_empty()).then_some(loss.to),
        because: loss.because,
    };
    Ok(Foresight {
        revision: Revision(plan.revision),
        loses: plan.loses.into_iter().map(loss).collect(),
        actions: plan.actions,
        waiting: plan.waiting,
        otherwise: plan
            .ahead
            .into_iter()
            .map(|line| Ahead { after_ms: line.after_ms, what: line.what })
            .collect(),
        quorum: plan.quorum,
    })
}

/// Asks the devices of a node for its power state, and says in a line what they answered.
async fn test_fence(attached: &Attached, node: &NodeId) -> Result<String, ApiError> {
    let nobody = || ApiError::new(ErrorCode::Unreachable, "no node answers", "");
    let ask = async {
        let line = attached.line().await.ok_or_else(nobody)?;
        let request = TestFenceRequest { node: node.to_string() };
        NodeServiceClient::new(line)
            .test_fence(request)
            .await
            .map_err(|status| ApiError::from_status(&status))
    };
    let answer = timeout(TESTED_WITHIN, ask).await.map_err(|_| nobody())??.into_inner();
    let said = answer.tests.iter().map(|test| match test.error.as_str() {
        "" => format!("{}: power is {}", test.method, test.power),
        error => format!("{}: FAILED: {error}", test.method),
    });
    Ok(format!("by {}: {}", answer.by, said.collect::<Vec<_>>().join("; ")))
}

/// A plan as the editor shows it: what changes, what follows, what would wait.
fn shown(plan: PlanResponse) -> Preview {
    let line = |level, text: String| PreviewLine { level, text };
    let changes = plan.changes.into_iter().map(|change| {
        let text = match (change.old.as_str(), change.new.as_str()) {
            ("", new) => format!("{}: {} = {new}", change.service, change.path),
            (old, "") => format!("{}: {} = {old} is removed", change.service, change.path),
            (old, new) => format!("{}: {} {old} -> {new}", change.service, change.path),
        };
        line(Level::Notice, text)
    });
    let actions = plan.actions.into_iter().map(|text| line(Level::Ok, text));
    let waiting = plan.waiting.into_iter().map(|text| line(Level::Warning, text));
    Preview { revision: Revision(plan.revision), lines: changes.chain(actions).chain(waiting).collect() }
}

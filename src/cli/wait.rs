//! Following what was asked for until it is so: a line on stderr for every change, a deadline, and an
//! honest error that names what it waits for.

use std::time::{Duration, Instant};

use clap::Args;
use quorate_core::ids::OperationId;
use quorate_core::spec::{SpecDefaults, parse};
use quorate_core::units::Millis;
use quorate_core::view::{ClusterView, InstanceState, OperationKindView, OperationView};

use super::connect::Client;
use super::show;
use super::table::span;
use crate::api::error::{ApiError, ErrorCode};
use crate::output::Output;

/// How often the cluster is looked at while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Args)]
pub(super) struct WaitArgs {
    /// Follow it until it is done
    #[arg(long)]
    pub(super) wait: bool,
    /// Give up waiting after this long; what was asked for goes on
    #[arg(long, default_value = "5m", value_name = "TIME", requires = "wait")]
    pub(super) timeout: Millis,
}

/// What is waited for.
#[derive(Debug, Clone)]
pub(super) enum Goal {
    /// Nothing beyond the operation that the write may have begun.
    None,
    /// An operation's end, as asked.
    Operation(u64),
    /// All copies of these services, of their newest version, healthy.
    Healthy(Vec<String>),
    /// No copy of the service.
    Stopped(String),
    /// No such service any more.
    Gone(String),
    /// No such node any more.
    Left(String),
}

/// The services that a spec names; none if it does not parse, which the node will say better.
pub(super) fn names(spec: &str) -> Vec<String> {
    let services = parse(spec, &SpecDefaults::default()).unwrap_or_default();
    services.iter().map(|service| service.name.to_string()).collect()
}

/// Waits until the goal is reached, telling every change.
pub(super) async fn follow(
    client: &mut Client,
    output: Output,
    args: &WaitArgs,
    goal: Goal,
    revision: u64,
) -> Result<(), ApiError> {
    let until = Instant::now() + Duration::from_millis(args.timeout.0);
    let mut told = String::new();
    loop {
        let progress = match show::seen(client, false).await {
            Ok(seen) if seen.view.revision.0 < revision => Progress::Doing("catching up".to_owned()),
            Ok(seen) => progress(&seen.view, &goal),
            // A leader change in between is no reason to give up before the deadline.
            Err(error) if matches!(error.code, ErrorCode::NoQuorum | ErrorCode::Unreachable) => {
                Progress::Doing(error.message)
            }
            Err(error) => return Err(error),
        };
        match progress {
            Progress::Done(text) => {
                say(output, &mut told, &text);
                return Ok(());
            }
            Progress::Failed(text) => {
                return Err(ApiError::new(ErrorCode::Failed, text, "`quorate why` tells more"));
            }
            Progress::Doing(text) => {
                say(output, &mut told, &text);
                if Instant::now() >= until {
                    return Err(ApiError::new(
                        ErrorCode::Unknown,
                        format!("not done after {}: {text}", args.timeout),
                        "it goes on; look with `quorate status`",
                    ));
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn say(output: Output, told: &mut String, text: &str) {
    if output == Output::Table && told != text {
        eprintln!("  {text}");
        text.clone_into(told);
    }
}

enum Progress {
    Doing(String),
    Done(String),
    Failed(String),
}

fn progress(view: &ClusterView, goal: &Goal) -> Progress {
    match goal {
        Goal::None => Progress::Done("done".to_owned()),
        Goal::Operation(id) => match view.operations.get(&OperationId(*id)) {
            None => Progress::Done(format!("operation {id} ended long ago")),
            Some(operation) => operation_progress(operation),
        },
        Goal::Healthy(names) => healthy(view, names),
        Goal::Stopped(name) => {
            let left = copies(view, name).count();
            if left == 0 {
                Progress::Done(format!("{name} is stopped"))
            } else {
                Progress::Doing(format!("{name}: {left} copies still to stop"))
            }
        }
        Goal::Gone(name) => match view.services.iter().find(|(service, _)| service.as_str() == name) {
            None => Progress::Done(format!("{name} is gone")),
            Some((_, service)) => Progress::Doing(service.verdict.sentence.clone()),
        },
        Goal::Left(name) => match view.nodes.iter().find(|(node, _)| node.as_str() == name) {
            None => Progress::Done(format!("{name} has left")),
            Some((_, node)) => {
                let drain = view.operations.values().find(|operation| {
                    operation.target == *name
                        && operation.kind == OperationKindView::Drain
                        && operation.result.is_none()
                });
                let blocked = drain.iter().flat_map(|drain| &drain.blocked);
                let blocked = blocked.map(|blocked| format!(", blocked: {}: {}", blocked.what, blocked.why));
                let (instances, blocked) = (node.instances, blocked.collect::<String>());
                Progress::Doing(format!("{name} still has {instances} instances{blocked}"))
            }
        },
    }
}

/// Copies that may still run.
fn copies<'a>(view: &'a ClusterView, name: &'a str) -> impl Iterator<Item = ()> + 'a {
    let all = view.instances.values().filter(move |instance| instance.service.as_str() == name);
    all.filter(|instance| {
        !matches!(instance.state, InstanceState::Waiting | InstanceState::Stopped | InstanceState::Failed)
    })
    .map(|_| ())
}

fn healthy(view: &ClusterView, names: &[String]) -> Progress {
    let mut missing = Vec::new();
    for name in names {
        let Some((_, service)) = view.services.iter().find(|(service, _)| service.as_str() == name) else {
            return Progress::Failed(format!("service {name} was deleted meanwhile"));
        };
        let newest = view.instances.values().filter(|instance| {
            instance.service == service.name
                && instance.version == service.version
                && instance.state == InstanceState::Running
                && instance.health.good()
        });
        let (have, wanted) = (newest.count(), service.replicas.wanted as usize);
        if have < wanted || service.replicas.running as usize > wanted {
            missing.push(format!("{name} {have}/{wanted} healthy, {}", service.verdict.sentence));
        }
    }
    if missing.is_empty() {
        Progress::Done(format!("{} healthy", names.join(", ")))
    } else {
        Progress::Doing(missing.join("; "))
    }
}

fn operation_progress(operation: &OperationView) -> Progress {
    let blocked =
        operation.blocked.iter().map(|blocked| format!(", blocked: {}: {}", blocked.what, blocked.why));
    let left = operation.eta_ms.map(|ms| format!(", about {} left", span(ms))).unwrap_or_default();
    match operation.result.as_deref() {
        Some("done") => Progress::Done(format!("operation {} done", operation.id)),
        Some(result) => Progress::Failed(format!("operation {} ended: {result}", operation.id)),
        None => Progress::Doing(format!(
            "{} {}/{}{left}{}",
            operation.phase,
            operation.done,
            operation.total,
            blocked.collect::<String>()
        )),
    }
}

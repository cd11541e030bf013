//! What an operator does: one call each, a word about what happened and, with `--wait`, the way there.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::connect::Client;
use super::wait::{self, Goal, WaitArgs};
use crate::api::error::{ApiError, ErrorCode};
use crate::api::proto;
use crate::api::proto::node_service_client::NodeServiceClient;
use crate::api::proto::service_service_client::ServiceServiceClient;
use crate::output::{Output, print, print_json};

/// No spec file may be larger; the node refuses more too.
const MAX_SPEC_BYTES: u64 = 1024 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate deploy -f web.yaml
  quorate deploy -f web.yaml --wait --timeout 60s
  cat web.yaml | quorate deploy -f -")]
pub(super) struct DeployArgs {
    /// YAML or JSON, one service or several; `-` reads stdin
    #[arg(short, long)]
    file: PathBuf,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate plan -f web.yaml")]
pub(super) struct PlanArgs {
    /// YAML or JSON, one service or several; `-` reads stdin
    #[arg(short, long)]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ServiceArgs {
    /// Which service
    service: String,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate scale web 5 --wait")]
pub(super) struct ScaleArgs {
    /// Which service
    service: String,
    /// To how many copies
    replicas: u32,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate migrate db               the planner chooses where to
  quorate migrate web/2 --to n3 --wait")]
pub(super) struct MigrateArgs {
    /// SERVICE with one copy, or SERVICE/ORDINAL
    slot: String,
    /// Where to
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate drain n2 --wait
  quorate uncordon n2              undo")]
pub(super) struct DrainArgs {
    /// Which node
    node: String,
    /// Moves at a time
    #[arg(long, default_value_t = 2)]
    max_in_flight: u32,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// Which node
    node: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate leave            the node asked leaves
  quorate leave n3 --wait")]
pub(super) struct LeaveArgs {
    /// Which node; the one asked by default
    node: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    /// The operation's number, as `quorate operations` shows it
    operation: u64,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate attest n2 --dead --reason 'pulled its power cord myself'")]
pub(super) struct AttestArgs {
    /// Which node
    node: String,
    /// It is dead: powered off, nothing of it runs or will run by itself
    #[arg(long, required = true)]
    dead: bool,
    /// How you know, for the audit trail
    #[arg(long)]
    reason: String,
}

/// Calls one of a service's methods with a request that carries write options.
macro_rules! write_call {
    ($client:expr, $service:ident :: $method:ident, $request:expr) => {{
        let request = $request;
        $client
            .call(|connection| {
                let request = request.clone();
                async move { $service::new(connection).$method(request).await }
            })
            .await
    }};
}
pub(super) use write_call;

/// Says what a write did, then follows it where that was asked for.
pub(super) async fn done(
    client: &mut Client,
    output: Output,
    what: &str,
    answer: proto::WriteResponse,
    wait: Option<(&WaitArgs, Goal)>,
) -> Result<(), ApiError> {
    let operation = (answer.operation > 0).then_some(answer.operation);
    if output == Output::Json {
        print_json(&json!({
            "revision": answer.revision,
            "changed": answer.changed,
            "operation": operation,
        }))?;
    } else {
        let by = operation.map(|id| format!(", operation {id}")).unwrap_or_default();
        let same = if answer.changed { "" } else { " (it was so already)" };
        print(&format!("{what}{same}: revision {}{by}\n", answer.revision))?;
    }
    match wait {
        Some((args, goal)) if args.wait => {
            let goal = operation.map_or(goal, Goal::Operation);
            wait::follow(client, output, args, goal, answer.revision).await
        }
        _ => Ok(()),
    }
}

fn read_spec(file: &PathBuf) -> Result<String, ApiError> {
    use std::io::Read;
    let unreadable = |error: std::io::Error| {
        ApiError::new(ErrorCode::Usage, format!("{} cannot be read: {error}", file.display()), "")
    };
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(unreadable)?)
    };
    source.take(MAX_SPEC_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_SPEC_BYTES {
        return Err(ApiError::new(
            ErrorCode::Usage,
            format!("{} is larger than {MAX_SPEC_BYTES} bytes", file.display()),
            "split it into several files",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ApiError::new(
            ErrorCode::Usage,
            format!("{} is not UTF-8 at byte {at}", file.display()),
            "save it as UTF-8",
        )
    })
}

pub(super) async fn deploy(client: &mut Client, output: Output, args: DeployArgs) -> Result<(), ApiError> {
    let spec = read_spec(&args.file)?;
    let options = Some(client.write_options());
    let names = wait::names(&spec);
    let answer = write_call!(
        client,
        ServiceServiceClient::deploy_service,
        proto::DeployServiceRequest { spec: spec.clone(), options: options.clone() }
    )?;
    let what = format!("deployed {}", names.join(", "));
    done(client, output, &what, answer, Some((&args.wait, Goal::Healthy(names)))).await
}

pub(super) async fn plan(client: &mut Client, output: Output, args: PlanArgs) -> Result<(), ApiError> {
    let spec = read_spec(&args.file)?;
    let plan = write_call!(
        client,
        ServiceServiceClient::plan_service,
        proto::DeployServiceRequest { spec: spec.clone(), options: None }
    )?;
    if output == Output::Json {
        let changes = plan.changes.iter().map(|change| {
            json!({"service": change.service, "path": change.path, "old": change.old, "new": change.new})
        });
        return print_json(&json!({
            "revision": plan.revision,
            "changes": changes.collect::<Vec<_>>(),
            "actions": plan.actions,
            "waiting": plan.waiting,
        }));
    }
    let mut text = String::new();
    for change in &plan.changes {
        let line = match (change.old.as_str(), change.new.as_str()) {
            ("", new) => format!("+ {}: {} = {new}\n", change.service, change.path),
            (old, "") => format!("- {}: {} = {old}\n", change.service, change.path),
            (old, new) => format!("~ {}: {} = {old} -> {new}\n", change.service, change.path),
        };
        text.push_str(&line);
    }
    if plan.changes.is_empty() {
        text.push_str("nothing changes\n");
    }
    for action in &plan.actions {
        text.push_str(&format!("would: {action}\n"));
    }
    for waiting in &plan.waiting {
        text.push_str(&format!("would wait: {waiting}\n"));
    }
    print(&text)
}

pub(super) async fn stop(client: &mut Client, output: Output, args: ServiceArgs) -> Result<(), ApiError> {
    let request = service_request(client, &args);
    let answer = write_call!(client, ServiceServiceClient::stop_service, request.clone())?;
    let goal = Goal::Stopped(args.service.clone());
    done(client, output, &format!("stopping {}", args.service), answer, Some((&args.wait, goal))).await
}

pub(super) async fn restart(client: &mut Client, output: Output, args: ServiceArgs) -> Result<(), ApiError> {
    let request = service_request(client, &args);
    let answer = write_call!(client, ServiceServiceClient::restart_service, request.clone())?;
    let goal = Goal::Healthy(vec![args.service.clone()]);
    done(client, output, &format!("restarting {}", args.service), answer, Some((&args.wait, goal))).await
}

pub(super) async fn delete(client: &mut Client, output: Output, args: ServiceArgs) -> Result<(), ApiError> {
    let request = service_request(client, &args);
    let answer = write_call!(client, ServiceServiceClient::delete_service, request.clone())?;
    let goal = Goal::Gone(args.service.clone());
    done(client, output, &format!("deleting {}", args.service), answer, Some((&args.wait, goal))).await
}

fn service_request(client: &mut Client, args: &ServiceArgs) -> proto::ServiceRequest {
    proto::ServiceRequest { service: args.service.clone(), options: Some(client.write_options()) }
}

pub(super) async fn scale(client: &mut Client, output: Output, args: ScaleArgs) -> Result<(), ApiError> {
    let request = proto::ScaleServiceRequest {
        service: args.service.clone(),
        replicas: args.replicas,
        options: Some(client.write_options()),
    };
    let answer = write_call!(client, ServiceServiceClient::scale_service, request.clone())?;
    let what = format!("scaled {} to {}", args.service, args.replicas);
    let goal = Goal::Healthy(vec![args.service.clone()]);
    done(client, output, &what, answer, Some((&args.wait, goal))).await
}

pub(super) async fn migrate(client: &mut Client, output: Output, args: MigrateArgs) -> Result<(), ApiError> {
    let request = proto::MigrateServiceRequest {
        slot: args.slot.clone(),
        to: args.to.clone().unwrap_or_default(),
        options: Some(client.write_options()),
    };
    let answer = write_call!(client, ServiceServiceClient::migrate_service, request.clone())?;
    done(client, output, &format!("migrating {}", args.slot), answer, Some((&args.wait, Goal::None))).await
}

pub(super) async fn drain(client: &mut Client, output: Output, args: DrainArgs) -> Result<(), ApiError> {
    let request = proto::DrainNodeRequest {
        node: args.node.clone(),
        max_in_flight: args.max_in_flight,
        options: Some(client.write_options()),
    };
    let answer = write_call!(client, NodeServiceClient::drain_node, request.clone())?;
    let what = format!("draining {} (undo: quorate uncordon {})", args.node, args.node);
    done(client, output, &what, answer, Some((&args.wait, Goal::None))).await
}

pub(super) async fn cordon(client: &mut Client, output: Output, args: NodeArgs) -> Result<(), ApiError> {
    let options = Some(client.write_options());
    let request = proto::CordonNodeRequest { node: args.node.clone(), on: true, options };
    let answer = write_call!(client, NodeServiceClient::cordon_node, request.clone())?;
    done(client, output, &format!("cordoned {}", args.node), answer, None).await
}

pub(super) async fn uncordon(client: &mut Client, output: Output, args: NodeArgs) -> Result<(), ApiError> {
    let request =
        proto::UncordonNodeRequest { node: args.node.clone(), options: Some(client.write_options()) };
    let answer = write_call!(client, NodeServiceClient::uncordon_node, request.clone())?;
    done(client, output, &format!("uncordoned {}", args.node), answer, None).await
}

pub(super) async fn leave(client: &mut Client, output: Output, args: LeaveArgs) -> Result<(), ApiError> {
    let node = match args.node {
        Some(node) => node,
        None => super::show::seen(client, true).await?.view.me.to_string(),
    };
    let request = proto::LeaveNodeRequest { node: node.clone(), options: Some(client.write_options()) };
    let answer = write_call!(client, NodeServiceClient::leave_node, request.clone())?;
    let goal = Goal::Left(node.clone());
    let wait = Some((&args.wait, goal));
    done(client, output, &format!("{node} is leaving"), answer, wait).await
}

pub(super) async fn cancel(client: &mut Client, output: Output, args: CancelArgs) -> Result<(), ApiError> {
    let options = Some(client.write_options());
    let request = proto::CancelOperationRequest { operation: args.operation, options };
    let answer = write_call!(client, ServiceServiceClient::cancel_operation, request.clone())?;
    done(client, output, &format!("cancelling operation {}", args.operation), answer, None).await
}

pub(super) async fn attest(client: &mut Client, output: Output, args: AttestArgs) -> Result<(), ApiError> {
    // `--dead` is required by the arguments: the word has to be typed.
    let AttestArgs { node, dead: _, reason } = args;
    let request =
        proto::AttestNodeRequest { node: node.clone(), reason, options: Some(client.write_options()) };
    let answer = write_call!(client, NodeServiceClient::attest_node, request.clone())?;
    done(client, output, &format!("attested that {node} is dead"), answer, None).await
}

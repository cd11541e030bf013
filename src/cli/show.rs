//! What there is to see: lists, the status, and why. Tables for people, the published JSON for scripts.

use std::sync::Arc;

use clap::Args;
use quorate_core::view::items::{Items, assemble, take_in};
use quorate_core::view::{ClusterView, InstanceView, Level, NodeView, Why};
use serde::Serialize;
use serde_json::{Value, json};

use super::connect::Client;
use super::table::{Table, clock, span};
use crate::api::error::{ApiError, ErrorCode};
use crate::api::proto;
use crate::api::proto::view_service_client::ViewServiceClient;
use crate::output::{Output, print, print_json};

/// The view is one message; a large cluster's does not fit the usual 4 MiB.
const MAX_VIEW_BYTES: usize = 256 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate nodes
  quorate instances -o json | jq '.items[] | select(.state != \"running\")'
  quorate services --watch -o json     one object a change
  quorate status --local               this node's own picture, without quorum too")]
pub(super) struct ListArgs {
    /// Only rows that contain this
    pub(super) filter: Option<String>,
    /// Answer from the node's own copy, with its age, instead of after a quorum round
    #[arg(long)]
    local: bool,
    /// Print again at every change until interrupted
    #[arg(short, long)]
    pub(super) watch: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate why web            a service
  quorate why web/0          one copy of it
  quorate why n2             a node
  quorate why 17             an operation
  quorate why cluster        the whole")]
pub(super) struct WhyArgs {
    /// A node, a service, SERVICE/ORDINAL, an operation's number or `cluster`
    subject: String,
}

/// The view with where it comes from.
pub(super) struct Seen {
    pub(super) view: ClusterView,
    pub(super) source: &'static str,
    pub(super) age_ms: u64,
}

/// One kind of list: its rows in JSON and as a table.
struct List {
    rows: fn(&ClusterView) -> Vec<Value>,
    table: fn(&ClusterView, &str) -> String,
}

pub(super) async fn seen(client: &mut Client, local: bool) -> Result<Seen, ApiError> {
    let view = client
        .call(|connection| async move {
            let mut client = ViewServiceClient::new(connection).max_decoding_message_size(MAX_VIEW_BYTES);
            client.get(proto::GetViewRequest { local }).await
        })
        .await?;
    let origin = view.origin.unwrap_or_default();
    let source = if origin.source == i32::from(proto::Source::Local) { "local" } else { "linearizable" };
    let view = serde_json::from_slice(&view.json).map_err(|error| {
        ApiError::new(
            ErrorCode::Failed,
            format!("the node's view cannot be read: {error}"),
            "use the same release here and there",
        )
    })?;
    Ok(Seen { view, source, age_ms: origin.age_ms })
}

async fn list(client: &mut Client, output: Output, args: &ListArgs, list: List) -> Result<(), ApiError> {
    let filter = args.filter.as_deref().unwrap_or_default().to_owned();
    let show = move |seen: &Seen| match output {
        Output::Json => print_json(&json!({
            "revision": seen.view.revision,
            "source": seen.source,
            "age_ms": seen.age_ms,
            "items": keep((list.rows)(&seen.view), &filter),
        })),
        Output::Table => print(&(list.table)(&seen.view, &filter)),
    };
    if args.watch { watch(client, show).await } else { show(&seen(client, args.local).await?) }
}

/// Calls `show` for every new view until the caller is interrupted; moves on when a node goes away.
pub(super) async fn watch(
    client: &mut Client,
    show: impl Fn(&Seen) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut items = Items::new();
    loop {
        let mut stream = client
            .call(|connection| async move {
                ViewServiceClient::new(connection).watch(proto::WatchViewRequest {}).await
            })
            .await?;
        while let Ok(Some(change)) = stream.message().await {
            if change.reset {
                items.clear();
            }
            let changed = change.items.into_iter().map(|item| ((item.kind, item.key), item.json.to_vec()));
            take_in(&mut items, changed.collect());
            if !change.partial {
                let view = assemble(&items)
                    .map_err(|error| ApiError::new(ErrorCode::Failed, error.to_string(), ""))?;
                let age_ms = view.standing.data_age_ms;
                show(&Seen { view, source: "local", age_ms })?;
            }
        }
        client.pass_on();
    }
}

fn keep(rows: Vec<Value>, filter: &str) -> Vec<Value> {
    rows.into_iter().filter(|row| filter.is_empty() || row.to_string().contains(filter)).collect()
}

fn kept<T: Serialize>(row: &T, filter: &str) -> bool {
    filter.is_empty() || serde_json::to_string(row).is_ok_and(|text| text.contains(filter))
}

fn rows<'a, T: Serialize + 'a>(items: impl IntoIterator<Item = &'a Arc<T>>) -> Vec<Value> {
    items.into_iter().filter_map(|item| serde_json::to_value(&**item).ok()).collect()
}

fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

pub(super) async fn nodes(client: &mut Client, output: Output, args: &ListArgs) -> Result<(), ApiError> {
    list(client, output, args, List { rows: |view| rows(view.nodes.values()), table: nodes_table }).await
}

fn nodes_table(view: &ClusterView, filter: &str) -> String {
    let heading =
        ["NODE", "STATE", "ROLE", "LEASE", "HEARD", "CPU", "MEMORY", "INSTANCES", "EXECUTORS", "NOTES"];
    let mut table = Table::new(heading);
    for node in view.nodes.values().filter(|node| kept(node, filter)) {
        let role = match (node.leader, node.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let resources = &node.resources;
        let notes = [
            (!node.schedulable).then_some("nothing new"),
            node.drained.then_some("drained"),
            node.isolated.then_some("isolated"),
            node.witness.then_some("witness"),
            node.fence_methods.is_empty().then_some("no fence method"),
            unfenceable(node).then_some("a fence method that no node can use"),
        ];
        table.row([
            node.name.to_string(),
            word(&node.state),
            role.to_owned(),
            span(node.lease_left_ms),
            node.heard_ms.map(|ms| format!("{} ago", span(ms))).unwrap_or_default(),
            format!("{}/{}", resources.reserved.cpu, resources.capacity.cpu),
            format!("{}/{}", resources.reserved.memory.0, resources.capacity.memory),
            node.instances.to_string(),
            usable(node),
            notes.into_iter().flatten().collect::<Vec<_>>().join(", "),
        ]);
    }
    table.text("no nodes: this one has not joined a cluster yet")
}

/// What the node can run now. Why it cannot run the rest is in its JSON and in the cockpit.
fn usable(node: &NodeView) -> String {
    let usable = node.executors.iter().filter(|one| one.unavailable.is_none());
    usable.map(|one| one.kind.to_string()).collect::<Vec<_>>().join(",")
}

/// Is there a method that every node lacks something for?
fn unfenceable(node: &NodeView) -> bool {
    let mut methods = node.fencing.levels.iter().flatten();
    methods.any(|method| method.able.is_empty() && !method.missing.is_empty())
}

pub(super) async fn services(client: &mut Client, output: Output, args: &ListArgs) -> Result<(), ApiError> {
    list(client, output, args, List { rows: |view| rows(view.services.values()), table: services_table })
        .await
}

fn services_table(view: &ClusterView, filter: &str) -> String {
    let mut table =
        Table::new(["SERVICE", "PRIORITY", "EXCLUSIVE", "HEALTHY", "VERSION", "NODES", "VERDICT", "WHY"]);
    for service in view.services.values().filter(|service| kept(service, filter)) {
        table.row([
            service.name.to_string(),
            service.priority.to_string(),
            if service.exclusive { "yes" } else { "no" }.to_owned(),
            format!("{}/{}", service.replicas.healthy, service.replicas.wanted),
            service.version.to_string(),
            service.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            service.verdict.word.clone(),
            service.verdict.sentence.clone(),
        ]);
    }
    table.text("no services: deploy one with `quorate deploy -f FILE`")
}

pub(super) async fn instances(client: &mut Client, output: Output, args: &ListArgs) -> Result<(), ApiError> {
    list(client, output, args, List { rows: |view| rows(view.instances.values()), table: instances_table })
        .await
}

fn instances_table(view: &ClusterView, filter: &str) -> String {
    let mut table = Table::new(["SLOT", "NODE", "STATE", "HEALTH", "TOKEN", "PID", "RESTARTS", "WAITS FOR"]);
    for instance in view.instances.values().filter(|instance| kept(instance, filter)) {
        table.row([
            instance.slot.clone(),
            instance.node.as_ref().map(ToString::to_string).unwrap_or_default(),
            format!("{}{}", word(&instance.state), if instance.observed { "" } else { "?" }),
            word(&instance.health),
            instance.token.clone().unwrap_or_default(),
            instance.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            instance.restarts.to_string(),
            waits(instance),
        ]);
    }
    table.text("no instances: nothing is deployed")
}

fn waits(instance: &InstanceView) -> String {
    let lines = instance.waiting.iter().map(|waiting| match waiting.until_ms {
        Some(ms) => format!("{} ({})", waiting.reason, span(ms)),
        None => waiting.reason.clone(),
    });
    lines.collect::<Vec<_>>().join("; ")
}

pub(super) async fn operations(client: &mut Client, output: Output, args: &ListArgs) -> Result<(), ApiError> {
    list(client, output, args, List { rows: |view| rows(view.operations.values()), table: operations_table })
        .await
}

fn operations_table(view: &ClusterView, filter: &str) -> String {
    let mut table = Table::new(["ID", "KIND", "TARGET", "TO", "PHASE", "DONE", "BYTES", "LEFT", "RESULT"]);
    for operation in view.operations.values().filter(|operation| kept(operation, filter)) {
        let blocked = operation.blocked.iter().map(|blocked| format!("{}: {}", blocked.what, blocked.why));
        table.row([
            operation.id.to_string(),
            word(&operation.kind),
            operation.target.clone(),
            operation.to.as_ref().map(ToString::to_string).unwrap_or_default(),
            operation.phase.clone(),
            format!("{}/{}", operation.done, operation.total),
            if operation.bytes_total > 0 {
                format!("{}/{}", operation.bytes, operation.bytes_total)
            } else {
                String::new()
            },
            operation.eta_ms.map(span).unwrap_or_default(),
            operation.result.clone().unwrap_or_else(|| blocked.collect::<Vec<_>>().join("; ")),
        ]);
    }
    table.text("no operations: nothing is being drained, moved, rolled out or fenced")
}

pub(super) async fn events(client: &mut Client, output: Output, args: &ListArgs) -> Result<(), ApiError> {
    list(client, output, args, List { rows: |view| rows(&view.events), table: events_table }).await
}

fn events_table(view: &ClusterView, filter: &str) -> String {
    let mut table = Table::new(["TIME", "REVISION", "LEVEL", "SUBJECT", "WHAT", "BY"]);
    for event in view.events.iter().filter(|event| kept(event, filter)) {
        table.row([
            clock(event.at.0),
            event.revision.to_string(),
            word(&event.level),
            event.subject.clone(),
            event.text.clone(),
            event.by.clone().unwrap_or_default(),
        ]);
    }
    table.text("no events")
}

pub(super) async fn status(client: &mut Client, output: Output, args: &ListArgs) -> Result<(), ApiError> {
    let show = move |seen: &Seen| match output {
        Output::Json => print_json(&json!({
            "revision": seen.view.revision,
            "source": seen.source,
            "age_ms": seen.age_ms,
            "me": seen.view.me,
            "cluster": seen.view.cluster,
            "standing": seen.view.standing,
            "verdict": seen.view.verdict,
            "countdowns": seen.view.countdowns,
            "nodes": rows(seen.view.nodes.values()),
            "services": rows(seen.view.services.values()),
        })),
        Output::Table => print(&status_text(&seen.view)),
    };
    if args.watch {
        return watch(client, show).await;
    }
    // Without quorum the node's own picture is what there is, and it says so.
    let found = match seen(client, args.local).await {
        Err(error) if error.code == ErrorCode::NoQuorum => seen(client, true).await?,
        other => other?,
    };
    show(&found)
}

fn status_text(view: &ClusterView) -> String {
    let mark = match view.verdict.level {
        Level::Ok => "ok",
        Level::Notice => "--",
        Level::Warning => "!",
        Level::Critical => "!!",
    };
    let mut text = format!(
        "{} ({}), seen from {}\n{}\n{mark} {}\n\n",
        view.cluster.name, view.cluster.id, view.me, view.standing.sentence, view.verdict.sentence
    );
    if !view.countdowns.is_empty() {
        let mut table = Table::new(["IN", "SUBJECT", "ACTION", "WHY", "THEN"]);
        for countdown in &view.countdowns {
            table.row([
                countdown.in_ms.map(span).unwrap_or_default(),
                countdown.subject.clone(),
                countdown.action.clone(),
                countdown.why.clone(),
                countdown.then.clone(),
            ]);
        }
        text.push_str(&table.text(""));
        text.push('\n');
    }
    text.push_str(&nodes_table(view, ""));
    text.push('\n');
    text.push_str(&services_table(view, ""));
    text
}

pub(super) async fn why(client: &mut Client, output: Output, args: &WhyArgs) -> Result<(), ApiError> {
    let subject = &args.subject;
    let answer = client
        .call(|connection| async move {
            let request = proto::WhyRequest { subject: subject.clone() };
            proto::service_service_client::ServiceServiceClient::new(connection).why(request).await
        })
        .await?;
    let why = Why {
        subject: answer.subject,
        verdict: answer.verdict,
        because: answer.because,
        evidence: answer
            .evidence
            .into_iter()
            .map(|item| quorate_core::view::EvidenceView {
                kind: item.kind,
                holds: item.holds,
                detail: item.detail,
                left_ms: item.left_ms,
            })
            .collect(),
        next: answer
            .next
            .into_iter()
            .map(|step| quorate_core::view::NextView {
                what: step.what,
                when_ms: step.when_ms,
                condition: Some(step.condition).filter(|condition| !condition.is_empty()),
            })
            .collect(),
    };
    match output {
        Output::Json => print_json(&why),
        Output::Table => print(&why_text(&why)),
    }
}

fn why_text(why: &Why) -> String {
    let mut text = format!("{}: {}\n", why.subject, why.verdict);
    for line in &why.because {
        text.push_str(&format!("  because {line}\n"));
    }
    if !why.evidence.is_empty() {
        text.push_str("  it may start elsewhere once one of these holds:\n");
        for item in &why.evidence {
            let mark = if item.holds { 'x' } else { ' ' };
            let left = item.left_ms.map(|ms| format!(", in {}", span(ms))).unwrap_or_default();
            text.push_str(&format!("    [{mark}] {:<18} {}{left}\n", item.kind, item.detail));
        }
    }
    for step in &why.next {
        let when = step.when_ms.map(|ms| format!(" in {}", span(ms))).unwrap_or_default();
        let condition = step.condition.as_ref().map(|text| format!(", if {text}")).unwrap_or_default();
        text.push_str(&format!("  next: {}{when}{condition}\n", step.what));
    }
    text
}

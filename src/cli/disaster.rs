//! After a disaster: a snapshot saved and restored, a lost majority gone on without. What destroys is shown first
//! and done only when the cluster's name was typed and a reason given.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_core::command::Actor;
use quorate_core::ids::{Epoch, NodeId, Revision};
use quorate_core::state::JOIN_ANEW;
use serde_json::{Value, json};

use super::Global;
use super::connect::{Client, host_name, user};
use super::losses::{copies, losses, to_be_heard};
use super::table::clock;
use crate::api::error::{ApiError, ErrorCode};
use crate::api::proto;
use crate::api::proto::cluster_service_client::ClusterServiceClient;
use crate::node::rescue::{self, Recovered, Stopped};
use crate::output::{Output, print, print_json};
use crate::places::default_data_dir;
use crate::raft::rescue::Position;
use crate::snapshot_file::{self, Draft, Header};

/// The last step of every way back.
const STILL_WAITED_FOR: &str = "see what is still waited for: quorate why cluster; for a node that is gone for good: \
                                quorate attest NODE --dead --reason WHY";

/// How long a survivor may go on believing in a leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  quorate snapshot save before-upgrade.snapshot
  quorate snapshot restore before-upgrade.snapshot --config n1.yaml")]
pub(super) enum SnapshotCommand {
    /// Save the whole State, as of now, to a file
    #[command(after_help = "Examples:
  quorate snapshot save /backup/$(date +%F).snapshot
  quorate snapshot save nightly.snapshot -o json

The file holds every key and value of the key-value store: it is made for its owner alone. It holds no secret
of the cluster and nothing of the services' own state folders.")]
    Save {
        /// Where to; a file that is there already is not touched
        file: PathBuf,
    },
    /// Make a new cluster of one voter from a saved State, in a higher epoch
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate snapshot restore nightly.snapshot --config n1.yaml
      shows what is in it and what would be gone
  quorate snapshot restore nightly.snapshot --config n1.yaml --confirm prod --reason 'ticket 4711: all disks lost'
      does it; then start the node, and let the others join it anew

Stop every node of the old cluster first. The node's data_dir may hold its earlier data: the old log is kept
beside the new one, and what runs there goes on. Nothing exclusive is granted before every node that the snapshot
knows has said what it runs, was fenced, or was attested dead.")]
pub(super) struct RestoreArgs {
    /// What `quorate snapshot save` made
    file: PathBuf,
    /// The file of the node that is to be the first; --data-dir overrides its data_dir
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    sure: SureArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate raft recover --survivors n1,n2 --data-dir /var/lib/quorate
      shows how far each survivor's log goes and what may be gone
  quorate raft recover --survivors n1,n2 --data-dir /var/lib/quorate --confirm prod --reason 'rack 3 burnt'
      does it; then start this node: the other survivors follow by themselves

For a majority that is gone for good. Run it where one survivor has its data, with that node stopped and the other
survivors running: the one with the longest log has to be the one. Every other node is refused from then on.")]
pub(super) struct RecoverArgs {
    /// The voters that are left, this node among them
    #[arg(long, required = true, value_name = "NODE,..", value_delimiter = ',')]
    survivors: Vec<NodeId>,
    #[command(flatten)]
    sure: SureArgs,
}

/// What has to be typed before anything is done.
#[derive(Debug, Args)]
struct SureArgs {
    /// The cluster's name: without it nothing is changed, only shown
    #[arg(long, value_name = "CLUSTER", requires = "reason")]
    confirm: Option<String>,
    /// Why, for the audit trail
    #[arg(long)]
    reason: Option<String>,
}

impl SureArgs {
    /// The reason, if it is to be done.
    fn settled(&self, cluster: &str) -> Result<Option<&str>, ApiError> {
        let Some(typed) = &self.confirm else { return Ok(None) };
        if typed != cluster {
            return Err(rejected(
                format!("this cluster is called {cluster:?}, not {typed:?}; nothing was changed"),
                format!("if it is the one you mean: --confirm {cluster}"),
            ));
        }
        let reason = self.reason.as_deref().unwrap_or_default().trim();
        if reason.is_empty() {
            return Err(ApiError::new(
                ErrorCode::Usage,
                "a recovery needs a reason; nothing was changed",
                "say why with --reason: it is kept in the audit trail",
            ));
        }
        Ok(Some(reason))
    }
}

fn rejected(message: impl Into<String>, remedy: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Rejected, message, remedy)
}

fn failed(error: &anyhow::Error) -> ApiError {
    rejected(format!("{error:#}; nothing was changed"), "")
}

fn operator() -> Actor {
    Actor::Operator { name: user(), from: format!("cli@{}", host_name()) }
}

pub(super) async fn save(client: &mut Client, output: Output, file: &Path) -> Result<(), ApiError> {
    let mut parts = client
        .call(|connection| async move {
            ClusterServiceClient::new(connection).save_snapshot(proto::SaveSnapshotRequest {}).await
        })
        .await?;
    let broken = |error: anyhow::Error| ApiError::failed(&error);
    let mut draft: Option<Draft> = None;
    while let Some(part) = parts.message().await.map_err(|status| ApiError::from_status(&status))? {
        match &mut draft {
            Some(draft) => draft.add(&part.body).map_err(broken)?,
            None => {
                let header: Header =
                    serde_json::from_slice(&part.header).map_err(|error| broken(error.into()))?;
                draft = Some(Draft::begin(file, header).map_err(|error| failed(&error))?);
            }
        }
    }
    let draft = draft.ok_or_else(|| broken(anyhow::anyhow!("the node sent no snapshot")))?;
    let header = draft.finish().map_err(broken)?;
    match output {
        Output::Json => print_json(&json!({ "file": file, "snapshot": header })),
        Output::Table => print(&format!("saved {} to {}\n", words(&header), file.display())),
    }
}

fn words(header: &Header) -> String {
    format!(
        "revision {} of cluster {} (epoch {}, {} bytes, sha256 {})",
        header.revision, header.name, header.epoch, header.bytes, header.sha256
    )
}

/// What is shown before and after.
struct Report {
    what: String,
    details: Value,
    losses: Vec<String>,
    next: Vec<String>,
    done: Option<Recovered>,
}

impl Report {
    fn print(self, output: Output) -> Result<(), ApiError> {
        let Self { what, mut details, losses, next, done } = self;
        if output == Output::Json {
            details["applied"] = json!(done.is_some());
            details["possible_losses"] = json!(losses);
            details["next"] = json!(next);
            if let Some(done) = done {
                details["epoch"] = json!(done.epoch);
                details["revision"] = json!(done.revision);
                details["cluster_id"] = json!(done.cluster);
                details["old_log"] = json!(done.kept);
            }
            return print_json(&details);
        }
        let mut text = format!("{what}\n\nwhat may be gone:\n");
        losses.iter().for_each(|loss| text.push_str(&format!("  - {loss}\n")));
        match &done {
            None => text.push_str("\nnothing was changed. To do it:\n"),
            Some(done) => {
                text.push_str(&format!(
                    "\ndone: epoch {} begins at revision {}\n",
                    done.epoch, done.revision
                ));
                if let Some(kept) = &done.kept {
                    text.push_str(&format!("the old log is kept in {}\n", kept.display()));
                }
                text.push_str("\nnext:\n");
            }
        }
        next.iter().for_each(|step| text.push_str(&format!("  - {step}\n")));
        print(&text)
    }
}

pub(super) fn restore(global: &Global, args: &RestoreArgs) -> Result<(), ApiError> {
    if !args.file.exists() {
        return Err(ApiError::new(ErrorCode::NotFound, format!("no file {}", args.file.display()), ""));
    }
    let (header, state) = snapshot_file::read(&args.file).map_err(|error| failed(&error))?;
    let config = crate::node::read_config(&args.config).map_err(|error| {
        ApiError::new(ErrorCode::Usage, format!("{error:#}"), "name the file the node is started with")
    })?;
    let dir = global.data_dir.clone().or_else(|| config.data_dir.clone().map(PathBuf::from));
    let dir = dir.unwrap_or_else(default_data_dir);
    let node = config.node.clone();
    let reason = args.sure.settled(&header.name)?;
    let done = reason
        .map(|reason| rescue::restore((&header, &state), &config, &dir, operator(), reason))
        .transpose()
        .map_err(|error| failed(&error))?;
    let start = format!("start this node: quorate node --config {}", args.config.display());
    let next = match &done {
        None => vec![format!(
            "stop every node of the old cluster, then add --confirm {} --reason WHY",
            header.name
        )],
        Some(_) => vec![start, format!("on every other node: {JOIN_ANEW}"), STILL_WAITED_FOR.to_owned()],
    };
    let report = Report {
        what: format!(
            "{}\nsaved {} by {}; it becomes the State of a new cluster whose one voter is {node}, in {}",
            words(&header),
            clock(header.saved_at.0),
            header.node,
            dir.display()
        ),
        details: json!({
            "file": args.file, "snapshot": header, "node": node, "data_dir": dir,
            "cluster": header.name, "reason": reason, "to_be_heard": state.nodes.keys().collect::<Vec<_>>(),
        }),
        losses: vec![
            format!("every acknowledged write after revision {} (saved {})", header.revision, clock(header.saved_at.0)),
            "nodes that joined after it are not known: make sure that nothing of them runs, or let them join anew"
                .to_owned(),
            format!(
                "copies granted after it are found where they run; nothing exclusive starts before {} each said \
                 what they run, were fenced or attested dead",
                to_be_heard(&state)
            ),
        ],
        next,
        done,
    };
    report.print(global.output)
}

/// How far a survivor's log goes, as it says itself.
#[derive(Debug, Clone)]
struct Asked {
    node: NodeId,
    answer: Result<Value, ApiError>,
}

impl Asked {
    /// Does it follow a leader that has a quorum, as far as it knows?
    fn follows(&self) -> bool {
        self.answer.as_ref().is_ok_and(|status| status["accepting_proposals"] == true)
    }

    /// The epoch it has agreed to be in.
    fn epoch(&self) -> Epoch {
        let said = self.answer.as_ref().ok().and_then(|status| status["epoch"].as_u64());
        Epoch(said.unwrap_or_default())
    }

    /// The last entry it knows to be committed.
    fn committed(&self) -> u64 {
        let said = self.answer.as_ref().ok().and_then(|status| status["committed"].as_u64());
        said.unwrap_or_default()
    }

    fn position(&self) -> Option<Position> {
        let status = self.answer.as_ref().ok()?;
        Some(Position { term: status["last_log_term"].as_u64()?, index: status["last_log"].as_u64()? })
    }
}

/// Asks until nobody believes in a leader any more: one that fell silent just now is believed in for a lease.
async fn ask_patiently(stopped: &Stopped) -> Result<Vec<Asked>, ApiError> {
    let deadline = tokio::time::Instant::now() + LEADER_PATIENCE;
    loop {
        let asked = ask_all(stopped).await?;
        if !asked.iter().any(Asked::follows) || tokio::time::Instant::now() >= deadline {
            return Ok(asked);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn ask_all(stopped: &Stopped) -> Result<Vec<Asked>, ApiError> {
    let secret = stopped.secret().map_err(|error| failed(&error))?;
    let others =
        stopped.voters().into_iter().filter_map(|(_, node)| node).filter(|node| node != stopped.me());
    let asks = others.map(|node| {
        let api = stopped.state().nodes.get(&node).map(|record| record.facts.api.clone()).unwrap_or_default();
        let secret = secret.clone();
        async move {
            let answer = ask(api, secret).await;
            Asked { node, answer }
        }
    });
    let mut asked = futures::future::join_all(asks).await;
    asked.sort_by(|one, two| one.node.cmp(&two.node));
    Ok(asked)
}

async fn ask(api: String, secret: Option<String>) -> Result<Value, ApiError> {
    let mut client = Client::of(vec![api], secret)?;
    let status = client
        .call(|connection| async move {
            ClusterServiceClient::new(connection).raft_status(proto::RaftStatusRequest {}).await
        })
        .await?;
    serde_json::from_str(&status.json).map_err(|error| ApiError::failed(&error.into()))
}

pub(super) async fn recover(global: &Global, args: &RecoverArgs) -> Result<(), ApiError> {
    let dir = global.data_dir.clone().unwrap_or_else(default_data_dir);
    let stopped = Stopped::open(&dir).map_err(|error| failed(&error))?;
    let asked = ask_patiently(&stopped).await?;
    let own = stopped.held().last;
    vet(&stopped, args, &asked)?;
    let me = stopped.me().clone();
    let (held, state) = (stopped.held().clone(), stopped.state().clone());
    let name = state.cluster.name.clone();
    let reason = args.sure.settled(&name)?;
    // What any survivor knows to be committed is in the longest of their logs.
    let theirs = asked.iter().filter(|asked| among(args, asked.node.as_str())).map(Asked::committed);
    let kept = theirs.chain([held.committed]).max().unwrap_or_default().min(own.index);
    let lost: Vec<String> =
        state.nodes.keys().map(ToString::to_string).filter(|node| !among(args, node)).collect();
    let survivors: Vec<String> = args.survivors.iter().map(ToString::to_string).collect();
    let done = match reason {
        None => None,
        Some(reason) => {
            let agreed = asked.iter().map(Asked::epoch).max().unwrap_or_default();
            let epoch = stopped.next_epoch(agreed);
            agree_all(&stopped, args, epoch, reason).await?;
            let beginning = (epoch, Revision(kept));
            let recovered = stopped.force_quorum(&args.survivors, beginning, &operator(), reason);
            Some(recovered.map_err(|error| half_done(&error, epoch, &args.survivors, &me))?)
        }
    };
    let logs: Vec<Value> = std::iter::once(json!({"node": me, "term": own.term, "index": own.index}))
        .chain(asked.iter().filter(|asked| among(args, asked.node.as_str())).filter_map(|asked| {
            let position = asked.position()?;
            Some(json!({"node": asked.node, "term": position.term, "index": position.index}))
        }))
        .collect();
    let shown: Vec<String> = logs
        .iter()
        .map(|log| {
            format!(
                "  {} ends at entry {} of term {}",
                log["node"].as_str().unwrap_or("?"),
                log["index"],
                log["term"]
            )
        })
        .collect();
    let next = match &done {
        None => vec![format!("add --confirm {name} --reason WHY")],
        Some(_) => vec![
            format!("start {me}; the other survivors have agreed, and follow by themselves"),
            format!(
                "do not start the others ({}) with their old data: they are refused, and a majority of them would \
                 be a quorum of its own where it reaches no survivor. For each: {JOIN_ANEW}",
                lost.join(", ")
            ),
            STILL_WAITED_FOR.to_owned(),
        ],
    };
    let report = Report {
        what: format!(
            "{} of {} voters of cluster {name} go on without {}, from the log of {me}:\n{}",
            survivors.len(),
            held.voters.len(),
            lost.join(", "),
            shown.join("\n")
        ),
        details: json!({
            "cluster": name, "node": me, "survivors": survivors, "lost": lost, "reason": reason,
            "logs": logs, "services": copies(&lost, &state), "committed": kept, "last": {"term": own.term, "index": own.index},
        }),
        losses: losses(&lost, own, kept, &state),
        next,
        done,
    };
    report.print(global.output)
}

/// Every other survivor leaves the epoch of before, on this operator's word: from here on it has no part in a quorum
/// of those that are left behind.
async fn agree_all(
    stopped: &Stopped,
    args: &RecoverArgs,
    epoch: Epoch,
    reason: &str,
) -> Result<(), ApiError> {
    let secret = stopped.secret().map_err(|error| failed(&error))?;
    let (me, last) = (stopped.me(), stopped.held().last);
    let mut agreed: Vec<&NodeId> = Vec::new();
    for node in args.survivors.iter().filter(|node| *node != me) {
        let api = stopped.state().nodes.get(node).map(|record| record.facts.api.clone()).unwrap_or_default();
        let mut client = Client::of(vec![api], secret.clone())?;
        let request = proto::AgreeRequest {
            confirm: stopped.state().cluster.name.clone(),
            reason: reason.to_owned(),
            epoch: epoch.0,
            begun_by: me.to_string(),
            term: last.term,
            index: last.index,
            survivors: args.survivors.iter().map(ToString::to_string).collect(),
            options: Some(client.write_options()),
        };
        let request = &request;
        let answer = client
            .call(|connection| async move {
                ClusterServiceClient::new(connection).agree_to_recovery(request.clone()).await
            })
            .await;
        if let Err(error) = answer {
            let before = if agreed.is_empty() {
                "nothing was changed".to_owned()
            } else {
                let names: Vec<String> = agreed.iter().map(ToString::to_string).collect();
                format!("{} agreed to epoch {epoch} before: run it again", names.join(", "))
            };
            let message = format!("{node} did not agree to epoch {epoch}: {}; {before}", error.message);
            return Err(ApiError::new(error.code, message, error.remedy));
        }
        agreed.push(node);
    }
    Ok(())
}

/// The others have agreed already: it has to be done now, or again.
fn half_done(error: &anyhow::Error, epoch: Epoch, survivors: &[NodeId], me: &NodeId) -> ApiError {
    let others: Vec<&str> = survivors.iter().filter(|node| *node != me).map(NodeId::as_str).collect();
    if others.is_empty() {
        return failed(error);
    }
    rejected(
        format!("{error:#}; {} agreed to epoch {epoch} already", others.join(", ")),
        "mend that and run it again: they wait for it",
    )
}

fn among(args: &RecoverArgs, node: &str) -> bool {
    args.survivors.iter().any(|survivor| survivor.as_str() == node)
}

/// Everything that speaks against it.
fn vet(stopped: &Stopped, args: &RecoverArgs, asked: &[Asked]) -> Result<(), ApiError> {
    let (me, own) = (stopped.me(), stopped.held().last);
    if !args.survivors.contains(me) {
        return Err(rejected(
            format!("this is the data of {me}, which is not among the survivors"),
            "run it on a survivor's data_dir, or name it too",
        ));
    }
    for survivor in args.survivors.iter().filter(|survivor| *survivor != me) {
        if !asked.iter().any(|asked| asked.node == *survivor) {
            return Err(rejected(format!("{survivor} does not vote in this cluster"), "name voters only"));
        }
    }
    for one in asked {
        let node = &one.node;
        match (&one.answer, among(args, node.as_str())) {
            (Ok(_), _) if one.follows() => {
                return Err(rejected(
                    format!("{node} follows a leader that has a quorum: nothing is to be recovered"),
                    "start this node again: it catches up by itself",
                ));
            }
            (Ok(_), false) => {
                return Err(rejected(
                    format!("{node} answers, so it is not lost"),
                    format!(
                        "name it among the survivors, or stop it for good first: its data is refused afterwards ({node})"
                    ),
                ));
            }
            (Ok(_), true) if one.position().is_some_and(|theirs| theirs > own) => {
                return Err(rejected(
                    format!(
                        "the log of {node} is longer than that of {me}: going on from here would lose its end"
                    ),
                    format!("run it on the data of {node}, with {node} stopped and {me} running"),
                ));
            }
            (Ok(_), true) | (Err(_), false) => {}
            (Err(error), true) => {
                return Err(ApiError::new(
                    ErrorCode::Unreachable,
                    format!("{node} is named a survivor, but its log cannot be compared: {}", error.message),
                    format!("start {node}, or leave it out: then it has to join anew"),
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sure(confirm: Option<&str>, reason: Option<&str>) -> SureArgs {
        SureArgs { confirm: confirm.map(str::to_owned), reason: reason.map(str::to_owned) }
    }

    #[test]
    fn nothing_is_done_without_the_clusters_name_and_a_reason() {
        assert_eq!(sure(None, Some("why")).settled("prod").unwrap(), None);
        assert_eq!(sure(Some("prod"), Some(" why ")).settled("prod").unwrap(), Some("why"));
        assert_eq!(sure(Some("Prod"), Some("why")).settled("prod").unwrap_err().code, ErrorCode::Rejected);
        assert_eq!(sure(Some("prod"), Some(" ")).settled("prod").unwrap_err().code, ErrorCode::Usage);
    }
}

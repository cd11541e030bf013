//! Settings, Raft and joining from the command line.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::{Value, json};

use super::connect::Client;
use super::table::{Table, span};
use crate::api::error::{ApiError, ErrorCode};
use crate::api::proto;
use crate::api::proto::cluster_service_client::ClusterServiceClient;
use crate::output::{Output, print, print_json};

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  quorate settings get
  quorate settings set fencing.auto=off
  quorate settings set heartbeat.interval=250ms heartbeat.timeout=1s")]
pub(super) enum SettingsCommand {
    /// Print settings
    Get {
        /// Only this one
        name: Option<String>,
    },
    /// Change settings, all or none
    Set {
        /// NAME=VALUE
        #[arg(required = true, value_name = "NAME=VALUE")]
        changes: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  quorate raft status
  quorate raft transfer n2
  quorate raft recover --survivors n1,n2      a lost majority: shows what may be gone")]
pub(super) enum RaftCommand {
    /// Role, term, log and members as the node asked sees them
    Status,
    /// Hand leadership to another voter
    Transfer {
        /// To whom
        node: String,
    },
    /// Go on without a majority that is gone for good, in a higher epoch
    Recover(super::disaster::RecoverArgs),
}

pub(super) async fn settings(
    client: &mut Client,
    output: Output,
    command: SettingsCommand,
) -> Result<(), ApiError> {
    match command {
        SettingsCommand::Get { name } => get(client, output, name).await,
        SettingsCommand::Set { changes } => set(client, output, &changes).await,
    }
}

async fn get(client: &mut Client, output: Output, name: Option<String>) -> Result<(), ApiError> {
    let settings = client
        .call(|connection| async move {
            ClusterServiceClient::new(connection).get_settings(proto::GetSettingsRequest {}).await
        })
        .await?;
    let mut values: BTreeMap<String, String> = settings.values.into_iter().collect();
    if let Some(name) = name {
        let value = values.remove(&name).ok_or_else(|| {
            ApiError::new(
                ErrorCode::NotFound,
                format!("no setting {name:?}"),
                "list them with `quorate settings get`",
            )
        })?;
        return match output {
            Output::Json => print_json(&json!({ name: value })),
            Output::Table => print(&format!("{value}\n")),
        };
    }
    match output {
        Output::Json => print_json(&json!({"revision": settings.revision, "settings": values})),
        Output::Table => {
            let mut table = Table::new(["SETTING", "VALUE"]);
            for (name, value) in values {
                table.row([name, value]);
            }
            print(&table.text("no settings"))
        }
    }
}

async fn set(client: &mut Client, output: Output, changes: &[String]) -> Result<(), ApiError> {
    let mut values = BTreeMap::new();
    for change in changes {
        let (name, value) = change.split_once('=').ok_or_else(|| {
            ApiError::new(
                ErrorCode::Usage,
                format!("{change:?} is not NAME=VALUE"),
                "such as fencing.auto=off",
            )
        })?;
        values.insert(name.to_owned(), value.to_owned());
    }
    let options = Some(client.write_options());
    let request = proto::SetSettingsRequest { values: values.into_iter().collect(), options };
    let request = &request;
    let done = client
        .call(|connection| async move {
            ClusterServiceClient::new(connection).set_settings(request.clone()).await
        })
        .await?;
    match output {
        Output::Json => print_json(&json!({"revision": done.revision, "changed": done.changed})),
        Output::Table => print(&format!("settings changed: revision {}\n", done.revision)),
    }
}

pub(super) async fn raft(client: &mut Client, output: Output, command: RaftCommand) -> Result<(), ApiError> {
    let status = match command {
        RaftCommand::Status => {
            client
                .call(|connection| async move {
                    ClusterServiceClient::new(connection).raft_status(proto::RaftStatusRequest {}).await
                })
                .await?
        }
        // Answered before a connection is looked for.
        RaftCommand::Recover(_) => return Ok(()),
        RaftCommand::Transfer { node } => {
            let node = &node;
            client
                .call(|connection| async move {
                    let request = proto::TransferLeaderRequest { node: node.clone() };
                    ClusterServiceClient::new(connection).transfer_leader(request).await
                })
                .await?
        }
    };
    if output == Output::Json {
        let value: Value =
            serde_json::from_str(&status.json).map_err(|error| ApiError::failed(&error.into()))?;
        return print_json(&value);
    }
    let quorum = match status.quorum_ack_age_ms {
        Some(ms) if status.role == "leader" => format!(" (quorum ack {} ago)", span(ms)),
        _ => String::new(),
    };
    let leader = if status.leader.is_empty() { "nobody" } else { &status.leader };
    print(&format!(
        "{} is {}{quorum} in term {}, leader: {leader}\nlog: last {}, committed {}, applied {}\n\n{}",
        status.node,
        status.role,
        status.term,
        status.last_log,
        status.committed,
        status.applied,
        members_table(&status.json),
    ))
}

/// The members as the node tells them in JSON.
fn members_table(json: &str) -> String {
    let value: Value = serde_json::from_str(json).unwrap_or_default();
    let leader = value["leader"].as_str().unwrap_or_default();
    let mut table = Table::new(["MEMBER", "ROLE", "WEIGHT", "LACKS", "ADDRESSES"]);
    for member in value["members"].as_array().into_iter().flatten() {
        let flag = |name: &str| member[name] == true;
        let name =
            member["node"].as_str().map_or_else(|| format!("raft {}", member["raft_id"]), str::to_owned);
        let role = match (flag("voter"), flag("witness")) {
            (true, _) if name == leader => "leader",
            (true, true) => "witness",
            (true, false) => "voter",
            (false, _) => "learner",
        };
        let addresses = member["endpoints"].as_array().into_iter().flatten().filter_map(Value::as_str);
        table.row([
            name,
            role.to_owned(),
            member["weight"].to_string(),
            member["lag"].as_u64().map(|lag| lag.to_string()).unwrap_or_default(),
            addresses.collect::<Vec<_>>().join(" "),
        ]);
    }
    table.text("no members")
}

pub(super) async fn join_token(client: &mut Client, output: Output) -> Result<(), ApiError> {
    let answer = client
        .call(|connection| async move {
            ClusterServiceClient::new(connection).create_join_token(proto::JoinTokenRequest {}).await
        })
        .await?;
    match output {
        Output::Json => print_json(&json!({"token": answer.token, "command": answer.command})),
        Output::Table => print(&format!("{}\n\non the other host:\n  {}\n", answer.token, answer.command)),
    }
}

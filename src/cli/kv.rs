//! The key-value store from the command line.

use clap::Subcommand;
use quorate_core::units::Millis;
use serde_json::{Value, json};

use super::connect::Client;
use super::table::{Table, span};
use crate::api::error::{ApiError, ErrorCode};
use crate::api::proto;
use crate::api::proto::kv_client::KvClient;
use crate::output::{Output, print, print_json};

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  quorate kv put config/color blue
  quorate kv put lock me --ttl 10s --if-revision 0     only if it does not exist
  quorate kv get config/color
  quorate kv list config/
  quorate kv watch config/ --prefix")]
pub(super) enum KvCommand {
    /// Set a key
    Put {
        /// The key
        key: String,
        /// Its value
        value: String,
        /// Gone after this long unless put again
        #[arg(long, value_name = "TIME")]
        ttl: Option<Millis>,
        /// Only if last changed at this revision; 0 means only if it does not exist
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
    },
    /// Print a key's value
    Get {
        /// The key
        key: String,
        /// Answer from the node's own copy
        #[arg(long)]
        local: bool,
    },
    /// List keys that begin so
    List {
        /// How they begin; everything by default
        #[arg(default_value = "")]
        prefix: String,
        /// At most so many
        #[arg(long, default_value_t = 1_000)]
        limit: u32,
        /// Answer from the node's own copy
        #[arg(long)]
        local: bool,
    },
    /// Remove a key, or all that begin so
    Delete {
        /// The key
        key: String,
        /// All keys that begin so
        #[arg(long)]
        prefix: bool,
    },
    /// Print changes as they come
    Watch {
        /// The key
        key: String,
        /// All keys that begin so
        #[arg(long)]
        prefix: bool,
        /// Changes after this revision first
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
}

/// The first key that does not begin with `prefix`.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Every key begins with nothing; the longest key of the highest bytes is still below this.
    vec![u8::MAX; 4_096]
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pair(kv: &proto::KeyValue) -> Value {
    json!({
        "key": text(&kv.key),
        "value": text(&kv.value),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "ttl_ms": (kv.ttl_ms > 0).then_some(kv.ttl_ms),
    })
}

pub(super) async fn kv(client: &mut Client, output: Output, command: KvCommand) -> Result<(), ApiError> {
    match command {
        KvCommand::Put { key, value, ttl, if_revision } => {
            let request = proto::PutRequest {
                key: key.into(),
                value: value.into(),
                ttl_ms: ttl.map(|ttl| ttl.0).unwrap_or_default(),
                if_revision,
                options: Some(client.write_options()),
            };
            let request = &request;
            let done = client
                .call(|connection| async move { KvClient::new(connection).put(request.clone()).await })
                .await?;
            say(output, json!({"revision": done.revision}), &format!("revision {}\n", done.revision))
        }
        KvCommand::Get { key, local } => {
            let found = range(client, key.clone().into_bytes(), Vec::new(), 1, local).await?;
            let kv = found.kvs.first().ok_or_else(|| {
                ApiError::new(
                    ErrorCode::NotFound,
                    format!("no key {key:?}"),
                    "list them with `quorate kv list`",
                )
            })?;
            match output {
                Output::Json => print_json(&envelope(&found, vec![pair(kv)])),
                Output::Table => print(&format!("{}\n", text(&kv.value))),
            }
        }
        KvCommand::List { prefix, limit, local } => {
            let end = prefix_end(prefix.as_bytes());
            let found = range(client, prefix.into_bytes(), end, limit, local).await?;
            match output {
                Output::Json => print_json(&envelope(&found, found.kvs.iter().map(pair).collect())),
                Output::Table => print(&list_text(&found)),
            }
        }
        KvCommand::Delete { key, prefix } => {
            let range_end = if prefix { prefix_end(key.as_bytes()) } else { Vec::new() };
            let options = Some(client.write_options());
            let request = proto::DeleteRequest { key: key.into(), range_end: range_end.into(), options };
            let request = &request;
            let done = client
                .call(|connection| async move { KvClient::new(connection).delete(request.clone()).await })
                .await?;
            let value = json!({"revision": done.revision, "deleted": done.deleted});
            say(output, value, &format!("deleted {}: revision {}\n", done.deleted, done.revision))
        }
        KvCommand::Watch { key, prefix, after } => watch(client, output, key, prefix, after).await,
    }
}

fn say(output: Output, value: Value, text: &str) -> Result<(), ApiError> {
    match output {
        Output::Json => print_json(&value),
        Output::Table => print(text),
    }
}

async fn range(
    client: &mut Client,
    key: Vec<u8>,
    range_end: Vec<u8>,
    limit: u32,
    local: bool,
) -> Result<proto::RangeResponse, ApiError> {
    let request = proto::RangeRequest { key: key.into(), range_end: range_end.into(), limit, local };
    let request = &request;
    client.call(|connection| async move { KvClient::new(connection).range(request.clone()).await }).await
}

fn envelope(found: &proto::RangeResponse, items: Vec<Value>) -> Value {
    let origin = found.origin.unwrap_or_default();
    let source = if origin.source == i32::from(proto::Source::Local) { "local" } else { "linearizable" };
    json!({
        "revision": origin.revision,
        "source": source,
        "age_ms": origin.age_ms,
        "items": items,
        "more": found.more,
    })
}

fn list_text(found: &proto::RangeResponse) -> String {
    let mut table = Table::new(["KEY", "VALUE", "REVISION", "TTL"]);
    for kv in &found.kvs {
        table.row([
            text(&kv.key),
            text(&kv.value),
            kv.mod_revision.to_string(),
            if kv.ttl_ms > 0 { span(kv.ttl_ms) } else { String::new() },
        ]);
    }
    let more = if found.more { "(more: raise --limit or name a longer prefix)\n" } else { "" };
    table.text("no such keys") + more
}

async fn watch(
    client: &mut Client,
    output: Output,
    key: String,
    prefix: bool,
    after: u64,
) -> Result<(), ApiError> {
    let range_end = if prefix { prefix_end(key.as_bytes()) } else { Vec::new() };
    let mut after_revision = after;
    loop {
        let request = proto::WatchRequest {
            key: key.clone().into(),
            range_end: range_end.clone().into(),
            after_revision,
        };
        let request = &request;
        let mut stream = client
            .call(|connection| async move { KvClient::new(connection).watch(request.clone()).await })
            .await?;
        loop {
            match stream.message().await {
                Ok(Some(change)) => {
                    after_revision = change.revision;
                    for event in &change.events {
                        tell(output, change.revision, event)?;
                    }
                }
                Ok(None) => break,
                Err(status) => {
                    let error = ApiError::from_status(&status);
                    if error.code != ErrorCode::Unreachable {
                        return Err(error);
                    }
                    break;
                }
            }
        }
        // That node went away; another goes on from the same revision.
        client.pass_on();
    }
}

fn tell(output: Output, revision: u64, event: &proto::KvEvent) -> Result<(), ApiError> {
    let kind = match event.kind() {
        proto::kv_event::Kind::Put => "put",
        proto::kv_event::Kind::Delete => "delete",
        proto::kv_event::Kind::Expire => "expire",
        proto::kv_event::Kind::Unspecified => "unknown",
    };
    let kv = event.kv.clone().unwrap_or_default();
    match output {
        Output::Json => print_json(&json!({"revision": revision, "kind": kind, "kv": pair(&kv)})),
        Output::Table => print(&format!("{revision} {kind} {} {}\n", text(&kv.key), text(&kv.value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key() {
        assert_eq!(prefix_end(b"a/"), b"a0");
        assert_eq!(prefix_end(&[1, 255]), [2]);
        assert!(prefix_end(b"").as_slice() > &[255u8; 64][..]);
    }
}

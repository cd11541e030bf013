//! KV: a small, replicated, durable key-value store.

use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use quorate_core::command::Command;
use quorate_core::ids::Revision;
use quorate_core::state::{KvChange, KvRecord, Reply, State};
use quorate_core::units::Millis;
use tonic::{Request, Response, Status};

use super::error::ApiError;
use super::proto::kv_event::Kind;
use super::proto::kv_server::Kv;
use super::proto::{
    DeleteRequest, DeleteResponse, KeyValue, KvEvent, PutRequest, PutResponse, RangeRequest, RangeResponse,
    WatchRequest, WatchResponse,
};
use super::streams::Streams;
use super::{read, write};
use crate::ports::NodePort;

/// Keys a range gives back when it does not say how many.
const DEFAULT_LIMIT: usize = 1_000;
/// Keys a range gives back at most.
const MAX_LIMIT: usize = 10_000;
/// A range's answer is cut after about this many bytes.
const MAX_RANGE_BYTES: usize = 2 * 1024 * 1024;

/// Serves the key-value store.
pub(super) struct KeyValues(pub(super) Arc<dyn NodePort>, pub(super) Streams);

fn key_value(key: &[u8], record: &KvRecord) -> KeyValue {
    KeyValue {
        key: key.to_vec().into(),
        value: record.value.clone().into(),
        create_revision: record.created.0,
        mod_revision: record.modified.0,
        version: record.version,
        ttl_ms: record.ttl.map(|ttl| ttl.0).unwrap_or_default(),
    }
}

fn range(state: &State, key: Vec<u8>, end: Vec<u8>, limit: usize) -> (Vec<KeyValue>, bool) {
    if end.is_empty() {
        let found = state.kv.get(&key).map(|record| key_value(&key, record));
        return (found.into_iter().collect(), false);
    }
    let mut bytes = 0;
    let mut found = Vec::new();
    if key >= end {
        return (found, false);
    }
    for (key, record) in state.kv.range((Bound::Included(key), Bound::Excluded(end))) {
        if found.len() == limit || bytes > MAX_RANGE_BYTES {
            return (found, true);
        }
        bytes += key.len() + record.value.len();
        found.push(key_value(key, record));
    }
    (found, false)
}

fn event(change: &KvChange) -> KvEvent {
    let gone = || KeyValue { key: change.key.clone().into(), ..KeyValue::default() };
    let (kind, kv) = match (&change.value, change.expired) {
        (Some(value), _) => {
            let kv = KeyValue { value: value.clone().into(), mod_revision: change.revision.0, ..gone() };
            (Kind::Put, kv)
        }
        (None, false) => (Kind::Delete, gone()),
        (None, true) => (Kind::Expire, gone()),
    };
    KvEvent { kind: kind.into(), kv: Some(kv) }
}

#[tonic::async_trait]
impl Kv for KeyValues {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let PutRequest { key, value, ttl_ms, if_revision, options } = request.into_inner();
        let command = Command::KvPut {
            key: key.into(),
            value: value.into(),
            ttl: (ttl_ms > 0).then_some(Millis(ttl_ms)),
            if_revision: if_revision.map(Revision),
        };
        let answer = write::write(&*self.0, options, command).await?;
        Ok(Response::new(PutResponse { revision: answer.revision.0 }))
    }

    async fn get(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let mut request = request;
        request.get_mut().range_end.clear();
        self.range(request).await
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let RangeRequest { key, range_end, limit, local } = request.into_inner();
        let state = if local {
            self.0.state()
        } else {
            self.0.linearizable(read::READ_WITHIN).await.map_err(ApiError::from)?
        };
        let limit = if limit == 0 { DEFAULT_LIMIT } else { (limit as usize).min(MAX_LIMIT) };
        let (kvs, more) = range(&state, key.into(), range_end.into(), limit);
        let origin = Some(read::origin(&*self.0, local, state.revision.0));
        Ok(Response::new(RangeResponse { origin, kvs, more }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let DeleteRequest { key, range_end, options } = request.into_inner();
        let range_end = (!range_end.is_empty()).then(|| range_end.to_vec());
        let command = Command::KvDelete { key: key.into(), range_end };
        let answer = write::write(&*self.0, options, command).await?;
        let deleted = match answer.result {
            Ok(Reply::Removed(count)) => count,
            _ => 0,
        };
        Ok(Response::new(DeleteResponse { revision: answer.revision.0, deleted }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { key, range_end, after_revision } = request.into_inner();
        let wanted = move |candidate: &[u8]| {
            if range_end.is_empty() {
                candidate == key
            } else {
                candidate >= &key[..] && candidate < &range_end[..]
            }
        };
        let changes = self.0.kv_changes(Revision(after_revision)).map_err(ApiError::from)?;
        let stream = changes.filter_map(move |item| {
            let message = match item {
                Err(error) => Some(Err(ApiError::from(error).into())),
                Ok((revision, changes)) => {
                    let events: Vec<KvEvent> =
                        changes.iter().filter(|change| wanted(&change.key)).map(event).collect();
                    (!events.is_empty()).then_some(Ok(WatchResponse { revision: revision.0, events }))
                }
            };
            futures::future::ready(message)
        });
        Ok(Response::new(Box::pin(self.1.open(stream)?)))
    }
}

//! ViewService: the whole view at once, or what changed since the last message.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use quorate_core::view::items::{Items, changes, items};
use tonic::{Request, Response, Status};

use super::proto::view_service_server::ViewService;
use super::proto::{GetViewRequest, View, ViewChange, ViewItem, WatchViewRequest};
use super::read;
use super::streams::Streams;
use crate::ports::NodePort;

/// A message carries about this much, so that a large view never exceeds a client's limit.
const CHUNK_BYTES: usize = 256 * 1024;

/// Serves the view of a running node.
pub(super) struct Views(pub(super) Arc<dyn NodePort>, pub(super) Streams);

#[tonic::async_trait]
impl ViewService for Views {
    async fn get(&self, request: Request<GetViewRequest>) -> Result<Response<View>, Status> {
        let (view, origin) = read::view(&*self.0, request.into_inner().local).await?;
        Ok(Response::new(View { origin: Some(origin), json: read::json(&view).into() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<ViewChange, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchViewRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut views = self.0.views();
        views.mark_changed();
        // The stream asks for the newest view only when the last was taken: a slow reader skips, and
        // nothing is queued for it.
        let stream = futures::stream::unfold((views, None::<Items>), |(mut views, sent)| async move {
            loop {
                views.changed().await.ok()?;
                let view = views.borrow_and_update().clone();
                let new = items(&view);
                let changed = changes(sent.as_ref().unwrap_or(&Items::new()), &new);
                if sent.is_some() && changed.is_empty() {
                    continue;
                }
                let messages = chunks(view.revision.0, sent.is_none(), changed);
                return Some((futures::stream::iter(messages.into_iter().map(Ok)), (views, Some(new))));
            }
        });
        let stream = self.1.open(futures::StreamExt::flatten(stream))?;
        Ok(Response::new(Box::pin(stream)))
    }
}

fn chunks(revision: u64, reset: bool, changed: Items) -> Vec<ViewChange> {
    let message = |reset| ViewChange { revision, reset, partial: true, items: Vec::new() };
    let mut messages = vec![message(reset)];
    let mut size = 0;
    for ((kind, key), json) in changed {
        if size > CHUNK_BYTES {
            messages.push(message(false));
            size = 0;
        }
        size += json.len() + key.len();
        if let Some(last) = messages.last_mut() {
            last.items.push(ViewItem { kind, key, json: json.into() });
        }
    }
    if let Some(last) = messages.last_mut() {
        last.partial = false;
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_change_is_cut_and_only_its_last_part_is_whole() {
        let changed: Items =
            (0..10).map(|n| (("service".to_owned(), n.to_string()), vec![b'x'; 100_000])).collect();
        let messages = chunks(7, true, changed);
        assert!(messages.len() > 1, "{}", messages.len());
        assert!(messages[0].reset && !messages[1].reset);
        let whole: Vec<bool> = messages.iter().map(|message| !message.partial).collect();
        assert_eq!(whole.iter().filter(|whole| **whole).count(), 1);
        assert_eq!(whole.last(), Some(&true));
        assert_eq!(messages.iter().map(|message| message.items.len()).sum::<usize>(), 10);
    }
}

//! The stream of views: from one node as long as it gives them, then from the next, saying so. Does not
//! know what is done with a view.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use quorate_core::view::ClusterView;
use quorate_core::view::items::{Items, assemble, take_in};
use quorate_tui::{Connection, Feed, Msg};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::line::{Line, dial};
use crate::api::error::ApiError;
use crate::api::proto::view_service_client::ViewServiceClient;
use crate::api::proto::{ViewChange, WatchViewRequest};
use crate::transport::WithSecret;

/// A view of the largest cluster there may be comes in pieces smaller than this.
const MOST_BYTES: usize = 16 << 20;
/// A node that accepts the call but sends nothing is left for the next.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// Between two rounds in which no node answered.
const PAUSE: Duration = Duration::from_millis(500);
/// More addresses than any cluster has nodes.
const MOST_ENDPOINTS: usize = 2_000;

/// Who is attached to, for everybody who calls.
#[derive(Debug)]
pub(super) struct Attached {
    secret: WithSecret,
    endpoints: Mutex<Vec<String>>,
    line: watch::Sender<Option<Line>>,
    view: watch::Sender<Option<Arc<ClusterView>>>,
}

impl Attached {
    pub(super) fn new(endpoints: Vec<String>, secret: WithSecret) -> Self {
        let (line, view) = (watch::channel(None).0, watch::channel(None).0);
        Self { secret, endpoints: Mutex::new(endpoints), line, view }
    }

    /// The line in use now; waits while there is none.
    pub(super) async fn line(&self) -> Option<Line> {
        let mut lines = self.line.subscribe();
        lines.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// The newest view.
    pub(super) fn view(&self) -> Option<Arc<ClusterView>> {
        self.view.borrow().clone()
    }

    fn endpoints(&self) -> MutexGuard<'_, Vec<String>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the first in line, and puts it behind the others for the next time.
    fn next(&self) -> Option<String> {
        let mut endpoints = self.endpoints();
        let next = endpoints.first().cloned();
        if !endpoints.is_empty() {
            endpoints.rotate_left(1);
        }
        next
    }

    /// Adds the addresses of nodes that a view names.
    fn learn(&self, view: &ClusterView) {
        let mut endpoints = self.endpoints();
        for address in view.nodes.values().filter_map(|node| node.endpoints.get("grpc")) {
            if endpoints.len() < MOST_ENDPOINTS && !endpoints.contains(address) && !address.is_empty() {
                endpoints.push(address.clone());
            }
        }
    }
}

/// Feeds views until the cockpit has ended.
pub(super) async fn run(attached: Arc<Attached>, feed: Feed) {
    let mut lost: Option<String> = None;
    loop {
        let tries = attached.endpoints().len();
        for _ in 0..tries {
            let Some(endpoint) = attached.next() else { break };
            let status = match &lost {
                Some(from) if *from != endpoint => {
                    Connection::Moving { from: from.clone(), to: endpoint.clone() }
                }
                Some(_) | None => Connection::Connecting { to: endpoint.clone() },
            };
            if !feed.send(Msg::Connection(status)) {
                return;
            }
            let mut told = false;
            let outcome = follow(&attached, &feed, &endpoint, &mut told).await;
            attached.line.send_replace(None);
            let Err(error) = outcome else { return };
            if told || lost.is_none() {
                lost = Some(endpoint.clone());
            }
            let from = lost.clone().unwrap_or(endpoint);
            if !feed.send(Msg::Connection(Connection::Lost { from, why: format!("{error:#}") })) {
                return;
            }
        }
        sleep(PAUSE).await;
    }
}

/// Follows one node. Ends well only when the cockpit has ended; `told` says whether any view came.
async fn follow(attached: &Attached, feed: &Feed, endpoint: &str, told: &mut bool) -> anyhow::Result<()> {
    let line = dial(endpoint, &attached.secret).await?;
    let mut client = ViewServiceClient::new(line.clone()).max_decoding_message_size(MOST_BYTES);
    let mut stream =
        client.watch(WatchViewRequest {}).await.map_err(|s| ApiError::from_status(&s))?.into_inner();
    let mut items = Items::new();
    loop {
        let next = stream.message();
        let change = if *told {
            next.await
        } else {
            timeout(FIRST_WITHIN, next).await.with_context(|| format!("{endpoint} sends nothing"))?
        };
        let change = change.map_err(|status| ApiError::from_status(&status))?;
        let change = change.with_context(|| format!("{endpoint} ended the stream"))?;
        let whole = !change.partial;
        take(&mut items, change);
        if !whole {
            continue;
        }
        let view = Arc::new(assemble(&items)?);
        if !*told {
            *told = true;
            attached.line.send_replace(Some(line.clone()));
            feed.send(Msg::Connection(Connection::Attached { to: format!("{} ({endpoint})", view.me) }));
        }
        attached.learn(&view);
        attached.view.send_replace(Some(view.clone()));
        if !feed.send(Msg::View(view)) {
            return Ok(());
        }
    }
}

fn take(items: &mut Items, change: ViewChange) {
    if change.reset {
        items.clear();
    }
    let changed = change.items.into_iter().map(|item| ((item.kind, item.key), item.json.to_vec()));
    take_in(items, changed.collect());
}

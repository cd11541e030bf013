//! The view cut into items, so that a watcher is sent only what changed; and put together again.
//! Does not know how items travel.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::links::LinksView;
use super::model::{
    ClusterSummary, ClusterView, Countdown, EventView, InstanceView, NodeView, OperationView, ServiceView,
    Standing, Verdict,
};
use crate::ids::{NodeId, Revision};
use crate::units::WallMs;

/// An item's kind and key.
pub type ItemKey = (String, String);

/// All items of a view, encoded, by kind and key.
pub type Items = BTreeMap<ItemKey, Vec<u8>>;

/// What is left of a view without its lists.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    me: NodeId,
    revision: Revision,
    at: WallMs,
    cluster: ClusterSummary,
    standing: Standing,
    verdict: Verdict,
    countdowns: Vec<Countdown>,
}

/// Why items do not make a view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The head is missing: the stream began in the middle.
    #[error("the view has no head; watch again from the start")]
    NoHead,
    /// An item cannot be read by this release.
    #[error("item {kind}/{key} cannot be read: {because}; use the same release on both ends")]
    Unreadable {
        /// Its kind.
        kind: String,
        /// Its key.
        key: String,
        /// What is wrong with it.
        because: String,
    },
}

/// Cuts a view into items.
pub fn items(view: &ClusterView) -> Items {
    let mut items = Items::new();
    let mut put = |kind: &str, key: String, json: Option<Vec<u8>>| {
        if let Some(json) = json {
            items.insert((kind.to_owned(), key), json);
        }
    };
    let head = Head {
        me: view.me.clone(),
        revision: view.revision,
        at: view.at,
        cluster: view.cluster.clone(),
        standing: view.standing.clone(),
        verdict: view.verdict.clone(),
        countdowns: view.countdowns.clone(),
    };
    put("head", String::new(), json(&head));
    put("links", String::new(), json(&view.links));
    put("sightings", String::new(), json(&view.sightings));
    for (name, node) in &view.nodes {
        put("node", name.to_string(), json(node));
    }
    for (name, service) in &view.services {
        put("service", name.to_string(), json(service));
    }
    for (key, instance) in &view.instances {
        put("instance", key.clone(), json(instance));
    }
    for (id, operation) in &view.operations {
        put("operation", format!("{:020}", id.0), json(operation));
    }
    // Several events may share a revision; a counter within it keeps them apart and in order.
    let mut last = (Revision(0), 0);
    for event in &view.events {
        last = if event.revision == last.0 { (last.0, last.1 + 1) } else { (event.revision, 0) };
        put("event", format!("{:020}.{:06}", last.0.0, last.1), json(event));
    }
    items
}

/// What has to be sent to somebody who has `old` for them to have `new`; an empty value means gone.
pub fn changes(old: &Items, new: &Items) -> Items {
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Vec::new()));
    let set = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(*value))
        .map(|(key, value)| (key.clone(), value.clone()));
    gone.chain(set).collect()
}

/// Takes changes in.
pub fn take_in(items: &mut Items, changes: Items) {
    for (key, value) in changes {
        if value.is_empty() {
            items.remove(&key);
        } else {
            items.insert(key, value);
        }
    }
}

/// Puts a view together again.
pub fn assemble(items: &Items) -> Result<ClusterView, ItemError> {
    let head_key = ("head".to_owned(), String::new());
    let head: Head = read(&head_key, items.get(&head_key).ok_or(ItemError::NoHead)?)?;
    let mut view = ClusterView {
        me: head.me,
        revision: head.revision,
        at: head.at,
        cluster: head.cluster,
        standing: head.standing,
        verdict: head.verdict,
        countdowns: head.countdowns,
        nodes: imbl::OrdMap::new(),
        services: imbl::OrdMap::new(),
        instances: imbl::OrdMap::new(),
        operations: imbl::OrdMap::new(),
        events: Vec::new(),
        sightings: Vec::new(),
        links: LinksView::default(),
    };
    for (key, json) in items {
        match key.0.as_str() {
            "links" => view.links = read(key, json)?,
            "sightings" => view.sightings = read(key, json)?,
            "node" => {
                let node: Arc<NodeView> = read(key, json)?;
                view.nodes.insert(node.name.clone(), node);
            }
            "service" => {
                let service: Arc<ServiceView> = read(key, json)?;
                view.services.insert(service.name.clone(), service);
            }
            "instance" => {
                let instance: Arc<InstanceView> = read(key, json)?;
                view.instances.insert(key.1.clone(), instance);
            }
            "operation" => {
                let operation: Arc<OperationView> = read(key, json)?;
                view.operations.insert(operation.id, operation);
            }
            "event" => view.events.push(read::<Arc<EventView>>(key, json)?),
            // The head is read already; kinds of a later release are not this one's to judge.
            _ => {}
        }
    }
    Ok(view)
}

fn json<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    // Plain data always encodes; an item that would not is left out rather than ending the watch.
    serde_json::to_vec(value).ok()
}

fn read<T: DeserializeOwned>(key: &ItemKey, json: &[u8]) -> Result<T, ItemError> {
    serde_json::from_slice(json).map_err(|error| ItemError::Unreadable {
        kind: key.0.clone(),
        key: key.1.clone(),
        because: error.to_string(),
    })
}

//! Listens to what an engine tells of this kind of containers, so that an end is seen at once. What is missed while
//! nobody listens the next look finds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::EventsOptions;
use futures::StreamExt;
use tokio::time::sleep;

use super::Shared;
use super::names::OWNER;

/// Between two attempts to listen.
const AGAIN: Duration = Duration::from_secs(1);

/// Listens for as long as it is let.
pub(super) async fn listen(shared: Arc<Shared>) {
    loop {
        if let Ok(reached) = shared.reached().await {
            let filters = [("type", "container"), ("label", OWNER)]
                .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]));
            let options = EventsOptions { filters: Some(HashMap::from(filters)), ..EventsOptions::default() };
            let mut events = reached.docker.events(Some(options));
            // What happened before this was not heard of.
            shared.changed();
            while let Some(Ok(event)) = events.next().await {
                if event.action.as_deref().is_some_and(telling) {
                    shared.changed();
                }
            }
        }
        sleep(AGAIN).await;
    }
}

/// Does such an event say that something began, ended or turned ill?
fn telling(action: &str) -> bool {
    ["start", "die", "died", "oom", "destroy", "remove", "health_status"]
        .iter()
        .any(|one| action == *one || action.strip_prefix(one).is_some_and(|rest| rest.starts_with(':')))
}

//! A slot's output: read where it lies, fetched from the node that has it otherwise.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use quorate_core::ids::{NodeId, SlotId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::inner::{Inner, hold};
use super::peers::pack;
use super::wire::{AskOutput, OutputPiece, decode};
use crate::ports::{LogFrom, LogQuery, Output, SubmitError};

/// Bytes read at a time.
const PIECE: usize = 64 * 1024;
/// Between two looks for new output.
const LOOK_AGAIN: Duration = Duration::from_millis(150);

/// Output from whichever node has it.
pub(super) async fn output(inner: &Arc<Inner>, ask: AskOutput) -> Result<Output, SubmitError> {
    let node = holder(inner, &ask.slot)?;
    if &node == inner.me() {
        let pieces = ReceiverStream::new(follow_here(inner.clone(), ask)).map(taken);
        return Ok((node, Box::pin(pieces)));
    }
    let refused = |because: String| SubmitError::Refused {
        because,
        remedy: "ask again when that node is reached".to_owned(),
    };
    let state = inner.state();
    let record = state.nodes.get(&node).ok_or_else(|| refused(format!("{node} is not known any more")))?;
    let mut client = inner.addresses.bulk(&record.facts.api).map_err(|error| refused(error.to_string()))?;
    let stream = tokio::time::timeout(Duration::from_secs(5), client.output(pack(&ask))).await;
    let stream = match stream {
        Ok(Ok(stream)) => stream.into_inner(),
        Ok(Err(status)) => return Err(refused(format!("{node} did not answer: {}", status.message()))),
        Err(_) => return Err(refused(format!("{node} did not answer in time"))),
    };
    let pieces = stream.map(|packet| {
        let packet = packet.map_err(|status| status.message().to_owned());
        let piece = packet.and_then(|packet| decode::<OutputPiece>(&packet.body).map_err(|e| e.to_string()));
        taken(piece.and_then(|piece| piece))
    });
    Ok((node, Box::pin(pieces)))
}

fn taken(piece: OutputPiece) -> Result<Bytes, SubmitError> {
    let broken = |because| SubmitError::Refused { because, remedy: "ask again".to_owned() };
    piece.map(Bytes::from).map_err(broken)
}

/// Who has a slot's output: where it runs, or where it last ran.
fn holder(inner: &Inner, slot: &SlotId) -> Result<NodeId, SubmitError> {
    let state = inner.state();
    let record = state.slots.get(slot);
    let claimed = record.and_then(|record| record.claims.last()).map(|claim| claim.node.clone());
    let ended = || record.and_then(|record| record.last_ended.as_ref()).map(|ended| ended.node.clone());
    let reported = || {
        let sightings = hold(&inner.sightings);
        state.nodes.keys().find(|node| sightings.knows_slot(node, slot)).cloned()
    };
    claimed.or_else(ended).or_else(reported).ok_or_else(|| SubmitError::Refused {
        because: format!("{slot} has never run"),
        remedy: "see `quorate services` for what there is".to_owned(),
    })
}

/// Reads a slot's output here, and follows it if asked, until the reader leaves.
pub(super) fn follow_here(inner: Arc<Inner>, ask: AskOutput) -> mpsc::Receiver<OutputPiece> {
    let (send, receive) = mpsc::channel(8);
    tokio::spawn(async move {
        let mut from = if ask.tail == 0 { LogFrom::Oldest } else { LogFrom::Tail(ask.tail) };
        while !send.is_closed() {
            let Some(instances) = &inner.works.instances else { break };
            let query = LogQuery { from, max_bytes: PIECE };
            let chunk = match instances.logs(ask.slot.clone(), query).await {
                Ok(chunk) => chunk,
                Err(error) => {
                    // A reader that left needs no reason.
                    drop(send.send(Err(error.to_string())).await);
                    break;
                }
            };
            from = LogFrom::Offset(chunk.end);
            if !chunk.bytes.is_empty() {
                if send.send(Ok(chunk.bytes)).await.is_err() {
                    break;
                }
            } else if ask.follow {
                tokio::time::sleep(LOOK_AGAIN).await;
            } else {
                break;
            }
        }
    });
    receive
}

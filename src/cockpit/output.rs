//! The output of one copy or of all copies of a service, cut into lines. Does not know where it is shown.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quorate_tui::{Feed, LogLine, Msg};
use tokio::time::{sleep, timeout};

use super::line::Line;
use super::watch::Attached;
use crate::api::error::{ApiError, ErrorCode};
use crate::api::proto::LogsRequest;
use crate::api::proto::service_service_client::ServiceServiceClient;

/// A line that never ends is cut here.
const LONGEST_LINE: usize = 16 * 1024;
/// Before the output is asked for again from another node.
const PAUSE: Duration = Duration::from_millis(500);
const ATTACHED_WITHIN: Duration = Duration::from_secs(10);

/// What is to be shown.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The number that its lines carry.
    pub stream: u64,
    /// `SERVICE/ORDINAL`, or `SERVICE` for all its copies.
    pub slot: String,
    /// How many old lines.
    pub tail: u32,
    /// Go on with new ones?
    pub follow: bool,
}

/// Feeds lines until the output ends or its task is aborted.
pub(super) async fn follow(attached: Arc<Attached>, feed: Feed, wanted: Wanted) {
    let slots = slots(&attached, &wanted.slot);
    let mut running: FuturesUnordered<_> =
        slots.into_iter().map(|slot| one(&attached, &feed, Wanted { slot, ..wanted.clone() })).collect();
    let mut ended = Vec::new();
    while let Some(why) = running.next().await {
        ended.push(why);
    }
    ended.sort();
    ended.dedup();
    feed.send(Msg::LogLines { stream: wanted.stream, lines: Vec::new(), ended: Some(ended.join("; ")) });
}

fn slots(attached: &Attached, wanted: &str) -> Vec<String> {
    let view = attached.view().filter(|_| !wanted.contains('/'));
    let copies = view.map(|view| {
        let of = view.instances.values().filter(|instance| instance.service.as_str() == wanted);
        let mut slots: Vec<String> = of.map(|instance| instance.slot.clone()).collect();
        slots.sort();
        slots.dedup();
        slots
    });
    copies.filter(|slots| !slots.is_empty()).unwrap_or_else(|| vec![wanted.to_owned()])
}

/// One slot; asked for again when its node goes away. Says why it ended.
async fn one(attached: &Attached, feed: &Feed, mut wanted: Wanted) -> String {
    loop {
        let Ok(Some(line)) = timeout(ATTACHED_WITHIN, attached.line()).await else {
            return "no node answers".to_owned();
        };
        match read(line, feed, &wanted).await {
            Ok(()) => return format!("the output of {} ends here", wanted.slot),
            Err(error) if error.code == ErrorCode::Unreachable && wanted.follow => {
                // What was shown is not shown again.
                wanted.tail = 1;
                sleep(PAUSE).await;
            }
            Err(error) => return error.to_string(),
        }
    }
}

async fn read(line: Line, feed: &Feed, wanted: &Wanted) -> Result<(), ApiError> {
    let told = |status: tonic::Status| ApiError::from_status(&status);
    let request = LogsRequest { slot: wanted.slot.clone(), tail: wanted.tail, follow: wanted.follow };
    let mut stream = ServiceServiceClient::new(line).logs(request).await.map_err(told)?.into_inner();
    let mut cutter = Cutter::default();
    while let Some(piece) = stream.message().await.map_err(told)? {
        let lines = cutter.take(&piece.slot, &piece.chunk);
        if !lines.is_empty() && !feed.send(Msg::LogLines { stream: wanted.stream, lines, ended: None }) {
            return Ok(());
        }
    }
    if !cutter.rest.is_empty() {
        let lines = cutter.take(&wanted.slot, b"\n");
        feed.send(Msg::LogLines { stream: wanted.stream, lines, ended: None });
    }
    Ok(())
}

/// Cuts pieces into lines; the last, unfinished one is kept for the next piece.
#[derive(Debug, Default)]
struct Cutter {
    rest: Vec<u8>,
}

impl Cutter {
    fn take(&mut self, slot: &str, piece: &[u8]) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for byte in piece {
            if *byte != b'\n' {
                self.rest.push(*byte);
            }
            if *byte == b'\n' || self.rest.len() >= LONGEST_LINE {
                let text = String::from_utf8_lossy(&self.rest).trim_end_matches('\r').to_owned();
                lines.push(LogLine { slot: slot.to_owned(), error: false, text });
                self.rest.clear();
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_the_pieces_are_cut() {
        let mut cutter = Cutter::default();
        let text = "one\r\ntwo \u{e9}\n\nrest".as_bytes();
        let mut lines = Vec::new();
        for byte in text {
            lines.extend(cutter.take("web/0", &[*byte]));
        }
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["one", "two \u{e9}", ""]);
        assert_eq!(cutter.rest, b"rest");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut cutter = Cutter::default();
        let lines = cutter.take("web/0", &vec![b'x'; LONGEST_LINE * 2 + 1]);
        assert_eq!(lines.len(), 2);
        assert_eq!(cutter.rest.len(), 1);
    }
}

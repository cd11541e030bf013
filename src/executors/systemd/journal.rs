//! A run's output out of the journal, by the tool that reads every format of it.

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::ports::OutputPiece;

/// After the end of a run, nothing more is expected once the journal was still for so long.
const STILL: Duration = Duration::from_millis(300);

/// One entry, as far as it is read. The message is text, or bytes where it is not.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "MESSAGE")]
    message: Option<Message>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    Raw(Vec<u8>),
}

fn piece(line: &str) -> Option<OutputPiece> {
    let entry: Entry = serde_json::from_str(line).ok()?;
    let mut bytes = match entry.message {
        Some(Message::Text(text)) => text.into_bytes(),
        Some(Message::Raw(raw)) => raw,
        None => Vec::new(),
    };
    bytes.push(b'\n');
    Some(OutputPiece { bytes: Bytes::from(bytes), cursor: entry.cursor })
}

struct Reading {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    over: watch::Receiver<bool>,
}

/// The entries of a unit after a cursor, and on as they come, until the run is over and the journal still.
pub(super) fn follow(
    unit: String,
    after: Option<String>,
    since: Option<u64>,
    over: watch::Receiver<bool>,
) -> BoxStream<'static, Result<OutputPiece, String>> {
    let mut command = Command::new("journalctl");
    // What the manager itself says of a unit is no output of it.
    command.args(["--no-pager", "--quiet", "--output=json", "--follow", "--lines=all"]);
    command.arg(format!("_SYSTEMD_UNIT={unit}"));
    match (after, since) {
        (Some(after), _) => drop(command.arg(format!("--after-cursor={after}"))),
        (None, Some(since)) => drop(command.arg(format!("--since=@{since}"))),
        (None, None) => {}
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let why = format!("cannot run journalctl: {error}");
            return futures::stream::once(async { Err(why) }).boxed();
        }
    };
    let Some(stdout) = child.stdout.take() else { return futures::stream::empty().boxed() };
    let reading = Reading { _child: child, lines: BufReader::new(stdout).lines(), over };
    futures::stream::unfold(reading, |mut reading| async move {
        loop {
            let line = tokio::select! {
                line = reading.lines.next_line() => Some(line),
                () = ended(&mut reading.over) => None,
            };
            let line = match line {
                Some(line) => line,
                // Once it is over the journal has a moment for what is still on its way.
                None => match timeout(STILL, reading.lines.next_line()).await {
                    Ok(line) => line,
                    Err(_) => return None,
                },
            };
            match line {
                Ok(Some(line)) => {
                    if let Some(piece) = piece(&line) {
                        return Some((Ok(piece), reading));
                    }
                }
                Ok(None) => {
                    return Some((Err("the journal cannot be followed any more".to_owned()), reading));
                }
                Err(error) => return Some((Err(error.to_string()), reading)),
            }
        }
    })
    .boxed()
}

/// Waits for the end of a run.
async fn ended(over: &mut watch::Receiver<bool>) {
    drop(over.wait_for(|over| *over).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_whether_they_are_text_or_not() {
        let text = piece(r#"{"__CURSOR":"s=1","MESSAGE":"hello","PRIORITY":"6"}"#).unwrap();
        assert_eq!((&text.bytes[..], text.cursor.as_str()), (&b"hello\n"[..], "s=1"));
        let raw = piece(r#"{"__CURSOR":"s=2","MESSAGE":[255,10,65]}"#).unwrap();
        assert_eq!(&raw.bytes[..], &[255, 10, 65, 10]);
        assert_eq!(&piece(r#"{"__CURSOR":"s=3"}"#).unwrap().bytes[..], b"\n");
        assert!(piece("garbage").is_none());
    }
}

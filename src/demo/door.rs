//! Steering a running demo from another process: one line of JSON each way over a socket in the demo's
//! directory. Does not know how nodes are steered.

use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::ctl::CtlCommand;
use super::status::Status;
use crate::api::error::{ApiError, ErrorCode};

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Reply {
    /// What was done, a sentence each.
    pub done: Vec<String>,
    /// Why not all was done.
    pub refused: Option<Refusal>,
    /// How things are, if that was asked.
    pub status: Option<Status>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    /// A published code.
    pub code: String,
    /// In words.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// A request with the way back to whoever asked.
pub(super) type Knock = (CtlCommand, oneshot::Sender<Reply>);

const LONGEST: u64 = 64 * 1024;
const ASKED_WITHIN: Duration = Duration::from_secs(5);
/// A restart of several nodes is the longest.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);

/// A path of the socket that the kernel takes however deep the directory lies; good while the file lives.
fn reachable(socket: &Path) -> anyhow::Result<(File, PathBuf)> {
    let (Some(above), Some(name)) = (socket.parent(), socket.file_name()) else {
        anyhow::bail!("{} is no path of a socket", socket.display());
    };
    let folder = File::open(above).with_context(|| format!("cannot open {}", above.display()))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok((folder, path))
}

/// Opens the door; requests go into the channel, one after the other.
pub(super) fn open(socket: &Path, sender: mpsc::Sender<Knock>) -> anyhow::Result<()> {
    let (_folder, path) = reachable(socket)?;
    let _ = std::fs::remove_file(socket);
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", socket.display()))?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        while !sender.is_closed() {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let own = rustix::process::getuid();
            let peer = stream.peer_cred().map(|peer| peer.uid());
            if peer.is_ok_and(|uid| uid == own.as_raw() || uid == 0) {
                tokio::spawn(serve(stream, sender.clone()));
            }
        }
    });
    Ok(())
}

async fn serve(stream: UnixStream, sender: mpsc::Sender<Knock>) {
    let (reading, mut writing) = stream.into_split();
    let mut line = String::new();
    let mut reading = BufReader::new(reading.take(LONGEST));
    let heard = timeout(ASKED_WITHIN, reading.read_line(&mut line)).await;
    let Ok(Ok(1..)) = heard else { return };
    let reply = match serde_json::from_str::<CtlCommand>(&line) {
        Ok(request) => {
            let (answer, answered) = oneshot::channel();
            if sender.send((request, answer)).await.is_err() {
                return;
            }
            answered.await.unwrap_or_else(|_| Reply::refused(ErrorCode::Failed, "the demo is ending", ""))
        }
        Err(error) => Reply::refused(ErrorCode::Usage, format!("the request cannot be read: {error}"), ""),
    };
    if let Ok(text) = serde_json::to_string(&reply) {
        let _ = writing.write_all(format!("{text}\n").as_bytes()).await;
    }
}

/// Asks the demo in a directory.
pub(super) async fn ask(socket: &Path, request: &CtlCommand) -> Result<Reply, ApiError> {
    let failed = |error: anyhow::Error| ApiError::failed(&error);
    let nobody = || {
        let dir = socket.parent().unwrap_or(socket).display();
        ApiError::new(
            ErrorCode::Unreachable,
            format!("no demo runs in {dir}"),
            "start one with `quorate demo`, or name its directory with --dir",
        )
    };
    let (_folder, path) = reachable(socket).map_err(|_| nobody())?;
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => nobody(),
        _ => failed(error.into()),
    })?;
    let exchange = async {
        let (reading, mut writing) = stream.into_split();
        writing.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(reading.take(LONGEST)).read_line(&mut line).await?;
        anyhow::ensure!(!line.is_empty(), "the demo ended without an answer");
        Ok(serde_json::from_str::<Reply>(&line)?)
    };
    let reply = match timeout(ANSWERED_WITHIN, exchange).await {
        Ok(reply) => reply.map_err(failed)?,
        Err(_) => {
            return Err(ApiError::new(ErrorCode::Unknown, "the demo does not answer", "look at its screen"));
        }
    };
    match reply.refused {
        None => Ok(reply),
        Some(refusal) => {
            let code = [ErrorCode::NotFound, ErrorCode::Rejected, ErrorCode::Usage];
            let code = code.into_iter().find(|code| code.name() == refusal.code).unwrap_or(ErrorCode::Failed);
            Err(ApiError::new(code, refusal.message, refusal.remedy))
        }
    }
}

impl Reply {
    /// For people.
    pub(super) fn in_words(self) -> Result<String, String> {
        match self.refused {
            None => Ok(self.done.join("; ")),
            Some(Refusal { message, remedy, .. }) if remedy.is_empty() => Err(message),
            Some(Refusal { message, remedy, .. }) => Err(format!("{message}; {remedy}")),
        }
    }

    /// Nothing was done.
    pub(super) fn refused(code: ErrorCode, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let refusal =
            Refusal { code: code.name().to_owned(), message: message.into(), remedy: remedy.into() };
        Self { refused: Some(refusal), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_and_garbage_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("deep".repeat(30)).join("down".repeat(30));
        std::fs::create_dir_all(&deep).unwrap();
        let socket = deep.join("demo.sock");
        let request = CtlCommand::typed("kill n1").unwrap();
        assert_eq!(ask(&socket, &request).await.unwrap_err().code, ErrorCode::Unreachable);
        let (sender, mut knocks) = mpsc::channel(1);
        open(&socket, sender).unwrap();
        let (answer, ()) = tokio::join!(ask(&socket, &request), async {
            let (heard, back) = knocks.recv().await.unwrap();
            assert_eq!(heard, request);
            back.send(Reply { done: vec!["killed".to_owned()], ..Reply::default() }).unwrap();
        });
        assert_eq!(answer.unwrap().done, ["killed"]);
        let (_folder, path) = reachable(&socket).unwrap();
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(b"\x00\xff nonsense\n").await.unwrap();
        let mut said = String::new();
        // A line that is not text ends the connection; one that is gets an answer.
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.is_empty() || said.contains("cannot be read"), "{said}");
    }
}

//! Copies of state folders between nodes, for migrations: the source streams its folder, the target
//! writes it into the operation's staging folder and checks the digest. Paths never leave the folder.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use quorate_core::effect::FetchState;
use quorate_core::ids::OperationId;
use quorate_core::observation::{TransferOutcome, TransferReport};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::inner::{Inner, hold};
use super::peers::pack;
use super::wire::{AskState, StatePiece, decode};

/// Bytes of one piece.
const PIECE: usize = 256 * 1024;
/// A stream in which nothing comes for so long has failed.
const STALL: Duration = Duration::from_secs(15);
/// More entries than this are not a state folder.
const MAX_ENTRIES: u64 = 1_000_000;

/// State folders that this node streams at once, each on a thread of its own.
const MOST: usize = 16;
static PLACES: Semaphore = Semaphore::const_new(MOST);

/// Streams a slot's state folder, for whoever asked; nothing if too many others did.
pub(super) fn serve(inner: &Arc<Inner>, ask: AskState) -> Option<mpsc::Receiver<StatePiece>> {
    let place = PLACES.try_acquire().ok()?;
    let (send, receive) = mpsc::channel(8);
    // What was staged here and never started from is the newest: an empty folder must not replace it.
    let staged = Some(inner.works.layout.staging(ask.operation)).filter(|staged| staged.exists());
    let folder = staged.or_else(|| inner.works.layout.state(&ask.slot, Some(&ask.state_dir)));
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _held = place;
        let root = folder.unwrap_or_default();
        let safe = inside(&ask.state_dir).is_some();
        let outcome =
            if safe { send_folder(&runtime, &root, &send) } else { Err(anyhow::anyhow!("no such folder")) };
        if let Err(error) = outcome {
            tracing::warn!(operation = ask.operation.0, slot = %ask.slot, "state copy broken off: {error:#}");
        }
    });
    Some(receive)
}

struct Found {
    path: String,
    full: PathBuf,
    kind: fs::FileType,
    mode: u32,
    bytes: u64,
}

fn send_folder(runtime: &Handle, root: &Path, to: &mpsc::Sender<StatePiece>) -> anyhow::Result<()> {
    let mut found = Vec::new();
    // A state folder that was never made is an empty one.
    if root.exists() {
        list(root, root, &mut found)?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let bytes = found.iter().map(|entry| entry.bytes).sum();
    let mut digest = Sha256::new();
    // One that takes in nothing must not keep this thread.
    let send = |piece: StatePiece| match runtime.block_on(async { timeout(STALL, to.send(piece)).await }) {
        Ok(sent) => sent.context("the other node left"),
        Err(_) => bail!("the other node takes in nothing"),
    };
    send(StatePiece::Total { entries: found.len() as u64, bytes })?;
    for entry in found {
        let Found { path, full, kind, mode, .. } = entry;
        if kind.is_dir() {
            note(&mut digest, b'd', &path);
            send(StatePiece::Folder { path, mode })?;
        } else if kind.is_symlink() {
            let to = fs::read_link(&full)?.to_string_lossy().into_owned();
            note(&mut digest, b'l', &path);
            digest.update(&to);
            send(StatePiece::Link { path, to })?;
        } else {
            // While the workload runs a file may go between listing and reading: the next pass tells.
            let Ok(mut file) = File::open(&full) else { continue };
            note(&mut digest, b'f', &path);
            send(StatePiece::File { path, mode })?;
            let mut piece = vec![0; PIECE];
            loop {
                let count =
                    file.read(&mut piece).with_context(|| format!("cannot read {}", full.display()))?;
                if count == 0 {
                    break;
                }
                digest.update(&piece[..count]);
                send(StatePiece::Bytes(piece[..count].to_vec()))?;
            }
        }
    }
    send(StatePiece::End { digest: hex(digest) })
}

fn list(root: &Path, folder: &Path, found: &mut Vec<Found>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let full = entry.path();
        let Ok(about) = fs::symlink_metadata(&full) else { continue };
        let kind = about.file_type();
        if !(kind.is_dir() || kind.is_file() || kind.is_symlink()) {
            continue;
        }
        let relative = full.strip_prefix(root)?;
        let path = relative.to_str().with_context(|| format!("{} is no text", full.display()))?.to_owned();
        if found.len() as u64 >= MAX_ENTRIES {
            bail!("{} has more than {MAX_ENTRIES} entries", root.display());
        }
        let bytes = if kind.is_file() { about.len() } else { 0 };
        found.push(Found {
            path,
            full: full.clone(),
            kind,
            mode: about.permissions().mode() & 0o7777,
            bytes,
        });
        if kind.is_dir() {
            list(root, &full, found)?;
        }
    }
    Ok(())
}

fn note(digest: &mut Sha256, kind: u8, path: &str) {
    digest.update([kind]);
    digest.update((path.len() as u64).to_le_bytes());
    digest.update(path);
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A path from another node that stays inside the folder it is joined to.
fn inside(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && path.components().next().is_some()).then_some(path)
}

/// Fetches a slot's state into the operation's staging folder; how it goes is in the transfer's report.
pub(super) async fn fetch(inner: &Arc<Inner>, fetch: FetchState) {
    let FetchState { operation, pass, .. } = fetch;
    let report = |done: u64, total: u64, outcome: Option<TransferOutcome>| {
        let report = TransferReport { operation, pass, bytes_done: done, bytes_total: total, outcome };
        hold(&inner.works.transfers).insert(operation, report);
    };
    report(0, 0, None);
    let (mut done, mut total) = (0, 0);
    let outcome = receive(inner, &fetch, |have, all| {
        (done, total) = (have, all);
        report(have, all, None);
    })
    .await;
    let outcome = match outcome {
        Ok(digest) => TransferOutcome::Complete { digest },
        Err(error) => TransferOutcome::Failed(format!("{error:#}")),
    };
    tracing::info!(operation = operation.0, pass, bytes = done, ?outcome, "state copied");
    report(done, total, Some(outcome));
    inner.hurry.notify_one();
}

async fn receive(
    inner: &Arc<Inner>,
    fetch: &FetchState,
    mut progress: impl FnMut(u64, u64),
) -> anyhow::Result<String> {
    let state = inner.state();
    let source = state.nodes.get(&fetch.from).with_context(|| format!("{} is not known", fetch.from))?;
    let mut client = inner.addresses.bulk(&source.facts.api)?;
    let FetchState { operation, slot, state_dir, .. } = fetch.clone();
    let ask = AskState { operation, slot, state_dir };
    let stream = timeout(STALL, client.state_folder(pack(&ask))).await.context("no answer in time")?;
    let mut stream =
        stream.map_err(|status| anyhow::anyhow!("{}: {}", fetch.from, status.message()))?.into_inner();

    let staging = inner.works.layout.staging(operation);
    let draft = staging.with_extension("part");
    let (pieces, written) = mpsc::channel(8);
    let writer = tokio::task::spawn_blocking({
        let (staging, draft) = (staging.clone(), draft.clone());
        move || write_folder(&draft, &staging, written)
    });
    let (mut have, mut total) = (0, 0);
    loop {
        let next = timeout(STALL, stream.next()).await.context("the copy stalled")?;
        let Some(packet) = next else { break };
        let packet = packet.map_err(|status| anyhow::anyhow!("{}: {}", fetch.from, status.message()))?;
        let piece: StatePiece = decode(&packet.body)?;
        match &piece {
            StatePiece::Total { bytes, .. } => total = *bytes,
            StatePiece::Bytes(bytes) => have += bytes.len() as u64,
            StatePiece::Folder { .. }
            | StatePiece::File { .. }
            | StatePiece::Link { .. }
            | StatePiece::End { .. } => {}
        }
        if pieces.send(piece).await.is_err() {
            break;
        }
        progress(have, total.max(have));
    }
    drop(pieces);
    writer.await.context("the writer failed")?
}

/// Writes what comes into a draft folder, checks the digest and puts the draft in place of an earlier pass.
fn write_folder(
    draft: &Path,
    staging: &Path,
    mut pieces: mpsc::Receiver<StatePiece>,
) -> anyhow::Result<String> {
    let clear = |path: &Path| match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot clear {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    };
    clear(draft)?;
    fs::create_dir_all(draft).with_context(|| format!("cannot make {}", draft.display()))?;
    let mut digest = Sha256::new();
    let mut current: Option<File> = None;
    let mut modes = Vec::new();
    let place = |path: &str| -> anyhow::Result<PathBuf> {
        let relative = inside(path).with_context(|| format!("{path:?} leaves the folder"))?;
        let full = draft.join(relative);
        // A link that was sent before may not be walked through.
        let parent = full.parent().unwrap_or(draft);
        if parent.canonicalize()? != draft.canonicalize()?.join(relative.parent().unwrap_or(Path::new(""))) {
            bail!("{path:?} leads through a link");
        }
        Ok(full)
    };
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            StatePiece::Total { entries, .. } if entries > MAX_ENTRIES => {
                bail!("{entries} entries are too many")
            }
            StatePiece::Total { .. } => {}
            StatePiece::Folder { path, mode } => {
                note(&mut digest, b'd', &path);
                let full = place(&path)?;
                fs::create_dir(&full).with_context(|| format!("cannot make {path}"))?;
                modes.push((full, mode));
                current = None;
            }
            StatePiece::File { path, mode } => {
                note(&mut digest, b'f', &path);
                if let Some(file) = current.take() {
                    file.sync_all()?;
                }
                let mut options = File::options();
                let file = options.write(true).create_new(true).mode(mode & 0o7777).open(place(&path)?);
                current = Some(file.with_context(|| format!("cannot write {path}"))?);
            }
            StatePiece::Link { path, to } => {
                note(&mut digest, b'l', &path);
                digest.update(&to);
                std::os::unix::fs::symlink(&to, place(&path)?)?;
                current = None;
            }
            StatePiece::Bytes(bytes) => {
                digest.update(&bytes);
                current.as_mut().context("bytes without a file")?.write_all(&bytes)?;
            }
            StatePiece::End { digest: theirs } => {
                if let Some(file) = current.take() {
                    file.sync_all()?;
                }
                let ours = hex(digest);
                if ours != theirs {
                    bail!("the digest differs: {theirs} was sent, {ours} came");
                }
                // Folders last, innermost first: one that may not be written to could not be filled.
                for (folder, mode) in modes.iter().rev() {
                    fs::set_permissions(folder, fs::Permissions::from_mode(*mode))?;
                }
                clear(staging)?;
                fs::rename(draft, staging).with_context(|| format!("cannot make {}", staging.display()))?;
                return Ok(ours);
            }
        }
    }
    bail!("the copy ended early")
}

/// Removes an operation's staging folder and forgets its copy.
pub(super) async fn drop_staging(inner: &Arc<Inner>, operation: OperationId) {
    let staging = inner.works.layout.staging(operation);
    let gone = tokio::task::spawn_blocking(move || {
        for folder in [staging.with_extension("part"), staging] {
            if let Err(error) = fs::remove_dir_all(&folder)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!("cannot remove {}: {error}", folder.display());
            }
        }
    });
    // A panic there leaves a folder behind, no more.
    drop(gone.await);
    hold(&inner.works.transfers).remove(&operation);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(root: &Path, staging: &Path) -> anyhow::Result<String> {
        let (send, receive) = mpsc::channel(1_024);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        send_folder(runtime.handle(), root, &send)?;
        drop(send);
        write_folder(&staging.with_extension("part"), staging, receive)
    }

    #[test]
    fn a_folder_arrives_whole_and_a_later_pass_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let (root, staging) = (dir.path().join("state"), dir.path().join("staging").join("7"));
        fs::create_dir_all(root.join("deep/er")).unwrap();
        fs::write(root.join("deep/er/file"), vec![7; PIECE + 3]).unwrap();
        fs::write(root.join("empty"), "").unwrap();
        std::os::unix::fs::symlink("deep", root.join("link")).unwrap();
        fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o600)).unwrap();
        copy(&root, &staging).unwrap();
        assert_eq!(fs::read(staging.join("deep/er/file")).unwrap(), vec![7; PIECE + 3]);
        assert_eq!(fs::metadata(staging.join("empty")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_link(staging.join("link")).unwrap(), Path::new("deep"));
        fs::remove_file(root.join("empty")).unwrap();
        copy(&root, &staging).unwrap();
        assert!(!staging.join("empty").exists());
        // A folder that was never made is an empty one.
        copy(&dir.path().join("none"), &staging).unwrap();
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    }

    fn write(pieces: Vec<StatePiece>) -> anyhow::Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let (send, receive) = mpsc::channel(64);
        pieces.into_iter().for_each(|piece| send.try_send(piece).unwrap());
        drop(send);
        let staging = dir.path().join("staging");
        let outcome = write_folder(&staging.with_extension("part"), &staging, receive);
        assert!(!dir.path().join("escaped").exists() && !staging.exists());
        outcome
    }

    #[test]
    fn nothing_escapes_the_staging_folder_and_damage_is_told() {
        let file = |path: &str| StatePiece::File { path: path.to_owned(), mode: 0o644 };
        for path in ["../escaped", "/tmp/escaped", "a/../../escaped", "."] {
            let error = write(vec![file(path)]).unwrap_err().to_string();
            assert!(error.contains("leaves the folder"), "{path}: {error}");
        }
        let link = StatePiece::Link { path: "up".to_owned(), to: "..".to_owned() };
        let error = write(vec![link, file("up/escaped")]).unwrap_err().to_string();
        assert!(error.contains("link"), "{error}");
        let wrong = StatePiece::End { digest: "00".to_owned() };
        assert!(write(vec![file("a"), wrong]).unwrap_err().to_string().contains("digest"));
        assert!(write(vec![file("a")]).unwrap_err().to_string().contains("ended early"));
    }
}

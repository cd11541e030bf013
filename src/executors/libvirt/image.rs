//! Disk images: what an image is, and the overlay that takes an instance's changes. By the tool that knows every
//! format. Asks libvirt nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use quorate_core::ids::Token;
use serde::Deserialize;
use tokio::process::Command;

/// How the names of overlays end.
const ENDING: &str = ".overlay.qcow2";
/// Disks are made of blocks of this size.
const SECTOR: u64 = 512;

#[derive(Deserialize)]
struct Info {
    format: String,
}

/// Is the tool on this host?
pub(super) fn tool_is_here() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("qemu-img").is_file())
}

async fn run(arguments: &[&std::ffi::OsStr]) -> Result<Vec<u8>, String> {
    let mut command = Command::new("qemu-img");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let out = command.output().await.map_err(|error| format!("cannot run qemu-img: {error}"))?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    let words = String::from_utf8_lossy(&out.stderr);
    Err(words.trim().trim_start_matches("qemu-img: ").replace('\n', "; "))
}

/// The format of an image, or why it is none.
pub(super) async fn format(image: &str) -> Result<String, String> {
    let wrong = |why: String| format!("spec.vm_image: {image} {why}");
    let found =
        tokio::fs::metadata(image).await.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if found.is_dir() {
        return Err(wrong("is a folder; name a disk image".to_owned()));
    }
    let arguments = ["info", "--force-share", "--output=json", "--", image].map(AsRef::as_ref);
    let told = run(&arguments).await.map_err(|why| wrong(format!("cannot be read as an image: {why}")))?;
    let info: Info =
        serde_json::from_slice(&told).map_err(|error| wrong(format!("is not described in JSON: {error}")))?;
    // Any file at all reads as a raw image; but no disk ends within a block.
    if info.format == "raw" && found.is_file() && (found.len() == 0 || found.len() % SECTOR != 0) {
        return Err(wrong(format!(
            "is no disk image: its {} bytes are no whole number of blocks of {SECTOR}; make one with qemu-img",
            found.len()
        )));
    }
    Ok(info.format)
}

/// The overlay of an instance: made for its token, and kept over restarts in place. Those of earlier tokens go.
pub(super) async fn overlay(folder: &Path, token: Token, image: &str) -> Result<PathBuf, String> {
    let own = folder.join(format!("{token}{ENDING}"));
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path != own && path.to_str().is_some_and(|path| path.ends_with(ENDING)) {
            let _ = std::fs::remove_file(path);
        }
    }
    if own.exists() {
        return Ok(own);
    }
    let format = format(image).await?;
    // Made aside: one that was made in part is never taken for whole.
    let fresh = folder.join(format!("{token}.fresh"));
    let arguments: [&std::ffi::OsStr; 8] = [
        "create".as_ref(),
        "-q".as_ref(),
        "-f".as_ref(),
        "qcow2".as_ref(),
        "-F".as_ref(),
        format.as_ref(),
        "-b".as_ref(),
        image.as_ref(),
    ];
    run(&[&arguments[..], &[fresh.as_os_str()]].concat())
        .await
        .map_err(|why| format!("spec.vm_image: no overlay over {image} can be made: {why}"))?;
    std::fs::rename(&fresh, &own)
        .map_err(|error| format!("cannot name the overlay {}: {error}", own.display()))?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_image_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        std::fs::write(&text, "no disk").unwrap();
        for path in [text.as_path(), folder.path(), Path::new("/no/such.img")] {
            let error = format(path.to_str().unwrap()).await.unwrap_err();
            assert!(error.starts_with("spec.vm_image: /"), "{error}");
        }
    }
}

//! A cluster's State saved as a file: a line that names the form, a line of JSON for people and programs, then
//! the State in its stored form. Verified whole before anything is made of it. Knows no cluster.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use quorate_core::ids::{ClusterId, Epoch, NodeId, Revision};
use quorate_core::state::{State, codec};
use quorate_core::units::WallMs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const FIRST_LINE: &[u8] = b"quorate snapshot 1\n";
/// The line of JSON is small; what claims more is something else.
const MAX_HEADER: usize = 64 * 1024;

/// What a saved snapshot says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// The epoch it was in.
    pub epoch: Epoch,
    /// The revision that is saved: no acknowledged write up to it is missing.
    pub revision: Revision,
    /// When.
    pub saved_at: WallMs,
    /// By which node.
    pub node: NodeId,
    /// The release that wrote it.
    pub release: String,
    /// Bytes of the State that follows.
    pub bytes: u64,
    /// Over those bytes, hexadecimal.
    pub sha256: String,
}

impl Header {
    /// Of a State, with its stored form.
    pub fn of(state: &State, node: &NodeId, at: WallMs) -> (Self, Vec<u8>) {
        let body = codec::encode_state(state);
        let header = Self {
            cluster: state.cluster.id.clone(),
            name: state.cluster.name.clone(),
            epoch: state.cluster.epoch,
            revision: state.revision,
            saved_at: at,
            node: node.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            bytes: body.len() as u64,
            sha256: hex(&Sha256::digest(&body)),
        };
        (header, body)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A snapshot being written: nothing has its name before it is whole and on the disk.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    draft: PathBuf,
    file: File,
    header: Header,
    sum: Sha256,
    bytes: u64,
}

impl Draft {
    /// Begins one at `path`, readable by this account alone. A file that is there already is not touched.
    pub fn begin(path: &Path, header: Header) -> anyhow::Result<Self> {
        if path.exists() {
            bail!("{} is there already; choose another name", path.display());
        }
        let mut name =
            path.file_name().with_context(|| format!("{} is no file name", path.display()))?.to_owned();
        name.push(".part");
        let draft = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let mut file = file.with_context(|| format!("cannot write {}", draft.display()))?;
        file.write_all(FIRST_LINE)?;
        file.write_all((serde_json::to_string(&header)? + "\n").as_bytes())?;
        Ok(Self { path: path.to_owned(), draft, file, header, sum: Sha256::new(), bytes: 0 })
    }

    /// The next bytes of the State.
    pub fn add(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.draft.display()))?;
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Puts it in place, if it came whole.
    pub fn finish(self) -> anyhow::Result<Header> {
        let Self { path, draft, file, header, sum, bytes } = self;
        if bytes != header.bytes || hex(&sum.finalize()) != header.sha256 {
            let _ = fs::remove_file(&draft);
            bail!("the snapshot did not come whole: {bytes} of {} bytes; save it again", header.bytes);
        }
        file.sync_all().with_context(|| format!("cannot sync {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("cannot put {} in place", path.display()))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(header)
    }
}

/// Reads a snapshot and checks all of it.
pub fn read(path: &Path) -> anyhow::Result<(Header, State)> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| format!("{} cannot be restored", path.display()))
}

fn parse(bytes: &[u8]) -> anyhow::Result<(Header, State)> {
    let Some(rest) = bytes.strip_prefix(FIRST_LINE) else {
        bail!("it is no snapshot that this release knows: it does not begin with `quorate snapshot 1`");
    };
    let end = rest.iter().take(MAX_HEADER).position(|byte| *byte == b'\n').context("it is cut short")?;
    let header: Header = serde_json::from_slice(&rest[..end]).context("its second line is damaged")?;
    let body = &rest[end + 1..];
    if body.len() as u64 != header.bytes {
        bail!("it has {} bytes of State, {} were saved: it was cut or added to", body.len(), header.bytes);
    }
    if hex(&Sha256::digest(body)) != header.sha256 {
        bail!("it is damaged: its SHA-256 does not fit");
    }
    let state = codec::decode_state(body)?;
    if state.revision != header.revision
        || state.cluster.id != header.cluster
        || state.cluster.epoch != header.epoch
    {
        bail!("what it says of itself is not what it holds");
    }
    Ok((header, state))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn saved(folder: &Path) -> PathBuf {
        let path = folder.join("a.snapshot");
        let (header, body) = Header::of(&State::empty(), &"n1".parse().unwrap(), WallMs(7));
        let mut draft = Draft::begin(&path, header).unwrap();
        body.chunks(3).for_each(|part| draft.add(part).unwrap());
        draft.finish().unwrap();
        path
    }

    #[test]
    fn a_snapshot_comes_back_whole_and_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = saved(folder.path());
        let (header, state) = read(&path).unwrap();
        assert_eq!((state, header.saved_at), (State::empty(), WallMs(7)));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Draft::begin(&path, header).unwrap_err().to_string().contains("is there already"));
    }

    #[test]
    fn a_damaged_cut_or_foreign_file_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = saved(folder.path());
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        for (bytes, said) in [
            (&whole[..whole.len() - 1], "cut or added"),
            (&damaged[..], "SHA-256"),
            (&b"hello"[..], "does not begin with"),
            (&whole[..30], "cut short"),
        ] {
            let error = format!("{:#}", parse(bytes).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
        let (header, body) = Header::of(&State::empty(), &"n1".parse().unwrap(), WallMs(7));
        let mut draft = Draft::begin(&folder.path().join("b"), header).unwrap();
        draft.add(&body[..body.len() - 1]).unwrap();
        assert!(draft.finish().is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half is left");
    }
}

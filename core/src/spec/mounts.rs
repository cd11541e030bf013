//! What of a host, or of an engine's volumes, a container sees inside: how it is written and read.

use crate::document::{Field, Outline, shown, text};

use super::Mount;
use super::words::{MAX_PATH_BYTES, absolute, is_engine_name};

/// Mounts of one container.
const MAX_MOUNTS: usize = 128;
/// Where Quorate puts what is its own inside of a container.
const OWN_FOLDER: &str = "/quorate";
const REMEDY: &str = "write SOURCE:TARGET[:ro or :rw], such as /srv/data:/data:ro, or \
                      {source: /srv/data, target: /data, read_only: true}";

impl Mount {
    /// As a description has it: in one text, unless a colon in a path would be misread.
    pub(super) fn outline(&self) -> Outline {
        if self.source.contains(':') || self.target.contains(':') {
            let pairs = [
                ("source", text(&self.source)),
                ("target", text(&self.target)),
                ("read_only", Outline::Bare(self.read_only.to_string())),
            ];
            return Outline::Map(pairs.map(|(key, value)| (key.to_owned(), value)).into());
        }
        text(format!("{}:{}:{}", self.source, self.target, if self.read_only { "ro" } else { "rw" }))
    }
}

/// The mounts of one container, each at a place of its own.
pub(super) fn mounts(field: &Field<'_>) -> Option<Vec<Mount>> {
    let items = field.items(MAX_MOUNTS)?;
    let mut mounts: Vec<Option<Mount>> = items.iter().map(mount).collect();
    for at in 1..items.len() {
        let mut earlier = mounts[..at].iter().flatten();
        if let Some(one) = &mounts[at]
            && let Some(other) = earlier.find(|other| other.target == one.target)
        {
            let message = format!("{} is mounted at {} already", shown(&other.source), shown(&one.target));
            mounts[at] = items[at].fail(message, "mount it at another place, or remove one");
        }
    }
    mounts.into_iter().collect()
}

fn mount(item: &Field<'_>) -> Option<Mount> {
    if item.is_scalar() {
        return item.parsed(2 * MAX_PATH_BYTES, REMEDY, from_text);
    }
    let map = item.fields(&["source", "target", "read_only"])?;
    let path = |key: &str, check: fn(&str) -> Result<String, String>, remedy: &str| match map.get(key) {
        Some(field) => field.parsed(MAX_PATH_BYTES, remedy, check),
        None => map.missing(key, remedy),
    };
    let from = path("source", source, "write an absolute path of the host, or the name of a volume");
    let to = path("target", target, "write an absolute path inside, such as target: /data");
    let read_only = map.get("read_only").map_or(Some(false), |field| field.flag());
    Some(Mount { source: from?, target: to?, read_only: read_only? })
}

fn from_text(text: &str) -> Result<Mount, String> {
    let wrong = |why: &str| Err(format!("{} is not a mount: {why}", shown(text)));
    let parts: Vec<&str> = text.split(':').collect();
    let (from, to, read_only) = match parts.as_slice() {
        [from, to] | [from, to, "rw"] => (from, to, false),
        [from, to, "ro"] => (from, to, true),
        [_] => return wrong("it names no place inside"),
        [_, _, mode] => return wrong(&format!("{} is neither ro nor rw", shown(mode))),
        _ => return wrong("it has too many colons; a path with one is written as a mapping"),
    };
    Ok(Mount { source: source(from)?, target: target(to)?, read_only })
}

fn source(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return absolute(text);
    }
    if is_engine_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!("{} is neither an absolute path nor the name of a volume", shown(text)))
}

fn target(text: &str) -> Result<String, String> {
    let path = absolute(text)?;
    if path == "/" {
        return Err("nothing can be mounted at / itself".to_owned());
    }
    if path == OWN_FOLDER || path.starts_with("/quorate/") {
        return Err(format!("{OWN_FOLDER} inside of a container belongs to Quorate"));
    }
    Ok(path)
}

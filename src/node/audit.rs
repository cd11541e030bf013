//! The audit file of a node: what an operator did here that no quorum could record. One JSON object a line,
//! on disk before the deed; only ever appended to.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

/// Its name in the data directory.
pub(super) const FILE: &str = "audit.jsonl";

/// Appends one line and waits for the disk.
pub(super) fn append(root: &Path, record: &Value) -> anyhow::Result<()> {
    let path = root.join(FILE);
    let begun = || format!("cannot write {}", path.display());
    let new = !path.exists();
    let mut file =
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).with_context(begun)?;
    file.write_all(format!("{record}\n").as_bytes()).with_context(begun)?;
    file.sync_all().with_context(begun)?;
    if new {
        std::fs::File::open(root)?.sync_all().with_context(begun)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..3 {
            append(dir.path(), &serde_json::json!({ "number": number })).unwrap();
        }
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(text, "{\"number\":0}\n{\"number\":1}\n{\"number\":2}\n");
        assert!(append(Path::new("/nowhere"), &Value::Null).is_err());
    }
}

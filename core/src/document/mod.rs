//! Texts that people write (YAML or JSON) as trees with their places, read with errors that say line,
//! column, field and remedy. Knows nothing of services or configurations.

mod nearest;
mod read;
mod tree;
mod write;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use nearest::nearest;
pub use read::{Faults, Field, Fields};
pub use tree::{Entry, Node, Place, Value, parse};
pub use write::{Outline, list, text};

/// The longest document that is read at all.
pub const MAX_BYTES: usize = 1024 * 1024;

/// What is wrong at one place of a document. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DocumentError {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// The path of the field, such as `spec.command[2]`; empty for the document itself.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl std::error::Error for DocumentError {}

/// Everything that is wrong with a document, in the order of its lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentErrors(pub Vec<DocumentError>);

impl fmt::Display for DocumentErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for DocumentErrors {}

impl From<DocumentError> for DocumentErrors {
    fn from(error: DocumentError) -> Self {
        Self(vec![error])
    }
}

/// The text of a file: UTF-8 and not too long, or where it stops being so.
pub fn decode(bytes: &[u8]) -> Result<&str, DocumentError> {
    if bytes.len() > MAX_BYTES {
        return Err(too_long(bytes.len()));
    }
    std::str::from_utf8(bytes).map_err(|wrong| {
        let good = String::from_utf8_lossy(&bytes[..wrong.valid_up_to()]);
        let last = good.rsplit('\n').next().unwrap_or_default();
        DocumentError {
            line: clamp(good.matches('\n').count() + 1),
            column: clamp(last.chars().count() + 1),
            field: String::new(),
            message: format!("byte {} is not UTF-8", wrong.valid_up_to()),
            remedy: "save the file as UTF-8".to_owned(),
        }
    })
}

fn too_long(bytes: usize) -> DocumentError {
    DocumentError {
        line: 1,
        column: 1,
        field: String::new(),
        message: format!("the document has {bytes} bytes; at most {MAX_BYTES} are read"),
        remedy: "split it, or check that it is the right file".to_owned(),
    }
}

/// A text as errors show it: quoted and not long.
pub(crate) fn shown(text: &str) -> String {
    if text.chars().count() > 40 {
        let start: String = text.chars().take(40).collect();
        format!("{:?}", format!("{start}..."))
    } else {
        format!("{text:?}")
    }
}

fn clamp(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_are_placed() {
        let error = decode(b"name: web\nlabels: \xff").unwrap_err();
        assert_eq!((error.line, error.column), (2, 9));
        assert!(error.to_string().contains("UTF-8"), "{error}");
    }

    #[test]
    fn ten_megabytes_are_refused_unread() {
        let error = decode(&vec![b'a'; 10_000_000]).unwrap_err();
        assert!(error.message.contains("10000000 bytes"), "{error}");
    }
}

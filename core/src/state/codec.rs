//! The stored form of everything that lies in the log, in a snapshot or on the wire between nodes: one
//! byte that names the format, then the value. Reads every format that a release ever wrote.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Answer, Rejection, State};
use crate::command::Proposal;

/// The format written now. Format 1 knew native processes alone and was never released.
pub const FORMAT: u8 = 2;

/// Why stored bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not a byte.
    #[error("stored value is empty; the file or message is damaged")]
    Empty,
    /// Written by a newer release.
    #[error(
        "stored value of format {0} is not known to this release, which writes {FORMAT}; use the one that wrote it, or a later one"
    )]
    Format(u8),
    /// Known format, broken contents.
    #[error("stored value of format {format} is damaged: {why}")]
    Damaged {
        /// Its format.
        format: u8,
        /// What the decoder said.
        why: String,
    },
}

/// Any value in its stored form.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Encoding plain data into memory cannot fail; should it ever, the empty value is refused by every reader.
    postcard::to_extend(value, vec![FORMAT]).unwrap_or_default()
}

/// Reads a value from its stored form.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty),
        Some((&FORMAT, rest)) => {
            let damaged = |why: String| CodecError::Damaged { format: FORMAT, why };
            let (value, left) =
                postcard::take_from_bytes(rest).map_err(|error| damaged(error.to_string()))?;
            if left.is_empty() { Ok(value) } else { Err(damaged(format!("{} bytes too many", left.len()))) }
        }
        Some((&format, _)) => Err(CodecError::Format(format)),
    }
}

/// A proposal in its stored form.
pub fn encode_proposal(proposal: &Proposal) -> Vec<u8> {
    encode(proposal)
}

/// Reads a proposal; one that cannot be read is refused alike on every node of this release.
pub fn decode_proposal(bytes: &[u8]) -> Result<Proposal, Rejection> {
    decode(bytes).map_err(|error| match error {
        CodecError::Format(format) => Rejection::Unreadable { format: u32::from(format) },
        CodecError::Empty => Rejection::Unreadable { format: 0 },
        CodecError::Damaged { format, .. } => Rejection::Unreadable { format: u32::from(format) },
    })
}

/// An answer in its stored form.
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    encode(answer)
}

/// Reads an answer.
pub fn decode_answer(bytes: &[u8]) -> Result<Answer, CodecError> {
    decode(bytes)
}

/// The whole of State in its stored form.
pub fn encode_state(state: &State) -> Vec<u8> {
    encode(state)
}

/// Reads the whole of State.
pub fn decode_state(bytes: &[u8]) -> Result<State, CodecError> {
    decode(bytes)
}

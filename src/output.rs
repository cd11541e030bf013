//! How commands print: for people or for scripts, to a pipe that may be closed. Does not know what is printed.

use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;

use crate::api::error::ApiError;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns.
    Table,
    /// One JSON object.
    Json,
}

/// Writes to stdout; a closed pipe ends the command quietly, as `head` would want.
pub fn print(text: &str) -> Result<(), ApiError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(ApiError::failed(&error.into())),
    }
}

/// Writes a value as one line of JSON to stdout.
pub fn print_json<T: Serialize>(value: &T) -> Result<(), ApiError> {
    let text = serde_json::to_string(value).map_err(|error| ApiError::failed(&error.into()))?;
    print(&format!("{text}\n"))
}

//! One error for the API and the CLI: a fixed code, a message, a remedy. Travels as a gRPC status with
//! three headers, so that a script can tell `no_quorum` from `rejected` without reading sentences.

use std::fmt;

use quorate_core::ids::Revision;
use quorate_core::state::Rejection;
use serde::Serialize;
use tonic::{Code, Status};

const CODE: &str = "quorate-code";
const REMEDY: &str = "quorate-remedy-bin";
const REVISION: &str = "quorate-revision";

/// What went wrong, as scripts tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Something failed that has no code of its own.
    Failed,
    /// The request itself makes no sense.
    Usage,
    /// This side of the cluster cannot decide.
    NoQuorum,
    /// What it is about does not exist.
    NotFound,
    /// What it is about changed since the caller looked.
    StaleRevision,
    /// A rule forbids it.
    Rejected,
    /// The node cannot be reached.
    Unreachable,
    /// It may or may not have happened.
    Unknown,
    /// The caller did not prove that it may ask.
    Denied,
}

impl ErrorCode {
    const ALL: [ErrorCode; 9] = [
        ErrorCode::Failed,
        ErrorCode::Usage,
        ErrorCode::NoQuorum,
        ErrorCode::NotFound,
        ErrorCode::StaleRevision,
        ErrorCode::Rejected,
        ErrorCode::Unreachable,
        ErrorCode::Unknown,
        ErrorCode::Denied,
    ];

    /// The process's exit code for it.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorCode::Failed => 1,
            ErrorCode::Usage => 2,
            ErrorCode::NoQuorum => 3,
            ErrorCode::NotFound => 4,
            ErrorCode::StaleRevision => 5,
            ErrorCode::Rejected => 6,
            ErrorCode::Unreachable => 7,
            ErrorCode::Unknown => 8,
            ErrorCode::Denied => 9,
        }
    }

    /// Its name in JSON and headers.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::Failed => "failed",
            ErrorCode::Usage => "usage",
            ErrorCode::NoQuorum => "no_quorum",
            ErrorCode::NotFound => "not_found",
            ErrorCode::StaleRevision => "stale_revision",
            ErrorCode::Rejected => "rejected",
            ErrorCode::Unreachable => "unreachable",
            ErrorCode::Unknown => "unknown",
            ErrorCode::Denied => "denied",
        }
    }

    fn grpc(self) -> Code {
        match self {
            ErrorCode::Failed => Code::Internal,
            ErrorCode::Usage => Code::InvalidArgument,
            ErrorCode::NoQuorum | ErrorCode::Unreachable => Code::Unavailable,
            ErrorCode::NotFound => Code::NotFound,
            ErrorCode::StaleRevision => Code::Aborted,
            ErrorCode::Rejected => Code::FailedPrecondition,
            ErrorCode::Unknown => Code::Unknown,
            ErrorCode::Denied => Code::Unauthenticated,
        }
    }
}

/// What went wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiError {
    /// Which kind.
    pub code: ErrorCode,
    /// In words: lower-case, naming the thing.
    pub message: String,
    /// What to do; may be empty.
    pub remedy: String,
    /// The revision it was decided at, if one was.
    pub revision: Option<u64>,
}

impl ApiError {
    /// An error without a revision.
    pub fn new(code: ErrorCode, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: remedy.into(), revision: None }
    }

    /// Any other failure, with all its causes.
    pub fn failed(error: &anyhow::Error) -> Self {
        Self::new(ErrorCode::Failed, format!("{error:#}"), "")
    }

    /// A refusal by the cluster's own rules.
    pub fn rejection(rejection: &Rejection, revision: Revision) -> Self {
        let (code, message, remedy) = match rejection {
            Rejection::NotFound { .. } => (ErrorCode::NotFound, rejection.to_string(), String::new()),
            Rejection::Stale { .. } => (ErrorCode::StaleRevision, rejection.to_string(), String::new()),
            Rejection::Refused { because, remedy } => {
                (ErrorCode::Rejected, format!("rejected: {because}"), remedy.clone())
            }
            Rejection::Limit { what, limit, remedy } => (
                ErrorCode::Rejected,
                format!("rejected: {what} would exceed the limit of {limit}"),
                remedy.clone(),
            ),
            Rejection::Settings(_) | Rejection::Unreadable { .. } => {
                (ErrorCode::Rejected, format!("rejected: {rejection}"), String::new())
            }
        };
        Self { code, message, remedy, revision: Some(revision.0) }
    }

    /// The error that a status carries; a status of somebody else's making is told by its gRPC code.
    pub fn from_status(status: &Status) -> Self {
        let header = |name: &str| status.metadata().get(name).and_then(|value| value.to_str().ok());
        let named = header(CODE).and_then(|name| ErrorCode::ALL.into_iter().find(|code| code.name() == name));
        let code = named.unwrap_or(match status.code() {
            Code::Unavailable => ErrorCode::Unreachable,
            Code::NotFound => ErrorCode::NotFound,
            Code::Aborted => ErrorCode::StaleRevision,
            Code::FailedPrecondition | Code::ResourceExhausted => ErrorCode::Rejected,
            Code::InvalidArgument | Code::OutOfRange => ErrorCode::Usage,
            Code::Unauthenticated | Code::PermissionDenied => ErrorCode::Denied,
            Code::DeadlineExceeded | Code::Cancelled => ErrorCode::Unknown,
            _ => ErrorCode::Failed,
        });
        let remedy = status
            .metadata()
            .get_bin(REMEDY)
            .and_then(|value| value.to_bytes().ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        Self {
            code,
            message: status.message().to_owned(),
            remedy,
            revision: header(REVISION).and_then(|text| text.parse().ok()),
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut status = Status::new(error.code.grpc(), error.message);
        let metadata = status.metadata_mut();
        if let Ok(name) = error.code.name().parse() {
            metadata.insert(CODE, name);
        }
        metadata.insert_bin(REMEDY, tonic::metadata::MetadataValue::from_bytes(error.remedy.as_bytes()));
        if let Some(Ok(revision)) = error.revision.map(|revision| revision.to_string().parse()) {
            metadata.insert(REVISION, revision);
        }
        status
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_its_way_as_a_status() {
        for code in ErrorCode::ALL {
            let error = ApiError {
                code,
                message: "rejected: no fence method".to_owned(),
                remedy: "configure fencing.methods – or attest".to_owned(),
                revision: Some(17),
            };
            assert_eq!(ApiError::from_status(&Status::from(error.clone())), error);
        }
    }

    #[test]
    fn exit_codes_are_the_published_ones() {
        let codes: Vec<u8> = ErrorCode::ALL.iter().map(|code| code.exit_code()).collect();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}

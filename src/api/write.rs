//! One way for every write: from options and a command to a proposal, from its answer to a reply or an
//! error with its code.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_core::command::{Actor, Command, Proposal};
use quorate_core::ids::{ClientId, NameError, RequestId, Revision};
use quorate_core::state::{Answer, Reply};
use quorate_core::units::WallMs;
use tonic::{Response, Status};

use super::error::{ApiError, ErrorCode};
use super::proto::{RequestId as RequestIdProto, WriteOptions, WriteResponse};
use crate::ports::{NodePort, SubmitError};

/// How long a write may take before its outcome is called unknown.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// For writers that brought no request id: one is made, so that retries inside of the cluster are safe.
static NEXT_SEQUENCE: AtomicU64 = AtomicU64::new(1);
/// State remembers few answers of one client. However many write at once here, each is a client of its own.
static LANES: Lanes = Lanes { free: Mutex::new(Vec::new()), made: AtomicU64::new(0) };

struct Lanes {
    free: Mutex<Vec<u64>>,
    made: AtomicU64,
}

/// One writer's part in a client's name, until its outcome is known. After an unknown one nobody gets it again, so that
/// the request can be repeated.
struct Lane(u64);

impl Lane {
    fn take() -> Self {
        let free = LANES.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(free.unwrap_or_else(|| LANES.made.fetch_add(1, Ordering::Relaxed)))
    }

    fn give_back(self) {
        LANES.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
    }
}

/// Proposes a command and waits for its answer.
pub(super) async fn write(
    port: &dyn NodePort,
    options: Option<WriteOptions>,
    command: Command,
) -> Result<Answer, ApiError> {
    let lane = Lane::take();
    let proposal = proposal(port, options.unwrap_or_default(), command, &lane);
    let answer = match port.submit(proposal, WRITE_WITHIN).await {
        Err(error @ SubmitError::Unknown { .. }) => return Err(error.into()),
        known => {
            lane.give_back();
            known?
        }
    };
    match &answer.result {
        Ok(_) => Ok(answer),
        Err(rejection) => Err(ApiError::rejection(rejection, answer.revision)),
    }
}

/// As [`write`], for the calls that answer with a revision and perhaps an operation.
pub(super) async fn write_response(
    port: &dyn NodePort,
    options: Option<WriteOptions>,
    command: Command,
) -> Result<Response<WriteResponse>, Status> {
    let answer = write(port, options, command).await?;
    Ok(Response::new(response(&answer)))
}

/// What an answer says, for the wire.
pub(super) fn response(answer: &Answer) -> WriteResponse {
    let operation = match &answer.result {
        Ok(Reply::Began(operation)) => operation.0,
        _ => 0,
    };
    let changed = !matches!(answer.result, Ok(Reply::Unchanged));
    WriteResponse { revision: answer.revision.0, changed, operation }
}

fn proposal(port: &dyn NodePort, options: WriteOptions, command: Command, lane: &Lane) -> Proposal {
    let request = options.request.filter(|request| !request.client.is_empty()).map_or_else(
        || {
            let sequence = NEXT_SEQUENCE.fetch_add(1, Ordering::Relaxed);
            let client = ClientId(format!("{}/{}/{}", port.me(), std::process::id(), lane.0));
            // One after the other: whoever wrote here before has its answer.
            RequestId { client, sequence, settled: sequence - 1 }
        },
        |RequestIdProto { client, sequence, settled }| RequestId {
            client: ClientId(client),
            sequence,
            settled,
        },
    );
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    Proposal {
        request: Some(request),
        actor: Actor::Operator {
            name: or(options.operator, "unnamed"),
            from: or(options.from, &format!("api@{}", port.me())),
        },
        at: wall_now(),
        expected: (options.expected_revision > 0).then_some(Revision(options.expected_revision)),
        command,
    }
}

/// The wall clock, for people.
pub(super) fn wall_now() -> WallMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let (code, message, remedy) = match error {
            SubmitError::NoQuorum { why } => (
                ErrorCode::NoQuorum,
                format!("no quorum: {why}; nothing was changed"),
                "try again once a majority of voters is back, or ask a node on the majority's side"
                    .to_owned(),
            ),
            SubmitError::Unknown { why, request } => (
                ErrorCode::Unknown,
                format!("outcome unknown: {why}"),
                request.map_or_else(
                    || "look before you repeat it".to_owned(),
                    |request| format!("repeat it with request {request}: it is never applied twice"),
                ),
            ),
            SubmitError::TooLarge { limit } => (
                ErrorCode::Rejected,
                format!("rejected: the command is larger than {limit} bytes"),
                "split it".to_owned(),
            ),
            SubmitError::Stopping => {
                (ErrorCode::Unreachable, "this node is stopping".to_owned(), "ask another node".to_owned())
            }
            SubmitError::Refused { because, remedy } => {
                (ErrorCode::Rejected, format!("rejected: {because}"), remedy)
            }
        };
        Self::new(code, message, remedy)
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::new(ErrorCode::Usage, error.to_string(), "")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn writers_at_the_same_time_are_different_clients_and_later_ones_are_the_same_again() {
        let together: Vec<Lane> = (0..100).map(|_| Lane::take()).collect();
        let names: BTreeSet<u64> = together.iter().map(|lane| lane.0).collect();
        assert_eq!(names.len(), 100);
        let made = LANES.made.load(Ordering::Relaxed);
        together.into_iter().for_each(Lane::give_back);
        (0..1_000).for_each(|_| Lane::take().give_back());
        // Other tests of this process may write as well, but not so many at once.
        assert!(LANES.made.load(Ordering::Relaxed) < made + 100);
    }
}

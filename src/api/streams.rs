//! Answers that go on for as long as the caller listens. Each holds memory for its caller, who may have
//! stopped reading: there are so many and no more.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use tokio::sync::Semaphore;

use super::error::{ApiError, ErrorCode};

/// Streams of one node at once.
const MOST: usize = 256;

/// The streams that are open.
#[derive(Clone)]
pub(super) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

impl Streams {
    /// The stream, counted until it is dropped.
    pub(super) fn open<S: Stream>(
        &self,
        stream: S,
    ) -> Result<impl Stream<Item = S::Item> + use<S>, ApiError> {
        let place = self.0.clone().try_acquire_owned().map_err(|_| {
            ApiError::new(
                ErrorCode::Rejected,
                format!("rejected: {MOST} streams are open at this node"),
                "close some, or ask another node",
            )
        })?;
        Ok(stream.map(move |item| {
            let _held = &place;
            item
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stream_too_many_is_refused_and_an_ended_one_makes_room() {
        let streams = Streams::default();
        let mut open: Vec<_> = (0..MOST).map(|_| streams.open(futures::stream::pending::<()>())).collect();
        assert!(open.iter().all(Result::is_ok));
        let refused = streams.open(futures::stream::pending::<()>()).err().unwrap();
        assert_eq!(refused.code, ErrorCode::Rejected);
        open.pop();
        assert!(streams.open(futures::stream::pending::<()>()).is_ok());
    }
}

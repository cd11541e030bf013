//! Holds back appends without entries for a moment. They tell a peer what was committed, and entries that follow tell
//! it too: under load half of all messages are saved. Does not know how messages travel.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::types::TypeConfig;

type Request = AppendEntriesRequest<TypeConfig>;

/// The same requests, but for those that say nothing which a later one does not say. `hurry` lets go of what is held,
/// as does `hold`'s end. A mere sign of life, which tells of no commit that was not told before, is not held: it would
/// wake this thread once more.
pub fn held_back<S>(input: S, hurry: Arc<Notify>, hold: Duration) -> impl Stream<Item = Request> + Send
where
    S: Stream<Item = Request> + Send + Unpin,
{
    futures::stream::unfold((input.fuse(), hurry, None), move |(mut input, hurry, told)| async move {
        let mut held = input.next().await?;
        let until = Instant::now() + hold;
        while held.entries.is_empty() && held.leader_commit != told {
            let next = tokio::select! {
                biased;
                next = input.next() => next,
                () = hurry.notified() => None,
                () = sleep_until(until) => None,
            };
            match next {
                Some(next) => held = next,
                None => break,
            }
        }
        let told = held.leader_commit;
        Some((held, (input, hurry, told)))
    })
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::super::codec::{LogIdV1, VoteV1};
    use super::super::types::{Entry, LogId};
    use super::*;

    /// From a leader that has committed so many, with so many more.
    fn request(committed: u64, entries: u64) -> Request {
        let at = |index| LogId::from(LogIdV1 { term: 1, index });
        AppendEntriesRequest {
            vote: VoteV1 { term: 1, node: 1, committed: true }.into(),
            prev_log_id: Some(at(committed)),
            entries: (1..=entries).map(|n| Entry::new_blank(at(committed + n))).collect(),
            leader_commit: Some(at(committed)),
        }
    }

    fn committed(request: Option<Request>) -> Option<u64> {
        request.and_then(|request| request.leader_commit).map(|id| id.index)
    }

    #[tokio::test]
    async fn a_notice_goes_with_the_entries_that_follow_it_or_alone_after_a_moment() {
        let (send, receive) = mpsc::unbounded_channel();
        let hold = Duration::from_millis(20);
        let out = held_back(UnboundedReceiverStream::new(receive), Arc::default(), hold);
        tokio::pin!(out);
        for next in [request(4, 0), request(5, 0), request(6, 2), request(8, 0)] {
            send.send(next).unwrap();
        }
        assert_eq!(committed(out.next().await), Some(6));
        let before = Instant::now();
        assert_eq!(committed(out.next().await), Some(8));
        assert!(before.elapsed() >= hold);
    }

    #[tokio::test]
    async fn a_sign_of_life_that_tells_nothing_new_goes_at_once() {
        let (send, receive) = mpsc::unbounded_channel();
        let out =
            held_back(UnboundedReceiverStream::new(receive), Arc::default(), Duration::from_secs(3_600));
        tokio::pin!(out);
        send.send(request(8, 1)).unwrap();
        assert_eq!(committed(out.next().await), Some(8));
        send.send(request(8, 0)).unwrap();
        assert_eq!(committed(out.next().await), Some(8));
    }

    #[tokio::test]
    async fn a_notice_that_somebody_waits_for_and_the_last_one_go_at_once() {
        let (send, receive) = mpsc::unbounded_channel();
        let (hurry, forever) = (Arc::new(Notify::new()), Duration::from_secs(3_600));
        let out = held_back(UnboundedReceiverStream::new(receive), hurry.clone(), forever);
        tokio::pin!(out);
        send.send(request(8, 0)).unwrap();
        let (held, ()) = tokio::join!(out.next(), async { hurry.notify_waiters() });
        assert_eq!(committed(held), Some(8));
        send.send(request(9, 0)).unwrap();
        drop(send);
        assert_eq!(committed(out.next().await), Some(9));
        assert!(out.next().await.is_none());
    }
}

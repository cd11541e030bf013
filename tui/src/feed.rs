//! The way into the cockpit, for any number of senders: bounded, the newest view replaces an unread one,
//! and nobody ever waits for the terminal.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::msg::Msg;

/// Messages kept for a terminal that does not take them.
const MOST: usize = 1_024;

/// A sender of messages; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Msg>,
    /// Came from the keyboard, so it is to be seen at once.
    urgent: bool,
    closed: bool,
    /// Why the terminal cannot be read any more.
    lost: Option<String>,
}

impl Feed {
    /// Hands a message over; false once the cockpit has ended. Beyond its bound the oldest log lines go
    /// first, then the oldest of anything.
    pub fn send(&self, msg: Msg) -> bool {
        let mut queue = self.lock();
        if queue.closed {
            return false;
        }
        queue.urgent |= matches!(msg, Msg::Key(_) | Msg::Paste(_) | Msg::Resize(..));
        if matches!(msg, Msg::View(_)) {
            queue.messages.retain(|old| !matches!(old, Msg::View(_)));
        }
        queue.messages.push_back(msg);
        if queue.messages.len() > MOST {
            let lines =
                queue.messages.iter().position(|old| matches!(old, Msg::LogLines { ended: None, .. }));
            queue.messages.remove(lines.unwrap_or(0));
        }
        drop(queue);
        self.shared.wake.notify_one();
        true
    }

    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.messages.clear();
        drop(queue);
        self.shared.wake.notify_all();
    }

    /// Closes because the terminal is gone: nobody can be asked any more.
    pub(crate) fn lose(&self, why: String) {
        self.lock().lost = Some(why);
        self.close();
    }

    pub(crate) fn lost(&self) -> Option<String> {
        self.lock().lost.clone()
    }

    pub(crate) fn closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits for messages until `deadline` and takes all there are. Messages that are not from the
    /// keyboard are left to gather until `background`.
    pub(crate) fn take(&self, background: Instant, deadline: Option<Instant>) -> Vec<Msg> {
        let mut queue = self.lock();
        loop {
            let now = Instant::now();
            let ready = queue.urgent || (!queue.messages.is_empty() && now >= background);
            if ready || queue.closed || deadline.is_some_and(|deadline| now >= deadline) {
                queue.urgent = false;
                return queue.messages.drain(..).collect();
            }
            let until = match (queue.messages.is_empty(), deadline) {
                (false, Some(deadline)) => Some(background.min(deadline)),
                (false, None) => Some(background),
                (true, deadline) => deadline,
            };
            let wait = until.map_or(Duration::from_secs(3_600), |until| until.saturating_duration_since(now));
            let woken = self.shared.wake.wait_timeout(queue, wait);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msg::LogLine;
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn keys_are_taken_at_once_and_the_rest_with_them() {
        let feed = Feed::default();
        feed.send(Msg::Tick);
        feed.send(Msg::Key(KeyEvent::new(KeyCode::Char('j'), KeyModifiers::NONE)));
        assert_eq!(feed.take(far(), None).len(), 2, "a key does not wait for the background's turn");
    }

    #[test]
    fn a_terminal_that_takes_nothing_costs_bounded_memory_and_keeps_answers() {
        let feed = Feed::default();
        feed.send(Msg::CommandResult { id: 1, outcome: Ok(String::new()) });
        for _ in 0..MOST * 2 {
            let line = LogLine { slot: "web/0".into(), error: false, text: "x".into() };
            assert!(feed.send(Msg::LogLines { stream: 1, lines: vec![line], ended: None }));
        }
        let taken = feed.take(Instant::now(), None);
        assert!(taken.len() <= MOST);
        assert!(matches!(taken[0], Msg::CommandResult { .. }));
    }

    #[test]
    fn a_closed_feed_says_so() {
        let feed = Feed::default();
        feed.close();
        assert!(!feed.send(Msg::Tick));
        assert!(feed.take(far(), None).is_empty());
    }
}

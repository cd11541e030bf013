//! Remembered answers: a request that comes again is answered alike and never applied twice.

use super::{Entry, limits, refused};
use crate::ids::{ClientId, RequestId, Revision};
use crate::state::{Answer, ClientRecord};

impl Entry<'_> {
    /// The answer this request got before, or a refusal if it is too old to tell.
    pub(super) fn remembered(&self, request: &RequestId) -> Option<Answer> {
        let revision = self.state.revision;
        let refuse =
            |because: String, remedy: &str| Some(Answer { revision, result: Err(refused(because, remedy)) });
        if request.client.0.is_empty() || request.client.0.len() > limits::NAME_BYTES {
            return refuse("the client's id is empty or too long".to_owned(), "draw an id of 1 to 128 bytes");
        }
        let record = self.state.clients.get(&request.client)?;
        if let Some(answer) = record.answers.get(request.sequence) {
            return Some(answer.clone());
        }
        let mut known = record.answers.sequences();
        let full = known.len() >= limits::CLIENT_ANSWERS;
        let oldest = known.next()?;
        if request.sequence <= record.settled || (full && request.sequence < oldest) {
            let because = format!("request {request} is older than the answers still remembered");
            return refuse(because, "look whether it took effect, then ask again with a new number");
        }
        None
    }

    /// Remembers an answer; of too many the oldest is forgotten.
    pub(super) fn remember(&mut self, request: &RequestId, answer: &Answer) {
        let last = self.state.revision;
        if !self.state.clients.contains_key(&request.client) {
            self.make_room_for_client();
            self.state.clients.insert(request.client.clone(), ClientRecord::default());
        }
        self.state.clients.update(&request.client, |record| {
            record.last = last;
            record.settled = record.settled.max(request.settled.min(request.sequence.saturating_sub(1)));
            record.answers.remember(request.sequence, answer.clone(), record.settled, limits::CLIENT_ANSWERS);
        });
    }

    /// Forgets the clients longest silent, a sixteenth of all at a time, so that the search for them is rare.
    fn make_room_for_client(&mut self) {
        if self.state.clients.len() < limits::CLIENTS {
            return;
        }
        let mut all: Vec<(Revision, ClientId)> =
            self.state.clients.iter().map(|(id, record)| (record.last, id.clone())).collect();
        all.sort();
        for (_, id) in all.into_iter().take(limits::CLIENTS / 16) {
            self.state.clients.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Cluster, asked, request};
    use super::*;
    use crate::command::Command;

    #[test]
    fn a_retry_is_answered_alike_and_applies_once() {
        let mut c = Cluster::of(&["n1"]);
        let put = |n: u64| {
            let command =
                Command::KvPut { key: b"k".to_vec(), value: vec![n as u8], ttl: None, if_revision: None };
            let mut proposal = asked(command);
            proposal.request = Some(request("alice", n));
            proposal
        };
        let first = c.propose(put(1));
        let second = c.propose(put(2));
        assert_eq!(c.propose(put(1)), first);
        assert_eq!(c.state.kv.get(&b"k".to_vec()).unwrap().value, vec![2]);
        assert!(second.revision > first.revision);
        for n in 3..200 {
            c.propose(put(n));
        }
        assert_eq!(c.state.clients.len(), 1);
        let forgotten = c.propose(put(1)).result.unwrap_err();
        assert!(forgotten.to_string().contains("older than the answers"), "{forgotten}");
        assert_eq!(c.state.kv.get(&b"k".to_vec()).unwrap().value, vec![199]);
    }

    #[test]
    fn what_a_client_calls_settled_is_forgotten_and_never_done_again() {
        let mut c = Cluster::of(&["n1"]);
        let put = |n: u64, settled: u64| {
            let command =
                Command::KvPut { key: b"k".to_vec(), value: vec![n as u8], ttl: None, if_revision: None };
            let mut proposal = asked(command);
            proposal.request = Some(RequestId { settled, ..request("alice", n) });
            proposal
        };
        for n in 1..10 {
            c.propose(put(n, n - 1)).result.unwrap();
        }
        let record = c.state.clients.get(&request("alice", 1).client).unwrap();
        assert_eq!(record.answers.sequences().collect::<Vec<_>>(), [9]);
        // The one before comes late, or is repeated: it is refused, and the last is answered as before.
        let late = c.propose(put(8, 0)).result.unwrap_err();
        assert!(late.to_string().contains("older than the answers"), "{late}");
        let last = c.propose(put(9, 8));
        assert!(last.result.is_ok() && last.revision < c.state.revision);
        assert_eq!(c.state.kv.get(&b"k".to_vec()).unwrap().value, vec![9]);
        // Nobody settles what it is just asking for.
        let own = c.propose(put(11, 99));
        assert_eq!(c.propose(put(11, 99)), own);
        c.propose(put(12, 0)).result.unwrap();
    }

    #[test]
    fn clients_longest_silent_are_forgotten_first() {
        let mut c = Cluster::of(&["n1"]);
        for n in 0..=limits::CLIENTS {
            let mut proposal = asked(Command::KvDelete { key: b"k".to_vec(), range_end: None });
            proposal.request = Some(request(&format!("client-{n}"), 1));
            c.state.apply(Revision(c.state.revision.0 + 1), &[proposal]);
        }
        assert!(c.state.clients.len() <= limits::CLIENTS);
        assert!(!c.state.clients.contains_key(&request("client-0", 1).client));
        let newest = format!("client-{}", limits::CLIENTS);
        assert!(c.state.clients.contains_key(&request(&newest, 1).client));
    }
}

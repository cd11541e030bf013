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
        if let Some(answer) = record.answers.get(&request.sequence) {
            return Some(answer.clone());
        }
        let (oldest, _) = record.answers.first_key_value()?;
        if record.answers.len() >= limits::CLIENT_ANSWERS && request.sequence < *oldest {
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
            record.answers.insert(request.sequence, answer.clone());
            while record.answers.len() > limits::CLIENT_ANSWERS {
                record.answers.pop_first();
            }
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

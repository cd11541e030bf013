//! What the guard knows of its second holder, the twin: whether there can be one, whether it is there, what it
//! was told and what it said it holds. Starts it again when it is gone. Does not know sockets.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::ids::SlotId;
use quorate_core::observation::Unavailable;
use quorate_core::units::{BootMs, Millis};

use super::protocol::{Holders, Holds, Told};

/// A twin that owes an answer for so long does not answer.
const SILENT: Millis = Millis(500);

/// One that is silent for so long is ended, so that another can take its place.
const GIVEN_UP: Millis = Millis(5_000);

/// An instance that no holder can kill counts for so long before it runs: the cluster has to hear of it first.
const ASKED_FOR: Millis = Millis(30_000);

/// Between two attempts to start one.
const RETRY: Millis = Millis(1_000);

/// What the guard knows.
#[derive(Debug)]
pub struct Second {
    /// Why there can be none on this host, if so.
    impossible: Option<Unavailable>,
    pid: u32,
    asked: u64,
    answered: u64,
    /// Since when it owes an answer.
    owes: Option<BootMs>,
    /// Slots that it has not been told of.
    news: BTreeSet<SlotId>,
    unable: BTreeMap<SlotId, String>,
    /// Slots whose instances no holder could kill for sure, why, and until when that holds without a run.
    given_up: BTreeMap<SlotId, (String, BootMs)>,
    try_at: BootMs,
    /// Is there anything to hold, or anybody to be armed for?
    pub wanted: bool,
    /// What is to be sent to it.
    pub words: Vec<Told>,
}

/// What is to be done about the twin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Start one.
    Start,
    /// End that one: it does not answer.
    End(u32),
}

impl Second {
    /// On a host where there can be one, unless `impossible` says why not.
    pub fn new(impossible: Option<Unavailable>) -> Self {
        Self {
            impossible,
            pid: 0,
            asked: 0,
            answered: 0,
            owes: None,
            news: BTreeSet::new(),
            unable: BTreeMap::new(),
            given_up: BTreeMap::new(),
            try_at: BootMs(0),
            wanted: true,
            words: Vec::new(),
        }
    }

    /// One is here, and is to hold these.
    pub fn came(&mut self, pid: u32, slots: Vec<SlotId>, now: BootMs) {
        (self.pid, self.answered, self.owes) = (pid, 0, None);
        self.news = slots.into_iter().collect();
        self.unable.clear();
        self.look(now);
    }

    /// It is gone.
    pub fn gone(&mut self, now: BootMs) {
        (self.pid, self.owes) = (0, None);
        self.words.clear();
        self.try_at = self.try_at.min(now);
    }

    /// A slot's record changed; it is told with the next question.
    pub fn note(&mut self, slot: &SlotId) {
        if self.pid > 0 {
            self.news.insert(slot.clone());
        }
    }

    /// Asks it to hold what is stored by now. The number that its answer will bear; 0 if nobody is asked.
    pub fn look(&mut self, now: BootMs) -> u64 {
        if self.pid == 0 {
            return 0;
        }
        self.asked += 1;
        self.owes.get_or_insert(now);
        let slots = std::mem::take(&mut self.news).into_iter().collect();
        self.words.push(Told::Look { number: self.asked, slots });
        self.asked
    }

    /// Asks for a sign of life, unless one is owed already.
    pub fn ping(&mut self, now: BootMs) {
        if self.owes.is_none() {
            self.look(now);
        }
    }

    /// It answered.
    pub fn answer(&mut self, holds: Holds, now: BootMs) {
        self.answered = self.answered.max(holds.number);
        self.unable = holds.unable.into_iter().collect();
        self.owes = (self.answered < self.asked).then_some(now);
    }

    /// An instance is to run that no holder can be sure to kill: nothing here is armed while it does.
    pub fn give_up(&mut self, slot: &SlotId, why: &str, now: BootMs) {
        self.given_up.insert(slot.clone(), (why.to_owned(), now + ASKED_FOR));
    }

    /// Was that said already?
    pub fn gave_up(&self, slot: &SlotId) -> bool {
        self.given_up.contains_key(slot)
    }

    /// It is over with that instance.
    pub fn recover(&mut self, slot: &SlotId) {
        self.given_up.remove(slot);
    }

    /// Forgets those that have no run and were not asked for of late.
    pub fn expire(&mut self, runs: impl Fn(&SlotId) -> bool, now: BootMs) {
        self.given_up.retain(|slot, (_, until)| runs(slot) || now < *until);
    }

    /// Does it hold what was stored when that was asked? Nobody asked is nobody waited for.
    pub fn holds(&self, number: u64) -> bool {
        self.answered >= number
    }

    /// Will that answer not come any more?
    pub fn fails(&self, number: u64, now: BootMs) -> bool {
        !self.holds(number) && (self.pid == 0 || self.silent(now))
    }

    fn silent(&self, now: BootMs) -> bool {
        self.owes.is_some_and(|since| now >= since + SILENT)
    }

    /// Is the deadline of this slot held twice?
    pub fn arms(&self, slot: &SlotId, now: BootMs) -> bool {
        self.pid > 0
            && self.answered > 0
            && !self.silent(now)
            && !self.unable.contains_key(slot)
            && !self.given_up.contains_key(slot)
    }

    /// As the node is told.
    pub fn holders(&self, now: BootMs) -> Holders {
        Holders { twin: self.pid, unarmed: self.unarmed(now) }
    }

    fn unarmed(&self, now: BootMs) -> Option<Unavailable> {
        let because = |why: String, remedy: &str| Some(Unavailable { why, remedy: remedy.to_owned() });
        if self.impossible.is_some() {
            return self.impossible.clone();
        }
        if self.pid == 0 || self.answered == 0 {
            let why = "the second holder of the deadlines is not there".to_owned();
            return because(why, "wait: the guard starts it by itself; guard/guard.log says what it did");
        }
        if self.silent(now) {
            let why = format!("the second holder of the deadlines, process {}, does not answer", self.pid);
            return because(why, "wait: the guard ends it and starts another");
        }
        if let Some((slot, why)) = self.unable.iter().find(|(slot, _)| !self.given_up.contains_key(*slot)) {
            return because(format!("{slot} could outlive its deadline: {why}"), "restart that service");
        }
        let (slot, (why, _)) = self.given_up.iter().next()?;
        let remedy = "give the node a fence method, or run that service elsewhere";
        because(format!("{slot} could outlive its deadline: {why}"), remedy)
    }

    /// What is to be done about it now.
    pub fn due(&mut self, now: BootMs) -> Option<Due> {
        if self.impossible.is_some() || now < self.try_at {
            return None;
        }
        if self.pid == 0 {
            return self.wanted.then(|| {
                self.try_at = now + RETRY;
                Due::Start
            });
        }
        let given_up = self.owes.is_some_and(|since| now >= since + GIVEN_UP);
        given_up.then(|| {
            self.try_at = now + RETRY;
            Due::End(self.pid)
        })
    }

    /// When it has to be looked after next.
    pub fn next(&self, now: BootMs) -> Option<BootMs> {
        if self.impossible.is_some() {
            return None;
        }
        if self.pid == 0 {
            return self.wanted.then_some(self.try_at);
        }
        let since = self.owes?;
        Some(if self.silent(now) { (since + GIVEN_UP).max(self.try_at) } else { since + SILENT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootMs = BootMs(10_000);

    fn slot() -> SlotId {
        "db/0".parse().unwrap()
    }

    fn holds(number: u64) -> Holds {
        Holds { number, unable: Vec::new() }
    }

    #[test]
    fn a_twin_arms_once_it_said_that_it_holds_all_and_until_it_is_silent() {
        let mut second = Second::new(None);
        assert_eq!(second.due(NOW), Some(Due::Start));
        assert_eq!(second.due(NOW), None);
        second.came(7, vec![slot()], NOW);
        assert_eq!(second.words, [Told::Look { number: 1, slots: vec![slot()] }]);
        assert!(second.holders(NOW).unarmed.is_some());
        second.answer(holds(1), NOW);
        assert_eq!(second.holders(NOW), Holders { twin: 7, unarmed: None });
        let number = second.look(NOW);
        assert!(second.arms(&slot(), NOW + Millis(499)) && !second.holds(number));
        assert!(!second.arms(&slot(), NOW + SILENT) && second.fails(number, NOW + SILENT));
        assert_eq!(second.due(NOW + GIVEN_UP), Some(Due::End(7)));
        second.answer(holds(number), NOW + GIVEN_UP);
        assert_eq!(second.holders(NOW + GIVEN_UP).unarmed, None);
        second.gone(NOW + GIVEN_UP);
        assert!(!second.arms(&slot(), NOW + GIVEN_UP));
        assert_eq!(second.look(NOW), 0);
        assert!(second.holds(0) && !second.fails(0, NOW));
    }

    #[test]
    fn an_instance_that_could_escape_disarms_and_is_named() {
        let mut second = Second::new(None);
        second.came(7, vec![slot()], NOW);
        second.answer(Holds { number: 1, unable: vec![(slot(), "process 9 has left it".to_owned())] }, NOW);
        let why = second.holders(NOW).unarmed.unwrap().why;
        assert!(why.contains("db/0") && why.contains("process 9"), "{why}");
        assert!(!second.arms(&slot(), NOW) && second.arms(&"web/0".parse().unwrap(), NOW));
    }
}

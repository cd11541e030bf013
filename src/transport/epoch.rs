//! Which epoch of the cluster a call comes from, and who speaks to whom: members of one epoch alone. A node enters
//! a later one only by what its own operator or its own State says; a peer's word makes it stand aside at most.
//! Does not know what raises it.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::ids::Epoch;
use quorate_core::state::JOIN_ANEW;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Metadata that names the epoch a call, or a refusal, comes from.
const EPOCH_KEY: &str = "quorate-epoch";

type Keep = Box<dyn Fn(Epoch) -> io::Result<()> + Send + Sync>;

/// The epoch of a node, shared by all who send and receive for it.
#[derive(Clone)]
pub struct Epochs(Arc<Inner>);

struct Inner {
    now: AtomicU64,
    /// The latest one that a member spoke from: the cluster went on without this node.
    ahead: AtomicU64,
    keep: Keep,
    raising: Mutex<()>,
}

impl fmt::Debug for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epochs({})", self.now())
    }
}

impl Default for Epochs {
    /// The first epoch, kept nowhere.
    fn default() -> Self {
        Self::new(Epoch(1), Box::new(|_| Ok(())))
    }
}

impl Epochs {
    /// Begins in `now`; a later one is kept durably before it counts.
    pub fn new(now: Epoch, keep: Keep) -> Self {
        let (now, ahead) = (AtomicU64::new(now.0), AtomicU64::new(0));
        Self(Arc::new(Inner { now, ahead, keep, raising: Mutex::default() }))
    }

    /// The epoch this node is in.
    pub fn now(&self) -> Epoch {
        Epoch(self.0.now.load(Ordering::Acquire))
    }

    /// A later epoch that the cluster is in, if there is one. This node stands aside then: it neither takes nor
    /// sends what members say to one another, so that it has no part in any quorum.
    pub fn ahead(&self) -> Option<Epoch> {
        Some(Epoch(self.0.ahead.load(Ordering::Acquire))).filter(|ahead| *ahead > self.now())
    }

    /// Does this node still speak from that epoch? A stream that was opened in another is over.
    pub(super) fn holds(&self, epoch: Epoch) -> bool {
        self.now() == epoch && self.ahead().is_none()
    }

    /// Enters a later epoch, on an operator's word or that of this node's own State; nothing for one that is not
    /// later. Never on a peer's word.
    pub fn enter(&self, to: Epoch) -> io::Result<()> {
        let _one = self.0.raising.lock().unwrap_or_else(PoisonError::into_inner);
        if to > self.now() {
            (self.0.keep)(to)?;
            tracing::warn!(epoch = to.0, "this node enters a later epoch of its cluster");
            self.0.now.store(to.0, Ordering::Release);
        }
        Ok(())
    }

    /// Writes the epoch on a call.
    pub(super) fn stamp(&self, metadata: &mut MetadataMap) {
        metadata.insert(EPOCH_KEY, self.now().0.into());
    }

    /// Refuses a call of a member from another epoch, with the remedy for the one that was left behind. One that
    /// names none is of somebody who is no member yet.
    pub fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let Some(theirs) = read(metadata) else { return Ok(()) };
        let mine = self.now();
        if theirs > mine {
            self.learn(theirs);
        }
        if let Some(ahead) = self.ahead() {
            return Err(self.refusal(aside(mine, ahead)));
        }
        if theirs == mine {
            return Ok(());
        }
        Err(self.refusal(format!(
            "the cluster goes on in epoch {mine}, and this data is of epoch {theirs}; {JOIN_ANEW}"
        )))
    }

    /// For probes: that this node lives is told to whoever is ahead, so that nobody takes it for dead.
    pub fn check_probe(&self, metadata: &MetadataMap) -> Result<(), Status> {
        match (self.check(metadata), read(metadata)) {
            (Err(_), Some(theirs)) if theirs >= self.now() => Ok(()),
            (checked, _) => checked,
        }
    }

    /// May this node speak to members? In words if not.
    pub(super) fn may_send(&self) -> Result<(), String> {
        self.ahead().map_or(Ok(()), |ahead| Err(aside(self.now(), ahead)))
    }

    fn refusal(&self, words: String) -> Status {
        let mut refusal = Status::failed_precondition(words);
        self.stamp(refusal.metadata_mut());
        refusal
    }

    /// Notes a refusal by somebody in a later epoch.
    pub(super) fn note(&self, refusal: &Status) {
        if let Some(theirs) = read(refusal.metadata()).filter(|theirs| *theirs > self.now()) {
            self.learn(theirs);
        }
    }

    fn learn(&self, theirs: Epoch) {
        if self.0.ahead.fetch_max(theirs.0, Ordering::AcqRel) < theirs.0 {
            let (mine, theirs) = (self.now().0, theirs.0);
            tracing::warn!(mine, theirs, "the cluster went on without this node, which stands aside");
        }
    }
}

fn aside(mine: Epoch, ahead: Epoch) -> String {
    format!("the cluster goes on in epoch {ahead}, and this node's data is of epoch {mine}; {JOIN_ANEW}")
}

fn read(metadata: &MetadataMap) -> Option<Epoch> {
    metadata.get(EPOCH_KEY)?.to_str().ok()?.parse().ok().map(Epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64) -> Epochs {
        Epochs::new(Epoch(epoch), Box::new(|_| Ok(())))
    }

    fn from(epoch: u64) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        at(epoch).stamp(&mut metadata);
        metadata
    }

    #[test]
    fn an_earlier_epoch_is_refused_with_the_remedy() {
        let epochs = at(3);
        assert!(epochs.check(&from(3)).is_ok());
        assert!(epochs.check(&MetadataMap::new()).is_ok());
        let refusal = epochs.check(&from(2)).unwrap_err();
        assert!(refusal.message().contains("epoch 3") && refusal.message().contains("join again"));
        assert!(epochs.check(&from(3)).is_ok(), "whoever is behind changes nothing here");
        // Whoever is refused so stands aside, and says why.
        let behind = at(2);
        behind.note(&refusal);
        assert_eq!((behind.now(), behind.ahead()), (Epoch(2), Some(Epoch(3))));
        assert!(behind.may_send().unwrap_err().contains("epoch 3"));
    }

    #[test]
    fn a_peer_of_a_later_epoch_never_raises_this_one_and_is_refused_too() {
        let epochs = at(1);
        assert!(epochs.holds(Epoch(1)));
        let refusal = epochs.check(&from(2)).unwrap_err();
        assert!(refusal.message().contains("join again with a new token"));
        assert_eq!((epochs.now(), epochs.ahead()), (Epoch(1), Some(Epoch(2))));
        assert!(!epochs.holds(Epoch(1)));
        assert!(epochs.check(&from(1)).is_err(), "it takes no part in a quorum of before");
        assert!(epochs.check_probe(&from(2)).is_ok(), "it does not pass for dead");
        assert!(at(3).check_probe(&from(2)).is_err());
        // Its own operator's word does, and then it goes on.
        epochs.enter(Epoch(2)).unwrap();
        assert_eq!((epochs.now(), epochs.ahead()), (Epoch(2), None));
        assert!(epochs.check(&from(2)).is_ok() && epochs.may_send().is_ok());
        assert!(!epochs.holds(Epoch(1)), "streams of before are over");
    }

    #[test]
    fn an_epoch_that_cannot_be_kept_is_not_entered() {
        let epochs = Epochs::new(Epoch(1), Box::new(|_| Err(io::Error::other("disk full"))));
        assert!(epochs.enter(Epoch(2)).is_err());
        assert_eq!(epochs.now(), Epoch(1));
        assert!(epochs.enter(Epoch(1)).is_ok(), "nothing to keep");
    }
}

//! Which epoch of the cluster a call comes from. An epoch outranks all before it, as a term of Raft does: whoever
//! is behind is refused with the reason, and who is addressed from a later one follows. Does not know what
//! raises it.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::ids::Epoch;
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
    /// The latest one that refused this node; the cluster went on without it.
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

    /// A later epoch in which others refuse this node, if there is one.
    pub fn ahead(&self) -> Option<Epoch> {
        Some(Epoch(self.0.ahead.load(Ordering::Relaxed))).filter(|ahead| *ahead > self.now())
    }

    /// Enters a later epoch; nothing for one that is not later.
    pub fn raise(&self, to: Epoch) -> io::Result<()> {
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

    /// Refuses a call from an earlier epoch; gives the epoch of one from a later. One that names none is of
    /// somebody who is no member yet.
    pub fn check(&self, metadata: &MetadataMap) -> Result<Option<Epoch>, Status> {
        let Some(theirs) = read(metadata) else { return Ok(None) };
        let mine = self.now();
        if theirs >= mine {
            return Ok((theirs > mine).then_some(theirs));
        }
        let mut refusal = Status::failed_precondition(format!(
            "the cluster goes on in epoch {mine}, and this data is of epoch {theirs}; {REMEDY}"
        ));
        self.stamp(refusal.metadata_mut());
        Err(refusal)
    }

    /// Notes a refusal by somebody in a later epoch.
    pub(super) fn note(&self, refusal: &Status) {
        if let Some(theirs) = read(refusal.metadata()) {
            self.0.ahead.fetch_max(theirs.0, Ordering::Relaxed);
        }
    }
}

/// What to do with a node that the cluster went on without.
pub const REMEDY: &str = "stop this node, remove `identity` and `raft` from its data_dir (`guard` and `instances` \
                          stay: what runs is adopted), and let it join again with a new token";

fn read(metadata: &MetadataMap) -> Option<Epoch> {
    metadata.get(EPOCH_KEY)?.to_str().ok()?.parse().ok().map(Epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(epoch: u64) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        Epochs::new(Epoch(epoch), Box::new(|_| Ok(()))).stamp(&mut metadata);
        metadata
    }

    #[test]
    fn an_earlier_epoch_is_refused_with_the_remedy_and_a_later_one_is_told() {
        let epochs = Epochs::new(Epoch(3), Box::new(|_| Ok(())));
        assert_eq!(epochs.check(&from(3)).unwrap(), None);
        assert_eq!(epochs.check(&MetadataMap::new()).unwrap(), None);
        assert_eq!(epochs.check(&from(4)).unwrap(), Some(Epoch(4)));
        let refusal = epochs.check(&from(2)).unwrap_err();
        assert!(refusal.message().contains("epoch 3") && refusal.message().contains("join again"));
        let behind = Epochs::new(Epoch(2), Box::new(|_| Ok(())));
        behind.note(&refusal);
        assert_eq!(behind.ahead(), Some(Epoch(3)));
        behind.raise(Epoch(3)).unwrap();
        assert_eq!((behind.now(), behind.ahead()), (Epoch(3), None));
    }

    #[test]
    fn an_epoch_that_cannot_be_kept_is_not_entered() {
        let epochs = Epochs::new(Epoch(1), Box::new(|_| Err(io::Error::other("disk full"))));
        assert!(epochs.raise(Epoch(2)).is_err());
        assert_eq!(epochs.now(), Epoch(1));
        assert!(epochs.raise(Epoch(1)).is_ok(), "nothing to keep");
    }
}

//! Waiting for what should become so, with a deadline.

use std::time::{Duration, Instant};

/// Plenty, on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Waits until `look` gives something, or fails naming what it waited for and what it last saw.
#[track_caller]
pub fn await_some<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "not within {SOON:?}: {what}; last seen: {seen}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

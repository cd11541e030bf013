//! Hosts on which silence cannot be trusted for the moment, and nothing inside of them can help it: those whose
//! clock stood still, and those all of whose holders of the deadlines stood still or died within one lease. Only
//! external fencing or storage that checks tokens closes this; such doubled runs are counted, not judged. What
//! ended by any other evidence than silence is judged on these hosts too, and so is every deadline.

use super::lease::Leases;
use crate::sim::host::Host;
use crate::units::Millis;

/// A kill may take this long; the waits for silence allow for it.
pub(super) const KILL_MARGIN: Millis = Millis(200);

/// The indices of the excused hosts of this moment.
pub(super) fn hosts(hosts: &[Host], leases: &Leases, now_us: u64) -> Vec<usize> {
    let excused = hosts.iter().filter(|host| {
        let unheld = !held_for_long(host, now_us) && leases.armed(host);
        // While it stands still nothing of it runs; when it goes on, its kills take their time.
        host.paused.is_some() || host.stood_still(now_us) || unheld
    });
    excused.map(|host| host.index).collect()
}

/// Were its deadlines held without a break for as long as a kill may take?
pub(super) fn held_for_long(host: &Host, now_us: u64) -> bool {
    host.held_since_us.is_some_and(|since| now_us - since > KILL_MARGIN.0 * 1_000)
}

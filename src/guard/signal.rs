//! Sending signals by number, real-time ones included. Knows nothing of what is signalled.

/// Signals one process; one that is gone already is no error.
pub fn send(pid: u32, signal: i32) {
    raw_kill(libc::pid_t::try_from(pid).unwrap_or(0), signal);
}

/// Signals a process group.
pub fn send_to_group(group: u32, signal: i32) {
    raw_kill(-libc::pid_t::try_from(group).unwrap_or(0), signal);
}

#[expect(unsafe_code, reason = "the wrapped call takes named signals only, and a spec may name any number")]
fn raw_kill(pid: libc::pid_t, signal: i32) {
    // 0 would be the caller's own group, -1 every process, 1 and -1 init.
    if pid.unsigned_abs() > 1 {
        // SAFETY: takes two integers and touches no memory.
        unsafe { libc::kill(pid, signal) };
    }
}

//! Whatever may not run without a lease is dead by its deadline, on every host whose deadlines somebody
//! holds, with the node process frozen, dead or cut off.

use super::Judgement;
use crate::effect::Isolation;
use crate::sim::ctx::Ctx;
use crate::sim::host::Host;
use crate::units::{BootMs, Millis};

/// A kill may take this long; the waits for silence allow for it.
const KILL_MARGIN: Millis = Millis(200);

pub(super) fn scan(host: &Host, valid_until: Option<BootMs>, ctx: &Ctx) -> Judgement {
    if !host.on || !host.armed {
        return Ok(());
    }
    let Some(valid_until) = valid_until else { return Ok(()) };
    let now = host.clock(ctx.now);
    for process in &host.processes {
        let grace = match process.isolation {
            Isolation::Keep => continue,
            Isolation::Kill => Millis(0),
            Isolation::Stop { grace } => grace,
        };
        let deadline = valid_until + grace + KILL_MARGIN;
        if now > deadline {
            return Err(format!(
                "{}@{} runs on host {} at {}, {} after its deadline",
                process.slot,
                process.token,
                host.index,
                now.0,
                now.since(deadline)
            ));
        }
    }
    Ok(())
}

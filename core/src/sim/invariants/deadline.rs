//! Whatever may not run without a lease is dead by its deadline, on every host whose deadlines somebody
//! holds, with the node process frozen, dead or cut off. Judged by the host's own clock.

use super::Judgement;
use super::residual::{KILL_MARGIN, held_for_long};
use crate::effect::Isolation;
use crate::sim::ctx::Ctx;
use crate::sim::host::Host;
use crate::units::{BootMs, Millis};

pub(super) fn scan(host: &Host, valid_until: Option<BootMs>, ctx: &Ctx) -> Judgement {
    if !host.lives() || !held_for_long(host, ctx.now) {
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

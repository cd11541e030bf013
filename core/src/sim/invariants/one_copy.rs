//! No exclusive slot runs twice: at no true moment do two processes of it exist, wherever they are.

use super::Judgement;
use crate::sim::host::{Host, Process};

/// Whether each service of the cast is exclusive is fixed by its spec, so State need not be asked.
pub(super) fn spawned(host: usize, process: &Process, hosts: &[Host]) -> Judgement {
    if process.spec.exclusive != Some(true) {
        return Ok(());
    }
    for other in hosts {
        let twin = other.processes.iter().find(|p| p.slot == process.slot && p.serial != process.serial);
        if let Some(twin) = twin {
            return Err(format!(
                "{}@{} runs on host {host} while @{} still runs on host {}",
                process.slot, process.token, twin.token, other.index
            ));
        }
    }
    Ok(())
}

//! No exclusive slot runs twice: at no true moment do two processes of it exist, wherever they are.

use super::evidence::Evidences;
use crate::sim::host::{Host, Process};

/// Whether each service of the cast is exclusive is fixed by its spec, so State need not be asked. True if it
/// does run twice and one of them is excused.
pub(super) fn spawned(
    host: usize,
    process: &Process,
    hosts: &[Host],
    evidence: &Evidences,
    excused: &[usize],
) -> Result<bool, String> {
    let mut residual = false;
    for (twin_host, twin) in twins(host, process, hosts) {
        if evidence.excuses_beside((twin_host, twin), process, excused)
            || evidence.excuses_beside((host, process), twin, excused)
        {
            residual = true;
            continue;
        }
        return Err(format!(
            "{}@{} runs on host {host} while @{} still runs on host {twin_host}",
            process.slot, process.token, twin.token
        ));
    }
    Ok(residual)
}

/// The other processes of an exclusive slot, and where they are.
pub(super) fn twins<'a>(
    host: usize,
    process: &Process,
    hosts: &'a [Host],
) -> impl Iterator<Item = (usize, &'a Process)> {
    let (slot, serial) = (process.slot.clone(), process.serial);
    let exclusive = process.spec.exclusive == Some(true);
    let all = hosts.iter().flat_map(|other| other.processes.iter().map(|process| (other.index, process)));
    all.filter(move |(other, twin)| {
        exclusive && twin.slot == slot && (twin.serial != serial || *other != host)
    })
}

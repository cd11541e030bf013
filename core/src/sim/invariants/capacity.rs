//! Capacity is never exceeded: what truly runs on a host fits into what it has.

use super::Judgement;
use crate::sim::host::Host;
use crate::sim::scene::CAPACITY;

pub(super) fn spawned(host: usize, hosts: &[Host]) -> Judgement {
    let Some(host) = hosts.get(host) else { return Ok(()) };
    let cpu: u32 = host.processes.iter().map(|process| process.spec.resources.cpu.0).sum();
    let memory: u64 = host.processes.iter().map(|process| process.spec.resources.memory.0).sum();
    if cpu > CAPACITY.cpu.0 || memory > CAPACITY.memory.0 {
        return Err(format!("host {} runs {cpu} of {} mCPU, {memory} MiB", host.index, CAPACITY.cpu.0));
    }
    Ok(())
}

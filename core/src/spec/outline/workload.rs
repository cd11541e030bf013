//! What is run as canonical text, by kind of executor.

use std::collections::BTreeMap;

use crate::document::{Outline, list, text};

use super::{Pairs, bare, cores};
use crate::spec::{
    ContainerWorkload, Limits, MachineBoot, MachineGraphics, MachineNetwork, MachineWorkload, Mount,
    ProcessWorkload, PullPolicy, UnitSource, UnitWorkload, Workload,
};

pub(super) fn workload_outline(workload: &Workload) -> Outline {
    let mut out = Pairs::default();
    match workload {
        Workload::Process(process) => process_outline(&mut out, process),
        Workload::Container(container) => container_outline(&mut out, container),
        Workload::Unit(unit) => unit_outline(&mut out, unit),
        Workload::Machine(machine) => machine_outline(&mut out, machine),
    }
    out.done()
}

fn limits_outline(out: &mut Pairs, limits: Limits) {
    out.maybe("cpu_limit", limits.cpu.map(cores));
    out.maybe("memory_limit", limits.memory.map(|memory| bare(memory.0)));
    out.maybe("memory_high", limits.memory_high.map(|memory| bare(memory.0)));
    out.maybe("pids_limit", limits.pids.map(bare));
    out.maybe("io_read_limit", limits.io_read.map(bare));
    out.maybe("io_write_limit", limits.io_write.map(bare));
}

/// Free keys with their texts.
fn texts(pairs: &BTreeMap<String, String>) -> Outline {
    Outline::Map(pairs.iter().map(|(key, value)| (key.clone(), text(value))).collect())
}

/// A list that means nothing when it is empty.
fn some(values: &[String]) -> Option<Outline> {
    (!values.is_empty()).then(|| list(values))
}

fn process_outline(out: &mut Pairs, process: &ProcessWorkload) {
    out.put("command", list(&process.command));
    out.put("environment", texts(&process.environment));
    out.maybe("working_dir", process.working_dir.as_ref().map(text));
    out.maybe("user", process.user.as_ref().map(text));
    out.maybe("port", process.port.map(bare));
    limits_outline(out, process.limits);
}

fn container_outline(out: &mut Pairs, container: &ContainerWorkload) {
    out.put("image", text(&container.image));
    let pull = match container.pull {
        PullPolicy::Missing => "missing",
        PullPolicy::Always => "always",
        PullPolicy::Never => "never",
    };
    out.put("pull", text(pull));
    out.maybe("command", some(&container.command));
    out.maybe("entrypoint", some(&container.entrypoint));
    out.put("environment", texts(&container.environment));
    out.maybe("working_dir", container.working_dir.as_ref().map(text));
    out.maybe("user", container.user.as_ref().map(text));
    let ports = container.ports.iter().map(text).collect::<Vec<_>>();
    out.maybe("ports", (!ports.is_empty()).then_some(Outline::List(ports)));
    let mounts = container.mounts.iter().map(Mount::outline).collect::<Vec<_>>();
    out.maybe("mounts", (!mounts.is_empty()).then_some(Outline::List(mounts)));
    out.maybe("network", container.network.as_ref().map(text));
    out.put("labels", texts(&container.labels));
    limits_outline(out, container.limits);
}

fn unit_outline(out: &mut Pairs, unit: &UnitWorkload) {
    match &unit.source {
        UnitSource::Existing(name) => out.put("unit", text(name)),
        UnitSource::Transient { command, environment, working_dir, user, port } => {
            out.maybe("port", port.map(bare));
            out.put("command", list(command));
            out.put("environment", texts(environment));
            out.maybe("working_dir", working_dir.as_ref().map(text));
            out.maybe("user", user.as_ref().map(text));
        }
    }
    limits_outline(out, unit.limits);
}

fn machine_outline(out: &mut Pairs, machine: &MachineWorkload) {
    out.put("vm_image", text(&machine.image));
    out.put("vm_memory", bare(machine.memory.0));
    out.put("vm_cpus", bare(machine.cpus));
    let network = match &machine.network {
        MachineNetwork::None => "none".to_owned(),
        MachineNetwork::Network(name) => format!("network:{name}"),
        MachineNetwork::Bridge(name) => format!("bridge:{name}"),
        MachineNetwork::User => "user".to_owned(),
    };
    out.put("vm_network", text(network));
    let graphics = match machine.graphics {
        MachineGraphics::None => "none",
        MachineGraphics::Vnc => "vnc",
        MachineGraphics::Spice => "spice",
    };
    out.put("vm_graphics", text(graphics));
    out.maybe("boot", machine.boot.as_ref().map(boot_outline));
}

fn boot_outline(boot: &MachineBoot) -> Outline {
    let mut out = Pairs::default();
    out.put("kernel", text(&boot.kernel));
    out.maybe("initrd", boot.initrd.as_ref().map(text));
    out.maybe("arguments", (!boot.arguments.is_empty()).then(|| text(&boot.arguments)));
    out.done()
}

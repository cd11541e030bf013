//! Reads what a virtual machine needs: its disk image, its size, how it is connected and shown, and a kernel.

use crate::document::{Field, Fields, shown};
use crate::units::MemoryMib;

use super::parse::MAX_MEMORY_MIB;
use super::process::{LIMIT_KEYS, optional};
use super::words::{ABSOLUTE_REMEDY, MAX_PATH_BYTES, absolute, is_engine_name};
use super::{MachineBoot, MachineGraphics, MachineNetwork, MachineWorkload};

const KEYS: [&str; 6] = ["vm_image", "vm_memory", "vm_cpus", "vm_network", "vm_graphics", "boot"];
const LEAST_MEMORY_MIB: u64 = 16;
const MAX_CPUS: u64 = 512;
/// What Linux takes.
const MAX_ARGUMENTS_BYTES: usize = 2_048;
/// The longest name that an interface of a host may have.
const MAX_BRIDGE_BYTES: usize = 15;

pub(super) fn machine(map: &Fields<'_>) -> Option<MachineWorkload> {
    let remedy = "write spec: {vm_image: /srv/images/web.qcow2, vm_memory: 1024}";
    let Some(field) = map.get("spec") else { return map.missing("spec", remedy) };
    let map = field.fields_but(&KEYS, foreign)?;
    let image = match map.get("vm_image") {
        Some(field) => path(&field),
        None => map.missing("vm_image", "write vm_image: /srv/images/web.qcow2, a path of the host"),
    };
    let memory = match map.get("vm_memory") {
        Some(field) => field.whole(LEAST_MEMORY_MIB..=MAX_MEMORY_MIB).map(MemoryMib),
        None => map.missing("vm_memory", "write vm_memory: 1024, in MiB"),
    };
    let cpus = map
        .get("vm_cpus")
        .map_or(Some(1), |field| field.whole(1..=MAX_CPUS).and_then(|cpus| u32::try_from(cpus).ok()));
    let network = map.get("vm_network").map_or_else(
        || Some(MachineNetwork::Network("default".to_owned())),
        |field| field.parsed(256, "write none, user, network:NAME or bridge:NAME", network),
    );
    let graphics = map.get("vm_graphics").map_or(Some(MachineGraphics::None), |field| {
        field.word(&[
            ("none", MachineGraphics::None),
            ("vnc", MachineGraphics::Vnc),
            ("spice", MachineGraphics::Spice),
        ])
    });
    let boot = optional(map.get("boot"), |field| boot(&field));
    Some(MachineWorkload {
        image: image?,
        memory: memory?,
        cpus: cpus?,
        network: network?,
        graphics: graphics?,
        boot: boot?,
    })
}

/// Keys of other executors that somebody may look for here: why they are not there, and what is.
fn foreign(key: &str) -> Option<(String, String)> {
    let (why, remedy) = match key {
        "command" => {
            ("a virtual machine runs what its image holds", "remove it; vm_cpus and vm_memory are its size")
        }
        "user" => {
            ("a virtual machine has accounts of its own", "remove it; vm_cpus and vm_memory are its size")
        }
        "cpu_limit" => ("a virtual machine is limited by its size", "write vm_cpus instead"),
        "memory_limit" | "memory_high" => {
            ("a virtual machine is limited by its size", "write vm_memory instead")
        }
        other if LIMIT_KEYS.contains(&other) => {
            ("a virtual machine is limited by its size", "remove it; vm_cpus and vm_memory are its size")
        }
        _ => return None,
    };
    Some((why.to_owned(), remedy.to_owned()))
}

fn path(field: &Field<'_>) -> Option<String> {
    field.parsed(MAX_PATH_BYTES, ABSOLUTE_REMEDY, absolute)
}

fn network(text: &str) -> Result<MachineNetwork, String> {
    let wrong = || Err(format!("{} is not a network", shown(text)));
    let (kind, name) = match text.split_once(':') {
        Some(pair) => pair,
        None if text == "none" => return Ok(MachineNetwork::None),
        None if text == "user" => return Ok(MachineNetwork::User),
        // Somebody who writes only the kind has forgotten the name.
        None if text == "network" || text == "bridge" => return wrong(),
        None => ("network", text),
    };
    match kind {
        "network" if is_engine_name(name) => Ok(MachineNetwork::Network(name.to_owned())),
        "bridge" if is_engine_name(name) && name.len() <= MAX_BRIDGE_BYTES => {
            Ok(MachineNetwork::Bridge(name.to_owned()))
        }
        _ => wrong(),
    }
}

fn boot(field: &Field<'_>) -> Option<MachineBoot> {
    let map = field.fields(&["kernel", "initrd", "arguments"])?;
    let kernel = match map.get("kernel") {
        Some(field) => path(&field),
        None => {
            map.missing("kernel", "write kernel: /srv/images/vmlinuz, or remove boot to start from the image")
        }
    };
    let initrd = optional(map.get("initrd"), |field| path(&field));
    let arguments = map.get("arguments").map_or(Some(String::new()), |field| {
        field.parsed(MAX_ARGUMENTS_BYTES, "write them in one text, such as console=ttyS0", |text| {
            let bad = text.chars().any(char::is_control);
            if bad { Err("a control character is in the arguments") } else { Ok(text.to_owned()) }
        })
    });
    Some(MachineBoot { kernel: kernel?, initrd: initrd?, arguments: arguments? })
}

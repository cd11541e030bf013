//! A run as libvirt is told of it: the domain's XML, from what its description says. Asks nobody.

use std::fmt::Write;
use std::path::Path;

use quorate_core::spec::{MachineGraphics, MachineNetwork, MachineWorkload};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::DomainType;
use crate::layout::run_name;
use crate::ports::RunId;

/// The name space of what is written down with a domain.
const INSTANCE_SPACE: &str = "https://quorate.dev/libvirt/instance";

/// Everything that a domain is made of.
pub(super) struct Description<'a> {
    /// Whose it is.
    pub(super) owner: &'a str,
    /// Which run.
    pub(super) run: &'a RunId,
    /// What is wanted.
    pub(super) machine: &'a MachineWorkload,
    /// By which means its processors run.
    pub(super) domain_type: DomainType,
    /// Its disk.
    pub(super) overlay: &'a Path,
    /// Where its serial console is written.
    pub(super) console: &'a Path,
    /// Where libvirt puts it.
    pub(super) partition: Option<&'a str>,
}

/// The identity of a run's domain: the same whoever works it out, and as good as never another's.
pub(super) fn uuid(name: &str) -> String {
    let mut bytes = xxh3_128(name.as_bytes()).to_be_bytes();
    // Marked as one that is made by a rule of its maker's.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "{byte:02x}");
        all
    });
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The address of a slot's network card: it stays over restarts and new grants on the node, so that its network
/// knows it again.
fn card(owner: &str, run: &RunId) -> String {
    let [.., a, b, c] = xxh3_64(format!("{owner} {}", run.id.slot).as_bytes()).to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// Any text as it may stand in XML.
pub(super) fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => all.push_str("&amp;"),
            '<' => all.push_str("&lt;"),
            '>' => all.push_str("&gt;"),
            '"' => all.push_str("&quot;"),
            '\'' => all.push_str("&apos;"),
            '\t' | '\n' | '\r' => {
                let _ = write!(all, "&#{};", one as u32);
            }
            one => all.push(one),
        }
    }
    all
}

fn escaped_path(path: &Path) -> String {
    escaped(&path.display().to_string())
}

/// The whole domain.
pub(super) fn xml(wanted: &Description<'_>) -> String {
    let Description { owner, run, machine, .. } = wanted;
    let name = run_name(owner, run);
    let kind = wanted.domain_type.word();
    let partition = wanted.partition.map_or_else(String::new, |partition| {
        format!("<resource><partition>{}</partition></resource>", escaped(partition))
    });
    // Emulation keeps the processor that runs everywhere; the hardware's own is seen where it does the work.
    let processor = match wanted.domain_type {
        DomainType::Kvm => "<cpu mode='host-model'/>",
        DomainType::Qemu => "",
    };
    format!(
        "<domain type='{kind}'>\
         <name>{name}</name><uuid>{uuid}</uuid><title>Quorate instance {title}</title>\
         <metadata><quorate:instance xmlns:quorate='{INSTANCE_SPACE}' owner='{owner}' slot='{slot}' \
         token='{token}' restart='{restart}'/></metadata>\
         <memory unit='MiB'>{memory}</memory><vcpu>{cpus}</vcpu>{partition}\
         <os><type arch='{arch}'>hvm</type>{boot}</os>\
         <features><acpi/></features>{processor}\
         <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>\
         <devices>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{overlay}'/>\
         <target dev='vda' bus='virtio'/></disk>\
         <controller type='usb' model='none'/><memballoon model='none'/>\
         <serial type='file'><source path='{console}' append='on'/><target port='0'/></serial>\
         {network}{graphics}</devices></domain>",
        name = escaped(&name),
        uuid = uuid(&name),
        title = escaped(&run.id.to_string()),
        owner = escaped(owner),
        slot = escaped(&run.id.slot.to_string()),
        token = run.id.token,
        restart = run.restart,
        memory = machine.memory.0,
        cpus = machine.cpus,
        arch = std::env::consts::ARCH,
        boot = boot(machine),
        overlay = escaped_path(wanted.overlay),
        console = escaped_path(wanted.console),
        network = network(machine, &card(owner, run)),
        graphics = graphics(machine),
    )
}

fn boot(machine: &MachineWorkload) -> String {
    let Some(boot) = &machine.boot else { return "<boot dev='hd'/>".to_owned() };
    let initrd = boot
        .initrd
        .as_ref()
        .map_or_else(String::new, |initrd| format!("<initrd>{}</initrd>", escaped(initrd)));
    let arguments = match boot.arguments.as_str() {
        "" => String::new(),
        text => format!("<cmdline>{}</cmdline>", escaped(text)),
    };
    format!("<kernel>{}</kernel>{initrd}{arguments}", escaped(&boot.kernel))
}

fn network(machine: &MachineWorkload, card: &str) -> String {
    let (kind, source) = match &machine.network {
        MachineNetwork::None => return String::new(),
        MachineNetwork::User => ("user", String::new()),
        MachineNetwork::Network(name) => ("network", format!("<source network='{}'/>", escaped(name))),
        MachineNetwork::Bridge(name) => ("bridge", format!("<source bridge='{}'/>", escaped(name))),
    };
    format!("<interface type='{kind}'><mac address='{card}'/>{source}<model type='virtio'/></interface>")
}

fn graphics(machine: &MachineWorkload) -> String {
    let kind = match machine.graphics {
        MachineGraphics::None => return String::new(),
        MachineGraphics::Vnc => "vnc",
        MachineGraphics::Spice => "spice",
    };
    format!("<graphics type='{kind}' autoport='yes' listen='127.0.0.1'/>")
}

#[cfg(test)]
mod tests {
    use quorate_core::spec::MachineBoot;
    use quorate_core::units::MemoryMib;

    use super::*;

    #[test]
    fn whatever_stands_in_a_description_stays_text() {
        let run = RunId { id: "we-b/0@1.5".parse().unwrap(), restart: 2 };
        let nasty = "/a'/><b>&\"\n.img";
        let machine = MachineWorkload {
            image: nasty.to_owned(),
            memory: MemoryMib(96),
            cpus: 2,
            network: MachineNetwork::Network("it's".to_owned()),
            graphics: MachineGraphics::Vnc,
            boot: Some(MachineBoot {
                kernel: nasty.to_owned(),
                initrd: Some(nasty.to_owned()),
                arguments: "a=\"<&>\"".to_owned(),
            }),
        };
        let text = xml(&Description {
            owner: "0a",
            run: &run,
            machine: &machine,
            domain_type: DomainType::Kvm,
            overlay: Path::new(nasty),
            console: Path::new(nasty),
            partition: Some("/quorate.slice/a\\x2db.slice"),
        });
        let read = roxmltree::Document::parse(&text).unwrap();
        let text_of = |name: &str| {
            let node = read.descendants().find(|node| node.has_tag_name(name)).unwrap();
            node.text().unwrap_or_default().to_owned()
        };
        assert_eq!((text_of("kernel"), text_of("initrd")), (nasty.to_owned(), nasty.to_owned()));
        assert_eq!(text_of("cmdline"), "a=\"<&>\"");
        assert_eq!(text_of("partition"), "/quorate.slice/a\\x2db.slice");
        assert_eq!(text_of("name"), "quorate-0a-we-b.0-1.5-2");
        let attributes: Vec<&str> = read
            .descendants()
            .flat_map(|node| node.attributes().filter(|one| one.value() == nasty).map(|one| one.name()))
            .collect();
        assert_eq!(attributes, ["file", "path"]);
    }

    #[test]
    fn identities_are_those_of_the_names() {
        let one = uuid("quorate-0a-web.0-1.5-0");
        assert_eq!((one.len(), &one[14..15]), (36, "8"));
        assert!(matches!(&one[19..20], "8" | "9" | "a" | "b"), "{one}");
        assert_eq!(one, uuid("quorate-0a-web.0-1.5-0"));
        assert_ne!(one, uuid("quorate-0a-web.0-1.5-1"));
    }
}

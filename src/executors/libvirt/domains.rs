//! What is asked of libvirt, question by question, on the thread of a link. Every one may be asked again.

use quorate_core::observation::Health;
use virt::connect::Connect;
use virt::domain::{Domain, DomainPausedReason, DomainState, DomainStateReason};
use virt::enumutil::Enum;
use virt::error::{Error, ErrorNumber};
use virt::sys;

use super::link::Wanted;
use super::traces;
use crate::layout::run_of_name;
use crate::ports::{Found, FoundStage};

/// The name space of the note that a domain was released.
const RELEASED_SPACE: &str = "https://quorate.dev/libvirt/released";

/// What runs machines of this host's architecture.
pub(super) struct Emulator {
    /// The program.
    pub(super) path: String,
    /// Does libvirt take this host for able to run them by its own processors?
    pub(super) kvm: bool,
    /// How screens can be shown.
    pub(super) graphics: Vec<String>,
}

fn words(error: Error) -> String {
    error.message().to_owned()
}

fn is(error: &Error, number: ErrorNumber) -> bool {
    error.code().is_known_and(|code| code == number)
}

/// As people know both: libvirt's version and the emulator's.
pub(super) fn version(connection: &Connect) -> Result<String, String> {
    let text = |number: u32| format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000);
    let own = connection.lib_version().map_err(words)?;
    let emulator = connection.hyp_version().map_err(words)?;
    Ok(format!("{} qemu {}", text(own), text(emulator)))
}

pub(super) fn emulator(connection: &Connect) -> Result<Emulator, String> {
    let of = |kind: &str| {
        connection.domain_capabilities(None, Some(std::env::consts::ARCH), None, Some(kind), 0).map_err(words)
    };
    let text = of("qemu").or_else(|_| of("kvm"))?;
    let read = roxmltree::Document::parse(&text).map_err(|error| error.to_string())?;
    let node = |name: &str| read.descendants().find(|node| node.has_tag_name(name));
    let path = node("path").and_then(|node| node.text()).ok_or("libvirt names no emulator")?.to_owned();
    let graphics = node("graphics").into_iter().flat_map(|node| node.descendants());
    let graphics = graphics.filter(|node| node.has_tag_name("value")).filter_map(|node| node.text());
    Ok(Emulator { path, kvm: of("kvm").is_ok(), graphics: graphics.map(str::to_owned).collect() })
}

pub(super) fn check_network(connection: &Connect, name: &str) -> Result<(), String> {
    match connection.lookup_network_by_name(name) {
        Ok(network) if network.is_active().map_err(words)? => Ok(()),
        Ok(_) => Err(format!("spec.vm_network: {name} is not active here; run virsh net-start {name}")),
        Err(error) if is(&error, ErrorNumber::NoNetwork) => Err(format!(
            "spec.vm_network: libvirt has no network {name} here; define it, or write none, user or bridge:NAME"
        )),
        Err(error) => Err(format!("spec.vm_network: {name} cannot be asked about: {}", words(error))),
    }
}

fn lookup(connection: &Connect, name: &str) -> Result<Option<Domain>, String> {
    match connection.lookup_domain_by_name(name) {
        Ok(domain) => Ok(Some(domain)),
        Err(error) if is(&error, ErrorNumber::NoDomain) => Ok(None),
        Err(error) => Err(words(error)),
    }
}

/// Starts a domain, paused. If nobody waits for it any more by then, it is taken away at once.
pub(super) fn create(connection: &Connect, name: &str, xml: &str, wanted: Wanted<'_>) -> Result<(), String> {
    destroy(connection, name)?;
    if !wanted() {
        return Err(format!("{name} was called off"));
    }
    let domain = connection.create_domain_xml(xml, sys::VIR_DOMAIN_START_PAUSED).map_err(words)?;
    if !wanted() {
        let _ = domain.destroy();
    }
    Ok(())
}

/// Lets a domain go on that was started paused, and notes that down: whoever pauses it after that has a reason.
pub(super) fn release(connection: &Connect, name: &str, wanted: Wanted<'_>) -> Result<(), String> {
    let Some(domain) = lookup(connection, name)? else { return Err(format!("{name} is gone")) };
    // Asked when the guard had it; a daemon that was stuck since answers too late.
    if released(&domain) || !wanted() {
        return Ok(());
    }
    domain.resume().map_err(words)?;
    note_released(&domain).map_err(words)
}

fn released(domain: &Domain) -> bool {
    let kind = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;
    domain.metadata(kind, Some(RELEASED_SPACE), sys::VIR_DOMAIN_AFFECT_LIVE).is_ok()
}

fn note_released(domain: &Domain) -> Result<(), Error> {
    let kind = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;
    let (key, space) = (Some("released"), Some(RELEASED_SPACE));
    domain.set_metadata(kind, Some("<released/>"), key, space, sys::VIR_DOMAIN_AFFECT_LIVE)
}

/// Every domain of an owner.
pub(super) fn all(connection: &Connect, owner: &str) -> Result<Vec<Found>, String> {
    let listed = connection.list_all_domains(0).map_err(words)?;
    let own = listed.iter().filter_map(|domain| {
        let name = domain.name().ok()?;
        let run = run_of_name(owner, &name)?;
        let (stage, paused) = stage(domain, &name);
        let health = paused.map(|why| (Health::Unhealthy, format!("paused: {why}")));
        Some(Found { run, stage, health, usage: None, unenforced: Vec::new() })
    });
    Ok(own.collect())
}

/// How far a domain is, and why it stands still if it was running before.
fn stage(domain: &Domain, name: &str) -> (FoundStage, Option<&'static str>) {
    let exited = || FoundStage::Exited(traces::end(name).unwrap_or_default());
    // Gone since it was listed.
    let Ok((state, reason)) = domain.state() else { return (exited(), None) };
    if matches!(state, Enum::Known(DomainState::Shutoff | DomainState::Crashed)) {
        return (exited(), None);
    }
    let Some(pid) = traces::process(name) else { return (FoundStage::Made, None) };
    if !matches!(state, Enum::Known(DomainState::Paused)) {
        return (FoundStage::Running(pid), None);
    }
    let reason = match reason {
        Enum::Known(DomainStateReason::Paused(Enum::Known(reason))) => reason,
        _ => DomainPausedReason::Unknown,
    };
    let why = match reason {
        DomainPausedReason::IOError => "its disk failed; see to the space and health of the disk",
        DomainPausedReason::Watchdog => "its watchdog says that it hangs",
        DomainPausedReason::Crashed => "its system crashed",
        DomainPausedReason::Save | DomainPausedReason::Dump | DomainPausedReason::Snapshot => {
            "a copy of it is being made"
        }
        DomainPausedReason::Migration | DomainPausedReason::PostCopy => "it is being moved",
        _ if !released(domain) => return (FoundStage::Held(pid), None),
        _ => "somebody paused it; run virsh resume to let it go on",
    };
    (FoundStage::Running(pid), Some(why))
}

/// Asks the guest to end, if there is one.
pub(super) fn press_power_button(connection: &Connect, name: &str) -> Result<(), String> {
    let Some(domain) = lookup(connection, name)? else { return Ok(()) };
    match domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN) {
        Ok(()) => Ok(()),
        Err(error) if is(&error, ErrorNumber::OperationInvalid) => Ok(()),
        Err(error) => Err(words(error)),
    }
}

/// Takes a domain away, if it is there.
pub(super) fn destroy(connection: &Connect, name: &str) -> Result<(), String> {
    let Some(domain) = lookup(connection, name)? else { return Ok(()) };
    match domain.destroy() {
        Ok(()) => Ok(()),
        Err(error) if is(&error, ErrorNumber::NoDomain) || is(&error, ErrorNumber::OperationInvalid) => {
            Ok(())
        }
        Err(error) => Err(words(error)),
    }
}

//! By which means processors of machines run on this host: by the hardware, where that is truly faster than emulation.
//! A host may say that it can and take forever, as one that is itself emulated does; so both are given the same small
//! sum to do. Measured once for each process.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::DomainType;

/// The longest that the sum may take by any means.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is thought enough of a head start for hardware.
const LEAST: Duration = Duration::from_millis(500);
/// What the guest writes to the port that ends it, as the emulator's exit code.
const DONE: i32 = 33;

/// Counts down from 2^28 as the first thing after power-on, and says so at the port 0xf4.
fn sector() -> [u8; 512] {
    const CODE: [u8; 19] = [
        0x66, 0xb9, 0, 0, 0, 0x10, // mov ecx, 0x10000000
        0x66, 0x49, 0x75, 0xfc, // dec ecx; jnz to it
        0xba, 0xf4, 0, // mov dx, 0xf4
        0xb0, 0x10, 0xee, // mov al, 0x10; out dx, al
        0xf4, 0xeb, 0xfd, // hlt, for ever
    ];
    let mut all = [0; 512];
    all[..CODE.len()].copy_from_slice(&CODE);
    all[510..].copy_from_slice(&[0x55, 0xaa]);
    all
}

/// The faster of both. `offered` says that libvirt takes the host for able.
pub(super) async fn choose(emulator: &str, offered: bool) -> DomainType {
    if !offered || File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return DomainType::Qemu;
    }
    // The sum is of one architecture; the others are believed.
    if std::env::consts::ARCH != "x86_64" {
        return DomainType::Kvm;
    }
    let emulated = measure(emulator, "tcg", PATIENCE).await.unwrap_or(PATIENCE);
    match measure(emulator, "kvm", emulated.max(LEAST)).await {
        Some(_) => DomainType::Kvm,
        None => DomainType::Qemu,
    }
}

/// How long the sum took, if it was done in time.
async fn measure(emulator: &str, means: &str, patience: Duration) -> Option<Duration> {
    let mut disk = File::from(memfd_create("quorate-sum", MemfdFlags::CLOEXEC).ok()?);
    disk.write_all(&sector()).ok()?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), disk.as_raw_fd());
    let mut command = Command::new(emulator);
    command.args(["-accel", means, "-machine", "pc", "-m", "16", "-display", "none", "-nodefaults"]);
    command.args(["-no-user-config", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x01"]);
    command.arg("-drive").arg(format!("file={path},format=raw,if=ide"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let at = Instant::now();
    let status = timeout(patience, command.status()).await.ok()?.ok()?;
    (status.code() == Some(DONE)).then(|| at.elapsed())
}

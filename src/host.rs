//! Small facts of the host that several parts need: its clocks, its boot, its processes, its accounts.
//! Does not know who asks.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use quorate_core::ids::BootId;
use quorate_core::units::{BootMs, WallMs};
use rand::RngExt;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Now on the boot-time clock, which counts suspend.
pub fn boot_now() -> BootMs {
    let now = clock_gettime(ClockId::Boottime);
    BootMs(now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000)
}

/// Now on the wall clock, for people.
pub fn wall_now() -> WallMs {
    let now = clock_gettime(ClockId::Realtime);
    WallMs(u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + now.tv_nsec as u64 / 1_000_000)
}

/// The boot of this host, as its kernel names it.
pub fn boot_id() -> io::Result<BootId> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(BootId(text.trim().to_owned()))
}

/// Lets this thread, and those it starts, go before other work of the host, as far as it may: a vote or a
/// heartbeat that waits behind a compiler's threads costs a leader.
pub fn hurry() {
    let _ = rustix::process::setpriority_process(None, -10);
}

/// Gives up what [`hurry`] gave, for what is started on somebody else's behalf.
pub fn no_hurry() {
    if rustix::process::getpriority_process(None).is_ok_and(|nice| nice < 0) {
        let _ = rustix::process::setpriority_process(None, 0);
    }
}

/// Heaps that the threads of a process share. With the usual eight for each processor, every one of a node's threads
/// keeps free memory of its own.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;
/// A piece of at least this size is mapped by itself and goes back to the host with its end. Left alone, the C library
/// raises this to the largest piece it ever saw freed, up to 32 MiB, and keeps all below in its heaps.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 256 * 1024;

/// Tells the allocator to keep little of what is freed. To be called before there are threads.
pub fn keep_little_memory() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in [(libc::M_ARENA_MAX, HEAPS), (libc::M_MMAP_THRESHOLD, OWN_MAPPING)] {
        #[expect(unsafe_code, reason = "the C library has no other way to be told")]
        // SAFETY: it takes two numbers; one that it does not know it refuses.
        unsafe {
            libc::mallopt(setting, value);
        }
    }
}

/// Gives the host back what was freed in between what is in use. Takes some milliseconds.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the C library has no other way to be told")]
    // SAFETY: it takes the allocator's own locks and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The variable by which a child learns how many descriptors this process had before [`more_descriptors`].
pub const DESCRIPTORS: &str = "QUORATE_DESCRIPTORS";
/// No process needs more.
const MOST_DESCRIPTORS: u64 = 65_536;
static BEFORE: OnceLock<u64> = OnceLock::new();

/// Lets this process have as many open descriptors as it may, and says how many that is: each connection
/// takes one, and the usual limit is meant for smaller programs.
pub fn more_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    BEFORE.get_or_init(|| soft);
    let wanted = hard.min(MOST_DESCRIPTORS).max(soft);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    usize::try_from(if raised.is_ok() { wanted } else { soft }).unwrap_or(usize::MAX)
}

/// What [`DESCRIPTORS`] should say to a child, if this process took more.
pub fn descriptors_before() -> Option<String> {
    BEFORE.get().map(ToString::to_string)
}

/// Gives up what a parent's [`more_descriptors`] took: services get the limit that the node was started with.
pub fn usual_descriptors() {
    let before = std::env::var(DESCRIPTORS).ok().and_then(|text| text.parse().ok());
    let Some(before) = before.filter(|before| *before > 0) else { return };
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.map_or(before, |now| now.min(before));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
}

/// One process as /proc/PID/stat tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// Its state's letter; `Z` and `X` are dead.
    pub state: u8,
    /// Its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// Processor time, user and system, in clock ticks.
    pub cpu_ticks: u64,
    /// Threads.
    pub threads: u32,
    /// When it started, in clock ticks since the boot: with the boot id, the identity of a process.
    pub start_time: u64,
}

impl ProcessStat {
    /// Reads one process; `None` if there is none.
    pub fn read(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name may hold spaces and parentheses, so fields count from the last closing one.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            parent: number(1)? as u32,
            group: number(2)? as u32,
            session: number(3)? as u32,
            cpu_ticks: number(11)? + number(12)?,
            threads: number(17)? as u32,
            start_time: number(19)?,
        })
    }

    /// A zombie counts as dead.
    pub fn dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Resident memory of a process, in KiB.
pub fn resident_kib(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// All process ids of the host that this process sees.
pub fn process_ids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The disk that a path lies on, as `MAJOR:MINOR`; none for what lies in memory or on several.
pub fn disk_of(path: &std::path::Path) -> Option<String> {
    // The folder itself may not be there yet.
    let found = path.ancestors().find_map(|path| rustix::fs::stat(path).ok())?;
    let number = |device: u64| format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let device = std::path::PathBuf::from("/sys/dev/block").join(number(found.st_dev)).canonicalize().ok()?;
    // Limits are set on whole disks.
    let disk = if device.join("partition").exists() { device.parent()?.to_path_buf() } else { device };
    Some(std::fs::read_to_string(disk.join("dev")).ok()?.trim().to_owned())
}

/// Ports that nobody uses now. Below the range from which the kernel gives out ports, so that no outgoing
/// connection takes one while its node is down.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_ascii_whitespace().next().and_then(|text| text.parse::<u16>().ok());
    let high = first.filter(|first| *first > 12_000).unwrap_or(32_768);
    // Without SO_REUSEADDR: a port on which a connection of before still lingers is not free to everybody.
    let take = |port| -> io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        Ok(socket)
    };
    let mut found: Vec<(u16, OwnedFd)> = Vec::new();
    for _ in 0..count * 50 {
        if found.len() == count {
            break;
        }
        let port = rand::rng().random_range(high - 10_000..high);
        found.extend(take(port).map(|socket| (port, socket)));
    }
    if found.len() < count {
        let text = format!("only {} of {count} free ports were found on loopback", found.len());
        return Err(io::Error::other(text));
    }
    Ok(found.into_iter().map(|(port, _)| port).collect())
}

/// An account to run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name, or its number where it has none.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
    /// All its groups.
    pub groups: Vec<u32>,
    /// Its home.
    pub home: String,
}

impl Account {
    /// The account of this process.
    pub fn own() -> io::Result<Self> {
        let uid = rustix::process::getuid().as_raw();
        Ok(lookup(Query::Uid(uid))?.unwrap_or_else(|| Self::bare(uid)))
    }

    /// The account of that name or number.
    pub fn find(name: &str) -> io::Result<Option<Self>> {
        if let Ok(uid) = name.parse() {
            return Ok(Some(lookup(Query::Uid(uid))?.unwrap_or_else(|| Self::bare(uid))));
        }
        let Ok(name) = CString::new(name) else { return Ok(None) };
        lookup(Query::Name(&name))
    }

    fn bare(uid: u32) -> Self {
        Self { name: uid.to_string(), uid, gid: uid, groups: vec![uid], home: "/".to_owned() }
    }
}

enum Query<'a> {
    Name(&'a CStr),
    Uid(u32),
}

#[expect(unsafe_code, reason = "the account database is reached only through the C library")]
fn lookup(query: Query<'_>) -> io::Result<Option<Account>> {
    let mut buffer = vec![0 as libc::c_char; 16 * 1024];
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut found: *mut libc::passwd = std::ptr::null_mut();
    // SAFETY: every pointer is to memory that lives through the call, with its true length.
    let failed = unsafe {
        let (entry, text, length) = (entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len());
        match query {
            Query::Name(name) => libc::getpwnam_r(name.as_ptr(), entry, text, length, &mut found),
            Query::Uid(uid) => libc::getpwuid_r(uid, entry, text, length, &mut found),
        }
    };
    if found.is_null() {
        // Absence is told as 0 or as one of a few codes that differ between systems.
        let absent = matches!(failed, 0 | libc::ENOENT | libc::ESRCH);
        return if absent { Ok(None) } else { Err(io::Error::from_raw_os_error(failed)) };
    }
    // SAFETY: found is not null, so the call filled `entry`, whose pointers are into `buffer`.
    let account = unsafe {
        let entry = entry.assume_init();
        let mut groups = vec![0 as libc::gid_t; 1_024];
        let mut count = groups.len() as libc::c_int;
        if libc::getgrouplist(entry.pw_name, entry.pw_gid, groups.as_mut_ptr(), &mut count) < 0 {
            return Err(io::Error::other("the account is in more than 1,024 groups"));
        }
        groups.truncate(usize::try_from(count).unwrap_or(0));
        Account {
            name: CStr::from_ptr(entry.pw_name).to_string_lossy().into_owned(),
            uid: entry.pw_uid,
            gid: entry.pw_gid,
            groups,
            home: CStr::from_ptr(entry.pw_dir).to_string_lossy().into_owned(),
        }
    };
    Ok(Some(account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_name_looks_like_fields_is_read_right() {
        let text = "42 (a) R 7) S 1 42 43 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 3 0 987 1000 250 5 6 7";
        let stat = ProcessStat::parse(text).unwrap();
        assert_eq!((stat.parent, stat.group, stat.session), (1, 42, 43));
        assert_eq!((stat.cpu_ticks, stat.threads, stat.start_time), (110, 3, 987));
    }

    #[test]
    fn hurrying_is_given_up_again() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        // A thread of its own: a test must not change the priority of others.
        let after = std::thread::spawn(move || {
            hurry();
            no_hurry();
            nice()
        });
        assert!(after.join().unwrap() >= 0);
    }

    #[test]
    fn this_process_has_a_start_time_and_its_account_a_group() {
        assert!(ProcessStat::read(std::process::id()).is_some_and(|stat| !stat.dead()));
        assert!(!Account::own().unwrap().groups.is_empty());
        assert_eq!(Account::find("no-such-account-here").unwrap(), None);
        assert!(boot_now().0 > 0 && !boot_id().unwrap().0.is_empty());
    }
}

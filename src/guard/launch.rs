//! Starting one native process: its folders, its account, its environment, its control group, its own
//! session. Says in the spec's words what was wrong. Does not know whether it may be started.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail};
use quorate_core::effect::StartInstance;
use quorate_core::ids::{NodeId, OperationId};
use quorate_core::spec::Workload;
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Uid};

use super::group::Group;
use crate::host::Account;
use crate::layout::{Layout, environment};
use crate::logs::open_output;

/// How far a child came before its program ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Session = 1,
    Group = 2,
    Account = 3,
    Folder = 4,
    Program = 5,
}

/// What has to be known and there before a process starts.
#[derive(Debug)]
pub struct Prepared {
    account: Account,
    /// Is that another one than the guard's?
    switch: bool,
}

/// Looks up the account and makes the folders, with the state copy of `copied` moved into place if it still
/// waits. May take as long as the disk does.
pub fn prepare(
    layout: &Layout,
    start: &StartInstance,
    copied: Option<OperationId>,
) -> anyhow::Result<Prepared> {
    let own = Account::own().context("cannot look up the node's account")?;
    let account = match start.spec.workload.user() {
        None => own.clone(),
        Some(name) => Account::find(name)
            .with_context(|| format!("spec.user: cannot look up {name:?}"))?
            .ok_or_else(|| anyhow!("spec.user: there is no account {name:?} on this node; make it here"))?,
    };
    let switch = account.uid != own.uid;
    if switch && own.uid != 0 {
        let (own, other) = (own.name, account.name);
        bail!("spec.user: the node runs as {own}, which may not switch to {other}; run it as root");
    }
    let staged = copied.map(|operation| layout.staging(operation)).filter(|path| path.is_dir());
    make_folders(layout, start, staged, switch.then_some(&account))?;
    Ok(Prepared { account, switch })
}

/// Starts the process. Returns its id.
pub fn launch(
    layout: &Layout,
    node: &NodeId,
    start: &StartInstance,
    group: Option<&Group>,
    prepared: &Prepared,
) -> anyhow::Result<u32> {
    let Workload::Process(wanted) = &start.spec.workload else {
        bail!("{}: is not a native process", start.id)
    };
    let Prepared { account, switch } = prepared;
    let output = open_output(&layout.logs(&start.id.slot)).context("cannot open the output file")?;
    let program = wanted.command.first().context("spec.command: is empty; name a program")?;
    let mut command = Command::new(program);
    command
        .args(&wanted.command[1..])
        .env_clear()
        .envs(environment(layout, node, start, account))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let folder = match &wanted.working_dir {
        Some(folder) => PathBuf::from(folder),
        None => layout.instance(&start.id.slot),
    };
    let doors =
        group.map(Group::doors).transpose().context("cannot enter the control group")?.unwrap_or_default();
    let (progress, teller) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    hook(&mut command, doors, switch.then(|| account.clone()), &folder, File::from(teller))?;
    let spawned = command.spawn();
    drop(command);
    let mut steps = [0_u8; 16];
    let reached =
        rustix::io::read(&progress, &mut steps).ok().and_then(|count| steps[..count].last().copied());
    match spawned {
        // Reaped with all others; dropping the handle neither waits nor kills.
        Ok(child) => Ok(child.id()),
        Err(error) => Err(explain(reached, &error, wanted.command.as_slice(), &folder, account)),
    }
}

/// What the child does between fork and exec. It must not allocate: system calls only.
#[expect(
    unsafe_code,
    reason = "only a hook between fork and exec can set session, group, account and folder in order"
)]
fn hook(
    command: &mut Command,
    doors: Vec<File>,
    account: Option<Account>,
    folder: &Path,
    teller: File,
) -> anyhow::Result<()> {
    let folder = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes())
        .context("spec.working_dir: holds a zero byte")?;
    let groups: Vec<Gid> =
        account.iter().flat_map(|account| account.groups.iter().map(|gid| Gid::from_raw(*gid))).collect();
    let ids = account.map(|account| (Uid::from_raw(account.uid), Gid::from_raw(account.gid)));
    let hook = move || -> io::Result<()> {
        let tell = |step: Step| rustix::io::write(&teller, &[step as u8]);
        tell(Step::Session)?;
        unblock_signals();
        rustix::process::setsid()?;
        tell(Step::Group)?;
        for door in &doors {
            rustix::io::write(door, b"0")?;
        }
        // The guard is spared when memory is short; what it runs is not.
        if let Ok(score) = open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty()) {
            let _ = rustix::io::write(score, b"0");
        }
        tell(Step::Account)?;
        if let Some((uid, gid)) = ids {
            rustix::thread::set_thread_groups(&groups)?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        }
        tell(Step::Folder)?;
        rustix::process::chdir(folder.as_c_str())?;
        tell(Step::Program)?;
        Ok(())
    };
    // SAFETY: the hook makes system calls on values prepared before the fork and allocates nothing.
    unsafe { command.pre_exec(hook) };
    Ok(())
}

#[expect(unsafe_code, reason = "signal masks are reached only through the C library")]
fn unblock_signals() {
    // SAFETY: the set is initialised before it is read; both calls are async-signal-safe.
    unsafe {
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

fn explain(
    reached: Option<u8>,
    error: &io::Error,
    command: &[String],
    folder: &Path,
    account: &Account,
) -> anyhow::Error {
    let program = &command[0];
    match reached {
        Some(step) if step == Step::Program as u8 => match error.kind() {
            io::ErrorKind::NotFound => {
                anyhow!(
                    "spec.command: {program:?} was not found on this node; install it or give its full path"
                )
            }
            io::ErrorKind::PermissionDenied => {
                anyhow!("spec.command: {} may not run {program:?}: {error}", account.name)
            }
            _ => anyhow!("spec.command: cannot run {program:?}: {error}"),
        },
        Some(step) if step == Step::Folder as u8 => {
            anyhow!("spec.working_dir: {} cannot enter {}: {error}", account.name, folder.display())
        }
        Some(step) if step == Step::Account as u8 => {
            anyhow!("spec.user: cannot become {}: {error}", account.name)
        }
        Some(step) if step == Step::Group as u8 => anyhow!("cannot enter the control group: {error}"),
        _ => anyhow!("cannot make a process: {error}"),
    }
}

/// The slot's folder and state folder, owned by whom it runs as; a staged state copy moved into place.
fn make_folders(
    layout: &Layout,
    start: &StartInstance,
    staged: Option<PathBuf>,
    owner: Option<&Account>,
) -> anyhow::Result<()> {
    let slot = &start.id.slot;
    let folder = layout.instance(slot);
    let give = |path: &Path| -> anyhow::Result<()> {
        match owner {
            Some(owner) => chown(path, Some(owner.uid), Some(owner.gid))
                .with_context(|| format!("cannot give {} to {}", path.display(), owner.name)),
            None => Ok(()),
        }
    };
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    give(&folder)?;
    let Some(state) = layout.state(slot, start.spec.state_dir.as_deref()) else { return Ok(()) };
    if let Some(staged) = staged {
        let aside = folder.join(".replaced-state");
        let _ = fs::remove_dir_all(&aside);
        if state.exists() {
            fs::rename(&state, &aside).with_context(|| format!("cannot move {} aside", state.display()))?;
        }
        if let Some(above) = state.parent() {
            fs::create_dir_all(above)?;
        }
        fs::rename(&staged, &state)
            .with_context(|| format!("cannot move the state copy {}", staged.display()))?;
        let _ = fs::remove_dir_all(&aside);
        if let Some(owner) = owner {
            give_all(&state, owner)?;
        }
    }
    fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
    give(&state)
}

fn give_all(path: &Path, owner: &Account) -> anyhow::Result<()> {
    std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))
        .with_context(|| format!("cannot give {} to {}", path.display(), owner.name))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_all(&entry?.path(), owner)?;
        }
    }
    Ok(())
}

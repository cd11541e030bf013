//! Running one program of a fence device: input on stdin, a time limit, bounded output. A program that
//! overruns is killed with everything it started. Does not know what the program is for.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Where programs are looked for after the PATH, which an unprivileged shell cuts short.
const ALSO: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// One call of a program. Nothing secret is among its arguments or variables: both are shown by `ps`.
pub(super) struct Call {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) variables: Vec<(&'static str, String)>,
    pub(super) input: String,
    /// What it writes beyond this is dropped.
    pub(super) most_output: usize,
}

impl Call {
    /// More output than this says nothing more to a person.
    pub(super) const WORDS: usize = 4 * 1024;
    /// The longest description of an agent that is read.
    pub(super) const DOCUMENT: usize = 1024 * 1024;
}

/// How a program ended.
pub(super) struct Ran {
    pub(super) status: ExitStatus,
    /// What it wrote to stdout, from the beginning.
    pub(super) out: String,
    pub(super) err: String,
}

/// Why a program has no end to look at.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoEnd {
    #[error("{0} cannot be started: {1}")]
    Start(String, std::io::Error),
    #[error("{0} did not end within {1} ms and was killed")]
    Late(String, u128),
}

impl Ran {
    /// Its output for people, errors first.
    pub(super) fn said(&self) -> String {
        let lines = self.err.lines().chain(self.out.lines());
        let text = lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        if text.is_empty() { "no output".to_owned() } else { text }
    }

    /// The last line of stdout that says something.
    pub(super) fn last_line(&self) -> &str {
        self.out.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default()
    }
}

/// The file of a program: a whole path as it is, a bare name from the PATH.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| runs(path));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(ALSO.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| runs(path))
}

/// Runs a program to its end, or kills it at the limit.
pub(super) async fn run(call: &Call, limit: Duration) -> Result<Ran, NoEnd> {
    let name = call.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut child = Command::new(&call.program)
        .args(&call.arguments)
        // What people read and programs compare is in one language.
        .env("LC_ALL", "C")
        .env("PYTHONWARNINGS", "ignore")
        .envs(call.variables.iter().map(|(key, value)| (*key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| NoEnd::Start(name.clone(), error))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let finished = timeout(limit, finish(&mut child, call)).await;
    // Whatever it left behind goes with it, on every way out.
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    match finished {
        Ok(ran) => ran.map_err(|error| NoEnd::Start(name, error)),
        Err(_) => {
            let _ = child.kill().await;
            Err(NoEnd::Late(name, limit.as_millis()))
        }
    }
}

async fn finish(child: &mut Child, call: &Call) -> std::io::Result<Ran> {
    let (to, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut to) = to {
            // A program that does not read is no failure.
            let _ = to.write_all(call.input.as_bytes()).await;
        }
    };
    let ((), status, out, err) =
        tokio::join!(write, child.wait(), read(out, call.most_output), read(err, call.most_output));
    Ok(Ran { status: status?, out, err })
}

/// Reads to the end but keeps only the beginning, so that a talkative program is never blocked.
async fn read(from: Option<impl AsyncRead + Unpin>, most: usize) -> String {
    let Some(mut from) = from else { return String::new() };
    let (mut kept, mut piece) = (Vec::new(), [0_u8; 1_024]);
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let room = most.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&piece[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(body: &str) -> Call {
        let arguments = ["-c", body].map(str::to_owned).to_vec();
        Call {
            program: PathBuf::from("/bin/sh"),
            arguments,
            variables: Vec::new(),
            input: "word".to_owned(),
            most_output: Call::WORDS,
        }
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_everything_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("child");
        let body = format!("sleep 300 & echo $! > {}; wait", file.display());
        let ended = run(&script(&body), Duration::from_millis(500)).await;
        assert!(ended.err().unwrap().to_string().contains("did not end within 500 ms"));
        let child: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let pid = Pid::from_raw(child).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        let gone = || {
            rustix::process::test_kill_process(pid).is_err()
                || std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|s| s.contains(") Z "))
        };
        while !gone() {
            assert!(std::time::Instant::now() < deadline, "the child of the program still runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn endless_output_is_bounded_and_input_is_given_once() {
        let limit = Duration::from_secs(10);
        let ran = run(&script("head -c 1000000 /dev/zero | tr '\\0' x"), limit).await.ok().unwrap();
        assert_eq!(ran.out.len(), Call::WORDS);
        let ran = run(&script("cat; echo oops >&2; exit 3"), limit).await.ok().unwrap();
        assert_eq!(
            (ran.status.code(), ran.last_line(), ran.said().as_str()),
            (Some(3), "word", "oops; word")
        );
    }

    #[test]
    fn programs_are_found_by_name_or_by_path() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("/bin/sh"), Some(PathBuf::from("/bin/sh")));
        let text = tempfile::NamedTempFile::new().unwrap();
        let path = text.path().to_str().unwrap();
        assert_eq!((find(path), find("no-such-program-anywhere")), (None, None), "it cannot be executed");
    }
}

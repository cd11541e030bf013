//! Fencing by a program: `COMMAND.. off`, then `COMMAND.. status`, each with a time limit. A program
//! that overruns is killed with everything it started; its output is bounded.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use quorate_core::ids::NodeId;
use quorate_core::observation::FenceOutcome;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// More output than this says nothing more to a person.
const MAX_OUTPUT: usize = 4 * 1024;

struct Ran {
    status: ExitStatus,
    output: String,
}

/// Does the deed and reads the state back.
pub(super) async fn fence(target: &NodeId, command: &[String], limit: Duration) -> FenceOutcome {
    let off = match run(target, command, "off", limit).await {
        Ok(ran) => ran,
        Err(why) => return FenceOutcome::Failed { output: format!("off: {why}") },
    };
    // A deed that says it failed may still have worked, and one that says it worked may lie: only the
    // read-back counts.
    let status = match run(target, command, "status", limit).await {
        Ok(ran) => ran,
        Err(why) => {
            return FenceOutcome::Failed { output: format!("off: {}; status: {why}", said(&off)) };
        }
    };
    let output = format!("off: {}; status: {}", said(&off), said(&status));
    let read_off = status.output.lines().map(str::trim).rfind(|line| !line.is_empty()) == Some("off");
    if status.status.success() && read_off {
        FenceOutcome::ProvenOff { output }
    } else {
        FenceOutcome::Failed { output }
    }
}

fn said(ran: &Ran) -> String {
    let text = ran.output.trim();
    let text = if text.is_empty() { "no output" } else { text };
    format!("{text} ({})", ran.status)
}

async fn run(target: &NodeId, command: &[String], action: &str, limit: Duration) -> Result<Ran, String> {
    let (program, arguments) = command.split_first().ok_or("the method names no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .arg(action)
        .env("QUORATE_FENCE_TARGET", target.as_str())
        .env("QUORATE_FENCE_ACTION", action)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let finished = timeout(limit, finish(&mut child)).await;
    // Whatever it left behind goes with it, on every way out.
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    match finished {
        Ok(ran) => ran.map_err(|error| format!("{program}: {error}")),
        Err(_) => {
            let _ = child.kill().await;
            Err(format!("{program} did not end within {} ms and was killed", limit.as_millis()))
        }
    }
}

async fn finish(child: &mut Child) -> std::io::Result<Ran> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (status, out, err) = tokio::join!(child.wait(), read(out), read(err));
    let mut output = out;
    if !err.trim().is_empty() {
        output = format!("{}\n{output}", err.trim());
    }
    Ok(Ran { status: status?, output })
}

/// Reads to the end but keeps only the beginning, so that a talkative program is never blocked.
async fn read(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else { return String::new() };
    let (mut kept, mut piece) = (Vec::new(), [0_u8; 1_024]);
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let room = MAX_OUTPUT.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&piece[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn script(body: &str, limit_ms: u64) -> FenceOutcome {
        let command = ["/bin/sh", "-c", body, "fence"].map(str::to_owned);
        fence(&"n2".parse().unwrap(), &command, Duration::from_millis(limit_ms)).await
    }

    #[tokio::test]
    async fn only_a_read_back_of_off_is_proof() {
        let good = script(r#"[ "$1" = status ] && echo off; echo $QUORATE_FENCE_TARGET >&2"#, 5_000).await;
        assert!(matches!(&good, FenceOutcome::ProvenOff { output } if output.contains("n2")), "{good:?}");
        for lying in [
            r#"[ "$1" = off ] && echo off"#,
            r#"[ "$1" = status ] && echo on"#,
            r#"[ "$1" = status ] && { echo off; exit 1; }"#,
            "echo unknown",
            "exit 3",
        ] {
            let outcome = script(lying, 5_000).await;
            assert!(matches!(outcome, FenceOutcome::Failed { .. }), "{lying}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_everything_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("child");
        let body = format!("sleep 300 & echo $! > {}; wait", file.display());
        let outcome = script(&body, 300).await;
        assert!(
            matches!(&outcome, FenceOutcome::Failed { output } if output.contains("did not end")),
            "{outcome:?}"
        );
        let child: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let pid = Pid::from_raw(child).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        let gone = || {
            rustix::process::test_kill_process(pid).is_err()
                || std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|s| s.contains(") Z "))
        };
        while !gone() {
            assert!(std::time::Instant::now() < deadline, "the child of the method still runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn endless_output_is_bounded() {
        let outcome = script("head -c 1000000 /dev/zero | tr '\\0' x", 5_000).await;
        let FenceOutcome::Failed { output } = outcome else { panic!("{outcome:?}") };
        assert!(output.len() < 3 * MAX_OUTPUT, "{} bytes", output.len());
    }
}

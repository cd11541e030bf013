//! Fencing a node by one method: the deed, then reading the power state back. Knows nothing of quorum, leases
//! or claims; who may ask was decided before.
//!
//! [`off`] and its kin ask a `device` (agent, program or engine), each call of which is a `run` of one
//! program; a `secret` is read for the call and scrubbed from what comes back. [`Tools`] says what is missing
//! here before it is needed; `metadata` is what an agent says of itself.

mod device;
mod metadata;
mod run;
mod secret;
mod tools;

use std::time::Duration;

use device::{Opened, Power, Verb};
use quorate_core::fence::FenceMethod;
use quorate_core::ids::NodeId;
use quorate_core::observation::FenceOutcome;
use run::NoEnd;
use tokio::time::{Instant, sleep};

pub use tools::Tools;

/// Between two looks at a node that is still on.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Does the deed and reads the state back. Nothing but a read-back of `off` is proof.
pub async fn off(target: &NodeId, method: &FenceMethod) -> FenceOutcome {
    let limit = Duration::from_millis(method.timeout.0);
    let failed = |output: String| FenceOutcome::Failed { output: format!("{}: {output}", method.name) };
    let opened = match Opened::new(target, &method.device) {
        Ok(opened) => opened,
        Err(why) => return failed(why),
    };
    let began = Instant::now();
    let asked = opened.ask(Verb::Off, limit).await;
    let taken = format!("{} ms", began.elapsed().as_millis());
    let (deed, obeyed) = match asked {
        Ok(ran) => {
            let said = format!("off: {} ({}) in {taken}", ran.said(), ran.status);
            (said, ran.status.success())
        }
        Err(why @ NoEnd::Start(..)) => return failed(format!("off: {why}")),
        Err(why @ NoEnd::Late(..)) => (format!("off: {why}"), false),
    };
    // A deed that says it failed may still have worked, and one that says it worked may lie or take a while:
    // only the read-back counts.
    match read_back(&opened, limit, obeyed).await {
        Ok(read) => FenceOutcome::ProvenOff { output: format!("{}: {deed}; {read}", method.name) },
        Err(why) => failed(format!("{deed}; {why}")),
    }
}

/// Asks for the power state alone: `on` or `off`, or why the method cannot be relied on.
pub async fn test(target: &NodeId, method: &FenceMethod) -> Result<String, String> {
    let opened = Opened::new(target, &method.device)?;
    match opened.read(Duration::from_millis(method.timeout.0)).await {
        Ok(Power::On) => Ok("on".to_owned()),
        Ok(Power::Off) => Ok("off".to_owned()),
        Ok(Power::Else(said)) => Err(said),
        Err(why) => Err(why.to_string()),
    }
}

/// Gives the power back, and says what was read then: it is nobody's proof.
pub async fn on(target: &NodeId, method: &FenceMethod) -> FenceOutcome {
    let limit = Duration::from_millis(method.timeout.0);
    let said = |output: String| format!("{}: on: {output}", method.name);
    let opened = match Opened::new(target, &method.device) {
        Ok(opened) => opened,
        Err(why) => return FenceOutcome::Failed { output: said(why) },
    };
    match opened.ask(Verb::On, limit).await {
        Ok(ran) if ran.status.success() => FenceOutcome::SwitchedOn { output: said(ran.said()) },
        Ok(ran) => FenceOutcome::Failed { output: said(format!("{} ({})", ran.said(), ran.status)) },
        Err(why) => FenceOutcome::Failed { output: said(why.to_string()) },
    }
}

/// Reads until the node is off, for as long as one call may take; only once after a deed that failed.
async fn read_back(opened: &Opened<'_>, limit: Duration, again: bool) -> Result<String, String> {
    let began = Instant::now();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let asked = Instant::now();
        let seen = match opened.read(left).await {
            Ok(Power::Off) => return Ok(format!("read back off in {} ms", began.elapsed().as_millis())),
            Ok(Power::On) => "read back on".to_owned(),
            Ok(Power::Else(said)) => format!("status: {said}"),
            Err(why) => format!("status: {why}"),
        };
        // The next look has at least the time that this one took.
        let taken = asked.elapsed().max(LOOK_AGAIN);
        if !again || began.elapsed() + taken * 2 >= limit {
            return Err(seen);
        }
        sleep(taken).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate_core::fence::FenceDevice;
    use quorate_core::units::Millis;

    use super::*;

    fn script(body: &str, limit_ms: u64) -> FenceMethod {
        let command = ["/bin/sh", "-c", body, "fence"].map(str::to_owned).to_vec();
        let device = FenceDevice::Exec { command, parameters: BTreeMap::new(), password_file: None };
        FenceMethod { name: "script".to_owned(), timeout: Millis(limit_ms), ..FenceMethod::of(device) }
    }

    async fn fence(method: &FenceMethod) -> FenceOutcome {
        off(&"n2".parse().unwrap(), method).await
    }

    #[tokio::test]
    async fn only_a_read_back_of_off_is_proof() {
        let good = r#"[ "$1" = status ] && echo off; echo $QUORATE_FENCE_TARGET >&2"#;
        let outcome = fence(&script(good, 5_000)).await;
        assert!(
            matches!(&outcome, FenceOutcome::ProvenOff { output } if output.contains("n2")),
            "{outcome:?}"
        );
        for lying in [
            r#"[ "$1" = off ] && echo off"#,
            r#"[ "$1" = status ] && echo on"#,
            r#"[ "$1" = status ] && { echo off; exit 1; }"#,
            "echo unknown",
            "exit 3",
        ] {
            let outcome = fence(&script(lying, 500)).await;
            assert!(matches!(outcome, FenceOutcome::Failed { .. }), "{lying}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_node_that_takes_a_while_to_go_off_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let looks = dir.path().join("looks");
        let body = format!(
            r#"[ "$1" = status ] || exit 0; echo x >> {0}; [ $(wc -l < {0}) -ge 3 ] && echo off || echo on"#,
            looks.display()
        );
        let outcome = fence(&script(&body, 10_000)).await;
        assert!(matches!(outcome, FenceOutcome::ProvenOff { .. }), "{outcome:?}");
        assert_eq!(std::fs::read_to_string(&looks).unwrap().lines().count(), 3);
    }

    #[tokio::test]
    async fn a_deed_that_hangs_is_still_read_back() {
        let outcome = fence(&script(r#"[ "$1" = off ] && sleep 60; echo off"#, 1_000)).await;
        assert!(
            matches!(&outcome, FenceOutcome::ProvenOff { output } if output.contains("was killed")),
            "{outcome:?}"
        );
    }

    #[tokio::test]
    async fn a_password_goes_by_stdin_alone_and_is_taken_out_of_what_the_device_says() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "s3cret-word\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let seen = dir.path().join("seen");
        let body = format!(
            r#"cat > {0}.$1; tr '\0' ' ' < /proc/$$/cmdline >> {0}.argv; env >> {0}.argv; cat {0}.$1 >&2; echo off"#,
            seen.display()
        );
        let mut method = script(&body, 10_000);
        let FenceDevice::Exec { password_file, .. } = &mut method.device else { panic!("a program") };
        *password_file = Some(file.to_str().unwrap().to_owned());
        let outcome = fence(&method).await;
        let FenceOutcome::ProvenOff { output } = &outcome else { panic!("{outcome:?}") };
        assert!(output.contains("(hidden)") && !output.contains("s3cret-word"), "{output}");
        let read = |ending: &str| std::fs::read_to_string(format!("{}.{ending}", seen.display())).unwrap();
        assert!(!read("argv").contains("s3cret-word"), "{}", read("argv"));
        let request: serde_json::Value = serde_json::from_str(&read("off")).unwrap();
        assert_eq!(request["password"], "s3cret-word");
        assert_eq!((&request["action"], &request["target"]), (&"off".into(), &"n2".into()));
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let outcome = fence(&FenceMethod::of_program("/no/such/device")).await;
        let FenceOutcome::Failed { output } = outcome else { panic!("{outcome:?}") };
        assert_eq!(output, "device: /no/such/device is not installed on this node");
    }
}

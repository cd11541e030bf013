//! An engine's errors in plain words: the field of the description that is at fault, where one is, and what to do.

use std::error::Error as _;

use bollard::errors::Error;
use quorate_core::spec::ContainerWorkload;

/// What went wrong, without the client's own preamble.
pub(super) fn plain(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        Error::RequestTimeoutError => "no answer in time".to_owned(),
        other => {
            let mut words = other.to_string();
            let mut below = other.source();
            while let Some(cause) = below {
                let cause_words = cause.to_string();
                if !words.contains(&cause_words) {
                    words = format!("{words}: {cause_words}");
                }
                below = cause.source();
            }
            words
        }
    }
}

/// The engine's answer by number, if it gave one.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Why a container was not made or started, with the field that is at fault.
pub(super) fn of_start(error: &Error, spec: &ContainerWorkload) -> String {
    of_message(&plain(error), spec)
}

fn of_message(message: &str, spec: &ContainerWorkload) -> String {
    let low = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|one| low.contains(one));
    let short = shortened(message);
    if has(&[
        "unable to find user",
        "no matching entries in passwd",
        "unable to find group",
        "no matching entries in group",
    ]) {
        let user = spec.user.as_deref().unwrap_or_default();
        return format!(
            "spec.user: the image has no user or group {user:?}; name one of the image, or a number"
        );
    }
    if has(&["port is already allocated", "address already in use", "cannot assign requested address"]) {
        let at = spec.ports.iter().position(|port| message.contains(&format!(":{}", port.host))).unwrap_or(0);
        return format!("spec.ports[{at}]: {short}; free that port of the host or choose another");
    }
    if has(&["no such image", "image not known", "unable to find image"]) {
        return format!("spec.image: {short}; fetch it or set pull: missing");
    }
    if has(&["network"]) && has(&["not found", "no such network", "unable to find network"]) {
        let network = spec.network.as_deref().unwrap_or_default();
        return format!("spec.network: the engine has no network {network:?}; make it first");
    }
    if has(&["chdir to cwd", "working directory", "workdir", "mkdir cwd"]) {
        return format!("spec.working_dir: {short}; name a folder that the image has");
    }
    if has(&[
        "bind source path does not exist",
        "invalid mount config",
        "error mounting",
        "mount destination",
    ]) || (has(&["statfs", "lstat"]) && has(&["no such file"]))
    {
        let named = |path: &str| message.contains(path);
        let at = spec.mounts.iter().position(|one| named(&one.source) || named(&one.target)).unwrap_or(0);
        return format!("spec.mounts[{at}]: {short}");
    }
    if has(&["memory limit", "minimum memory", "memory reservation"]) {
        return format!("spec.memory_limit: {short}");
    }
    if has(&["range of cpus", "cpu cfs quota", "no command specified"]) {
        let field = if has(&["no command"]) { "command" } else { "cpu_limit" };
        return format!("spec.{field}: {short}");
    }
    if has(&[
        "executable file not found",
        "executable file `",
        "no such file or directory",
        "not a directory",
    ]) && has(&["exec", "container process", "oci"])
        || has(&["permission denied"]) && has(&["exec:", "container process"])
        || has(&["attempted to invoke a command that was not found"])
    {
        let field = if spec.entrypoint.is_empty() { "command" } else { "entrypoint" };
        return format!("spec.{field}: the image cannot run it: {short}; name a program that the image has");
    }
    short
}

/// What a runtime says is wrapped by everybody on the way: the last part tells what happened.
fn shortened(message: &str) -> String {
    const MOST: usize = 300;
    let message = message.trim().trim_end_matches(": unknown");
    let telling = message.rsplit_once("container_linux.go").map_or(message, |(_, rest)| rest);
    let telling = telling.split_once(" caused: ").map_or(telling, |(_, rest)| rest);
    let mut cut: String = telling.chars().take(MOST).collect();
    if cut.len() < telling.len() {
        cut.push_str(" ...");
    }
    cut
}

/// Words that somebody else's program wrote, on one line and not too long.
pub(super) fn cut(bytes: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(MOST).collect()
}

//! Reads what a native process needs: command, environment, account, limits.

use std::collections::BTreeMap;

use crate::document::{Field, Fields};
use crate::units::{CpuMillis, MemoryMib};

use super::parse::{MAX_CPU_MILLIS, MAX_MEMORY_MIB};
use super::runtime::{RUNTIME_KEYS, preset};
use super::words::{MAX_PATH_BYTES, environment_name, is_account};
use super::{Limits, ProcessWorkload};

pub(super) const MAX_ARGUMENTS: usize = 256;
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// Bytes per second.
const MAX_IO_BYTES: u64 = 1 << 50;

pub(super) fn process(map: &Fields<'_>) -> Option<ProcessWorkload> {
    let own = ["command", "environment", "working_dir", "user", "port"];
    let keys = [&own[..], &RUNTIME_KEYS, &LIMIT_KEYS].concat();
    let map = described(map, &keys, "write spec: {command: [program, argument]}")?;
    let limits = limits(&map);
    let command = match (map.get("runtime"), map.get("command")) {
        (Some(runtime), _) => preset(&map, &runtime, limits),
        (None, Some(field)) => without_runtime(&map).and_then(|()| command(&field)),
        (None, None) => map.missing("command", "write command: [program, argument], or runtime and program"),
    };
    let environment = map.get("environment").map_or(Some(BTreeMap::new()), |field| environment(&field));
    let working_dir = optional(map.get("working_dir"), |field| {
        let text = field.text(MAX_PATH_BYTES)?;
        if text.is_empty() {
            field.fail("the path is empty", "name a folder or remove the key")
        } else {
            Some(text)
        }
    });
    let user = optional(map.get("user"), |field| account(&field));
    let port = port(&map);
    Some(ProcessWorkload {
        command: command?,
        environment: environment?,
        working_dir: working_dir?,
        user: user?,
        port: port?,
        limits: limits?,
    })
}

/// Keys of a preset mean nothing without it.
fn without_runtime(map: &Fields<'_>) -> Option<()> {
    let given = RUNTIME_KEYS.iter().find_map(|key| map.get(key));
    let fail = |field: Field<'_>| {
        field.fail("belongs to runtime, which is not named", "write runtime: java, node or binary")
    };
    given.map_or(Some(()), fail)
}

/// The port that an instance listens at, kept for it on its host and told in its environment.
pub(super) fn port(map: &Fields<'_>) -> Option<Option<u16>> {
    optional(map.get("port"), |field| field.whole(1..=65_535).and_then(|number| u16::try_from(number).ok()))
}

/// The mapping `spec` with the keys that its executor knows.
pub(super) fn described<'a>(map: &Fields<'a>, keys: &[&str], remedy: &str) -> Option<Fields<'a>> {
    match map.get("spec") {
        Some(field) => field.fields(keys),
        None => map.missing("spec", remedy),
    }
}

/// An account of the host.
pub(super) fn account(field: &Field<'_>) -> Option<String> {
    let text = field.text(64)?;
    if is_account(&text) {
        return Some(text);
    }
    field.fail(format!("{text:?} is not an account"), "name an account of the node or its number")
}

/// The keys of `limits`.
pub(super) const LIMIT_KEYS: [&str; 6] =
    ["cpu_limit", "memory_limit", "memory_high", "pids_limit", "io_read_limit", "io_write_limit"];

/// What an instance may use, by the keys that all executors with limits share.
pub(super) fn limits(map: &Fields<'_>) -> Option<Limits> {
    let memory = |key| optional(map.get(key), |field| field.whole(1..=MAX_MEMORY_MIB).map(MemoryMib));
    let rate = |key| optional(map.get(key), |field| field.whole(1..=MAX_IO_BYTES));
    let cpu = optional(map.get("cpu_limit"), |field| field.thousandths(1..=MAX_CPU_MILLIS).map(CpuMillis));
    let (limit, high) = (memory("memory_limit"), memory("memory_high"));
    let pids = optional(map.get("pids_limit"), |field| {
        field.whole(1..=4_194_304).and_then(|number| u32::try_from(number).ok())
    });
    let (read, write) = (rate("io_read_limit"), rate("io_write_limit"));
    let limits = Limits {
        cpu: cpu?,
        memory: limit?,
        memory_high: high?,
        pids: pids?,
        io_read: read?,
        io_write: write?,
    };
    if let (Some(limit), Some(high), Some(field)) =
        (limits.memory, limits.memory_high, map.get("memory_high"))
        && high > limit
    {
        let message = format!("{} MiB are above memory_limit, {} MiB", high.0, limit.0);
        return field
            .fail(message, "memory_high slows down before memory_limit kills: make it the smaller one");
    }
    Some(limits)
}

/// Absent is fine; present must be good.
pub(super) fn optional<'a, T>(
    field: Option<Field<'a>>,
    read: impl FnOnce(Field<'a>) -> Option<T>,
) -> Option<Option<T>> {
    match field {
        None => Some(None),
        Some(field) => read(field).map(Some),
    }
}

pub(super) fn command(field: &Field<'_>) -> Option<Vec<String>> {
    let remedy = "write it as a list: [program, argument]; for a shell [sh, -c, \"...\"]";
    if field.is_scalar() {
        return field.fail("a command is a list, never one text for a shell", remedy);
    }
    let command = field.texts(MAX_ARGUMENTS, MAX_BYTES)?;
    match command.first() {
        Some(program) if !program.is_empty() => Some(command),
        _ => field.fail("the command names no program", remedy),
    }
}

pub(super) fn environment(field: &Field<'_>) -> Option<BTreeMap<String, String>> {
    let mut environment = BTreeMap::new();
    let (mut bytes, mut good) = (0, true);
    for (key, value) in field.pairs(1_024)? {
        if let Err(message) = environment_name(key) {
            value.fail::<()>(message, "rename it");
            good = false;
        }
        match value.text_or_empty(MAX_BYTES) {
            Some(text) => {
                bytes += key.len() + text.len();
                environment.insert(key.to_owned(), text);
            }
            None => good = false,
        }
    }
    if bytes > MAX_BYTES {
        return field
            .fail(format!("the environment has {bytes} bytes; at most {MAX_BYTES} are taken"), "shorten it");
    }
    good.then_some(environment)
}

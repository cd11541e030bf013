//! Reads what a unit of systemd needs: the name of one that is there, or the command of one to be made.

use std::collections::BTreeMap;

use crate::document::{Field, Fields, shown};

use super::process::{LIMIT_KEYS, account, command, described, environment, limits, optional, port};
use super::words::{ABSOLUTE_REMEDY, MAX_PATH_BYTES, absolute};
use super::{Limits, UnitSource, UnitWorkload};

const MAX_NAME_BYTES: usize = 255;
const SERVICE: &str = ".service";
/// What only a unit that is made here can be told.
const TRANSIENT_KEYS: [&str; 5] = ["command", "environment", "working_dir", "user", "port"];

pub(super) fn unit(map: &Fields<'_>) -> Option<UnitWorkload> {
    let keys = [&["unit"][..], &TRANSIENT_KEYS, &LIMIT_KEYS].concat();
    let remedy = "write spec: {command: [/full/path/of/program, argument]}, or spec: {unit: nginx.service}";
    let map = described(map, &keys, remedy)?;
    match map.get("unit") {
        Some(field) => existing(&map, &field),
        None => transient(&map),
    }
}

fn existing(map: &Fields<'_>, field: &Field<'_>) -> Option<UnitWorkload> {
    let name = field.parsed(
        MAX_NAME_BYTES,
        "write the full name of a service that the hosts have, such as nginx.service",
        unit_name,
    );
    let others = TRANSIENT_KEYS.iter().chain(&LIMIT_KEYS).filter_map(|key| Some((key, map.get(key)?)));
    let mut alone = true;
    for (key, other) in others {
        other.fail::<()>(
            "a unit that the host has already keeps its own settings",
            format!("remove {key} and set it in the unit itself, or remove unit to have one made"),
        );
        alone = false;
    }
    let source = UnitSource::Existing(name.filter(|_| alone)?);
    Some(UnitWorkload { source, limits: Limits::default() })
}

fn transient(map: &Fields<'_>) -> Option<UnitWorkload> {
    let command = match map.get("command") {
        Some(field) => program(&field),
        None => map.missing(
            "command",
            "write command: [/full/path/of/program, argument], or unit: NAME.service for one the hosts have",
        ),
    };
    let environment = map.get("environment").map_or(Some(BTreeMap::new()), |field| environment(&field));
    let working_dir =
        optional(map.get("working_dir"), |field| field.parsed(MAX_PATH_BYTES, ABSOLUTE_REMEDY, absolute));
    let user = optional(map.get("user"), |field| account(&field));
    let port = port(map);
    let limits = limits(map);
    let source = UnitSource::Transient {
        command: command?,
        environment: environment?,
        working_dir: working_dir?,
        user: user?,
        port: port?,
    };
    Some(UnitWorkload { source, limits: limits? })
}

/// A command whose program is named by its full path.
fn program(field: &Field<'_>) -> Option<Vec<String>> {
    let command = command(field)?;
    match command.first() {
        Some(program) if program.starts_with('/') => Some(command),
        Some(program) => field.items(command.len())?.first()?.fail(
            format!(
                "{} is not a full path: systemd searches for no program of a unit made here",
                shown(program)
            ),
            "write the full path of the program, such as /usr/bin/sleep",
        ),
        None => None,
    }
}

fn unit_name(text: &str) -> Result<String, String> {
    let Some(stem) = text.strip_suffix(SERVICE) else {
        return Err(format!("{} is not the name of a service: it does not end in {SERVICE}", shown(text)));
    };
    let good = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if stem.is_empty() || stem.starts_with('@') || !stem.chars().all(good) {
        return Err(format!("{} is not the name of a unit", shown(text)));
    }
    if stem.ends_with('@') && !stem[..stem.len() - 1].contains('@') {
        return Err(format!("{} is a template: it runs only as one of its instances", shown(text)));
    }
    Ok(text.to_owned())
}

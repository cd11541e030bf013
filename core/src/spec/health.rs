//! Reads how to tell that an instance works.

use crate::document::{Field, Fields};
use crate::units::Millis;

use super::parse::DAY;
use super::process::command;
use super::{ExecutorKind, HealthCheck, HealthProbe};

pub(super) fn health(field: &Field<'_>, executor: Option<ExecutorKind>) -> Option<HealthCheck> {
    let keys =
        ["http", "tcp", "exec", "grpc", "interval", "timeout", "failures", "successes", "start_period"];
    let map = field.fields(&keys)?;
    let length = |key, default, least| map.get(key).map_or(Some(default), |field| field.length(least..=DAY));
    let count = |key, default| {
        map.get(key).map_or(Some(default), |field| field.whole(1..=1_000).and_then(|n| u32::try_from(n).ok()))
    };
    let probe = probe(&map, executor);
    let interval = length("interval", Millis(1_000), Millis(50));
    let timeout = length("timeout", Millis(500), Millis(10));
    let failures = count("failures", 3);
    let successes = count("successes", 1);
    let start_period = length("start_period", Millis(2_000), Millis(0));
    Some(HealthCheck {
        probe: probe?,
        interval: interval?,
        timeout: timeout?,
        failures: failures?,
        successes: successes?,
        start_period: start_period?,
    })
}

fn probe(map: &Fields<'_>, executor: Option<ExecutorKind>) -> Option<HealthProbe> {
    let remedy = "write one of http, tcp, exec and grpc, such as http: {port: 8080, path: /healthz}";
    let given: Vec<_> =
        ["http", "tcp", "exec", "grpc"].iter().filter_map(|k| Some((*k, map.get(k)?))).collect();
    let (kind, field) = match given.as_slice() {
        [one] => one,
        [] => return map.whole().fail("the health check asks nothing", remedy),
        [_, (second, field), ..] => return field.fail(format!("{second} is one probe too many"), remedy),
    };
    let keys: &[&str] = match *kind {
        "http" => &["port", "path"],
        "tcp" => &["port"],
        "exec" => &["command"],
        _ => &["port", "service"],
    };
    if *kind == "exec" && executor.is_some_and(|kind| !kind.runs_programs()) {
        return field.fail(
            "nothing can be run inside of a virtual machine",
            "ask with http, tcp or grpc, or remove health: then running is healthy",
        );
    }
    let map = field.fields(keys)?;
    let port = || match map.get("port") {
        Some(field) => field.whole(1..=65_535).and_then(|port| u16::try_from(port).ok()),
        None => map.missing("port", "write port: 8080"),
    };
    Some(match *kind {
        "http" => {
            let (port, path) =
                (port(), map.get("path").map_or(Some("/".to_owned()), |field| http_path(&field)));
            HealthProbe::Http { port: port?, path: path? }
        }
        "tcp" => HealthProbe::Tcp { port: port()? },
        "exec" => HealthProbe::Exec {
            command: match map.get("command") {
                Some(field) => command(&field)?,
                None => return map.missing("command", "write command: [program, argument]"),
            },
        },
        _ => {
            let (port, service) =
                (port(), map.get("service").map_or(Some(String::new()), |field| field.text(256)));
            HealthProbe::Grpc { port: port?, service: service? }
        }
    })
}

fn http_path(field: &Field<'_>) -> Option<String> {
    let path = field.text(1_024)?;
    if path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic()) {
        return Some(path);
    }
    field.fail(format!("{path:?} is not a path"), "start it with a slash, without blanks")
}

//! Reads the fence methods of a node's file. They are carried out by other nodes, so every path in them is
//! one that each node has; a secret in the file itself is refused, since what a node says of itself is
//! kept in State and shown.

use std::collections::BTreeMap;

use super::parse::File;
use crate::document::{Field, Fields};
use crate::fence::{FenceAction, FenceDevice, FenceLevels, FenceMethod, GuestEngine, PASSWORD};
use crate::units::Millis;

/// Device keys: each method has exactly one.
const DEVICES: [&str; 5] = ["agent", "exec", "docker", "podman", "virsh"];
const KEYS: [&str; 13] = [
    "name",
    "agent",
    "exec",
    "docker",
    "podman",
    "virsh",
    "parameters",
    "password_file",
    "connect",
    "action",
    "timeout",
    "attempts",
    "delay",
];
const REMEDY: &str = "write {agent: fence_ipmilan, parameters: {..}}, {exec: [program]}, {docker: container}, \
                      {podman: container} or {virsh: domain}";
const MOST_METHODS: usize = 16;
const MAX_TEXT_BYTES: usize = 4_096;

impl File<'_> {
    /// The levels of `fencing.methods`.
    pub(super) fn fencing(&self) -> Option<FenceLevels> {
        let field = self.get("fencing.methods")?;
        let level = |item: &Field<'_>| {
            let methods: Vec<FenceMethod> = if item.is_list() {
                item.items(8)?.iter().map(method).collect::<Option<_>>()?
            } else {
                vec![method(item)?]
            };
            if methods.is_empty() {
                return item.fail("this level has no method", "remove it or give it one");
            }
            Some(methods)
        };
        let levels: FenceLevels = field.items(8)?.iter().map(level).collect::<Option<_>>()?;
        let count = levels.iter().map(Vec::len).sum::<usize>();
        if count > MOST_METHODS {
            return field.fail(format!("{count} methods are named"), format!("keep {MOST_METHODS} at most"));
        }
        Some(levels)
    }
}

fn method(item: &Field<'_>) -> Option<FenceMethod> {
    let map = item.fields(&KEYS)?;
    let device = device(item, &map);
    let actions = [("off", FenceAction::Off), ("reboot", FenceAction::Reboot)];
    let action = map.get("action").map(|field| field.word(&actions));
    let timeout = map.get("timeout").map(|field| field.length(Millis(100)..=Millis(600_000)));
    let attempts = map.get("attempts").map(|field| field.whole(1..=10));
    let delay = map.get("delay").map(|field| field.length(Millis(0)..=Millis(600_000)));
    let name = map.get("name").map(|field| name(&field));
    let mut method = FenceMethod::of(device?);
    // What is given and wrong has been noted; what is not given stays as it is.
    set(&mut method.action, action)?;
    set(&mut method.timeout, timeout)?;
    set(&mut method.attempts, attempts.map(|count| count.and_then(|count| u32::try_from(count).ok())))?;
    set(&mut method.delay, delay)?;
    set(&mut method.name, name)?;
    Some(method)
}

fn set<T>(value: &mut T, given: Option<Option<T>>) -> Option<()> {
    if let Some(given) = given {
        *value = given?;
    }
    Some(())
}

fn name(field: &Field<'_>) -> Option<String> {
    field.parsed(64, "write a word such as ipmi", |text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._ ".contains(c);
        if !text.trim().is_empty() && text.chars().all(plain) {
            Ok(text.to_owned())
        } else {
            Err(format!("{text:?} is not a name for a method"))
        }
    })
}

fn device(item: &Field<'_>, map: &Fields<'_>) -> Option<FenceDevice> {
    let given: Vec<&str> = DEVICES.into_iter().filter(|key| map.get(key).is_some()).collect();
    let [key] = given[..] else {
        let message = match given[..] {
            [] => "the method names no device".to_owned(),
            [first, second, ..] => format!("{first} and {second} are two devices"),
            [_] => return None,
        };
        return item.fail(message, REMEDY);
    };
    let field = map.get(key)?;
    match key {
        "agent" => {
            unfit(map, &["connect"], "an agent is told everything in its parameters")?;
            let agent = field.parsed(MAX_TEXT_BYTES, "write a name such as fence_ipmilan", agent)?;
            let parameters = parameters(map)?;
            Some(FenceDevice::Agent { agent, parameters, password_file: password_file(map)? })
        }
        "exec" => {
            unfit(map, &["connect"], "a program is told everything in its arguments and parameters")?;
            let command = field.texts(64, 16 * 1024)?;
            if !command.first().is_some_and(|program| runnable(program)) {
                let remedy = "name a program in the PATH of the nodes, or its whole path";
                return field.fail("the command names no program", remedy);
            }
            let parameters = parameters(map)?;
            Some(FenceDevice::Exec { command, parameters, password_file: password_file(map)? })
        }
        guest => {
            unfit(map, &["parameters", "password_file"], "an engine is told only the guest and connect")?;
            let engine = [GuestEngine::Docker, GuestEngine::Podman, GuestEngine::Virsh]
                .into_iter()
                .find(|engine| engine.program() == guest)?;
            let plain = |text: &str| match text.starts_with('-') || text.trim() != text || text.is_empty() {
                true => Err(format!("{text:?} cannot be passed to {guest}")),
                false => Ok(text.to_owned()),
            };
            let guest = field.parsed(256, "name it as its engine does", plain)?;
            let connect = match map.get("connect") {
                Some(field) => {
                    Some(field.parsed(1_024, "write it as the engine's own command takes it", plain)?)
                }
                None => None,
            };
            Some(FenceDevice::Guest { engine, guest, connect })
        }
    }
}

/// Refuses keys that this kind of device has no use for.
fn unfit(map: &Fields<'_>, keys: &[&str], because: &str) -> Option<()> {
    match keys.iter().find_map(|key| map.get(key)) {
        Some(field) => field.fail(because.to_owned(), "remove the key"),
        None => Some(()),
    }
}

fn runnable(program: &str) -> bool {
    !program.is_empty() && (program.starts_with('/') || !program.contains('/'))
}

fn agent(text: &str) -> Result<String, String> {
    let file = text.rsplit('/').next().unwrap_or(text);
    if runnable(text) && file.starts_with("fence_") && !file.contains(char::is_whitespace) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a fence agent"))
    }
}

fn parameters(map: &Fields<'_>) -> Option<BTreeMap<String, String>> {
    let Some(field) = map.get("parameters") else { return Some(BTreeMap::new()) };
    let one = |(key, value): &(&str, Field<'_>)| {
        let lower = key.to_lowercase();
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            return value
                .fail("this is no parameter's name", "write it as the agent's metadata does, such as ip");
        }
        if ["action", "nodename", "target", "method_timeout"].contains(key) {
            return value.fail("this parameter is set for each call", "remove it");
        }
        // A script or a file that holds a secret is none.
        let points = lower.ends_with("_script") || lower.ends_with("_file");
        let secret = ["passw", "passphrase", "secret", "token", "hexadecimal_kg", "hexadecimal-kg"];
        if secret.iter().any(|word| lower.contains(word)) && !points {
            return value.fail(
                "a secret does not belong here: State and every screen would show it",
                format!("put the {PASSWORD} into a file of mode 0600 on each node that may fence, and name it: password_file"),
            );
        }
        let text = value.text_or_empty(MAX_TEXT_BYTES)?;
        if text.contains(['\n', '\r']) {
            return value.fail("a parameter is one line", "remove the line break");
        }
        Some(((*key).to_owned(), text))
    };
    field.pairs(64)?.iter().map(one).collect()
}

/// Nothing, or a path that means the same file name on every node.
fn password_file(map: &Fields<'_>) -> Option<Option<String>> {
    let Some(field) = map.get("password_file") else { return Some(None) };
    let path = field.text(MAX_TEXT_BYTES)?;
    if path.starts_with('/') && !path.contains(['\n', '\r']) {
        Some(Some(path))
    } else {
        field.fail("this is no whole path", "write a path from the root, such as /etc/quorate/bmc.password")
    }
}

//! The walls of the architecture: the order of imports inside core, what core may never touch, what the
//! cockpit may see, and that the adapters of the shell do not know one another.

use std::path::Path;

use crate::files::{none_of, root, sources};
use crate::paths::{code_of, names_after, own_modules};

/// The five that decide; everything below them is words and state.
const DECIDERS: [&str; 4] = ["detect", "plan", "reconcile", "view"];
/// Parts of the shell that each speak to one outside thing.
const ADAPTERS: [&str; 8] =
    ["raft", "transport", "api", "executors", "guard", "fencing", "probes", "telemetry"];
/// What the cockpit may see of core.
const COCKPIT_SEES: [&str; 5] = ["view", "command", "spec", "ids", "units"];

/// The modules from the crate's root to a file: `plan/placement.rs` is `[plan, placement]`.
fn modules_of(path: &str, src: &str) -> Vec<String> {
    let inner = path.strip_prefix(src).unwrap_or(path).trim_start_matches('/');
    let inner = inner.trim_end_matches(".rs").trim_end_matches("/mod");
    if inner == "lib" || inner == "main" {
        return Vec::new();
    }
    inner.split('/').map(str::to_owned).collect()
}

fn is_module(src: &str, name: &str) -> bool {
    let base = root().join(src);
    base.join(format!("{name}.rs")).exists() || base.join(name).join("mod.rs").exists()
}

/// How far from the words a module of core lies.
fn rank(module: &str) -> u8 {
    match module {
        "state" => 1,
        "sim" => 3,
        _ if DECIDERS.contains(&module) => 2,
        _ => 0,
    }
}

#[test]
fn core_imports_only_downwards_and_its_deciders_never_one_another() {
    let files = sources("core/src", &[".rs"]);
    assert!(!files.is_empty(), "core was not found");
    let mut breaches = Vec::new();
    for file in &files {
        let modules = modules_of(&file.path, "core/src");
        let Some(own) = modules.first() else { continue };
        for name in own_modules(&code_of(&file.text), modules.len()) {
            if name == *own || !is_module("core/src", &name) {
                continue;
            }
            let (from, to) = (rank(own), rank(&name));
            if to > from || (from == 2 && to == 2) {
                breaches.push(format!("{}: {own} imports {name}", file.path));
            }
        }
    }
    none_of(breaches, "words <- state <- detect, plan, reconcile, view <- sim");
}

#[test]
fn core_touches_no_file_network_clock_thread_or_random_order() {
    let banned = ["fs", "net", "thread", "env", "process", "io"];
    let words = ["HashMap", "HashSet", "Instant", "SystemTime", "RandomState"];
    let mut breaches = Vec::new();
    for file in sources("core/src", &[".rs"]) {
        let code = code_of(&file.text);
        for name in names_after(&code, "std") {
            if banned.contains(&name.as_str()) {
                breaches.push(format!("{}: std::{name}", file.path));
            }
        }
        let mut tokens = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if let Some(word) = tokens.find(|token| words.contains(token)) {
            breaches.push(format!("{}: {word}", file.path));
        }
    }
    none_of(breaches, "core decides; it never looks at the world");
}

#[test]
fn the_cockpit_sees_only_the_view_and_the_words() {
    let mut breaches = Vec::new();
    for file in sources("tui/src", &[".rs"]) {
        let code = code_of(&file.text);
        for name in names_after(&code, "quorate_core") {
            if !COCKPIT_SEES.contains(&name.as_str()) {
                breaches.push(format!("{}: quorate_core::{name}", file.path));
            }
        }
        for name in names_after(&code, "std") {
            if ["fs", "net", "process"].contains(&name.as_str()) {
                breaches.push(format!("{}: std::{name}", file.path));
            }
        }
    }
    none_of(breaches, "tui imports core's view, command, spec, ids and units, and does no IO");
}

#[test]
fn adapters_import_core_and_ports_but_never_one_another_nor_the_node() {
    let mut breaches = Vec::new();
    for adapter in ADAPTERS {
        let mut files = sources(&format!("src/{adapter}"), &[".rs"]);
        files.extend(sources("src", &[".rs"]).into_iter().filter(|f| f.path == format!("src/{adapter}.rs")));
        for file in files {
            let modules = modules_of(&file.path, "src");
            let code = code_of(&file.text);
            let mut names = own_modules(&code, modules.len());
            names.extend(names_after(&code, "quorate"));
            for name in names {
                let upward = ["node", "cli", "demo"].contains(&name.as_str());
                if name != adapter && (ADAPTERS.contains(&name.as_str()) || upward) {
                    breaches.push(format!("{}: {adapter} imports {name}", file.path));
                }
            }
        }
    }
    none_of(breaches, "adapters know core and src/ports.rs; only the node knows them all");
}

#[test]
fn the_folders_are_at_most_two_levels_deep() {
    let mut deep = Vec::new();
    for src in ["core/src", "tui/src", "src"] {
        for file in sources(src, &[".rs"]) {
            let inner = Path::new(&file.path).strip_prefix(src).map_or(0, |p| p.components().count());
            if inner > 3 {
                deep.push(file.path);
            }
        }
    }
    none_of(deep, "bring these files up");
}

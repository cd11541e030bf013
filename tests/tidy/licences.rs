//! Checks every dependency's licence and origin against deny.toml, from what cargo itself knows; so it
//! needs no further tool. Does not read licence texts: cargo-deny does, where it is installed.

use std::collections::BTreeSet;
use std::process::Command;

use crate::files::{none_of, root};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What deny.toml says.
struct Rules {
    licences: BTreeSet<String>,
    banned: BTreeSet<String>,
}

fn rules() -> Rules {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is there");
    let file: toml::Table = text.parse().expect("deny.toml is valid");
    let text_of = |value: &toml::Value| value.as_str().map(str::to_owned);
    let licences = file["licenses"]["allow"].as_array().expect("a list of licences");
    let banned = file["bans"]["deny"].as_array().expect("a list of bans");
    Rules {
        licences: licences.iter().filter_map(text_of).collect(),
        banned: banned.iter().filter_map(|ban| text_of(&ban["name"])).collect(),
    }
}

/// Does a licence expression hold with these licences allowed? `OR` binds weaker than `AND`.
fn allowed(expression: &str, licences: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut tokens: Vec<String> = Vec::new();
    let mut words = spaced.split_whitespace();
    while let Some(word) = words.next() {
        match (word, tokens.last_mut()) {
            ("WITH", Some(last)) => *last = format!("{last} WITH {}", words.next().unwrap_or_default()),
            _ => tokens.push(word.to_owned()),
        }
    }
    let mut at = 0;
    any_of(&tokens, &mut at, licences) && at == tokens.len()
}

fn any_of(tokens: &[String], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let mut holds = all_of(tokens, at, licences);
    while tokens.get(*at).is_some_and(|token| token == "OR") {
        *at += 1;
        holds |= all_of(tokens, at, licences);
    }
    holds
}

fn all_of(tokens: &[String], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let mut holds = one(tokens, at, licences);
    while tokens.get(*at).is_some_and(|token| token == "AND") {
        *at += 1;
        holds &= one(tokens, at, licences);
    }
    holds
}

fn one(tokens: &[String], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let Some(token) = tokens.get(*at) else { return false };
    *at += 1;
    if token == "(" {
        let holds = any_of(tokens, at, licences);
        *at += 1;
        return holds;
    }
    licences.contains(token)
}

#[test]
fn every_dependency_has_an_allowed_licence_and_origin() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--format-version", "1", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    assert!(packages.len() > 100, "only {} packages were seen", packages.len());

    let rules = rules();
    let mut breaches = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or("none");
        if !allowed(licence, &rules.licences) {
            breaches.push(format!("{name}: licence {licence}"));
        }
        if package["source"].as_str().is_some_and(|source| source != CRATES_IO) {
            breaches.push(format!("{name}: comes from {}", package["source"]));
        }
        if rules.banned.contains(name) {
            breaches.push(format!("{name}: is banned"));
        }
    }
    none_of(breaches, "deny.toml does not allow these");
}

#[test]
fn licence_expressions_are_judged_by_their_operators() {
    let licences: BTreeSet<String> = ["MIT", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for good in
        ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(GPL-3.0 OR MIT) AND MIT", "Apache-2.0 WITH LLVM-exception"]
    {
        assert!(allowed(good, &licences), "{good} was refused");
    }
    for bad in
        ["", "none", "GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "(MIT AND GPL-3.0) OR GPL-3.0", "MIT MIT"]
    {
        assert!(!allowed(bad, &licences), "{bad} was taken");
    }
}

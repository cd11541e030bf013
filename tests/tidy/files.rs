//! The files of the project, and the rules on their form: every Rust file says what it is for, none
//! grows past 600 lines, and nothing names the machine it was written on.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project: its path from the root, and its text.
pub struct Source {
    pub path: String,
    pub text: String,
}

/// Every text file below `folder` (from the root) whose name ends in one of `endings`.
pub fn sources(folder: &str, endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join(folder), endings, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(folder: &Path, endings: &[&str], found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            if name != "target" && name != ".git" {
                walk(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending))
            && let Ok(text) = fs::read_to_string(&path)
        {
            let from_root = path.strip_prefix(root()).unwrap_or(&path);
            found.push(Source { path: from_root.to_string_lossy().into_owned(), text });
        }
    }
}

/// Fails with one line for each breach.
pub fn none_of(breaches: Vec<String>, rule: &str) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

#[test]
fn every_rust_file_opens_by_saying_what_it_is_for() {
    let files = sources("", &[".rs"]);
    assert!(files.len() > 10, "only {} Rust files were found", files.len());
    let mute = files.iter().filter(|file| !file.text.starts_with("//! "));
    none_of(mute.map(|file| file.path.clone()).collect(), "these files do not open with //!");
}

#[test]
fn no_rust_file_is_longer_than_600_lines() {
    let long = sources("", &[".rs"]).into_iter().map(|file| (file.text.lines().count(), file.path));
    let long = long.filter(|&(lines, _)| lines > 600);
    none_of(long.map(|(lines, path)| format!("{path}: {lines} lines")).collect(), "split these files");
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let mut places = vec![root()];
    places.extend(std::env::var_os("HOME").map(PathBuf::from));
    // A checkout beside others lies in a folder of somebody's own, unless that is a common one.
    let common = ["/", "/tmp", "/var/tmp", "/home", "/root", "/opt", "/srv", "/usr/src", "/mnt"];
    places
        .extend(root().parent().filter(|up| !common.iter().any(|c| up == &Path::new(c))).map(Path::to_owned));
    let places: Vec<String> = places.iter().map(|place| format!("{}/", place.display())).collect();

    let texts = [".rs", ".toml", ".md", ".sh", ".yaml", ".yml", ".proto", ".tape", ".json", "run"];
    let mut breaches = Vec::new();
    for file in sources("", &texts) {
        for (at, line) in file.text.lines().enumerate() {
            if places.iter().any(|place| place.len() > 2 && line.contains(place.as_str())) {
                breaches.push(format!("{}:{}: {}", file.path, at + 1, line.trim()));
            }
        }
    }
    none_of(breaches, "these lines hold a path of this machine");
}

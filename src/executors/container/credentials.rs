//! Credentials of registries, from the files that `docker login` and `podman login` write. Reads plain entries;
//! programs that keep credentials elsewhere are not asked.

use std::collections::HashMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    identitytoken: Option<String>,
}

/// What Docker's own registry is called in these files.
const DOCKER_HUB: [&str; 4] =
    ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"];

/// The registry of an image's name.
pub(super) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// The credentials of an image's registry: of the entry that names most of it, in the first file that has one.
pub(super) fn find(files: &[PathBuf], image: &str) -> Option<DockerCredentials> {
    files.iter().find_map(|file| of_text(&std::fs::read_to_string(file).ok()?, image))
}

fn of_text(text: &str, image: &str) -> Option<DockerCredentials> {
    let file: File = serde_json::from_str(text).ok()?;
    let registry = registry(image);
    let bare = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        key.split_once("/v").map_or(key, |(host, _)| host).trim_end_matches('/').to_owned()
    };
    let meant = |key: &String| {
        let name = bare(key);
        if registry == "docker.io"
            && (DOCKER_HUB.contains(&key.as_str()) || DOCKER_HUB.contains(&name.as_str()))
        {
            return true;
        }
        name == registry || image.starts_with(&format!("{name}/"))
    };
    let (key, entry) = file.auths.iter().filter(|(key, _)| meant(key)).max_by_key(|(key, _)| key.len())?;
    let plain = String::from_utf8(STANDARD.decode(&entry.auth).ok()?).ok()?;
    let (user, password) = plain.split_once(':').unwrap_or_default();
    Some(DockerCredentials {
        username: Some(user.to_owned()).filter(|user| !user.is_empty()),
        password: Some(password.trim_end_matches('\0').to_owned()).filter(|word| !word.is_empty()),
        identitytoken: entry.identitytoken.clone(),
        serveraddress: Some(key.clone()),
        ..DockerCredentials::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_of_the_images_registry_is_taken() {
        let auth = |text: &str| STANDARD.encode(text);
        let text = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": auth("hub:a")},
            "here:5000": {"auth": auth("me:p:w")},
            "here:5000/team": {"auth": auth("team:t")},
        }})
        .to_string();
        let user = |image: &str| of_text(&text, image).and_then(|one| Some((one.username?, one.password?)));
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(user("busybox:1"), pair("hub", "a"));
        assert_eq!(user("here:5000/x:1"), pair("me", "p:w"));
        assert_eq!(user("here:5000/team/x"), pair("team", "t"));
        assert_eq!(user("there/x.y:1"), pair("hub", "a"));
        assert_eq!(user("there.example/x"), None);
        assert!(of_text("no json", "x").is_none());
    }
}

//! Names of container images: `[REGISTRY/]NAME[:TAG][@DIGEST]`. Asks no engine and no registry.

use crate::document::shown;

/// Bytes of a reference.
pub(super) const MAX_BYTES: usize = 512;
/// What to write instead.
pub(super) const REMEDY: &str =
    "write [REGISTRY/]NAME[:TAG][@sha256:DIGEST], such as nginx:1.27 or registry.example:5000/shop/web:3";

/// The digests that engines know, with the number of their digits.
const DIGESTS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// A reference as it was written, if it is one.
pub(super) fn image(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("{} is not an image: {why}", shown(text)));
    if text.is_empty() {
        return Err("the image has no name".to_owned());
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return wrong("a blank or control character is in it");
    }
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return wrong("what follows @ is no digest");
    }
    // A colon before the last slash is a registry's port.
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return wrong("its tag is not one to 128 letters, digits, _, . and -");
    }
    let (registry, path) = match repository.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), path),
        _ => (None, repository),
    };
    if registry.is_some_and(|registry| !is_registry(registry)) {
        return wrong("its registry is no host with a port");
    }
    if path.chars().any(char::is_uppercase) {
        return wrong("a repository has no upper-case letters");
    }
    if !path.split('/').all(is_component) {
        return wrong("its repository is not made of lower-case letters and digits, with ., _ or - between");
    }
    Ok(text.to_owned())
}

fn is_digest(text: &str) -> bool {
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    text.split_once(':').is_some_and(|(algorithm, digits)| {
        DIGESTS.contains(&(algorithm, digits.len())) && digits.bytes().all(hex)
    })
}

fn is_tag(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn is_registry(text: &str) -> bool {
    let port = |text: &str| !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    let (host, number) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let number = rest.strip_prefix(':');
            return address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
                && (rest.is_empty() || number.is_some_and(port));
        }
        None => text.split_once(':').map_or((text, None), |(host, number)| (host, Some(number))),
    };
    let part = |part: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !part.is_empty() && !part.starts_with('-') && !part.ends_with('-') && part.chars().all(good)
    };
    host.split('.').all(part) && number.is_none_or(port)
}

/// Letters and digits, with one dot, one or two underscores or any number of hyphens between them.
fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let between = text.split(word).filter(|between| !between.is_empty());
    let good = |between: &str| matches!(between, "." | "_" | "__") || between.chars().all(|c| c == '-');
    text.starts_with(word) && text.ends_with(word) && between.into_iter().all(good)
}

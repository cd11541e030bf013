//! What the operator wishes of every cockpit: theme and keys, from `cockpit.toml` in Quorate's XDG config
//! folder. A file that cannot be used is an error that names its place; no file is no wish.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::api::error::{ApiError, ErrorCode};
use crate::places::config_home;

/// More than any wish takes.
const MOST_BYTES: u64 = 64 << 10;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wishes {
    /// A built-in theme's name; `QUORATE_THEME` outranks it.
    pub(super) theme: String,
    /// Commands by name, each with its keys in place of the built-in ones.
    keys: BTreeMap<String, Keys>,
}

/// One key or several; none takes the command's keys away.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Keys {
    One(String),
    Several(Vec<String>),
}

impl Wishes {
    /// The operator's own, of this account.
    pub(super) fn read() -> Result<Self, ApiError> {
        config_home().map_or_else(|| Ok(Self::default()), |home| Self::of(&home.join("cockpit.toml")))
    }

    fn of(path: &Path) -> Result<Self, ApiError> {
        let wrong = |why: String| {
            let remedy = format!("mend {} or move it away", path.display());
            ApiError::new(ErrorCode::Usage, why, remedy)
        };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Ok(found) if found.len() > MOST_BYTES => {
                return Err(wrong(format!("{} has more than {MOST_BYTES} bytes", path.display())));
            }
            Ok(_) | Err(_) => {}
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| wrong(format!("{} cannot be read: {error}", path.display())))?;
        toml::from_str(&text).map_err(|error| {
            wrong(format!("{} is no cockpit file: {}", path.display(), error.to_string().trim()))
        })
    }

    /// Commands and their keys, as the cockpit takes them.
    pub(super) fn keys(self) -> Vec<(String, Vec<String>)> {
        let list = |keys| match keys {
            Keys::One(key) => vec![key],
            Keys::Several(keys) => keys,
        };
        self.keys.into_iter().map(|(name, keys)| (name, list(keys))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Wishes, ApiError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cockpit.toml");
        std::fs::write(&path, text).unwrap();
        Wishes::of(&path)
    }

    #[test]
    fn keys_are_one_or_several_and_a_theme_is_named() {
        let wishes = of("theme = \"light\"\n[keys]\ndrain = \"ctrl-d\"\nfence = [\"F\", \"g f\"]\n").unwrap();
        assert_eq!(wishes.theme, "light");
        let keys = wishes.keys();
        assert_eq!(keys[0], ("drain".to_owned(), vec!["ctrl-d".to_owned()]));
        assert_eq!(keys[1], ("fence".to_owned(), vec!["F".to_owned(), "g f".to_owned()]));
    }

    #[test]
    fn an_unknown_entry_is_named_with_its_line() {
        let error = of("themes = \"light\"\n").unwrap_err();
        assert!(error.message.contains("line 1") && error.message.contains("themes"), "{}", error.message);
        assert!(error.remedy.contains("cockpit.toml"), "{}", error.remedy);
    }

    #[test]
    fn no_file_is_no_wish() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Wishes::of(&dir.path().join("none.toml")).unwrap().keys().is_empty());
    }
}

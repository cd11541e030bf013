//! Writes values as YAML that reads back the same, and flattens them for comparison. Knows nothing of
//! what they mean.

/// A value to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outline {
    /// A text.
    Text(String),
    /// A number or truth value: never quoted.
    Bare(String),
    /// A list on one line.
    List(Vec<Outline>),
    /// Keys in order; an empty map is not written at all.
    Map(Vec<(String, Outline)>),
}

/// A text.
pub fn text(value: impl ToString) -> Outline {
    Outline::Text(value.to_string())
}

/// A list of texts.
pub fn list(values: &[String]) -> Outline {
    Outline::List(values.iter().map(text).collect())
}

impl Outline {
    /// As YAML; a map in lines, a list on one.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        match self {
            Outline::Map(pairs) => write_map(pairs, 0, &mut out),
            other => {
                out.push_str(&other.on_one_line());
                out.push('\n');
            }
        }
        out
    }

    /// As YAML on one line.
    pub fn on_one_line(&self) -> String {
        match self {
            Outline::Text(text) => quoted(text),
            Outline::Bare(text) => text.clone(),
            Outline::List(items) => {
                format!("[{}]", items.iter().map(Outline::on_one_line).collect::<Vec<_>>().join(", "))
            }
            Outline::Map(pairs) => {
                let pairs =
                    pairs.iter().map(|(key, value)| format!("{}: {}", quoted(key), value.on_one_line()));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Every leaf with its path, in order; a list is one leaf.
    pub fn leaves(&self) -> Vec<(String, String)> {
        let mut leaves = Vec::new();
        self.collect("", &mut leaves);
        leaves
    }

    fn collect(&self, path: &str, leaves: &mut Vec<(String, String)>) {
        let Outline::Map(pairs) = self else {
            leaves.push((path.to_owned(), self.on_one_line()));
            return;
        };
        for (key, value) in pairs {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            value.collect(&below, leaves);
        }
    }
}

fn write_map(pairs: &[(String, Outline)], indent: usize, out: &mut String) {
    for (key, value) in pairs {
        match value {
            Outline::Map(inner) if inner.is_empty() => {}
            Outline::Map(inner) => {
                out.push_str(&format!("{:indent$}{}:\n", "", quoted(key)));
                write_map(inner, indent + 2, out);
            }
            other => {
                out.push_str(&format!("{:indent$}{}: {}\n", "", quoted(key), other.on_one_line()));
            }
        }
    }
}

/// Plain where nothing could misread it, else as a JSON text, which YAML reads too.
fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_./-@+".contains(c));
    let word = text.to_ascii_lowercase();
    let reserved = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"].contains(&word.as_str());
    if plain && !reserved {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // YAML lets the rest of a line end or a mark of byte order through, but readers differ.
            c if c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) || c == '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

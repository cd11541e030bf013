//! How things look: roles become styles by a theme, the terminal's depth of colour and its character
//! set. Does not know what is drawn with them.

use ratatui::style::{Color, Modifier, Style};
use serde::Deserialize;

/// The themes inside the binary.
const EMBEDDED: [&str; 4] = [
    include_str!("../../themes/dark.toml"),
    include_str!("../../themes/light.toml"),
    include_str!("../../themes/contrast.toml"),
    include_str!("../../themes/safe.toml"),
];

/// What a piece of text means; the theme decides what that looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Base,
    Dim,
    Title,
    Rule,
    Selected,
    Ok,
    Notice,
    Warning,
    Critical,
    Inferred,
    Key,
    Header,
    Alert,
    Input,
    Accent,
}

const ROLES: usize = 15;

/// How many colours the terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// None: weight, reverse and words only.
    Mono,
    /// The sixteen named ones.
    Sixteen,
    /// The palette of 256.
    Indexed,
    /// 24 bits.
    True,
}

/// What the surroundings say of the terminal; read once, at the edge.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `TERM`.
    pub term: String,
    /// `COLORTERM`.
    pub colorterm: String,
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    /// `LC_ALL`, `LC_CTYPE` or `LANG`, the first that is set.
    pub locale: String,
    /// `QUORATE_THEME`, empty for the default.
    pub theme: String,
    /// `QUORATE_ASCII` is set and not empty.
    pub ascii: bool,
}

impl Surroundings {
    fn depth(&self) -> Depth {
        if self.no_color || self.term == "dumb" {
            Depth::Mono
        } else if matches!(self.colorterm.as_str(), "truecolor" | "24bit") || self.term.ends_with("-direct") {
            Depth::True
        } else if self.term.contains("256color") {
            Depth::Indexed
        } else {
            Depth::Sixteen
        }
    }

    fn unicode(&self) -> bool {
        let locale = self.locale.to_ascii_lowercase();
        !self.ascii && self.term != "linux" && (locale.contains("utf-8") || locale.contains("utf8"))
    }
}

/// The characters used, each one column wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glyphs {
    pub ok: &'static str,
    pub notice: &'static str,
    pub warning: &'static str,
    pub critical: &'static str,
    pub horizontal: &'static str,
    pub vertical: &'static str,
    pub corners: [&'static str; 4],
    pub cursor: &'static str,
    pub marked: &'static str,
    pub full: &'static str,
    pub empty: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub cut: &'static str,
    pub child: &'static str,
    pub separator: &'static str,
}

const UNICODE: Glyphs = Glyphs {
    ok: "✓",
    notice: "•",
    warning: "!",
    critical: "✗",
    horizontal: "─",
    vertical: "│",
    corners: ["┌", "┐", "└", "┘"],
    cursor: "›",
    marked: "▪",
    full: "█",
    empty: "░",
    up: "↑",
    down: "↓",
    cut: "…",
    child: "└",
    separator: "│",
};

const ASCII: Glyphs = Glyphs {
    ok: "+",
    notice: "*",
    warning: "!",
    critical: "X",
    horizontal: "-",
    vertical: "|",
    corners: ["+", "+", "+", "+"],
    cursor: ">",
    marked: "*",
    full: "#",
    empty: "-",
    up: "^",
    down: "v",
    cut: "~",
    child: "`",
    separator: "|",
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ThemeFile {
    name: String,
    light: bool,
    roles: Roles,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Roles {
    base: Paint,
    dim: Paint,
    title: Paint,
    rule: Paint,
    selected: Paint,
    ok: Paint,
    notice: Paint,
    warning: Paint,
    critical: Paint,
    inferred: Paint,
    key: Paint,
    header: Paint,
    alert: Paint,
    input: Paint,
    accent: Paint,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Paint {
    fg: Option<Ink>,
    bg: Option<Ink>,
    fg16: Option<Ink>,
    bg16: Option<Ink>,
    bold: bool,
    italic: bool,
    underline: bool,
}

/// `#rrggbb`, or one of the sixteen names.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Ink(Color);

impl TryFrom<String> for Ink {
    type Error = String;
    fn try_from(text: String) -> Result<Ink, String> {
        text.parse().map(Ink).map_err(|_| format!("{text:?} is not a colour such as #7ec699 or light_red"))
    }
}

/// A theme made ready for one terminal.
#[derive(Debug, Clone)]
pub struct Theme {
    name: String,
    light: bool,
    depth: Depth,
    styles: [Style; ROLES],
    pub(crate) glyphs: Glyphs,
}

/// Why a theme cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ThemeError {
    /// Its text is not a theme.
    #[error("theme is not readable: {0}; compare it with themes/dark.toml")]
    Form(#[from] toml::de::Error),
    /// Nobody knows it.
    #[error("no theme is called {name:?}; there are {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// All that are built in.
        known: String,
    },
}

impl Theme {
    /// Reads a theme's text for a terminal.
    pub fn parse(text: &str, depth: Depth, unicode: bool) -> Result<Theme, ThemeError> {
        let file: ThemeFile = toml::from_str(text)?;
        let roles = &file.roles;
        let paints = [
            (&roles.base, Role::Base),
            (&roles.dim, Role::Dim),
            (&roles.title, Role::Title),
            (&roles.rule, Role::Rule),
            (&roles.selected, Role::Selected),
            (&roles.ok, Role::Ok),
            (&roles.notice, Role::Notice),
            (&roles.warning, Role::Warning),
            (&roles.critical, Role::Critical),
            (&roles.inferred, Role::Inferred),
            (&roles.key, Role::Key),
            (&roles.header, Role::Header),
            (&roles.alert, Role::Alert),
            (&roles.input, Role::Input),
            (&roles.accent, Role::Accent),
        ];
        let mut styles = [Style::new(); ROLES];
        for (paint, role) in paints {
            styles[role as usize] = style(paint, role, depth);
        }
        let glyphs = if unicode { UNICODE } else { ASCII };
        Ok(Theme { name: file.name, light: file.light, depth, styles, glyphs })
    }

    /// The theme the surroundings ask for.
    pub fn detect(around: &Surroundings) -> Result<Theme, ThemeError> {
        let wanted = if around.theme.is_empty() { "dark" } else { around.theme.as_str() };
        Theme::named(wanted, around.depth(), around.unicode())
    }

    /// A built-in theme.
    pub fn named(name: &str, depth: Depth, unicode: bool) -> Result<Theme, ThemeError> {
        for text in EMBEDDED {
            let theme = Theme::parse(text, depth, unicode)?;
            if theme.name == name {
                return Ok(theme);
            }
        }
        Err(ThemeError::Unknown { name: name.to_owned(), known: Theme::names().join(", ") })
    }

    /// The names of all built-in themes.
    pub fn names() -> Vec<String> {
        EMBEDDED
            .iter()
            .filter_map(|text| Theme::parse(text, Depth::Mono, false).ok())
            .map(|theme| theme.name)
            .collect()
    }

    /// The built-in theme after this one, for the same terminal.
    pub(crate) fn next(&self) -> Theme {
        let names = Theme::names();
        let at = names.iter().position(|name| *name == self.name).map_or(0, |at| (at + 1) % names.len());
        let unicode = self.glyphs == UNICODE;
        Theme::named(&names[at], self.depth, unicode).unwrap_or_else(|_| self.clone())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Made for a light background?
    pub fn light(&self) -> bool {
        self.light
    }

    pub(crate) fn style(&self, role: Role) -> Style {
        self.styles[role as usize]
    }
}

fn style(paint: &Paint, role: Role, depth: Depth) -> Style {
    let mut style = Style::new();
    let (fg, bg) = match depth {
        Depth::Mono => (None, None),
        Depth::Sixteen => (paint.fg16, paint.bg16),
        Depth::Indexed => (paint.fg.map(indexed), paint.bg.map(indexed)),
        Depth::True => (paint.fg, paint.bg),
    };
    style.fg = fg.map(|ink| ink.0);
    style.bg = bg.map(|ink| ink.0);
    let reversed = depth == Depth::Mono && matches!(role, Role::Selected | Role::Header | Role::Alert);
    let faint = depth == Depth::Mono && matches!(role, Role::Dim | Role::Inferred);
    for (on, modifier) in [
        (paint.bold, Modifier::BOLD),
        (paint.italic, Modifier::ITALIC),
        (paint.underline || (depth == Depth::Mono && role == Role::Input), Modifier::UNDERLINED),
        (reversed, Modifier::REVERSED),
        (faint, Modifier::DIM),
    ] {
        if on {
            style = style.add_modifier(modifier);
        }
    }
    style
}

/// The nearest of the 6x6x6 cube and the 24 greys.
fn indexed(ink: Ink) -> Ink {
    let Color::Rgb(r, g, b) = ink.0 else { return ink };
    let level = |c: u8| if c < 48 { 0 } else { ((u16::from(c).saturating_sub(35)) / 40).min(5) as u8 };
    let value = |l: u8| if l == 0 { 0i32 } else { 55 + 40 * i32::from(l) };
    let far = |x: i32, y: i32, z: i32| {
        let (dr, dg, db) = (x - i32::from(r), y - i32::from(g), z - i32::from(b));
        dr * dr + dg * dg + db * db
    };
    let (lr, lg, lb) = (level(r), level(g), level(b));
    let mean = (u16::from(r) + u16::from(g) + u16::from(b)) / 3;
    let grey = (mean.saturating_sub(3) / 10).min(23) as u8;
    let shade = 8 + 10 * i32::from(grey);
    if far(shade, shade, shade) < far(value(lr), value(lg), value(lb)) {
        Ink(Color::Indexed(232 + grey))
    } else {
        Ink(Color::Indexed(16 + 36 * lr + 6 * lg + lb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_theme_reads_and_differs_by_name() {
        let names = Theme::names();
        assert_eq!(names, ["dark", "light", "contrast", "safe"]);
        assert!(Theme::named("light", Depth::True, true).is_ok_and(|theme| theme.light()));
        assert!(Theme::named("none", Depth::True, true).is_err());
    }

    #[test]
    fn without_colour_no_role_has_one_and_selection_still_shows() -> Result<(), ThemeError> {
        let around =
            Surroundings { no_color: true, term: "xterm-256color".into(), ..Surroundings::default() };
        let theme = Theme::detect(&around)?;
        assert!(theme.styles.iter().all(|style| style.fg.is_none() && style.bg.is_none()));
        assert!(theme.style(Role::Selected).add_modifier.contains(Modifier::REVERSED));
        assert_eq!(theme.glyphs, ASCII, "a locale that promises nothing gets ASCII");
        Ok(())
    }

    #[test]
    fn every_glyph_is_one_column_wide() {
        use unicode_width::UnicodeWidthStr;
        for glyphs in [UNICODE, ASCII] {
            let all = [
                glyphs.ok,
                glyphs.notice,
                glyphs.warning,
                glyphs.critical,
                glyphs.horizontal,
                glyphs.vertical,
                glyphs.cursor,
                glyphs.marked,
                glyphs.full,
                glyphs.empty,
                glyphs.up,
                glyphs.down,
                glyphs.cut,
                glyphs.child,
                glyphs.separator,
            ];
            for glyph in all.iter().chain(&glyphs.corners) {
                assert_eq!(glyph.width(), 1, "{glyph:?}");
            }
        }
    }

    #[test]
    fn colours_fall_to_the_nearest_of_the_palette() {
        assert_eq!(indexed(Ink(Color::Rgb(255, 0, 0))).0, Color::Indexed(196));
        assert_eq!(indexed(Ink(Color::Rgb(18, 22, 28))).0, Color::Indexed(233));
        assert_eq!(indexed(Ink(Color::Rgb(255, 255, 255))).0, Color::Indexed(231));
    }
}

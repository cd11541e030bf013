//! All commands with their keys, made from the registry: those that work here first.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Popup, scrolled};
use crate::app::App;
use crate::canvas::{Canvas, centred};
use crate::commands::{self, Entry, SIM};
use crate::keymap::Chord;
use crate::msg::Out;
use crate::theme::Role;
use crate::words;

/// Where help was opened.
#[derive(Debug)]
pub(crate) struct Help {
    /// What applied there.
    pub context: u16,
    pub scroll: usize,
}

pub(crate) fn key(app: &mut App, mut help: Help, chord: Chord) -> Vec<Out> {
    let area = place(app.size);
    let lines = lines(app, &help).len();
    if let Some(scroll) = scrolled(help.scroll, chord, usize::from(area.height.saturating_sub(2)), lines) {
        help.scroll = scroll;
        app.popups.push(Popup::Help(help));
    } else if !["esc", "q", "?", "enter"].iter().any(|name| chord.is(name)) {
        app.popups.push(Popup::Help(help));
    }
    Vec::new()
}

/// Below this width names give way to what a command does.
const NAMES_FROM: u16 = 100;

fn place(size: (u16, u16)) -> Rect {
    centred(Rect { x: 0, y: 0, width: size.0, height: size.1 }, 100, size.1.saturating_sub(2))
}

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, help: &Help) {
    let lines = lines(app, help);
    let full = place(app.size).intersection(area);
    let title = "HELP   j/k scroll, esc closes";
    let inner = canvas.boxed(full, title, Role::Accent);
    canvas.lines(inner, &lines, help.scroll);
}

fn lines(app: &App, help: &Help) -> Vec<Line<'static>> {
    // A simulated cluster is steered and never changed; any other is never steered.
    let sim = help.context & SIM != 0;
    let known = commands::ALL.iter().filter(|entry| SIM & if sim { entry.without } else { entry.needs } == 0);
    let (here, elsewhere): (Vec<&Entry>, Vec<&Entry>) = known.partition(|entry| entry.applies(help.context));
    let mut out = vec![heading(app, "HERE")];
    out.extend(here.into_iter().flat_map(|entry| line(app, entry)));
    out.push(Line::default());
    out.push(heading(app, "ELSEWHERE (on a row of the right kind)"));
    out.extend(elsewhere.into_iter().flat_map(|entry| line(app, entry)));
    out.push(Line::default());
    out.push(heading(app, "SIGNS"));
    let g = app.theme.glyphs;
    for text in [
        format!(
            "{} as it should be   {} worth knowing   {} waits or is less safe   {} does not run",
            g.ok, g.notice, g.warning, g.critical
        ),
        "? and a dim style: not observed from here, but inferred from what was last heard".to_owned(),
        format!("theme {}; NO_COLOR and QUORATE_ASCII are obeyed", app.theme.name()),
    ] {
        out.push(Line::styled(format!("  {text}"), app.theme.style(Role::Base)));
    }
    out
}

fn heading(app: &App, text: &str) -> Line<'static> {
    Line::styled(text.to_owned(), app.theme.style(Role::Title))
}

fn line(app: &App, entry: &'static Entry) -> Vec<Line<'static>> {
    let keys = app.keymap.keys_of(entry.cmd).join(", ");
    let risk = entry.risk.words();
    let risk = if risk.is_empty() { String::new() } else { format!(" ({risk})") };
    let wide = app.size.0 >= NAMES_FROM;
    let name = if wide { format!("{:<16} ", entry.name) } else { String::new() };
    let room = usize::from(place(app.size).width).saturating_sub(24 + name.len());
    let mut out = Vec::new();
    for (at, text) in words::wrap(&format!("{}{risk}", entry.help), room).into_iter().enumerate() {
        let keys = if at == 0 { keys.as_str() } else { "" };
        let shown = if at == 0 { name.clone() } else { " ".repeat(name.len()) };
        out.push(Line::from(vec![
            Span::styled(format!("  {keys:<18}"), app.theme.style(Role::Key)),
            Span::styled(shown, app.theme.style(Role::Title)),
            Span::styled(text, app.theme.style(Role::Base)),
        ]));
    }
    out
}

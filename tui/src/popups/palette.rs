//! The palette: any command, node or service by a part of its name.

use crossterm::event::{KeyCode, KeyEvent};
use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::Popup;
use crate::app::{App, Screen};
use crate::canvas::{Canvas, centred};
use crate::commands::{self, Cmd, Entry};
use crate::input::Input;
use crate::keymap::Chord;
use crate::msg::Out;
use crate::theme::Role;
use crate::update;

/// Objects offered beside the commands.
const MOST_OBJECTS: usize = 2_000;
const SHOWN: usize = 12;

/// The palette on screen.
#[derive(Debug)]
pub(crate) struct Palette {
    input: Input,
    at: usize,
    items: Vec<Item>,
    /// Indexes of items, best first.
    found: Vec<usize>,
}

#[derive(Debug)]
enum Item {
    Command(&'static Entry),
    Go(Screen, String),
}

impl Item {
    fn words(&self) -> String {
        match self {
            Item::Command(entry) => format!("{} {}", entry.name, entry.help),
            Item::Go(_, name) => name.clone(),
        }
    }
}

impl Palette {
    pub fn new(app: &App) -> Palette {
        let hidden = [Cmd::Palette, Cmd::Up, Cmd::Down, Cmd::Top, Cmd::Bottom, Cmd::PageUp, Cmd::PageDown];
        let context = app.context();
        let mut items: Vec<Item> = commands::ALL
            .iter()
            .filter(|entry| entry.applies(context) && !hidden.contains(&entry.cmd))
            .map(Item::Command)
            .collect();
        if let Some(view) = &app.view {
            let nodes = view.nodes.keys().map(|n| Item::Go(Screen::Node(n.clone()), format!("node {n}")));
            let services =
                view.services.keys().map(|s| Item::Go(Screen::Service(s.clone()), format!("service {s}")));
            items.extend(nodes.take(MOST_OBJECTS));
            items.extend(services.take(MOST_OBJECTS));
        }
        let mut palette = Palette { input: Input::default(), at: 0, items, found: Vec::new() };
        palette.search();
        palette
    }

    pub fn paste(&mut self, text: &str) {
        self.input.paste(text);
        self.search();
    }

    fn search(&mut self) {
        self.at = 0;
        if self.input.text().trim().is_empty() {
            self.found = (0..self.items.len()).collect();
            return;
        }
        let pattern = Pattern::parse(self.input.text(), CaseMatching::Ignore, Normalization::Smart);
        let mut matcher = Matcher::new(Config::DEFAULT);
        let mut buffer = Vec::new();
        let mut scored: Vec<(u32, usize)> = Vec::new();
        for (at, item) in self.items.iter().enumerate() {
            let words = item.words();
            let Some(score) = pattern.score(Utf32Str::new(&words, &mut buffer), &mut matcher) else {
                continue;
            };
            // What a command is called counts before what its help happens to mention.
            let named = words.starts_with(self.input.text().trim());
            scored.push((score + if named { 1_000 } else { 0 }, at));
        }
        scored.sort_by_key(|(score, at)| (std::cmp::Reverse(*score), *at));
        self.found = scored.into_iter().map(|(_, at)| at).collect();
    }
}

pub(crate) fn key(app: &mut App, mut palette: Palette, key: KeyEvent) -> Vec<Out> {
    let chord = Chord::from(key);
    match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Enter => {
            let chosen = palette.found.get(palette.at).map(|at| &palette.items[*at]);
            return match chosen {
                Some(Item::Command(entry)) => update::run(app, entry.cmd, chord),
                Some(Item::Go(screen, _)) => {
                    update::go(app, screen.clone());
                    Vec::new()
                }
                None => Vec::new(),
            };
        }
        KeyCode::Down | KeyCode::Tab => {
            palette.at = (palette.at + 1).min(palette.found.len().saturating_sub(1));
        }
        KeyCode::Up | KeyCode::BackTab => palette.at = palette.at.saturating_sub(1),
        _ => {
            if palette.input.key(key) {
                palette.search();
            }
        }
    }
    app.popups.push(Popup::Palette(palette));
    Vec::new()
}

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, palette: &Palette) {
    let full = centred(area, 90, SHOWN as u16 + 3);
    let inner = canvas.boxed(full, "COMMANDS   enter runs, esc closes", Role::Accent);
    let prompt = Line::from(vec![
        canvas.span(": ", Role::Key),
        canvas.span(palette.input.text().to_owned(), Role::Title),
    ]);
    canvas.line(inner, 0, &prompt);
    canvas.place_cursor(inner, 0, palette.input.column() + 2);
    let rows = usize::from(inner.height.saturating_sub(1));
    let skip = palette.at.saturating_sub(rows.saturating_sub(1));
    if palette.found.is_empty() {
        canvas.text(inner, 1, "nothing that works here is called so; ? lists everything", Role::Dim);
    }
    for (row, found) in palette.found.iter().skip(skip).take(rows).enumerate() {
        let line = item_line(canvas, app, &palette.items[*found]);
        canvas.line(inner, row as u16 + 1, &line);
        if skip + row == palette.at {
            let bar = Rect { y: inner.y + row as u16 + 1, height: 1, ..inner };
            canvas.tint(bar, Role::Selected);
        }
    }
}

fn item_line(canvas: &Canvas<'_>, app: &App, item: &Item) -> Line<'static> {
    match item {
        Item::Command(entry) => {
            let keys = app.keymap.keys_of(entry.cmd).into_iter().next().unwrap_or_default();
            Line::from(vec![
                canvas.span(format!("{:<16} ", entry.name), Role::Title),
                canvas.span(format!("{keys:<9} "), Role::Key),
                canvas.span(entry.help, Role::Dim),
            ])
        }
        Item::Go(_, name) => Line::from(canvas.span(name.clone(), Role::Base)),
    }
}

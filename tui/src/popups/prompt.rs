//! One line that is asked for at the bottom of the screen: a filter, a search, a number of copies.

use crossterm::event::{KeyCode, KeyEvent};
use quorate_core::ids::ServiceName;
use quorate_core::view::Level;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::Popup;
use crate::actions;
use crate::app::App;
use crate::canvas::Canvas;
use crate::input::Input;
use crate::keymap::Chord;
use crate::msg::Out;
use crate::theme::Role;

/// What the line is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum For {
    /// Narrows the focused table while it is typed; the filter before it comes back with esc.
    Filter {
        before: String,
    },
    Search {
        before: String,
    },
    Scale {
        service: ServiceName,
        now: u32,
    },
}

/// A line being asked for.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub what: For,
    pub input: Input,
}

pub(crate) fn key(app: &mut App, mut prompt: Prompt, key: KeyEvent) -> Vec<Out> {
    match key.code {
        KeyCode::Esc => {
            let before = match &prompt.what {
                For::Filter { before } | For::Search { before } => before.clone(),
                For::Scale { .. } => return Vec::new(),
            };
            prompt.input = Input::holding(&before);
            live(app, &prompt);
            Vec::new()
        }
        KeyCode::Enter => enter(app, prompt, Chord::from(key)),
        _ => {
            if prompt.input.key(key) {
                live(app, &prompt);
            }
            app.popups.push(Popup::Prompt(prompt));
            Vec::new()
        }
    }
}

fn enter(app: &mut App, prompt: Prompt, chord: Chord) -> Vec<Out> {
    match &prompt.what {
        For::Filter { .. } => Vec::new(),
        For::Search { .. } => {
            if !prompt.input.text().is_empty() && !app.logs.search_next(true) {
                app.say(Level::Notice, format!("no older line with {:?}", prompt.input.text()));
            }
            Vec::new()
        }
        For::Scale { service, .. } => match prompt.input.text().trim().parse::<u32>() {
            Ok(replicas) => {
                actions::ask_scale(app, service.clone(), replicas, chord);
                Vec::new()
            }
            Err(_) => {
                app.say(Level::Warning, format!("{:?} is not a number of copies", prompt.input.text()));
                app.popups.push(Popup::Prompt(prompt));
                Vec::new()
            }
        },
    }
}

/// Filters and searches work while they are typed.
fn live(app: &mut App, prompt: &Prompt) {
    match &prompt.what {
        For::Filter { .. } => {
            let text = prompt.input.text().to_owned();
            if let Some(table) = app.focused_mut() {
                table.set_filter(&text);
            }
            app.refresh();
        }
        For::Search { .. } => app.logs.search = prompt.input.text().to_owned(),
        For::Scale { .. } => {}
    }
}

/// After a paste the filter or search is what the line says now.
pub(crate) fn pasted(app: &mut App) {
    if let Some(Popup::Prompt(prompt)) = app.popups.pop_if(|popup| matches!(popup, Popup::Prompt(_))) {
        live(app, &prompt);
        app.popups.push(Popup::Prompt(prompt));
    }
}

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, prompt: &Prompt) {
    if area.height == 0 {
        return;
    }
    let bar = Rect { y: area.y + area.height - 1, height: 1, ..area };
    let (label, hint) = match &prompt.what {
        For::Filter { .. } => ("/".to_owned(), "   words, column:word, !not   enter keeps, esc restores"),
        For::Search { .. } => ("search: ".to_owned(), "   enter finds older, n/N go on, esc ends"),
        For::Scale { service, now } => {
            (format!("copies of {service} (now {now}): "), "   enter goes on, esc cancels")
        }
    };
    canvas.fill(bar, Role::Input);
    let column = label.len() + prompt.input.column();
    let line = Line::from(vec![
        canvas.span(label, Role::Key),
        canvas.span(prompt.input.text().to_owned(), Role::Title),
        canvas.span(hint, Role::Dim),
    ]);
    canvas.line(bar, 0, &line);
    canvas.place_cursor(bar, 0, column);
}

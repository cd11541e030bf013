//! What lies over a screen and takes all keys while it does: answers, questions, the editor. Nothing
//! typed into one ever reaches the screen below.

pub(crate) mod dialog;
pub(crate) mod editor;
pub(crate) mod fence;
pub(crate) mod help;
pub(crate) mod palette;
pub(crate) mod picker;
pub(crate) mod prompt;
pub(crate) mod which;
pub(crate) mod why;

use crossterm::event::KeyEvent;
use ratatui::layout::Rect;

use crate::app::App;
use crate::canvas::Canvas;
use crate::keymap::Chord;
use crate::msg::Out;

/// One popup.
#[derive(Debug)]
pub(crate) enum Popup {
    Why(why::Why),
    Help(help::Help),
    Palette(palette::Palette),
    Prompt(prompt::Prompt),
    Picker(picker::Picker),
    Dialog(Box<dialog::Dialog>),
    Editor(Box<editor::Editor>),
}

/// Gives a key to the topmost popup.
pub(crate) fn key(app: &mut App, key: KeyEvent) -> Vec<Out> {
    let chord = Chord::from(key);
    let Some(popup) = app.popups.pop() else { return Vec::new() };
    match popup {
        Popup::Why(why) => why::key(app, why, chord),
        Popup::Help(help) => help::key(app, help, chord),
        Popup::Palette(palette) => palette::key(app, palette, key),
        Popup::Prompt(prompt) => prompt::key(app, prompt, key),
        Popup::Picker(picker) => picker::key(app, picker, chord),
        Popup::Dialog(dialog) => dialog::key(app, dialog, key),
        Popup::Editor(editor) => editor::key(app, editor, key),
    }
}

/// Gives pasted text to the topmost popup.
pub(crate) fn paste(app: &mut App, text: &str) {
    match app.popups.last_mut() {
        Some(Popup::Palette(palette)) => palette.paste(text),
        Some(Popup::Prompt(prompt)) => prompt.input.paste(text),
        Some(Popup::Dialog(dialog)) => dialog.paste(text),
        Some(Popup::Editor(editor)) => editor.paste(text, app.now_ms, &app.settings.spec_defaults),
        Some(Popup::Why(_) | Popup::Help(_) | Popup::Picker(_)) | None => {}
    }
    prompt::pasted(app);
}

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    for popup in &app.popups {
        canvas.cursor = None;
        match popup {
            Popup::Why(why) => why::draw(canvas, area, app, why),
            Popup::Help(help) => help::draw(canvas, area, app, help),
            Popup::Palette(palette) => palette::draw(canvas, area, app, palette),
            Popup::Prompt(prompt) => prompt::draw(canvas, area, prompt),
            Popup::Picker(picker) => picker::draw(canvas, area, picker),
            Popup::Dialog(dialog) => dialog::draw(canvas, area, app, dialog),
            Popup::Editor(editor) => editor::draw(canvas, area, app, editor),
        }
    }
    if app.popups.is_empty() && !app.pending.is_empty() {
        which::draw(canvas, area, app);
    }
}

/// Moves a scroll position by the usual keys; `None` when the key is another.
pub(crate) fn scrolled(scroll: usize, chord: Chord, page: usize, lines: usize) -> Option<usize> {
    let most = lines.saturating_sub(page);
    let is = |names: &[&str]| names.iter().any(|name| chord.is(name));
    let to = if is(&["j", "down"]) {
        scroll + 1
    } else if is(&["k", "up"]) {
        scroll.saturating_sub(1)
    } else if is(&["pagedown", "ctrl-d", "space"]) {
        scroll + page.max(2) / 2
    } else if is(&["pageup", "ctrl-u"]) {
        scroll.saturating_sub(page.max(2) / 2)
    } else if is(&["g", "home"]) {
        0
    } else if is(&["G", "end"]) {
        most
    } else {
        return None;
    };
    Some(to.min(most))
}

//! The question before anything is changed: exactly what will be done, on which evidence, what happens
//! otherwise, whether there is a way back. Cancel is the default; enter never confirms, nor does the key
//! that opened it.

use crossterm::event::KeyEvent;
use quorate_core::command::Command;
use quorate_core::ids::{NodeId, Revision};
use quorate_core::view::Level;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::{Popup, fence};
use crate::actions;
use crate::app::App;
use crate::canvas::{Canvas, centred, split_top};
use crate::commands::Risk;
use crate::input::Input;
use crate::keymap::Chord;
use crate::msg::{DemoAction, Out};
use crate::popups::why::section;
use crate::theme::Role;
use crate::words;

/// A typed name counts this long.
const ARMED_MS: u64 = 15_000;

/// One thing that is done on confirmation, and nothing else is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Deed {
    Command {
        what: String,
        command: Box<Command>,
    },
    /// Needs the reason that is typed.
    Fence(NodeId),
    Attest(NodeId),
    Demo(DemoAction, NodeId),
    Leave,
    Quit,
}

/// A question.
#[derive(Debug, Clone)]
pub(crate) struct Dialog {
    pub title: String,
    pub risk: Risk,
    /// The key that opened it never confirms it.
    pub opened_by: Chord,
    pub deeds: Vec<Deed>,
    /// The revision all of it was read from; what is submitted is bound to it.
    pub expected: Option<Revision>,
    /// What has to be typed, for the upper tiers.
    pub name: String,
    /// Headed lists: what will be done, evidence, what happens otherwise, the way back.
    pub parts: Vec<(String, Vec<(String, Role)>)>,
    pub typed: Input,
    pub reason: Input,
    pub in_reason: bool,
    pub scroll: usize,
    pub armed_ms: Option<u64>,
    /// Comes from the editor, which then closes with it.
    pub from_editor: bool,
    /// For a fencing: what the planner makes of it.
    pub fence: Option<fence::Ask>,
    /// Why it cannot be confirmed, whatever is typed.
    hindrance: Option<String>,
}

impl Dialog {
    pub fn new(title: impl Into<String>, risk: Risk, opened_by: Chord, deeds: Vec<Deed>) -> Dialog {
        Dialog {
            title: title.into(),
            risk,
            opened_by,
            deeds,
            expected: None,
            name: String::new(),
            parts: Vec::new(),
            typed: Input::default(),
            reason: Input::default(),
            in_reason: false,
            scroll: 0,
            armed_ms: None,
            from_editor: false,
            fence: None,
            hindrance: None,
        }
    }

    pub fn part(mut self, heading: &str, items: Vec<(String, Role)>) -> Dialog {
        if !items.is_empty() {
            self.parts.push((heading.to_owned(), items));
        }
        self
    }

    fn types(&self) -> bool {
        matches!(self.risk, Risk::Name | Risk::NameReason)
    }

    fn complete(&self) -> bool {
        let reason = self.risk != Risk::NameReason || self.reason.text().trim().len() >= 3;
        self.typed.text() == self.name && reason && self.hindrance.is_none()
    }

    pub fn paste(&mut self, text: &str) {
        // A pasted name would defeat the typing; a pasted reason is welcome.
        if self.in_reason {
            self.reason.paste(text);
        }
    }

    fn arm(&mut self, now_ms: u64) {
        match (self.complete(), self.armed_ms) {
            (true, None) => self.armed_ms = Some(now_ms),
            (false, _) => self.armed_ms = None,
            (true, Some(_)) => {}
        }
    }

    /// Milliseconds for which ctrl-x still confirms.
    pub fn armed_left(&self, now_ms: u64) -> Option<u64> {
        let left = (self.armed_ms? + ARMED_MS).saturating_sub(now_ms);
        (left > 0).then_some(left)
    }
}

pub(crate) fn key(app: &mut App, mut dialog: Box<Dialog>, key: KeyEvent) -> Vec<Out> {
    let chord = Chord::from(key);
    if chord.is("esc") || (!dialog.types() && (chord.is("n") || chord.is("q"))) {
        app.say(Level::Notice, "nothing was done");
        return Vec::new();
    }
    dialog.hindrance = fence::hindrance(app, &dialog);
    if dialog.hindrance.is_some() {
        dialog.armed_ms = None;
    }
    let confirms = if dialog.types() { chord.is("ctrl-x") } else { chord.is("y") };
    if confirms && chord == dialog.opened_by {
        app.say(Level::Notice, "the key that opened a question never confirms it");
    } else if confirms && (!dialog.types() || dialog.armed_left(app.now_ms).is_some()) {
        return actions::confirmed(app, *dialog);
    } else if confirms {
        let expired = dialog.armed_ms.is_some();
        let name = dialog.name.clone();
        if expired {
            dialog.typed = Input::default();
            dialog.armed_ms = None;
            dialog.in_reason = false;
        }
        let why = if expired { "too late: type it again".to_owned() } else { needs(&dialog, &name) };
        app.say(Level::Warning, why);
    } else if chord.is("enter") {
        app.say(Level::Notice, "enter never confirms");
    } else if chord.is("pagedown") || chord.is("pageup") || chord.is("down") || chord.is("up") {
        let step = if chord.is("down") || chord.is("up") { 1 } else { 8 };
        let most = lines(app, &dialog).len().saturating_sub(1);
        let forth = chord.is("pagedown") || chord.is("down");
        let to = if forth { dialog.scroll + step } else { dialog.scroll.saturating_sub(step) };
        dialog.scroll = to.min(most);
    } else if dialog.types() {
        type_into(&mut dialog, key, chord);
        dialog.arm(app.now_ms);
    }
    app.popups.push(Popup::Dialog(dialog));
    Vec::new()
}

fn needs(dialog: &Dialog, name: &str) -> String {
    if let Some(hindrance) = &dialog.hindrance {
        hindrance.clone()
    } else if dialog.typed.text() == name {
        "a reason of three letters or more is needed".to_owned()
    } else {
        format!("type {name} first")
    }
}

fn type_into(dialog: &mut Dialog, key: KeyEvent, chord: Chord) {
    if chord.is("tab") || chord.is("backtab") {
        dialog.in_reason = dialog.risk == Risk::NameReason && !dialog.in_reason;
    } else if dialog.in_reason {
        dialog.reason.key(key);
    } else {
        dialog.typed.key(key);
    }
}

fn width(columns: u16, dialog: &Dialog) -> u16 {
    let most = if dialog.fence.is_some() { 140 } else { 100 };
    most.min(columns.saturating_sub(2))
}

fn lines(app: &App, dialog: &Dialog) -> Vec<Line<'static>> {
    let inside = usize::from(width(app.size.0, dialog).saturating_sub(4));
    let mut lines: Vec<Line<'static>> = Vec::new();
    if let Some(ask) = &dialog.fence {
        lines.extend(fence::lines(app, ask, inside));
    }
    for (heading, items) in &dialog.parts {
        section(&mut lines, &app.theme, inside, heading, items);
    }
    let moved = app.view.as_ref().filter(|view| dialog.expected.is_some_and(|at| at < view.revision));
    if let Some(view) = moved {
        let text = format!(
            "read at revision {}, now {}: refused if this changed since",
            expected(dialog),
            view.revision
        );
        section(&mut lines, &app.theme, inside, "", &[(text, Role::Dim)]);
    }
    lines
}

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, dialog: &Dialog) {
    let lines = lines(app, dialog);
    let foot = foot_height(dialog);
    let height = (lines.len() as u16 + foot + 2).min(area.height);
    let role = if dialog.risk >= Risk::Name { Role::Critical } else { Role::Warning };
    let inner = canvas.boxed(centred(area, width(area.width, dialog), height), &dialog.title, role);
    let (top, bottom) = split_top(inner, inner.height.saturating_sub(foot));
    let over = lines.len().saturating_sub(usize::from(top.height));
    let scroll = dialog.scroll.min(over);
    canvas.lines(top, &lines, scroll);
    if over > scroll && top.height > 0 {
        let more = words::count(over + 1 - scroll, "more line");
        let text = format!("{} {more}: down, pagedown", canvas.glyphs().cut);
        let last = Rect { y: top.y + top.height - 1, height: 1, ..top };
        canvas.fill(last, Role::Base);
        canvas.text(last, 0, &text, Role::Warning);
    }
    draw_foot(canvas, bottom, app, dialog);
}

fn expected(dialog: &Dialog) -> u64 {
    dialog.expected.map_or(0, |revision| revision.0)
}

fn foot_height(dialog: &Dialog) -> u16 {
    match dialog.risk {
        Risk::NameReason => 3,
        Risk::Name => 2,
        Risk::Looks | Risk::None | Risk::Yes => 1,
    }
}

fn draw_foot(canvas: &mut Canvas<'_>, area: Rect, app: &App, dialog: &Dialog) {
    if !dialog.types() {
        let line = Line::from(vec![
            canvas.span("y", Role::Key),
            canvas.span(" does it     ", Role::Base),
            canvas.span("esc", Role::Key),
            canvas.span(" cancels (default)", Role::Base),
        ]);
        canvas.line(area, 0, &line);
        return;
    }
    let label = format!("type {} to arm: ", dialog.name);
    field(canvas, area, 0, &label, &dialog.typed, !dialog.in_reason);
    if dialog.risk == Risk::NameReason {
        field(canvas, area, 1, "reason (tab): ", &dialog.reason, dialog.in_reason);
    }
    let left = dialog.armed_left(app.now_ms);
    if fence::hindrance(app, dialog).is_some() {
        let line = Line::from(vec![
            canvas.span("cannot be confirmed as it stands     ", Role::Critical),
            canvas.span("esc", Role::Key),
            canvas.span(" cancels", Role::Base),
        ]);
        canvas.line(area, foot_height(dialog) - 1, &line);
        return;
    }
    let mut spans = vec![canvas.span("ctrl-x", if left.is_some() { Role::Key } else { Role::Dim })];
    spans.push(match left {
        Some(ms) => canvas.span(format!(" does it, for {} more     ", words::left(ms)), Role::Critical),
        None => canvas.span(" does it once armed     ", Role::Dim),
    });
    spans.push(canvas.span("esc", Role::Key));
    spans.push(canvas.span(" cancels (default)", Role::Base));
    canvas.line(area, foot_height(dialog) - 1, &Line::from(spans));
}

fn field(canvas: &mut Canvas<'_>, area: Rect, row: u16, label: &str, input: &Input, focused: bool) {
    let text = format!("{:<28}", input.text());
    let line = Line::from(vec![
        canvas.span(label.to_owned(), if focused { Role::Title } else { Role::Dim }),
        canvas.span(text, Role::Input),
    ]);
    canvas.line(area, row, &line);
    if focused {
        canvas.place_cursor(area, row, label.len() + input.column());
    }
}

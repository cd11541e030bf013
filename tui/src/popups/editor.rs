//! Where a spec is written: the text on one side; on the other what is wrong with it, what would change,
//! and what the planner would do. Nothing is submitted from here without the question after it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use quorate_core::spec::{self, ServiceSpec, SpecDefaults, SpecErrors};
use quorate_core::view::{ClusterView, Level};
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Widget;
use tui_textarea::TextArea;

use super::{Popup, why::section};
use crate::actions;
use crate::app::App;
use crate::canvas::{Canvas, split_left, split_top};
use crate::keymap::Chord;
use crate::msg::{Out, Preview};
use crate::rows::{level_glyph, level_role};
use crate::theme::{Role, Theme};
use crate::words;

/// The planner is asked once typing has paused this long.
const PAUSE_MS: u64 = 300;
/// The parser's own limit is far higher; nobody types this much.
const LONGEST: usize = 256 * 1024;

/// What a new service starts from.
pub(crate) const TEMPLATE: &str = "\
name: hello
priority: normal          # critical | high | normal | low
replicas: 1
spec:
  command: [sleep, \"1000000\"]
resources: {cpu: 0.1, memory_mib: 32}
restart: {policy: always}
";

/// The spec being written.
#[derive(Debug)]
pub(crate) struct Editor {
    pub title: String,
    area: TextArea<'static>,
    before: String,
    pub checked: Result<Vec<ServiceSpec>, SpecErrors>,
    /// When it last changed, until the planner was asked.
    changed_ms: Option<u64>,
    /// The question to the planner that is still open.
    pub asked: Option<u64>,
    pub plan: Option<Result<Preview, String>>,
    leaving: bool,
}

impl Editor {
    pub fn new(
        title: impl Into<String>,
        text: &str,
        now_ms: u64,
        defaults: &SpecDefaults,
        theme: &Theme,
    ) -> Editor {
        let mut area = TextArea::new(text.lines().map(str::to_owned).collect());
        area.set_max_histories(200);
        area.set_tab_length(2);
        area.set_style(theme.style(Role::Base));
        area.set_line_number_style(theme.style(Role::Dim));
        area.set_cursor_line_style(Style::new());
        area.set_cursor_style(theme.style(Role::Selected));
        Editor {
            title: title.into(),
            area,
            before: text.to_owned(),
            checked: spec::parse(text, defaults),
            changed_ms: Some(now_ms),
            asked: None,
            plan: None,
            leaving: false,
        }
    }

    pub fn text(&self) -> String {
        let mut text = self.area.lines().join("\n");
        text.push('\n');
        text
    }

    pub fn changed(&self) -> bool {
        self.text().trim_end() != self.before.trim_end()
    }

    pub fn paste(&mut self, text: &str, now_ms: u64, defaults: &SpecDefaults) {
        let text: String = text.replace("\r\n", "\n").replace('\r', "\n");
        if self.text().len() + text.len() <= LONGEST {
            self.area.insert_str(text);
            self.check(now_ms, defaults);
        }
    }

    fn check(&mut self, now_ms: u64, defaults: &SpecDefaults) {
        self.checked = spec::parse(&self.text(), defaults);
        self.changed_ms = Some(now_ms);
        self.plan = None;
        self.asked = None;
        self.leaving = false;
    }

    /// Is the planner still to be asked?
    pub fn pending(&self) -> bool {
        self.changed_ms.is_some()
    }

    /// After a pause, the text to ask the planner about.
    pub fn due(&mut self, now_ms: u64) -> Option<String> {
        let since = self.changed_ms?;
        if now_ms < since + PAUSE_MS {
            return None;
        }
        self.changed_ms = None;
        self.checked.is_ok().then(|| self.text())
    }

    fn jump_to_error(&mut self) {
        if let Err(errors) = &self.checked
            && let Some(error) = errors.0.first()
        {
            let (row, column) = (error.line.saturating_sub(1), error.column.saturating_sub(1));
            let clamp = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
            self.area.move_cursor(tui_textarea::CursorMove::Jump(clamp(row), clamp(column)));
        }
    }
}

pub(crate) fn key(app: &mut App, mut editor: Box<Editor>, key: KeyEvent) -> Vec<Out> {
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Esc if editor.leaving || !editor.changed() => return Vec::new(),
        KeyCode::Esc => {
            editor.leaving = true;
            app.say(Level::Warning, "the text was changed: esc again discards it, any other key goes on");
        }
        KeyCode::Char('s') if ctrl => return submit(app, editor, Chord::from(key)),
        KeyCode::Char('n') if ctrl => editor.jump_to_error(),
        _ => {
            editor.leaving = false;
            let room =
                editor.text().len() < LONGEST || matches!(key.code, KeyCode::Backspace | KeyCode::Delete);
            if room && editor.area.input(key) {
                editor.check(app.now_ms, &app.settings.spec_defaults);
            }
        }
    }
    app.popups.push(Popup::Editor(editor));
    Vec::new()
}

fn submit(app: &mut App, editor: Box<Editor>, chord: Chord) -> Vec<Out> {
    let dialog = match &editor.checked {
        Ok(specs) => actions::deploy_dialog(app, specs, editor.plan.as_ref(), chord),
        Err(errors) => {
            let first = errors.0.first().map(ToString::to_string).unwrap_or_default();
            app.say(Level::Warning, format!("not a service yet: {first}"));
            None
        }
    };
    app.popups.push(Popup::Editor(editor));
    app.popups.extend(dialog.map(|dialog| Popup::Dialog(Box::new(dialog))));
    Vec::new()
}

/// What would change against the services as they stand.
pub(crate) fn changes(specs: &[ServiceSpec], view: Option<&ClusterView>) -> Vec<(String, Role)> {
    let mut out = Vec::new();
    for spec in specs {
        let Some(old) = view.and_then(|view| view.services.get(&spec.name)) else {
            out.push((
                format!(
                    "+ {}: new, {}, {}",
                    spec.name,
                    words::count(spec.replicas as usize, "copy"),
                    spec.priority
                ),
                Role::Ok,
            ));
            continue;
        };
        let fields = spec::diff(&old.spec, spec);
        if fields.is_empty() {
            out.push((format!("  {}: no change", spec.name), Role::Dim));
        }
        for change in fields {
            let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
            let text =
                format!("~ {} {}: {} -> {}", spec.name, change.path, show(&change.old), show(&change.new));
            out.push((text, Role::Warning));
        }
    }
    out
}

/// The planner's answer as lines.
pub(crate) fn plan_lines(plan: Option<&Result<Preview, String>>, theme: &Theme) -> Vec<(String, Role)> {
    match plan {
        None => vec![("the planner is being asked".into(), Role::Dim)],
        Some(Err(why)) => vec![(format!("the planner could not be asked: {why}"), Role::Warning)],
        Some(Ok(preview)) if preview.lines.is_empty() => vec![("nothing to do".into(), Role::Dim)],
        Some(Ok(preview)) => preview
            .lines
            .iter()
            .map(|line| {
                (format!("{} {}", level_glyph(line.level, theme.glyphs), line.text), level_role(line.level))
            })
            .collect(),
    }
}

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, editor: &Editor) {
    let title = format!("{}   ctrl-s deploys, ctrl-n first error, esc leaves", editor.title);
    let inner = canvas.boxed(area, &title, Role::Accent);
    let (text, side) = if inner.width >= 96 {
        split_left(inner, inner.width * 11 / 20, 2)
    } else {
        split_top(inner, inner.height * 3 / 5)
    };
    draw_text(canvas, text, editor);
    let width = usize::from(side.width);
    let mut lines: Vec<Line<'static>> = Vec::new();
    match &editor.checked {
        Err(errors) => {
            let items: Vec<_> = errors.0.iter().map(|e| (e.to_string(), Role::Critical)).collect();
            section(&mut lines, canvas.theme, width, &format!("{} WRONG", items.len()), &items);
        }
        Ok(specs) => {
            section(&mut lines, canvas.theme, width, "CHANGES", &changes(specs, app.view.as_deref()));
            section(&mut lines, canvas.theme, width, "PLAN", &plan_lines(editor.plan.as_ref(), canvas.theme));
        }
    }
    canvas.lines(side, &lines, 0);
}

fn draw_text(canvas: &mut Canvas<'_>, area: Rect, editor: &Editor) {
    let area = area.intersection(canvas.buf.area);
    if area.is_empty() {
        return;
    }
    editor.area.render(area, canvas.buf);
    if let Err(errors) = &editor.checked {
        mark_errors(canvas, area, editor, errors);
    }
}

/// The numbers of lines with an error are marked, where they can be seen.
fn mark_errors(canvas: &mut Canvas<'_>, area: Rect, editor: &Editor, errors: &SpecErrors) {
    let (top, _) = editor.area.scroll_offset();
    let numbers = editor.area.line_number_width().min(area.width);
    for error in &errors.0 {
        let row =
            error.line.saturating_sub(1).checked_sub(u32::from(top)).and_then(|row| u16::try_from(row).ok());
        if let Some(row) = row.filter(|row| *row < area.height) {
            canvas.tint(Rect { y: area.y + row, height: 1, width: numbers, ..area }, Role::Critical);
        }
    }
}

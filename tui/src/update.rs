//! The one place where the cockpit's memory changes: a message in, things to be done out. Pure: the
//! time was told before, and nothing is sent from here.

use crossterm::event::{KeyEvent, KeyEventKind};
use quorate_core::view::Level;

use crate::actions;
use crate::app::{App, Pane, Place, Screen};
use crate::commands::{self, Cmd};
use crate::input::Input;
use crate::keymap::{Chord, Found};
use crate::msg::{Connection, LogRequest, Msg, Out, SimAction};
use crate::popups::help::Help;
use crate::popups::palette::Palette;
use crate::popups::prompt::{For, Prompt};
use crate::popups::why::Why;
use crate::popups::{self, Popup};
use crate::rows::{Row, Subject};
use crate::{draw, summary};

/// Screens that are remembered for the way back.
const LONGEST_TRAIL: usize = 32;
/// Old lines asked for when a log is opened.
const TAIL: u32 = 1_000;

/// Takes a message; returns what others have to do.
pub fn update(app: &mut App, msg: Msg) -> Vec<Out> {
    match msg {
        Msg::Key(key) if key.kind == KeyEventKind::Release => Vec::new(),
        Msg::Key(key) => on_key(app, key),
        Msg::Paste(text) => {
            popups::paste(app, &text);
            Vec::new()
        }
        Msg::Resize(columns, rows) => {
            app.size = (columns, rows);
            Vec::new()
        }
        Msg::View(view) => {
            if app.frozen {
                app.held = Some(view);
            } else {
                app.view = Some(view);
                app.received_ms = app.now_ms;
                app.refresh();
            }
            popups::fence::ask_again(app)
        }
        Msg::Connection(connection) => {
            if matches!(connection, Connection::Attached { .. }) && connection != app.connection {
                reopen_logs(app, connection)
            } else {
                app.connection = connection;
                Vec::new()
            }
        }
        Msg::Line(line) => {
            app.line = line;
            Vec::new()
        }
        Msg::LogLines { stream, lines, ended } => {
            if app.logs.stream == Some(stream) {
                app.logs.take(lines, ended);
            }
            Vec::new()
        }
        Msg::PlanPreview { id, outcome } => {
            if let Some(Popup::Editor(editor)) =
                app.popups.iter_mut().rev().find(|p| matches!(p, Popup::Editor(_)))
                && editor.asked == Some(id)
            {
                editor.asked = None;
                editor.plan = Some(outcome);
            }
            app.asked.remove(&id);
            Vec::new()
        }
        Msg::Foreseen { id, outcome } => {
            popups::fence::foreseen(app, id, outcome);
            app.asked.remove(&id);
            Vec::new()
        }
        Msg::CommandResult { id, outcome } => {
            answered(app, id, outcome);
            Vec::new()
        }
        Msg::Tick => tick(app),
    }
}

/// A new connection knows nothing of the log that was followed over the old one.
fn reopen_logs(app: &mut App, connection: Connection) -> Vec<Out> {
    let first = matches!(app.connection, Connection::Connecting { .. });
    app.connection = connection;
    if first || app.logs.slot.is_empty() || app.logs.ended.is_some() {
        return Vec::new();
    }
    open_logs(app, app.logs.slot.clone())
}

fn answered(app: &mut App, id: u64, outcome: Result<String, String>) {
    let Some(what) = app.asked.remove(&id) else { return };
    match outcome {
        Ok(text) if text.is_empty() => app.say(Level::Ok, format!("accepted: {what}")),
        Ok(text) => app.say(Level::Ok, format!("accepted: {what}: {text}")),
        Err(why) => {
            let again =
                if app.draft.is_some() && what.starts_with("deploy") { " (d has your text)" } else { "" };
            app.say(Level::Critical, format!("not done: {what}: {why}{again}"));
            return;
        }
    }
    if what.starts_with("deploy") {
        app.draft = None;
    }
}

fn tick(app: &mut App) -> Vec<Out> {
    let now = app.now_ms;
    let due = match app.popups.last_mut() {
        Some(Popup::Editor(editor)) => editor.due(now),
        _ => None,
    };
    let Some(spec) = due else { return popups::fence::ask_again(app) };
    let id = app.next_id("the plan".into());
    if let Some(Popup::Editor(editor)) = app.popups.last_mut() {
        editor.asked = Some(id);
    }
    vec![Out::Preview { id, spec }]
}

impl App {
    /// In how many milliseconds the cockpit wants a [`Msg::Tick`], while time alone can change the screen.
    pub fn wants_tick_ms(&self) -> Option<u64> {
        if let Some(Popup::Editor(editor)) = self.popups.last()
            && editor.pending()
        {
            return Some(100);
        }
        let armed = matches!(self.popups.last(), Some(Popup::Dialog(dialog)) if dialog.armed_left(self.now_ms).is_some());
        let timed = armed || self.notice.is_some() || self.view.is_some();
        timed.then_some(1_000 - self.age_ms() % 1_000)
    }
}

fn on_key(app: &mut App, key: KeyEvent) -> Vec<Out> {
    let chord = Chord::from(key);
    if chord.is("ctrl-z") {
        app.say(Level::Notice, "ctrl-z would stop the node with the cockpit; q leaves, the node runs on");
        return Vec::new();
    }
    if !app.popups.is_empty() {
        return popups::key(app, key);
    }
    if !app.pending.is_empty() && chord.is("esc") {
        app.pending.clear();
        return Vec::new();
    }
    app.pending.push(chord);
    let context = app.context();
    match app.keymap.find(&app.pending, context) {
        Found::Prefix => Vec::new(),
        Found::Command(cmd) => {
            app.pending.clear();
            run(app, cmd, chord)
        }
        Found::Nothing => {
            let keys: Vec<String> = app.pending.iter().map(ToString::to_string).collect();
            app.pending.clear();
            app.say(Level::Notice, format!("{} does nothing here; ? shows what does", keys.join(" ")));
            Vec::new()
        }
    }
}

/// Does a command, if it applies where the operator is.
pub(crate) fn run(app: &mut App, cmd: Cmd, by: Chord) -> Vec<Out> {
    let entry = commands::entry(cmd);
    if !entry.applies(app.context()) {
        app.say(Level::Notice, format!("{} does not apply here", entry.name));
        return Vec::new();
    }
    match cmd {
        Cmd::Overview => go(app, Screen::Overview),
        Cmd::Nodes => go(app, Screen::Nodes),
        Cmd::Services => go(app, Screen::Services),
        Cmd::Operations => go(app, Screen::Operations),
        Cmd::Events => go(app, Screen::Events),
        Cmd::Logs => go(app, Screen::Logs),
        Cmd::Links => go(app, Screen::Links),
        Cmd::Fencing => go(app, Screen::Fencing),
        Cmd::NextPane => focus(app, 1),
        Cmd::PreviousPane => focus(app, -1),
        Cmd::Down => step(app, 1),
        Cmd::Up => step(app, -1),
        Cmd::PageDown => step(app, half_page(app)),
        Cmd::PageUp => step(app, -half_page(app)),
        Cmd::Top => step(app, isize::MIN / 2),
        Cmd::Bottom => step(app, isize::MAX / 2),
        Cmd::Open => open(app),
        Cmd::Back => back(app),
        Cmd::Filter => filter(app),
        Cmd::Sort => with_table(app, |table| table.sort_next()),
        Cmd::SortReverse => with_table(app, |table| table.sort_reverse()),
        Cmd::Mark => with_table(app, |table| table.toggle_mark()),
        Cmd::Unmark => with_table(app, |table| table.marked.clear()),
        Cmd::Why => {
            let subject = app.subject();
            app.popups.push(Popup::Why(Why { subject, scroll: 0 }));
        }
        Cmd::Palette => {
            let palette = Palette::new(app);
            app.popups.push(Popup::Palette(palette));
        }
        Cmd::Help => {
            let context = app.context();
            app.popups.push(Popup::Help(Help { context, scroll: 0 }));
        }
        Cmd::Freeze => freeze(app),
        Cmd::Theme => {
            app.theme = app.theme.next();
            app.say(Level::Notice, format!("theme {}", app.theme.name()));
        }
        Cmd::Copy => {
            app.say(Level::Notice, "the summary is in the clipboard, if the terminal takes it");
            return app.view.as_ref().map(|view| Out::Copy(summary::of(view))).into_iter().collect();
        }
        Cmd::Leave => return actions::leave(app, by),
        Cmd::SimPause => return vec![Out::Sim(SimAction::Pause)],
        Cmd::SimStep => return vec![Out::Sim(SimAction::Step)],
        Cmd::SimFaster => return vec![Out::Sim(SimAction::Faster)],
        Cmd::SimSlower => return vec![Out::Sim(SimAction::Slower)],
        Cmd::SimBack => return vec![Out::Sim(SimAction::Back)],
        Cmd::SimOn => return vec![Out::Sim(SimAction::On)],
        Cmd::SimNode => return vec![Out::Sim(SimAction::NextNode)],
        Cmd::ShowLogs => return actions::show_logs(app),
        Cmd::Follow => {
            app.logs.back = if app.logs.following() { 1.min(app.logs.lines.len()) } else { 0 };
        }
        Cmd::Search => {
            let before = app.logs.search.clone();
            app.popups.push(Popup::Prompt(Prompt { what: For::Search { before }, input: Input::default() }));
        }
        Cmd::SearchNext => search(app, true),
        Cmd::SearchPrevious => search(app, false),
        Cmd::Deploy
        | Cmd::Edit
        | Cmd::Scale
        | Cmd::Restart
        | Cmd::Stop
        | Cmd::Delete
        | Cmd::Migrate
        | Cmd::Drain
        | Cmd::Cordon
        | Cmd::Undo
        | Cmd::Fence
        | Cmd::TestFence
        | Cmd::Attest
        | Cmd::Cancel
        | Cmd::DemoKill
        | Cmd::DemoFreeze
        | Cmd::DemoThaw
        | Cmd::DemoCut
        | Cmd::DemoHeal
        | Cmd::DemoRestart
        | Cmd::Quit => return actions::begin(app, cmd, by),
    }
    Vec::new()
}

/// Goes to a screen; the way back stays known.
pub(crate) fn go(app: &mut App, screen: Screen) {
    if app.place.screen == screen {
        return;
    }
    let before = std::mem::replace(&mut app.place, Place::at(screen));
    app.trail.push(before);
    if app.trail.len() > LONGEST_TRAIL {
        app.trail.remove(0);
    }
    app.refresh();
}

fn focus(app: &mut App, by: isize) {
    let panes = app.panes().len() as isize;
    let shown = |app: &App| draw::shows(app, app.pane());
    for _ in 0..panes {
        app.place.focus = (app.place.focus as isize + by).rem_euclid(panes) as usize;
        if shown(app) {
            break;
        }
    }
    app.place.scroll = 0;
}

fn half_page(app: &App) -> isize {
    isize::try_from(app.size.1 / 2).unwrap_or(1).max(1)
}

fn step(app: &mut App, by: isize) {
    match app.pane() {
        Pane::Table(_) => {
            if let Some(table) = app.focused_mut() {
                table.step(by);
            }
        }
        Pane::Log => app.logs.scroll(by.saturating_neg()),
        Pane::Facts | Pane::Fences | Pane::Spec | Pane::Versions => {
            let most = draw::text_lines(app).saturating_sub(1);
            app.place.scroll = app.place.scroll.saturating_add_signed(by).min(most);
        }
    }
}

fn with_table(app: &mut App, change: impl FnOnce(&mut crate::table::Table)) {
    if let Some(table) = app.focused_mut() {
        change(table);
    }
    app.refresh();
}

fn open(app: &mut App) {
    let subject = app.subject();
    let is_event = matches!(app.focused().and_then(|table| table.current()), Some(Row::Event(_)));
    match subject {
        Subject::Node(node) => go(app, Screen::Node(node)),
        Subject::Service(service) => go(app, Screen::Service(service)),
        Subject::Instance(key) if is_event => {
            if let Some(service) = app.instance(&key).map(|i| i.service.clone()) {
                go(app, Screen::Service(service));
            }
        }
        subject @ (Subject::Instance(_) | Subject::Operation(_)) => {
            app.popups.push(Popup::Why(Why { subject, scroll: 0 }));
        }
        Subject::Nothing => {}
    }
}

fn back(app: &mut App) {
    if let Some(table) = app.focused_mut()
        && (!table.filter.is_empty() || !table.marked.is_empty())
    {
        table.set_filter("");
        table.marked.clear();
        app.refresh();
        return;
    }
    if let Some(place) = app.trail.pop() {
        app.place = place;
        app.refresh();
    } else if app.place.screen != Screen::Overview {
        app.place = Place::at(Screen::Overview);
        app.refresh();
    }
}

fn filter(app: &mut App) {
    if let Some(table) = app.focused() {
        let before = table.filter.clone();
        let input = Input::holding(&before);
        app.popups.push(Popup::Prompt(Prompt { what: For::Filter { before }, input }));
    }
}

fn freeze(app: &mut App) {
    app.frozen = !app.frozen;
    if let (false, Some(view)) = (app.frozen, app.held.take()) {
        app.view = Some(view);
        app.received_ms = app.now_ms;
        app.refresh();
    }
}

fn search(app: &mut App, older: bool) {
    if app.logs.search.is_empty() {
        app.say(Level::Notice, "nothing is searched for; / asks");
    } else if !app.logs.search_next(older) {
        let where_to = if older { "older" } else { "newer" };
        app.say(Level::Notice, format!("no {where_to} line with {:?}", app.logs.search));
    }
}

/// Asks for a log; the one before is closed.
pub(crate) fn open_logs(app: &mut App, slot: String) -> Vec<Out> {
    let mut outs: Vec<Out> =
        app.logs.stream.map(|stream| Out::Logs(LogRequest::Close { stream })).into_iter().collect();
    let stream = app.next_id(format!("the log of {slot}"));
    app.asked.remove(&stream);
    app.logs.open(stream, &slot);
    outs.push(Out::Logs(LogRequest::Open { stream, slot, tail: TAIL, follow: true }));
    outs
}

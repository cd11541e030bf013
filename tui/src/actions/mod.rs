//! What changes the cluster: each command becomes a question with its evidence and its way back, and a
//! confirmed question becomes exactly the commands it listed. Does not send anything itself.

mod of_nodes;
mod of_services;

use quorate_core::command::Command;
use quorate_core::ids::{NodeId, ServiceName};
use quorate_core::view::{ClusterView, Countdown, Level};

pub(crate) use of_services::{ask_migrate, ask_scale, deploy_dialog};

use crate::app::{App, Screen};
use crate::commands::{Cmd, Risk};
use crate::keymap::Chord;
use crate::msg::{DemoAction, Out};
use crate::popups::Popup;
use crate::popups::dialog::{Deed, Dialog};
use crate::rows::Subject;
use crate::theme::Role;
use crate::words;
use of_nodes::hosted;

/// Starts a command that changes something.
pub(crate) fn begin(app: &mut App, cmd: Cmd, by: Chord) -> Vec<Out> {
    match cmd {
        Cmd::Deploy => of_services::open_editor(app, "NEW SERVICE", None),
        Cmd::Edit => of_services::edit(app),
        Cmd::Scale => of_services::scale(app),
        Cmd::Migrate => of_services::migrate(app),
        Cmd::Restart => of_services::ask_services(app, cmd, by),
        Cmd::Stop => of_services::ask_services(app, cmd, by),
        Cmd::Delete => of_services::ask_services(app, cmd, by),
        Cmd::Drain => of_nodes::drain(app, by),
        Cmd::Cordon => return of_nodes::cordon(app, true, by),
        Cmd::Undo => return of_nodes::cordon(app, false, by),
        Cmd::Fence => return of_nodes::fence(app, by),
        Cmd::TestFence => return of_nodes::test_fence(app),
        Cmd::Attest => of_nodes::attest(app, by),
        Cmd::Cancel => cancel(app, by),
        Cmd::DemoKill => return of_nodes::demo(app, DemoAction::Kill, by),
        Cmd::DemoFreeze => return of_nodes::demo(app, DemoAction::Freeze, by),
        Cmd::DemoThaw => return of_nodes::demo(app, DemoAction::Thaw, by),
        Cmd::DemoCut => return of_nodes::demo(app, DemoAction::Cut, by),
        Cmd::DemoHeal => return of_nodes::demo(app, DemoAction::Heal, by),
        Cmd::DemoRestart => return of_nodes::demo(app, DemoAction::Restart, by),
        Cmd::Quit => quit(app, by),
        _ => {}
    }
    Vec::new()
}

/// The marked objects, or the one in focus.
fn subjects(app: &App) -> Vec<Subject> {
    let Some(view) = &app.view else { return Vec::new() };
    match app.focused().filter(|table| !table.marked.is_empty()) {
        Some(table) => table.chosen().iter().map(|row| row.subject(view)).collect(),
        None => vec![app.subject()],
    }
}

fn nodes(app: &App) -> Vec<NodeId> {
    let node = |subject| match subject {
        Subject::Node(node) => Some(node),
        Subject::Service(_) | Subject::Instance(_) | Subject::Operation(_) | Subject::Nothing => None,
    };
    subjects(app).into_iter().filter_map(node).collect()
}

/// The services in focus; a copy stands for its service.
fn services(app: &App) -> Vec<ServiceName> {
    let mut found: Vec<ServiceName> = Vec::new();
    for subject in subjects(app) {
        let name = match subject {
            Subject::Service(name) => Some(name),
            Subject::Instance(key) => app.instance(&key).map(|i| i.service.clone()),
            Subject::Node(_) | Subject::Operation(_) | Subject::Nothing => None,
        };
        found.extend(name.filter(|name| !found.contains(name)));
    }
    found
}

fn deed(what: impl Into<String>, command: Command) -> Deed {
    Deed::Command { what: what.into(), command: Box::new(command) }
}

/// What will be done, one line for each deed.
fn listed(dialog: &Dialog) -> Vec<(String, Role)> {
    let line = |deed: &Deed| match deed {
        Deed::Command { what, .. } => what.clone(),
        Deed::Fence(node) => format!("fence node {node}"),
        Deed::Attest(node) => format!("record your word that node {node} is dead"),
        Deed::Demo(action, node) => format!("{} node {node} of the demo", action.word()),
        Deed::Leave => "end the demo and everything it started".to_owned(),
        Deed::Quit => "stop this node's process".to_owned(),
    };
    dialog.deeds.iter().map(|deed| (line(deed), Role::Title)).collect()
}

/// Puts the question on screen, complete with what happens by itself otherwise.
fn ask(app: &mut App, dialog: Dialog, about: &[String], undo: &str) {
    ask_with(app, dialog, about, undo, Vec::new());
}

/// The same, with further parts below.
fn ask_with(
    app: &mut App,
    mut dialog: Dialog,
    about: &[String],
    undo: &str,
    after: Vec<(&str, Vec<(String, Role)>)>,
) {
    let what = listed(&dialog);
    dialog.parts.insert(0, ("WILL BE DONE".into(), what));
    let age = app.age_ms();
    if let Some(view) = &app.view {
        dialog.expected = Some(view.revision);
        let mut otherwise = otherwise(view, about, age);
        if otherwise.is_empty() {
            otherwise.push(("nothing is about to happen by itself".into(), Role::Dim));
        }
        dialog = dialog.part("IF YOU DO NOTHING", otherwise);
        if !view.standing.quorum {
            let text = format!("no quorum from here: this will be refused ({})", view.standing.sentence);
            dialog.parts.insert(0, ("".into(), vec![(text, Role::Critical)]));
        }
    }
    dialog = dialog.part("UNDO", vec![(undo.to_owned(), Role::Base)]);
    for (heading, items) in after {
        dialog = dialog.part(heading, items);
    }
    app.popups.push(Popup::Dialog(Box::new(dialog)));
}

fn otherwise(view: &ClusterView, about: &[String], age_ms: u64) -> Vec<(String, Role)> {
    let concerns = |subject: &str| {
        about.iter().any(|name| {
            subject == name
                || subject.ends_with(&format!(" {name}"))
                || subject.starts_with(&format!("{name}/"))
        })
    };
    let when = |ms: Option<u64>| match ms.map(|ms| ms.saturating_sub(age_ms)) {
        Some(0) => "now".to_owned(),
        Some(ms) => format!("in {}", words::left(ms)),
        None => "no time set".to_owned(),
    };
    let mut list: Vec<&Countdown> = view.countdowns.iter().collect();
    list.sort_by_cached_key(|c| crate::rows::countdowns::order(c));
    list.into_iter()
        .filter(|c| {
            concerns(&c.subject) || about.iter().any(|name| c.why.split(' ').any(|word| word == name))
        })
        .map(|c| {
            (format!("{}: {} {} ({}); {}", when(c.in_ms), c.subject, c.action, c.why, c.then), Role::Notice)
        })
        .collect()
}

fn cancel(app: &mut App, by: Chord) {
    let Subject::Operation(id) = app.subject() else { return };
    let Some(o) = app.operation(id) else { return };
    if !o.cancellable {
        let why = o.result.clone().unwrap_or_else(|| format!("it is past that in phase {}", o.phase));
        app.say(Level::Notice, format!("operation {id} cannot be cancelled: {why}"));
        return;
    }
    let what = format!("cancel {} of {}", crate::rows::operations::word(o.kind), o.target);
    let about = vec![o.target.clone()];
    let dialog = Dialog::new(
        format!("CANCEL operation {id}"),
        Risk::Yes,
        by,
        vec![deed(what, Command::CancelOperation { operation: id })],
    );
    ask(app, dialog, &about, "begin it again");
}

fn quit(app: &mut App, by: Chord) {
    let here = match &app.view {
        Some(view) => hosted(view, &view.me).len(),
        None => 0,
    };
    let all = app.settings.leaving_ends_all;
    let deed = if all { Deed::Leave } else { Deed::Quit };
    let note = if all {
        "all nodes and services of the demo end, nothing is left".to_owned()
    } else {
        format!(
            "{} run on until their deadlines; drain first (D) to move them",
            words::count(here, "instance")
        )
    };
    let dialog = Dialog::new(if all { "END THE DEMO" } else { "STOP THIS NODE" }, Risk::Yes, by, vec![deed]);
    let undo = if all { "none" } else { "start the node again" };
    ask(app, dialog.part("", vec![(note, Role::Warning)]), &[], undo);
}

/// Leaving ends everything in a demo, so it asks there.
pub(crate) fn leave(app: &mut App, by: Chord) -> Vec<Out> {
    if app.settings.leaving_ends_all {
        quit(app, by);
        return Vec::new();
    }
    vec![Out::Leave]
}

/// Does what a confirmed question listed, all of it and nothing else.
pub(crate) fn confirmed(app: &mut App, dialog: Dialog) -> Vec<Out> {
    let expected = dialog.expected;
    let reason = dialog.reason.text().trim().to_owned();
    let mut outs = Vec::new();
    if dialog.from_editor
        && let Some(Popup::Editor(editor)) = app.popups.pop_if(|popup| matches!(popup, Popup::Editor(_)))
    {
        // Kept until it is accepted, so that a refusal costs no typing.
        app.draft = Some(editor.text());
    }
    for deed in dialog.deeds {
        let (what, command) = match deed {
            Deed::Command { what, command } => (what, command),
            Deed::Fence(node) => {
                (format!("fence node {node}"), Box::new(Command::Fence { node, reason: reason.clone() }))
            }
            Deed::Attest(node) => (
                format!("attest node {node}"),
                Box::new(Command::AttestDead { node, reason: reason.clone() }),
            ),
            Deed::Demo(action, node) => {
                let id = app.next_id(format!("{} node {node}", action.word()));
                outs.push(Out::Demo { id, action, node });
                continue;
            }
            Deed::Leave => {
                outs.push(Out::Leave);
                continue;
            }
            Deed::Quit => {
                outs.push(Out::Quit);
                continue;
            }
        };
        let id = app.next_id(what.clone());
        app.say(Level::Notice, format!("asked: {what}"));
        outs.push(Out::Submit { id, command, expected });
    }
    if let Some(table) = app.focused_mut() {
        table.marked.clear();
    }
    outs
}

/// Opens the log of what is in focus.
pub(crate) fn show_logs(app: &mut App) -> Vec<Out> {
    let slot = match app.subject() {
        Subject::Instance(key) => app.instance(&key).map(|i| i.slot.clone()),
        Subject::Service(name) => Some(name.to_string()),
        Subject::Node(_) | Subject::Operation(_) | Subject::Nothing => None,
    };
    slot.map_or_else(Vec::new, |slot| {
        let outs = crate::update::open_logs(app, slot);
        crate::update::go(app, Screen::Logs);
        outs
    })
}

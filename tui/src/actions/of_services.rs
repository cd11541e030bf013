//! Questions about services and their copies: the editor, scaling, moving, restarting, stopping.

use std::sync::Arc;

use quorate_core::command::Command;
use quorate_core::ids::{NodeId, ServiceName, SlotId};
use quorate_core::spec::ServiceSpec;
use quorate_core::view::{InstanceView, Level};

use super::{ask, deed, listed, services};
use crate::app::App;
use crate::commands::{self, Cmd, Risk};
use crate::input::Input;
use crate::keymap::Chord;
use crate::msg::Preview;
use crate::popups::Popup;
use crate::popups::dialog::{Deed, Dialog};
use crate::popups::editor::{self, Editor};
use crate::popups::picker::Picker;
use crate::popups::prompt::{For, Prompt};
use crate::rows::Subject;
use crate::theme::Role;
use crate::words;

pub(super) fn open_editor(app: &mut App, title: &str, text: Option<String>) {
    let draft = app.draft.take();
    let text = text.or(draft).unwrap_or_else(|| editor::TEMPLATE.to_owned());
    let editor = Editor::new(title, &text, app.now_ms, &app.settings.spec_defaults, &app.theme);
    app.popups.push(Popup::Editor(Box::new(editor)));
}

pub(super) fn edit(app: &mut App) {
    if let Some(name) = services(app).first().cloned()
        && let Some(service) = app.service(&name)
    {
        let text = service.spec.to_yaml();
        open_editor(app, &format!("EDIT {name}"), Some(text));
    }
}

/// The question after the editor.
pub(crate) fn deploy_dialog(
    app: &mut App,
    specs: &[ServiceSpec],
    plan: Option<&Result<Preview, String>>,
    by: Chord,
) -> Option<Dialog> {
    let Some(view) = app.view.clone() else {
        app.say(Level::Warning, "there is no view of the cluster yet");
        return None;
    };
    let one = |spec: &ServiceSpec| {
        let what = format!(
            "deploy {} ({}, {})",
            spec.name,
            words::count(spec.replicas as usize, "copy"),
            spec.priority
        );
        deed(what, Command::Deploy { spec: Arc::new(spec.clone()) })
    };
    let mut dialog = Dialog::new("DEPLOY", Risk::Yes, by, specs.iter().map(one).collect());
    let what = listed(&dialog);
    dialog = dialog
        .part("WILL BE DONE", what)
        .part("CHANGES", editor::changes(specs, Some(&view)))
        .part("PLAN", editor::plan_lines(plan, &app.theme))
        .part("UNDO", vec![("edit the service back; its versions are kept".into(), Role::Base)]);
    // The plan shown is the plan that runs, or it is refused.
    let planned = plan.and_then(|plan| plan.as_ref().ok()).map(|preview| preview.revision);
    dialog.expected = Some(planned.unwrap_or(view.revision));
    dialog.from_editor = true;
    Some(dialog)
}

pub(super) fn scale(app: &mut App) {
    let Some(service) = services(app).first().cloned() else { return };
    let Some(now) = app.service(&service).map(|s| s.replicas.wanted) else { return };
    app.popups.push(Popup::Prompt(Prompt { what: For::Scale { service, now }, input: Input::default() }));
}

pub(crate) fn ask_scale(app: &mut App, service: ServiceName, replicas: u32, by: Chord) {
    let Some(s) = app.service(&service) else { return };
    let now = s.replicas.wanted;
    let what = format!("scale {service} from {now} to {}", words::count(replicas as usize, "copy"));
    let undo = format!("scale it back to {now}");
    let mut notes = Vec::new();
    if replicas == now {
        notes.push(("it has that many already".to_owned(), Role::Dim));
    } else if replicas < now {
        notes.push((
            format!("{} will be stopped", words::count((now - replicas) as usize, "copy")),
            Role::Warning,
        ));
    }
    let about = vec![service.to_string()];
    let command = Command::Scale { service: service.clone(), replicas };
    let dialog =
        Dialog::new(format!("SCALE {service}"), Risk::Yes, by, vec![deed(what, command)]).part("", notes);
    ask(app, dialog, &about, &undo);
}

/// The copy in focus, if it is clear which one.
fn slot(app: &mut App) -> Option<(SlotId, Option<NodeId>)> {
    let found: Vec<&InstanceView> = match app.subject() {
        Subject::Instance(key) => app.instance(&key).into_iter().collect(),
        Subject::Service(name) => {
            let view = app.view.as_ref()?;
            let mine = view.instances.values().filter(|i| i.service == name && i.node.is_some());
            mine.map(|i| &**i).collect()
        }
        Subject::Node(_) | Subject::Operation(_) | Subject::Nothing => Vec::new(),
    };
    match found[..] {
        [one] => Some((one.slot.parse().ok()?, one.node.clone())),
        [] => {
            app.say(Level::Notice, "nothing of it runs, so there is nothing to move");
            None
        }
        _ => {
            let text =
                format!("it has {}: open it with enter and choose one", words::count(found.len(), "copy"));
            app.say(Level::Notice, text);
            None
        }
    }
}

pub(super) fn migrate(app: &mut App) {
    if let Some((slot, from)) = slot(app)
        && let Some(view) = app.view.clone()
    {
        app.popups.push(Popup::Picker(Picker::new(slot, from, &view)));
    }
}

pub(crate) fn ask_migrate(app: &mut App, slot: SlotId, from: Option<NodeId>, to: Option<NodeId>, by: Chord) {
    let target =
        to.as_ref().map_or_else(|| "where the planner finds best".to_owned(), |to| format!("to {to}"));
    let source = from.as_ref().map_or_else(String::new, |from| format!(" from {from}"));
    let mut notes = Vec::new();
    if let Some(s) = app.service(&slot.service) {
        let how = match (&s.spec.state_dir, s.exclusive) {
            (Some(dir), _) => {
                format!("its state ({dir}) is copied first; it stops here before it starts there")
            }
            (None, true) => "it stops here before it starts there".to_owned(),
            (None, false) => "it has no state to copy".to_owned(),
        };
        notes.push((how, Role::Base));
        notes.push(("not healthy there: it is rolled back to where it is now".to_owned(), Role::Base));
    }
    let about = vec![slot.to_string(), slot.service.to_string()];
    let undo = "cancel the operation (x) while it runs; move it back afterwards";
    let title = format!("MIGRATE {slot}");
    let deed = deed(format!("move {slot}{source} {target}"), Command::Migrate { slot, to, parent: None });
    let dialog = Dialog::new(title, Risk::Yes, by, vec![deed]).part("HOW", notes);
    ask(app, dialog, &about, undo);
}

fn name_for(names: &[String]) -> String {
    match names {
        [one] => one.clone(),
        many => many.len().to_string(),
    }
}

pub(super) fn ask_services(app: &mut App, cmd: Cmd, by: Chord) {
    let names = services(app);
    if names.is_empty() {
        return;
    }
    let (verb, undo): (&str, &str) = match cmd {
        Cmd::Restart => ("restart", "none: the old copies are gone; the spec stays as it is"),
        Cmd::Delete => ("delete", "none: deploy it again from its file"),
        _ => ("stop", "deploy it again (e, then ctrl-s)"),
    };
    let one = |service: &ServiceName| {
        let command = match cmd {
            Cmd::Restart => Command::Restart { service: service.clone() },
            Cmd::Delete => Command::DeleteService { service: service.clone() },
            _ => Command::StopService { service: service.clone() },
        };
        let running = app.service(service).map_or(0, |s| s.replicas.running);
        deed(format!("{verb} {service} ({} running)", words::count(running as usize, "copy")), command)
    };
    let deeds: Vec<Deed> = names.iter().map(one).collect();
    let about: Vec<String> = names.iter().map(ToString::to_string).collect();
    let title = format!(
        "{} {}",
        verb.to_uppercase(),
        if about.len() == 1 { about[0].clone() } else { words::count(about.len(), "service") }
    );
    let mut dialog = Dialog::new(title, commands::entry(cmd).risk, by, deeds);
    dialog.name = name_for(&about);
    ask(app, dialog, &about, undo);
}

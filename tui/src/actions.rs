//! What changes the cluster: each command becomes a question with its evidence and its way back, and a
//! confirmed question becomes exactly the commands it listed. Does not send anything itself.

use std::sync::Arc;

use quorate_core::command::Command;
use quorate_core::ids::{NodeId, ServiceName, SlotId};
use quorate_core::spec::ServiceSpec;
use quorate_core::view::{ClusterView, Countdown, InstanceView, Level, NodeView};

use crate::app::{App, Screen};
use crate::commands::{self, Cmd, Risk};
use crate::input::Input;
use crate::keymap::Chord;
use crate::msg::{DemoAction, Out, Preview};
use crate::popups::dialog::{Deed, Dialog};
use crate::popups::editor::{self, Editor};
use crate::popups::picker::Picker;
use crate::popups::prompt::{For, Prompt};
use crate::popups::{Popup, why};
use crate::rows::Subject;
use crate::theme::Role;
use crate::words;

/// Moves of one drain at a time.
const DRAIN_AT_ONCE: u32 = 2;

/// Starts a command that changes something.
pub(crate) fn begin(app: &mut App, cmd: Cmd, by: Chord) -> Vec<Out> {
    match cmd {
        Cmd::Deploy => open_editor(app, "NEW SERVICE", None),
        Cmd::Edit => edit(app),
        Cmd::Scale => scale(app),
        Cmd::Migrate => migrate(app),
        Cmd::Restart => ask_services(app, cmd, by),
        Cmd::Stop => ask_services(app, cmd, by),
        Cmd::Delete => ask_services(app, cmd, by),
        Cmd::Drain => drain(app, by),
        Cmd::Cordon => return cordon(app, true, by),
        Cmd::Undo => return cordon(app, false, by),
        Cmd::Fence => fence(app, by, true),
        Cmd::Attest => fence(app, by, false),
        Cmd::Cancel => cancel(app, by),
        Cmd::DemoKill => return demo(app, DemoAction::Kill, by),
        Cmd::DemoFreeze => return demo(app, DemoAction::Freeze, by),
        Cmd::DemoThaw => return demo(app, DemoAction::Thaw, by),
        Cmd::DemoRestart => return demo(app, DemoAction::Restart, by),
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

fn open_editor(app: &mut App, title: &str, text: Option<String>) {
    let draft = app.draft.take();
    let text = text.or(draft).unwrap_or_else(|| editor::TEMPLATE.to_owned());
    let editor = Editor::new(title, &text, app.now_ms, &app.settings.spec_defaults);
    app.popups.push(Popup::Editor(Box::new(editor)));
}

fn edit(app: &mut App) {
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

fn scale(app: &mut App) {
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

fn migrate(app: &mut App) {
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

fn ask_services(app: &mut App, cmd: Cmd, by: Chord) {
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

fn hosted<'a>(view: &'a ClusterView, node: &NodeId) -> Vec<&'a InstanceView> {
    view.instances.values().filter(|i| i.node.as_ref() == Some(node)).map(|i| &**i).collect()
}

fn drain(app: &mut App, by: Chord) {
    let (nodes, Some(view)) = (nodes(app), app.view.clone()) else { return };
    if nodes.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for node in &nodes {
        let here = hosted(&view, node);
        let exclusive =
            here.iter().filter(|i| view.services.get(&i.service).is_some_and(|s| s.exclusive)).count();
        notes.push((
            format!("{node}: {} move, {exclusive} of them exclusive", words::count(here.len(), "instance")),
            Role::Base,
        ));
    }
    notes.push((format!("at most {DRAIN_AT_ONCE} at a time; nothing new is placed there"), Role::Base));
    let one = |node: &NodeId| {
        let command = Command::Drain { node: node.clone(), max_in_flight: DRAIN_AT_ONCE };
        deed(format!("drain node {node}"), command)
    };
    let about: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    let dialog =
        Dialog::new(format!("DRAIN {}", about.join(" ")), Risk::Yes, by, nodes.iter().map(one).collect());
    ask(
        app,
        dialog.part("BLAST RADIUS", notes),
        &about,
        "u ends the drain and the cordon; what moved stays where it is",
    );
}

/// Harmless and undone as easily, so one is done at once; several are listed first.
fn cordon(app: &mut App, on: bool, by: Chord) -> Vec<Out> {
    let nodes = nodes(app);
    let one = |node: &NodeId| {
        if on {
            deed(format!("cordon node {node}"), Command::Cordon { node: node.clone(), on: true })
        } else {
            deed(format!("uncordon node {node}, end its drain"), Command::Uncordon { node: node.clone() })
        }
    };
    let deeds: Vec<Deed> = nodes.iter().map(one).collect();
    let drains = !on && nodes.iter().any(|node| drains(app, node));
    let title = if on { "CORDON" } else { "UNCORDON" };
    let dialog = Dialog::new(title, Risk::Yes, by, deeds);
    if nodes.len() > 1 || drains {
        let about: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        ask(app, dialog, &about, if on { "u uncordons" } else { "c cordons again, D drains again" });
        return Vec::new();
    }
    confirmed(app, dialog)
}

fn drains(app: &App, node: &NodeId) -> bool {
    app.view.as_ref().is_some_and(|view| {
        view.operations.values().any(|o| {
            o.kind == quorate_core::view::OperationKindView::Drain
                && o.result.is_none()
                && o.target.rsplit(' ').next() == Some(node.as_str())
        })
    })
}

/// What a node's end means: for its instances, and for quorum.
fn blast(view: &ClusterView, node: &NodeView) -> Vec<(String, Role)> {
    let here = hosted(view, &node.name);
    let exclusive = |i: &&&InstanceView| view.services.get(&i.service).is_some_and(|s| s.exclusive);
    let mut out = vec![(format!("{} there", words::count(here.len(), "instance")), Role::Base)];
    for i in here.iter().filter(exclusive).take(6) {
        out.push((format!("exclusive: {} ({}): {}", i.slot, i.priority, i.why.verdict), Role::Warning));
    }
    let s = &view.standing;
    if node.voter && s.voters_heard > 0 {
        let counted = node.observed && node.state == quorate_core::view::NodeState::Alive;
        let left = if counted { s.voters_heard - 1 } else { s.voters_heard };
        let (text, role) = if left < s.voters_needed {
            (
                format!(
                    "QUORUM WOULD BE LOST: {left} of {} voters left, {} needed",
                    s.voters, s.voters_needed
                ),
                Role::Critical,
            )
        } else {
            let spare = left - s.voters_needed;
            (format!("voters left {left} of {}: quorum stays, {spare} to spare", s.voters), Role::Base)
        };
        out.push((text, role));
    }
    if node.leader {
        out.push(("it leads: another will be elected".into(), Role::Warning));
    }
    out
}

fn fence(app: &mut App, by: Chord, power: bool) {
    let (nodes, Some(view)) = (nodes(app), app.view.clone()) else { return };
    let [name] = &nodes[..] else {
        app.say(Level::Warning, "one node at a time: unmark the others (U)");
        return;
    };
    let Some(node) = view.nodes.get(name) else { return };
    let because = node.why.because.iter().map(|b| (b.clone(), Role::Base)).collect();
    let methods = if node.fence_methods.is_empty() {
        vec![(
            "none: this will be refused; attest (A) once you made sure yourself".to_owned(),
            Role::Critical,
        )]
    } else {
        node.fence_methods.iter().map(|m| (m.clone(), Role::Base)).collect()
    };
    let (title, deed, undo) = if power {
        let undo = "none after power-off; the node can rejoin by itself when it is on again";
        (format!("FENCE {name}: power it off and prove it"), Deed::Fence(name.clone()), undo)
    } else {
        let undo = "none: what starts elsewhere on your word runs twice if you are wrong";
        (format!("ATTEST {name}: you made sure that it is dead"), Deed::Attest(name.clone()), undo)
    };
    let mut dialog =
        Dialog::new(title, Risk::NameReason, by, vec![deed]).part("BLAST RADIUS", blast(&view, node));
    dialog.name = name.to_string();
    let mut after = vec![("EVIDENCE", why::evidence(&node.why)), ("BECAUSE", because)];
    if power {
        after.insert(0, ("BY", methods));
    }
    ask_with(app, dialog, &[name.to_string()], undo, after);
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

fn demo(app: &mut App, action: DemoAction, by: Chord) -> Vec<Out> {
    let (nodes, Some(view)) = (nodes(app), app.view.clone()) else { return Vec::new() };
    let deeds: Vec<Deed> = nodes.iter().map(|node| Deed::Demo(action, node.clone())).collect();
    let risk = match action {
        DemoAction::Kill | DemoAction::Freeze => Risk::Yes,
        DemoAction::Thaw | DemoAction::Restart => Risk::None,
    };
    let mut dialog = Dialog::new(format!("DEMO {}", action.word().to_uppercase()), risk, by, deeds);
    if risk == Risk::None && nodes.len() == 1 {
        return confirmed(app, dialog);
    }
    dialog.risk = Risk::Yes;
    for node in nodes.iter().filter_map(|name| view.nodes.get(name)) {
        dialog = dialog.part(&format!("BLAST RADIUS of {}", node.name), blast(&view, node));
    }
    let about: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    let undo = if action == DemoAction::Freeze { "K t thaws it" } else { "K r starts it again" };
    ask(app, dialog, &about, undo);
    Vec::new()
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

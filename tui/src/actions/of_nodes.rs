//! Questions about nodes: drain, cordon, fence, attest, and in a demo to kill, freeze, thaw, restart one.

use quorate_core::command::Command;
use quorate_core::ids::NodeId;
use quorate_core::view::{ClusterView, InstanceView, Level, NodeState, NodeView, OperationKindView};

use super::{ask, ask_with, confirmed, deed, nodes};
use crate::app::App;
use crate::commands::Risk;
use crate::keymap::Chord;
use crate::msg::{DemoAction, Out};
use crate::popups::Popup;
use crate::popups::dialog::{Deed, Dialog};
use crate::popups::why;
use crate::theme::Role;
use crate::words;

/// Moves of one drain at a time.
const DRAIN_AT_ONCE: u32 = 2;

pub(super) fn hosted<'a>(view: &'a ClusterView, node: &NodeId) -> Vec<&'a InstanceView> {
    view.instances.values().filter(|i| i.node.as_ref() == Some(node)).map(|i| &**i).collect()
}

pub(super) fn drain(app: &mut App, by: Chord) {
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
pub(super) fn cordon(app: &mut App, on: bool, by: Chord) -> Vec<Out> {
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
            o.kind == OperationKindView::Drain
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
        let counted = node.observed && node.state == NodeState::Alive;
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

/// The one node that a question is about.
fn single(app: &mut App) -> Option<NodeId> {
    match <[NodeId; 1]>::try_from(nodes(app)) {
        Ok([node]) => Some(node),
        Err(_) => {
            app.say(Level::Warning, "one node at a time: unmark the others (U)");
            None
        }
    }
}

/// The planner is asked what it leads to; its answer is what the question shows.
pub(super) fn fence(app: &mut App, by: Chord) -> Vec<Out> {
    let (Some(name), Some(view)) = (single(app), app.view.clone()) else { return Vec::new() };
    let Some(node) = view.nodes.get(&name) else { return Vec::new() };
    let title = crate::popups::fence::title(node, &app.theme);
    let mut dialog = Dialog::new(title, Risk::NameReason, by, vec![Deed::Fence(name.clone())]);
    let (ask, out) = crate::popups::fence::ask(app, &name);
    dialog.fence = Some(ask);
    dialog.name = name.to_string();
    app.popups.push(Popup::Dialog(Box::new(dialog)));
    vec![out]
}

pub(super) fn attest(app: &mut App, by: Chord) {
    let (Some(name), Some(view)) = (single(app), app.view.clone()) else { return };
    let Some(node) = view.nodes.get(&name) else { return };
    let because = node.why.because.iter().map(|b| (b.clone(), Role::Base)).collect();
    let title = format!("ATTEST {name}: you made sure that it is dead");
    let undo = "none: what starts elsewhere on your word runs twice if you are wrong";
    let mut dialog = Dialog::new(title, Risk::NameReason, by, vec![Deed::Attest(name.clone())])
        .part("BLAST RADIUS", blast(&view, node));
    dialog.name = name.to_string();
    let after = vec![("EVIDENCE", why::evidence(&node.why, app.age_ms())), ("BECAUSE", because)];
    ask_with(app, dialog, &[name.to_string()], undo, after);
}

/// Asks its devices for the power state; nothing is switched.
pub(super) fn test_fence(app: &mut App) -> Vec<Out> {
    let Some(node) = single(app) else { return Vec::new() };
    if app.node(&node).is_some_and(|n| n.fencing.levels.is_empty()) {
        app.say(Level::Warning, format!("{node} has no fence method to test"));
        return Vec::new();
    }
    let id = app.next_id(format!("test the fence devices of {node}"));
    app.say(Level::Notice, format!("asked the fence devices of {node} for its power state"));
    vec![Out::TestFence { id, node }]
}

pub(super) fn demo(app: &mut App, action: DemoAction, by: Chord) -> Vec<Out> {
    let (nodes, Some(view)) = (nodes(app), app.view.clone()) else { return Vec::new() };
    let deeds: Vec<Deed> = nodes.iter().map(|node| Deed::Demo(action, node.clone())).collect();
    let risk = match action {
        DemoAction::Kill | DemoAction::Freeze | DemoAction::Cut => Risk::Yes,
        DemoAction::Thaw | DemoAction::Heal | DemoAction::Restart => Risk::None,
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
    let undo = match action {
        DemoAction::Freeze => "K t thaws it",
        DemoAction::Cut => "K h connects it again",
        DemoAction::Kill | DemoAction::Thaw | DemoAction::Heal | DemoAction::Restart => "K r starts it again",
    };
    ask(app, dialog, &about, undo);
    Vec::new()
}

//! Where to move a copy: the nodes with what speaks for and against each. Only picks; the question
//! whether to do it comes after.

use quorate_core::ids::{NodeId, SlotId};
use quorate_core::view::{ClusterView, Level, NodeState, NodeView};
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::Popup;
use crate::actions;
use crate::app::App;
use crate::canvas::{Canvas, centred};
use crate::keymap::Chord;
use crate::msg::Out;
use crate::rows::{level_role, nodes};
use crate::theme::Role;
use crate::words;

/// One place to move to.
#[derive(Debug, Clone)]
struct Choice {
    node: Option<NodeId>,
    level: Level,
    text: String,
}

/// A choice being made.
#[derive(Debug)]
pub(crate) struct Picker {
    slot: SlotId,
    from: Option<NodeId>,
    choices: Vec<Choice>,
    at: usize,
}

impl Picker {
    pub fn new(slot: SlotId, from: Option<NodeId>, view: &ClusterView) -> Picker {
        let mut choices = vec![Choice {
            node: None,
            level: Level::Ok,
            text: "let the planner choose the best node".into(),
        }];
        let need = view.services.get(&slot.service).map(|s| s.spec.resources).unwrap_or_default();
        let others = view.nodes.values().filter(|n| Some(&n.name) != from.as_ref());
        let mut listed: Vec<Choice> = others
            .map(|n| {
                let (level, text) = judge(n, need.cpu.0, need.memory.0);
                Choice { node: Some(n.name.clone()), level, text }
            })
            .collect();
        listed.sort_by_key(|choice| (choice.level, choice.node.clone()));
        choices.extend(listed);
        Picker { slot, from, choices, at: 0 }
    }
}

/// What speaks against a node. The planner decides; this only says what is plain to see.
fn judge(n: &NodeView, cpu: u32, memory: u64) -> (Level, String) {
    let r = &n.resources;
    let free_cpu = r.capacity.cpu.0.saturating_sub(r.reserved.cpu.0);
    let free_memory = r.capacity.memory.0.saturating_sub(r.reserved.memory.0);
    let free = format!(
        "free {} cores, {}",
        words::cores(quorate_core::units::CpuMillis(free_cpu)),
        words::memory(quorate_core::units::MemoryMib(free_memory))
    );
    if n.state != NodeState::Alive {
        (Level::Critical, format!("it is {}", nodes::word(n)))
    } else if n.witness {
        (Level::Critical, "a witness hosts nothing".into())
    } else if !n.schedulable {
        (Level::Warning, "nothing new is placed there (cordoned)".into())
    } else if free_cpu < cpu || free_memory < memory {
        (Level::Warning, format!("does not fit: {free}"))
    } else {
        (Level::Ok, format!("{free}, {}", words::count(n.instances as usize, "instance")))
    }
}

pub(crate) fn key(app: &mut App, mut picker: Picker, chord: Chord) -> Vec<Out> {
    if chord.is("esc") || chord.is("q") {
        return Vec::new();
    }
    if chord.is("enter") {
        let choice = &picker.choices[picker.at.min(picker.choices.len() - 1)];
        if choice.level < Level::Critical {
            let (slot, from, to) = (picker.slot.clone(), picker.from.clone(), choice.node.clone());
            actions::ask_migrate(app, slot, from, to, chord);
            return Vec::new();
        }
        let text =
            format!("{} cannot be chosen: {}", choice.node.as_ref().map_or("", |n| n.as_str()), choice.text);
        app.say(Level::Warning, text);
    } else if chord.is("j") || chord.is("down") {
        picker.at = (picker.at + 1).min(picker.choices.len() - 1);
    } else if chord.is("k") || chord.is("up") {
        picker.at = picker.at.saturating_sub(1);
    }
    app.popups.push(Popup::Picker(picker));
    Vec::new()
}

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, picker: &Picker) {
    let height = (picker.choices.len() as u16).saturating_add(2).min(area.height.saturating_sub(2)).max(3);
    let from = picker.from.as_ref().map_or_else(String::new, |n| format!(" from {n}"));
    let title = format!("MOVE {}{from} TO   enter picks, esc cancels", picker.slot);
    let inner = canvas.boxed(centred(area, 72, height), &title, Role::Accent);
    let rows = usize::from(inner.height);
    let skip = picker.at.saturating_sub(rows.saturating_sub(1));
    for (row, choice) in picker.choices.iter().skip(skip).take(rows).enumerate() {
        let name = choice.node.as_ref().map_or("*", |n| n.as_str());
        let line = Line::from(vec![
            canvas.span(format!("{name:<14} "), Role::Title),
            canvas.span(choice.text.clone(), level_role(choice.level)),
        ]);
        canvas.line(inner, row as u16, &line);
        if skip + row == picker.at {
            canvas.tint(Rect { y: inner.y + row as u16, height: 1, ..inner }, Role::Selected);
        }
    }
}

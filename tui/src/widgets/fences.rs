//! Fencing on the first screen: a line for each node that is being fenced, is blocked or will be, and whether
//! anything can be done about it from here.

use std::sync::Arc;

use quorate_core::view::{ClusterView, Level, NodeState, NodeView};
use ratatui::text::Line;

use crate::canvas::Canvas;
use crate::rows::{fencing, level_role};
use crate::theme::Role;
use crate::words;

/// Nodes that get a line.
const MOST: usize = 12;

/// Empty where nothing is at hand.
pub(crate) fn lines(
    canvas: &Canvas<'_>,
    view: &ClusterView,
    age_ms: u64,
    width: usize,
) -> Vec<Line<'static>> {
    let mut at_hand: Vec<(Level, String)> = Vec::new();
    // Of a thousand nodes nearly all are well: nothing is put into words for them.
    let concerned = |node: &&Arc<NodeView>| {
        let f = &node.fencing;
        node.state != NodeState::Alive
            || f.operation.is_some()
            || f.waiting.is_some()
            || f.expected_ms.is_some()
    };
    for node in view.nodes.values().filter(concerned) {
        let (level, text) = fencing::line(node, view, age_ms);
        if level > Level::Ok {
            let by = match node.fencing.levels.is_empty() || node.fencing.operation.is_some() {
                true => String::new(),
                false => format!("{}: ", fencing::levels(&node.fencing)),
            };
            let named = text.starts_with(node.name.as_str());
            at_hand.push((level, if named { text } else { format!("{} {by}{text}", node.name) }));
        }
    }
    at_hand.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    let split = view.links.sides.len() > 1;
    if at_hand.is_empty() && !split {
        return Vec::new();
    }
    let more = at_hand.len().saturating_sub(MOST);
    let seen = view.standing.quorum;
    let mut out: Vec<Line<'static>> = Vec::new();
    let mut say = |text: &str, role: Role| {
        for (at, part) in words::wrap(&words::clean(text), width.saturating_sub(4)).into_iter().enumerate() {
            let inset = if at == 0 { " " } else { "   " };
            out.push(Line::from(canvas.span(format!("{inset}{part}"), role)));
        }
    };
    for (level, text) in at_hand.iter().take(MOST) {
        say(text, if seen { level_role(*level) } else { Role::Inferred });
    }
    if more > 0 {
        say(&format!("and {more} more (8)"), Role::Dim);
    }
    let (text, role) = from_here(view);
    say(&text, role);
    out
}

/// May anybody be fenced from here?
pub(crate) fn from_here(view: &ClusterView) -> (String, Role) {
    let s = &view.standing;
    match s.quorum {
        true => (
            format!(
                "You can fence from here (F): quorum, {} of {} voters, term {}.",
                s.voters_heard, s.voters, s.term
            ),
            Role::Base,
        ),
        false => (
            format!(
                "You cannot fence from here: no quorum, {} of {} voters heard, {} needed.",
                s.voters_heard, s.voters, s.voters_needed
            ),
            Role::Critical,
        ),
    }
}

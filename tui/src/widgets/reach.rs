//! Who reaches whom, drawn small: the sides of a split, and a matrix of nodes. What was told by others, not seen
//! from here, is dim and has a question mark.

use quorate_core::ids::NodeId;
use quorate_core::view::{ClusterView, LinkRow, SideView};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::canvas::Canvas;
use crate::rows::links::rtt;
use crate::theme::Role;
use crate::words;

/// Wide enough for `down 0:59?`.
const CELL: usize = 11;
/// More nodes than this are told by the table.
const MOST: usize = 40;

/// A heading, a line for each side, and what that means for who looks.
pub(crate) fn sides(canvas: &Canvas<'_>, view: &ClusterView, age_ms: u64) -> Vec<Line<'static>> {
    let names = |side: &SideView| {
        let names: Vec<&str> = side.nodes.iter().map(NodeId::as_str).collect();
        names.join(" ")
    };
    let list = &view.links.sides;
    let wide = list.iter().map(|side| names(side).width()).max().unwrap_or_default().clamp(5, 40);
    let heading = format!(" SIDE  {:wide$}  VOTERS  QUORUM  LEADER", "NODES");
    let mut out = vec![Line::from(canvas.span(heading, Role::Dim))];
    for side in list {
        let me = if side.mine { " me" } else { "" };
        let doubt = if side.observed { "" } else { "?" };
        let nodes = words::fit(&names(side), wide, canvas.glyphs().cut);
        let quorum = if side.quorum { format!("YES{doubt}") } else { "no".to_owned() };
        let leader = match (&side.leader, side.term) {
            // Never a role alone: whoever still takes itself for the leader there decides nothing.
            (Some(leader), _) if !side.quorum => format!("{leader}? accepts nothing"),
            (Some(leader), Some(term)) => format!("{leader}{doubt} term {term}"),
            (Some(leader), None) => format!("{leader}{doubt}"),
            (None, _) => "none".to_owned(),
        };
        let heard = side.heard_ms.map(|ms| ms + age_ms).filter(|ms| !side.mine && *ms >= words::FRESH_MS);
        let heard = heard.map_or_else(String::new, |ms| format!(", heard {}", words::ago(ms)));
        let base = if side.observed { Role::Base } else { Role::Inferred };
        let (mark, role) = if side.quorum {
            (canvas.glyphs().ok, if side.observed { Role::Ok } else { Role::Inferred })
        } else {
            (canvas.glyphs().critical, Role::Critical)
        };
        out.push(Line::from(vec![
            canvas.span(format!(" {:<5} ", format!("{}{me}", side.name)), Role::Title),
            canvas.span(
                format!("{nodes:wide$}  {:>6}  ", format!("{}/{}", side.voters, side.voters_total)),
                base,
            ),
            canvas.span(format!("{:<6}  ", format!("{mark} {quorum}")), role),
            canvas.span(format!("{leader}{heard}"), base),
        ]));
    }
    out
}

/// The columns that a matrix of all nodes takes.
pub(crate) fn matrix_width(view: &ClusterView) -> u16 {
    u16::try_from(lead(view) + 4 + CELL * view.nodes.len().min(MOST)).unwrap_or(u16::MAX)
}

fn lead(view: &ClusterView) -> usize {
    view.nodes.keys().map(|name| name.as_str().width() + 3).max().unwrap_or_default().clamp(8, 16)
}

/// Who reaches whom on one segment, or on the best of all. Rows that have nothing wrong are left out where there
/// are too many.
pub(crate) fn matrix(
    canvas: &Canvas<'_>,
    view: &ClusterView,
    segment: Option<&str>,
    age_ms: u64,
    (width, height): (u16, u16),
) -> Vec<Line<'static>> {
    let names: Vec<&NodeId> = view.nodes.keys().take(MOST).collect();
    let lead = lead(view);
    let room = usize::from(width).saturating_sub(lead + 2) / CELL;
    let shown = names.len().min(room);
    let mut heading = vec![canvas.span(format!(" {:lead$} ", "from to"), Role::Dim)];
    for to in &names[..shown] {
        heading.push(
            canvas.span(
                format!("{:CELL$}", words::fit(to.as_str(), CELL - 1, canvas.glyphs().cut)),
                Role::Title,
            ),
        );
    }
    if shown < names.len() {
        heading.push(canvas.span(format!("+{}", names.len() - shown), Role::Dim));
    }
    let mut out = vec![Line::from(heading)];
    for from in names.iter().take(usize::from(height).saturating_sub(1)) {
        let me = if **from == view.me { " me" } else { "" };
        let name = words::fit(&format!("{from}{me}"), lead, canvas.glyphs().cut);
        let mut spans = vec![canvas.span(format!(" {name:lead$} "), Role::Title)];
        spans.extend(names[..shown].iter().map(|to| cell(canvas, view, segment, age_ms, from, to)));
        out.push(Line::from(spans));
    }
    out
}

fn cell(
    canvas: &Canvas<'_>,
    view: &ClusterView,
    segment: Option<&str>,
    age_ms: u64,
    from: &NodeId,
    to: &NodeId,
) -> Span<'static> {
    let of =
        |row: &&LinkRow| row.from == *from && row.to == *to && segment.is_none_or(|name| row.segment == name);
    let ways: Vec<&LinkRow> = view.links.rows.iter().filter(of).collect();
    let good = ways.iter().filter(|row| row.ok).count();
    let seen = ways.iter().any(|row| row.observed);
    let doubt = if seen { "" } else { "?" };
    let (text, role) = if from == to {
        (".".to_owned(), Role::Dim)
    } else if ways.is_empty() {
        ("?".to_owned(), Role::Inferred)
    } else if good == 0 {
        let since = ways.iter().filter_map(|row| row.down_ms).min();
        let since = since.map_or_else(String::new, |ms| format!(" {}", words::span(ms + age_ms)));
        (format!("down{since}{doubt}"), Role::Critical)
    } else if good < ways.len() {
        (format!("{good} of {}{doubt}", ways.len()), Role::Warning)
    } else {
        let best = ways
            .iter()
            .filter_map(|row| row.rtt_ms)
            .min()
            .map_or_else(String::new, |ms| format!(" {}", rtt(ms)));
        (format!("ok{best}{doubt}"), if seen { Role::Ok } else { Role::Inferred })
    };
    canvas.span(format!("{:CELL$}", words::fit(&text, CELL - 1, canvas.glyphs().cut)), role)
}

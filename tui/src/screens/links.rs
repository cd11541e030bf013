//! Who reaches whom: the sides, what the detector makes of it, a matrix for each segment where there is room, and
//! every directed pair as a table.

use quorate_core::ids::NodeId;
use quorate_core::view::{ClusterView, LinkVerdict};
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::pane;
use crate::app::App;
use crate::canvas::{Canvas, split_top};
use crate::table::TableId;
use crate::theme::Role;
use crate::widgets::reach;
use crate::words;

/// Rows that the table of pairs keeps at least.
const TABLE: u16 = 7;

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) {
    let age = app.age_ms();
    let mut rest = area;
    let sides = reach::sides(canvas, view, age);
    rest = part(canvas, rest, "SIDES: who can decide", &sides);
    let verdicts = verdicts(canvas, view, age, usize::from(area.width));
    rest = part(canvas, rest, "VERDICTS: what the detector makes of it", &verdicts);
    for segment in &view.links.segments {
        let tall = u16::try_from(view.nodes.len()).unwrap_or(u16::MAX).saturating_add(2);
        if tall + TABLE > rest.height {
            break;
        }
        let lines = reach::matrix(canvas, view, Some(segment), age, (rest.width, tall - 1));
        rest = part(canvas, rest, &format!("SEGMENT {segment}: round trips in ms"), &lines);
    }
    let arbiters = arbiters(canvas, view, age);
    if !arbiters.is_empty() {
        rest = part(canvas, rest, "ARBITERS: no nodes, but they should answer", &arbiters);
    }
    let left_out = match view.links.left_out {
        0 => String::new(),
        n => format!(", {n} that work are left out"),
    };
    let title = format!("7 LINKS: what is down first{left_out}");
    pane(canvas, rest, app, &app.ctx(view), TableId::Links, &title, "no link is known yet");
}

/// A titled part as high as its lines, as far as that leaves the table its rows.
fn part(canvas: &mut Canvas<'_>, area: Rect, title: &str, lines: &[Line<'_>]) -> Rect {
    let height = (lines.len() as u16).saturating_add(1).min(area.height.saturating_sub(TABLE));
    if height < 2 {
        return area;
    }
    let (here, rest) = split_top(area, height);
    let inner = canvas.rule(here, title, "", false);
    canvas.lines(inner, lines, 0);
    rest
}

fn verdicts(canvas: &Canvas<'_>, view: &ClusterView, age_ms: u64, width: usize) -> Vec<Line<'static>> {
    let mut out = Vec::new();
    if view.links.verdicts.is_empty() {
        out.push(Line::from(canvas.span(" nothing is wrong between the nodes", Role::Dim)));
    }
    for verdict in &view.links.verdicts {
        let text = words::fit(&format!(" {}", headline(verdict, age_ms)), width, canvas.glyphs().cut);
        out.push(Line::from(canvas.span(text, Role::Warning)));
        for evidence in &verdict.evidence {
            for part in words::wrap(&words::clean(evidence), width.saturating_sub(4)).into_iter().take(2) {
                out.push(Line::from(canvas.span(format!("   {part}"), Role::Base)));
            }
        }
    }
    out
}

/// A verdict with its sides, its age and who says so.
pub(crate) fn headline(verdict: &LinkVerdict, age_ms: u64) -> String {
    let list = |nodes: &[NodeId]| nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" ");
    let sides: Vec<String> = verdict.sides.iter().map(|side| format!("{{{}}}", list(side))).collect();
    let segment = verdict.segment.as_ref().map_or_else(String::new, |name| format!(" on {name}"));
    let since = words::span(verdict.since_ms.saturating_add(age_ms));
    let kind = verdict.kind.replace('_', " ").to_uppercase();
    let accusers = match verdict.accusers.len() {
        0 => String::new(),
        _ => format!("; seen by {}", list(&verdict.accusers)),
    };
    format!("{kind}{segment} {} for {since}{accusers}", sides.join(" | "))
}

fn arbiters(canvas: &Canvas<'_>, view: &ClusterView, age_ms: u64) -> Vec<Line<'static>> {
    let row = |arbiter: &quorate_core::view::ArbiterRow| {
        let doubt = if arbiter.observed { "" } else { "?" };
        let word = if arbiter.ok { "answers" } else { "SILENT" };
        let told = match arbiter.age_ms + age_ms {
            ms if ms < words::FRESH_MS => String::new(),
            ms => format!(" (told {})", words::ago(ms)),
        };
        let role = match (arbiter.ok, arbiter.observed) {
            (false, _) => Role::Critical,
            (true, true) => Role::Ok,
            (true, false) => Role::Inferred,
        };
        Line::from(canvas.span(format!(" {} from {}: {word}{doubt}{told}", arbiter.name, arbiter.from), role))
    };
    view.links.arbiters.iter().map(row).collect()
}

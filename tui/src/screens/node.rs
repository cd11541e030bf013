//! One node: what it is and has, what runs there, what happened there.

use quorate_core::ids::NodeId;
use quorate_core::view::{ClusterView, NodeView};
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::pane;
use crate::app::{App, Pane};
use crate::canvas::{Canvas, split_top};
use crate::popups::why::{next, section};
use crate::rows::{Ctx, level_role, nodes};
use crate::table::TableId;
use crate::theme::{Role, Theme};
use crate::words;

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView, name: &NodeId) {
    let Some(n) = view.nodes.get(name) else {
        canvas.text(
            area,
            0,
            &format!("  node {name} is not part of the cluster any more; esc goes back"),
            Role::Dim,
        );
        return;
    };
    let ctx = app.ctx(view);
    let head = head(canvas, n, &ctx, usize::from(area.width));
    let (top, rest) = split_top(area, (head.len() as u16 + 1).min(area.height / 2));
    let inner = canvas.rule(top, &format!("2 NODE {name}"), "tab: instances, facts, events", false);
    canvas.lines(inner, &head, 0);
    match app.pane() {
        Pane::Table(TableId::NodeEvents) => {
            pane(canvas, rest, app, &ctx, TableId::NodeEvents, "EVENTS", "nothing recorded about it");
        }
        Pane::Facts => {
            let inner = canvas.rule(rest, "FACTS", "", true);
            let lines = facts(canvas.theme, n, usize::from(area.width));
            canvas.lines(inner, &lines, app.place.scroll);
        }
        _ => {
            let empty = match (n.witness, n.schedulable) {
                (true, _) => "a witness votes and hosts nothing",
                (false, false) => "nothing runs there; nothing new is placed there either (u uncordons)",
                (false, true) => "nothing runs there yet",
            };
            pane(canvas, rest, app, &ctx, TableId::NodeInstances, "INSTANCES", empty);
        }
    }
}

fn head(canvas: &Canvas<'_>, n: &NodeView, ctx: &Ctx<'_>, width: usize) -> Vec<Line<'static>> {
    let level = nodes::level(n);
    let state = nodes::state(n, ctx);
    let raft = nodes::raft(n, ctx);
    let places = nodes::places(n, ctx);
    let heard = n.heard_ms.map_or_else(|| "never".into(), |ms| words::ago(ms + ctx.age_ms));
    let mut out = vec![Line::from(vec![
        Span::raw("  "),
        canvas.span(state.text, state.role),
        canvas.span("   raft ", Role::Dim),
        canvas.span(raft.text, raft.role),
        canvas.span("   heard ", Role::Dim),
        canvas.span(heard, Role::Base),
        canvas.span("   places ", Role::Dim),
        canvas.span(places.text, places.role),
        canvas.span("   lease epoch ", Role::Dim),
        canvas.span(n.lease_epoch.to_string(), Role::Base),
    ])];
    let u = &n.resources.usage;
    let bar = |label: &str, share: u64, text: String| {
        vec![
            canvas.span(format!("  {label} "), Role::Dim),
            canvas.span(nodes::gauge(share, 12, ctx.glyphs), nodes::share_role(share)),
            canvas.span(format!(" {text}"), Role::Dim),
        ]
    };
    let of = |a: String, b: String| format!("{a} of {b}");
    let mut bars = bar("cpu", nodes::cpu_share(n), of(words::cores(u.cpu_used), words::cores(u.cpu_total)));
    bars.extend(bar(
        "memory",
        nodes::memory_share(n),
        of(words::memory(u.memory_used), words::memory(u.memory_total)),
    ));
    if width >= 110 {
        bars.extend(bar(
            "disk",
            nodes::disk_share(n),
            of(words::memory(u.disk_used), words::memory(u.disk_total)),
        ));
    }
    out.push(Line::from(bars));
    let mut lines = Vec::new();
    section(&mut lines, canvas.theme, width, "", &[(format!("why: {}", n.why.verdict), level_role(level))]);
    section(&mut lines, canvas.theme, width, "", &next(&n.why, ctx.age_ms));
    out.extend(lines.into_iter().take(4));
    out
}

/// Everything else there is to know, in lines.
pub(crate) fn facts(theme: &Theme, n: &NodeView, width: usize) -> Vec<Line<'static>> {
    let mut out = Vec::new();
    let pid = |pid: Option<u32>| pid.map_or_else(|| "unknown".into(), |pid| pid.to_string());
    let base = |text: String| (text, Role::Base);
    let mut process = vec![
        base(format!("node pid {}, guard pid {}, release {}", pid(n.pid), pid(n.guard_pid), n.release)),
        base(format!("boot {}, raft id {}, weight {}", n.boot_id, n.raft_id, n.weight)),
        base(format!("reserved {}", nodes::reserved(n))),
    ];
    process.extend(n.endpoints.iter().map(|(name, at)| base(format!("{name} at {at}"))));
    section(&mut out, theme, width, "PROCESS", &process);
    let segments: Vec<_> = n.segments.iter().map(|s| base(s.to_string())).collect();
    section(&mut out, theme, width, "SEGMENTS", &segments);
    let executors: Vec<_> = n
        .executors
        .iter()
        .map(|e| match &e.unavailable {
            None => base(format!("{} {}: {}", e.kind, e.version, e.capabilities.join(", "))),
            Some(u) => (format!("{} cannot be used: {}; {}", e.kind, u.why, u.remedy), Role::Warning),
        })
        .collect();
    section(&mut out, theme, width, "EXECUTORS", &executors);
    let mut fence: Vec<_> = n.fence_methods.iter().map(|method| base(method.clone())).collect();
    if fence.is_empty() {
        fence.push((
            "none: if it is lost, its exclusive services wait for it or for your attestation".into(),
            Role::Warning,
        ));
    }
    section(&mut out, theme, width, "FENCING", &fence);
    let labels: Vec<_> = n.labels.iter().map(|(key, value)| base(format!("{key} = {value}"))).collect();
    section(&mut out, theme, width, "LABELS", &labels);
    let because: Vec<_> = n.why.because.iter().map(|b| base(format!("- {b}"))).collect();
    section(&mut out, theme, width, "BECAUSE", &because);
    out
}

//! What stands in the question before a node is fenced: allowed or not and by which quorum, what loses its
//! node and where it would go, what it rests on, what happens otherwise, whether there is a way back. The
//! planner is asked for it, and what is confirmed is bound to the revision of its answer.

use quorate_core::ids::NodeId;
use quorate_core::view::{ClusterView, EvidenceView, FenceTerms, NodeView, fence_terms};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::Popup;
use super::dialog::Dialog;
use super::why::section;
use crate::app::App;
use crate::msg::{Foresight, Loss, Out};
use crate::theme::{Role, Theme};
use crate::words;

/// The planner is not asked more often.
const PAUSE_MS: u64 = 1_000;
/// An answer older than this is asked for again even if no revision came: time alone changes it.
const OLD_MS: u64 = 5_000;
/// An open question to the planner is given up after this.
const PATIENCE_MS: u64 = 20_000;
/// Of each kind of copy so many are named.
const MOST_NAMED: usize = 4;
/// Of what happens by itself so much is listed.
const MOST_AHEAD: usize = 8;
/// From this width on, blast radius and evidence stand side by side.
const BESIDE: usize = 92;

/// The planner's part of the question.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub node: NodeId,
    /// The number of the open question to the planner, and when it was asked.
    asked: Option<u64>,
    asked_ms: u64,
    answer: Option<Result<Foresight, String>>,
    answered_ms: u64,
}

/// Begins to ask.
pub(crate) fn ask(app: &mut App, node: &NodeId) -> (Ask, Out) {
    let id = app.next_id(format!("what fencing {node} leads to"));
    let ask = Ask { node: node.clone(), asked: Some(id), asked_ms: app.now_ms, answer: None, answered_ms: 0 };
    (ask, Out::Foresee { id, node: node.clone() })
}

/// Asks the planner anew once the cluster moved on. Not while the deed is armed: what is armed is what is shown.
pub(crate) fn ask_again(app: &mut App) -> Vec<Out> {
    let (now, revision) = (app.now_ms, app.view.as_ref().map(|view| view.revision));
    let Some(Popup::Dialog(dialog)) = app.popups.last() else { return Vec::new() };
    let Some(ask) = dialog.fence.as_ref().filter(|_| dialog.armed_left(now).is_none()) else {
        return Vec::new();
    };
    let since = now.saturating_sub(ask.asked_ms);
    let moved = match &ask.answer {
        Some(Ok(answer)) => Some(answer.revision) < revision || now.saturating_sub(ask.answered_ms) > OLD_MS,
        Some(Err(_)) | None => true,
    };
    if since < PAUSE_MS || !moved || (ask.asked.is_some() && since < PATIENCE_MS) {
        return Vec::new();
    }
    let node = ask.node.clone();
    let id = app.next_id(format!("what fencing {node} leads to"));
    if let Some(Popup::Dialog(dialog)) = app.popups.last_mut()
        && let Some(ask) = &mut dialog.fence
    {
        (ask.asked, ask.asked_ms) = (Some(id), now);
    }
    vec![Out::Foresee { id, node }]
}

/// Takes the planner's answer. One that comes after arming is let go.
pub(crate) fn foreseen(app: &mut App, id: u64, outcome: Result<Foresight, String>) {
    let now = app.now_ms;
    let waits = |popup: &&mut Popup| matches!(popup, Popup::Dialog(dialog) if dialog.fence.as_ref().is_some_and(|ask| ask.asked == Some(id)));
    let Some(Popup::Dialog(dialog)) = app.popups.iter_mut().find(waits) else { return };
    let armed = dialog.armed_left(now).is_some();
    let Some(ask) = &mut dialog.fence else { return };
    ask.asked = None;
    if armed {
        return;
    }
    if let Ok(answer) = &outcome {
        dialog.expected = Some(answer.revision);
    }
    (ask.answer, ask.answered_ms) = (Some(outcome), now);
}

/// Why this cannot be confirmed, whatever is typed.
pub(crate) fn hindrance(app: &App, dialog: &Dialog) -> Option<String> {
    let ask = dialog.fence.as_ref()?;
    let Some((view, node)) = app.view.as_ref().and_then(|view| Some((view, view.nodes.get(&ask.node)?)))
    else {
        return Some(format!("{} is not part of the cluster any more", ask.node));
    };
    let terms = fence_terms(view, node);
    match &ask.answer {
        _ if !terms.allowed => Some(format!("not allowed: {}", terms.allowance)),
        None => Some("the planner has not answered yet what it leads to".to_owned()),
        Some(Err(why)) => Some(format!("not known what it leads to: {why}")),
        Some(Ok(_)) => None,
    }
}

/// All of it in lines.
pub(crate) fn lines(app: &App, ask: &Ask, width: usize) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let mut out = Vec::new();
    let Some((view, node)) = app.view.as_ref().and_then(|view| Some((view, view.nodes.get(&ask.node)?)))
    else {
        section(
            &mut out,
            theme,
            width,
            "",
            &[("it is not part of the cluster any more".into(), Role::Critical)],
        );
        return out;
    };
    let terms = fence_terms(view, node);
    let (word, role) = if terms.allowed { ("ALLOWED", Role::Ok) } else { ("NOT ALLOWED", Role::Critical) };
    section(&mut out, theme, width, "", &[(clean(&format!("{word}: {}", terms.allowance)), role)]);
    section(&mut out, theme, width, "", &by(&terms));
    section(&mut out, theme, width, "", &[(clean(&format!("UNDO: {}", terms.undo)), Role::Base)]);
    let age = app.age_ms();
    if width >= BESIDE {
        let column = width / 2;
        let mut left = Vec::new();
        section(&mut left, theme, column - 2, "BLAST RADIUS", &blast(ask, node));
        let mut right = Vec::new();
        section(&mut right, theme, width - column, "BECAUSE", &because(&terms));
        let heading = if node.why.evidence.is_empty() { "" } else { "EVIDENCE by other ways, one suffices" };
        section(&mut right, theme, width - column, heading, &evidence(view, node, age, width - column));
        out.extend(beside(left, right, column));
        section(&mut out, theme, width, "IF YOU DO NOTHING", &otherwise(app, ask));
    } else {
        section(&mut out, theme, width, "BLAST RADIUS", &blast(ask, node));
        // On a small screen the first reason; all of them with w.
        section(&mut out, theme, width, "", &because(&terms).into_iter().take(2).collect::<Vec<_>>());
        let heading = if node.why.evidence.is_empty() { "" } else { "EVIDENCE by other ways, one suffices" };
        section(&mut out, theme, width, heading, &evidence(view, node, age, width));
        section(&mut out, theme, width, "IF YOU DO NOTHING", &otherwise(app, ask));
    }
    if let Some(Ok(answer)) = &ask.answer {
        let lines = |texts: &[String], role| texts.iter().map(|text| (clean(text), role)).collect::<Vec<_>>();
        section(&mut out, theme, width, "WILL BE DONE, in order", &lines(&answer.actions, Role::Base));
        section(&mut out, theme, width, "AND WILL WAIT", &lines(&answer.waiting, Role::Warning));
    }
    out
}

/// What agents and reasons say comes from outside.
fn clean(text: &str) -> String {
    words::clean(text)
}

fn by(terms: &FenceTerms) -> Vec<(String, Role)> {
    let line = |(at, level): (usize, &String)| {
        let lead = if at == 0 { "by" } else { "else by" };
        (clean(&format!("{lead} {level}, then read back")), Role::Base)
    };
    terms.by.iter().enumerate().map(line).collect()
}

fn blast(ask: &Ask, node: &NodeView) -> Vec<(String, Role)> {
    let answer = match &ask.answer {
        None => return vec![("the planner is asked what it leads to".into(), Role::Dim)],
        Some(Err(why)) => return vec![(clean(why), Role::Critical)],
        Some(Ok(answer)) => answer,
    };
    let all = answer.loses.len();
    let lose = if all == 1 { "loses its node" } else { "lose their node" };
    let mut out = vec![(format!("{} {lose}", words::count(all, "instance")), Role::Base)];
    let critical = |loss: &&Loss| loss.priority == "critical";
    let homeless = |loss: &&Loss| loss.to.is_none();
    let named = |loss: &Loss| match &loss.to {
        Some(to) => format!("{} -> {to} (fits)", loss.slot),
        None => format!("{} -> NOWHERE: {}", loss.slot, loss.because),
    };
    let mut list = |what: &str, role: Role, losses: Vec<&Loss>| {
        for loss in losses.iter().take(MOST_NAMED) {
            let role = if loss.to.is_none() { Role::Critical } else { role };
            out.push((clean(&format!("{what}: {}", named(loss))), role));
        }
        if losses.len() > MOST_NAMED {
            out.push((format!("and {} more {what}", losses.len() - MOST_NAMED), role));
        }
    };
    list("critical", Role::Warning, answer.loses.iter().filter(critical).collect());
    let rest = || answer.loses.iter().filter(|loss| !critical(loss));
    list("exclusive", Role::Base, rest().filter(|loss| loss.exclusive).collect());
    list("no place", Role::Critical, rest().filter(|loss| !loss.exclusive).filter(homeless).collect());
    let others = rest().filter(|loss| !loss.exclusive && loss.to.is_some()).count();
    if others > 0 {
        out.push((format!("{} replaced elsewhere", words::count(others, "other")), Role::Base));
    }
    let state: Vec<&str> =
        answer.loses.iter().filter(|loss| loss.state).map(|loss| loss.slot.as_str()).collect();
    if !state.is_empty() {
        let more = state.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names = state[..state.len().min(MOST_NAMED)].join(" ");
        out.push((format!("data not replicated: {names}{more}"), Role::Warning));
    }
    let costs = answer.quorum.contains("NO QUORUM");
    out.push((clean(&answer.quorum), if costs { Role::Critical } else { Role::Base }));
    if node.leader {
        out.push(("it leads: another will be elected".into(), Role::Warning));
    }
    out
}

fn because(terms: &FenceTerms) -> Vec<(String, Role)> {
    let alive = terms.because.first().is_some_and(|first| first.contains(" is ALIVE"));
    let role = |at: usize| if at == 0 && alive { Role::Critical } else { Role::Base };
    terms.because.iter().enumerate().map(|(at, text)| (clean(text), role(at))).collect()
}

/// Each kind in a few words, as many in a line as fit; what has a time counts it down.
fn evidence(view: &ClusterView, node: &NodeView, age_ms: u64, width: usize) -> Vec<(String, Role)> {
    let short = |item: &EvidenceView| match (item.kind.as_str(), item.left_ms) {
        (_, _) if item.holds => format!("{}: {}", item.kind.replace('_', " "), item.detail),
        ("silence", Some(ms)) => {
            let left = words::left(ms.saturating_sub(age_ms));
            let armed = if node.armed { ", was armed" } else { "" };
            format!("silence: {left} to go{armed}")
        }
        ("fenced", _) => match crate::rows::fencing::running(node, view) {
            Some(operation) => format!("fenced: {}", crate::rows::fencing::progress(operation, age_ms)),
            None if node.fencing.waiting.is_some() => "fenced: FAILED (8 says how)".to_owned(),
            None => "fenced: not yet".to_owned(),
        },
        ("stop_acknowledged", _) => "stop acknowledged".to_owned(),
        ("rebooted", _) => "rebooted, empty".to_owned(),
        ("attested", _) => "attested (A)".to_owned(),
        (kind, _) => format!("{}: {}", kind.replace('_', " "), item.detail),
    };
    let mut out: Vec<(String, Role)> = Vec::new();
    for item in &node.why.evidence {
        let (tick, role) = if item.holds { ("[x]", Role::Ok) } else { ("[ ]", Role::Base) };
        let text = clean(&format!("{tick} {}", short(item)));
        match out.last_mut() {
            Some((line, same)) if *same == role && line.width() + text.width() + 6 <= width => {
                line.push_str(&format!("  {text}"));
            }
            _ => out.push((text, role)),
        }
    }
    out
}

/// What concerns the node or what runs there; the rest of the cluster goes on as well.
fn otherwise(app: &App, ask: &Ask) -> Vec<(String, Role)> {
    let Some(Ok(answer)) = &ask.answer else { return vec![("not known yet".into(), Role::Dim)] };
    let age = app.now_ms.saturating_sub(ask.answered_ms);
    let concerns = |text: &str| {
        let mut parts = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ':' | ';' | '(' | ')'));
        parts.any(|word| word == ask.node.as_str() || answer.loses.iter().any(|loss| loss.slot == word))
    };
    // That a slot is free says nothing where the next line says where it starts.
    let starts =
        |slot: &str| answer.otherwise.iter().any(|line| line.what.starts_with(&format!("{slot} starts on ")));
    let freed =
        |what: &str| what.split_once(" is free to start elsewhere").is_some_and(|(slot, _)| starts(slot));
    let told = |what: &str| concerns(what) && !freed(what);
    let list: Vec<_> = answer.otherwise.iter().filter(|line| told(&line.what)).collect();
    let mut out: Vec<(String, Role)> = list
        .iter()
        .take(MOST_AHEAD)
        .map(|line| match line.after_ms.map(|ms| ms.saturating_sub(age)) {
            Some(0) => (clean(&format!("now: {}", line.what)), Role::Notice),
            Some(ms) => (clean(&format!("in {}: {}", words::left(ms), line.what)), Role::Notice),
            None => (clean(&line.what), Role::Warning),
        })
        .collect();
    if list.len() > MOST_AHEAD {
        out.push((format!("and {} more", list.len() - MOST_AHEAD), Role::Dim));
    }
    if out.is_empty() {
        out.push(("nothing about it happens by itself".into(), Role::Dim));
    }
    out
}

/// Two columns as one.
fn beside(left: Vec<Line<'static>>, right: Vec<Line<'static>>, column: usize) -> Vec<Line<'static>> {
    let rows = left.len().max(right.len());
    let mut sides = (left.into_iter(), right.into_iter());
    let row = |_| {
        let mut spans = styled(sides.0.next());
        let used: usize = spans.iter().map(Span::width).sum();
        spans.push(Span::raw(" ".repeat(column.saturating_sub(used))));
        spans.extend(styled(sides.1.next()));
        Line::from(spans)
    };
    (0..rows).map(row).collect()
}

/// A line's spans, each with the style that it had from its line.
fn styled(line: Option<Line<'static>>) -> Vec<Span<'static>> {
    let Some(line) = line else { return Vec::new() };
    let style = line.style;
    line.spans.into_iter().map(|span| Span::styled(span.content, style.patch(span.style))).collect()
}

/// What the title names it by.
pub(crate) fn title(node: &NodeView, theme: &Theme) -> String {
    let names = crate::rows::fencing::levels(&node.fencing);
    let by = if names.is_empty() { String::new() } else { format!(" by {names}") };
    words::fit(&format!("FENCE {}: power off{by}", node.name), 90, theme.glyphs.cut)
}

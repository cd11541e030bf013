//! Why something runs, stops or waits: the planner's own answer with its evidence and what follows.

use quorate_core::view::{OperationView, Why as Answer};
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::{Popup, scrolled};
use crate::app::App;
use crate::canvas::{Canvas, centred};
use crate::keymap::Chord;
use crate::msg::Out;
use crate::rows::{Subject, operations};
use crate::theme::{Role, Theme};
use crate::words;

/// The question on screen.
#[derive(Debug)]
pub(crate) struct Why {
    pub subject: Subject,
    pub scroll: usize,
}

pub(crate) fn key(app: &mut App, mut why: Why, chord: Chord) -> Vec<Out> {
    let area = place(app.size);
    let width = usize::from(area.width.saturating_sub(4));
    let lines = lines(app, &why.subject, width).len();
    if let Some(scroll) = scrolled(why.scroll, chord, usize::from(area.height.saturating_sub(2)), lines) {
        why.scroll = scroll;
        app.popups.push(Popup::Why(why));
    } else if !["esc", "q", "w", "enter"].iter().any(|name| chord.is(name)) {
        app.popups.push(Popup::Why(why));
    }
    Vec::new()
}

fn place(size: (u16, u16)) -> Rect {
    let screen = Rect { x: 0, y: 0, width: size.0, height: size.1 };
    centred(screen, 100.min(size.0.saturating_sub(2)), 30.min(size.1.saturating_sub(2)))
}

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, why: &Why) {
    let full = place(app.size).intersection(area);
    let lines = lines(app, &why.subject, usize::from(full.width.saturating_sub(4)));
    let height = full.height.min(lines.len() as u16 + 2);
    let inner = canvas.boxed(Rect { height, ..full }, &title(app, &why.subject), Role::Accent);
    canvas.lines(inner, &lines, why.scroll);
}

fn title(app: &App, subject: &Subject) -> String {
    match subject {
        Subject::Node(node) => format!("WHY node {node}"),
        Subject::Service(service) => format!("WHY {service}"),
        Subject::Instance(key) => {
            app.instance(key).map_or_else(|| "WHY".into(), |i| format!("WHY {}", i.slot))
        }
        Subject::Operation(id) => format!("WHY operation {id}"),
        Subject::Nothing => "WHY".into(),
    }
}

/// The answer as lines; empty subjects and vanished ones say so.
fn lines(app: &App, subject: &Subject, width: usize) -> Vec<Line<'static>> {
    let answer = match subject {
        Subject::Node(node) => app.node(node).map(|n| &*n.why),
        Subject::Service(service) => app.service(service).map(|s| &*s.why),
        Subject::Instance(key) => app.instance(key).map(|i| &*i.why),
        Subject::Operation(id) => {
            return app.operation(*id).map_or_else(|| gone(&app.theme), |o| of_operation(o, app, width));
        }
        Subject::Nothing => None,
    };
    answer.map_or_else(|| gone(&app.theme), |answer| of(answer, &app.theme, app.age_ms(), width))
}

fn gone(theme: &Theme) -> Vec<Line<'static>> {
    vec![Line::styled("it is not there any more; see the events (5)", theme.style(Role::Dim))]
}

/// Adds a heading and its wrapped items.
pub(crate) fn section(
    out: &mut Vec<Line<'static>>,
    theme: &Theme,
    width: usize,
    heading: &str,
    items: &[(String, Role)],
) {
    if items.is_empty() {
        return;
    }
    if !heading.is_empty() {
        out.push(Line::styled(heading.to_owned(), theme.style(Role::Title)));
    }
    for (text, role) in items {
        for (at, part) in words::wrap(text, width.saturating_sub(4)).into_iter().enumerate() {
            let inset = if at == 0 { "  " } else { "    " };
            out.push(Line::styled(format!("{inset}{part}"), theme.style(*role)));
        }
    }
}

/// The ticked list of evidence.
pub(crate) fn evidence(answer: &Answer, age_ms: u64) -> Vec<(String, Role)> {
    let line = |e: &quorate_core::view::EvidenceView| {
        let (tick, role) = if e.holds { ("[x]", Role::Ok) } else { ("[ ]", Role::Base) };
        let left = e.left_ms.map(|ms| format!(", {} to go", words::left(ms.saturating_sub(age_ms))));
        (format!("{tick} {}: {}{}", e.kind.replace('_', " "), e.detail, left.unwrap_or_default()), role)
    };
    answer.evidence.iter().map(line).collect()
}

/// What happens next by itself, with the time left.
pub(crate) fn next(answer: &Answer, age_ms: u64) -> Vec<(String, Role)> {
    let line = |n: &quorate_core::view::NextView| {
        let when = n.when_ms.map_or_else(String::new, |ms| match ms.saturating_sub(age_ms) {
            0 => " now".to_owned(),
            ms => format!(" in {}", words::left(ms)),
        });
        let condition = n.condition.as_ref().map_or_else(String::new, |c| format!(", if {c}"));
        (format!("{}{when}{condition}", n.what), Role::Notice)
    };
    answer.next.iter().map(line).collect()
}

fn of(answer: &Answer, theme: &Theme, age_ms: u64, width: usize) -> Vec<Line<'static>> {
    let mut out = Vec::new();
    section(&mut out, theme, width, "", &[(answer.verdict.clone(), Role::Accent)]);
    let because: Vec<_> = answer.because.iter().map(|b| (format!("- {b}"), Role::Base)).collect();
    section(&mut out, theme, width, "BECAUSE", &because);
    let ticks = evidence(answer, age_ms);
    section(&mut out, theme, width, "EVIDENCE that would let it start elsewhere (one suffices)", &ticks);
    section(&mut out, theme, width, "NEXT", &next(answer, age_ms));
    out
}

fn of_operation(o: &OperationView, app: &App, width: usize) -> Vec<Line<'static>> {
    let mut out = Vec::new();
    let theme = &app.theme;
    let what = format!("{} of {}: {}", operations::word(o.kind), o.target, o.phase);
    section(&mut out, theme, width, "", &[(what, Role::Accent)]);
    let mut facts = vec![(format!("asked for by {} at {}", o.by, words::date(o.begun_at)), Role::Base)];
    if let Some(to) = &o.to {
        facts.push((format!("to {to}"), Role::Base));
    }
    if o.total > 0 {
        facts.push((format!("{} of {} done", o.done, o.total), Role::Base));
    }
    if o.bytes_total > 0 {
        let (done, all) = (words::bytes(o.bytes), words::bytes(o.bytes_total));
        facts.push((format!("{done} of {all} copied at {}/s", words::bytes(o.rate)), Role::Base));
    }
    section(&mut out, theme, width, "", &facts);
    let blocked: Vec<_> =
        o.blocked.iter().map(|b| (format!("- {}: {}", b.what, b.why), Role::Warning)).collect();
    section(&mut out, theme, width, "BLOCKED", &blocked);
    let mut next = Vec::new();
    match (&o.result, o.eta_ms) {
        (Some(result), _) => next.push((format!("it ended: {result}"), Role::Base)),
        (None, Some(ms)) => {
            next.push((
                format!("done in about {}", words::left(ms.saturating_sub(app.age_ms()))),
                Role::Notice,
            ));
        }
        (None, None) => {}
    }
    if let Some(end) = o.worst_case_end.filter(|_| o.result.is_none()) {
        next.push((format!("at the latest {}", words::clock(end)), Role::Notice));
    }
    if o.cancellable {
        next.push(("x cancels it and undoes what it did".to_owned(), Role::Notice));
    }
    section(&mut out, theme, width, "NEXT", &next);
    out
}

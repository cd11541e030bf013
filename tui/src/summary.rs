//! The situation as plain text, to be pasted into an incident channel.

use quorate_core::view::{ClusterView, Level};

use crate::rows::{nodes, operations};
use crate::words;

/// Who looks, the verdict, what happens by itself, and everything that is not as it should be.
pub(crate) fn of(view: &ClusterView) -> String {
    let mut out = vec![
        format!(
            "{} as {} sees it, {} revision {}",
            view.cluster.name,
            view.me,
            words::date(view.at),
            view.revision
        ),
        format!("{}: {}", view.verdict.word, view.verdict.sentence),
        view.standing.sentence.clone(),
    ];
    for c in view.countdowns.iter().take(20) {
        let when = match c.in_ms {
            _ if c.done => "done".into(),
            None => "waits".into(),
            Some(ms) => format!("in {}", words::left(ms)),
        };
        out.push(format!("- {when}: {} {} ({}); {}", c.subject, c.action, c.why, c.then));
    }
    for n in view.nodes.values().filter(|n| nodes::level(n) > Level::Ok).take(20) {
        out.push(format!("node {} {}: {}", n.name, nodes::word(n), n.why.verdict));
    }
    for s in view.services.values().filter(|s| s.verdict.level > Level::Ok).take(20) {
        out.push(format!("service {} ({}) {}: {}", s.name, s.priority, s.verdict.word, s.verdict.sentence));
    }
    for o in view.operations.values().filter(|o| operations::running(o)).take(20) {
        out.push(format!(
            "{} {} {}: {}",
            operations::word(o.kind),
            o.target,
            o.phase,
            operations::note_text(o)
        ));
    }
    out.join("\n") + "\n"
}

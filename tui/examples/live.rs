//! Plays the test fixtures in the real terminal, to look at a theme or try keys without a cluster: a
//! node is lost and comes back every few seconds. `QUORATE_THEME=light live`.

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use quorate_tui::{Cockpit, Connection, LogLine, LogRequest, Msg, Out, Preview, Settings, Surroundings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (outs, wanted) = mpsc::channel();
    let settings = Settings {
        surroundings: Surroundings::from_env(),
        attached_to: "n1".into(),
        leaving_ends_all: true,
        ..Settings::default()
    };
    let cockpit = Cockpit::start(settings, outs)?;
    let feed = cockpit.feed();
    feed.send(Msg::Connection(Connection::Attached { to: "n1".into() }));
    let views = [
        fixtures::healthy(),
        fixtures::lost(),
        fixtures::drain(),
        fixtures::no_quorum(),
        fixtures::split(),
        fixtures::fenced(),
        fixtures::to_be_fenced(),
        fixtures::big(50, 500),
    ];
    for view in views.into_iter().map(Arc::new).cycle() {
        feed.send(Msg::View(view));
        while let Ok(out) = wanted.recv_timeout(Duration::from_secs(4)) {
            match out {
                Out::Submit { id, .. } | Out::TestFence { id, .. } | Out::Demo { id, .. } => {
                    feed.send(Msg::CommandResult { id, outcome: Err("these are only pictures".into()) });
                }
                Out::Preview { id, .. } => {
                    let preview = Preview { revision: fixtures::healthy().revision, lines: Vec::new() };
                    feed.send(Msg::PlanPreview { id, outcome: Ok(preview) });
                }
                Out::Foresee { id, .. } => {
                    feed.send(Msg::Foreseen { id, outcome: Ok(fixtures::foresight(1_204)) });
                }
                Out::Logs(LogRequest::Open { stream, slot, .. }) => {
                    let line = LogLine { slot, error: false, text: "a line".into() };
                    feed.send(Msg::LogLines { stream, lines: vec![line], ended: None });
                }
                Out::Logs(LogRequest::Close { .. }) | Out::Sim(_) | Out::Copy(_) | Out::Leave | Out::Quit => {
                }
            }
        }
        if cockpit.is_finished() {
            break;
        }
    }
    println!("{:?}", cockpit.join());
    Ok(())
}

//! The cockpit over a cluster whose nodes run in other processes: views come in by a stream, what the
//! operator wants goes out by calls. Knows no node from the inside; a node never waits for it.
//!
//! ```text
//! node -- ViewService.Watch --> watch -> Feed -> [cockpit's threads: update, draw] -> Out -> asks -- calls --> node
//! ```

mod asks;
mod calls;
pub mod line;
mod output;
pub mod own;
pub mod simulated;
mod watch;
mod wishes;

use std::sync::Arc;
use std::sync::mpsc as threads;
use std::time::{Duration, Instant};

use anyhow::Context;
use quorate_tui::{Cockpit, DemoAction, Ended, Feed, Msg, Out, Settings, Surroundings};
use tokio::sync::{mpsc, oneshot};

use self::asks::Asks;
use self::watch::Attached;
use self::wishes::Wishes;
use crate::api::error::ApiError;
use crate::transport::{Secret, WithSecret};

/// A terminal that takes nothing is not waited for longer at the end.
const GIVES_BACK_WITHIN: Duration = Duration::from_secs(1);

/// What a demo's cockpit asks its demo: an action, a node, and the way back for the answer.
pub type DemoAsk = (DemoAction, String, oneshot::Sender<Result<String, String>>);

/// Whom to attach to, and how.
#[derive(Debug)]
pub struct Attach {
    /// API addresses; others are learnt from the first view.
    pub endpoints: Vec<String>,
    /// The cluster's secret.
    pub secret: String,
    /// For a demo's own cockpit: what steers its nodes.
    pub demo: Option<mpsc::Sender<DemoAsk>>,
    /// What is shown above the screens, such as how a demo's scenario goes.
    pub line: Option<tokio::sync::watch::Receiver<String>>,
    /// Does leaving end the cluster, as in a demo?
    pub leaving_ends_all: bool,
}

/// A cockpit on this process's terminal; gives the terminal back when dropped.
struct Screen {
    cockpit: Option<Cockpit>,
}

/// Shows the cluster until the operator leaves or the terminal goes away. Dropped, it gives the terminal
/// back as well.
pub async fn run(attach: Attach) -> anyhow::Result<Ended> {
    let first = attach.endpoints.first().context("no node is known to attach to")?;
    let settings = settings(first, attach.leaving_ends_all)?;
    let secret = WithSecret::new(Secret::new(&attach.secret)?);
    let (outs, wanted) = threads::channel();
    let cockpit = Cockpit::start(settings, outs).context("cannot take the terminal")?;
    let feed = cockpit.feed();
    let mut screen = Screen { cockpit: Some(cockpit) };
    let attached = Arc::new(Attached::new(attach.endpoints, secret));
    let watching = tokio::spawn(watch::run(attached.clone(), feed.clone()));
    let telling = attach.line.map(|line| tokio::spawn(tell(line, feed.clone())));
    let mut wanted = passed_on(wanted)?;
    let mut asks = Asks::new(attached, feed, attach.demo);
    // The channel closes when the cockpit's thread ends.
    while let Some(out) = wanted.recv().await {
        asks.take(out);
    }
    watching.abort();
    if let Some(telling) = telling {
        telling.abort();
    }
    screen.ended().await
}

/// As the operator wishes it, on this terminal.
fn settings(attached_to: &str, leaving_ends_all: bool) -> Result<Settings, ApiError> {
    let wishes = Wishes::read()?;
    let mut surroundings = Surroundings::from_env();
    if surroundings.theme.is_empty() {
        surroundings.theme.clone_from(&wishes.theme);
    }
    let (keys, attached_to) = (wishes.keys(), attached_to.to_owned());
    Ok(Settings { surroundings, keys, attached_to, leaving_ends_all, ..Settings::default() })
}

async fn tell(mut line: tokio::sync::watch::Receiver<String>, feed: Feed) {
    loop {
        let text = line.borrow_and_update().clone();
        feed.send(Msg::Line(text));
        if line.changed().await.is_err() {
            return;
        }
    }
}

/// The cockpit speaks by a thread's channel; a thread of its own carries it over, since a receive there
/// cannot be awaited.
fn passed_on(wanted: threads::Receiver<Out>) -> anyhow::Result<mpsc::UnboundedReceiver<Out>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let carry = move || {
        while let Ok(out) = wanted.recv() {
            if sender.send(out).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("cockpit-outs".to_owned())
        .spawn(carry)
        .context("cannot start a thread")?;
    Ok(receiver)
}

impl Screen {
    async fn ended(&mut self) -> anyhow::Result<Ended> {
        let cockpit = self.cockpit.take().context("the cockpit ended twice")?;
        tokio::task::spawn_blocking(move || cockpit.join()).await.context("the cockpit's thread is lost")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let Some(cockpit) = self.cockpit.take() else { return };
        cockpit.stop();
        let deadline = Instant::now() + GIVES_BACK_WITHIN;
        while !cockpit.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

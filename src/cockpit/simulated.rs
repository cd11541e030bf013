//! The cockpit over a simulated cluster: a world is played in true time, faster or slower, and one of its nodes
//! shows its screen. A third source of the same views; nothing that is asked here reaches the world, so that a
//! seed stays what it is.

use std::sync::mpsc as threads;
use std::time::{Duration, Instant};

use anyhow::Context;
use quorate_core::sim::{Options, Outcome, Play};
use quorate_core::view::ClusterView;
use quorate_tui::{Cockpit, Connection, Ended, Feed, LogRequest, Msg, Out, SimAction};
use std::sync::Arc;

use super::own::{needs_terminal, told_to_end};
use super::{Screen, settings};
use crate::api::error::ApiError;

/// Between two pictures.
const TURN: Duration = Duration::from_millis(50);
/// An equal picture is sent this often, so that it does not grow old while the world stands still.
const AGAIN: Duration = Duration::from_millis(250);
/// In hundredths of true time.
const SPEEDS: [u64; 8] = [5, 10, 25, 50, 100, 200, 500, 2_000];
/// True time.
const USUAL: usize = 4;
/// How far a jump goes, in milliseconds.
const JUMP_MS: u64 = 2_000;
/// No turn plays more than this at once, in milliseconds, however late it comes.
const MOST_MS: u64 = 2_000;

/// Plays a world until the operator leaves. Gives what came of it, if it was played to its end.
pub fn play(seed: u64, options: &Options, what: &str) -> Result<Option<Outcome>, ApiError> {
    needs_terminal()?;
    let shown = || -> anyhow::Result<Option<Outcome>> {
        let (outs, wanted) = threads::channel();
        let cockpit = Cockpit::start(settings(what, false)?, outs).context("cannot take the terminal")?;
        let player = Player::new(Play::new(seed, options), what, cockpit.feed());
        let mut screen = Screen { cockpit: Some(cockpit) };
        let (done, mut over) = tokio::sync::oneshot::channel();
        let driver = std::thread::Builder::new().name("sim".to_owned()).spawn(move || {
            let play = player.run(&wanted);
            // Nobody waits for it once the process was told to end.
            let _ = done.send(());
            play
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(async {
            tokio::select! {
                _ = &mut over => screen.ended().await,
                told = told_to_end() => told.map(|()| Ended::Stopped),
            }
        })?;
        // Gives the terminal back, and so ends the player.
        drop(screen);
        runtime.shutdown_background();
        let play = driver.join().map_err(|_| anyhow::anyhow!("the simulator broke off"))?;
        match ended {
            Ended::Panicked(why) => {
                anyhow::bail!("the cockpit broke off and gave the terminal back: {why}")
            }
            _ => Ok(play.ended().then(|| play.outcome())),
        }
    };
    shown().map_err(|error| ApiError::failed(&error))
}

/// A world with somebody who watches it.
struct Player {
    play: Play,
    what: String,
    feed: Feed,
    node: usize,
    paused: bool,
    speed: usize,
    /// Milliseconds of the world that were not played yet, in hundredths.
    owed: u64,
    view: Option<Arc<ClusterView>>,
    /// Was the node's screen there the last time?
    there: bool,
}

impl Player {
    fn new(play: Play, what: &str, feed: Feed) -> Self {
        let what = what.to_owned();
        Self { play, what, feed, node: 0, paused: false, speed: USUAL, owed: 0, view: None, there: false }
    }

    fn run(mut self, wanted: &threads::Receiver<Out>) -> Play {
        self.play.to(1);
        self.show();
        let (mut last, mut shown) = (Instant::now(), Instant::now());
        loop {
            let asked = match wanted.recv_timeout(TURN) {
                Ok(out) => {
                    self.take(out);
                    true
                }
                Err(threads::RecvTimeoutError::Timeout) => false,
                Err(threads::RecvTimeoutError::Disconnected) => return self.play,
            };
            let now = Instant::now();
            let moved = self.advance(now - last);
            last = now;
            if asked || moved || now - shown >= AGAIN {
                shown = now;
                self.show();
            }
        }
    }

    /// Plays on for as long as has passed here; true if anything may have changed.
    fn advance(&mut self, passed: Duration) -> bool {
        if self.paused || self.play.ended() {
            return false;
        }
        let passed = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).min(MOST_MS * 1_000);
        // In hundredths of a microsecond times the speed, so that slow worlds move at all.
        self.owed += passed * SPEEDS[self.speed];
        let ms = self.owed / 100_000;
        self.owed %= 100_000;
        self.play.to(self.play.now_ms() + ms);
        ms > 0
    }

    fn take(&mut self, out: Out) {
        match out {
            Out::Sim(action) => self.steer(action),
            Out::Submit { id, .. } | Out::TestFence { id, .. } | Out::Demo { id, .. } => {
                let outcome =
                    Err("this cluster is simulated: nothing that is asked here reaches it".to_owned());
                self.feed.send(Msg::CommandResult { id, outcome });
            }
            Out::Preview { id, .. } => {
                let outcome = Err("a simulated cluster plans for itself alone".to_owned());
                self.feed.send(Msg::PlanPreview { id, outcome });
            }
            Out::Foresee { id, .. } => {
                let outcome = Err("a simulated cluster plans for itself alone".to_owned());
                self.feed.send(Msg::Foreseen { id, outcome });
            }
            Out::Logs(LogRequest::Open { stream, .. }) => {
                let ended = Some("simulated processes write nothing".to_owned());
                self.feed.send(Msg::LogLines { stream, lines: Vec::new(), ended });
            }
            // The cockpit ends by itself, and writes to its own terminal.
            Out::Logs(LogRequest::Close { .. }) | Out::Copy(_) | Out::Leave | Out::Quit => {}
        }
    }

    fn steer(&mut self, action: SimAction) {
        let now = self.play.now_ms();
        match action {
            SimAction::Pause => self.paused = !self.paused,
            SimAction::Step => {
                self.paused = true;
                self.play.to_next();
            }
            SimAction::Faster => self.speed = (self.speed + 1).min(SPEEDS.len() - 1),
            SimAction::Slower => self.speed = self.speed.saturating_sub(1),
            SimAction::Back => self.play.to(now.saturating_sub(JUMP_MS).max(1)),
            SimAction::On => self.play.to(now + JUMP_MS),
            SimAction::NextNode => {
                self.node = (self.node + 1) % self.play.nodes().len().max(1);
                (self.view, self.there) = (None, false);
            }
        }
    }

    fn show(&mut self) {
        self.feed.send(Msg::Line(self.line()));
        let name = self.play.nodes().get(self.node).map(ToString::to_string).unwrap_or_default();
        match self.play.view(self.node, self.view.as_deref()) {
            Some(view) => {
                if !self.there {
                    self.feed.send(Msg::Connection(Connection::Attached { to: name }));
                }
                self.there = true;
                let view = Arc::new(view);
                self.view = Some(view.clone());
                self.feed.send(Msg::View(view));
            }
            None => {
                self.there = false;
                let why = "its node process is dead or stands still; v looks from another node".to_owned();
                self.feed.send(Msg::Connection(Connection::Lost { from: name, why }));
            }
        }
    }

    /// How far it is, how fast it goes, and what was told last.
    fn line(&self) -> String {
        let now = self.play.now_ms();
        let state = match (self.play.ended(), self.paused) {
            (true, _) => "ENDED".to_owned(),
            (false, true) => "PAUSED".to_owned(),
            (false, false) => {
                let speed = SPEEDS[self.speed];
                format!("playing x{}", speed as f64 / 100.0)
            }
        };
        let last = self.play.story().last().map(|told| format!(" | {}: {}", told.who, told.what));
        format!(
            "{} at {}.{:02} s, {state}{}",
            self.what,
            now / 1_000,
            now % 1_000 / 10,
            last.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::sim::Scenario;

    /// A world in which nothing goes wrong.
    fn player() -> Player {
        let text =
            "about: a quiet world\nservices: [db]\nlasts: 6s\nsteps: [{at: 3500ms, do: transfer to n2}]\n";
        let scenario = Scenario::parse(text).unwrap();
        Player::new(Play::new(scenario.seed, &scenario.options()), "quiet", Feed::default())
    }

    #[test]
    fn time_passes_by_the_speed_and_not_while_it_is_paused() {
        let mut player = player();
        assert!(player.advance(Duration::from_millis(500)));
        assert_eq!(player.play.now_ms(), 500);
        player.steer(SimAction::Slower);
        player.advance(Duration::from_millis(500));
        assert_eq!(player.play.now_ms(), 750);
        player.steer(SimAction::Pause);
        assert!(!player.advance(Duration::from_secs(1)));
        assert_eq!(player.play.now_ms(), 750);
        assert!(player.line().contains("0.75 s, PAUSED"), "{}", player.line());
    }

    #[test]
    fn the_world_is_stepped_and_sought_in_and_looked_at_from_each_node() {
        let mut player = player();
        player.play.to(3_000);
        player.steer(SimAction::Step);
        assert!(player.paused && player.play.now_ms() >= 3_000);
        let story = player.play.story().to_vec();
        let at = player.play.now_ms();
        player.steer(SimAction::Back);
        assert_eq!(player.play.now_ms(), at - JUMP_MS);
        player.steer(SimAction::On);
        assert_eq!(player.play.now_ms(), at);
        assert!(player.play.story().starts_with(&story[..story.len() - 1]));
        player.show();
        let me = |player: &Player| player.view.as_ref().map(|view| view.me.to_string());
        assert_eq!(me(&player).as_deref(), Some("n1"));
        player.steer(SimAction::NextNode);
        player.show();
        assert_eq!(me(&player).as_deref(), Some("n2"));
    }
}

//! Runs the cockpit on threads of its own: one reads keys, one draws. A stalled terminal stalls only
//! them; a panic gives the terminal back and is reported; the process lives on.

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyEventKind};

use crate::app::{App, Settings};
use crate::draw::draw;
use crate::feed::Feed;
use crate::msg::{Msg, Out};
use crate::terminal::{Painter, Session};
use crate::update::update;

/// The name by which the panic hook knows the drawing thread.
const THREAD: &str = "cockpit";
/// Background changes are painted at most this often.
const FRAME: Duration = Duration::from_millis(34);
/// How soon the key reader sees that it is to end.
const KEY_WAIT: Duration = Duration::from_millis(200);

/// How the cockpit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The operator left; the node runs on.
    Left,
    /// The operator wants the node stopped.
    Quit,
    /// It was told to stop.
    Stopped,
    /// A part of it panicked; the terminal was given back.
    Panicked(String),
    /// The terminal failed or went away.
    Terminal(String),
}

/// A running cockpit.
#[derive(Debug)]
pub struct Cockpit {
    feed: Feed,
    thread: JoinHandle<Ended>,
}

impl Cockpit {
    /// Takes the terminal and starts. What the operator wants comes out at `outs`; what happens goes in
    /// by [`Cockpit::feed`].
    pub fn start(settings: Settings, outs: Sender<Out>) -> io::Result<Cockpit> {
        let app = App::new(settings).map_err(io::Error::other)?;
        quiet_panics();
        let feed = Feed::default();
        let inner = feed.clone();
        let thread = std::thread::Builder::new().name(THREAD.into()).spawn(move || {
            let ended = guarded(|| on_terminal(app, &inner, &outs));
            inner.close();
            ended
        })?;
        Ok(Cockpit { feed, thread })
    }

    /// The way in.
    pub fn feed(&self) -> Feed {
        self.feed.clone()
    }

    /// Asks it to end; [`Cockpit::join`] tells when it has.
    pub fn stop(&self) {
        self.feed.close();
    }

    /// Has it ended?
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end. A terminal that takes no bytes holds that up for as long: a node that stops has
    /// no reason to wait for it, see [`Cockpit::is_finished`].
    pub fn join(self) -> Ended {
        self.thread.join().unwrap_or_else(|_| Ended::Panicked("the cockpit's thread".into()))
    }
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic of the drawing thread is kept for the report: printed, it would go over the screen.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some(THREAD) {
                PANIC.with_borrow_mut(|text| *text = info.to_string());
            } else {
                before(info);
            }
        }));
    });
}

fn guarded(run: impl FnOnce() -> io::Result<Ended>) -> Ended {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => Ended::Terminal(error.to_string()),
        Err(_) => Ended::Panicked(PANIC.with_borrow(Clone::clone)),
    }
}

fn on_terminal(mut app: App, feed: &Feed, outs: &Sender<Out>) -> io::Result<Ended> {
    let (columns, rows) = crossterm::terminal::size()?;
    let session = Session::enter(&mut io::stdout())?;
    let keys = read_keys(feed.clone())?;
    update(&mut app, Msg::Resize(columns, rows));
    let painter = Painter::new(io::stdout(), columns, rows);
    let ended = guarded(|| turn(app, painter, feed, outs));
    drop(session);
    feed.close();
    // It looks up every KEY_WAIT, so this ends.
    let _ = keys.join();
    Ok(ended)
}

fn read_keys(feed: Feed) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("cockpit-keys".into()).spawn(move || {
        while !feed.closed() {
            let message = match event::poll(KEY_WAIT)
                .and_then(|some| if some { event::read().map(Some) } else { Ok(None) })
            {
                Ok(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => Msg::Key(key),
                Ok(Some(Event::Paste(text))) => Msg::Paste(text),
                Ok(Some(Event::Resize(columns, rows))) => Msg::Resize(columns, rows),
                Ok(_) => continue,
                Err(error) => {
                    feed.lose(error.to_string());
                    return;
                }
            };
            feed.send(message);
        }
    })
}

/// Takes messages, changes the app, paints; until somebody wants to end it.
fn turn<W: io::Write>(
    mut app: App,
    mut painter: Painter<W>,
    feed: &Feed,
    outs: &Sender<Out>,
) -> io::Result<Ended> {
    let begun = Instant::now();
    let mut background = Instant::now();
    let tmux = std::env::var_os("TMUX").is_some();
    loop {
        app.set_now(millis(begun));
        let mut frame = painter.blank();
        let drawn = draw(&app, &mut frame);
        if painter.paint(frame, drawn.cursor)? {
            background = Instant::now() + FRAME;
        }
        let deadline = app.wants_tick_ms().map(|ms| Instant::now() + Duration::from_millis(ms.max(1)));
        let mut messages = feed.take(background, deadline);
        if feed.closed() {
            return Ok(feed.lost().map_or(Ended::Stopped, Ended::Terminal));
        }
        app.set_now(millis(begun));
        messages.push(Msg::Tick);
        for message in messages {
            if let Msg::Resize(columns, rows) = message {
                painter.resize(columns, rows);
            }
            for out in update(&mut app, message) {
                let ended = match &out {
                    Out::Copy(text) => {
                        painter.copy(text, tmux)?;
                        continue;
                    }
                    Out::Leave => Some(Ended::Left),
                    Out::Quit => Some(Ended::Quit),
                    Out::Submit { .. }
                    | Out::Preview { .. }
                    | Out::Foresee { .. }
                    | Out::TestFence { .. }
                    | Out::Logs(_)
                    | Out::Demo { .. }
                    | Out::Sim(_) => None,
                };
                // Whoever listened is gone: so is the reason to go on.
                if outs.send(out).is_err() {
                    return Ok(ended.unwrap_or(Ended::Stopped));
                }
                if let Some(ended) = ended {
                    return Ok(ended);
                }
            }
        }
    }
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use std::sync::mpsc;

    /// A terminal that breaks, as a panel's bug would.
    struct Breaking;

    impl io::Write for Breaking {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            panic!("a panel broke");
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn app() -> Result<App, crate::ThemeError> {
        App::new(Settings::default())
    }

    fn press(feed: &Feed, c: char) {
        feed.send(Msg::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE)));
    }

    #[test]
    fn leaving_ends_the_loop_and_says_so() -> Result<(), crate::ThemeError> {
        let (feed, (outs, wanted)) = (Feed::default(), mpsc::channel());
        press(&feed, 'q');
        let ended = turn(app()?, Painter::new(Vec::new(), 80, 24), &feed, &outs);
        assert_eq!(ended.ok(), Some(Ended::Left));
        assert_eq!(wanted.try_recv().ok(), Some(Out::Leave));
        Ok(())
    }

    #[test]
    fn a_panic_while_drawing_is_reported_and_the_process_lives() -> Result<(), crate::ThemeError> {
        quiet_panics();
        let app = app()?;
        let thread = std::thread::Builder::new().name(THREAD.into()).spawn(move || {
            let (outs, _wanted) = mpsc::channel();
            guarded(|| turn(app, Painter::new(Breaking, 80, 24), &Feed::default(), &outs))
        });
        let ended = thread.ok().and_then(|thread| thread.join().ok());
        assert!(matches!(ended, Some(Ended::Panicked(text)) if text.contains("a panel broke")));
        Ok(())
    }
}

//! A cockpit driven by named keys, and its screen as text.

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use quorate_core::view::ClusterView;
use quorate_tui::{App, Connection, Drawn, Foresight, Msg, Out, Settings, Surroundings, draw, update};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub struct Keys {
    pub app: App,
    pub outs: Vec<Out>,
    pub now_ms: u64,
    size: (u16, u16),
}

impl Keys {
    pub fn new(width: u16, height: u16, settings: Settings) -> Keys {
        let surroundings = Surroundings { locale: "C.UTF-8".into(), ..settings.surroundings };
        let settings = Settings { surroundings, attached_to: "n1".into(), ..settings };
        let app = App::new(settings).expect("the built-in theme");
        let mut keys = Keys { app, outs: Vec::new(), now_ms: 1_000_000, size: (width, height) };
        keys.take(Msg::Resize(width, height));
        keys
    }

    pub fn over(view: ClusterView, width: u16, height: u16) -> Keys {
        let mut keys = Keys::new(width, height, Settings::default());
        keys.take(Msg::Connection(Connection::Attached { to: "n1".into() }));
        keys.take(Msg::View(Arc::new(view)));
        keys
    }

    /// The same on a terminal that knows no other letters.
    pub fn ascii(view: ClusterView, width: u16, height: u16) -> Keys {
        let keys = Keys::new(width, height, Settings::default());
        let surroundings = Surroundings { locale: "C".into(), ..Surroundings::default() };
        let settings = Settings { surroundings, attached_to: "n1".into(), ..Settings::default() };
        let mut keys = Keys { app: App::new(settings).expect("the built-in theme"), ..keys };
        keys.take(Msg::Resize(width, height));
        keys.take(Msg::View(Arc::new(view)));
        keys
    }

    /// The planner answers what was asked of it, if anything was.
    pub fn foresees(&mut self, outcome: Result<Foresight, String>) -> &mut Keys {
        let asked = self.outs.iter().rev().find_map(|out| match out {
            Out::Foresee { id, .. } => Some(*id),
            _ => None,
        });
        self.outs.retain(|out| !matches!(out, Out::Foresee { .. }));
        if let Some(id) = asked {
            self.take(Msg::Foreseen { id, outcome });
        }
        self
    }

    pub fn take(&mut self, msg: Msg) {
        self.app.set_now(self.now_ms);
        self.outs.extend(update(&mut self.app, msg));
    }

    pub fn resize(&mut self, width: u16, height: u16) {
        self.size = (width, height);
        self.take(Msg::Resize(width, height));
    }

    pub fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.take(Msg::Tick);
    }

    /// A key by name, or `type:TEXT`.
    pub fn press(&mut self, name: &str) -> &mut Keys {
        if let Some(text) = name.strip_prefix("type:") {
            for c in text.chars() {
                self.take(Msg::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE)));
            }
            return self;
        }
        let (rest, modifiers) = match name.strip_prefix("ctrl-") {
            Some(rest) => (rest, KeyModifiers::CONTROL),
            None => (name, KeyModifiers::NONE),
        };
        let code = match rest {
            "enter" => KeyCode::Enter,
            "esc" => KeyCode::Esc,
            "tab" => KeyCode::Tab,
            "backtab" => KeyCode::BackTab,
            "space" => KeyCode::Char(' '),
            "up" => KeyCode::Up,
            "down" => KeyCode::Down,
            "pagedown" => KeyCode::PageDown,
            "backspace" => KeyCode::Backspace,
            other => KeyCode::Char(other.chars().next().expect("a key")),
        };
        self.take(Msg::Key(KeyEvent::new(code, modifiers)));
        self
    }

    pub fn all(&mut self, names: &[&str]) -> &mut Keys {
        for name in names {
            self.press(name);
        }
        self
    }

    pub fn draw(&self) -> (Buffer, Drawn) {
        let mut buffer = Buffer::empty(Rect::new(0, 0, self.size.0, self.size.1));
        let drawn = draw(&self.app, &mut buffer);
        (buffer, drawn)
    }

    pub fn screen(&self) -> String {
        let (buffer, _) = self.draw();
        let mut out = String::new();
        for y in 0..self.size.1 {
            let row: String = (0..self.size.0).map(|x| buffer[(x, y)].symbol()).collect();
            out.push_str(row.trim_end());
            out.push('\n');
        }
        out
    }
}

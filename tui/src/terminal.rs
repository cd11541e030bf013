//! The real terminal: taken over and always given back; a frame's changes written in one go inside a
//! synchronized update, and nothing at all where nothing changed. Knows no app, only buffers.

use std::io::{self, Write};

use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::terminal::{self as tty, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};
use crossterm::{cursor, queue};
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

use crate::theme::Surroundings;

/// Terminals refuse longer clipboard texts.
const LONGEST_COPY: usize = 50_000;

/// The terminal while it is ours; gives it back when dropped, however that comes about.
pub(crate) struct Session;

impl Session {
    pub fn enter(out: &mut impl Write) -> io::Result<Session> {
        tty::enable_raw_mode()?;
        let session = Session;
        queue!(out, tty::EnterAlternateScreen, EnableBracketedPaste, cursor::Hide, Clear(ClearType::All))?;
        out.flush()?;
        Ok(session)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Nobody is left to be told if the terminal is gone already.
        let mut out = io::stdout();
        let _ = queue!(
            out,
            EndSynchronizedUpdate,
            DisableBracketedPaste,
            cursor::Show,
            tty::LeaveAlternateScreen
        );
        let _ = out.flush();
        let _ = tty::disable_raw_mode();
    }
}

/// Brings what is on the terminal up to a buffer.
#[derive(Debug)]
pub(crate) struct Painter<W> {
    out: W,
    shown: Buffer,
    cursor: Option<Position>,
    /// The next frame starts from a cleared screen.
    afresh: bool,
}

impl<W: Write> Painter<W> {
    pub fn new(out: W, columns: u16, rows: u16) -> Painter<W> {
        Painter { out, shown: Buffer::empty(area(columns, rows)), cursor: None, afresh: true }
    }

    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.shown = Buffer::empty(area(columns, rows));
        self.afresh = true;
    }

    /// A blank buffer of the terminal's size.
    pub fn blank(&self) -> Buffer {
        Buffer::empty(self.shown.area)
    }

    /// Writes what differs; says whether anything did.
    pub fn paint(&mut self, next: Buffer, cursor: Option<Position>) -> io::Result<bool> {
        let changes = self.shown.diff(&next);
        if changes.is_empty() && cursor == self.cursor && !self.afresh {
            return Ok(false);
        }
        let mut bytes: Vec<u8> = Vec::with_capacity(4_096);
        queue!(bytes, BeginSynchronizedUpdate)?;
        if self.afresh {
            queue!(bytes, Clear(ClearType::All))?;
        }
        if self.cursor.is_some() || self.afresh {
            queue!(bytes, cursor::Hide)?;
        }
        CrosstermBackend::new(&mut bytes).draw(changes.into_iter())?;
        if let Some(at) = cursor {
            queue!(bytes, cursor::MoveTo(at.x, at.y), cursor::Show)?;
        }
        queue!(bytes, EndSynchronizedUpdate)?;
        self.out.write_all(&bytes)?;
        self.out.flush()?;
        self.shown = next;
        self.cursor = cursor;
        self.afresh = false;
        Ok(true)
    }

    /// Puts text into the terminal's clipboard, through tmux where that is between.
    pub fn copy(&mut self, text: &str, tmux: bool) -> io::Result<()> {
        let cut = (0..=text.len().min(LONGEST_COPY)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let body = format!("\x1b]52;c;{}\x07", base64(&text.as_bytes()[..cut]));
        let sequence =
            if tmux { format!("\x1bPtmux;{}\x1b\\", body.replace('\x1b', "\x1b\x1b")) } else { body };
        self.out.write_all(sequence.as_bytes())?;
        self.out.flush()
    }
}

fn area(columns: u16, rows: u16) -> Rect {
    Rect { x: 0, y: 0, width: columns.clamp(1, 1_000), height: rows.clamp(1, 1_000) }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let used = at <= chunk.len();
            let index = (group >> (18 - 6 * at)) & 63;
            out.push(if used { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    out
}

impl Surroundings {
    /// What the process's environment says.
    pub fn from_env() -> Surroundings {
        let var = |name: &str| std::env::var(name).unwrap_or_default();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(var).into_iter().find(|value| !value.is_empty());
        Surroundings {
            term: var("TERM"),
            colorterm: var("COLORTERM"),
            no_color: !var("NO_COLOR").is_empty(),
            locale: locale.unwrap_or_default(),
            theme: var("QUORATE_THEME"),
            ascii: !var("QUORATE_ASCII").is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::style::Style;

    fn text(buffer: &mut Buffer, words: &str) {
        buffer.set_string(0, 0, words, Style::new());
    }

    #[test]
    fn an_unchanged_frame_is_no_byte_and_a_changed_one_only_its_change() -> io::Result<()> {
        let mut painter = Painter::new(Vec::new(), 200, 50);
        let mut frame = painter.blank();
        text(&mut frame, "quorum 3/3");
        assert!(painter.paint(frame.clone(), None)?);
        let first = painter.out.len();
        assert!(!painter.paint(frame.clone(), None)?);
        assert_eq!(painter.out.len(), first, "nothing changed, so nothing is written");
        text(&mut frame, "quorum 2/3");
        assert!(painter.paint(frame, None)?);
        let change = &painter.out[first..];
        assert!(change.starts_with(b"\x1b[?2026h") && change.ends_with(b"\x1b[?2026l"));
        assert!(change.len() < 80, "{} bytes for one digit", change.len());
        Ok(())
    }

    #[test]
    fn copies_are_encoded_as_terminals_want_them() -> io::Result<()> {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|t| base64(t.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
        let mut painter = Painter::new(Vec::new(), 1, 1);
        painter.copy("hi", true)?;
        assert_eq!(painter.out, b"\x1bPtmux;\x1b\x1b]52;c;aGk=\x07\x1b\\");
        Ok(())
    }
}

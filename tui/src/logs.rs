//! The log screen's memory: lines of one service or copy, bounded, followed or held, searched. Does not
//! know where lines come from.

use std::collections::VecDeque;

use quorate_core::view::ClusterView;

use crate::msg::LogLine;
use crate::rows::{self, Subject};
use crate::words;

/// Lines kept.
const MOST_LINES: usize = 10_000;
/// Bytes kept, over all lines.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Longer lines are cut.
const LONGEST_LINE: usize = 4_096;

/// The log on screen.
#[derive(Debug, Default)]
pub(crate) struct LogPane {
    /// The stream that is open.
    pub stream: Option<u64>,
    /// As `SERVICE/ORDINAL` or `SERVICE`; empty while none was chosen.
    pub slot: String,
    pub lines: VecDeque<LogLine>,
    bytes: usize,
    /// Lines that were let go to stay in bounds.
    pub dropped: u64,
    pub ended: Option<String>,
    /// Lines between the bottom of the screen and the newest line; 0 follows.
    pub back: usize,
    pub search: String,
}

impl LogPane {
    pub fn open(&mut self, stream: u64, slot: &str) {
        *self = LogPane {
            stream: Some(stream),
            slot: slot.to_owned(),
            search: std::mem::take(&mut self.search),
            ..LogPane::default()
        };
    }

    pub fn following(&self) -> bool {
        self.back == 0
    }

    pub fn take(&mut self, lines: Vec<LogLine>, ended: Option<String>) {
        for mut line in lines {
            if line.text.len() > LONGEST_LINE {
                let cut = (0..=LONGEST_LINE).rev().find(|at| line.text.is_char_boundary(*at)).unwrap_or(0);
                line.text.truncate(cut);
            }
            line.text = words::clean(&line.text);
            self.bytes += line.text.len();
            self.lines.push_back(line);
            if self.back > 0 {
                self.back += 1;
            }
        }
        while self.lines.len() > MOST_LINES || self.bytes > MOST_BYTES {
            let Some(gone) = self.lines.pop_front() else { break };
            self.bytes -= gone.text.len();
            self.dropped += 1;
        }
        self.back = self.back.min(self.lines.len().saturating_sub(1));
        self.ended = ended.or(self.ended.take());
    }

    /// Up (positive) or down.
    pub fn scroll(&mut self, by: isize) {
        self.back = self.back.saturating_add_signed(by).min(self.lines.len().saturating_sub(1));
    }

    pub fn found(&self, line: &LogLine) -> bool {
        !self.search.is_empty() && line.text.to_lowercase().contains(&self.search.to_lowercase())
    }

    /// Brings the next older (or newer) line with the search text to the bottom of the screen.
    pub fn search_next(&mut self, older: bool) -> bool {
        let bottom = self.lines.len().saturating_sub(1 + self.back);
        let found = if older {
            (0..bottom).rev().find(|at| self.found(&self.lines[*at]))
        } else {
            (bottom + 1..self.lines.len()).find(|at| self.found(&self.lines[*at]))
        };
        if let Some(at) = found {
            self.back = self.lines.len() - 1 - at;
        }
        found.is_some()
    }

    pub fn subject(&self, view: &ClusterView) -> Subject {
        if self.slot.is_empty() { Subject::Nothing } else { rows::named(&self.slot, view) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine { slot: "web/0".into(), error: false, text: text.into() }
    }

    #[test]
    fn the_buffer_is_bounded_and_says_what_it_let_go() {
        let mut pane = LogPane::default();
        pane.take((0..MOST_LINES + 5).map(|n| line(&n.to_string())).collect(), None);
        assert_eq!((pane.lines.len(), pane.dropped), (MOST_LINES, 5));
        pane.take((0..2_000).map(|_| line(&"x".repeat(1 << 20))).collect(), None);
        assert!(pane.bytes <= MOST_BYTES);
    }

    #[test]
    fn what_is_read_stays_put_while_new_lines_come() {
        let mut pane = LogPane::default();
        pane.take(vec![line("one"), line("two"), line("three")], None);
        pane.scroll(1);
        pane.take(vec![line("four")], None);
        assert_eq!(pane.back, 2, "`two` is still the last line on screen");
        pane.search = "ONE".into();
        assert!(pane.search_next(true));
        assert_eq!(pane.back, 3);
        assert!(!pane.search_next(true));
    }

    #[test]
    fn output_cannot_steer_the_terminal() {
        let mut pane = LogPane::default();
        pane.take(vec![line("\u{1b}]52;c;evil\u{7}")], None);
        assert!(!pane.lines[0].text.contains('\u{1b}'));
    }
}

//! Where screens are drawn: a buffer with a theme, in which nothing can be written outside. Knows
//! lines, rules and boxes, not what they say.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::theme::{Glyphs, Role, Theme};
use crate::words;

/// A buffer, a theme, and what was done.
pub(crate) struct Canvas<'a> {
    pub buf: &'a mut Buffer,
    pub theme: &'a Theme,
    /// Table rows built, so that a test can hold tables to the visible ones.
    pub rows_built: usize,
    /// Where the terminal's cursor goes, when something is typed.
    pub cursor: Option<Position>,
}

impl<'a> Canvas<'a> {
    pub fn new(buf: &'a mut Buffer, theme: &'a Theme) -> Canvas<'a> {
        Canvas { buf, theme, rows_built: 0, cursor: None }
    }

    pub fn glyphs(&self) -> Glyphs {
        self.theme.glyphs
    }

    pub fn style(&self, role: Role) -> Style {
        self.theme.style(role)
    }

    pub fn span(&self, text: impl Into<String>, role: Role) -> Span<'static> {
        Span::styled(text.into(), self.theme.style(role))
    }

    /// Writes one line into row `row` of an area, cut at its right edge.
    pub fn line(&mut self, area: Rect, row: u16, line: &Line<'_>) {
        let Some(row) = row_of(area.intersection(self.buf.area), row) else { return };
        self.buf.set_line(row.x, row.y, line, row.width);
    }

    /// Writes a text into row `row`; a cut shows.
    pub fn text(&mut self, area: Rect, row: u16, text: &str, role: Role) {
        let cut = words::fit(text, usize::from(area.width), self.glyphs().cut);
        let line = Line::from(self.span(cut, role));
        self.line(area, row, &line);
    }

    /// Writes lines from the top, skipping the first `skip`.
    pub fn lines(&mut self, area: Rect, lines: &[Line<'_>], skip: usize) {
        for (row, line) in lines.iter().skip(skip).take(usize::from(area.height)).enumerate() {
            self.line(area, row as u16, line);
        }
    }

    /// Paints an area blank in a role.
    pub fn fill(&mut self, area: Rect, role: Role) {
        let area = area.intersection(self.buf.area);
        let style = self.style(role);
        for position in area.positions() {
            if let Some(cell) = self.buf.cell_mut(position) {
                cell.reset();
                cell.set_style(style);
            }
        }
    }

    /// Lays a role over what an area shows already.
    pub fn tint(&mut self, area: Rect, role: Role) {
        let style = self.style(role);
        self.buf.set_style(area.intersection(self.buf.area), style);
    }

    /// A titled rule over the top row; returns what is left below it.
    pub fn rule(&mut self, area: Rect, title: &str, right: &str, focused: bool) -> Rect {
        if area.height == 0 {
            return area;
        }
        let dash = self.glyphs().horizontal;
        let role = if focused { Role::Accent } else { Role::Rule };
        let width = usize::from(area.width);
        let right = if right.width() + title.width() + 8 > width { "" } else { right };
        let title = words::fit(title, width.saturating_sub(6), self.glyphs().cut);
        let used = 4 + title.width() + if right.is_empty() { 0 } else { right.width() + 4 };
        let mut spans = vec![self.span(dash.repeat(2), role), Span::raw(" ")];
        spans.push(self.span(title, if focused { Role::Accent } else { Role::Title }));
        spans.push(Span::raw(" "));
        spans.push(self.span(dash.repeat(width.saturating_sub(used)), role));
        if !right.is_empty() {
            spans.push(Span::raw(" "));
            spans.push(self.span(right, Role::Dim));
            spans.push(Span::raw(" "));
            spans.push(self.span(dash.repeat(2), role));
        }
        self.line(area, 0, &Line::from(spans));
        Rect { y: area.y + 1, height: area.height - 1, ..area }
    }

    /// A cleared box with a border and a title; returns its inside.
    pub fn boxed(&mut self, area: Rect, title: &str, role: Role) -> Rect {
        let area = area.intersection(self.buf.area);
        self.fill(area, Role::Base);
        if area.width < 4 || area.height < 3 {
            return area;
        }
        let g = self.glyphs();
        let inner = usize::from(area.width) - 2;
        let title = words::fit(&format!(" {title} "), inner.saturating_sub(2), g.cut);
        let fill = g.horizontal.repeat(inner.saturating_sub(title.width() + 1));
        let top = Line::from(vec![
            self.span(format!("{}{}", g.corners[0], g.horizontal), role),
            self.span(title, role),
            self.span(format!("{fill}{}", g.corners[1]), role),
        ]);
        self.line(area, 0, &top);
        let bottom = format!("{}{}{}", g.corners[2], g.horizontal.repeat(inner), g.corners[3]);
        let bottom = Line::from(self.span(bottom, role));
        self.line(area, area.height - 1, &bottom);
        let side = Line::from(self.span(g.vertical, role));
        let last = Rect { x: area.x + area.width - 1, width: 1, ..area };
        for row in 1..area.height - 1 {
            self.line(area, row, &side);
            self.line(last, row, &side);
        }
        Rect { x: area.x + 2, y: area.y + 1, width: area.width.saturating_sub(4), height: area.height - 2 }
    }

    /// Puts the terminal's cursor into an area.
    pub fn place_cursor(&mut self, area: Rect, row: u16, column: usize) {
        if row < area.height && area.width > 0 {
            let column = column.min(usize::from(area.width) - 1) as u16;
            let at = Position { x: area.x + column, y: area.y + row };
            self.cursor = self.buf.area.contains(at).then_some(at);
        }
    }
}

fn row_of(area: Rect, row: u16) -> Option<Rect> {
    (row < area.height && area.width > 0).then(|| Rect { y: area.y + row, height: 1, ..area })
}

/// The first `height` rows of an area, and the rest.
pub(crate) fn split_top(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    (Rect { height, ..area }, Rect { y: area.y + height, height: area.height - height, ..area })
}

/// The first `width` columns of an area and the rest, with a gap between them.
pub(crate) fn split_left(area: Rect, width: u16, gap: u16) -> (Rect, Rect) {
    let width = width.min(area.width);
    let skip = (width + gap).min(area.width);
    (Rect { width, ..area }, Rect { x: area.x + skip, width: area.width - skip, ..area })
}

/// A box of at most this size in the middle of an area.
pub(crate) fn centred(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}

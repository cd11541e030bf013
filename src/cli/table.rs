//! Aligned columns for people. Knows widths, nothing else.

use unicode_width::UnicodeWidthStr;

/// Rows under a heading known when the program is written.
pub(super) struct Table(Grid);

impl Table {
    /// An empty table.
    pub(super) fn new<const N: usize>(heading: [&'static str; N]) -> Self {
        Self(Grid::new(heading.map(str::to_owned).to_vec()))
    }

    /// Adds a row; an empty cell shows as a dash.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.row(cells.to_vec());
    }

    /// The table as text; `empty` says why there is nothing.
    pub(super) fn text(&self, empty: &str) -> String {
        if self.0.rows.is_empty() { format!("{empty}\n") } else { self.0.text() }
    }
}

/// Rows under any heading, each column as wide as its widest cell.
pub(super) struct Grid {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// An empty one.
    pub(super) fn new(heading: Vec<String>) -> Self {
        Self { heading, rows: Vec::new() }
    }

    /// Adds a row; an empty cell shows as a dash.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        let shown = cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        self.rows.push(shown.collect());
    }

    /// All of it.
    pub(super) fn text(&self) -> String {
        let widths: Vec<usize> = (0..self.heading.len())
            .map(|column| {
                let cells = self.rows.iter().chain([&self.heading]).filter_map(|row| row.get(column));
                cells.map(|cell| cell.width()).max().unwrap_or_default()
            })
            .collect();
        let mut text = String::new();
        for row in [&self.heading].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width - cell.width() + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A length of time as people say it: `0.4s`, `12s`, `3m20s`, `5h12m`.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..=9 => format!("{}.{}s", seconds, ms % 1_000 / 100),
        10..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A moment in UTC, to the second.
pub(super) fn clock(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let moment = time::OffsetDateTime::from_unix_timestamp(seconds).ok();
    moment
        .and_then(|moment| moment.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_utc() {
        assert_eq!(clock(0), "1970-01-01T00:00:00Z");
        assert_eq!(clock(951_782_400_999), "2000-02-29T00:00:00Z");
        assert_eq!(clock(u64::MAX), "");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NODE", "STATE"]);
        table.row(["n1".to_owned(), "alive".to_owned()]);
        table.row(["node-twelve".to_owned(), String::new()]);
        assert_eq!(table.text(""), "NODE         STATE\nn1           alive\nnode-twelve  -\n");
    }
}

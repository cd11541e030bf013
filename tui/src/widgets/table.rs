//! A virtual table: only the rows that can be seen are built. Fits its columns into what room there is
//! and leaves out the least important first.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::canvas::{Canvas, split_top};
use crate::rows::{Ctx, Head, Kind, Row};
use crate::table::Table;
use crate::theme::Role;
use crate::words;

/// Below this width a countdown takes two lines, so that its reason and what follows are never cut off.
pub(crate) const TALL_BELOW: u16 = 110;
/// From this width on a countdown's reason need not be cut either.
const WIDE: u16 = 170;
/// Cursor and mark.
const GUTTER: u16 = 2;

/// A titled table. `empty` says why there is nothing.
pub(crate) fn titled(
    canvas: &mut Canvas<'_>,
    area: Rect,
    title: &str,
    table: Option<&Table>,
    ctx: &Ctx<'_>,
    focused: bool,
    empty: &str,
) {
    let right = table.map_or_else(String::new, |table| facts(table, ctx));
    let inner = canvas.rule(area, title, &right, focused);
    if let Some(table) = table {
        draw(canvas, inner, table, ctx, focused, empty);
    }
}

/// Position, filter, order and marks in a few words.
fn facts(table: &Table, ctx: &Ctx<'_>) -> String {
    let mut parts = Vec::new();
    if !table.filter.is_empty() {
        parts.push(format!("/{} {} of {}", table.filter, table.rows.len(), table.total));
    } else if table.total > 0 {
        parts.push(format!("{}/{}", table.at + 1, table.total));
    }
    if let Some((column, reversed)) = table.sort {
        let arrow = if reversed { ctx.glyphs.down } else { ctx.glyphs.up };
        let name = table.id.kind().heads().get(column).map_or("", |head| head.title);
        parts.push(format!("by {} {arrow}", name.to_ascii_lowercase()));
    }
    if !table.marked.is_empty() {
        parts.push(format!("{} marked", table.marked.len()));
    }
    parts.join("  ")
}

/// Header and visible rows.
pub(crate) fn draw(
    canvas: &mut Canvas<'_>,
    area: Rect,
    table: &Table,
    ctx: &Ctx<'_>,
    focused: bool,
    empty: &str,
) {
    if area.height == 0 || area.width == 0 {
        return;
    }
    if table.rows.is_empty() {
        let text = match (&table.wrong, table.filter.is_empty()) {
            (Some(wrong), _) => wrong.clone(),
            (None, false) => format!("none of {} matches /{}; esc shows all", table.total, table.filter),
            (None, true) => empty.to_owned(),
        };
        let lines = words::wrap(&text, usize::from(area.width.saturating_sub(GUTTER)));
        for (row, text) in lines.iter().enumerate().take(usize::from(area.height)) {
            canvas.text(area, row as u16, &format!("  {text}"), Role::Dim);
        }
        return;
    }
    let kind = table.id.kind();
    let mut heads = kind.heads();
    let tall = row_height(kind, area.width);
    if tall == 2 {
        // The second line says the rest.
        heads.truncate(5);
        heads[4].width = 0;
    }
    if kind == Kind::Countdowns && area.width >= WIDE {
        for (column, width) in [(1, 20), (3, 16), (4, 28), (5, 60)] {
            heads[column].width = width;
        }
    }
    let shown = layout(&heads, area.width.saturating_sub(GUTTER), least_rest(kind));
    let body = if area.height > 1 {
        let (top, body) = split_top(area, 1);
        header(canvas, top, &heads, &shown, table);
        body
    } else {
        area
    };
    let height = usize::from(body.height / tall);
    // The cursor stays in the middle where it can, so that what surrounds it is seen.
    let skip = table.at.saturating_sub(height / 2).min(table.rows.len().saturating_sub(height));
    for (row, at) in (skip..table.rows.len().min(skip + height)).enumerate() {
        canvas.rows_built += 1;
        let line = row_line(canvas, table, at, &heads, &shown, ctx, focused);
        let row = row as u16 * tall;
        canvas.line(body, row, &line);
        if let (2, Row::Countdown(c)) = (tall, &table.rows[at]) {
            let then = crate::rows::countdowns::then_text(c, ctx);
            let then = if then.len() > 1 { format!("; {then}") } else { String::new() };
            let text = words::clean(&format!("         {}{then}", c.why));
            canvas.text(body, row + 1, &text, Role::Dim);
        }
        if focused && at == table.at {
            canvas.tint(Rect { y: body.y + row, height: tall, ..body }, Role::Selected);
        }
    }
}

fn header(canvas: &mut Canvas<'_>, area: Rect, heads: &[Head], shown: &[(usize, u16)], table: &Table) {
    let mut spans = vec![Span::raw("  ")];
    for (column, width) in shown {
        let head = heads[*column];
        let sorted = table.sort.is_some_and(|(at, _)| at == *column);
        let role = if sorted { Role::Accent } else { Role::Dim };
        spans.push(canvas.span(padded(head.title, *width, head.right, canvas.glyphs().cut), role));
        spans.push(Span::raw(" "));
    }
    canvas.line(area, 0, &Line::from(spans));
}

fn row_line(
    canvas: &Canvas<'_>,
    table: &Table,
    at: usize,
    heads: &[Head],
    shown: &[(usize, u16)],
    ctx: &Ctx<'_>,
    focused: bool,
) -> Line<'static> {
    let row = &table.rows[at];
    let g = canvas.glyphs();
    let cursor = if focused && at == table.at { g.cursor } else { " " };
    let marked = !table.marked.is_empty() && table.marked.contains(&row.id());
    let mut spans = vec![
        canvas.span(cursor, Role::Accent),
        canvas.span(if marked { g.marked } else { " " }, Role::Accent),
    ];
    for (column, width) in shown {
        let cell = row.cell(*column, ctx);
        spans.push(
            canvas.span(padded(&words::clean(&cell.text), *width, heads[*column].right, g.cut), cell.role),
        );
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

fn padded(text: &str, width: u16, right: bool, cut: &str) -> String {
    let width = usize::from(width);
    let text = words::fit(text, width, cut);
    let fill = " ".repeat(width - text.width().min(width));
    if right { fill + &text } else { text + &fill }
}

/// Lines of one row.
pub(crate) fn row_height(kind: Kind, width: u16) -> u16 {
    if kind == Kind::Countdowns && width < TALL_BELOW { 2 } else { 1 }
}

/// The column that takes what is left is never narrower, as long as others can go.
fn least_rest(kind: Kind) -> u16 {
    match kind {
        Kind::Nodes | Kind::Services | Kind::Instances | Kind::Fencing => 30,
        Kind::Events => 44,
        Kind::Countdowns => 22,
        Kind::Operations | Kind::Links => 12,
    }
}

/// Which columns are shown, each with its width. At least the first is.
fn layout(heads: &[Head], width: u16, least_rest: u16) -> Vec<(usize, u16)> {
    let mut shown: Vec<usize> = (0..heads.len()).collect();
    let needed = |shown: &[usize]| {
        let fixed: u16 = shown.iter().map(|at| heads[*at].width + 1).sum();
        let rest = shown.iter().any(|at| heads[*at].width == 0);
        fixed + if rest { least_rest } else { 0 }
    };
    while needed(&shown) > width && shown.len() > 1 {
        let least = shown.iter().enumerate().max_by_key(|(_, at)| heads[**at].rank);
        match least {
            Some((at, column)) if heads[*column].rank > 0 => {
                shown.remove(at);
            }
            _ => break,
        }
    }
    let fixed: u16 = shown.iter().map(|at| heads[*at].width + 1).sum();
    let rest = width.saturating_sub(fixed);
    shown
        .into_iter()
        .map(|at| (at, if heads[at].width == 0 { rest } else { heads[at].width }))
        .filter(|(_, width)| *width > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Kind;

    #[test]
    fn the_least_important_columns_go_first_and_the_rest_takes_what_is_left() {
        let heads = Kind::Nodes.heads();
        let titles = |width: u16| -> Vec<&str> {
            layout(&heads, width, 18).iter().map(|(at, _)| heads[*at].title).collect()
        };
        assert_eq!(titles(300).len(), heads.len());
        assert_eq!(titles(60), ["STATE", "NODE", "RAFT", "WHY"]);
        for width in 0..200 {
            let sum: u16 = layout(&heads, width, 18).iter().map(|(_, width)| width + 1).sum();
            assert!(width < 60 || sum <= width + 1, "{width}: {sum}");
        }
    }

    #[test]
    fn cells_are_cut_and_padded_to_their_column() {
        assert_eq!(padded("abc", 5, true, "~"), "  abc");
        assert_eq!(padded("abcdef", 4, false, "~"), "abc~");
    }
}

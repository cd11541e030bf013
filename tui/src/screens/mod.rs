//! The screens, one file each. Views are pure: they read the cockpit's memory and write cells.

pub(crate) mod fencing;
pub(crate) mod links;
pub(crate) mod lists;
pub(crate) mod logs;
pub(crate) mod node;
pub(crate) mod overview;
pub(crate) mod service;

use ratatui::layout::Rect;

use crate::app::{App, Pane};
use crate::canvas::Canvas;
use crate::rows::Ctx;
use crate::table::TableId;
use crate::widgets::table;

/// A titled table of the cockpit's memory.
pub(crate) fn pane(
    canvas: &mut Canvas<'_>,
    area: Rect,
    app: &App,
    ctx: &Ctx<'_>,
    id: TableId,
    title: &str,
    empty: &str,
) {
    let focused = app.pane() == Pane::Table(id);
    table::titled(canvas, area, title, app.tables.get(&id), ctx, focused, empty);
}

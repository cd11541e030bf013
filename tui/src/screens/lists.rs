//! The screens that are one table: nodes, services, operations, events.

use quorate_core::view::ClusterView;
use ratatui::layout::Rect;

use super::pane;
use crate::app::App;
use crate::canvas::Canvas;
use crate::table::TableId;

pub(crate) fn nodes(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) {
    pane(canvas, area, app, &app.ctx(view), TableId::Nodes, "2 NODES", "no node is known");
}

pub(crate) fn services(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) {
    let empty = "no service is deployed; press d to write one, or run quorate deploy -f FILE";
    pane(canvas, area, app, &app.ctx(view), TableId::Services, "3 SERVICES", empty);
}

pub(crate) fn operations(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) {
    let empty = "nothing is under way and nothing was lately: drains (D), migrations (m), rollouts and fencing (F) show here";
    pane(canvas, area, app, &app.ctx(view), TableId::Operations, "4 OPERATIONS", empty);
}

pub(crate) fn events(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) {
    let empty = "nothing happened since this node started to record";
    pane(canvas, area, app, &app.ctx(view), TableId::Events, "5 EVENTS, newest first", empty);
}

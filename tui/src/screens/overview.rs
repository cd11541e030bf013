//! The first screen: what will happen by itself, nodes, services with the worst first, what is under
//! way, what just happened. While the cluster is apart: the sides, what stops and why, fencing, the timeline.
//! Shares its rows out by importance.

use quorate_core::view::ClusterView;
use ratatui::layout::Rect;

use super::pane;
use crate::app::{App, ROOMY};
use crate::canvas::{Canvas, split_left, split_top};
use crate::rows::Kind;
use crate::table::TableId;
use crate::widgets::{fences, reach, table};

/// From here on nodes and services stand side by side.
const WIDE: u16 = 160;

/// From here on the sides of a split and the links stand side by side.
const BESIDE: u16 = 110;

/// A pane's claim to rows: the least with which it is of use, and all it could use.
#[derive(Debug, Clone, Copy)]
struct Claim {
    least: u16,
    most: u16,
}

fn rows(app: &App, id: TableId) -> u16 {
    app.tables.get(&id).map_or(0, |table| u16::try_from(table.total).unwrap_or(u16::MAX))
}

/// Rule, header and this many rows, none at all where there is nothing.
fn claim(count: u16, least: u16, most: u16) -> Claim {
    if count == 0 {
        return Claim { least: 0, most: 0 };
    }
    Claim { least: count.min(least) + 2, most: count.min(most).saturating_add(2) }
}

/// Gives each claim its least in turn, then shares what is left in the same order.
fn share(claims: &[Claim], height: u16) -> Vec<u16> {
    let mut left = height;
    let mut given: Vec<u16> = claims
        .iter()
        .map(|claim| {
            // Less than a rule, a header and a row says nothing.
            let take = if left >= claim.least.min(3) { claim.least.min(left) } else { 0 };
            left -= take;
            take
        })
        .collect();
    for (given, claim) in given.iter_mut().zip(claims) {
        if *given > 0 {
            let more = claim.most.saturating_sub(*given).min(left);
            *given += more;
            left -= more;
        }
    }
    given
}

/// While the cluster is split: the sides and, where there is room, who reaches whom. Returns what is left.
fn split(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) -> Rect {
    let sides = reach::sides(canvas, view, app.age_ms());
    let beside = area.width >= BESIDE;
    let wanted = if beside { sides.len().max(view.nodes.len() + 1) } else { sides.len() };
    let height = u16::try_from(wanted + 1).unwrap_or(u16::MAX).min(area.height / 2);
    let (band, rest) = split_top(area, height);
    let left = if beside {
        split_left(band, area.width - reach::matrix_width(view).min(area.width * 3 / 5), 2)
    } else {
        (band, Rect { width: 0, ..band })
    };
    let inner = canvas.rule(left.0, "SIDES: who can decide", "", false);
    canvas.lines(inner, &sides, 0);
    if beside {
        let inner = canvas.rule(left.1, "7 LINKS, the best of all segments", "", false);
        let lines = reach::matrix(canvas, view, None, app.age_ms(), (inner.width, inner.height));
        canvas.lines(inner, &lines, 0);
    }
    rest
}

/// What stops and why by its deadline, fencing and the timeline; services and nodes where there is room.
fn incident(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) {
    let ctx = app.ctx(view);
    let area = split(canvas, area, app, view);
    let beside = area.width >= BESIDE;
    let width = if beside { area.width / 2 } else { area.width };
    let fencing = fences::lines(canvas, view, app.age_ms(), usize::from(width));
    let fence_rows = u16::try_from(fencing.len()).unwrap_or(u16::MAX);
    let tall = table::row_height(Kind::Countdowns, area.width);
    let soon = claim(rows(app, TableId::Countdowns).saturating_mul(tall), 2 * tall, 12 * tall);
    let happened = claim(rows(app, TableId::Timeline).max(1), 3, u16::MAX);
    let fence = Claim { least: fence_rows.min(3) + 1, most: fence_rows.saturating_add(1) };
    let roomy = app.size.1 >= ROOMY;
    let listed = |id: TableId, most: u16| match roomy {
        true => claim(rows(app, id), 3, most),
        false => Claim { least: 0, most: 0 },
    };
    let (services, nodes) = (listed(TableId::TopServices, 30), listed(TableId::TopNodes, 9));
    let running = claim(rows(app, TableId::Running), 1, 4);
    let running = if roomy { running } else { Claim { least: 0, most: 0 } };
    let heights = if beside {
        let both =
            Claim { least: fence.least.max(happened.least), most: fence.most.max(happened.most.min(14)) };
        share(&[soon, both, services, nodes, running], area.height)
    } else {
        let parts = share(&[soon, fence, happened, services, nodes, running], area.height);
        vec![parts[0], parts[1] + parts[2], parts[3], parts[4], parts[5]]
    };
    let affected = format!("{} services", view.services.len());
    let (top, rest) = split_top(area, heights[0]);
    if top.height > 0 {
        let title = format!("WHAT STOPS, STARTS OR STAYS, AND WHY: by deadline, of {affected}");
        pane(canvas, top, app, &ctx, TableId::Countdowns, &title, "");
    }
    let (both, mut rest) = split_top(rest, heights[1]);
    let (left, right) = if beside {
        split_left(both, both.width / 2, 2)
    } else {
        split_top(both, fence.most.min(both.height.saturating_sub(happened.least)).max(fence.least))
    };
    if left.height > 1 {
        let inner = canvas.rule(left, "8 FENCING", "", false);
        canvas.lines(inner, &fencing, 0);
    }
    if right.height > 1 {
        pane(canvas, right, app, &ctx, TableId::Timeline, "5 TIMELINE, newest first", "nothing happened yet");
    }
    for (height, id, title) in [
        (heights[2], TableId::TopServices, "3 SERVICES"),
        (heights[3], TableId::TopNodes, "2 NODES"),
        (heights[4], TableId::Running, "4 UNDER WAY"),
    ] {
        let (here, below) = split_top(rest, height);
        if here.height > 1 {
            pane(canvas, here, app, &ctx, id, title, "");
        }
        rest = below;
    }
}

pub(crate) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, view: &ClusterView) {
    if app.incident() {
        return incident(canvas, area, app, view);
    }
    let ctx = app.ctx(view);
    let nodes = Claim {
        least: rows(app, TableId::TopNodes).clamp(1, 3) + 2,
        ..claim(rows(app, TableId::TopNodes), 3, 9)
    };
    let nodes = Claim { most: nodes.most.max(nodes.least), ..nodes };
    let services = rows(app, TableId::TopServices);
    let services = Claim { least: services.clamp(1, 5) + 2, most: services.max(1).saturating_add(2) };
    let tall = table::row_height(Kind::Countdowns, area.width);
    let soon = claim(rows(app, TableId::Countdowns).saturating_mul(tall), 3 * tall, 8 * tall);
    let running = claim(rows(app, TableId::Running), 2, 8);
    let events = claim(rows(app, TableId::Timeline).max(1), 2, u16::MAX);
    let heights = if area.width >= WIDE {
        let both = Claim { least: nodes.least.max(services.least), most: nodes.most.max(services.most) };
        share(&[soon, both, running, events], area.height)
    } else {
        share(&[soon, services, running, nodes, events], area.height)
    };
    let (top, mut rest) = split_top(area, heights[0]);
    if top.height > 0 {
        pane(canvas, top, app, &ctx, TableId::Countdowns, "WHAT WILL HAPPEN BY ITSELF", "");
    }
    let none = "no service yet: press d to deploy one";
    if area.width >= WIDE {
        let (both, below) = split_top(rest, heights[1]);
        let (left, right) = split_left(both, area.width / 2, 2);
        pane(canvas, left, app, &ctx, TableId::TopNodes, "2 NODES", "no node is known");
        pane(canvas, right, app, &ctx, TableId::TopServices, "3 SERVICES", none);
        rest = below;
        if heights[2] > 0 {
            let (running, below) = split_top(rest, heights[2]);
            pane(canvas, running, app, &ctx, TableId::Running, "4 UNDER WAY", "");
            rest = below;
        }
        pane(canvas, rest, app, &ctx, TableId::Timeline, "5 EVENTS, newest first", "nothing happened yet");
        return;
    }
    let (nodes, below) = split_top(rest, heights[3]);
    if nodes.height > 0 {
        pane(canvas, nodes, app, &ctx, TableId::TopNodes, "2 NODES", "no node is known");
    }
    let (services, below) = split_top(below, heights[1]);
    if services.height > 0 {
        pane(canvas, services, app, &ctx, TableId::TopServices, "3 SERVICES", none);
    }
    let (running, below) = split_top(below, heights[2]);
    if running.height > 0 {
        pane(canvas, running, app, &ctx, TableId::Running, "4 UNDER WAY", "");
    }
    if below.height > 1 {
        pane(canvas, below, app, &ctx, TableId::Timeline, "5 EVENTS, newest first", "nothing happened yet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_the_most_important_first_and_never_beyond_the_screen() {
        let claims =
            [Claim { least: 6, most: 12 }, Claim { least: 7, most: 30 }, Claim { least: 4, most: 90 }];
        assert_eq!(share(&claims, 100), [12, 30, 58]);
        assert_eq!(share(&claims, 20), [9, 7, 4]);
        assert_eq!(share(&claims, 8), [8, 0, 0]);
        for height in 0..60 {
            assert!(share(&claims, height).iter().sum::<u16>() <= height);
        }
    }
}
